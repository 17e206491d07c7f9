package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"msee/config"
	"msee/lab"
)

func TestRatioIsLargerWhenBetter(t *testing.T) {
	more, less := &row{}, &row{smaller: true}
	for _, c := range []struct {
		row          *row
		ours, theirs float64
		want         float64
	}{
		{more, 30, 20, 1.5},
		{more, 10, 20, 0.5},
		{less, 10, 20, 2},
		{less, 40, 20, 0.5},
		{less, 0, 20, 0},
		{more, 1, 0, 0},
	} {
		if got := c.row.ratio(c.ours, c.theirs); got != c.want {
			t.Errorf("ratio of %v to %v (smaller is better: %v) = %v, want %v", c.ours, c.theirs, c.row.smaller, got, c.want)
		}
	}
}

func TestSummariseTakesMediansAndPairs(t *testing.T) {
	r := &row{name: "x", unit: "Gb/s", baseline: "other"}
	samples := []sample{
		{Value: 10, side: subject, Extra: map[string]float64{"a": 1}}, {Value: 10, side: baseline},
		{Value: 30, side: subject, Extra: map[string]float64{"a": 2}}, {Value: 20, side: baseline, Noisy: true},
		{Value: 20, side: subject, Extra: map[string]float64{"a": 9}}, {Value: 40, side: baseline},
	}
	got := summarise(r, samples, machine{})
	if got.Value != 20 || got.Min != 10 || got.Max != 30 || got.Runs != 3 || got.Noisy != 1 {
		t.Errorf("subject: %+v", got)
	}
	if b := got.Baseline; b.Name != "other" || b.Value != 20 || b.Min != 10 || b.Max != 40 {
		t.Errorf("baseline: %+v", b)
	}
	if got.Ratio != 1 || got.RatioMin != 0.5 || got.RatioMax != 1.5 {
		t.Errorf("ratio %v (%v – %v), want 1 (0.5 – 1.5)", got.Ratio, got.RatioMin, got.RatioMax)
	}
	if got.Extra["a"] != 2 {
		t.Errorf("median of extra is %v, want 2", got.Extra["a"])
	}
}

func TestSummariseAgainstTarget(t *testing.T) {
	r := &row{smaller: true, baseline: "target", target: 50}
	got := summarise(r, []sample{{Value: 100}, {Value: 25}}, machine{})
	if got.Value != 62.5 || got.Baseline.Value != 50 || got.RatioMin != 0.5 || got.RatioMax != 2 {
		t.Errorf("%+v", got)
	}
}

// TestResultFields keeps the names that others read.
func TestResultFields(t *testing.T) {
	data, err := json.Marshal(summarise(&row{baseline: "b"}, []sample{{Value: 1}, {Value: 2, side: baseline}}, machine{}))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"name", "unit", "value", "baseline", "ratio", "runs", "min", "max"} {
		if _, ok := m[k]; !ok {
			t.Errorf("no %q in %s", k, data)
		}
	}
	if b, _ := m["baseline"].(map[string]any); b["name"] != "b" || b["value"] != 2.0 {
		t.Errorf("baseline is %v", m["baseline"])
	}
}

func TestTableHasEveryRow(t *testing.T) {
	results := []result{
		summarise(&row{name: "one", unit: "Gb/s", baseline: "k"}, []sample{{Value: 3}, {Value: 2, side: baseline}}, machine{}),
		summarise(&row{name: "two", unit: "ns", smaller: true, baseline: "target", target: 50}, []sample{{Value: 100}}, machine{}),
	}
	var out bytes.Buffer
	printTable(&out, results)
	for _, want := range []string{`one +Gb/s +3\.00 .* k +2\.00 +1\.50 .* 0/2`, `two +ns +100 .* target +50\.0 +0\.500 .* 0/1`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line like %q in\n%s", want, out.String())
		}
	}
}

