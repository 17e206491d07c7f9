package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
)

// holdTime is what the topologies negotiate.
const holdTime = 10 * time.Second

// told is what an outage may last that nobody finds out by a timer, on a machine where who is
// told has no processor for a while. How long it really lasts test/losses measures.
const told = 3 * time.Second

// The probes of failover tests: as many flows as make sure that both MSEEs
// have some, each way.
const (
	probeFlows = 16
	probeRate  = 100 // per second
)

// startProbes sends from on-premises to the VM by both MSEEs.
func startProbes(l *testLab) *probe {
	l.t.Helper()
	// By default Linux chooses among equal paths by addresses alone.
	for _, node := range []string{"ce", "vm"} {
		l.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	}
	p := l.startProbe("onprem", "vm", "10.100.1.10", probeFlows, probeRate)
	p.healthy(l.t, 20*time.Second)
	return p
}

// TestFailover ends each MSEE in turn and wants the other to carry its traffic,
// and the first to have its share again when it is back.
func TestFailover(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	p := startProbes(l)
	for _, node := range []string{"msee1", "msee2"} {
		ok := t.Run("kill "+node, func(t *testing.T) {
			l := l.in(t)
			// Nobody is told; the peers find out when the hold time is over.
			x, command := killAndRecover(l, p, node, syscall.SIGKILL, holdTime+10*time.Second)
			if x.lost == 0 {
				t.Errorf("no probe was lost: %s had no traffic", node)
			}
			if x.outage() > holdTime+3*time.Second {
				t.Errorf("%v; want all within the hold time of %v", x, holdTime)
			}
			comesBack(t, l, p, node, command)
		})
		if !ok {
			return
		}
	}
	t.Run("stop msee1", func(t *testing.T) {
		l := l.in(t)
		x, command := killAndRecover(l, p, "msee1", syscall.SIGTERM, 10*time.Second)
		if x.outage() > told || x.lost > int(told.Seconds())*probeRate {
			t.Errorf("after SIGTERM: %v; want less than %v", x, told)
		}
		// A Cease has told the CE, and not a timer.
		eventually(t, 20*time.Second, "the CE receives a Cease", func() error {
			if !l.notified("ce", "192.168.15.18", "6/") {
				return errors.New("it has not")
			}
			return nil
		})
		comesBack(t, l, p, "msee1", command)
	})
}

// notified reports whether an FRR's log has a NOTIFICATION of a neighbor that
// begins with that code. What bgpd shows as the last reset is BFD's, as a rule,
// which comes after.
func (l *testLab) notified(node, neighbor, code string) bool {
	return l.logged(node, "received from neighbor "+neighbor+" "+code)
}

// logged reports whether a node's logs have that.
func (l *testLab) logged(node, what string) bool {
	for name, text := range l.logs() {
		if strings.HasPrefix(name, node+".") && strings.Contains(text, what) {
			return true
		}
	}
	return false
}

// killAndRecover ends a device and waits until all probes are answered again.
func killAndRecover(l *testLab, p *probe, node string, sig syscall.Signal, within time.Duration) (losses, []string) {
	l.t.Helper()
	begin := p.now()
	command := l.kill(node, sig)
	p.healthy(l.t, within)
	x := p.since(l.t, begin)
	l.t.Logf("%s of %s: %v", sig, node, x)
	return x, command
}

// comesBack starts a device again and wants it to forward as before.
func comesBack(t *testing.T, l *testLab, p *probe, node string, command []string) {
	t.Helper()
	begin := p.now()
	l.start(node, command...)
	l.awaitSessions(30*time.Second, "msee1", "msee2", "gw0", "gw1")
	l.awaitRoutes("gw0", "gw1")
	eventually(t, 20*time.Second, node+" has traffic again", func() error {
		for _, port := range show[edge.PortStatus](l, node, "ports") {
			if n := port.Verdicts["transmit"]; n < probeRate {
				return fmt.Errorf("port %s forwarded %d frames", port.Name, n)
			}
		}
		return nil
	})
	p.healthy(t, 10*time.Second)
	x := p.since(t, begin)
	t.Logf("return of %s: %v", node, x)
	if x.outage() > told {
		t.Errorf("return of %s: %v; want less than %v", node, x, told)
	}
}

