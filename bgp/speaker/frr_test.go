package speaker

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
)

// TestFRR exchanges routes with a real bgpd over IPv4 and IPv6, both sides
// dialling.
func TestFRR(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a, "timers 3 10")+neighbour(v6a)+
		` address-family ipv4 unicast
  network 192.0.2.0/24
  network 198.51.100.0/24
  neighbor 192.168.15.18 route-map OUT out
 exit-address-family
 address-family ipv6 unicast
  network fd77::/48
 exit-address-family
route-map OUT permit 10
 set community 65001:7 65001:8
 set metric 33
 set as-path prepend 65009 65009
`)
	e := newEdge(t)
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	a4 := &bgp.Attrs{Origin: bgp.OriginIncomplete, ASPath: []uint32{65515}, MED: 5, HasMED: true, Communities: []uint32{12076<<16 | 51006}}
	e.Advertise(announce(c4.Name, &bgp.Attrs{}, "10.0.0.0/8"))
	e.Advertise(announce(c4.Name, a4, "10.1.0.0/16", "192.0.2.0/24")) // one that the peer says too
	e.Advertise(announce(c6.Name, &bgp.Attrs{}, "fd01::/48"))
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.untilState(c4.Name, bgp.StateEstablished, 20*time.Second)
	e.untilState(c6.Name, bgp.StateEstablished, 20*time.Second)
	if st := e.of(c4.Name); st.Hold != 10*time.Second || st.Keepalive != 3*time.Second {
		t.Errorf("negotiated %v/%v, want 10s/3s", st.Hold, st.Keepalive)
	}

	e.until("routes in", 10*time.Second, func() bool {
		return e.hasLocked(c4.Name, "192.0.2.0/24") && e.hasLocked(c4.Name, "198.51.100.0/24") && e.hasLocked(c6.Name, "fd77::/48")
	})
	want := bgp.Attrs{NextHop: netip.MustParseAddr(v4b), ASPath: []uint32{65001, 65009, 65009}, MED: 33, HasMED: true, Communities: []uint32{65001<<16 | 7, 65001<<16 | 8}}
	if got := e.routesOf(c4.Name)[netip.MustParsePrefix("198.51.100.0/24")]; got == nil || !equal(got, &want) {
		t.Errorf("route in %+v, want %+v", got, want)
	}
	if got := e.routesOf(c6.Name)[netip.MustParsePrefix("fd77::/48")]; got == nil || got.NextHop != netip.MustParseAddr(v6b) {
		t.Errorf("IPv6 route in %+v", got)
	}

	// bgpd sends our own route back; the loop is for the edge's policy to see.
	e.until("echo", 5*time.Second, func() bool { return e.hasLocked(c4.Name, "10.1.0.0/16") })
	if got := e.routesOf(c4.Name)[netip.MustParsePrefix("10.1.0.0/16")]; !slices.Equal(got.ASPath, []uint32{65001, 65009, 65009, ourAS, 65515}) {
		t.Errorf("our route came back with path %v", got.ASPath)
	}

	eventually(t, "routes in bgpd", 10*time.Second, func() bool { return f.count("ipv4", v4a) == 3 && f.count("ipv6", v6a) == 1 })
	r, _ := f.route("10.0.0.0/8")
	if r.ASPath.String != "12076" || r.Origin != "IGP" || len(r.Nexthops) == 0 || r.Nexthops[0].IP != v4a {
		t.Errorf("10.0.0.0/8 in bgpd: %+v, want path 12076 from %s", r, v4a)
	}
	r, _ = f.route("10.1.0.0/16")
	if r.ASPath.String != "12076 65515" || r.Origin != "incomplete" || r.Community.String != "12076:51006" || r.Metric == nil || *r.Metric != 5 {
		t.Errorf("10.1.0.0/16 in bgpd: %+v", r)
	}
	if r, _ = f.route("fd01::/48"); len(r.Nexthops) == 0 || r.Nexthops[0].IP != v6a {
		t.Errorf("fd01::/48 in bgpd: %+v, want next hop %s", r, v6a)
	}

	e.Advertise(bgp.Update{Session: c4.Name, Withdraw: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	eventually(t, "withdrawal in bgpd", 5*time.Second, func() bool { return f.count("ipv4", v4a) == 2 })
	f.run("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 198.51.100.0/24")
	e.until("withdrawal from bgpd", 5*time.Second, func() bool { return !e.hasLocked(c4.Name, "198.51.100.0/24") })

	// The prefix that both sides have: neither an echo nor a loss of ours
	// when the peer withdraws its own.
	f.run("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 192.0.2.0/24")
	e.until("our own path instead of bgpd's", 5*time.Second, func() bool {
		a := e.rib[c4.Name][netip.MustParsePrefix("192.0.2.0/24")]
		return a != nil && slices.Contains(a.ASPath, ourAS)
	})
	if n := f.count("ipv4", v4a); n != 2 {
		t.Errorf("bgpd has %d routes of ours after its own withdrawal, want 2", n)
	}

	f.kill()
	e.until("death of bgpd noticed", 10*time.Second, func() bool { return e.status[c4.Name].Flaps == 1 && e.status[c6.Name].Flaps == 1 })
	e.untilReason(c4.Name, "connection refused by "+v4b+": is bgpd running there", 10*time.Second)
	f.start()
	e.untilState(c4.Name, bgp.StateEstablished, 20*time.Second)
	eventually(t, "routes in the new bgpd", 5*time.Second, func() bool { return f.count("ipv4", v4a) == 2 })
	if r := e.of(c4.Name).Reason; !strings.Contains(r, "the peer closed the TCP connection") {
		t.Errorf("reason after recovery %q, want why it went down", r)
	}
}

// TestFRRRefusals checks the words for what bgpd and we refuse.
func TestFRRRefusals(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, strings.Replace(neighbour(v4a), "12076", "12077", 1)+neighbour(v6a)) // a typo
	e := newEdge(t)
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	c6.PeerAS = 65009
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.untilReason(c4.Name, "peer sent OPEN error / bad peer AS (2/2): it expects another AS here than ours, 12076", 10*time.Second)
	e.untilReason(c6.Name, "sent OPEN error / bad peer AS (2/2): peer says AS 65001, configured peerASN 65009", 10*time.Second)

	c6.PeerAS = theirAS
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.untilState(c6.Name, bgp.StateEstablished, 10*time.Second)
	f.run("configure terminal", "router bgp 65001", "neighbor "+v6a+" shutdown message Maintenance until 6")
	e.untilReason(c6.Name, `peer sent Cease / administrative shutdown (6/2): "Maintenance until 6"`, 5*time.Second)

	c6.Enabled = false
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.untilState(c6.Name, bgp.StateDisabled, 5*time.Second)
}

