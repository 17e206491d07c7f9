package test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"msee/bfd"
	"msee/dataplane"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/edge"
	"msee/netns"
	"msee/vlan"
)

// The soak: BFD sessions between two routers on one link, which iperf3 fills both
// ways while both take in a storm of routes. Not one may go down.
var (
	bfdSoakFor      = flag.Duration("bfdsoak", 5*time.Second, "how long the BFD soak lasts")
	bfdSoakInterval = flag.Duration("bfdsoak.interval", 100*time.Millisecond, "its interval, × 3")
	bfdSoakSessions = flag.Int("bfdsoak.sessions", 64, "its sessions")
	bfdSoakRate     = flag.String("bfdsoak.rate", "0", "what iperf3 sends each way (iperf3 -b); 0: all it can")
	bfdSoakRoutes   = flag.Int("bfdsoak.routes", 100_000, "routes of the storm, added and removed without end; 0: none")
)

func TestBFDSoak(t *testing.T) {
	needsLab(t)
	// As the daemon does, for its workers.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 4))
	if err := edge.Hasten(); err != nil {
		t.Fatal(err)
	}
	defer edge.Unhasten()
	b := newBFDSoak(t)
	b.up(t)
	ctx, cancel := context.WithTimeout(t.Context(), *bfdSoakFor)
	defer cancel()
	var load sync.WaitGroup
	load.Go(func() { b.iperf(ctx, t) })
	storms := 0
	if *bfdSoakRoutes > 0 {
		load.Go(func() { storms = b.storm(ctx) })
	}
	<-ctx.Done()
	load.Wait()
	v := b.verdict(t)
	t.Logf("%d sessions of %v × 3 for %v under %s and %d storms of %d routes, load %s: %d false downs (%d of them of peers that had been silent for the detection time, %d of peers that had not); packets late by less than %v (half), %v (99 %%), %v (all), longest silence %v; %d late looks, %d loans of precedence to threads, %d to the process",
		*bfdSoakSessions, *bfdSoakInterval, *bfdSoakFor, b.carried, storms, *bfdSoakRoutes, loadAverage(), v.downs, v.silent, v.expired-v.silent,
		v.late.Quantile(0.5), v.late.Quantile(0.99), v.late.Quantile(1), v.silence.Round(time.Millisecond), v.lateLooks, v.loans, v.rescues)
	if v.downs > 0 {
		t.Errorf("VERDICT: failed: %d sessions went down although nobody was dead; lateness of what was sent: %v", v.downs, v.late.Classes())
		return
	}
	t.Logf("VERDICT: passed: no session of %d went down", 2**bfdSoakSessions)
}

// soakVerdict is what the sessions of a soak say in the end.
type soakVerdict struct {
	downs, expired int // from Up; by our own detection time, not in consequence of the peer's
	silent         int // of the expired: the peer had been silent for the detection time, so it was late and we were right
	late           bfd.Lateness
	silence        time.Duration // the longest of anybody
	lateLooks      uint64
	loans, rescues uint64 // of precedence, to threads and to the process
}

func (b *bfdSoak) verdict(t *testing.T) (v soakVerdict) {
	var status [2]map[string]dataplane.BFDStatus
	for i, r := range b.routers {
		status[i] = map[string]dataplane.BFDStatus{}
		for _, st := range r.engine.BFDStatus(1) {
			status[i][st.Name] = st
		}
		for _, s := range r.sessions {
			rep := s.Report()
			v.downs += int(rep.Downs)
			if rep.State != bfd.Up {
				t.Errorf("%s: %v (%v)", s.Name, rep.State, rep.Diag)
			}
		}
		loans, rescues := r.engine.Loans()
		v.loans, v.rescues = v.loans+loans, v.rescues+rescues
	}
	for i := range status {
		for name, st := range status[i] {
			n := int(st.Counters.Downs[bfd.DiagTimeExpired])
			v.expired += n
			silence := time.Duration(status[1-i][name].Counters.LongestSilence)
			if v.silence = max(v.silence, silence); silence >= 3**bfdSoakInterval*9/10 {
				v.silent += n
			}
			v.lateLooks += st.Counters.LateLooks
			v.late.Merge(&st.LatenessHistogram)
		}
	}
	return v
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}

// bfdSoak is two routers, x and y, a link between them and a host behind each.
type bfdSoak struct {
	routers [2]*bfdSoakRouter
	hosts   [2]string
	carried string // what iperf3 says
}

type bfdSoakRouter struct {
	engine   *dataplane.Engine
	ports    []*dataplane.Port
	table    *fib.Table[*dataplane.NextHopGroup]
	sessions []*dataplane.BFDSession
}

