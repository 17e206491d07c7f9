package edge

import (
	"net/netip"
	"slices"
	"testing"

	"msee/config"
)

// TestStations: a gateway asks for the endpoints that are in its subnets of the VNet, and
// for no more than the kernel's table is to hold.
func TestStations(t *testing.T) {
	sub := func(side config.Side, addresses ...string) *subinterface {
		s := &subinterface{cfg: config.Subinterface{Side: side}}
		for _, a := range addresses {
			s.cfg.Addresses = append(s.cfg.Addresses, netip.MustParsePrefix(a))
		}
		return s
	}
	vnet := sub(config.SideVNet, "10.100.0.1/16", "fd00:100::1/64")
	v := &vrf{subs: map[string]*subinterface{"core": sub(config.SideCore, "10.200.0.12/24"), "vnet": vnet}}
	announce := func(a string) {
		v.announced = append(v.announced, config.Endpoint{Addr: netip.MustParseAddr(a)})
	}
	announce("10.100.1.10")
	announce("fd00:100::10")
	announce("10.200.0.20") // where the MSEEs are
	announce("10.101.0.1")  // nowhere
	seen := map[hop]bool{}
	for h := range v.stations {
		seen[h] = true
	}
	if len(seen) != 2 || !seen[hop{sub: vnet, addr: netip.MustParseAddr("10.100.1.10")}] || !seen[hop{sub: vnet, addr: netip.MustParseAddr("fd00:100::10")}] {
		t.Errorf("asks for %v", seen)
	}
	for i := range 1000 {
		v.announced = append(v.announced, config.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 100, byte(2 + i/250), byte(i % 250)})})
	}
	n := 0
	for range v.stations {
		n++
	}
	if n != endpointsAsked-2 {
		t.Errorf("asks for %d endpoints, want %d: two of the first %d are not in the VNet", n, endpointsAsked-2, endpointsAsked)
	}
}

// TestStationsTold: a gateway asks for what hosts tell by EVPN of its VNet, at once and as
// long as they do.
func TestStationsTold(t *testing.T) {
	e := newOverlayEdge(t)
	v := e.vrfs["er1-private"]
	e.device.Kind, e.asking = config.KindGateway, map[hop]bool{}
	vnet := &subinterface{vrf: v, cfg: config.Subinterface{Side: config.SideVNet, Addresses: []netip.Prefix{netip.MustParsePrefix("10.100.0.1/16")}}}
	v.subs["vnet"] = vnet
	vm := hop{sub: vnet, addr: netip.MustParseAddr("10.100.1.10")}
	e.tell("h20", toldOf("172.16.0.20", "10.100.1.10", 1, 0), toldOf("172.16.0.20", "10.101.1.10", 1, 0), toldOf("172.16.0.20", "10.100.255.20", 1, 0))
	e.tell("h21", toldOf("172.16.0.21", "10.100.1.10", 1, 1))
	is := func(what string, want bool) {
		t.Helper()
		n := 0
		for h := range v.stations {
			if n++; h != vm {
				t.Errorf("%s: asks for %v", what, h)
			}
		}
		if n != boolToInt(want) {
			t.Errorf("%s: asks for %d, want %v", what, n, want)
		}
	}
	if is("told", true); !e.asking[vm] {
		t.Error("it waits with that")
	}
	e.overlayChanged(e.overlay.table.Drop("h21"))
	is("told by one host", true)
	e.overlayChanged(e.overlay.table.Drop("h20"))
	is("told by none", false)
	for i := range byte(200) {
		for j := range byte(2) {
			e.tell("h20", toldOf("172.16.0.20", netip.AddrFrom4([4]byte{10, 100, j, i}).String(), 1, 0))
		}
	}
	if n := len(v.heardOf); n != endpointsAsked {
		t.Errorf("of 400 it keeps %d", n)
	}
	v.announced = make([]config.Endpoint, endpointsAsked/2) // in no subnet, but they count
	if first, again := slices.Collect(v.stations), slices.Collect(v.stations); len(first) != endpointsAsked/2 || !slices.Equal(first, again) {
		t.Errorf("asks for %d of them, want %d, the same each time", len(first), endpointsAsked/2)
	}
}