// TestSpeakerCrash ends the BGP process of devices, and makes one hang, under
// iperf3 and a probe of 1,000 packets per second: with graceful restart nothing
// is lost, on whichever side, with a second MSEE or without.
func TestSpeakerCrash(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	for _, node := range []string{"ce", "vm"} {
		l.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	}
	p := l.startProbe("onprem", "vm", "10.100.1.10", probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	crash := func(name, node string, sig syscall.Signal) {
		t.Run(name, func(t *testing.T) {
			// A machine that has more to do than processors drops frames of iperf3's
			// 500 Mb/s by itself, and FRR's BFD may time out. What the crash costs, it
			// costs each time.
			const tries = 3
			for try := range tries {
				x := crashSpeaker(t, l.in(t), p, node, sig)
				if x.lost == 0 {
					return
				}
				t.Logf("try %d of %d: frames were lost: %v", try+1, tries, x)
			}
			t.Error("frames were lost each time")
		})
	}
	crash("dual-homed", "msee1", syscall.SIGKILL)
	crash("gateway", "gw0", syscall.SIGKILL)
	l.vtysh("ce", "configure terminal", "router bgp 65001", "neighbor 192.168.15.22 shutdown", "neighbor 2001:db8:0:14::2 shutdown")
	eventually(t, 20*time.Second, "msee2 without the customer", func() error {
		s, err := l.session("msee2", "er1-private", "192.168.15.21")
		if err == nil && s.State == bgp.StateEstablished {
			err = errors.New("the session is up")
		}
		return err
	})
	p.healthy(t, 10*time.Second)
	crash("single-homed", "msee1", syscall.SIGKILL)
	crash("single-homed, hung", "msee1", syscall.SIGSTOP)
	for _, a := range show[edge.AuditStatus](l, "msee1", "audit", "--now") {
		if a.Repaired != 0 || a.Audits == 0 {
			t.Errorf("the audit of %s: %+v", a.VRF, a)
		}
	}
}

// crashSpeaker sends sig to node's speaker, waits until another has taken over, and
// tells what the probe lost.
func crashSpeaker(t *testing.T, l *testLab, p *probe, node string, sig syscall.Signal) losses {
	pid := l.pid(node)
	speaker := speakerOf(t, pid)
	iperf := make(chan float64, 1)
	go func() {
		defer close(iperf) // also if it fails the test
		iperf <- l.iperf3("onprem", "vm", "10.100.1.10", false, "-t", "12", "-b", "500M")
	}()
	began, begin := time.Now(), p.now()
	if err := syscall.Kill(speaker, sig); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "another speaker", func() error {
		now, err := findSpeaker(pid)
		if err == nil && now == speaker {
			err = fmt.Errorf("it is still process %d", speaker)
		}
		return err
	})
	replaced := time.Since(began)
	eventually(t, 30*time.Second, "sessions as before", func() error {
		for _, s := range show[edge.SessionStatus](l, node, "bgp") {
			if s.State != bgp.StateEstablished || s.Since.Before(began) {
				return fmt.Errorf("session %s: %s since %v; want it new", s.Session, s.State, s.Since)
			}
		}
		return nil
	})
	t.Logf("replaced after %v, sessions back after %v", replaced.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	eventually(t, 20*time.Second, "no stale routes", func() error {
		for _, r := range show[edge.RouteStatus](l, node, "routes") {
			for _, path := range r.Paths {
				if path.Stale {
					return fmt.Errorf("%s by %s is stale", r.Prefix, path.NextHop)
				}
			}
		}
		return nil
	})
	rate := <-iperf
	p.healthy(t, 10*time.Second)
	x := p.since(t, begin)
	t.Logf("%v; iperf3 had %.2f Gb/s", x, rate)
	if now := l.pid(node); now != pid {
		t.Errorf("%s is process %d now, it was %d", node, now, pid)
	}
	return x
}

func speakerOf(t *testing.T, pid int) int {
	t.Helper()
	child, err := findSpeaker(pid)
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// findSpeaker returns the child of a device's process that speaks BGP.
func findSpeaker(pid int) (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		children, _ := os.ReadFile(task) // the thread may have ended
		for _, c := range strings.Fields(string(children)) {
			line, _ := os.ReadFile("/proc/" + c + "/cmdline")
			if strings.Contains(string(line), "\x00speaker") {
				return strconv.Atoi(c)
			}
		}
	}
	return 0, fmt.Errorf("process %d has no speaker", pid)
}
