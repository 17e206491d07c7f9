package main

import (
	"fmt"
	"os"
	"strings"
)

// The plot's measures, in pixels.
const (
	plotLeft  = 190 // names
	plotWidth = 420 // bars
	plotRight = 150 // values
	plotLine  = 22
	plotTop   = 34
	plotMax   = 2.5 // ratio at the right edge; bars of more are cut off and say so
)

// writePlot draws the ratios as bars, with the spread over the rounds and a line
// where baseline and subject are equal. "" is no file.
func writePlot(path string, results []result) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, []byte(plot(results)), 0o644); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

func plot(results []result) string {
	var b strings.Builder
	height := plotTop + plotLine*len(results) + 12
	x := func(ratio float64) float64 { return plotLeft + plotWidth*min(ratio, plotMax)/plotMax }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		plotLeft+plotWidth+plotRight, height)
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="white"/>`)
	fmt.Fprintf(&b, `<text x="%d" y="16">msee : baseline; right of the line msee is better; thin: least to most of the rounds</text>`+"\n", plotLeft)
	for i, r := range results {
		y := plotTop + plotLine*i
		cut := ""
		if r.Ratio > plotMax {
			cut = " →"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotLeft-8, y+12, r.Name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/>`+"\n", plotLeft, y+1, x(r.Ratio)-plotLeft, plotColour(r.Ratio))
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black"/>`+"\n", x(r.RatioMin), y+8, x(r.RatioMax), y+8)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s of %s%s</text>`+"\n", plotLeft+plotWidth+6, y+12, number(r.Ratio), r.Baseline.Name, cut)
	}
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black" stroke-dasharray="4 3"/>`+"\n", x(1), plotTop-6, x(1), height-8)
	b.WriteString("</svg>\n")
	return b.String()
}

func plotColour(ratio float64) string {
	if ratio >= 1 {
		return "#5a9e6f"
	}
	return "#c98b5b"
}
