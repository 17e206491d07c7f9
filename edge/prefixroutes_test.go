package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/bgp/speaker"
	"msee/circuit"
	"msee/config"
	"msee/dataplane/port"
)

const byEVPN, byEVPN13, hostTold20 = "er1-private/v5001/172.16.0.12", "er1-private/v5001/172.16.0.13", "er1-private/v5001/172.16.0.20"

// newPrefixEdge has the network's routes told by EVPN: by both instances of the gateway, who
// may tell three prefixes each, and to a host.
func newPrefixEdge(t *testing.T) *fastPathEdge {
	e := newOverlayEdge(t)
	e.maintenance, e.device.ASN, e.device.RouterID = InService, circuit.ASNMSEE, netip.MustParseAddr("1.1.1.1")
	v := e.vrfs["er1-private"]
	inside := v.cfg.Sessions[0]
	v.cfg.Subinterfaces[1].VXLAN = v.subs["core.er1-private"].cfg.VXLAN
	v.cfg.Sessions = nil
	for i, name := range []string{byEVPN, byEVPN13, hostTold20} {
		s := inside
		s.Name, s.Peer, s.MaxPrefixes, s.TellOnly = name, netip.MustParseAddr(name[strings.LastIndex(name, "/")+1:]), 3, i == 2
		s.Carrier = "underlay/" + s.Peer.String()
		v.cfg.Sessions = append(v.cfg.Sessions, s)
		e.sessions[s.Name] = &session{cfg: s, vrf: v}
	}
	v.rib.SetPolicy(e.policy(v.cfg))
	v.rib.SetPeers(e.peers(v.cfg))
	return e
}

func prefixTold(prefix, vtep string, mac byte) evpn.Route {
	r := toldOf(vtep, "0.0.0.0", 0, 0)
	r.Type, r.MAC, r.Prefix = evpn.TypePrefix, evpn.MAC{}, netip.MustParsePrefix(prefix)
	r.Attrs.Extended.RouterMAC, r.Attrs.ASPath = evpn.MAC{2, 0, 0, 0, 0, mac}, []uint32{bgp.ASGateway}
	return r
}

// candidates are the RIB's routes to a prefix in words.
func (e *fastPathEdge) candidates(prefix string) (words []string) {
	for _, c := range e.vrfs["er1-private"].rib.Explain(netip.MustParsePrefix(prefix)) {
		words = append(words, fmt.Sprintf("%s %s by %s: %v %v", c.State, c.Why, c.Peer.Name, c.Attrs.NextHop, c.Attrs.MAC))
	}
	return words
}

