package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"msee/edge"
	"msee/lab"
	"msee/netns"
)

// ofSKU and boundless are in a topology a gateway's SKU, and what to put behind it for a
// load that the SKU would not bear, so that it costs a probe beside it nothing.
const (
	ofSKU     = "sku: {name: ErGw3AZ}"
	boundless = ", limits: {bandwidthInMbps: 100000, packetsPerSecond: 50000000}"
)

// fastPathVM is the VM's address in the lab; its host is on the core.
const fastPathVM = "10.100.1.10"

// TestFastPath: with it on, no data packet touches a gateway; switching it, and
// the VM moving to another host, loses nothing of a stream of 1,000 packets a
// second.
func TestFastPath(t *testing.T) {
	t.Run("VLAN", func(t *testing.T) { testFastPath(t, "fastpath") })
	t.Run("VXLAN", func(t *testing.T) { testFastPath(t, "vxlan") })
}

func testFastPath(t *testing.T, of string) {
	l := startLab(t, topology(t, of, append(slices.Clone(configured[of]), "addresses: [10.100.255.20/27,", "addresses: [10.100.255.20/27, 10.100.255.21/27,",
		ofSKU, ofSKU+boundless)...), "gw0", "gw1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	load := l.mayLoad(of)
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	bypass := func(on bool, sku string) func(map[string]any) {
		return func(cfg map[string]any) {
			c := cfg["connections"].([]any)[0].(map[string]any)
			c["expressRouteGatewayBypass"], c["virtualNetworkGatewaySku"] = on, map[string]any{"name": sku}
		}
	}
	move := func(host string) func(map[string]any) {
		return func(cfg map[string]any) {
			for _, e := range cfg["virtualNetwork"].(map[string]any)["endpoints"].([]any) {
				if m := e.(map[string]any); m["address"] == fastPathVM {
					m["host"] = host
				}
			}
		}
	}
	var table strings.Builder
	for _, step := range []struct {
		name   string
		nodes  []string
		change func(map[string]any)
		want   string // what show route says of the VM
		lose   int    // probes at most
	}{
		{"on, ErGw3AZ", nil, nil, "hit: host 10.100.255.20", 0},
		{"off, ErGw3AZ", msees, bypass(false, "ErGw3AZ"), "expressRouteGatewayBypass is off", 0},
		{"refused, ErGw1AZ", msees, bypass(true, "ErGw1AZ"), "gateway SKU ErGw1AZ", 0},
		{"on again", msees, bypass(true, "ErGw3AZ"), "hit: host 10.100.255.20", 0},
		{"moved to another host", gateways, move("10.100.255.21"), "hit: host 10.100.255.21", 1},
	} {
		begin := p.now()
		l.reload(step.nodes, step.change)
		for _, node := range msees {
			l.awaitLookup(node, step.want)
		}
		seen := l.atGateways(500 * time.Millisecond)
		if direct := strings.HasPrefix(step.want, "hit"); direct != (seen == 0) {
			t.Errorf("%s: the gateways saw %d packets to the VM", step.name, seen)
		}
		rate := 0.0
		if load {
			rate = l.iperf3("onprem", "vm", fastPathVM, false)
		}
		p50, p99 := l.latency("onprem", fastPathVM)
		fmt.Fprintf(&table, "\n%-24s %6.2f Gb/s  ping p50 %.3f ms, p99 %.3f ms", step.name, rate, p50, p99)
		if x := p.since(t, begin); x.lost > step.lose {
			t.Errorf("%s: %v, want at most %d", step.name, x, step.lose)
		}
	}
	t.Log(table.String())
	for _, s := range show[edge.FastPathStatus](l, "msee1", "fastpath") {
		if s.Programmed != 2 || s.Hits == 0 || s.Limit != 25_000 || s.PortCount != 2 {
			t.Errorf("show fastpath: %+v", s)
		}
	}
}

// mayLoad reports whether TCP may be sent beside a probe through a topology. Where superframes
// are cut for the tunnels (before Linux 6.17), what comes of them can overrun the VM's
// backlog, the probe's included.
func (l *testLab) mayLoad(of string) bool {
	l.t.Helper()
	if of == "vxlan" && netns.Do(l.ns("msee1"), func() error { _, err := net.InterfaceByName("mseevx0"); return err }) != nil {
		l.t.Log("superframes are cut: no load beside the probe")
		return false
	}
	return true
}

// TestFastPathTable: lab up compares the gateways' SKUs and FastPath by itself, and
// leaves the lab with the configuration it came up with.
func TestFastPathTable(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, msee(t), "lab", "up", "fastpath", "--json", "--name", l.name).Output()
	if err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	var got struct{ Comparison []lab.Measured }
	if err := json.Unmarshal(out, &got); err != nil || len(got.Comparison) != 3 {
		t.Fatalf("%v, want three rows: %s", err, out)
	}
	t.Logf("%s", out)
	for i, want := range []struct {
		sku      string
		bypass   bool
		fastPath string
		most     float64 // Gb/s; the bucket is full at first
	}{
		{"ErGw1AZ", true, "miss: gateway SKU ErGw1AZ", 1.1},
		{"ErGw3AZ", false, "miss: expressRouteGatewayBypass is off", 11},
		{"ErGw3AZ", true, "hit: host 10.100.255.20", 1000},
	} {
		m := got.Comparison[i]
		if m.SKU != want.sku || m.Bypass != want.bypass || !strings.HasPrefix(m.FastPath, want.fastPath) || m.Gbps <= 0 || m.Gbps > want.most ||
			m.P50 <= 0 || m.P99 < m.P50 || (m.GatewayPackets == 0) != strings.HasPrefix(m.FastPath, "hit") {
			t.Errorf("row %d: %+v, want %+v", i, m, want)
		}
	}
	for _, g := range show[edge.GatewayStatus](l, "gw0", "gateways") {
		if g.SKU != "ErGw3AZ" {
			t.Errorf("gw0 is left with SKU %s", g.SKU)
		}
	}
}

