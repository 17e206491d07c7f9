package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func announce(p *Peer, prefix string, path ...uint32) Update {
	return Update{Session: p.Name, Announce: []Route{{pfx(prefix), &Attrs{NextHop: p.Addr, ASPath: path}}}}
}

func withdraw(p *Peer, prefix string) Update {
	return Update{Session: p.Name, Withdraw: pfxs(prefix)}
}

func routesTo(prefixes ...string) []Route {
	var out []Route
	for _, p := range prefixes {
		out = append(out, Route{Prefix: pfx(p)})
	}
	return out
}

// words renders changes, sorted: "10.0.0.0/8 via ce4@192.168.15.17",
// "gwA0: +10.0.0.0/8 [64512]".
func words(c Changes) []string {
	var out []string
	for _, rc := range c.Routes {
		s := rc.Prefix.String() + " via"
		for _, h := range rc.NextHops {
			s += fmt.Sprintf(" %s@%s", h.Session, h.Addr)
		}
		out = append(out, s)
	}
	for _, u := range c.Updates {
		for _, r := range u.Announce {
			out = append(out, fmt.Sprintf("%s: +%s %d", u.Session, r.Prefix, r.Attrs.ASPath))
		}
		for _, p := range u.Withdraw {
			out = append(out, fmt.Sprintf("%s: -%s", u.Session, p))
		}
	}
	slices.Sort(out)
	return out
}

func expect(t *testing.T, step string, c Changes, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := words(c); !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", step, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if c.Empty() != (len(want) == 0) {
		t.Errorf("%s: Empty is %v", step, c.Empty())
	}
}

// TestRIBStory follows a private peering from the first route on.
func TestRIBStory(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{customer4, gatewayA0, gatewayA1, gatewayB0})
	expect(t, "VNet from instance 0", r.Apply(announce(&gatewayA0, "10.1.0.0/16", ASGateway)),
		"10.1.0.0/16 via gwA0@10.255.0.12", "ce4: +10.1.0.0/16 []", "gwB0: +10.1.0.0/16 [12076]")
	expect(t, "and from instance 1: ECMP, nothing new to say", r.Apply(announce(&gatewayA1, "10.1.0.0/16", ASGateway)),
		"10.1.0.0/16 via gwA0@10.255.0.12 gwA1@10.255.0.13")
	expect(t, "the same again", r.Apply(announce(&gatewayA1, "10.1.0.0/16", ASGateway)))
	expect(t, "customer", r.Apply(announce(&customer4, "10.99.0.0/16", 64512, 64512)),
		"10.99.0.0/16 via ce4@192.168.15.17",
		"gwA0: +10.99.0.0/16 [64512 64512]", "gwA1: +10.99.0.0/16 [64512 64512]", "gwB0: +10.99.0.0/16 [64512 64512]")
	expect(t, "another path, the same next hop", r.Apply(announce(&customer4, "10.99.0.0/16", 64512)),
		"gwA0: +10.99.0.0/16 [64512]", "gwA1: +10.99.0.0/16 [64512]", "gwB0: +10.99.0.0/16 [64512]")
	expect(t, "refused", r.Apply(announce(&customer4, "127.0.0.0/8", 64512)))
	expect(t, "reflected VNet, longer path", r.Apply(announce(&customer4, "10.1.0.0/16", 64512, ASMSEE)))
	if got, want := r.Counts("ce4"), (Counts{Received: 3, Accepted: 2, Refused: 1, Advertised: 1}); got != want {
		t.Errorf("Counts = %+v, want %+v", got, want)
	}
	expect(t, "instance 0 down", r.Down("gwA0"), "10.1.0.0/16 via gwA1@10.255.0.13")
	expect(t, "both down: the reflection is all there is", r.Down("gwA1"),
		"10.1.0.0/16 via ce4@192.168.15.17", "ce4: -10.1.0.0/16",
		"gwA0: +10.1.0.0/16 [64512 12076]", "gwA1: +10.1.0.0/16 [64512 12076]", "gwB0: +10.1.0.0/16 [64512 12076]")
	expect(t, "withdrawn and announced at once", r.Apply(Update{Session: "ce4", Withdraw: pfxs("10.99.0.0/16"),
		Announce: announce(&customer4, "10.99.0.0/16", 64512).Announce}))
	expect(t, "withdrawn", r.Apply(withdraw(&customer4, "10.99.0.0/16")),
		"10.99.0.0/16 via", "gwA0: -10.99.0.0/16", "gwA1: -10.99.0.0/16", "gwB0: -10.99.0.0/16")
	expect(t, "down", r.Down("ce4"),
		"10.1.0.0/16 via", "gwA0: -10.1.0.0/16", "gwA1: -10.1.0.0/16", "gwB0: -10.1.0.0/16")
	if r.Len() != 0 || len(r.attrs.sets) != 0 {
		t.Errorf("%d prefixes and %d attribute sets are left", r.Len(), len(r.attrs.sets))
	}
}

