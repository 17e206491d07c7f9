package dataplane

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"

	"msee/vlan"
)

func TestSourceFilter(t *testing.T) {
	only := NewSources(netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("2001:db8:1:2::/64"))
	tests := []struct {
		name    string
		sources *Sources
		check   SourceCheck
		l       []gopacket.SerializableLayer
		want    Verdict
	}{
		{"no check", nil, SourceAny, udp4("172.16.9.9", "10.100.1.1", 64, 0), Transmit},
		{"among the prefixes", only, SourceAny, udp4("10.1.2.3", "10.100.1.1", 64, 0), Transmit},
		{"not among them", only, SourceAny, udp4("10.1.3.3", "10.100.1.1", 64, 0), DropSource},
		{"IPv6 among them", only, SourceAny, udp6("2001:db8:1:2::9", "fd00:100::99", 64, 0), Transmit},
		{"IPv6 not among them", only, SourceAny, udp6("2001:db8:1:3::9", "fd00:100::99", 64, 0), DropSource},
		{"the neighbor itself", only, SourceStrict, udp4("192.168.15.17", "10.100.1.1", 64, 0), Transmit},
		{"no prefix at all", NewSources(), SourceAny, udp4("10.1.2.3", "10.100.1.1", 64, 0), DropSource},
		{"loose, a route", nil, SourceLoose, udp4("10.200.1.1", "10.100.1.1", 64, 0), Transmit},
		{"loose, none", nil, SourceLoose, udp4("172.16.9.9", "10.100.1.1", 64, 0), DropSource},
		{"loose, discarded", nil, SourceLoose, udp4("10.66.0.1", "10.100.1.1", 64, 0), DropSource},
		{"loose, ours", nil, SourceLoose, udp4("192.168.15.18", "10.100.1.1", 64, 0), Transmit}, // of the subnet
		{"strict, back", nil, SourceStrict, udp4("10.1.0.1", "10.100.1.1", 64, 0), Transmit},
		{"strict, IPv6 back", nil, SourceStrict, udp6("2001:db8:1::1", "fd00:100::99", 64, 0), Transmit},
		{"strict, elsewhere", nil, SourceStrict, udp4("10.200.1.1", "10.100.1.1", 64, 0), DropSource},
		{"strict, IPv6 elsewhere", nil, SourceStrict, udp6("fd00:100::1", "fd00:100::99", 64, 0), DropSource},
		{"strict, another subnet", nil, SourceStrict, udp4("10.100.255.9", "10.100.1.1", 64, 0), DropSource},
		{"strict, next hop unresolved", nil, SourceStrict, udp4("10.67.0.1", "10.100.1.1", 64, 0), DropSource},
		{"both", only, SourceStrict, udp4("10.1.2.1", "10.100.1.1", 64, 0), Transmit},
		{"both, the one fails", only, SourceStrict, udp4("10.1.1.1", "10.100.1.1", 64, 0), DropSource},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, vlan.TPIDQ)
			s := r.subs["cust.100"]
			s.Sources, s.SourceCheck = tt.sources, tt.check
			old := r.engine.Snapshot()
			cust := NewPort(0, "cust", r.customer, vlan.TPIDQ, r.counters(), []*Subinterface{s}, nil)
			r.engine.snap.Store(&Snapshot{Ports: []*Port{cust, old.Ports[1]}, VRFs: old.VRFs})
			if v := r.receive(frame(t, mseeMAC, tags(100), q, tt.l...)); v != tt.want {
				t.Errorf("verdict %v, want %v", v, tt.want)
			}
			r.checkSum(1)
		})
	}
}

// TestSameInterface: what tells interfaces apart is their port and their tags, or
// their VNI; a new version of one is the same.
func TestSameInterface(t *testing.T) {
	on := func(port int, outer, inner uint16, vni uint32) *Subinterface {
		s := &Subinterface{Port: port, Outer: outer, Inner: inner}
		if vni != 0 {
			s.Tunnel = NewTunnel(vni, nil)
		}
		return s
	}
	all := []func() *Subinterface{
		func() *Subinterface { return on(0, 0, 0, 0) },
		func() *Subinterface { return on(1, 0, 0, 0) },
		func() *Subinterface { return on(0, 100, 0, 0) },
		func() *Subinterface { return on(0, 100, 10, 0) },
		func() *Subinterface { return on(0, 0, 0, 5001) },
		func() *Subinterface { return on(0, 0, 0, 5002) },
		func() *Subinterface { return on(1, 0, 0, 5001) },
	}
	for i, a := range all {
		for j, b := range all {
			if got := a().sameAs(b()); got != (i == j) {
				t.Errorf("interfaces %d and %d are one: %v", i, j, got)
			}
		}
	}
}