// awaitLookup waits until show route says that of the VM.
func (l *testLab) awaitLookup(node, want string) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, node+" says "+want, func() error {
		out, err := l.msee("show", "route", fastPathVM, "--vrf", "er1-private", "-d", l.ns(node))
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// atGateways counts the packets to the VM that the gateways' namespaces see, in
// tunnels or not.
func (l *testLab) atGateways(during time.Duration) int { return l.seenAt(during, gateways...) }

// seenAt counts those that come to any of these gateways.
func (l *testLab) seenAt(during time.Duration, nodes ...string) (n int) {
	var captures []*capture
	for _, node := range nodes {
		captures = append(captures, l.startCapture(l.ns(node), "eth1"))
	}
	time.Sleep(during)
	vm := netip.MustParseAddr(fastPathVM).AsSlice()
	for _, c := range captures {
		for _, f := range c.end() {
			_, etherType, ip := f.parse()
			const outer = 20 + 8 + 8 // IPv4, UDP, VXLAN
			if etherType == 0x0800 && len(ip) >= outer+14 && ip[9] == 17 && binary.BigEndian.Uint16(ip[22:]) == 4789 {
				_, etherType, ip = captured{data: ip[outer:]}.parse()
			}
			if etherType == 0x0800 && len(ip) >= 20 && bytes.Equal(ip[16:20], vm) {
				n++
			}
		}
	}
	return n
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// latency pings and returns the median and the 99th percentile, in ms.
func (l *testLab) latency(from, to string) (p50, p99 float64) {
	l.t.Helper()
	var all []float64
	for _, m := range pingTime.FindAllStringSubmatch(l.exec(from, "ping", "-c", "300", "-i", "0.002", to), -1) {
		ms, _ := strconv.ParseFloat(m[1], 64)
		all = append(all, ms)
	}
	if len(all) < 100 {
		l.t.Fatalf("only %d of 300 pings from %s to %s came back", len(all), from, to)
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