func newBFDSoak(t *testing.T) *bfdSoak {
	b := &bfdSoak{hosts: [2]string{"soak.a", "soak.b"}}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	link := func(a, b string) {
		ip("link", "add", "name", a, "type", "veth", "peer", "name", b)
		t.Cleanup(func() { exec.Command("ip", "link", "del", a).Run() })
		ip("link", "set", a, "up", "mtu", "9000")
		ip("link", "set", b, "up", "mtu", "9000")
	}
	link("soakx1", "soaky1")
	for i, h := range b.hosts {
		ip("netns", "add", h)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", h).Run() })
		ours, theirs := fmt.Sprintf("soak%c0", 'x'+i), fmt.Sprintf("soakh%d", i)
		link(ours, theirs)
		ip("link", "set", theirs, "netns", h, "address", fmt.Sprintf("02:00:00:00:aa:%02x", i))
		in := func(args ...string) { ip(append([]string{"-n", h}, args...)...) }
		in("addr", "add", fmt.Sprintf("10.%d.0.10/24", i+1), "dev", theirs)
		in("link", "set", theirs, "up", "mtu", "1500")
		in("link", "set", "lo", "up")
		ip("link", "set", ours, "address", fmt.Sprintf("02:00:00:00:bb:%02x", i))
		in("neigh", "add", fmt.Sprintf("10.%d.0.1", i+1), "lladdr", fmt.Sprintf("02:00:00:00:bb:%02x", i), "dev", theirs)
		in("route", "add", "default", "via", fmt.Sprintf("10.%d.0.1", i+1))
	}
	var open [2][2]port.Port
	for i := range 2 {
		for j := range 2 {
			p, err := port.OpenPacket(port.PacketConfig{Device: fmt.Sprintf("soak%c%d", 'x'+i, j)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			open[i][j] = p
		}
	}
	for i := range 2 {
		b.routers[i] = newBFDSoakRouter(t, i, open[i], open[1-i][1].MAC())
	}
	return b
}

// newBFDSoakRouter makes router i: port 0 to its host, port 1 to the other router.
func newBFDSoakRouter(t *testing.T, i int, ports [2]port.Port, other port.MAC) *bfdSoakRouter {
	r := &bfdSoakRouter{engine: dataplane.NewEngine(slog.New(slog.DiscardHandler)), table: fib.New[*dataplane.NextHopGroup]()}
	t.Cleanup(r.engine.Close)
	r.engine.GuardBy([]string{msee(t), "guard"})
	sub := func(name string, port int, vlanID uint16, addr string) *dataplane.Subinterface {
		p := netip.MustParsePrefix(addr)
		return &dataplane.Subinterface{Name: name, Port: port, Outer: vlanID, MTU: 1500, Addr4: p.Addr(), Subnet4: p.Masked(), Counters: new(dataplane.Counters)}
	}
	neighbor := func(s *dataplane.Subinterface, addr string, dst port.MAC) *dataplane.Adjacency {
		a := dataplane.NewAdjacency(s.Name, netip.MustParseAddr(addr))
		a.Resolve(&dataplane.Rewrite{Out: s, Header: vlan.NewHeader(dst, ports[s.Port].MAC(), 0x8100, s.Outer, 0)})
		return a
	}
	route := func(prefix string, g *dataplane.NextHopGroup) {
		r.table = r.table.With([]fib.Change[*dataplane.NextHopGroup]{{Prefix: netip.MustParsePrefix(prefix), Value: g}})
	}
	forward := func(a *dataplane.Adjacency) *dataplane.NextHopGroup {
		return &dataplane.NextHopGroup{Kind: dataplane.Forward, Members: []*dataplane.Adjacency{a}}
	}
	host := sub("host", 0, 0, fmt.Sprintf("10.%d.0.1/24", i+1))
	transit := []*dataplane.Subinterface{sub("transit", 1, 0, fmt.Sprintf("172.30.0.%d/30", i+1))}
	route(fmt.Sprintf("10.%d.0.0/24", i+1), forward(neighbor(host, fmt.Sprintf("10.%d.0.10", i+1), port.MAC{2, 0, 0, 0, 0xaa, byte(i)})))
	route(fmt.Sprintf("10.%d.0.0/24", 2-i), forward(neighbor(transit[0], fmt.Sprintf("172.30.0.%d", 2-i), other)))
	for n := range *bfdSoakSessions {
		s := sub(fmt.Sprintf("link.%d", n+1), 1, uint16(n+1), fmt.Sprintf("172.31.%d.%d/30", n, i+1))
		transit = append(transit, s)
		route(s.Addr4.String()+"/32", &dataplane.NextHopGroup{Kind: dataplane.Local})
		peer := fmt.Sprintf("172.31.%d.%d", n, 2-i)
		r.sessions = append(r.sessions, dataplane.NewBFDSession(dataplane.BFDSession{Name: s.Name, Interface: s.Name,
			Local: s.Addr4, Peer: netip.MustParseAddr(peer), Adjacency: neighbor(s, peer, other),
			Config: bfd.Config{MyDiscriminator: dataplane.NewDiscriminator(), DesiredMinTx: *bfdSoakInterval, RequiredMinRx: *bfdSoakInterval, DetectMult: 3}}))
	}
	for j, subs := range [][]*dataplane.Subinterface{{host}, transit} {
		if err := r.engine.AddPort(j, ports[j], dataplane.AnyCPU); err != nil {
			t.Fatal(err)
		}
		r.ports = append(r.ports, dataplane.NewPort(j, ports[j].Name(), ports[j], 0x8100, new(dataplane.PortCounters), subs, nil))
	}
	r.publish()
	if err := r.engine.SetBFD(1, r.sessions); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *bfdSoakRouter) publish() {
	r.engine.Publish(&dataplane.Snapshot{Ports: r.ports, VRFs: []dataplane.VRF{{Name: "soak", FIB: r.table}}})
}

// up waits until all sessions run at full rate.
func (b *bfdSoak) up(t *testing.T) {
	eventually(t, 20*time.Second, "all sessions are up", func() error {
		for _, r := range b.routers {
			rows := r.engine.BFDStatus(1)
			if len(rows) != *bfdSoakSessions {
				return fmt.Errorf("%d sessions", len(rows))
			}
			for _, s := range rows {
				if s.DetectionTime != bfd.Millis(3**bfdSoakInterval) || s.State != bfd.Up {
					return fmt.Errorf("%s: %v, detection in %v", s.Name, s.State, time.Duration(s.DetectionTime))
				}
			}
		}
		return nil
	})
}

// iperf fills the link both ways.
func (b *bfdSoak) iperf(ctx context.Context, t *testing.T) {
	run := func(ns string, args ...string) (*exec.Cmd, *strings.Builder) {
		out := new(strings.Builder)
		// Not before others, as its parent.
		cmd := exec.Command("nice", append([]string{"-n", "15", "iperf3"}, args...)...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := netns.Do(ns, cmd.Start); err != nil {
			t.Errorf("start iperf3: %v", err)
			return nil, nil
		}
		return cmd, out
	}
	server, _ := run(b.hosts[1], "-s")
	if server == nil {
		return
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	time.Sleep(300 * time.Millisecond)
	seconds := max(int(bfdSoakFor.Seconds())-1, 1)
	client, out := run(b.hosts[0], "-c", "10.2.0.10", "-P", "2", "--bidir", "-b", *bfdSoakRate, "-t", fmt.Sprint(seconds), "-i", "0", "-f", "m")
	if client == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(5*time.Second, func() { client.Process.Kill() }) })
	defer stop()
	if err := client.Wait(); err != nil {
		t.Errorf("iperf3: %v\n%s", err, out)
	}
	var sums []string
	for _, l := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(l, "[SUM]") && strings.Contains(l, "receiver") {
			f := strings.Fields(l)
			for k := range f {
				if f[k] == "Mbits/sec" {
					sums = append(sums, f[k-1])
				}
			}
		}
	}
	b.carried = strings.Join(sums, " + ") + " Mb/s"
}

// storm adds and removes routes in both routers until ctx ends, and returns how
// often.
func (b *bfdSoak) storm(ctx context.Context) (n int) {
	blackhole := &dataplane.NextHopGroup{Kind: dataplane.Blackhole}
	const chunk = 1000 // as updates come
	for ctx.Err() == nil {
		for _, remove := range []bool{false, true} {
			for from := 0; from < *bfdSoakRoutes && ctx.Err() == nil; from += chunk {
				changes := make([]fib.Change[*dataplane.NextHopGroup], 0, chunk)
				for k := from; k < from+chunk; k++ {
					a := netip.AddrFrom4([4]byte{100, byte(64 + k>>16), byte(k >> 8), byte(k)})
					changes = append(changes, fib.Change[*dataplane.NextHopGroup]{Prefix: netip.PrefixFrom(a, 32), Value: blackhole, Delete: remove})
				}
				for _, r := range b.routers {
					r.table = r.table.With(changes)
					r.publish()
				}
			}
		}
		n++
	}
	return n
}
