package bgp

import (
	"net/netip"
	"slices"
	"testing"
)

// TestDrain: what is announced gets longer by eight, everywhere, and shorter
// again; nothing is withdrawn in between.
func TestDrain(t *testing.T) {
	customer := Peer{Name: "ce", AS: 65001, Side: SideCustomer, Local: netip.MustParseAddr("192.0.2.2"), Addr: netip.MustParseAddr("192.0.2.1"), Subnet: netip.MustParsePrefix("192.0.2.0/30")}
	gateway := Peer{Name: "gw", AS: ASGateway, Side: SideGateway, Connection: "c", Local: netip.MustParseAddr("10.0.0.4"), Addr: netip.MustParseAddr("10.0.0.12"), Subnet: netip.MustParsePrefix("10.0.0.0/27")}
	r := NewRIB(PrivatePeering(), []Peer{customer, gateway})
	r.Apply(Update{Session: "ce", Announce: []Route{{netip.MustParsePrefix("10.1.0.0/16"), &Attrs{NextHop: customer.Addr, ASPath: []uint32{65001}}}}})
	r.Apply(Update{Session: "gw", Announce: []Route{{netip.MustParsePrefix("10.100.0.0/16"), &Attrs{NextHop: gateway.Addr, ASPath: []uint32{ASGateway}}}}})
	eight := slices.Repeat([]uint32{ASMSEE}, 8)
	for _, drained := range []bool{true, false} {
		p := PrivatePeering()
		p.Drained = drained
		c := r.SetPolicy(p)
		if len(c.Routes) != 0 {
			t.Errorf("drained %v: forwarding changes: %v", drained, c.Routes)
		}
		want := map[string][]uint32{"ce": {}, "gw": {65001}}
		if drained {
			want = map[string][]uint32{"ce": eight, "gw": append(slices.Clone(eight), 65001)}
		}
		for _, u := range c.Updates {
			if len(u.Withdraw) != 0 || len(u.Announce) != 1 || !slices.Equal(u.Announce[0].Attrs.ASPath, want[u.Session]) {
				t.Errorf("drained %v: %s is told %+v, want the path %v", drained, u.Session, u, want[u.Session])
			}
		}
		if len(c.Updates) != 2 {
			t.Errorf("drained %v: %d sessions are told, want 2", drained, len(c.Updates))
		}
	}
	g := Gateway()
	g.Drained = true
	msee := Peer{Name: "m", AS: ASMSEE, Side: SideMSEE, Local: netip.MustParseAddr("10.0.0.12"), Addr: netip.MustParseAddr("10.0.0.4")}
	a := g.Export(&msee, &Peer{Side: SideLocal}, Route{netip.MustParsePrefix("10.100.0.0/16"), &Attrs{}})
	if a == nil || !slices.Equal(a.ASPath, slices.Repeat([]uint32{ASGateway}, 8)) {
		t.Errorf("a drained gateway announces %+v", a)
	}
}
