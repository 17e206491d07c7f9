package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"msee/api"
	"msee/edge"
	"msee/netns"
)

// soakFor is how long TestSoak keeps the load up. `make soak` sets it to 30
// minutes; the suite's own run only shows that the test works.
var soakFor = flag.Duration("soak", 12*time.Second, "how long TestSoak keeps the load up")

// What a device may have more of after the load than soon after its begin. A
// leak of one per round or second is far beyond in half an hour.
const (
	soakMoreRSS        = 24 << 20 // octets: Go's heap swings
	soakMoreFDs        = 4
	soakMoreThreads    = 6
	soakMoreGoroutines = 10
)

// TestSoak carries a mixed load for a long time: TCP both ways, small UDP, pings,
// a configuration that is loaded again and again. What the devices hold must
// not grow, and their counters must add up, to the frame, with each other and
// with what the kernel counted at their links.
func TestSoak(t *testing.T) {
	l := startLab(t, "default", "gw0", "gw1")
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor)
	defer cancel()
	start := map[string]portCounts{}
	for device := range devices {
		start[device] = l.countPorts(device)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.soakLoad(ctx)
	}()
	l.soakReloads(ctx, *soakFor/10)
	before := l.holdings()
	<-ctx.Done()
	<-done
	time.Sleep(time.Second) // for the last frames
	after := l.holdings()
	for device, was := range before {
		now := after[device]
		t.Logf("%s: %v, at the end %v", device, was, now)
		if now.rss > was.rss+soakMoreRSS || now.fds > was.fds+soakMoreFDs ||
			now.threads > was.threads+soakMoreThreads || now.goroutines > was.goroutines+soakMoreGoroutines {
			t.Errorf("%s holds more and more: %v after %v of load, %v at the end", device, was, *soakFor/10, now)
		}
	}
	for device := range devices {
		l.portsAddUp(device, start[device])
	}
}

// soakLoad runs rounds of iperf3 and ping until ctx ends.
func (l *testLab) soakLoad(ctx context.Context) {
	server := exec.CommandContext(ctx, "iperf3", "-s", "-B", "10.100.1.10")
	if err := netns.Do(l.ns("vm"), server.Start); err != nil {
		l.t.Errorf("iperf3 server: %v", err)
		return
	}
	defer server.Wait()
	loads := [][]string{
		{"-P", "2"}, {"-P", "2", "-R"}, {"--bidir"}, {"-M", "536"}, {"-u", "-b", "0", "-l", "18"}, {"-u", "-b", "500M", "-l", "1300", "-R"},
	}
	pinger := exec.CommandContext(ctx, "ping", "-q", "-n", "-i", "0.01", "10.100.1.10")
	if err := netns.Do(l.ns("onprem"), pinger.Start); err != nil {
		l.t.Errorf("ping: %v", err)
		return
	}
	defer pinger.Wait()
	rounds := 0
	for ctx.Err() == nil {
		argv := append([]string{"iperf3", "-c", "10.100.1.10", "-t", "2", "-i", "0"}, loads[rounds%len(loads)]...)
		out, err := l.try("onprem", argv...)
		if err == nil {
			rounds++
		} else if ctx.Err() == nil && !strings.Contains(out, "refused") && !strings.Contains(out, "busy") {
			l.t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
			return
		}
	}
	l.t.Logf("%d rounds of load", rounds)
	if rounds < 2 {
		l.t.Errorf("only %d rounds of load", rounds)
	}
}

