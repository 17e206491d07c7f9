package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
)

// TestPathChoice gives a gateway four ways on-premises, over two circuits: all
// are used, until routingWeight, the AS path or a longer prefix tells them
// apart, in that order. Each time it says why.
func TestPathChoice(t *testing.T) {
	l := startLab(t, "testdata/circuits.yaml")
	const onprem = "10.1.0.0/16"
	er1, er2 := []string{"10.100.255.4", "10.100.255.5"}, []string{"10.100.255.36", "10.100.255.37"}
	// used waits until the gateway uses just these next hops, and says of all
	// others why it does not.
	used := func(step, prefix, why string, hops ...string) {
		t.Helper()
		eventually(t, 30*time.Second, step, func() error {
			var got []string
			for _, p := range l.route("gw0", prefix).Paths {
				switch {
				case p.State == bgp.PathBest || p.State == bgp.PathECMP:
					got = append(got, p.NextHop.String())
				case p.Why != why:
					return fmt.Errorf("%s is %s: %q, want %q", p.NextHop, p.State, p.Why, why)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, slices.Sorted(slices.Values(hops))) {
				return fmt.Errorf("uses %v, want %v", got, hops)
			}
			return nil
		})
	}
	ping := func(step string) {
		t.Helper()
		eventually(t, 20*time.Second, step, func() error {
			_, err := l.try("vm", "ping", "-n", "-c", "1", "-W", "1", "10.1.0.10")
			return err
		})
	}
	weight := func(n int) {
		l.reload([]string{"gw0"}, func(cfg map[string]any) { cfg["connections"].([]any)[1].(map[string]any)["routingWeight"] = n })
	}
	prepend := func(no string, peers ...string) {
		cmds := []string{"configure terminal", "route-map longer permit 10", "set as-path prepend 65001", "exit", "router bgp 65001", "address-family ipv4 unicast"}
		for _, p := range peers {
			cmds = append(cmds, no+"neighbor "+p+" route-map longer out")
		}
		l.vtysh("ce", cmds...)
	}
	used("four equal ways", onprem, "", append(slices.Clone(er1), er2...)...)
	ping("by four")
	weight(10)
	used("weight", onprem, "higher connection weight: 10 > 0", er2...)
	ping("by the second circuit")
	prepend("", "192.168.16.18", "192.168.16.22")
	used("weight goes before the path", onprem, "higher connection weight: 10 > 0", er2...)
	weight(0)
	used("path", onprem, "shorter AS path: 2 < 3", er1...)
	ping("by the first circuit")
	prepend("", "192.168.15.22")
	used("path, one way left", onprem, "shorter AS path: 2 < 3", er1[0])
	prepend("no ", "192.168.16.18", "192.168.16.22", "192.168.15.22")
	used("four again", onprem, "", append(slices.Clone(er1), er2...)...)

	// A longer prefix by the second circuit's secondary alone draws its traffic.
	l.vtysh("ce", "configure terminal", "ip prefix-list half permit 10.1.0.0/17", "route-map specific deny 10", "match ip address prefix-list half", "exit",
		"route-map specific permit 20", "exit", "router bgp 65001", "address-family ipv4 unicast", "network 10.1.0.0/17",
		"neighbor 192.168.15.18 route-map specific out", "neighbor 192.168.15.22 route-map specific out", "neighbor 192.168.16.18 route-map specific out")
	used("longest prefix", "10.1.0.0/17", "", er2[1])
	used("the shorter one stays", onprem, "", append(slices.Clone(er1), er2...)...)
	before := bytesIn(l, "msee2", "er2-private")
	l.exec("vm", "ping", "-n", "-c", "50", "-i", "0.01", "10.1.0.10")
	if more := bytesIn(l, "msee2", "er2-private") - before; more < 50*84 {
		t.Errorf("the longest prefix's way has carried %d octets of 50 pings", more)
	}
	out, err := l.msee("show", "route-table", "-d", l.ns("msee1"), "--circuit", "er2", "--why")
	if err != nil || !strings.Contains(out, "gateway instance 0, connection c2") {
		t.Errorf("who is behind a next hop: %v\n%s", err, out)
	}
}

// bytesIn is what the core's side of a VRF has received.
func bytesIn(l *testLab, node, vrf string) uint64 {
	for _, p := range show[edge.PeeringStatus](l, node, "peerings") {
		if p.VRF == vrf && p.Side == "core" {
			return p.RxBytes
		}
	}
	return 0
}