func TestHostileUpdates(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{customer4})
	expect(t, "unknown session", r.Apply(Update{Session: "x", Announce: announce(&customer4, "10.0.0.0/8", 64512).Announce}))
	expect(t, "no prefix", r.Apply(Update{Session: "ce4", Announce: []Route{{}}, Withdraw: []netip.Prefix{{}}}))
	expect(t, "host bits", r.Apply(announce(&customer4, "10.1.2.3/8", 64512)), "10.0.0.0/8 via ce4@192.168.15.17")
	expect(t, "no attributes", r.Apply(Update{Session: "ce4", Announce: []Route{{Prefix: pfx("10.0.0.0/8")}}}), "10.0.0.0/8 via")
	expect(t, "twice in one, the last counts", r.Apply(Update{Session: "ce4", Announce: []Route{
		announce(&customer4, "10.0.0.0/8", 64512).Announce[0], announce(&customer4, "10.0.0.0/8", 1).Announce[0]}}))
	if got := r.Explain(pfx("10.0.0.0/8")); len(got) != 1 || got[0].Why != string(ReasonFirstAS) {
		t.Errorf("Explain = %+v", got)
	}
	expect(t, "unknown session down", r.Down("x"))
	expect(t, "unknown session swept", r.Sweep("x"))
	if r.Counts("x") != (Counts{}) || r.AdjRIBOut("x") != nil || r.Explain(netip.Prefix{}) != nil {
		t.Error("an unknown session or prefix has something")
	}
}

// TestRefusedAsReceived: an operator sees what a refused route came with.
func TestRefusedAsReceived(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{customer4})
	u := announce(&customer4, "127.0.0.0/8", 64512)
	u.Announce[0].Attrs.Communities = []uint32{1}
	r.Apply(u)
	if c := r.Explain(pfx("127.0.0.0/8"))[0]; c.State != PathRefused || c.Attrs != c.Received || len(c.Attrs.Communities) != 1 {
		t.Errorf("Explain = %+v, attributes %+v", c, *c.Attrs)
	}
}

// TestAttrsDiffer: any two of these are unequal and interned apart, equal ones
// together.
func TestAttrsDiffer(t *testing.T) {
	zone := addr("fe80::1%a")
	all := []Attrs{
		{}, {NextHop: addr("0.0.0.0")}, {NextHop: addr("::")}, {NextHop: addr("10.0.0.1")}, {NextHop: addr("::ffff:10.0.0.1")},
		{NextHop: zone}, {NextHop: zone.WithZone("")}, {NextHop: zone.WithZone("b")}, {Origin: 1}, {HasMED: true}, {HasMED: true, MED: 1},
		{ASPath: []uint32{1}}, {ASPath: []uint32{1, 2}}, {ASPath: []uint32{2, 1}}, {ASPath: []uint32{1}, Communities: []uint32{2}}, {Communities: []uint32{1, 2}},
	}
	table := attrTable{sets: map[string]*attrSet{}}
	for i := range all {
		for j := range all {
			twin := all[j]
			twin.ASPath, twin.Communities = slices.Clone(twin.ASPath), slices.Clone(twin.Communities)
			if got := all[i].Equal(&twin); got != (i == j) {
				t.Errorf("%+v Equal %+v = %v", all[i], twin, got)
			}
			if got := table.intern(&all[i]) == table.intern(&twin); got != (i == j) {
				t.Errorf("%+v and %+v interned as one: %v", all[i], twin, got)
			}
		}
	}
}

