package edge

import (
	"net/netip"
	"testing"
	"time"

	"msee/bgp"
	"msee/dataplane"
	"msee/dataplane/port"
)

// TestRepairEnds: each route is kept for its own time, however often others
// follow it.
func TestRepairEnds(t *testing.T) {
	b := newBench(t)
	ce, partner := hop{sub: b.v.subs["cust.100"], addr: netip.MustParseAddr("192.168.15.17")}, hop{sub: b.v.subs["core.200"], addr: netip.MustParseAddr("10.100.255.5")}
	now := time.Now()
	for i := range 100 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
		b.v.fwd.set(b.v.fwd.routed, prefix, b.v.fwd.group(dataplane.Forward, nil, []hop{ce}, []hop{partner}))
		c := bgp.Changes{Routes: []bgp.RouteChange{{Prefix: prefix}}}
		if b.v.keepForRepair(&c, now); len(c.Routes) != 0 || b.v.fwd.routed[prefix] == nil {
			t.Fatalf("%v was not kept", prefix)
		}
		now = now.Add(repairFor / 4)
		b.endRepair(now)
		if n := len(b.v.repair.kept); n > 4 {
			t.Fatalf("%d routes are kept after %v", n, now)
		}
	}
	b.endRepair(now.Add(repairFor))
	if n := len(b.v.fwd.routed); n != 0 {
		t.Errorf("%d routes are left", n)
	}
}

// TestRepairWithFastPath: hosts past the gateway do not hear that a customer is gone, so its
// routes stay as long as it is, and a minute then in which it can announce them again;
// not of one that the neighbor itself ended, and not more than a circuit may have.
func TestRepairWithFastPath(t *testing.T) {
	b := newBench(t)
	b.sessions["gw0"].cfg.FastPath.ExpressRouteGatewayBypass = true
	b.v.fwd.neighborChanged(hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}, port.MAC{2, 0, 0, 0, 0, 1}, true)
	ce, partner := hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}, hop{sub: b.v.subs["core.200"], addr: netip.MustParseAddr("10.100.255.5")}
	ce.sub.port.link = linkUp
	now := time.Now()
	lose := func(i int) {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		b.v.fwd.set(b.v.fwd.routed, prefix, b.v.fwd.group(dataplane.Forward, nil, []hop{ce}, []hop{partner}))
		b.v.keepForRepair(&bgp.Changes{Routes: []bgp.RouteChange{{Prefix: prefix}}}, now)
	}
	after := func(d time.Duration, what string, want int) {
		t.Helper()
		now = now.Add(d)
		b.endRepair(now)
		if n := len(b.v.repair.kept); n != want || len(b.v.fwd.routed) != want {
			t.Fatalf("%s: %d routes are kept and %d forwarded by, want %d", what, n, len(b.v.fwd.routed), want)
		}
	}
	lose(0) // the link is up: the customer has ended the session
	ce.sub.port.link = linkDown
	lose(1)
	after(handOverFor, "after the hand-over", 1)
	for range 10 {
		after(10*repairFor, "the link is down", 1)
	}
	ce.sub.port.link = linkUp
	after(repairFor-time.Second, "the link is up again", 1)
	after(time.Second, "a minute after", 0)

	ce.sub.port.link = linkDown
	for i := range repairMost + 1 {
		lose(i)
	}
	after(repairFor-time.Second, "more than a circuit may announce", repairMost+1)
	after(time.Second, "a minute after that", 0)

	b.sessions["gw0"].cfg.FastPath.ExpressRouteGatewayBypass = false
	lose(1)
	after(repairFor, "without FastPath", 0)
}

// TestReloadDuringRepair: a reload that makes forwarding anew leaves the kept
// routes in it, as long as their subinterfaces are there, and each still ends.
func TestReloadDuringRepair(t *testing.T) {
	b := newBench(t)
	b.v.endpoints = &endpoints{}
	ce, partner := hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}, hop{sub: b.v.subs["core.200"], addr: netip.MustParseAddr("10.100.255.5")}
	now, prefix := time.Now(), netip.MustParsePrefix("10.1.0.0/16")
	b.v.fwd.set(b.v.fwd.routed, prefix, b.v.fwd.group(dataplane.Forward, nil, []hop{ce}, []hop{partner}))
	b.v.keepForRepair(&bgp.Changes{Routes: []bgp.RouteChange{{Prefix: prefix}}}, now)

	anew := newSub(t, "cust.100", "192.168.15.18/30")
	anew.vrf, b.v.subs["cust.100"] = b.v, anew
	b.rebuild(b.v)
	g := lookup(b.v.fwd, "10.1.2.3")
	if g == nil || len(g.Members) != 1 || len(g.Backup) != 1 || g.Members[0] != b.v.fwd.adjacencies[hop{sub: anew, addr: ce.addr}].Adjacency ||
		g.Backup[0] != b.v.fwd.adjacencies[partner].Adjacency {
		t.Fatalf("after the reload the kept route leads to %+v", g)
	}
	if b.auditVRF(b.v, now); b.v.audit.Repaired != 0 {
		t.Errorf("the audit found %q", b.v.audit.Findings)
	}
	delete(b.v.subs, "core.200")
	b.rebuild(b.v)
	if g := lookup(b.v.fwd, "10.1.2.3"); g != nil || len(b.v.repair.kept) != 0 {
		t.Errorf("without the partner's subinterface: %+v, kept %v", g, b.v.repair.kept)
	}
}

