package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// someResults are of each kind of row: more counts and less, a target, a peer, one
// far off the plot, one that others disturbed.
func someResults() []result {
	where := machine{Kernel: "6.18", CPU: "Some CPU", CPUs: 2, Go: "go1.26", TCP: "cubic"}
	make := func(r row, ours, theirs float64, extra map[string]float64, noisy bool) result {
		var samples []sample
		for i := range 3 {
			spread := 1 + 0.1*float64(i-1)
			samples = append(samples, sample{Round: i + 1, Value: ours * spread, side: subject, Extra: extra, Noisy: noisy})
			if r.target == 0 {
				samples = append(samples, sample{Round: i + 1, Value: theirs, side: baseline, Extra: extra})
			}
		}
		out := summarise(&r, samples, where)
		if out.Note != "" {
			out.Note = "set up so and so"
		}
		out.When, out.Seconds = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), 2
		return out
	}
	costs := map[string]float64{"cpuSecondsPerGbit": 0.08, "cpuSecondsPerMframe": 40, "meanFrameOctets": 64000, "rssMB": 90, "retransmits": 3}
	return []result{
		make(row{name: "pipeline_dot1q_10k_ns", unit: "ns", smaller: true, baseline: "target", target: 50}, 48, 0, nil, false),
		make(row{name: "tcp1_dot1q_fwd", unit: "Gb/s", baseline: kernelForwarding}, 13, 16, costs, false),
		make(row{name: "tcp1_dot1q_rev", unit: "Gb/s", baseline: kernelForwarding}, 17, 16, costs, true),
		make(row{name: "udp64_dot1q", unit: "Mpps", baseline: kernelForwarding}, 0.6, 0.7, nil, false),
		make(row{name: "ping_load_p99", unit: "µs", smaller: true, baseline: kernelForwarding}, 1344, 93, nil, false),
		make(row{name: "tcp1_dot1q_fwd_ovs", unit: "Gb/s", baseline: string(ovsTSO), opponent: ovsTSO}, 13, 10, nil, false),
		make(row{name: "failover_turn_100_us", unit: "µs", smaller: true, baseline: "target", target: 1000}, 4.6, 0, nil, false),
	}
}

// golden compares with testdata/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test ./test/bench -update writes it anew):\n%s", file, got)
	}
}

func TestPlot(t *testing.T) { golden(t, "plot.svg", plot(someResults())) }

func TestInsertFigures(t *testing.T) {
	page, err := insertFigures("before\n"+figuresBegin+"old\n"+figuresEnd+"after\n", someResults())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "figures.md", page)
	again, err := insertFigures(page, someResults())
	if err != nil || again != page {
		t.Errorf("a second time the page becomes another: %v", err)
	}
	for _, bad := range []string{"", figuresBegin, figuresEnd + figuresBegin} {
		if _, err := insertFigures(bad, nil); err == nil {
			t.Errorf("%q has no place for figures, but no error", bad)
		}
	}
}

// TestDocsHaveAPlace: the page that the lead publishes.
func TestDocsHaveAPlace(t *testing.T) {
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := insertFigures(string(page), someResults()); err != nil {
		t.Error(err)
	}
}

func TestMergeKeepsTheLast(t *testing.T) {
	named := func(name string, value float64) result { return result{Name: name, Value: value} }
	got := merge(
		[]result{named("gone", 1), named("udp64_dot1q", 2), named("tcp1_dot1q_fwd", 3)},
		[]result{named("udp64_dot1q", 4), named("also_gone", 5)})
	want := []result{named("tcp1_dot1q_fwd", 3), named("udp64_dot1q", 4), named("also_gone", 5), named("gone", 1)}
	if !slices.EqualFunc(got, want, func(a, b result) bool { return a.Name == b.Name && a.Value == b.Value }) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestReadResults reads what writeJSON wrote, and says which file is none.
func TestReadResults(t *testing.T) {
	a, b, broken := filepath.Join(t.TempDir(), "a.json"), filepath.Join(t.TempDir(), "b.json"), filepath.Join(t.TempDir(), "c.json")
	all := someResults()
	if err := writeJSON(a, all[:4]); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(b, all[3:]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(a + "," + b)
	if err != nil {
		t.Fatal(err)
	}
	gotText, _ := json.Marshal(got)
	wantText, _ := json.Marshal(merge(all))
	if string(gotText) != string(wantText) {
		t.Errorf("got %s\nwant %s", gotText, wantText)
	}
	for _, bad := range []string{"none.json", a + "," + broken} {
		if _, err := readResults(bad); err == nil || !strings.Contains(err.Error(), filepath.Base(bad[strings.LastIndex(bad, ",")+1:])) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func TestEveryRowHasAGroup(t *testing.T) {
	for _, name := range rowNames() {
		if groupOf(name) < 0 {
			t.Errorf("%s is in no group: it would be missing in table and plot", name)
		}
	}
}