func TestSpeakerRestart(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{customer4, gatewayA0})
	r.Apply(announce(&customer4, "10.97.0.0/16", 64512))
	r.Apply(announce(&customer4, "10.98.0.0/16", 64512))
	r.Apply(announce(&gatewayA0, "10.1.0.0/16", ASGateway))
	expect(t, "End-of-RIB without a restart", r.Sweep("ce4"))
	r.MarkStale()
	if c := r.Explain(pfx("10.98.0.0/16")); !c[0].Stale || c[0].State != PathBest {
		t.Errorf("after MarkStale: %+v", c[0])
	}
	if got := r.AdjRIBOut("gwA0"); len(got) != 2 || got[0].Prefix != pfx("10.97.0.0/16") || got[1].Prefix != pfx("10.98.0.0/16") {
		t.Errorf("AdjRIBOut = %v", got)
	}
	expect(t, "heard again", r.Apply(announce(&customer4, "10.98.0.0/16", 64512)))
	if c := r.Explain(pfx("10.98.0.0/16")); c[0].Stale {
		t.Error("a route heard again is stale")
	}
	expect(t, "End-of-RIB", r.Sweep("ce4"), "10.97.0.0/16 via", "gwA0: -10.97.0.0/16")
	expect(t, "the other session has not come back", r.Sweep("gwA0"), "10.1.0.0/16 via", "ce4: -10.1.0.0/16")
}

func TestSetPeers(t *testing.T) {
	peers := []Peer{customer4, gatewayA0, gatewayB0}
	r := NewRIB(PrivatePeering(), peers)
	r.Apply(announce(&gatewayA0, "10.1.0.0/16", ASGateway))
	r.Apply(announce(&gatewayB0, "10.1.0.0/16", ASGateway))
	expect(t, "no change", r.SetPeers(slices.Clone(peers)))

	peers[2].Weight = 100
	expect(t, "weight", r.SetPeers(peers), "10.1.0.0/16 via gwB0@10.255.1.12", "gwA0: +10.1.0.0/16 [12076]", "gwB0: -10.1.0.0/16")
	peers[0].Name = "overwritten by the caller"
	if r.Counts("ce4").Advertised != 1 {
		t.Error("the RIB uses the caller's slice")
	}
	peers[0] = customer4
	expect(t, "a new session hears all", r.SetPeers(append(peers, gatewayA1)), "gwA1: +10.1.0.0/16 [12076]")
	peers[2].Connection = "A"
	expect(t, "connection", r.SetPeers(append(peers, gatewayA1)), "gwA0: -10.1.0.0/16", "gwA1: -10.1.0.0/16")
	peers[2].Subnet, peers[2].Addr = netip.Prefix{}, addr("10.255.1.13")
	expect(t, "another neighbour of that name", r.SetPeers(peers), "10.1.0.0/16 via gwA0@10.255.0.12")
	expect(t, "removed", r.SetPeers(peers[:1]), "10.1.0.0/16 via", "ce4: -10.1.0.0/16")
	if r.Len() != 0 || len(r.attrs.sets) != 0 {
		t.Errorf("%d prefixes and %d attribute sets are left", r.Len(), len(r.attrs.sets))
	}
}

func TestSetPolicy(t *testing.T) {
	r := NewRIB(MicrosoftPeering(pfxs("203.0.113.0/24")), []Peer{customer4})
	r.Apply(announce(&customer4, "203.0.113.0/24", 64512, 3))
	r.Apply(announce(&customer4, "198.51.100.0/24", 64512, 3))
	expect(t, "the other prefix", r.SetPolicy(MicrosoftPeering(pfxs("198.51.100.0/24"))),
		"203.0.113.0/24 via", "198.51.100.0/24 via ce4@192.168.15.17")
	expect(t, "the same", r.SetPolicy(MicrosoftPeering(pfxs("198.51.100.0/24"))))
	if got, want := r.Counts("ce4"), (Counts{Received: 2, Accepted: 1, Refused: 1}); got != want {
		t.Errorf("Counts = %+v, want %+v", got, want)
	}
	c := r.Explain(pfx("198.51.100.0/24"))[0]
	if !slices.Equal(c.Attrs.ASPath, []uint32{3}) || !slices.Equal(c.Received.ASPath, []uint32{64512, 3}) {
		t.Errorf("AS path %d, received %d", c.Attrs.ASPath, c.Received.ASPath)
	}
}

