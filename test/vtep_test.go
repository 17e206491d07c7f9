package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
)

// tellsItsOwn keeps the FRR of topology vxlan from passing on what it hears.
const tellsItsOwn = `    frrConfig: | # it passes on nobody's words
      bgp as-path access-list own permit ^$
      route-map own permit 10
       match as-path own
      router bgp 65020
       address-family l2vpn evpn
        neighbor 172.16.0.4 route-map own out
        neighbor 172.16.0.5 route-map own out
        neighbor 172.16.0.12 route-map own out
        neighbor 172.16.0.13 route-map own out
`

// configured makes topology vxlan one without EVPN: other ends of tunnels and endpoints are
// configured, and the VM's host is a kernel alone. Of another topology it changes nothing.
var configured = map[string][]string{"vxlan": {
	", remoteVteps: [172.16.0.5]}", "}", ", remoteVteps: [172.16.0.4]}", "}",
	"prefixRoutes: {neighbors: [172.16.0.12, 172.16.0.13], sessions: Disabled}", "remoteVteps: [172.16.0.12, 172.16.0.13, 172.16.0.20]",
	"prefixRoutes: {neighbors: [172.16.0.4, 172.16.0.5], sessions: Disabled}", "remoteVteps: [172.16.0.4, 172.16.0.5, 172.16.0.20]",
	"evpn: {neighbors: [{address: 172.16.0.12, peerASN: 65515}, {address: 172.16.0.13, peerASN: 65515}, {address: 172.16.0.20, peerASN: 65020}]}", "",
	"evpn: {neighbors: [{address: 172.16.0.4, peerASN: 12076}, {address: 172.16.0.5, peerASN: 12076}, {address: 172.16.0.20, peerASN: 65020}]}", "",
	"port: vnet}\n", `port: vnet}
      endpoints:
        - {address: 10.100.1.10, host: 10.100.255.20}
        - {address: "fd00:100:0:1::10", host: "fd00:100:0:ff::20"}
`,
	"  - name: vm\n    kind: frr", "  - name: vm\n    kind: host",
	"local: 172.16.0.20}", "local: 172.16.0.20, remotes: [172.16.0.4, 172.16.0.5, 172.16.0.12, 172.16.0.13]}",
	`, 10.100.1.10/32, "fd00:100:0:1::10/128"]`, "]",
	`    bgp:
      asn: 65020
      routerId: 172.16.0.20
      keepaliveSeconds: 3
      holdSeconds: 10
      bfd: {intervalMilliseconds: 300, multiplier: 3}
      neighbors:
        - {address: 172.16.0.4, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.5, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.12, remoteAS: 65515, evpn: true}
        - {address: 172.16.0.13, remoteAS: 65515, evpn: true}
` + tellsItsOwn, "",
}}