// TestFRRMD5 goes through wrong, right, missing and changing keys.
func TestFRRMD5(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a, "password first", "timers connect 1")+neighbour(v6a, "password first", "timers connect 1"))
	e := newEdge(t)
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	set := func(key string) {
		c4.Key, c6.Key = key, key
		e.Configure([]bgp.SessionConfig{c4, c6})
	}
	reset := func() {
		e.Reset(c4.Name, "reset by the test")
		e.Reset(c6.Name, "reset by the test")
	}
	up := func() {
		t.Helper()
		e.untilState(c4.Name, bgp.StateEstablished, 30*time.Second)
		e.untilState(c6.Name, bgp.StateEstablished, 30*time.Second)
	}
	set("wrong")
	e.untilReason(c4.Name, "TCP-MD5: the peer's segments fail our sharedKey (TCPMD5Failure +", 20*time.Second)
	set("first")
	up()
	set("")
	reset()
	e.untilReason(c4.Name, "TCP-MD5: the peer uses TCP-MD5 (TCPMD5Unexpected +", 20*time.Second)
	if s := e.of(c4.Name).State; s == bgp.StateEstablished {
		t.Errorf("state %s without the key", s)
	}
	set("first")
	up()

	// The peer rotates. bgpd ends its sessions when told another password, and
	// dials anew, which must get the better of what is left of the old ones.
	time.Sleep(collisionTime)
	flaps := e.of(c4.Name).Flaps
	set("second")
	time.Sleep(time.Second)
	if st := e.of(c4.Name); st.State != bgp.StateEstablished || st.Flaps != flaps {
		t.Errorf("a new key ended the session: %+v", st)
	}
	began := time.Now()
	f.run("configure terminal", "router bgp 65001", "neighbor "+v4a+" password second", "neighbor "+v6a+" password second")
	eventually(t, "sessions with the new key", 30*time.Second, func() bool { return f.established(v4a) && f.established(v6a) })
	up()
	t.Logf("with the new key after %v", time.Since(began))
	f.run("configure terminal", "router bgp 65001", "no neighbor "+v4a+" password", "end", "clear bgp *")
	reset()
	e.untilReason(c4.Name, "TCP-MD5: the peer sends no TCP-MD5 (TCPMD5NotFound +", 20*time.Second)
}

