package main

import (
	"fmt"
	"math"

	"msee/test/svg"
)

// Measures of the picture, in its own units.
const (
	laneHeight  = 15
	faultGap    = 9
	labelWidth  = 240
	plotWidth   = 640
	plotTop     = 58
	rightMargin = 60
)

// ticks are the times dark, in ms, that the picture's axis names.
var ticks = []float64{0, 1, 10, 100, 1000, 10000}

// position is where a time dark is on the picture's axis, which is logarithmic
// but for its beginning: most faults cost nothing at all, and that must have a place.
func position(ms float64) float64 {
	return labelWidth + plotWidth*math.Log10(1+min(ms, ticks[len(ticks)-1]))/math.Log10(1+ticks[len(ticks)-1])
}

// laneClasses tell the directions apart.
var laneClasses = map[string]string{directions[0]: "one", directions[1]: "two"}

// picture has for results in order a lane for each fault, direction and setting of BFD, and in it a
// mark at the median for each number of routes, with a line to the longest.
func picture(results []Result) string {
	var c svg.Canvas
	y, most := float64(plotTop), 0
	for _, r := range results {
		most = max(most, r.Routes)
	}
	var before Result
	for _, r := range results {
		switch {
		case r.Fault != before.Fault:
			y += faultGap + laneHeight
			c.Text(8, y+4, "head", "%s", r.Fault)
			c.Line(8, y-faultGap-2, labelWidth+plotWidth, y-faultGap-2, "grid")
		case r.Direction != before.Direction || r.BFD != before.BFD:
			y += laneHeight
		}
		if r.Direction != before.Direction || r.BFD != before.BFD || r.Fault != before.Fault {
			c.Text(labelWidth-8, y+4, "small end "+laneClasses[r.Direction], "%s %s", arrow(r.Direction), r.BFD)
		}
		mark(&c, r, y, r.Routes == most)
		before = r
	}
	height := y + laneHeight + 8
	c.Text(8, 17, "title", "Milliseconds dark per fault")
	c.Text(8, 33, "", "mark: median of the runs, filled with %d routes and hollow with fewer; line: to the longest; number: median with %d routes", most, most)
	for _, ms := range ticks {
		c.Line(position(ms), plotTop+4, position(ms), height-6, "grid")
		c.Text(position(ms), plotTop-2, "mid dim", "%s", fmt.Sprint(ms))
	}
	return c.Picture(labelWidth+plotWidth+rightMargin, height)
}

func mark(c *svg.Canvas, r Result, y float64, filled bool) {
	class := laneClasses[r.Direction]
	x, longest := position(r.LostMS.Median), position(r.LostMS.Max)
	c.Line(x, y, longest, y, class)
	if filled {
		c.Circle(x, y, 3.5, class)
		c.Text(max(x, longest)+7, y+4, "small", "%.0f", r.LostMS.Median)
	} else {
		c.Circle(x, y, 3.5, class+" hollow")
	}
}