// TestLinkDownTurns: a link that goes down turns all traffic from the neighbors behind it,
// whether BFD watches them or not, those included that are first heard of meanwhile or
// whose forwarding is made anew; and back when it is up.
func TestLinkDownTurns(t *testing.T) {
	b := newBench(t)
	b.v.endpoints = &endpoints{}
	ce, partner := hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}, hop{sub: b.v.subs["core.200"], addr: netip.MustParseAddr("10.100.255.5")}
	b.v.fwd.neighborChanged(ce, port.MAC{2, 0, 0, 0, 0, 1}, true)
	b.v.fwd.neighborChanged(partner, port.MAC{2, 0, 0, 0, 0, 2}, true)
	prefix := netip.MustParsePrefix("10.1.0.0/16")
	b.v.fwd.set(b.v.fwd.routed, prefix, b.v.fwd.group(dataplane.Forward, nil, []hop{ce}, []hop{partner}))
	link := func(state string) {
		ce.sub.port.link = state
		b.v.fwd.linkChanged(ce.sub.port)
	}
	check := func(what string, member bool) {
		t.Helper()
		g := lookup(b.v.fwd, "10.1.2.3")
		if g == nil || len(g.Members) != 1 || len(g.Backup) != 1 {
			t.Fatalf("%s: leads to %+v", what, g)
		}
		if got := g.Members[0].Usable() != nil; got != member || g.Backup[0].Usable() == nil {
			t.Errorf("%s: the customer is in use %v, want %v; the partner %v", what, got, member, g.Backup[0].Usable() != nil)
		}
	}
	check("link up", true)
	for _, state := range []string{linkDown, linkGone} {
		link(state)
		check(state, false)
		late := b.v.fwd.adjacency(hop{sub: ce.sub, addr: netip.MustParseAddr("192.168.15.19")})
		if late.Down() != dataplane.DownLink {
			t.Errorf("%s: a neighbor heard of since is down for %b", state, late.Down())
		}
		b.v.keepForRepair(&bgp.Changes{Routes: []bgp.RouteChange{{Prefix: prefix}}}, time.Now())
		b.rebuild(b.v)
		check(state+", after a reload", false)
		link(linkUp)
		check("link up again", true)
	}
}

// TestSessionEnds: routes whose neighbor cannot be reached any more, whoever found
// that out, are kept with the partner as backup; others lead to the partner alone,
// for a moment.
func TestSessionEnds(t *testing.T) {
	for why, c := range map[string]struct {
		happens func(*adjacency)
		members int
		keep    time.Duration
	}{
		"BGP reset": {func(*adjacency) {}, 0, handOverFor},
		"BFD down":  {func(a *adjacency) { a.SetDown(dataplane.DownBFD, true) }, 1, repairFor},
		"no ARP":    {func(a *adjacency) { a.Resolve(nil) }, 1, repairFor},
		"link down": {func(a *adjacency) { a.sub.port.link = linkDown }, 1, repairFor},
	} {
		b := newBench(t)
		ce, partner := hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}, hop{sub: b.v.subs["core.200"], addr: netip.MustParseAddr("10.100.255.5")}
		ce.sub.port.link = linkUp
		b.v.endpoints = &endpoints{}
		b.v.fwd.neighborChanged(ce, port.MAC{2, 0, 0, 0, 0, 1}, true)
		prefix := netip.MustParsePrefix("10.1.0.0/16")
		b.v.fwd.set(b.v.fwd.routed, prefix, b.v.fwd.group(dataplane.Forward, nil, []hop{ce}, []hop{partner}))
		c.happens(b.v.fwd.adjacencies[ce])
		now := time.Now()
		changes := bgp.Changes{Routes: []bgp.RouteChange{{Prefix: prefix}}}
		b.v.keepForRepair(&changes, now)
		for _, after := range []string{"", ", after a reload"} {
			g := lookup(b.v.fwd, "10.1.2.3")
			if len(changes.Routes) != 0 || g == nil || len(g.Members) != c.members || len(g.Backup) != 1 ||
				g.Backup[0] != b.v.fwd.adjacencies[partner].Adjacency {
				t.Fatalf("%s%s: leads to %+v, want %d members and the partner", why, after, g, c.members)
			}
			b.rebuild(b.v)
		}
		b.vrfs = map[string]*vrf{"er1": b.v}
		b.endRepair(now.Add(c.keep - time.Millisecond))
		if lookup(b.v.fwd, "10.1.2.3") == nil {
			t.Errorf("%s: ended before %v", why, c.keep)
		}
		b.endRepair(now.Add(c.keep))
		if g := lookup(b.v.fwd, "10.1.2.3"); g != nil {
			t.Errorf("%s: after %v still leads to %+v", why, c.keep, g)
		}
	}
}
