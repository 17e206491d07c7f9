package edge

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

// newSub makes a subinterface without a kernel's side.
func newSub(t testing.TB, name string, addresses ...string) *subinterface {
	t.Helper()
	a, b := port.NewPollPair(port.PairOptions{})
	t.Cleanup(func() { a.Close(); b.Close() })
	cfg := config.Subinterface{Name: name, MTU: 1500, CTag: 100}
	for _, p := range addresses {
		cfg.Addresses = append(cfg.Addresses, netip.MustParsePrefix(p))
	}
	s := &subinterface{vrf: &vrf{}}
	s.configure(cfg, &portState{cfg: config.Port{TPID: 0x8100}, port: a}, new(dataplane.Counters))
	return s
}

func lookup(f *forwarding, addr string) *dataplane.NextHopGroup {
	f.commit()
	g, _ := f.table.Lookup(netip.MustParseAddr(addr))
	return g
}

func TestConnectedRoutes(t *testing.T) {
	f := newForwarding()
	f.connect(newSub(t, "cust.100", "192.168.15.18/30", "2001:db8:0:10::2/126"))
	f.connect(newSub(t, "core.200", "10.100.255.4/27"))
	f.connect(newSub(t, "p2p", "10.9.9.0/31"))
	for addr, want := range map[string]dataplane.GroupKind{
		"192.168.15.16":    dataplane.Blackhole, // network
		"192.168.15.17":    dataplane.Glean,
		"192.168.15.18":    dataplane.Local,
		"192.168.15.19":    dataplane.Blackhole, // broadcast
		"2001:db8:0:10::2": dataplane.Local,
		"2001:db8:0:10::3": dataplane.Glean, // IPv6 has no broadcast
		"10.100.255.31":    dataplane.Blackhole,
		"10.100.255.30":    dataplane.Glean,
		"10.9.9.0":         dataplane.Local, // RFC 3021
		"10.9.9.1":         dataplane.Glean,
	} {
		if g := lookup(f, addr); g == nil || g.Kind != want {
			t.Errorf("%s: got %v, want %v", addr, g, want)
		}
	}
	if g := lookup(f, "10.1.0.1"); g != nil {
		t.Errorf("a route to 10.1.0.1: %v", g.Kind)
	}
}

// usable counts the members of a group that can be used.
func usable(g *dataplane.NextHopGroup) (n int) {
	for _, a := range g.Members {
		if a.Usable() != nil {
			n++
		}
	}
	return n
}

func TestNeighborTurnsGroups(t *testing.T) {
	f := newForwarding()
	s := newSub(t, "core.200", "10.100.255.4/27")
	f.connect(s)
	a, b := hop{sub: s, addr: netip.MustParseAddr("10.100.255.12")}, hop{sub: s, addr: netip.MustParseAddr("10.100.255.13")}
	prefix := netip.MustParsePrefix("10.100.0.0/16")
	f.set(f.routed, prefix, f.group(dataplane.Forward, nil, []hop{a, b}, nil))
	g := lookup(f, "10.100.1.1")
	if n := usable(g); n != 0 {
		t.Fatalf("%d usable members before any neighbor is known", n)
	}
	f.neighborChanged(a, port.MAC{2, 0, 0, 0, 0, 12}, true)
	f.neighborChanged(b, port.MAC{2, 0, 0, 0, 0, 13}, true)
	if n := usable(g); n != 2 {
		t.Fatalf("%d usable members, want 2", n)
	}
	if got := lookup(f, "10.100.255.12"); got.Kind != dataplane.Neighbor || usable(got) != 1 {
		t.Errorf("the neighbor has no host route: %v", got.Kind)
	}
	if f.neighborChanged(a, port.MAC{2, 0, 0, 0, 0, 12}, true) {
		t.Error("the same again is a change")
	}
	table := f.table
	f.neighborChanged(a, port.MAC{}, false)
	if n := usable(g); n != 1 {
		t.Errorf("%d usable members after one was lost", n)
	}
	if again, _ := table.Lookup(netip.MustParseAddr("10.100.1.1")); again != g {
		t.Error("the route was touched, not only its adjacency")
	}
	if got := lookup(f, "10.100.255.12"); got.Kind != dataplane.Glean {
		t.Errorf("the lost neighbor's address leads to %v", got.Kind)
	}
	if f.neighborChanged(a, port.MAC{}, false) {
		t.Error("lost again is a change")
	}
}