func TestMedianAndQuantile(t *testing.T) {
	if got := median([]float64{3, 1, 2, 4}); got != 2.5 {
		t.Errorf("median of four is %v", got)
	}
	sorted := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]float64{0: 1, 0.5: 6, 0.99: 10, 1: 10} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"end":{"sum_sent":{"retransmits":7},"sum_received":{"bits_per_second":2.5e9}}}`))
	if err != nil || got.End.SumReceived.BitsPerSecond != 2.5e9 || got.End.SumSent.Retransmits != 7 {
		t.Errorf("TCP: %+v, %v", got, err)
	}
	got, err = parseIperf([]byte(`{"end":{"sum":{"packets":100,"seconds":2,"lost_percent":12.5}}}`))
	if err != nil || got.End.Sum.Packets != 100 || got.End.Sum.LostPercent != 12.5 {
		t.Errorf("UDP: %+v, %v", got, err)
	}
	for out, want := range map[string]string{
		`{"error":"unable to connect to server: Connection refused"}`:                  "refused",
		`{"error":"control socket has closed unexpectedly"}`:                           "control socket",
		`{"end":{"sender_tcp_congestion":"bbr","sum_received":{"bits_per_second":1}}}`: "TCP with bbr, want cubic",
		`{"end":{}}`: "nothing arrived",
		``:           "read iperf3 report",
		`[1]`:        "read iperf3 report",
	} {
		if _, err := parseIperf([]byte(out)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", out, err, want)
		}
	}
}

func TestParsePing(t *testing.T) {
	out := `PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.
64 bytes from 10.0.0.1: icmp_seq=1 ttl=63 time=0.591 ms
From 10.0.0.2 icmp_seq=2 Destination Host Unreachable
64 bytes from 10.0.0.1: icmp_seq=3 ttl=63 time=12 ms
rtt min/avg/max/mdev = 0.345/0.468/0.591/0.123 ms
`
	if got := parsePing([]byte(out)); !slices.Equal(got, []float64{591, 12000}) {
		t.Errorf("got %v", got)
	}
}

func TestParseBench(t *testing.T) {
	out := `goos: linux
