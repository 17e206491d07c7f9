package main

import (
	"fmt"
	"math"
	"strings"
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

var laneColours = map[string]string{directions[0]: "#2b6cb0", directions[1]: "#c05621"}

// picture has for results in order a lane for each fault, direction and setting of BFD, and in it a
// mark at the median for each number of routes, with a line to the longest.
func picture(results []Result) string {
	var lanes strings.Builder
	y, most := plotTop, 0
	for _, r := range results {
		most = max(most, r.Routes)
	}
	var before Result
	for _, r := range results {
		switch {
		case r.Fault != before.Fault:
			y += faultGap + laneHeight
			fmt.Fprintf(&lanes, `<text x="8" y="%d" font-weight="bold">%s</text>`+"\n", y+4, r.Fault)
			fmt.Fprintf(&lanes, `<path d="M8 %d H%d" stroke="#ddd"/>`+"\n", y-faultGap-2, labelWidth+plotWidth)
		case r.Direction != before.Direction || r.BFD != before.BFD:
			y += laneHeight
		}
		if r.Direction != before.Direction || r.BFD != before.BFD || r.Fault != before.Fault {
			fmt.Fprintf(&lanes, `<text x="%d" y="%d" text-anchor="end" fill="%s" font-size="10">%s %s</text>`+"\n",
				labelWidth-8, y+4, laneColours[r.Direction], arrow(r.Direction), r.BFD)
		}
		lanes.WriteString(mark(r, y, r.Routes == most))
		before = r
	}
	height := y + laneHeight + 8

	var b strings.Builder
	width := labelWidth + plotWidth + rightMargin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" font-family="sans-serif" font-size="11">`+"\n", width, height, width)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	b.WriteString(`<text x="8" y="17" font-size="13" font-weight="bold">Milliseconds dark per fault</text>` + "\n")
	fmt.Fprintf(&b, `<text x="8" y="33">mark: median of the runs, filled with %d routes and hollow with fewer; line: to the longest; number: median with %d routes</text>`+"\n", most, most)
	for _, ms := range ticks {
		x := position(ms)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#eee"/>`, x, x, plotTop+4, height-6)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>`+"\n", x, plotTop-2, ms)
	}
	b.WriteString(lanes.String())
	b.WriteString("</svg>\n")
	return b.String()
}

func mark(r Result, y int, filled bool) string {
	colour := laneColours[r.Direction]
	fill, number := "white", ""
	if filled {
		fill = colour
		number = fmt.Sprintf(`<text x="%.1f" y="%d" font-size="10">%.0f</text>`, position(max(r.LostMS.Max, r.LostMS.Median))+7, y+4, r.LostMS.Median)
	}
	x, longest := position(r.LostMS.Median), position(r.LostMS.Max)
	return fmt.Sprintf(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/>`, x, longest, y, y, colour) +
		fmt.Sprintf(`<circle cx="%.1f" cy="%d" r="3.5" fill="%s" stroke="%s"/>%s`+"\n", x, y, fill, colour, number)
}