// TestVTEPBehindRouter: the VM's host is in another subnet than MSEEs and gateways, and a leaf
// that routes between the two passes on what each tells by EVPN. FastPath leads to the host
// by the leaf, and so do the gateways' prefixes to them.
func TestVTEPBehindRouter(t *testing.T) {
	const host, routes = "172.17.0.20", ", sessions: Disabled"
	const evpn = "evpn: {neighbors: [{address: 172.16.0.20, peerASN: 65030}]}\n        routes: [{addressPrefix: 172.17.0.0/16, nextHopIpAddress: 172.16.0.20}]"
	l := startLab(t, topology(t, "vxlan",
		"neighbors: [172.16.0.12, 172.16.0.13]"+routes, "neighbors: [172.16.0.20]"+routes, "neighbors: [172.16.0.4, 172.16.0.5]"+routes, "neighbors: [172.16.0.20]"+routes,
		"evpn: {neighbors: [{address: 172.16.0.12, peerASN: 65515}, {address: 172.16.0.13, peerASN: 65515}, {address: 172.16.0.20, peerASN: 65020}]}", evpn,
		"evpn: {neighbors: [{address: 172.16.0.4, peerASN: 12076}, {address: 172.16.0.5, peerASN: 12076}, {address: 172.16.0.20, peerASN: 65020}]}", evpn,
		"local: 172.16.0.20", "local: "+host, "routerId: 172.16.0.20", "routerId: "+host, "addresses: [172.16.0.20/24]", "addresses: ["+host+"/24]",
		"    routes:\n      - {to: 0.0.0.0/0, via: [10.100.255.4", "    routes:\n      - {to: 172.16.0.0/24, via: [172.17.0.1]}\n      - {to: 0.0.0.0/0, via: [10.100.255.4",
		tellsItsOwn, "", `        - {address: 172.16.0.4, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.5, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.12, remoteAS: 65515, evpn: true}
        - {address: 172.16.0.13, remoteAS: 65515, evpn: true}
`, "        - {address: 172.17.0.1, remoteAS: 65030, evpn: true}\n",
		"  - name: vm\n", `  - name: leaf
    kind: frr
    interfaces:
      - {name: eth0, addresses: [172.16.0.20/24]}
      - {name: eth1, addresses: [172.17.0.1/24]}
    bgp:
      asn: 65030
      routerId: 172.17.0.1
      keepaliveSeconds: 3
      holdSeconds: 10
      neighbors:
        - {address: 172.16.0.4, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.5, remoteAS: 12076, evpn: true}
        - {address: 172.16.0.12, remoteAS: 65515, evpn: true}
        - {address: 172.16.0.13, remoteAS: 65515, evpn: true}
        - {address: 172.17.0.20, remoteAS: 65020, evpn: true}
    frrConfig: | # the ends of tunnels are not its own
      router bgp 65030
       address-family l2vpn evpn
        neighbor 172.16.0.4 attribute-unchanged next-hop
        neighbor 172.16.0.5 attribute-unchanged next-hop
        neighbor 172.16.0.12 attribute-unchanged next-hop
        neighbor 172.16.0.13 attribute-unchanged next-hop
        neighbor 172.17.0.20 attribute-unchanged next-hop

  - name: vm
`, "  - {ends: [core:vm, vm:eth1], mtu: 9000}", "  - {ends: [core:leaf, leaf:eth0], mtu: 9000}\n  - {ends: [leaf:eth1, vm:eth1], mtu: 9000}"), "gw0", "gw1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	for _, node := range msees {
		l.awaitLookup(node, "hit: host "+host)
	}
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	if n := l.atGateways(300 * time.Millisecond); n != 0 {
		t.Errorf("the gateways saw %d packets to the VM", n)
	}
	l.reload(msees, func(cfg map[string]any) { // the only way back is by the leaf as well
		cfg["connections"].([]any)[0].(map[string]any)["expressRouteGatewayBypass"] = false
	})
	for _, node := range msees {
		l.awaitLookup(node, "expressRouteGatewayBypass is off")
	}
	if n := l.atGateways(300 * time.Millisecond); n == 0 {
		t.Error("without FastPath the gateways saw no packet to the VM")
	}
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("%v", x)
	}
}

// TestEVPNMultihop: the same host, whose FRR has its sessions with MSEEs and gateways across
// a leaf that only routes.
func TestEVPNMultihop(t *testing.T) {
	const host = "172.17.0.20"
	multihop := "      router bgp 65020\n"
	for _, peer := range []string{"172.16.0.4", "172.16.0.5", "172.16.0.12", "172.16.0.13"} {
		// Passive, so that no two connections collide: after that FRR 8.4 was seen, beside load, to have
		// no valid next hop of that neighbor any more.
		multihop += "       neighbor " + peer + " ebgp-multihop 2\n       neighbor " + peer + " passive\n"
	}
	l := startLab(t, topology(t, "vxlan",
		"{address: 172.16.0.20, peerASN: 65020}]}", "{address: 172.17.0.20, peerASN: 65020}]}\n        routes: [{addressPrefix: 172.17.0.0/16, nextHopIpAddress: 172.16.0.20}]",
		"local: 172.16.0.20", "local: "+host, "routerId: 172.16.0.20", "routerId: "+host, "addresses: [172.16.0.20/24]", "addresses: ["+host+"/24]",
		"      bfd: {intervalMilliseconds: 300, multiplier: 3}\n", "", tellsItsOwn, tellsItsOwn+multihop,
		"    routes:\n      - {to: 0.0.0.0/0, via: [10.100.255.4", "    routes:\n      - {to: 172.16.0.0/24, via: [172.17.0.1]}\n      - {to: 0.0.0.0/0, via: [10.100.255.4",
		"  - name: vm\n", `  - name: leaf
    kind: frr
    interfaces:
      - {name: eth0, addresses: [172.16.0.20/24]}
      - {name: eth1, addresses: [172.17.0.1/24]}

  - name: vm
`, "  - {ends: [core:vm, vm:eth1], mtu: 9000}", "  - {ends: [core:leaf, leaf:eth0], mtu: 9000}\n  - {ends: [leaf:eth1, vm:eth1], mtu: 9000}"), "gw0", "gw1")
	for _, node := range slices.Concat(msees, gateways) {
		l.awaitState(node, "underlay", host, bgp.StateEstablished, 20*time.Second)
		if s, ok := l.bfdTo(node)[host]; ok {
			t.Errorf("%s has BFD across a router: %+v", node, s)
		}
	}
	for _, node := range msees {
		l.awaitLookup(node, "hit: host "+host)
		if r := l.route(node, "172.17.0.0/16"); r.Source != "static" {
			t.Errorf("%s has %+v", node, r)
		}
	}
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	l.exec("vm", "ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", host, "172.16.0.4") // the underlay's own addresses answer
	l.reload(msees, func(cfg map[string]any) {                                        // without the route all of it is gone
		u := cfg["underlay"].(map[string]any)
		delete(u, "routes")
		u["evpn"].(map[string]any)["neighbors"] = u["evpn"].(map[string]any)["neighbors"].([]any)[:2]
	})
	for _, node := range msees {
		l.awaitLookup(node, "miss: not an endpoint")
		if r := l.route(node, "172.17.0.0/16"); r.Source != "" {
			t.Errorf("%s: %+v is left", node, r)
		}
	}
}