// TestPrefixRoutes: a gateway's type 5 routes are the RIB's, and lead to its MAC behind its
// VTEP; whose they are is looked at, and what they may be.
func TestPrefixRoutes(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	const prefix = "10.100.0.0/16"
	e.tell("underlay/172.16.0.12", prefixTold(prefix, "172.16.0.12", 12))
	e.tell("underlay/172.16.0.13", prefixTold(prefix, "172.16.0.13", 13))
	e.tell("underlay/172.16.0.20", prefixTold(prefix, "172.16.0.20", 20), prefixTold("10.101.0.0/16", "172.16.0.20", 20))
	if got, want := e.candidates(prefix), []string{
		"best lowest peer address of 2 equal routes by " + byEVPN + ": 172.16.0.12 02:00:00:00:00:0c",
		"ecmp equal to the best by " + byEVPN13 + ": 172.16.0.13 02:00:00:00:00:0d",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := e.candidates("10.101.0.0/16"); len(got) != 0 {
		t.Errorf("a host's word: %q", got)
	}
	g := v.fwd.routed[netip.MustParsePrefix(prefix)]
	if g == nil || len(g.Members) != 2 {
		t.Fatalf("the route leads to %v", g)
	}
	for i, last := range []byte{12, 13} {
		vtep := netip.AddrFrom4([4]byte{172, 16, 0, last})
		r := g.Members[i].Rewrite()
		if g.hops[i].mac != (port.MAC{2, 0, 0, 0, 0, last}) || r == nil || r.VTEP == nil || r.VTEP.Addr != vtep {
			t.Errorf("member %d: %v, rewrite %+v", i, g.hops[i], r)
		}
	}
	e.tell("h20", toldOf("172.16.0.20", "10.100.1.10", 1, 0))
	e.reviewAnnounced()
	if got := e.explainFastPath(v, netip.MustParseAddr("10.100.1.10")); !strings.Contains(got, "hit: host 172.16.0.20") {
		t.Errorf("an endpoint in a prefix that came by EVPN: %s", got)
	}

	// What none of a gateway's routes may be.
	with := func(change func(*evpn.Route)) evpn.Route {
		r := prefixTold("10.102.0.0/16", "172.16.0.12", 12)
		change(&r)
		return r
	}
	for want, r := range map[string]evpn.Route{
		string(bgp.ReasonDefaultRoute): with(func(r *evpn.Route) { r.Prefix = netip.MustParsePrefix("0.0.0.0/0") }),
		string(bgp.ReasonMartian):      with(func(r *evpn.Route) { r.Prefix = netip.MustParsePrefix("127.1.0.0/16") }),
		string(bgp.ReasonFirstAS):      with(func(r *evpn.Route) { r.Attrs.ASPath = []uint32{65000} }),
		string(bgp.ReasonVTEP):         with(func(r *evpn.Route) { r.Attrs.NextHop = netip.MustParseAddr("172.17.0.12") }),
		string(bgp.ReasonNextHopOurs):  with(func(r *evpn.Route) { r.Attrs.NextHop = netip.MustParseAddr("172.16.0.4") }),
		string(bgp.ReasonNextHop):      with(func(r *evpn.Route) { r.Gateway = netip.MustParseAddr("10.1.1.1") }),
		"best only route":              with(func(r *evpn.Route) { r.Gateway = netip.MustParseAddr("10.100.255.12") }),
	} {
		e.tell("underlay/172.16.0.12", r)
		if got := e.candidates(r.Prefix.String()); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q, want %q", got, want)
		}
		e.overlayChanged(e.overlay.table.Update(evpn.Update{Session: "underlay/172.16.0.12", Withdraw: []evpn.Key{r.Key}}))
		if got := e.candidates(r.Prefix.String()); len(got) != 0 {
			t.Errorf("withdrawn: %q", got)
		}
	}

	v.rib.MarkStale() // the speaker's restart, of which the table knows
	e.overlay.table.Stale("")
	e.overlayChanged(e.overlay.table.Drop("underlay/172.16.0.12"))
	if got := e.candidates(prefix); len(got) != 1 || !strings.HasPrefix(got[0], "best only route by "+byEVPN13) {
		t.Errorf("with one instance: %q", got)
	}
	for _, s := range []string{"underlay/172.16.0.13", "underlay/172.16.0.20", "h20"} {
		e.overlayChanged(e.overlay.table.Drop(s))
	}
	e.reviewAnnounced()
	if n := v.rib.Len(); n != 0 || len(v.fwd.routed) != 0 || len(v.fwd.adjacencies) != 0 || e.programmed() != 0 {
		t.Errorf("something remains: %d prefixes, routes %v, adjacencies %v, %d endpoints", n, v.fwd.routed, v.fwd.adjacencies, e.programmed())
	}
}

