package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
)

// frrPath is a path as FRR received it.
type frrPath struct {
	Valid  bool `json:"valid"`
	ASPath struct {
		String string `json:"string"`
	} `json:"aspath"`
	Community struct {
		List []string `json:"list"`
	} `json:"community"`
	Origin string `json:"origin"`
	Metric *int   `json:"metric"`
	Peer   struct {
		ID string `json:"peerId"`
	} `json:"peer"`
}

// String is what the tests compare: "12076 [12076:50015]".
func (p frrPath) String() string {
	communities := slices.Clone(p.Community.List)
	slices.Sort(communities)
	return fmt.Sprintf("%s %v", p.ASPath.String, communities)
}

// frrPaths returns the paths that a CE has to a prefix.
func (l *testLab) frrPaths(node, prefix string) []frrPath {
	l.t.Helper()
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	var entry struct {
		Paths []frrPath `json:"paths"`
	}
	out := l.vtysh(node, fmt.Sprintf("show bgp %s unicast %s json", family, prefix))
	if err := json.Unmarshal([]byte(out), &entry); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	return entry.Paths
}

// awaitPaths waits until a CE has n paths to a prefix, all looking so.
func (l *testLab) awaitPaths(node, prefix string, n int, want string) {
	l.t.Helper()
	eventually(l.t, 30*time.Second, fmt.Sprintf("%s hears of %s", node, prefix), func() error {
		paths := l.frrPaths(node, prefix)
		if len(paths) != n {
			return fmt.Errorf("%d paths, want %d", len(paths), n)
		}
		for _, p := range paths {
			if p.String() != want {
				return fmt.Errorf("path %q of %s, want %q", p, p.Peer.ID, want)
			}
		}
		return nil
	})
}

// route returns what a device says of a prefix; no paths if it is not there.
func (l *testLab) route(node, prefix string) edge.RouteStatus {
	l.t.Helper()
	for _, r := range show[edge.RouteStatus](l, node, "routes") {
		if r.Prefix.String() == prefix {
			return r
		}
	}
	return edge.RouteStatus{}
}

// awaitRoute waits until a device has n paths to a prefix that pass a check. On
// an MSEE a CE's reflection of the other MSEE's route to a VNet is none of them.
func (l *testLab) awaitRoute(node, prefix string, n int, check func(edge.PathStatus) error) {
	l.t.Helper()
	eventually(l.t, 30*time.Second, node+" "+prefix, func() error {
		paths := slices.DeleteFunc(l.route(node, prefix).Paths, func(p edge.PathStatus) bool {
			return strings.HasPrefix(prefix, "10.100.") && slices.Contains(p.ASPath, 65001)
		})
		if len(paths) != n {
			return fmt.Errorf("%d paths, want %d: %+v", len(paths), n, paths)
		}
		for _, p := range paths {
			if err := check(p); err != nil {
				return fmt.Errorf("%w: %+v", err, p)
			}
		}
		return nil
	})
}

// TestPrivatePeeringPolicy checks what a private peering lets pass, both ways,
// as FRR and the gateways see it.
func TestPrivatePeeringPolicy(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	t.Run("diagnostics", func(t *testing.T) { privateDiagnostics(t, l.in(t)) })
	t.Run("communities of a VNet", func(t *testing.T) { vnetCommunities(t, l.in(t)) })
	t.Run("prepends and communities of a customer", func(t *testing.T) { customerAttributes(t, l.in(t)) })
	t.Run("masks and default route", func(t *testing.T) { customerPrefixes(t, l.in(t)) })
	t.Run("own AS", func(t *testing.T) { ownAS(t, l.in(t)) })
	t.Run("limit", func(t *testing.T) { privateLimit(t, l.in(t)) })
	t.Run("regions", func(t *testing.T) { regions(t, l.in(t)) })
}

// reload edits the files of devices and has them read again.
func (l *testLab) reload(nodes []string, change func(map[string]any)) {
	l.t.Helper()
	for _, node := range nodes {
		l.editConfig(node, change)
		if out, err := l.msee("reload", "-d", l.ns(node)); err != nil {
			l.t.Fatalf("reload of %s: %v\n%s", node, err, out)
		}
	}
}

var gateways = []string{"gw0", "gw1"}

func setVNet(key string, value any) func(map[string]any) {
	return func(cfg map[string]any) {
		vnet := cfg["virtualNetwork"].(map[string]any)
		if vnet[key] = value; value == nil {
			delete(vnet, key)
		}
	}
}

