package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is a row's outcome. Values are medians over the rounds.
type result struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Value    float64 `json:"value"`
	Baseline against `json:"baseline"`
	// Ratio is value to baseline.value, or the other way round where smaller
	// is better: larger is always better for msee. RatioMin and RatioMax are
	// over the pairs of one round each.
	Ratio    float64            `json:"ratio"`
	RatioMin float64            `json:"ratioMin"`
	RatioMax float64            `json:"ratioMax"`
	Runs     int                `json:"runs"` // of the subject
	Min      float64            `json:"min"`
	Max      float64            `json:"max"`
	Noisy    int                `json:"noisyRuns"` // of both sides
	Extra    map[string]float64 `json:"extra,omitempty"`
	Samples  []sample           `json:"samples"`
	Note     string             `json:"note,omitempty"` // what the baseline was, if that needs saying
	Machine  machine            `json:"machine"`
	When     time.Time          `json:"when"`    // it was finished
	Seconds  int                `json:"seconds"` // of a run
}

// against is what a row is compared with.
type against struct {
	Name  string             `json:"name"`
	Value float64            `json:"value"`
	Min   float64            `json:"min"`
	Max   float64            `json:"max"`
	Extra map[string]float64 `json:"extra,omitempty"`
}

// summarise makes a row's result of its runs, at least one of each side.
func summarise(r *row, samples []sample, where machine) result {
	out := result{Name: r.name, Unit: r.unit, Samples: samples, Machine: where, Note: peerNotes[r.opponent],
		Baseline: against{Name: r.baseline, Value: r.target, Min: r.target, Max: r.target}}
	var values [2][]float64
	for _, s := range samples {
		values[s.side] = append(values[s.side], s.Value)
		if s.Noisy {
			out.Noisy++
		}
	}
	ours, theirs := values[subject], values[baseline]
	var ratios []float64
	for i, v := range ours {
		other := r.target
		if i < len(theirs) {
			other = theirs[i]
		}
		ratios = append(ratios, r.ratio(v, other))
	}
	out.Runs = len(ours)
	out.Value, out.Min, out.Max = median(ours), slices.Min(ours), slices.Max(ours)
	out.RatioMin, out.RatioMax = slices.Min(ratios), slices.Max(ratios)
	out.Extra = medianExtra(samples, subject)
	if len(theirs) > 0 {
		b := &out.Baseline
		b.Value, b.Min, b.Max = median(theirs), slices.Min(theirs), slices.Max(theirs)
		b.Extra = medianExtra(samples, baseline)
	}
	out.Ratio = r.ratio(out.Value, out.Baseline.Value)
	return out
}

func medianExtra(samples []sample, which side) map[string]float64 {
	values := map[string][]float64{}
	for _, s := range samples {
		if s.side == which {
			for k, v := range s.Extra {
				values[k] = append(values[k], v)
			}
		}
	}
	out := map[string]float64{}
	for k, v := range values {
		out[k] = median(v)
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[n/2]
}

// quantile returns the value that a share q of the sorted values does not exceed.
func quantile(sorted []float64, q float64) float64 {
	i := int(q * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

// writeJSON replaces the file; "" is none.
func writeJSON(path string, results []result) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// printTable prints the results for people.
func printTable(w io.Writer, results []result) {
	if len(results) == 0 {
		return
	}
	m := results[0].Machine
	fmt.Fprintf(w, "\n%s; medians (min – max); ratio > 1: msee is better\n", m)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROW\tUNIT\tMSEE\tBASELINE\tVALUE\tRATIO\tNOISY\tCPU s/Gbit\tCPU s/Mframe\tROUTER s/Gbit\tROUTER s/Mframe\tFRAME\tMB\tHOW")
	for _, r := range results {
		ours, theirs, runs := spread(r.Value, r.Min, r.Max), r.theirs(), len(r.Samples)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\n", r.Name, r.Unit, ours, r.Baseline.Name, theirs,
			spread(r.Ratio, r.RatioMin, r.RatioMax), r.Noisy, runs, strings.Join(r.costs(), "\t"), r.how())
	}
	t.Flush()
}

func spread(value, low, high float64) string {
	return fmt.Sprintf("%s (%s – %s)", number(value), number(low), number(high))
}

// theirs is the baseline's value.
func (r *result) theirs() string {
	b := r.Baseline
	if b.Min == b.Max {
		return number(b.Value)
	}
	return spread(b.Value, b.Min, b.Max)
}

// costKeys are the figures of extra that have columns.
var costKeys = []string{"cpuSecondsPerGbit", "cpuSecondsPerMframe", "routerCPUSecondsPerGbit", "routerCPUSecondsPerMframe", "meanFrameOctets", "rssMB"}

// costs are those of both sides, "msee / baseline", or "" where there is none.
func (r *result) costs() []string {
	var columns []string
	for _, key := range costKeys {
		ours, is := r.Extra[key]
		theirs, are := r.Baseline.Extra[key]
		switch {
		case is && are:
			columns = append(columns, number(ours)+" / "+number(theirs))
		case is:
			columns = append(columns, number(ours))
		default:
			columns = append(columns, "")
		}
	}
	return columns
}

// how says in a few words what explains the value.
func (r *result) how() string {
	var parts []string
	say := func(key, format string, scale float64) {
		if v, ok := r.Extra[key]; ok {
			parts = append(parts, fmt.Sprintf(format, number(v*scale)))
		}
	}
	say("gbpsPerRouterCore", "%s Gb/s per router core", 1)
	say("copyBoundPercent", "%s %% of the copies' bound", 1)
	say("retransmits", "%s retransmits", 1)
	say("routerDrops", "%s drops", 1)
	if theirs, ok := r.Baseline.Extra["p95Mpps"]; ok {
		parts = append(parts, fmt.Sprintf("p95 %s beside %s Mpps", number(r.Extra["p95Mpps"]), number(theirs)))
	}
	say("offeredMpps", "%s Mpps offered", 1)
	say("lostPercent", "%s %% lost", 1)
	say("timesOffered", "%s times the best offered", 1)
	say("lostAtReceiverPercent", "receiver lost %s %%", 1)
	say("p99", "p99 %s", 1)
	say("p5-ns/frame", "p5 %s ns", 1)
	say("allocs/op", "%s allocs", 1)
	return strings.Join(parts, ", ")
}