func TestOriginate(t *testing.T) {
	r := NewRIB(Gateway(), []Peer{msee0, msee1})
	expect(t, "from both MSEEs", r.Apply(announce(&msee0, "10.1.2.0/24", ASMSEE, 64512)), "10.1.2.0/24 via msee0@10.255.0.4")
	r.Apply(announce(&msee1, "10.1.2.0/24", ASMSEE, 64512))
	expect(t, "own address space", r.Originate(routesTo("10.1.0.0/16", "10.1.0.0/16", "2001:db8::/48")),
		"10.1.2.0/24 via", "msee0: +10.1.0.0/16 []", "msee1: +10.1.0.0/16 []")
	expect(t, "the same", r.Originate(routesTo("2001:db8::/48", "10.1.9.9/16")))
	r.Apply(announce(&msee0, "10.1.0.0/16", ASMSEE, 64512))
	if c := r.Explain(pfx("10.1.0.0/16")); len(c) != 2 || c[0].Peer.Side != SideLocal || c[1].Why != string(ReasonOwnSpace) {
		t.Errorf("Explain = %+v", c)
	}
	expect(t, "other space", r.Originate(routesTo("10.2.0.0/16")),
		"10.1.2.0/24 via msee0@10.255.0.4 msee1@10.255.0.5", "10.1.0.0/16 via msee0@10.255.0.4",
		"msee0: +10.2.0.0/16 []", "msee0: -10.1.0.0/16", "msee1: +10.2.0.0/16 []", "msee1: -10.1.0.0/16")
	expect(t, "none", r.Originate(nil), "msee0: -10.2.0.0/16", "msee1: -10.2.0.0/16")
}

func TestSameNextHopOnce(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{gatewayA0, gatewayA1})
	r.Apply(announce(&gatewayA0, "10.1.0.0/16", ASGateway))
	third := announce(&gatewayA1, "10.1.0.0/16", ASGateway)
	third.Announce[0].Attrs.NextHop = gatewayA0.Addr
	expect(t, "third-party next hop", r.Apply(third))
}

func TestExplain(t *testing.T) {
	heavy := gatewayB0
	heavy.Weight = 100
	const prefix = "10.1.0.0/16"
	type row struct{ session, state, why string }
	for _, tc := range []struct {
		name    string
		peers   []Peer
		updates []Update
		want    []row
	}{
		{"only", []Peer{customer4}, []Update{announce(&customer4, prefix, 64512)},
			[]row{{"ce4", "best", "only route"}}},
		{"equal", []Peer{gatewayA1, gatewayA0}, []Update{announce(&gatewayA1, prefix, ASGateway), announce(&gatewayA0, prefix, ASGateway)},
			[]row{{"gwA0", "best", "lowest peer address of 2 equal routes"}, {"gwA1", "ecmp", "equal to the best"}}},
		{"weight before path", []Peer{gatewayA0, heavy}, []Update{announce(&gatewayA0, prefix, ASGateway), announce(&heavy, prefix, ASGateway, ASGateway)},
			[]row{{"gwB0", "best", "higher connection weight: 100 > 0"}, {"gwA0", "lost", "higher connection weight: 100 > 0"}}},
		{"path", []Peer{gatewayA0, customer4}, []Update{announce(&customer4, prefix, 64512, ASMSEE, 1), announce(&gatewayA0, prefix, ASGateway)},
			[]row{{"gwA0", "best", "shorter AS path: 1 < 3"}, {"ce4", "lost", "shorter AS path: 1 < 3"}}},
		{"side", []Peer{gatewayA0, customer4}, []Update{announce(&customer4, prefix, 64512), announce(&gatewayA0, prefix, ASGateway)},
			[]row{{"gwA0", "best", "gateway before customer"}, {"ce4", "lost", "gateway before customer"}}},
		{"refused come last", []Peer{gatewayA0, customer4}, []Update{announce(&gatewayA0, prefix, 1), announce(&customer4, prefix, 64512)},
			[]row{{"ce4", "best", "only route"}, {"gwA0", "refused", "first AS is not the peer's"}}},
		{"all refused", []Peer{gatewayA0}, []Update{announce(&gatewayA0, prefix, 1)},
			[]row{{"gwA0", "refused", "first AS is not the peer's"}}},
	} {
		r := NewRIB(PrivatePeering(), tc.peers)
		for _, u := range tc.updates {
			r.Apply(u)
		}
		var got []row
		for _, c := range r.Explain(pfx(prefix)) {
			got = append(got, row{c.Peer.Name, string(c.State), c.Why})
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n got %v\nwant %v", tc.name, got, tc.want)
		}
	}
}