// TestBeyondRouter: a VTEP that an underlay's route has is reached by that router, and another
// is as unknown as before.
func TestBeyondRouter(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	s := v.subs["core.er1-private"]
	router := netip.MustParseAddr("172.16.0.1")
	s.cfg.VXLAN.Routes = []config.UnderlayRoute{{Prefix: netip.MustParsePrefix("172.17.0.0/16"), NextHop: router}}
	v.rib.SetPeers(e.peers(v.cfg))
	e.tell("underlay/172.16.0.12", prefixTold("10.100.0.0/16", "172.17.0.12", 12), prefixTold("10.101.0.0/16", "172.18.0.12", 12),
		prefixTold("10.102.0.0/16", "172.16.0.12", 12), toldOf("172.17.0.20", "10.100.1.10", 1, 0))
	for prefix, want := range map[string]string{
		"10.100.0.0/16": "best only route by " + byEVPN + ": 172.17.0.12 02:00:00:00:00:0c",
		"10.101.0.0/16": "refused " + string(bgp.ReasonVTEP) + " by " + byEVPN + ": 172.18.0.12 02:00:00:00:00:0c",
		"10.102.0.0/16": "best only route by " + byEVPN + ": 172.16.0.12 02:00:00:00:00:0c",
	} {
		if got := e.candidates(prefix); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", prefix, got, want)
		}
	}
	underlay := e.vrfs[config.UnderlayVRF]
	at := hop{sub: underlay.subs["core"], addr: router}
	for _, vtep := range []string{"172.17.0.12", "172.17.0.20"} {
		x := s.dp.Tunnel.VTEP(netip.MustParseAddr(vtep))
		if x == nil || underlay.fwd.adjacencies[at] == nil || x.Via != underlay.fwd.adjacencies[at].Adjacency {
			t.Errorf("%s: %+v, want it by %v", vtep, x, at)
		}
	}
	if x := s.dp.Tunnel.VTEP(netip.MustParseAddr("172.18.0.12")); x != nil {
		t.Errorf("a VTEP without a way: %+v", x)
	}
	e.overlayChanged(e.overlay.table.Drop("underlay/172.16.0.12"))
	if len(underlay.fwd.adjacencies) != 0 {
		t.Errorf("adjacencies remain: %v", underlay.fwd.adjacencies)
	}
}

// TestPrefixRoutesAlike: of what one neighbour tells of a prefix, as one does that passes on
// both instances' words, equal routes are used together, and those that policy refuses are in
// nobody's way. They count as one prefix.
func TestPrefixRoutesAlike(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	const prefix, from = "10.100.0.0/16", "underlay/172.16.0.12"
	beyond, longer := prefixTold(prefix, "172.16.0.1", 1), prefixTold(prefix, "172.16.0.15", 15)
	beyond.Attrs.NextHop = netip.MustParseAddr("172.15.0.1") // the table has it first
	longer.Attrs.ASPath = append(longer.Attrs.ASPath, 65000)
	twice := prefixTold(prefix, "172.16.0.13", 13)
	twice.RD = evpn.NewRD(netip.MustParseAddr("172.16.0.99"), 1)
	e.tell(from, beyond, longer, prefixTold(prefix, "172.16.0.14", 14), prefixTold(prefix, "172.16.0.13", 13), twice)
	want := []string{
		"best shorter AS path: 1 < 2 by " + byEVPN + ": 172.16.0.13 02:00:00:00:00:0d",
		"ecmp equal to the best by " + byEVPN + ": 172.16.0.14 02:00:00:00:00:0e",
		"lost shorter AS path: 1 < 2 by " + byEVPN + ": 172.16.0.15 02:00:00:00:00:0f",
		"refused " + string(bgp.ReasonVTEP) + " by " + byEVPN + ": 172.15.0.1 02:00:00:00:00:01",
	}
	if got := e.candidates(prefix); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if g := v.fwd.routed[netip.MustParsePrefix(prefix)]; g == nil || len(g.Members) != 2 {
		t.Errorf("the route leads to %v", g)
	}
	if c := v.rib.Counts(byEVPN); c != (bgp.Counts{Received: 1, Accepted: 1}) {
		t.Errorf("counts %+v, want one prefix", c)
	}
	withdraw := func(r evpn.Route, best string) {
		t.Helper()
		e.overlayChanged(e.overlay.table.Update(evpn.Update{Session: from, Withdraw: []evpn.Key{r.Key}}))
		if got := e.candidates(prefix); len(got) == 0 || !strings.HasPrefix(got[0], best) {
			t.Errorf("%q, want first %q", got, best)
		}
	}
	withdraw(twice, want[0])
	withdraw(prefixTold(prefix, "172.16.0.13", 13), "best shorter AS path: 1 < 2 by "+byEVPN+": 172.16.0.14")
	withdraw(prefixTold(prefix, "172.16.0.14", 14), "best only route by "+byEVPN+": 172.16.0.15")
	withdraw(longer, "refused")
	var many []evpn.Route
	for i := range byte(40) { // in the table's order
		many = append(many, prefixTold("10.101.0.0/16", netip.AddrFrom4([4]byte{172, 16, 0, 100 + i}).String(), 100+i))
	}
	e.tell(from, many...)
	if got := e.candidates("10.101.0.0/16"); len(got) != pathsTold || !strings.HasPrefix(got[bgp.MaxPaths-1], "ecmp") || !strings.HasPrefix(got[bgp.MaxPaths], "lost") {
		t.Errorf("of 40 routes: %q", got)
	}
	e.overlayChanged(e.overlay.table.Drop(from))
	if n := v.rib.Len(); n != 0 || len(v.fwd.routed) != 0 || len(v.fwd.adjacencies) != 0 {
		t.Errorf("something remains: %d prefixes, routes %v, adjacencies %v", n, v.fwd.routed, v.fwd.adjacencies)
	}
}

