package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/netns"
)

// TestMain makes the test binary its own speaker process.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "speaker" {
		conn, err := Inherited()
		if err == nil {
			err = Main(conn)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	ourAS, theirAS = 12076, 65001
	v4a, v4b       = "192.168.15.18", "192.168.15.17" // ours, the customer's
	v6a, v6b       = "fd00:15::2", "fd00:15::1"
)

var netCount atomic.Int32

// link makes two namespaces joined by a veth, ours with the addresses ending in
// a, theirs with b.
func link(t *testing.T) (ours, theirs string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	name := fmt.Sprintf("speaker%d-%d", os.Getpid(), netCount.Add(1))
	ours, theirs = name+"a", name+"b"
	for _, n := range []string{ours, theirs} {
		if err := netns.Create(n); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netns.Delete(n) })
	}
	must(t, netns.Do(ours, func() error {
		f, err := os.Open(netns.Path(theirs))
		if err != nil {
			return err
		}
		defer f.Close()
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(f.Fd())})
	}))
	addressUp(t, ours, v4a+"/30", v6a+"/126")
	addressUp(t, theirs, v4b+"/30", v6b+"/126")
	return ours, theirs
}

func addressUp(t *testing.T, ns string, addrs ...string) {
	t.Helper()
	must(t, netns.Do(ns, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		for _, a := range addrs {
			ip, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			ip.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, ip); err != nil {
				return err
			}
		}
		return nil
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// edge is a Speaker with what it said.
type edge struct {
	*Speaker
	t      *testing.T
	cancel context.CancelFunc

	mu       sync.Mutex
	news     chan struct{}
	status   map[string]bgp.SessionStatus
	states   map[string][]bgp.State
	rib      map[string]map[netip.Prefix]*bgp.Attrs
	retained map[string]int // how often a session's routes were to be kept
	evpn     map[evpn.Key]evpn.Route
	restarts int
	eors     int
}

func (e *edge) eorsNow() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.eors
}

func (e *edge) restartsNow() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.restarts
}

// newEdge runs a speaker; with no argv on goroutines.
func newEdge(t *testing.T, argv ...string) *edge {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &edge{t: t, cancel: cancel, news: make(chan struct{}, 1), status: map[string]bgp.SessionStatus{},
		states: map[string][]bgp.State{}, rib: map[string]map[netip.Prefix]*bgp.Attrs{}, retained: map[string]int{}, evpn: map[evpn.Key]evpn.Route{}}
	if argv == nil {
		e.Speaker = StartInProcess(ctx, logger(t))
	} else {
		e.Speaker = Start(ctx, argv, logger(t))
	}
	go func() {
		for ev := range e.Events() {
			e.take(ev)
		}
	}()
	t.Cleanup(func() { cancel(); e.Wait() })
	return e
}

func (e *edge) take(ev bgp.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case ev.Restarted:
		e.restarts++
		clear(e.rib)
	case ev.Status != nil:
		if ev.Status.Retain > 0 && e.status[ev.Status.Session].Retain == 0 {
			e.retained[ev.Status.Session]++
		}
		e.status[ev.Status.Session] = *ev.Status
		e.states[ev.Status.Session] = append(e.states[ev.Status.Session], ev.Status.State)
		if ev.Status.State != bgp.StateEstablished {
			delete(e.rib, ev.Status.Session)
		}
	case ev.Update != nil:
		r := e.rib[ev.Update.Session]
		if r == nil {
			r = map[netip.Prefix]*bgp.Attrs{}
			e.rib[ev.Update.Session] = r
		}
		for _, p := range ev.Update.Withdraw {
			delete(r, p)
		}
		for _, a := range ev.Update.Announce {
			r[a.Prefix] = a.Attrs
		}
	case ev.EVPN != nil:
		for _, k := range ev.EVPN.Withdraw {
			delete(e.evpn, k)
		}
		for _, r := range ev.EVPN.Announce {
			e.evpn[r.Key] = r
		}
	case ev.EndOfRIB != "":
		e.eors++
	}
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// until waits for cond, which is called with e.mu held.
func (e *edge) until(what string, within time.Duration, cond func() bool) {
	e.t.Helper()
	deadline := time.After(within)
	for {
		e.mu.Lock()
		ok := cond()
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-e.news:
		case <-deadline:
			e.mu.Lock()
			defer e.mu.Unlock()
			e.t.Fatalf("no %s within %v; status %+v", what, within, e.status)
		}
	}
}

func (e *edge) hasLocked(session, prefix string) bool {
	return e.rib[session][netip.MustParsePrefix(prefix)] != nil
}

func (e *edge) untilState(session string, want bgp.State, within time.Duration) {
	e.t.Helper()
	e.until(session+" "+string(want), within, func() bool { return e.status[session].State == want })
}

func (e *edge) untilReason(session, part string, within time.Duration) {
	e.t.Helper()
	e.until(fmt.Sprintf("%s reason %q", session, part), within, func() bool { return strings.Contains(e.status[session].Reason, part) })
}

func (e *edge) of(session string) bgp.SessionStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status[session]
}

func (e *edge) statesOf(session string) []bgp.State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.states[session])
}

func (e *edge) evpnOf(k evpn.Key) evpn.Route {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.evpn[k]
}

func (e *edge) routesOf(session string) map[netip.Prefix]*bgp.Attrs {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := map[netip.Prefix]*bgp.Attrs{}
	for p, a := range e.rib[session] {
		r[p] = a
	}
	return r
}

