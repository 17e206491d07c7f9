package test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"msee/edge"
)

// TestEVPNEndpoints has a host tell of 200,000 endpoints, and says how long it takes
// until an MSEE has them all. What is above the port's limit goes by the gateway.
func TestEVPNEndpoints(t *testing.T) {
	const endpoints, limit = 200_000, 25_000
	l := startLab(t, topology(t, "vxlan"), "gw0", "gw1")
	l.exec("vm", "ip", "addr", "add", evpnHosts[1]+"/24", "dev", "eth1")
	l.reload(gateways, func(cfg map[string]any) { delete(cfg["virtualNetwork"].(map[string]any), "endpoints") })
	l.reload(msees, func(cfg map[string]any) {
		var neighbors []any
		for _, host := range evpnHosts {
			neighbors = append(neighbors, map[string]any{"address": host, "peerASN": evpnAS})
		}
		cfg["underlay"].(map[string]any)["evpn"] = map[string]any{"neighbors": neighbors}
	})
	e := startEVPN(t, l)
	first := netip.MustParseAddr(fastPathVM)
	e.has(evpnHosts[0], 0, first)
	l.awaitLookup("msee1", "hit: host "+evpnHosts[0])
	all := []netip.Addr{first}
	for i := 1; i < endpoints; i++ { // the first of them in the VNet's prefix, below the GatewaySubnet
		n := i + 0x0200
		if i > 60_000 {
			n = i + 0x10000
		}
		all = append(all, netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}))
	}
	began := time.Now()
	e.has(evpnHosts[0], 0, all...)
	var s edge.FastPathStatus
	eventually(t, 2*time.Minute, "all endpoints", func() error {
		if s = show[edge.FastPathStatus](l, "msee1", "fastpath")[0]; s.Endpoints != endpoints {
			return fmt.Errorf("%d endpoints", s.Endpoints)
		}
		return nil
	})
	t.Logf("%d endpoints after %v, %d programmed by %d hosts; %s", s.Endpoints, time.Since(began).Round(10*time.Millisecond), s.Programmed, s.Hosts, s.Alert)
	if s.Programmed != limit || s.Alert == "" || s.Hosts != 1 {
		t.Errorf("FastPath has %+v", s)
	}
	l.awaitLookup("msee1", "hit: host "+evpnHosts[0])
}