// TestEndpointsByGateway: a gateway's endpoints come as host routes behind their hosts' addresses,
// under the rules for those told inside the VNet, and are no routes.
func TestEndpointsByGateway(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	const from, other = "underlay/172.16.0.12", "underlay/172.16.0.13"
	endpoint := func(addr, host string, kind uint32) evpn.Route {
		r := prefixTold(addr+"/32", "172.16.0.12", 12)
		r.Gateway, r.Attrs.Communities = netip.MustParseAddr(host), []uint32{endpointCommunity + kind}
		return r
	}
	is := func(addr, want string) {
		t.Helper()
		e.reviewAnnounced()
		e.want("er1-private", addr, want)
	}
	vm := endpoint("10.100.1.10", "10.100.255.20", 0)
	e.tell(from, vm)
	is("10.100.1.10", "in no prefix that its gateway announces")
	e.tell(other, prefixTold("10.100.0.0/16", "172.16.0.13", 13))
	is("10.100.1.10", "in no prefix that its gateway announces") // the other instance's word
	e.tell(from, prefixTold("10.100.0.0/16", "172.16.0.12", 12))
	is("10.100.1.10", "host 10.100.255.20")
	e.tell(from, endpoint("10.100.1.10", "10.100.255.21", 0)) // a move
	is("10.100.1.10", "host 10.100.255.21")
	e.tell(other, vm)
	is("10.100.1.10", "host 10.100.255.20") // the later word
	e.tell(from, endpoint("10.100.1.11", "10.101.255.20", 0))
	is("10.100.1.11", "not on the connection's GatewaySubnet")
	e.tell(from, endpoint("10.100.1.12", "10.100.255.20", 1))
	is("10.100.1.12", "Direct") // a peered VNet's
	e.tell("underlay/172.16.0.20", endpoint("10.100.1.13", "10.100.255.20", 0))
	is("10.100.1.13", "not an endpoint") // who is told only
	if c := v.rib.Counts(byEVPN); c != (bgp.Counts{Received: 1, Accepted: 1}) || v.rib.Len() != 1 {
		t.Errorf("counts %+v, %d prefixes, want one", c, v.rib.Len())
	}

	plain := vm
	plain.Attrs = prefixTold("10.100.1.10/32", "172.16.0.12", 12).Attrs // an ordinary host route now
	e.tell(from, plain)
	e.tell(other, plain)
	is("10.100.1.10", "not an endpoint")
	if got := e.candidates("10.100.1.10/32"); len(got) != 2 {
		t.Errorf("an ordinary route: %q", got)
	}
	e.tell(from, vm)
	is("10.100.1.10", "host 10.100.255.20")
	for _, s := range []string{from, other, "underlay/172.16.0.20"} {
		e.overlayChanged(e.overlay.table.Drop(s))
	}
	is("10.100.1.10", "not an endpoint")
	if n := len(v.endpoints.all); n != 0 || v.rib.Len() != 0 || e.programmed() != 0 {
		t.Errorf("something remains: %d endpoints, %d prefixes, %d programmed", n, v.rib.Len(), e.programmed())
	}
}