// soakReloads has the devices load their configuration every second for a while.
func (l *testLab) soakReloads(ctx context.Context, during time.Duration) {
	for end := time.Now().Add(during); time.Now().Before(end); {
		for device := range devices {
			if _, err := api.NewClient(l.ns(device)).Reload(); err != nil {
				l.t.Errorf("reload %s: %v", device, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// holding is what a process holds.
type holding struct{ rss, fds, threads, goroutines int }

func (h holding) String() string {
	return fmt.Sprintf("%d MB, %d descriptors, %d threads, %d goroutines", h.rss>>20, h.fds, h.threads, h.goroutines)
}

func (l *testLab) holdings() map[string]holding {
	l.t.Helper()
	all := map[string]holding{}
	for device := range devices {
		status, err := api.NewClient(l.ns(device)).Device()
		if err != nil {
			l.t.Fatal(err)
		}
		proc := filepath.Join("/proc", strconv.Itoa(status.PID))
		h := holding{goroutines: status.Goroutines}
		for dir, n := range map[string]*int{"fd": &h.fds, "task": &h.threads} {
			entries, err := os.ReadDir(filepath.Join(proc, dir))
			if err != nil {
				l.t.Fatal(err)
			}
			*n = len(entries)
		}
		statm, err := os.ReadFile(filepath.Join(proc, "statm"))
		if err != nil {
			l.t.Fatal(err)
		}
		pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
		if err != nil {
			l.t.Fatal(err)
		}
		h.rss = pages * os.Getpagesize()
		all[device] = h
	}
	return all
}

// portCounts are, by port, what the kernel counted in at its link, less what
// the MSEE counts of it: no more than frames that came before it listened.
type portCounts map[string]int64

// countPorts takes the difference of each port: the least of several moments when nothing
// comes, as a frame may be in a ring that the worker has not come to yet.
func (l *testLab) countPorts(device string) portCounts {
	l.t.Helper()
	counts := portCounts{}
	for range 10 {
		for _, p := range l.stillPorts(device) {
			n := int64(p.link) - int64(p.RxFrames+p.RxDropped)
			if least, known := counts[p.Name]; !known || n < least {
				counts[p.Name] = n
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return counts
}

type countedPort struct {
	edge.PortStatus
	link uint64
}

// stillPorts returns the ports' counters between two looks at the links that
// saw the same. Sessions and probes go on, so it may take some.
func (l *testLab) stillPorts(device string) (ports []countedPort) {
	l.t.Helper()
	links := func(status []edge.PortStatus) (received []uint64) {
		for _, p := range status {
			err := netns.Do(l.ns(device), func() error {
				link, err := netlink.LinkByName(p.Device)
				if err == nil {
					received = append(received, link.Attrs().Statistics.RxPackets)
				}
				return err
			})
			if err != nil {
				l.t.Fatal(err)
			}
		}
		return received
	}
	eventually(l.t, 20*time.Second, "a quiet moment at "+device, func() error {
		status, err := api.NewClient(l.ns(device)).Ports()
		if err != nil {
			return err
		}
		before := links(status)
		if status, err = api.NewClient(l.ns(device)).Ports(); err != nil {
			return err
		}
		after := links(status)
		ports = nil
		for i, p := range status {
			if before[i] != after[i] {
				return fmt.Errorf("port %s is busy", p.Name)
			}
			ports = append(ports, countedPort{p, after[i]})
		}
		return nil
	})
	return ports
}

// portsAddUp wants of each port that what its link received is what it received
// or lost, and that the verdicts are those of the frames received, once the worker has come
// to all of them.
func (l *testLab) portsAddUp(device string, start portCounts) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, device+"'s ports add up", func() error {
		for _, p := range l.stillPorts(device) {
			if got := int64(p.link) - int64(p.RxFrames+p.RxDropped); got != start[p.Name] {
				return fmt.Errorf("port %s: the link received %d, the port %d and lost %d: %d are missing",
					p.Name, p.link, p.RxFrames, p.RxDropped, got-start[p.Name])
			}
			var sum uint64
			for _, n := range p.Verdicts {
				sum += n
			}
			if sum != p.RxFrames {
				return fmt.Errorf("port %s: verdicts add up to %d, frames received to %d", p.Name, sum, p.RxFrames)
			}
		}
		return nil
	})
}