// ourSession is a session of the MSEE's side, theirSession its other end.
func ourSession(ns, local, peer string) bgp.SessionConfig {
	return bgp.SessionConfig{
		Name: "to " + peer, Namespace: ns, Local: netip.MustParseAddr(local), Peer: netip.MustParseAddr(peer),
		LocalAS: ourAS, PeerAS: theirAS, RouterID: netip.MustParseAddr("10.255.0.2"),
		Keepalive: 60 * time.Second, Hold: 180 * time.Second, MinHold: 10 * time.Second,
		GracefulRestart: true, Enabled: true,
	}
}

func theirSession(c bgp.SessionConfig, ns string) bgp.SessionConfig {
	c.Name, c.Namespace, c.Local, c.Peer = "to "+c.Local.String(), ns, c.Peer, c.Local
	c.LocalAS, c.PeerAS, c.RouterID = theirAS, ourAS, netip.MustParseAddr("10.255.0.1")
	return c
}

func announce(session string, a *bgp.Attrs, prefixes ...string) bgp.Update {
	u := bgp.Update{Session: session}
	for _, p := range prefixes {
		u.Announce = append(u.Announce, bgp.Route{Prefix: netip.MustParsePrefix(p), Attrs: a})
	}
	return u
}

// frr is a bgpd of the customer's.
type frr struct {
	t      *testing.T
	dir    string
	ns     string
	config string
	bgpd   *exec.Cmd
	zebra  *exec.Cmd
}

const frrDir = "/usr/lib/frr"

// newFRR runs bgpd in a namespace. neighbours is what follows
// the first lines of `router bgp 65001`.
func newFRR(t *testing.T, ns, neighbours string) *frr {
	t.Helper()
	if _, err := os.Stat(frrDir + "/bgpd"); err != nil {
		t.Skip("needs FRR's bgpd: ", err)
	}
	dir, err := os.MkdirTemp("", "frr") // short: it holds a unix socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := user.Lookup("frr") // the daemons drop to it
	must(t, err)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	must(t, os.Chown(dir, uid, gid))
	f := &frr{t: t, dir: dir, ns: ns, config: "router bgp 65001\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n" + neighbours}
	t.Cleanup(func() { f.kill(); end(&f.zebra) })
	f.start()
	return f
}

// start runs zebra, without which bgpd announces nothing, and bgpd.
func (f *frr) start() {
	f.t.Helper()
	conf := filepath.Join(f.dir, "bgpd.conf")
	must(f.t, os.WriteFile(conf, []byte(f.config), 0o644))
	zserv := filepath.Join(f.dir, "zserv")
	if f.zebra == nil {
		empty := filepath.Join(f.dir, "zebra.conf")
		must(f.t, os.WriteFile(empty, nil, 0o644))
		f.zebra = f.daemon("zebra", "-f", empty, "-z", zserv)
		eventually(f.t, "zebra", 5*time.Second, func() bool { _, err := os.Stat(zserv); return err == nil })
	}
	f.bgpd = f.daemon("bgpd", "-f", conf, "-z", zserv)
}

// daemon runs one of FRR's in the namespace, with all its files in dir.
func (f *frr) daemon(name string, args ...string) *exec.Cmd {
	f.t.Helper()
	args = append(args, "-i", filepath.Join(f.dir, name+".pid"), "--vty_socket", f.dir, "-P", "0", "--log", "file:"+filepath.Join(f.dir, name+".log"))
	cmd := exec.Command(filepath.Join(frrDir, name), args...)
	must(f.t, netns.Do(f.ns, cmd.Start))
	return cmd
}

func (f *frr) kill() { end(&f.bgpd) }

func end(cmd **exec.Cmd) {
	if *cmd != nil {
		(*cmd).Process.Kill()
		(*cmd).Wait()
		*cmd = nil
	}
}

// show runs a vtysh command and decodes its JSON.
func (f *frr) show(v any, command string) error {
	out, err := exec.Command("vtysh", "--vty_socket", f.dir, "-c", command).Output()
	if err != nil {
		return err
	}
	return json.Unmarshal(out, v)
}

func (f *frr) run(commands ...string) {
	f.t.Helper()
	args := []string{"--vty_socket", f.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out, err := exec.Command("vtysh", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("vtysh %v: %v: %s", commands, err, out)
	}
}

// frrRoute is the best path of a prefix as bgpd has it.
type frrRoute struct {
	ASPath    struct{ String string }
	Origin    string
	Metric    *uint32
	Med       *uint32
	Community struct{ String string }
	Stale     bool
	Nexthops  []struct{ IP string }
}

func (f *frr) route(prefix string) (r frrRoute, ok bool) {
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	var v struct{ Paths []frrRoute }
	err := f.show(&v, "show bgp "+family+" unicast "+prefix+" json")
	if err != nil || len(v.Paths) == 0 {
		return frrRoute{}, false
	}
	return v.Paths[0], true
}

// count is the number of prefixes bgpd has from a neighbour.
func (f *frr) count(family, neighbour string) int {
	var v struct {
		Peers map[string]struct{ PfxRcd int }
	}
	if f.show(&v, "show bgp "+family+" unicast summary json") != nil {
		return -1
	}
	return v.Peers[neighbour].PfxRcd
}

// established reports whether bgpd has a session with a neighbour.
func (f *frr) established(neighbour string) bool {
	var v map[string]struct{ BgpState string }
	return f.show(&v, "show bgp neighbors "+neighbour+" json") == nil && v[neighbour].BgpState == "Established"
}

func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, within)
		}
	}
}

func neighbour(addr string, extra ...string) string {
	family := "ipv4"
	if strings.Contains(addr, ":") {
		family = "ipv6"
	}
	s := fmt.Sprintf(" neighbor %s remote-as %d\n", addr, ourAS)
	for _, e := range extra {
		s += " neighbor " + addr + " " + e + "\n"
	}
	return s + " address-family " + family + " unicast\n  neighbor " + addr + " activate\n exit-address-family\n"
}