// TestEndpointsTold: a gateway tells its MSEEs of its endpoints, and hosts of none.
func TestEndpointsTold(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	v.announced = []config.Endpoint{
		{Addr: netip.MustParseAddr("10.100.1.10"), Host: netip.MustParseAddr("10.100.255.20"), Kind: circuit.EndpointVirtualMachine},
		{Addr: netip.MustParseAddr("fd00:100::10"), Host: netip.MustParseAddr("fd00:100:0:ff::20"), Kind: circuit.EndpointVirtualMachine}, // in a session that is not there
	}
	routes := e.prefixesFor("underlay/172.16.0.12")
	if len(routes) != 1 || routes[0].Prefix.String() != "10.100.1.10/32" || routes[0].Gateway.String() != "10.100.255.20" || routes[0].VNI != testVNI ||
		!slices.Equal(routes[0].Attrs.Communities, []uint32{endpointCommunity}) || routes[0].Attrs.NextHop.String() != "172.16.0.4" {
		t.Errorf("an MSEE is told %+v", routes)
	}
	if routes := e.prefixesFor("underlay/172.16.0.20"); len(routes) != 0 {
		t.Errorf("a host is told %+v", routes)
	}
}

// TestPrefixRouteLimit: of a gateway that tells of too many prefixes none counts, until
// there are fewer.
func TestPrefixRouteLimit(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	var routes []evpn.Route
	for i := range 4 {
		routes = append(routes, prefixTold(fmt.Sprintf("10.%d.0.0/16", 100+i), "172.16.0.12", 12))
	}
	e.tell("underlay/172.16.0.12", routes[:3]...)
	e.tell("underlay/172.16.0.13", prefixTold("10.100.0.0/16", "172.16.0.13", 13))
	if n := v.rib.Counts(byEVPN).Accepted; n != 3 {
		t.Errorf("%d routes within the limit, want 3", n)
	}
	e.tell("underlay/172.16.0.12", routes[3])
	s := e.sessions[byEVPN]
	if n := v.rib.Counts(byEVPN).Received; n != 0 || s.limit.exceeded != 1 || s.limit.until.IsZero() {
		t.Errorf("%d routes above the limit; %+v", n, s.limit)
	}
	if got := e.candidates("10.100.0.0/16"); len(got) != 1 || !strings.Contains(got[0], byEVPN13) {
		t.Errorf("the other instance's: %q", got)
	}
	e.down(s) // as when the time is over: there are still too many
	if n := v.rib.Counts(byEVPN).Received; n != 0 || s.limit.exceeded != 2 {
		t.Errorf("%d routes still above the limit; %+v", n, s.limit)
	}
	e.overlayChanged(e.overlay.table.Update(evpn.Update{Session: "underlay/172.16.0.12", Withdraw: []evpn.Key{routes[0].Key}}))
	e.down(s)
	if n := v.rib.Counts(byEVPN).Accepted; n != 3 || s.limit.exceeded != 2 {
		t.Errorf("%d routes, fewer now, want 3; %+v", n, s.limit)
	}
}

// reload has the VRF's sessions be those of its configuration changed so, as commit does.
func (e *fastPathEdge) reload(change func([]config.Session)) {
	v := e.vrfs["er1-private"]
	v.cfg.Sessions = slices.Clone(v.cfg.Sessions)
	change(v.cfg.Sessions)
	dev := *e.device
	dev.VRFs = []config.VRF{v.cfg}
	e.setSessions(&dev)
	e.toldAgain()
}