// vnetCommunities: the region shows only beside a community of the VNet's own.
func vnetCommunities(t *testing.T, l *testLab) {
	l.awaitPaths("ce", "10.100.0.0/16", 2, "12076 []")
	l.reload(gateways, setVNet("location", "australiaeast"))
	l.awaitRoute("msee1", "10.100.0.0/16", 2, func(p edge.PathStatus) error {
		if fmt.Sprint(p.Communities) != "[12076:50015]" {
			return fmt.Errorf("the gateway does not say where it is")
		}
		return nil
	})
	l.awaitPaths("ce", "10.100.0.0/16", 2, "12076 []")
	l.reload(gateways, setVNet("bgpCommunities", map[string]any{"virtualNetworkCommunity": "12076:20031"}))
	l.awaitPaths("ce", "10.100.0.0/16", 2, "12076 [12076:20031 12076:50015]")
	l.awaitPaths("ce", "fd00:100::/48", 2, "12076 [12076:20031 12076:50015]")
	l.reload(gateways, setVNet("bgpCommunities", nil))
	l.awaitPaths("ce", "10.100.0.0/16", 2, "12076 []")
}

// customerAttributes: what a CE prepends stays, also with its own private AS;
// the communities and the MED it sets do not get far.
func customerAttributes(t *testing.T, l *testLab) {
	l.vtysh("ce", "configure terminal", "bgp community-list standard none permit 1:1",
		"route-map out permit 10", "set as-path prepend 65001 64999", "set community 12076:20001 65001:7", "set metric 77", "exit",
		"router bgp 65001", "address-family ipv4 unicast", "neighbor 192.168.15.18 route-map out out", "neighbor 192.168.15.18 send-community both")
	l.awaitRoute("msee1", "10.1.0.0/16", 1, func(p edge.PathStatus) error {
		if fmt.Sprint(p.ASPath) != "[65001 65001 64999]" || fmt.Sprint(p.Communities) != "[12076:20001 65001:7]" {
			return fmt.Errorf("not as the CE sent it")
		}
		return nil
	})
	// The gateway: three more in the path by msee1, so msee2 is best.
	l.awaitRoute("gw0", "10.1.0.0/16", 2, func(p edge.PathStatus) error {
		prepended := p.NextHop.String() == "10.100.255.4"
		want, state := "[12076 65001]", bgp.PathBest
		if prepended {
			want, state = "[12076 65001 65001 64999]", bgp.PathLost
		}
		if fmt.Sprint(p.ASPath) != want || p.State != state || len(p.Communities) != 0 || p.MED != 0 {
			return fmt.Errorf("want path %s, %s, no communities, no MED", want, state)
		}
		if prepended && p.Why != "shorter AS path: 2 < 4" {
			return fmt.Errorf("the tie-break is not named")
		}
		return nil
	})
	l.vtysh("ce", "configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no neighbor 192.168.15.18 route-map out out", "exit", "exit", "no route-map out")
	l.awaitRoute("gw0", "10.1.0.0/16", 2, func(p edge.PathStatus) error {
		if p.State != bgp.PathBest && p.State != bgp.PathECMP {
			return fmt.Errorf("not used")
		}
		return nil
	})
}

// customerPrefixes: any mask from the default route to a host route.
func customerPrefixes(t *testing.T, l *testLab) {
	networks := map[string]string{"0.0.0.0/0": "ipv4", "10.99.0.0/31": "ipv4", "10.99.0.7/32": "ipv4", "203.0.113.0/24": "ipv4",
		"::/0": "ipv6", "2001:db8:99::1/128": "ipv6"}
	set := func(no string) {
		for prefix, family := range networks {
			l.vtysh("ce", "configure terminal", "router bgp 65001", "address-family "+family+" unicast", no+"network "+prefix)
		}
	}
	set("")
	for prefix := range networks {
		l.awaitRoute("gw1", prefix, 2, func(p edge.PathStatus) error {
			if fmt.Sprint(p.ASPath) != "[12076 65001]" || p.State == bgp.PathRefused {
				return fmt.Errorf("not accepted as it should")
			}
			return nil
		})
	}
	set("no ")
}

