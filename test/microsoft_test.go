package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
)

// msPeers are the MSEEs' addresses on the Microsoft peering, with the CE's.
var msPeers = map[string][2]string{"msee1": {"203.0.113.2", "203.0.113.1"}, "msee2": {"203.0.113.6", "203.0.113.5"}}

const msVRF = "er1-microsoft"

// heard lists what a CE has heard from one peer: "20.150.66.0/24 12076 [12076:51015 …]".
func (l *testLab) heard(node, peer string) []string {
	l.t.Helper()
	var table struct {
		Routes map[string]json.RawMessage `json:"routes"`
	}
	out := l.vtysh(node, "show bgp ipv4 unicast neighbors "+peer+" routes json")
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for prefix := range table.Routes {
		for _, p := range l.frrPaths(node, prefix) {
			if p.Peer.ID == peer {
				got = append(got, prefix+" "+p.String())
			}
		}
	}
	slices.Sort(got)
	return got
}

func (l *testLab) awaitHeard(what string, want ...string) {
	l.t.Helper()
	slices.Sort(want)
	for _, peers := range msPeers {
		eventually(l.t, 30*time.Second, what, func() error {
			if got := l.heard("ce", peers[0]); !slices.Equal(got, want) {
				return fmt.Errorf("the CE hears from %s\n%s\nwant\n%s", peers[0], strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			return nil
		})
	}
}

// Australia East's storage and databases in the built-in list.
var (
	storageAUE = []string{"20.150.66.0/24 12076 [12076:51015 12076:52015]", "20.38.112.0/23 12076 [12076:51015 12076:52015]",
		"20.60.72.0/22 12076 [12076:51015 12076:52015]", "52.239.130.0/23 12076 [12076:51015 12076:52015]"}
	sqlAUE = []string{"13.70.112.0/27 12076 [12076:51015 12076:53015]", "20.53.48.96/27 12076 [12076:51015 12076:53015]",
		"40.79.160.0/27 12076 [12076:51015 12076:53015]"}
)

// TestMicrosoftPeering wants of a Microsoft peering what its route filter, the
// customer's prefixes and the limits say, with real traffic to services.
func TestMicrosoftPeering(t *testing.T) {
	l := startLab(t, topology(t, "microsoft"))
	t.Run("lab check", func(t *testing.T) {
		if out, err := l.in(t).msee("lab", "check", l.name); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("route filter", func(t *testing.T) { routeFilter(t, l.in(t)) })
	t.Run("customer's prefixes", func(t *testing.T) { publicPrefixes(t, l.in(t)) })
	t.Run("registry", func(t *testing.T) { registry(t, l.in(t)) })
	t.Run("limit", func(t *testing.T) { microsoftLimit(t, l.in(t)) })
	t.Run("network lost", func(t *testing.T) { networkLost(t, l.in(t)) })
}

// setFilter changes the route filter of both MSEEs; nil takes it off.
func (l *testLab) setFilter(communities ...any) {
	l.reload(msees, func(cfg map[string]any) {
		p := peeringOf(cfg, "er1")
		if delete(p, "routeFilter"); communities != nil {
			p["routeFilter"] = "storage"
			rule := cfg["routeFilters"].([]any)[0].(map[string]any)["rules"].([]any)[0].(map[string]any)
			rule["communities"] = communities
		}
	})
}

func (l *testLab) reaches(addr string) error {
	_, err := l.try("office", "ping", "-n", "-c", "1", "-W", "1", addr)
	return err
}

// awaitReach waits until an address is reached, or is not any more. What a router hears is
// in its kernel, and in a worker's tables, a little later.
func (l *testLab) awaitReach(addr string, want bool) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, fmt.Sprintf("reach of %s: %v", addr, want), func() error {
		err := l.reaches(addr)
		if !want && err == nil {
			return errors.New("it is reached")
		}
		if !want {
			return nil
		}
		return err
	})
}

// routeFilter follows the well-known example: Storage in Australia East alone;
// then another community is allowed, then the filter is taken off. The sessions
// do not notice.
func routeFilter(t *testing.T, l *testLab) {
	const blob, sql = "20.150.66.10", "13.70.112.10"
	before := map[string]edge.SessionStatus{}
	for node, peers := range msPeers {
		s, err := l.session(node, msVRF, peers[1])
		if err != nil {
			t.Fatal(err)
		}
		before[node] = s
	}
	l.awaitHeard("Storage Australia East only", slices.Clone(storageAUE)...)
	l.awaitReach(blob, true)
	if err := l.reaches(sql); err == nil {
		t.Error("a database that the filter does not allow is reached")
	}
	for _, s := range show[edge.ServiceStatus](l, "msee1", "services") {
		if want := (s.Community.String() == "12076:52015"); want != (s.Why == "in the route filter") {
			t.Errorf("show services: %+v", s)
		}
	}
	changed := time.Now()
	l.setFilter("12076:52015", "12076:53015")
	l.awaitHeard("and SQL", append(slices.Clone(sqlAUE), storageAUE...)...)
	t.Logf("announced by both MSEEs %v after the change of the files", time.Since(changed).Round(time.Millisecond))
	l.awaitReach(sql, true)
	l.setFilter("12076:53015")
	l.awaitHeard("SQL only", sqlAUE...)
	l.awaitReach(blob, false)
	l.setFilter("12076:52002") // West Europe: not by a Standard circuit at Sydney
	l.awaitHeard("beyond the SKU")
	l.setFilter()
	l.awaitHeard("no filter, nothing")
	l.setFilter("12076:52015")
	l.awaitHeard("Storage Australia East again", storageAUE...)
	for node, peers := range msPeers {
		if s, err := l.session(node, msVRF, peers[1]); err != nil || s.Since != before[node].Since || s.Flaps != before[node].Flaps {
			t.Errorf("%s: the session was disturbed: %v, since %v, was %v", node, err, s.Since, before[node].Since)
		}
	}
}

// networks adds or removes what the CE announces.
func (l *testLab) networks(no string, prefixes ...string) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "networks")
	text := "router bgp 65001\naddress-family ipv4 unicast\n"
	for _, p := range prefixes {
		text += no + "network " + p + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.exec("ce", "vtysh", "-H", "/dev/null", "-d", "bgpd", "-f", file)
}

// publicPrefixes: only advertisedPublicPrefixes, no private space, no default;
// Microsoft's network sees no private AS.
func publicPrefixes(t *testing.T, l *testLab) {
	refused := map[string]bgp.Reason{
		"0.0.0.0/0": bgp.ReasonDefaultRoute, "10.1.0.0/16": bgp.ReasonPrivatePrefix, "192.0.2.0/24": bgp.ReasonNotAdvertised,
		"198.51.100.0/23": bgp.ReasonNotAdvertised, "100.64.0.0/16": bgp.ReasonPrivatePrefix,
	}
	all := []string{"198.51.100.7/32"}
	for p := range refused {
		all = append(all, p)
	}
	l.networks("", all...)
	for prefix, why := range refused {
		l.awaitRoute("msee1", prefix, map[bool]int{false: 1, true: 2}[prefix == "0.0.0.0/0"], func(p edge.PathStatus) error {
			if fromNet := slices.Equal(p.ASPath, []uint32{8075}); !fromNet && (p.State != bgp.PathRefused || p.Why != string(why)) {
				return fmt.Errorf("want it refused: %s", why)
			}
			return nil
		})
	}
	l.awaitPaths("net", "198.51.100.0/24", 2, "12076 []")
	l.awaitPaths("net", "198.51.100.7/32", 2, "12076 []")
	for prefix := range refused {
		if prefix != "0.0.0.0/0" && len(l.frrPaths("net", prefix)) != 0 {
			t.Errorf("Microsoft's network hears of %s", prefix)
		}
	}
	l.networks("no ", all...)
}

// registry: a prefix that the routing registry has for another AS is not
// accepted until that is put right.
func registry(t *testing.T, l *testLab) {
	file := filepath.Join(t.TempDir(), "radb.db")
	set := func(origin string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("route: 198.51.100.0/24\norigin: "+origin+"\nsource: RADB\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		l.reload(msees, func(cfg map[string]any) {
			cfg["routingRegistries"] = []any{file}
			peeringOf(cfg, "er1")["microsoftPeeringConfig"].(map[string]any)["customerASN"] = 64496
		})
	}
	set("AS64499")
	l.awaitRoute("msee1", "198.51.100.0/24", 1, func(p edge.PathStatus) error {
		if p.State != bgp.PathRefused || p.Why != string(bgp.ReasonNotValidated) {
			return fmt.Errorf("want it refused")
		}
		return nil
	})
	l.awaitPaths("net", "198.51.100.0/24", 0, "")
	if p := show[edge.PublicPrefixes](l, "msee1", "public-prefixes"); fmt.Sprint(p) != "[{er1-microsoft ValidationNeeded [{198.51.100.0/24 AsnValidationFailed}]}]" {
		t.Errorf("show public-prefixes: %v", p)
	}
	set("AS64496")
	l.awaitPaths("net", "198.51.100.0/24", 2, "12076 []")
	l.awaitReach("20.150.66.10", true)
	l.reload(msees, func(cfg map[string]any) { delete(cfg, "routingRegistries") }) // the file ends with this test
}