// TestPrefixRoutesReload: who is told alone from now on is in no RIB with what it said
// before, and a limit that has become higher counts at once.
func TestPrefixRoutesReload(t *testing.T) {
	e := newPrefixEdge(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a speaker that never starts, and takes what it is told
	e.speaker = speaker.StartInProcess(ctx, slog.New(slog.DiscardHandler))
	v := e.vrfs["er1-private"]
	for _, v := range e.vrfs {
		v.kernel = &kernelVRF{}
	}
	for i := range 2 {
		e.tell("underlay/172.16.0.12", prefixTold(fmt.Sprintf("10.%d.0.0/16", 100+i), "172.16.0.12", 12))
	}
	tellOnly := func(only bool) func([]config.Session) {
		return func(s []config.Session) { s[0].TellOnly = only }
	}
	for _, only := range []bool{false, true, false} {
		e.reload(tellOnly(only))
		want := 2
		if only {
			want = 0
		}
		if n := v.rib.Counts(byEVPN).Received; n != want || len(v.fwd.routed) != want {
			t.Errorf("tell only %v: %d routes, %d in use, want %d", only, n, len(v.fwd.routed), want)
		}
	}

	for i := range 4 {
		e.tell("underlay/172.16.0.12", prefixTold(fmt.Sprintf("10.%d.0.0/16", 100+i), "172.16.0.12", 12))
	}
	s := e.sessions[byEVPN]
	if s.limit.exceeded != 1 || v.rib.Counts(byEVPN).Received != 0 {
		t.Fatalf("4 prefixes with a limit of 3: %+v", s.limit)
	}
	e.reload(func(s []config.Session) { s[0].MaxPrefixes = 4 })
	if n := v.rib.Counts(byEVPN).Accepted; n != 4 || s.limit.exceeded != 1 || !s.limit.until.IsZero() {
		t.Errorf("%d routes with a limit of 4, want 4; %+v", n, s.limit)
	}
}

// TestPrefixRoutesTold: neighbours are told a customer's routes with us as the way.
func TestPrefixRoutesTold(t *testing.T) {
	e := newPrefixEdge(t)
	v := e.vrfs["er1-private"]
	ce := config.Session{Name: "er1-private/ce", Subinterface: "cust.er1-private", Side: config.SideCustomer, PeerAS: 65001,
		Local: netip.MustParseAddr("192.168.15.18"), Peer: netip.MustParseAddr("192.168.15.17")}
	v.cfg.Sessions = append(v.cfg.Sessions, ce)
	v.rib.SetPeers(e.peers(v.cfg))
	a := &bgp.Attrs{NextHop: ce.Peer, ASPath: []uint32{65001, 65002}}
	v.rib.Apply(bgp.Update{Session: ce.Name, Announce: []bgp.Route{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Attrs: a}, {Prefix: netip.MustParsePrefix("10.2.0.0/16"), Attrs: a}}})
	mac := evpn.MAC(v.subs["core.er1-private"].port.port.MAC())
	for _, carrier := range []string{"underlay/172.16.0.12", "underlay/172.16.0.20"} {
		routes := e.prefixesFor(carrier)
		if len(routes) != 2 || routes[0].Attrs != routes[1].Attrs {
			t.Fatalf("%s is told %+v", carrier, routes)
		}
		want := evpn.Route{Key: evpn.Key{Type: evpn.TypePrefix, RD: evpn.NewRD(e.device.RouterID, testVNI), Prefix: netip.MustParsePrefix("10.1.0.0/16")}, VNI: testVNI,
			Attrs: &evpn.Attrs{NextHop: netip.MustParseAddr("172.16.0.4"), ASPath: a.ASPath,
				Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(bgp.ASMSEE, testVNI)}, RouterMAC: mac}}}
		if routes[0].Key != want.Key || !routes[0].Equal(&want) {
			t.Errorf("%s is told %+v with %+v, want %+v", carrier, routes[0], routes[0].Attrs, want)
		}
	}
	own := []evpn.RT{{0, 2, 0, 1, 0, 0, 0, 2}}
	v.subs["core.er1-private"].cfg.VXLAN.Export = own
	for _, r := range e.prefixesFor("underlay/172.16.0.12") {
		if !slices.Equal(r.Attrs.Extended.Targets, own) {
			t.Errorf("targets %v, want those configured", r.Attrs.Extended.Targets)
		}
	}
	if routes := e.prefixesFor("underlay/172.16.0.21"); len(routes) != 0 {
		t.Errorf("a stranger is told %+v", routes)
	}
}