// TestAdjacenciesOutliveARebuild reconfigures a subinterface: what it sends looks
// different afterwards, by the same adjacency.
func TestAdjacenciesOutliveARebuild(t *testing.T) {
	s := newSub(t, "core.200", "10.100.255.4/27")
	gone := newSub(t, "core.300", "10.101.255.4/27")
	s.vrf.subs = map[string]*subinterface{s.cfg.Name: s}
	gone.vrf = s.vrf
	old := newForwarding()
	up, down := hop{sub: s, addr: netip.MustParseAddr("10.100.255.12")}, hop{sub: s, addr: netip.MustParseAddr("10.100.255.13")}
	lost := hop{sub: gone, addr: netip.MustParseAddr("10.101.255.12")}
	old.set(old.routed, netip.MustParsePrefix("10.100.0.0/16"), old.group(dataplane.Forward, nil, []hop{up, down}, nil))
	old.neighborChanged(up, port.MAC{2, 0, 0, 0, 0, 12}, true)
	old.neighborChanged(lost, port.MAC{2, 0, 0, 0, 0, 14}, true)
	old.adjacencies[down].SetDown(dataplane.DownBFD, true)

	cfg := s.cfg
	cfg.CTag = 300
	s.configure(cfg, s.port, s.dp.Counters)
	f := newForwarding()
	f.inherit(old)
	f.connect(s)
	f.set(f.routed, netip.MustParsePrefix("10.100.0.0/16"), f.group(dataplane.Forward, nil, []hop{up, down}, nil))
	f.settle()
	for _, h := range []hop{up, down} {
		if f.adjacencies[h] == nil || f.adjacencies[h].Adjacency != old.adjacencies[h].Adjacency {
			t.Errorf("%v has another adjacency", h.addr)
		}
	}
	if f.adjacencies[lost] != nil {
		t.Error("the adjacency of a removed subinterface is still there")
	}
	if r := f.adjacencies[up].Rewrite(); r.Out != s.dp || r.Out.Outer != 300 {
		t.Errorf("packets leave by %+v", r.Out)
	}
	if f.adjacencies[down].Down() != dataplane.DownBFD {
		t.Error("what BFD said is forgotten")
	}
	if g := lookup(f, "10.100.255.12"); g.Kind != dataplane.Neighbor {
		t.Errorf("the neighbor's host route: %v", g.Kind)
	}
	f.set(f.routed, netip.MustParsePrefix("10.100.0.0/16"), nil)
	if f.adjacencies[down] != nil {
		t.Error("an adjacency that nobody needs is kept")
	}
}

func TestConnectedWinsOverRouted(t *testing.T) {
	f := newForwarding()
	s := newSub(t, "core.200", "10.100.255.4/27")
	h := hop{sub: s, addr: netip.MustParseAddr("10.100.255.12")}
	subnet := netip.MustParsePrefix("10.100.255.0/27")
	f.set(f.routed, subnet, f.group(dataplane.Forward, nil, []hop{h}, nil))
	if g := lookup(f, "10.100.255.20"); g.Kind != dataplane.Forward {
		t.Fatalf("routed: %v", g.Kind)
	}
	f.connect(s)
	if g := lookup(f, "10.100.255.20"); g.Kind != dataplane.Glean {
		t.Errorf("connected and routed: %v", g.Kind)
	}
	f.set(f.connected, subnet, nil)
	if g := lookup(f, "10.100.255.20"); g == nil || g.Kind != dataplane.Forward {
		t.Errorf("routed again: %v", g)
	}
	f.set(f.routed, subnet, nil)
	if g := lookup(f, "10.100.255.20"); g != nil {
		t.Errorf("nothing left: %v", g.Kind)
	}
}

// TestGroupsAreSharedAndFreed flaps routes at random and compares with what
// should be there.
func TestGroupsAreSharedAndFreed(t *testing.T) {
	f := newForwarding()
	s := newSub(t, "core.200", "10.100.255.4/27")
	rnd := rand.New(rand.NewPCG(1, 2))
	hops := make([]hop, 4)
	for i := range hops {
		hops[i] = hop{sub: s, addr: netip.AddrFrom4([4]byte{10, 100, 255, byte(10 + i)})}
	}
	model := map[netip.Prefix]string{}
	for range 5000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rnd.IntN(50)), 0, 0}), 16)
		if rnd.IntN(3) == 0 {
			f.set(f.routed, p, nil)
			delete(model, p)
		} else {
			first := rnd.IntN(3)
			g := f.group(dataplane.Forward, nil, hops[first:first+1+rnd.IntN(2)], nil)
			f.set(f.routed, p, g)
			model[p] = g.key
		}
		if rnd.IntN(10) == 0 {
			f.commit()
		}
	}
	f.commit()
	used := map[string]bool{}
	for p, g := range f.table.All() {
		key := f.groups[model[p]]
		if key == nil || key.NextHopGroup != g {
			t.Errorf("%s leads elsewhere than the model says", p)
		}
		used[model[p]] = true
	}
	if f.table.Len4() != len(model) {
		t.Errorf("%d routes, want %d", f.table.Len4(), len(model))
	}
	users := 0
	for _, g := range f.groups {
		users += len(g.Members)
	}
	for _, a := range f.adjacencies {
		users -= a.users
	}
	if users != 0 {
		t.Errorf("the adjacencies' users are %d fewer than the groups' members", users)
	}
	if len(f.groups) != len(used) {
		t.Errorf("%d groups are kept, %d are in use", len(f.groups), len(used))
	}
}
