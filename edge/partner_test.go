package edge

import (
	"net/netip"
	"testing"
	"time"

	"msee/bgp"
	"msee/dataplane"
)

// TestRepairEnds: each route is kept for its own time, however often others
// follow it.
func TestRepairEnds(t *testing.T) {
	b := newBench(t)
	ce, partner := hop{b.v.subs["cust.100"], netip.MustParseAddr("192.168.15.17")}, hop{b.v.subs["core.200"], netip.MustParseAddr("10.100.255.5")}
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
