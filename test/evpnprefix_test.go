package test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/edge"
)

// exchangePrefixes has the EVPN neighbors and what is exchanged with them written into a
// device's configuration.
func exchangePrefixes(asn map[string]int, prefixRoutes map[string]any) func(map[string]any) {
	return func(cfg map[string]any) {
		var neighbors []any
		for address, as := range asn {
			neighbors = append(neighbors, map[string]any{"address": address, "peerASN": as})
		}
		cfg["underlay"].(map[string]any)["evpn"] = map[string]any{"neighbors": neighbors}
		c := cfg["connections"].([]any)[0].(map[string]any)
		c["vxlan"].(map[string]any)["prefixRoutes"] = prefixRoutes
		if _, msee := cfg["device"]; msee {
			c["expressRouteGatewayBypass"] = false
		}
	}
}

// portMAC is the MAC of a device of a node's.
func (l *testLab) portMAC(node, device string) evpn.MAC {
	mac, err := net.ParseMAC(strings.TrimSpace(l.exec(node, "cat", "/sys/class/net/"+device+"/address")))
	if err != nil {
		l.t.Fatal(err)
	}
	return evpn.MAC(mac)
}

// TestEVPNAlone: MSEEs and gateways come to exchange their prefixes by EVPN (type 5), beside
// the sessions inside the VNet and then in their place, and a host is told the way to
// on-premises. What a host says of prefixes counts nowhere.
func TestEVPNAlone(t *testing.T) {
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	l.exec("vm", "ip", "addr", "add", evpnHosts[1]+"/24", "dev", "eth1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	bypass := func(on bool) func(map[string]any) {
		return func(cfg map[string]any) {
			cfg["connections"].([]any)[0].(map[string]any)["expressRouteGatewayBypass"] = on
		}
	}
	l.reload(msees, bypass(false))
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	lost := func(what string) {
		t.Helper()
		if n := l.atGateways(300 * time.Millisecond); n == 0 {
			t.Errorf("%s: the gateways saw no packet to the VM", what)
		}
		x := p.since(t, begin)
		if t.Logf("%s: %v", what, x); x.lost > 0 {
			t.Errorf("%s: %v", what, x)
		}
		begin = p.now()
	}
	exchange := func(sessions string) {
		l.reload(msees, exchangePrefixes(map[string]int{"172.16.0.12": 65515, "172.16.0.13": 65515, evpnHosts[0]: evpnAS, evpnHosts[1]: evpnAS},
			map[string]any{"neighbors": []any{"172.16.0.12", "172.16.0.13"}, "tellOnly": []any{evpnHosts[0]}, "sessions": sessions}))
		l.reload(gateways, exchangePrefixes(map[string]int{"172.16.0.4": 12076, "172.16.0.5": 12076},
			map[string]any{"neighbors": []any{"172.16.0.4", "172.16.0.5"}, "sessions": sessions}))
	}
	// uses waits for that many the next hops in use of those prefixes behind VTEPs, and others.
	uses := func(nodes []string, tunnels, others int, prefixes ...string) {
		t.Helper()
		for _, node := range nodes {
			eventually(t, 60*time.Second, node+"'s routes", func() error {
				for _, prefix := range prefixes {
					var got [2]int
					rows, err := tryShow[edge.RouteStatus](l, node, "routes")
					if err != nil {
						return err
					}
					for _, r := range rows {
						for _, path := range r.Paths {
							if r.Prefix.String() == prefix && r.Source == "bgp" && path.Resolved && (path.State == bgp.PathBest || path.State == bgp.PathECMP) {
								if path.MAC != "" {
									got[0]++
								} else {
									got[1]++
								}
							}
						}
					}
					if got != [2]int{tunnels, others} {
						return fmt.Errorf("%s: %d next hops behind VTEPs and %d others, want %d and %d", prefix, got[0], got[1], tunnels, others)
					}
				}
				return nil
			})
		}
	}
	vnet, onprem := []string{"10.100.0.0/16", "fd00:100::/48"}, []string{"10.1.0.0/16", "2001:db8:1::/48"}
	e := startEVPN(t, l)
	exchange("Enabled")
	uses(msees, 2, 2, vnet...)
	uses(gateways, 2, 2, onprem...)
	lost("beside the sessions inside")
	exchange("Disabled")
	uses(msees, 2, 0, vnet...)
	uses(gateways, 2, 0, onprem...)
	lost("by EVPN alone")
	for _, node := range msees {
		for _, s := range show[edge.SessionStatus](l, node, "bgp") {
			if strings.Contains(s.Session, "10.100.255.") || s.Connection != "" && s.Carrier == "" {
				t.Errorf("%s still has session %s", node, s.Session)
			}
		}
	}
	l.awaitSessions(20*time.Second, slices.Concat(msees, gateways)...)
	for _, prefix := range vnet {
		eventually(t, 20*time.Second, "the customer has it from both", func() error {
			if paths := l.frrPaths("ce", prefix); len(paths) != 2 {
				return fmt.Errorf("%s: %+v", prefix, paths)
			}
			return nil
		})
	}

	// The gateways' endpoints come that way as well.
	l.reload(msees, bypass(true))
	for _, node := range msees {
		l.awaitLookup(node, "hit: host 10.100.255.20")
	}
	if n := l.atGateways(300 * time.Millisecond); n != 0 {
		t.Errorf("with FastPath the gateways saw %d packets to the VM", n)
	}
	l.reload(msees, bypass(false))
	lost("FastPath to the gateways' endpoints, on and off")

	// A host hears the reverse way from both MSEEs, one that is not named hears nothing.
	for i, peer := range []string{"172.16.0.4", "172.16.0.5"} {
		for _, prefix := range onprem {
			eventually(t, 20*time.Second, "a host hears of "+prefix, func() error {
				r, ok := e.prefix(evpnHosts[0]+" "+peer, prefix)
				if mac := l.portMAC(msees[i], "eth2"); !ok || r.VNI != evpnVNI || r.Attrs.NextHop.String() != peer || r.Attrs.Extended.RouterMAC != mac ||
					!slices.Equal(r.Attrs.ASPath, []uint32{12076, 65001}) || !slices.Contains(r.Attrs.Extended.Targets, evpn.NewRT(12076, evpnVNI)) {
					return fmt.Errorf("from %s: %v %+v %+v, want it by %v", peer, ok, r, r.Attrs, mac)
				}
				return nil
			})
			if r, ok := e.prefix(evpnHosts[1]+" "+peer, prefix); ok {
				t.Errorf("a host that is not named is told %+v", r)
			}
		}
	}
	// Its own words on prefixes: a whole VNet, and part of one that is there.
	vtep := netip.MustParseAddr(evpnHosts[0])
	attrs := &evpn.Attrs{NextHop: vtep, Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(evpnAS, evpnVNI)}, RouterMAC: e.mac}}
	for _, host := range evpnHosts {
		for _, peer := range []string{"172.16.0.4", "172.16.0.5"} {
			u := evpn.Update{Session: host + " " + peer}
			for _, prefix := range []string{"10.200.0.0/16", "10.100.1.0/24"} {
				u.Announce = append(u.Announce, evpn.Route{Key: evpn.Key{Type: evpn.TypePrefix, RD: evpn.NewRD(vtep, 1), Prefix: netip.MustParsePrefix(prefix)}, VNI: evpnVNI, Attrs: attrs})
			}
			e.AdvertiseEVPN(u)
		}
	}
	for _, node := range msees {
		eventually(t, 20*time.Second, "the host's prefixes are known", func() error {
			n := 0
			for _, r := range show[edge.EVPNStatus](l, node, "evpn") {
				if r.Type == evpn.TypePrefix && r.VTEP == vtep {
					n++
				}
			}
			if n != 4 {
				return fmt.Errorf("%s knows %d", node, n)
			}
			return nil
		})
		for _, r := range show[edge.RouteStatus](l, node, "routes") {
			if p := r.Prefix.String(); p == "10.200.0.0/16" || p == "10.100.1.0/24" {
				t.Errorf("%s took a host's word: %+v", node, r)
			}
		}
	}
	lost("a host that announces prefixes")

	// An instance that ends takes its routes with it; the other one carries on.
	l.kill("gw0", syscall.SIGTERM)
	uses(msees, 1, 0, vnet...)
	eventually(t, 20*time.Second, "on-premises reaches the VM by the other instance", func() error {
		_, err := l.try("onprem", "ping", "-c", "2", "-i", "0.2", "-W", "1", fastPathVM)
		return err
	})
}
