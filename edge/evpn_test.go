package edge

import (
	"net/netip"
	"slices"
	"testing"

	"msee/bgp/evpn"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

const testVNI = 5001

// newOverlayEdge makes the first circuit's connection of newFastPathEdge a VXLAN
// network without configured ends.
func newOverlayEdge(t testing.TB) *fastPathEdge {
	e := newFastPathEdge(t)
	e.overlay = newOverlay(12076)
	on := &subinterface{cfg: config.Subinterface{Name: "core", Side: config.SideUnderlay, Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.0.4/24")}},
		dp: &dataplane.Subinterface{Name: "core"}, port: &portState{port: closedPair(t)}}
	underlay := &vrf{index: 2, subs: map[string]*subinterface{"core": on}, fwd: newForwarding(), cfg: config.VRF{Name: config.UnderlayVRF}}
	on.vrf = underlay
	underlay.endpoints = newEndpoints(e.fastPath)
	e.vrfs[config.UnderlayVRF] = underlay
	s := e.vrfs["er1-private"].subs["core.er1-private"]
	s.cfg.VXLAN = &config.VXLAN{VNI: testVNI, Underlay: "core", Local: []netip.Addr{netip.MustParseAddr("172.16.0.4")}}
	e.overlayChanged(e.setNetworks())
	e.setTunnels()
	return e
}

func toldOf(vtep, addr string, mac byte, sequence uint32, communities ...uint32) evpn.Route {
	v := netip.MustParseAddr(vtep)
	return evpn.Route{Key: evpn.Key{Type: evpn.TypeMACIP, RD: evpn.NewRD(v, 1), MAC: evpn.MAC{2, 0, 0, 0, 0, mac}, Prefix: host(netip.MustParseAddr(addr))},
		VNI: testVNI, Attrs: &evpn.Attrs{NextHop: v, Communities: communities, Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(65020, testVNI)}, Sequence: sequence}}}
}

func (e *fastPathEdge) tell(session string, routes ...evpn.Route) {
	e.overlayChanged(e.overlay.table.Update(evpn.Update{Session: session, Announce: routes}))
}

// TestToldEndpoints: FastPath follows EVPN's table, within what the connection allows.
func TestToldEndpoints(t *testing.T) {
	e := newOverlayEdge(t)
	v := e.vrfs["er1-private"]
	s := v.subs["core.er1-private"]
	is := func(addr, vtep string, mac byte) {
		t.Helper()
		ep := v.endpoints.all[netip.MustParseAddr(addr)]
		want := hop{sub: s, addr: netip.MustParseAddr(vtep), mac: port.MAC{2, 0, 0, 0, 0, mac}}
		if ep == nil || ep.hop != want || v.endpoints.dp.Lookup(netip.MustParseAddr(addr)) == 0 {
			t.Errorf("%s: %+v, want it at %s", addr, ep, vtep)
		} else if r := v.endpoints.hosts[ep.hop].Rewrite(); r == nil || r.VTEP == nil || r.VTEP.Addr != want.addr || r.VTEP != s.dp.Tunnel.VTEP(want.addr) {
			t.Errorf("%s: its rewrite is %+v", addr, r)
		}
	}
	e.tell("h20", toldOf("172.16.0.20", "10.100.1.10", 1, 0), toldOf("172.16.0.20", "10.100.1.11", 2, 0))
	is("10.100.1.10", "172.16.0.20", 1)
	is("10.100.1.11", "172.16.0.20", 2)
	e.tell("h21", toldOf("172.16.0.21", "10.100.1.10", 1, 1)) // a move
	is("10.100.1.10", "172.16.0.21", 1)
	is("10.100.1.11", "172.16.0.20", 2)

	e.tell("h20", toldOf("172.16.0.20", "10.100.1.12", 3, 0, endpointCommunity+1))
	e.want("er1-private", "10.100.1.12", "Direct") // a peered VNet's
	e.tell("h20", toldOf("172.16.0.20", "192.0.2.1", 4, 0))
	e.want("er1-private", "192.0.2.1", "in no prefix that its gateway announces")
	e.tell("h20", toldOf("172.16.0.20", "10.100.255.20", 5, 0))
	e.want("er1-private", "10.100.255.20", "not an endpoint") // on the GatewaySubnet: a neighbor
	e.tell("h20", toldOf("172.16.0.20", "fe80::5", 5, 0))
	e.want("er1-private", "fe80::5", "not an endpoint")       // a link's own
	e.tell("h20", toldOf("172.17.0.20", "10.100.1.13", 6, 0)) // beyond a router
	if a := v.fwd.adjacencies[hop{sub: s, addr: netip.MustParseAddr("172.17.0.20"), mac: port.MAC{2, 0, 0, 0, 0, 6}}]; a == nil || a.Rewrite() != nil {
		t.Errorf("a VTEP beyond a router: %+v", a)
	}

	e.reviewEndpoints() // as a reload does
	is("10.100.1.10", "172.16.0.21", 1)

	e.overlayChanged(e.overlay.table.Drop("h21"))
	is("10.100.1.10", "172.16.0.20", 1) // what the old host still says
	e.overlayChanged(e.overlay.table.Drop("h20"))
	underlay := e.vrfs[config.UnderlayVRF]
	if e.programmed() != 0 || len(v.endpoints.all) != 0 || len(v.endpoints.hosts) != 0 || len(v.fwd.adjacencies) != 0 || len(underlay.fwd.adjacencies) != 0 {
		t.Errorf("something remains: %d entries, %d endpoints, %d hosts, adjacencies %v and %v", e.programmed(),
			len(v.endpoints.all), len(v.endpoints.hosts), v.fwd.adjacencies, underlay.fwd.adjacencies)
	}
}

