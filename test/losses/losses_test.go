package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// everyCase is a result for each fault, direction and setting.
func everyCase(n int) (results []Result) {
	for _, f := range faults {
		for _, direction := range directions {
			for _, bfd := range []string{"300x3", "50x3"} {
				for _, routes := range []int{100, 10000} {
					results = append(results, Result{f.name, direction, bfd, routes, n, Spread{1, 2, 3}, Spread{}, nil})
				}
			}
		}
	}
	return results
}

// A run of one fault that keeps the rest replaces its own rows and no other.
func TestKeep(t *testing.T) {
	o := options{out: filepath.Join(t.TempDir(), "losses.json")}
	if err := write(o, everyCase(20)); err != nil {
		t.Fatal(err)
	}
	c := collection{o: o}
	var err error
	if c.results, err = readResults(o.out); err != nil {
		t.Fatal(err)
	}
	c.add(Result{"reload", directions[0], "50x3", 100, 7, Spread{}, Spread{}, nil})
	if c.err != nil {
		t.Fatal(c.err)
	}
	results, err := readResults(o.out)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(everyCase(20)) {
		t.Errorf("%d results, want %d", len(results), len(everyCase(20)))
	}
	for _, r := range results {
		want := 20
		if r.Fault == "reload" && r.Direction == directions[0] && r.BFD == "50x3" && r.Routes == 100 {
			want = 7
		}
		if r.N != want {
			t.Errorf("n %d, want %d: %v", r.N, want, r)
		}
	}
}

// The picture has a mark for each result, wherever its time lies.
func TestPicture(t *testing.T) {
	results := everyCase(20)
	results[0].LostMS = Spread{0, 0, 1e6}
	svg := picture(results)
	if got := strings.Count(svg, "<circle"); got != len(results) {
		t.Errorf("%d marks, want %d", got, len(results))
	}
	if strings.Contains(svg, "%!") || strings.Contains(svg, "NaN") || strings.Contains(svg, fmt.Sprint(1e6)) {
		t.Errorf("not a picture:\n%s", svg)
	}
}

// Percentiles are values that were measured, and p95 of twenty is not the longest.
func TestSpread(t *testing.T) {
	var values []float64
	for i := range 20 {
		values = append(values, float64((7*i)%20+1)) // 1 to 20, in no order
	}
	for _, c := range []struct {
		values []float64
		want   Spread
	}{{values, Spread{10, 19, 20}}, {values[:1], Spread{1, 1, 1}}, {[]float64{3, 1, 2}, Spread{2, 3, 3}}} {
		if got := spread(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
}