BenchmarkPipelineDot1Q10k-2   	   26628	     46974 ns/op	       159.9 ns/frame	       0 B/op	       0 allocs/op
PASS
`
	want := map[string]float64{"ns/op": 46974, "ns/frame": 159.9, "B/op": 0, "allocs/op": 0}
	if got := parseBench(out); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseBench("Benchmark broken\nPASS\n"); len(got) != 0 {
		t.Errorf("got %v of nothing", got)
	}
}

func TestParseStat(t *testing.T) {
	busy, steal, err := parseStat("cpu  100 200 300 4000 5000 60 70 80 0 0\ncpu0 1\n")
	if err != nil || math.Abs(busy-7.3) > 1e-9 || math.Abs(steal-0.8) > 1e-9 {
		t.Errorf("busy %v, steal %v, %v; want 7.3 and 0.8", busy, steal, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "cpu a b c d e f g h\n", "intr 1 2 3 4 5 6 7 8 9\n"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseProcess(t *testing.T) {
	p, ok := parseProcess([]byte("42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 100 50 10 5 20 0 1 0 999\n"))
	if !ok || p.parent != 7 || math.Abs(p.time-1.65) > 1e-9 {
		t.Errorf("%+v, %v; want parent 7 and 1.65 s", p, ok)
	}
	for _, bad := range []string{"", "1 (x)", "42 (x) S no 1 1 0 -1 0 0 0 0 0 1 1 1 1 1", "42 (x) S 7 1 1 0 -1 0 0 0 0 0 1 y 1 1 1"} {
		if _, ok := parseProcess([]byte(bad)); ok {
			t.Errorf("%q: taken for a process", bad)
		}
	}
}

// TestForeignTime tells ours, others' and the kernel's processes apart.
func TestForeignTime(t *testing.T) {
	procs := map[int]process{
		1: {0, 1}, 2: {0, 2}, 20: {2, 4}, // init, kthreadd, a kernel thread
		100: {1, 8},                                    // our parent
		101: {100, 16}, 102: {101, 32}, 103: {102, 64}, // us
		200: {1, 128}, 201: {200, 256}, // others
	}
	if got := foreignTime(procs, 101); got != 1+8+128+256 {
		t.Errorf("got %v", got)
	}
}

func TestOwnCPUIsCounted(t *testing.T) {
	pid := 1 // has run for longer than nothing
	if got, err := processCPU(pid); err != nil || got <= 0 {
		t.Errorf("process 1 had %v of CPU: %v", got, err)
	}
	before, err := takeCPU()
	if err != nil {
		t.Fatal(err)
	}
	for end := before.at.UnixMilli() + 50; ; {
		u, err := takeCPU()
		if err != nil {
			t.Fatal(err)
		}
		if u.at.UnixMilli() > end {
			if u.busy < before.busy || u.foreign < 0 {
				t.Errorf("from %+v to %+v", before, u)
			}
			return
		}
	}
}

func TestPreflightNamesEverythingMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := preflight(rows(true), options{msee: filepath.Join(t.TempDir(), "none")})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{"go is not installed", "iperf3 is not installed", "ping is not installed", "make deps", "make build"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

// TestBeds reads the topologies, and the MSEE's configuration in them, as the
// bench and the MSEE will.
func TestBeds(t *testing.T) {
	for _, r := range rows(true) {
		if r.bed == "" {
			continue
		}
		topology, err := topology(r.bed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range topology.Nodes {
			n := &topology.Nodes[i]
			if n.Kind != lab.KindMSEE && n.Kind != lab.KindGateway {
				continue
			}
			text, err := topology.DaemonConfig(n)
			if err != nil {
				t.Fatal(err)
			}
			device, err := config.Parse(r.bed, text)
			if err != nil {
				t.Fatal(err)
			}
			if xdp := strings.HasSuffix(r.bed, xdpBed); xdp != (device.Ports[0].Type == "xdp") || xdp != (device.Ports[1].Type == "xdp") {
				t.Errorf("%s: ports are of type %s and %s", r.bed, device.Ports[0].Type, device.Ports[1].Type)
			}
		}
	}
}

// TestRowNames: they are followed over time.
func TestRowNames(t *testing.T) {
	names := rowNames()
	for _, want := range strings.Fields(`tcp1_dot1q_fwd tcp1_dot1q_rev tcp4_dot1q_fwd tcp4_dot1q_rev
		tcp1_qinq_fwd tcp1_qinq_rev tcp4_qinq_fwd tcp1_untagged_fwd tcp1_untagged_rev tcp4_untagged_fwd
		tcp1_dot1q_fwd_xdp tcp1_dot1q_rev_xdp tcp4_dot1q_fwd_xdp tcp1_dot1q_fwd_tap tcp1_dot1q_rev_tap tcp4_dot1q_fwd_tap
		tcp1_dot1q_fwd_ovs tcp1_dot1q_rev_ovs tcp4_dot1q_fwd_ovs tcp4_dot1q_rev_ovs
		udp64_dot1q udp512_dot1q udp1400_dot1q udp64_dot1q_ovs udp64_dot1q_dpdk udp1400_dot1q_ovs udp64_overload sender_steady_percent
		ping_idle_p50 ping_load_p99 ping_idle_p50_tap idle_cpu_percent
		pipeline_dot1q_10k_ns pipeline_dot1q_10k_policed_ns policer_error_percent
		lookup4_10k_ns lookup4_200k_ns lookup4_1m_ns lookup6_10k_ns`) {
		if !slices.Contains(names, want) {
			t.Errorf("no row %s", want)
		}
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("names are not unique: %v", names)
	}
}

// TestFloodFrames checks that all flows have one checksum, and that it is right.
func TestFloodFrames(t *testing.T) {
	f := flood{from: netip.MustParseAddr("10.1.0.10"), dst: netip.MustParseAddr("10.100.1.10"), octets: 64, ctag: 100}
	b := f.frame([]byte{2, 0, 0, 0, 0, 1})
	udp := b[18+20:]
	pseudo := uint32(17 + len(udp))
	for flow := range floodFlows {
		binary.BigEndian.PutUint16(udp, uint16(floodSource+flow))
		binary.BigEndian.PutUint16(udp[8:], uint16(floodMark-flow))
		if sum := checksum(pseudo, b[18+12:18+20], udp); sum != 0 {
			t.Fatalf("flow %d: checksum is off by %#x", flow, sum)
		}
	}
	if len(b) != 64 || checksum(0, b[18:38]) != 0 || binary.BigEndian.Uint16(b[14:]) != 100 {
		t.Errorf("frame % x", b)
	}
}

// TestAgainstOther: each row that a router is in has the other msee beside ours,
// measured, on a path of its own; no other row is there.
func TestAgainstOther(t *testing.T) {
	found := map[string]bool{}
	for _, r := range againstOther(rows(true)) {
		found[r.name] = true
		if r.forwarder(subject) != msee || r.forwarder(baseline) != otherMSEE || !slices.Equal(r.sides(), []side{subject, baseline}) {
			t.Errorf("%s: %s against %s, sides %v", r.name, r.forwarder(subject), r.forwarder(baseline), r.sides())
		}
	}
	for name, want := range map[string]bool{"tcp1_dot1q_fwd": true, "idle_cpu_percent": true, "tcp1_dot1q_fwd_copy": false,
		"lookup4_10k_ns": false, "sender_steady_percent": false} {
		if found[name] != want {
			t.Errorf("%s is measured against another msee: %v, want %v", name, found[name], want)
		}
	}
}

// TestEachBed: what test's TestBenchBeds runs has every bed and every opponent.
func TestEachBed(t *testing.T) {
	all := rows(true)
	some := eachBed(all)
	if len(some) > len(all)/3 {
		t.Errorf("%d of %d rows are no short run", len(some), len(all))
	}
	for _, r := range all {
		if r.bed != "" && !slices.ContainsFunc(some, func(s *row) bool { return s.bed == r.bed }) {
			t.Errorf("no row of bed %s", r.bed)
		}
		if !slices.ContainsFunc(some, func(s *row) bool { return s.opponent == r.opponent }) {
			t.Errorf("no row beside %s", r.opponent)
		}
	}
}

func TestPeerRowsNameTheirPeer(t *testing.T) {
	found := map[string]forwarder{}
	for _, r := range rows(true) {
		if r.opponent != "" {
			found[r.name] = r.forwarder(baseline)
			if r.baseline != string(r.opponent) || r.forwarder(subject) != msee {
				t.Errorf("%s: baseline %s, opponent %s", r.name, r.baseline, r.opponent)
			}
		}
	}
	for name, want := range map[string]forwarder{"tcp1_dot1q_fwd_ovs": ovsTSO, "tcp4_dot1q_rev_ovs": ovsTSO,
		"udp64_dot1q_ovs": ovsXDP, "udp64_flows_dot1q_dpdk": dpdkXDP} {
		if found[name] != want {
			t.Errorf("%s is measured against %q, want %s", name, found[name], want)
		}
	}
}

// TestParseAutogroup has what kernels say, a session of process 1 among it.
func TestParseAutogroup(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "", // such a session is in no group
		"/autogroup-17 nice 0\n":  "0",
		"/autogroup-17 nice -5\n": "-5",
	} {
		if nice, err := parseAutogroup([]byte(text)); err != nil || string(nice) != want {
			t.Errorf("%q: nice %q, %v, want %q", text, nice, err, want)
		}
	}
	if _, err := parseAutogroup([]byte("/autogroup-17")); err == nil {
		t.Error("a text without a precedence is no error")
	}
}
