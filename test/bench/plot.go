package main

import (
	"fmt"
	"math"
	"os"
	"regexp"

	"msee/test/svg"
)

// The plot's measures, in pixels.
const (
	plotNames = 236 // where the axis begins
	plotWidth = 420
	plotRight = 316 // values
	plotLine  = 18
	plotHead  = 26 // a group's heading
	plotTop   = 70
)

// plotTicks are the ratios that the axis names; what lies beyond its ends is drawn
// there, with an arrow.
var plotTicks = []float64{0.1, 0.2, 0.5, 1, 2, 5, 10}

// groups are the plot's and the table's, in their order. A row is in the last that
// it matches.
var groups = []struct {
	title string
	rows  *regexp.Regexp
}{
	{"TCP", regexp.MustCompile(`^tcp`)},
	{"UDP", regexp.MustCompile(`^(udp|sender)`)},
	{"round trip, idle", regexp.MustCompile(`^(ping|idle)`)},
	{"ports of type xdp and tap", regexp.MustCompile(`_(xdp|tap)$`)},
	{"beside other userspace dataplanes", regexp.MustCompile(`_(ovs|dpdk)$`)},
	{"beside the smallest AF_PACKET forwarder", regexp.MustCompile(`_copy$`)},
	{"VXLAN and MACsec", regexp.MustCompile(`^(vxlan|macsec)`)},
	{"in memory: pipeline, lookup, policer, FastPath", regexp.MustCompile(`^(pipeline|lookup|policer|fastpath)`)},
	{"BGP and BFD", regexp.MustCompile(`^(bgp|bfd|failover)`)},
}

// groupOf returns the index of a row's group, -1 if it has none.
func groupOf(name string) int {
	for i := len(groups) - 1; i >= 0; i-- {
		if groups[i].rows.MatchString(name) {
			return i
		}
	}
	return -1
}

// writePlot draws the results. "" is no file.
func writePlot(path string, results []result) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, []byte(plot(results)), 0o644); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// plot has a line for each row, group by group: a bar from 1, where both are equal,
// to the ratio of the medians, and whiskers from the least to the most of the rounds.
func plot(results []result) string {
	var c svg.Canvas
	y := float64(plotTop)
	for group := range groups {
		first := true
		for i := range results {
			r := &results[i]
			if groupOf(r.Name) != group {
				continue
			}
			if first {
				y += plotHead
				c.Text(8, y-4, "head", "%s", groups[group].title)
				c.Line(8, y+1, plotNames+plotWidth+plotRight-8, y+1, "grid")
				first = false
			}
			y += plotLine
			plotRow(&c, y-4, r)
		}
	}
	return plotFrame(&c, y+12)
}

// plotFrame adds what the rows have in common and returns the picture. What it
// draws lies over them, so it is thin.
func plotFrame(c *svg.Canvas, height float64) string {
	c.Text(8, 20, "title", "msee beside its baselines")
	c.Text(8, 38, "dim", "ratio of the medians; right of 1 msee is better, be it more or less that counts. Whiskers: least and most of the rounds. Right: msee : baseline")
	for _, tick := range plotTicks {
		class := "grid"
		if tick == 1 {
			class = "axis"
		}
		c.Line(plotAt(tick), plotTop-2, plotAt(tick), height-6, class)
		c.Text(plotAt(tick), plotTop-8, "mid dim", "%g", tick)
	}
	return c.Picture(plotNames+plotWidth+plotRight, height)
}

// plotAt is where a ratio is on the axis, which is logarithmic.
func plotAt(ratio float64) float64 {
	low, high := plotTicks[0], plotTicks[len(plotTicks)-1]
	ratio = max(low, min(ratio, high))
	return plotNames + plotWidth*math.Log(ratio/low)/math.Log(high/low)
}

// plotRow draws a row whose text stands at y.
func plotRow(c *svg.Canvas, y float64, r *result) {
	class := "good"
	if r.Ratio < 1 {
		class = "bad"
	}
	middle, at, one := y-4, plotAt(r.Ratio), plotAt(1)
	c.Text(plotNames-8, y, "end", "%s", r.Name)
	c.Rect(min(at, one), middle-5, math.Abs(at-one), 10, class+" pale")
	low, high := plotAt(r.RatioMin), plotAt(r.RatioMax)
	c.Line(low, middle, high, middle, class)
	c.Line(low, middle-3, low, middle+3, class)
	c.Line(high, middle-3, high, middle+3, class)
	c.Circle(at, middle, 3.5, class)
	arrow := ""
	switch {
	case r.Ratio > plotTicks[len(plotTicks)-1]:
		arrow = " →"
	case r.Ratio < plotTicks[0]:
		arrow = " ←"
	}
	c.Text(plotNames+plotWidth+10, y, "small", "%s%s", number(r.Ratio), arrow)
	c.Text(plotNames+plotWidth+62, y, "small dim", "%s : %s %s, %s", number(r.Value), number(r.Baseline.Value), r.Unit, r.Baseline.Name)
}
