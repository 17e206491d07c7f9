package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/config"
	"msee/edge"
	"msee/lab"
)

// devices are the msee processes of the default topology, with their VRF.
var devices = map[string]string{"msee1": "er1-private", "msee2": "er1-private", "gw0": "vnet1", "gw1": "vnet1"}

// TestDefaultTopology wants of the first lab that anybody sees that all its
// routes are learnt by BGP, with an MSEE's AS paths, and that traffic flows.
func TestDefaultTopology(t *testing.T) {
	l := newLab(t)
	file := topology(t, "default")
	l.up(file, "--force")
	l.up(file, "--force") // another takes the first one's place
	if out, err := l.msee("lab", "up", "--name", l.name, file); err == nil {
		t.Errorf("lab up over a running lab: no error:\n%s", out)
	}
	l.awaitRoutes("gw0", "gw1")
	t.Run("check", func(t *testing.T) { defaultCheck(t, l.in(t)) })
	t.Run("CE routes", func(t *testing.T) { ceRoutes(t, l.in(t)) })
	t.Run("device routes", func(t *testing.T) { deviceRoutes(t, l.in(t)) })
	t.Run("superframes", func(t *testing.T) { superframes(t, l.in(t)) })
	t.Run("verdicts", func(t *testing.T) { verdictsAddUp(t, l.in(t)) })
}

func defaultCheck(t *testing.T, l *testLab) {
	out, err := l.msee("lab", "check", "--json", l.name)
	if err != nil {
		t.Errorf("lab check: %v", err)
	}
	var report lab.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("lab check: %v\n%s", err, out)
	}
	if len(report.Missing) > 0 {
		t.Errorf("lab check: missing %q", report.Missing)
	}
	done := map[lab.CheckType]int{}
	for _, c := range report.Checks {
		done[c.Type]++
		if !c.OK {
			t.Errorf("lab check: %s %s → %s: %s", c.Type, c.From, c.To, c.Detail)
		}
		if c.Type == lab.CheckTraceroute && c.To.Is4() &&
			!strings.Contains(c.Detail, "192.168.15.18") && !strings.Contains(c.Detail, "192.168.15.22") {
			t.Errorf("traceroute without an MSEE's peering address: %s", c.Detail)
		}
	}
	if done[lab.CheckPing] != 4 || done[lab.CheckTraceroute] != 2 || done[lab.CheckIperf3] != 1 {
		t.Errorf("lab check did %v", done)
	}
}

// ceRoutes wants the CE to know the VNet by BGP alone, by both MSEEs, with the
// gateways' private AS removed.
func ceRoutes(t *testing.T, l *testLab) {
	for _, c := range []struct{ family, prefix string }{{"ipv4", "10.100.0.0/16"}, {"ipv6", "fd00:100::/48"}} {
		var entry struct {
			Paths []struct {
				ASPath struct {
					String string `json:"string"`
				} `json:"aspath"`
				Valid bool `json:"valid"`
			} `json:"paths"`
		}
		out := l.vtysh("ce", fmt.Sprintf("show bgp %s unicast %s json", c.family, c.prefix))
		if err := json.Unmarshal([]byte(out), &entry); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(entry.Paths) != 2 {
			t.Errorf("%s: %d paths, want 2", c.prefix, len(entry.Paths))
		}
		for _, p := range entry.Paths {
			if p.ASPath.String != "12076" || !p.Valid {
				t.Errorf("%s: AS path %q, valid %v; want 12076", c.prefix, p.ASPath.String, p.Valid)
			}
		}
		kernelRoute(t, l, "ce", c.family, c.prefix)
	}
}

// kernelRoute wants the kernel of an FRR node to have a prefix from BGP with two
// next hops, and nothing but BGP and its own links in its table.
func kernelRoute(t *testing.T, l *testLab, node, family, prefix string) {
	var routes []struct {
		Dst      string            `json:"dst"`
		Protocol string            `json:"protocol"`
		NextHops []json.RawMessage `json:"nexthops"`
	}
	out := l.exec(node, "ip", "-j", map[string]string{"ipv4": "-4", "ipv6": "-6"}[family], "route", "show", "table", "main")
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := false
	for _, r := range routes {
		if r.Dst == prefix {
			found = true
			if r.Protocol != "bgp" || len(r.NextHops) != 2 {
				t.Errorf("%s of %s: from %s by %d next hops, want bgp and 2", prefix, node, r.Protocol, len(r.NextHops))
			}
		} else if r.Protocol != "kernel" && r.Protocol != "bgp" {
			t.Errorf("%s has a route to %s by %s", node, r.Dst, r.Protocol)
		}
	}
	if !found {
		t.Errorf("%s has no route to %s:\n%s", node, prefix, out)
	}
}