// TestVTEPsReloaded: remote ends of tunnels that come and go by reload cost those that
// stay no packet: neither what goes straight to the VM's host nor what goes by the
// gateways, and none of the way back.
func TestVTEPsReloaded(t *testing.T) {
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	connection := func(change func(map[string]any)) func(map[string]any) {
		return func(cfg map[string]any) { change(cfg["connections"].([]any)[0].(map[string]any)) }
	}
	vteps := func(addrs ...any) func(map[string]any) {
		return connection(func(c map[string]any) { c["vxlan"].(map[string]any)["remoteVteps"] = addrs })
	}
	for _, way := range []struct {
		direct bool
		want   string // what show route says of the VM
	}{{true, "hit: host 10.100.255.20"}, {false, "expressRouteGatewayBypass is off"}} {
		l.reload(msees, connection(func(c map[string]any) { c["expressRouteGatewayBypass"] = way.direct }))
		for _, node := range msees {
			l.awaitLookup(node, way.want)
		}
		for _, step := range []struct {
			name  string
			addrs []any
		}{
			{"one comes", []any{"172.16.0.12", "172.16.0.13", "172.16.0.20", "172.16.0.99"}},
			{"in another order", []any{"172.16.0.99", "172.16.0.20", "172.16.0.13", "172.16.0.12"}},
			{"it goes", []any{"172.16.0.12", "172.16.0.13", "172.16.0.20"}},
		} {
			begin := p.now()
			l.reload(msees, vteps(step.addrs...))
			time.Sleep(time.Second)
			if x := p.since(t, begin); x.lost > 0 || x.sent < 100 {
				t.Errorf("FastPath %v, %s: %v, want none lost", way.direct, step.name, x)
			}
		}
	}
}

// TestPartnerByVXLAN: the MSEEs of the pair reach each other on the connection's network, so what
// the VM sends to one whose customer has no link gets there by the other.
func TestPartnerByVXLAN(t *testing.T) {
	l := startLab(t, topology(t, "vxlan"), "gw0", "gw1")
	if out := l.exec("vm", "ip", "route", "get", "10.1.0.10"); !strings.Contains(out, "src "+fastPathVM+" ") {
		t.Errorf("the VM speaks with another address than its own: %s", out)
	}
	for i, c := range []struct{ link, msee string }{{"link1", "10.100.255.4"}, {"link2", "10.100.255.5"}} {
		l.exec("vm", "ip", "route", "replace", "10.1.0.10/32", "via", c.msee)
		ping := func() error {
			_, err := l.try("vm", "ping", "-I", fastPathVM, "-c", "2", "-i", "0.2", "-W", "1", "10.1.0.10")
			return err
		}
		eventually(t, 20*time.Second, "ping by "+msees[i], ping)
		l.exec("ce", "ip", "link", "set", c.link, "down")
		eventually(t, 20*time.Second, "ping by "+msees[i]+" without its link", ping)
		l.exec("ce", "ip", "link", "set", c.link, "up")
		l.awaitSessions(60*time.Second, msees[i])
	}
}