// hosts lists n host routes of the customer's prefix.
func hosts(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("198.51.100.%d/32", i+1))
	}
	return out
}

// microsoftLimit: 199 and 200 prefixes are fine, 201 end the session with a
// Cease, and with 200 it comes back.
func microsoftLimit(t *testing.T, l *testLab) {
	l.reload(msees, func(cfg map[string]any) {
		cfg["bgp"].(map[string]any)["maximumPrefixesRetrySeconds"] = 3
	})
	// What the other MSEE says of services would count as well.
	l.vtysh("ce", "configure terminal", "ip prefix-list own permit 198.51.100.0/24 le 32",
		"router bgp 65001", "address-family ipv4 unicast", "neighbor 203.0.113.2 prefix-list own out")
	l.prefixLimit("msee1", msVRF, "203.0.113.1", "203.0.113.2", 200, hosts(200)) // beside the /24
	l.networks("no ", hosts(199)...)
	// The other MSEE had as many, and ended its session too.
	l.awaitSessions(20*time.Second, msees...)
	l.awaitPaths("ce", "20.150.66.0/24", 2, "12076 [12076:51015 12076:52015]")
	l.awaitReach("20.150.66.10", true)
}

// prefixLimit tests a session at its limit. The CE announces one prefix
// already; of more it takes the first ones.
func (l *testLab) prefixLimit(node, vrf, ce, msee string, limit int, more []string) {
	t := l.t
	t.Helper()
	received := func(want int, state bgp.LimitState) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("%d prefixes", want), func() error {
			s, err := l.session(node, vrf, ce)
			if err == nil && (s.State != bgp.StateEstablished || s.Received != want || s.Prefixes.State != state || s.Prefixes.Headroom != limit-want) {
				err = fmt.Errorf("%s, %d received, %+v", s.State, s.Received, s.Prefixes)
			}
			return err
		})
	}
	l.networks("", more[:limit*8/10-2]...)
	received(limit*8/10-1, bgp.LimitOK)
	l.networks("", more[limit*8/10-2:limit-2]...)
	received(limit-1, bgp.LimitNear)
	if out, err := l.msee("show", "bgp", "-d", l.ns(node)); err != nil || !strings.Contains(out, "%!)") {
		t.Errorf("show bgp does not warn: %v\n%s", err, out)
	}
	if !strings.Contains(l.logs()[node+".edge.log"], "BGP prefix limit is near") {
		t.Error("the log does not warn")
	}
	l.networks("", more[limit-2])
	received(limit, bgp.LimitNear)
	before, _ := l.session(node, vrf, ce)
	l.networks("", more[limit-1])
	eventually(t, 15*time.Second, "one prefix too many", func() error {
		s, err := l.session(node, vrf, ce)
		if err == nil && (s.State == bgp.StateEstablished || s.Prefixes.State != bgp.LimitReached || s.Accepted != 0 || !strings.Contains(s.Reason, "more than")) {
			err = fmt.Errorf("%s (%s), %d accepted, %+v", s.State, s.Reason, s.Accepted, s.Prefixes)
		}
		return err
	})
	eventually(t, 15*time.Second, "the CE knows why", func() error {
		if out := l.vtysh("ce", "show bgp neighbors "+msee); !strings.Contains(out, "Cease/Maximum Number of Prefixes Reached") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	l.networks("no ", more[limit-1])
	received(limit, bgp.LimitNear)
	if s, _ := l.session(node, vrf, ce); s.Prefixes.Exceeded == 0 || s.Flaps == before.Flaps {
		t.Errorf("exceeded %d times, %d flaps", s.Prefixes.Exceeded, s.Flaps)
	}
}

// networkLost: an MSEE that cannot reach Microsoft's network stops announcing
// its services, so that the other one gets the traffic.
func networkLost(t *testing.T, l *testLab) {
	l.vtysh("net", "configure terminal", "router bgp 8075", "neighbor 10.254.0.4 shutdown")
	l.awaitPaths("ce", "20.150.66.0/24", 1, "12076 [12076:51015 12076:52015]")
	l.awaitReach("20.150.66.10", true)
	l.vtysh("net", "configure terminal", "router bgp 8075", "no neighbor 10.254.0.4 shutdown")
	l.awaitPaths("ce", "20.150.66.0/24", 2, "12076 [12076:51015 12076:52015]")
}
