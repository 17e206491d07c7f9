package bgp

import (
	"fmt"
	"net/netip"
	"testing"
)

// table returns n routes of one peer, as 50 UPDATEs' worth of attributes.
func table(p *Peer, n int) []Route {
	routes := make([]Route, n)
	var a *Attrs
	for i := range routes {
		if i%max(1, n/50) == 0 {
			a = &Attrs{NextHop: p.Addr, ASPath: []uint32{p.AS, 65001, uint32(1 + i)}}
		}
		addr := netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 0})
		routes[i] = Route{netip.PrefixFrom(addr, 24), a}
	}
	return routes
}

// BenchmarkApply is a customer's table into a private peering's RIB with four
// gateway sessions, all at once: 10 k is the limit of a Premium circuit.
func BenchmarkApply(b *testing.B) {
	peers := []Peer{customer4, gatewayA0, gatewayA1, gatewayB0}
	for _, n := range []int{10_000, 100_000} {
		u := Update{Session: customer4.Name, Announce: table(&customer4, n)}
		b.Run(fmt.Sprintf("new/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewRIB(PrivatePeering(), peers).Apply(u)
			}
		})
		r := NewRIB(PrivatePeering(), peers)
		r.Apply(u)
		b.Run(fmt.Sprintf("again/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Apply(u)
			}
		})
		b.Run(fmt.Sprintf("flap/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Down(customer4.Name)
				r.Apply(u)
			}
		})
	}
}