// deviceRoutes wants of MSEEs and gateways that what is not their own they know
// by BGP, with the right AS paths and as many equal paths as there are.
func deviceRoutes(t *testing.T, l *testLab) {
	type want struct {
		asPath []uint32
		equal  int // paths in use
	}
	bySide := map[config.Kind]map[string]want{
		config.KindEdge: {
			"10.1.0.0/16":     {[]uint32{65001}, 1},
			"2001:db8:1::/48": {[]uint32{65001}, 1},
			"10.100.0.0/16":   {[]uint32{65515}, 2},
			"fd00:100::/48":   {[]uint32{65515}, 2},
		},
		config.KindGateway: {
			"10.1.0.0/16":     {[]uint32{12076, 65001}, 2},
			"2001:db8:1::/48": {[]uint32{12076, 65001}, 2},
		},
	}
	for node, vrf := range devices {
		wants := bySide[config.KindEdge]
		if strings.HasPrefix(node, "gw") {
			wants = bySide[config.KindGateway]
		}
		routes := map[string]edge.RouteStatus{}
		for _, r := range show[edge.RouteStatus](l, node, "routes", "--vrf", vrf) {
			routes[r.Prefix.String()] = r
			if _, ok := wants[r.Prefix.String()]; !ok && r.Source == "bgp" {
				t.Errorf("%s has learnt %s, which nobody should announce", node, r.Prefix)
			}
		}
		for prefix, w := range wants {
			r, ok := routes[prefix]
			if !ok || r.Source != "bgp" {
				t.Errorf("%s: %s is there: %v, from %q; want bgp", node, prefix, ok, r.Source)
			}
			equal := 0
			for _, p := range r.Paths {
				if p.State != "best" && p.State != "ecmp" {
					continue
				}
				equal++
				if !slices.Equal(p.ASPath, w.asPath) || !p.Resolved {
					t.Errorf("%s: %s by %s: AS path %v, resolved %v; want %v", node, prefix, p.NextHop, p.ASPath, p.Resolved, w.asPath)
				}
			}
			if equal != w.equal {
				t.Errorf("%s: %s has %d paths in use, want %d", node, prefix, equal, w.equal)
			}
		}
	}
}

// meanFrame is the least mean length of a frame, octets, at the port that TCP
// data comes in by. Without superframes it would be 1518.
const meanFrame = 20_000

// superframes sends TCP both ways and wants it to cross the MSEEs unsplit.
func superframes(t *testing.T, l *testLab) {
	if racing() {
		t.Skip("built with the race detector: too slow to say anything of throughput")
	}
	for _, c := range []struct{ direction, port string }{{"forth", "cust"}, {"back", "core"}} {
		before := portsOf(l, "msee1", "msee2")
		l.iperf3("onprem", "vm", "10.100.1.10", c.direction == "back")
		after := portsOf(l, "msee1", "msee2")
		bytes, frames := uint64(0), uint64(1)
		for node := range after { // the flow takes one of the two
			a, b := after[node][c.port], before[node][c.port]
			if n := a.RxBytes - b.RxBytes; n > bytes {
				bytes, frames = n, max(a.RxFrames-b.RxFrames, 1)
			}
		}
		mean := bytes / frames
		t.Logf("%s: %d MB in %d frames at port %s, %d octets each", c.direction, bytes/1e6, frames, c.port, mean)
		if bytes < 20e6 {
			t.Errorf("%s: only %d octets came to port %s", c.direction, bytes, c.port)
		}
		if mean < meanFrame {
			t.Errorf("%s: frames at port %s have %d octets on average, want %d", c.direction, c.port, mean, meanFrame)
		}
	}
}

func portsOf(l *testLab, nodes ...string) map[string]map[string]edge.PortStatus {
	l.t.Helper()
	out := map[string]map[string]edge.PortStatus{}
	for _, n := range nodes {
		out[n] = map[string]edge.PortStatus{}
		for _, p := range show[edge.PortStatus](l, n, "ports") {
			out[n][p.Name] = p
		}
	}
	return out
}

// verdictsAddUp wants each frame received to have exactly one verdict. While
// frames come in the two counts are read apart, so it may take a few tries.
func verdictsAddUp(t *testing.T, l *testLab) {
	for node := range devices {
		eventually(t, 10*time.Second, node, func() error {
			for _, p := range show[edge.PortStatus](l, node, "counters") {
				var sum uint64
				for _, n := range p.Verdicts {
					sum += n
				}
				if sum != p.RxFrames || sum == 0 {
					return fmt.Errorf("port %s: verdicts add up to %d of %d frames", p.Name, sum, p.RxFrames)
				}
			}
			return nil
		})
	}
}