// ownAS: a route with 12076 in its path is taken or refused, as the knob says,
// and changing the knob disturbs no session.
func ownAS(t *testing.T, l *testLab) {
	l.vtysh("ce", "configure terminal", "ip prefix-list loop permit 10.98.0.0/16",
		"route-map loop permit 10", "match ip address prefix-list loop", "set as-path prepend 65001 12076", "exit", "route-map loop permit 20", "exit",
		"router bgp 65001", "address-family ipv4 unicast", "network 10.98.0.0/16", "neighbor 192.168.15.18 route-map loop out")
	state := func(want bgp.PathState, why string) {
		t.Helper()
		l.awaitRoute("msee1", "10.98.0.0/16", 1, func(p edge.PathStatus) error {
			if p.State != want || why != "" && p.Why != why {
				return fmt.Errorf("want %s, %q", want, why)
			}
			return nil
		})
	}
	state(bgp.PathBest, "")
	before, err := l.session("msee1", "er1-private", "192.168.15.17")
	if err != nil {
		t.Fatal(err)
	}
	set := func(allow bool) {
		l.reload([]string{"msee1"}, func(cfg map[string]any) { peeringOf(cfg, "er1")["allowOwnAS"] = allow })
	}
	set(false)
	state(bgp.PathRefused, string(bgp.ReasonOwnAS))
	set(true)
	state(bgp.PathBest, "")
	if after, err := l.session("msee1", "er1-private", "192.168.15.17"); err != nil || after.Since != before.Since || after.Flaps != before.Flaps {
		t.Errorf("the session was disturbed: %v, since %v, was %v", err, after.Since, before.Since)
	}
	l.vtysh("ce", "configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 10.98.0.0/16",
		"no neighbor 192.168.15.18 route-map loop out", "exit", "exit", "no route-map loop", "no ip prefix-list loop")
}

// regions: a Standard circuit reaches its geopolitical area, a Local one the
// regions next to it, a Premium one the world.
func regions(t *testing.T, l *testLab) {
	for _, c := range []struct {
		tier, vnet string
		reached    bool
	}{
		{"Standard", "australiaeast", true},
		{"Standard", "australiasoutheast", true},
		{"Standard", "japaneast", false},
		{"Premium", "japaneast", true},
		{"Local", "australiasoutheast", false},
		{"Local", "australiaeast", true},
	} {
		l.reload(msees, func(cfg map[string]any) {
			circuit(cfg, "er1")["peeringLocation"] = "Sydney"
			circuit(cfg, "er1")["sku"] = map[string]any{"tier": c.tier}
		})
		l.reload(gateways, setVNet("location", c.vnet))
		for _, node := range msees {
			l.awaitRoute(node, "10.100.0.0/16", 2, func(p edge.PathStatus) error {
				if refused := p.State == bgp.PathRefused; refused == c.reached || refused && p.Why != string(bgp.ReasonRegion) {
					return fmt.Errorf("%s circuit at Sydney, VNet in %s: %s, %s", c.tier, c.vnet, p.State, p.Why)
				}
				return nil
			})
		}
		n := 0
		if c.reached {
			n = 2
		}
		l.awaitPaths("ce", "10.100.0.0/16", n, "12076 []")
	}
}

// privateLimit: 3,999 and 4,000 prefixes are fine, 4,001 are for Premium only.
func privateLimit(t *testing.T, l *testLab) {
	l.reload(msees, func(cfg map[string]any) { cfg["bgp"].(map[string]any)["maximumPrefixesRetrySeconds"] = 3 })
	// What the other MSEE says of the VNet would count as well.
	l.vtysh("ce", "configure terminal", "ip prefix-list own deny 10.100.0.0/16", "ip prefix-list own permit 0.0.0.0/0 le 32",
		"router bgp 65001", "address-family ipv4 unicast", "neighbor 192.168.15.18 prefix-list own out")
	const limit = 4000
	var more []string
	for i := range limit {
		more = append(more, fmt.Sprintf("172.16.%d.%d/32", i/250, i%250))
	}
	l.prefixLimit("msee1", "er1-private", "192.168.15.17", "192.168.15.18", limit, more)
	eventually(t, 20*time.Second, "4000 prefixes at the gateway", func() error {
		routes, err := tryShow[edge.RouteStatus](l, "gw0", "routes")
		n := 0
		for _, r := range routes {
			if r.Prefix.Bits() == 32 && strings.HasPrefix(r.Prefix.String(), "172.16.") && len(r.Paths) > 0 {
				n++
			}
		}
		if err == nil && n != limit-1 {
			err = fmt.Errorf("it has %d", n)
		}
		return err
	})
	l.networks("", more[limit-1])
	l.awaitState("msee1", "er1-private", "192.168.15.17", bgp.StateIdle, 15*time.Second)
	l.reload(msees, func(cfg map[string]any) { circuit(cfg, "er1")["sku"] = map[string]any{"tier": "Premium"} })
	eventually(t, 15*time.Second, "Premium", func() error {
		s, err := l.session("msee1", "er1-private", "192.168.15.17")
		if err == nil && (s.Received != limit+1 || s.Prefixes.Limit != 10000) {
			err = fmt.Errorf("%s, %d received, %+v", s.State, s.Received, s.Prefixes)
		}
		return err
	})
	l.networks("no ", more...)
	l.awaitSessions(20*time.Second, msees...) // the other MSEE had as many
}
