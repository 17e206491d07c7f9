package edge

import (
	"net/netip"
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