// TestMaxPaths: of ten equal routes those of the eight lowest addresses count.
func TestMaxPaths(t *testing.T) {
	var peers []Peer
	for i := range 10 {
		p := gatewayA0
		p.Name, p.Addr = fmt.Sprint("gw", i), netip.AddrFrom4([4]byte{10, 255, 0, byte(200 - i)})
		peers = append(peers, p)
	}
	r := NewRIB(PrivatePeering(), peers)
	var last Changes
	for i := range peers {
		last = r.Apply(announce(&peers[i], "10.1.0.0/16", ASGateway))
	}
	if hops := last.Routes[0].NextHops; len(hops) != MaxPaths || hops[0].Session != "gw9" || hops[7].Session != "gw2" {
		t.Errorf("next hops %v", hops)
	}
	c := r.Explain(pfx("10.1.0.0/16"))
	if want := "lower peer address of more than 8 equal routes"; c[8].Why != want || c[9].State != PathLost || c[0].Why != want {
		t.Errorf("the ninth is %s (%s), the best %q", c[8].State, c[8].Why, c[0].Why)
	}
}

// TestRoutesOrder: sorted, and stopping early is fine.
func TestRoutesOrder(t *testing.T) {
	r := NewRIB(PrivatePeering(), []Peer{customer4, customer6})
	r.Apply(announce(&customer6, "2001:db8::/32", 64512))
	for _, p := range []string{"10.0.0.0/16", "9.0.0.0/8", "10.0.0.0/8"} {
		r.Apply(announce(&customer4, p, 64512))
	}
	var got []netip.Prefix
	for p, c := range r.Routes() {
		got = append(got, p)
		if !reflect.DeepEqual(c, r.Explain(p)) {
			t.Errorf("Routes and Explain differ at %v", p)
		}
		if len(got) == 4 {
			break
		}
	}
	if want := pfxs("9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "2001:db8::/32"); !slices.Equal(got, want) {
		t.Errorf("Routes yields %v, want %v", got, want)
	}
}

// TestRouteFilterChange: a changed filter announces and withdraws what differs,
// at once and nothing else.
func TestRouteFilterChange(t *testing.T) {
	p := MicrosoftPeering(pfxs("203.0.113.0/24"))
	r := NewRIB(p, []Peer{customer4, network4})
	marked := func(prefix string, c uint32) Route { return Route{pfx(prefix), &Attrs{Communities: []uint32{c}}} }
	expect(t, "no filter", r.Originate([]Route{marked("20.1.0.0/16", storage), marked("20.2.0.0/16", sql)}))
	p.RouteFilter = []uint32{storage}
	expect(t, "storage", r.SetPolicy(p), "ce4: +20.1.0.0/16 []")
	p.RouteFilter = []uint32{storage, sql}
	expect(t, "and SQL", r.SetPolicy(p), "ce4: +20.2.0.0/16 []")
	p.RouteFilter = []uint32{sql}
	expect(t, "not storage", r.SetPolicy(p), "ce4: -20.1.0.0/16")
	expect(t, "other prefixes", r.Originate([]Route{marked("20.3.0.0/16", sql)}), "ce4: +20.3.0.0/16 []", "ce4: -20.2.0.0/16")
	expect(t, "another community", r.Originate([]Route{marked("20.3.0.0/16", storage)}), "ce4: -20.3.0.0/16")
	expect(t, "a way there changes nothing for the customer", r.Apply(announce(&network4, "0.0.0.0/0", 8075)), "0.0.0.0/0 via net4@10.254.0.12")
	expect(t, "the customer", r.Apply(announce(&customer4, "203.0.113.0/24", 64512)),
		"203.0.113.0/24 via ce4@192.168.15.17", "net4: +203.0.113.0/24 []")
	if got := r.Counts("ce4").Advertised; got != 0 {
		t.Errorf("%d advertised", got)
	}
}