// TestRestart kills the speaker process under a session.
func TestRestart(t *testing.T) {
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a)+" address-family ipv4 unicast\n  network 192.0.2.0/24\n exit-address-family\n")
	e := newEdge(t, "/proc/self/exe", "speaker")
	c := ourSession(nsA, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	e.Advertise(announce(c.Name, &bgp.Attrs{}, "10.0.0.0/8"))
	e.until("route", 20*time.Second, func() bool { return e.hasLocked(c.Name, "192.0.2.0/24") })
	eventually(t, "our route in bgpd", 5*time.Second, func() bool { return f.count("ipv4", v4a) == 1 })

	speaker := childPID(t)
	p, err := os.FindProcess(speaker)
	must(t, err)
	was := len(e.statesOf(c.Name))
	must(t, p.Kill())
	// For a moment: the next speaker has more to say.
	e.until("word that it is down", 10*time.Second, func() bool { return slices.Contains(e.states[c.Name][was:], bgp.StateDown) })
	e.until("restart", 10*time.Second, func() bool { return e.restarts == 1 })
	e.until("route again", 20*time.Second, func() bool { return e.hasLocked(c.Name, "192.0.2.0/24") })
	eventually(t, "our route in bgpd again", 5*time.Second, func() bool { return f.count("ipv4", v4a) == 1 })
	if again := childPID(t); again == speaker {
		t.Errorf("the speaker is still process %d", speaker)
	}
}

// childPID finds the speaker among this process's children.
func childPID(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, task := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, pid := range strings.Fields(string(b)) {
			cmd, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if strings.Contains(string(cmd), "\x00speaker") {
				var n int
				fmt.Sscan(pid, &n)
				return n
			}
		}
	}
	t.Fatal("no speaker process")
	return 0
}

// TestManyRoutes sends 10,000 routes each way and prints how long they take.
func TestManyRoutes(t *testing.T) {
	const n = 10000
	nsA, nsB := link(t)
	var nets strings.Builder
	for _, p := range prefixes("20.0.0.0", n) {
		fmt.Fprintf(&nets, "  network %s\n", p)
	}
	f := newFRR(t, nsB, neighbour(v4a)+" address-family ipv4 unicast\n"+nets.String()+" exit-address-family\n")
	e := newEdge(t, "/proc/self/exe", "speaker")
	c := ourSession(nsA, v4a, v4b)
	u := bgp.Update{Session: c.Name}
	for i, p := range prefixes("30.0.0.0", n) {
		if i%100 == 0 {
			u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: &bgp.Attrs{ASPath: []uint32{uint32(i) + 1}}})
			continue
		}
		u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: u.Announce[i-1].Attrs})
	}
	e.Configure([]bgp.SessionConfig{c})
	e.untilState(c.Name, bgp.StateEstablished, 20*time.Second)
	began := time.Now()
	e.until("all routes in", 20*time.Second, func() bool { return len(e.rib[c.Name]) == n }) // nothing of ours yet
	t.Logf("%d routes in, after Established: %v", n, time.Since(began))

	began = time.Now()
	e.Advertise(u)
	eventually(t, "all routes in bgpd", 20*time.Second, func() bool { return f.count("ipv4", v4a) == n })
	t.Logf("%d routes out, session up before: %v", n, time.Since(began))
	e.Reset(c.Name, "reset by the test")
	e.until("flap", 5*time.Second, func() bool { return e.status[c.Name].Flaps == 1 })
	e.untilState(c.Name, bgp.StateEstablished, 20*time.Second)
	began = time.Now()
	eventually(t, "all routes in bgpd", 20*time.Second, func() bool { return f.count("ipv4", v4a) == n })
	t.Logf("%d routes out, table full before: %v", n, time.Since(began))

	attrs := map[*bgp.Attrs]int{}
	for _, a := range e.routesOf(c.Name) {
		attrs[a]++
	}
	if len(attrs) > n/100 {
		t.Errorf("%d routes have %d Attrs: not shared", n, len(attrs))
	}
}

func prefixes(from string, n int) []netip.Prefix {
	base := netip.MustParseAddr(from).As4()
	first := binary.BigEndian.Uint32(base[:])
	out := make([]netip.Prefix, n)
	for i := range out {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], first+uint32(i)<<8)
		out[i] = netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	return slices.Clip(out)
}