// TestToldStations: where EVPN says that a neighbor is counts before what was learned.
func TestToldStations(t *testing.T) {
	e := newOverlayEdge(t)
	v := e.vrfs["er1-private"]
	s := v.subs["core.er1-private"]
	gateway := netip.MustParseAddr("10.100.255.12")
	mac := port.MAC{2, 0, 0, 0, 0, 12}
	s.tunnel.kernelKnows(neighbor{addr: gateway, mac: mac, usable: true})
	v.fwd.neighborChanged(hop{sub: s, addr: gateway}, mac, true)
	at := func() string {
		if a := v.fwd.adjacencies[hop{sub: s, addr: gateway}]; a != nil && a.Rewrite() != nil {
			return a.Rewrite().VTEP.Addr.String()
		}
		return "nowhere"
	}
	if at() != "nowhere" {
		t.Errorf("known before anybody told: %s", at())
	}
	e.tell("h20", toldOf("172.16.0.20", "10.100.255.12", 12, 0))
	e.tell("h21", toldOf("172.16.0.21", "10.100.1.10", 1, 0))
	if at() != "172.16.0.20" {
		t.Errorf("told: %s", at())
	}
	s.tunnel.stations[mac] = netip.MustParseAddr("172.16.0.21") // learned from a frame that lingered
	s.replace(nil)
	if at() != "172.16.0.20" {
		t.Errorf("learned otherwise: %s", at())
	}
	e.tell("h21", toldOf("172.16.0.21", "10.100.255.12", 12, 1))
	if at() != "172.16.0.21" {
		t.Errorf("moved: %s", at())
	}
	delete(s.tunnel.stations, mac)
	e.overlayChanged(e.overlay.table.Drop("h20"))
	e.overlayChanged(e.overlay.table.Drop("h21"))
	if at() != "nowhere" || len(s.tunnel.via) != 0 {
		t.Errorf("nobody tells any more: %s, tunnels to %v", at(), s.tunnel.via)
	}
}

// TestToldVTEPs: a told end of a tunnel is one if it is another's on the underlay's subnet.
func TestToldVTEPs(t *testing.T) {
	e := newOverlayEdge(t)
	s := e.vrfs["er1-private"].subs["core.er1-private"]
	for _, vtep := range []string{"172.16.0.4", "172.16.0.0", "172.16.0.255", "172.16.1.20", "2001:db8::20", "172.16.0.20"} {
		flood := toldOf("172.16.0.20", vtep, 0, 0)
		flood.Type, flood.MAC, flood.Attrs.NextHop, flood.Attrs.Flood = evpn.TypeMulticast, evpn.MAC{}, netip.MustParseAddr(vtep), testVNI
		e.tell("h20", flood)
	}
	if all, _ := e.overlay.table.VTEPs(testVNI); len(all) != 6 {
		t.Errorf("told of %v", all)
	}
	if len(s.tunnel.via) != 1 || s.tunnel.via[0].addr != netip.MustParseAddr("172.16.0.20") || s.dp.Tunnel.VTEP(netip.MustParseAddr("172.16.0.4")) != nil {
		t.Errorf("tunnels to %v", s.tunnel.via)
	}
}

func TestRouteDistinguisherNumbers(t *testing.T) {
	o := newOverlay(12076)
	var got []uint16
	for _, vni := range []uint32{5001, 65536 + 5001, 5002, 5001, 131072 + 5001} {
		got = append(got, o.number(vni))
	}
	if want := []uint16{5001, 5002, 5003, 5001, 5004}; !slices.Equal(got, want) {
		t.Errorf("numbers %v, want %v", got, want)
	}
}

// BenchmarkTold200k takes 200,000 endpoints that a host tells of by EVPN, each with an address
// of one router's, into the exact match, and drops them as when its session ends.
func BenchmarkTold200k(b *testing.B) {
	const n, perUpdate = 200_000, 4096
	var updates []evpn.Update
	for i := range n {
		if i%perUpdate == 0 {
			updates = append(updates, evpn.Update{Session: "h20"})
		}
		r := toldOf("172.16.0.20", "0.0.0.0", 1, 0)
		if i%perUpdate > 0 {
			r.Attrs = updates[len(updates)-1].Announce[0].Attrs
		}
		r.Prefix = host(netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)}))
		u := &updates[len(updates)-1]
		u.Announce = append(u.Announce, r)
	}
	for b.Loop() {
		e := newOverlayEdge(b)
		e.device.Ports[0].DirectGbps = 100
		for _, u := range updates {
			e.overlayChanged(e.overlay.table.Update(u))
		}
		if e.programmed() != n {
			b.Fatalf("%d programmed", e.programmed())
		}
		e.overlayChanged(e.overlay.table.Drop("h20"))
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s")
}
