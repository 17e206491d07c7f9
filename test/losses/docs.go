package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// figuresBelow is the line of failover.md below which the figures are.
const figuresBelow = "<!-- make losses writes what follows -->\n"

// writeDocs puts the table and the picture into failover.md.
func writeDocs(dir string, results []Result) error {
	file := filepath.Join(dir, "failover.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	above, _, found := strings.Cut(string(text), figuresBelow)
	if !found {
		return fmt.Errorf("%s has no line %q", file, strings.TrimSpace(figuresBelow))
	}
	page := above + figuresBelow + "\n## Figures\n\n![milliseconds dark per fault](failover.svg)\n\n" + table(results)
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "failover.svg"), []byte(picture(results)), 0o644)
}

func table(results []Result) string {
	var b strings.Builder
	b.WriteString("| fault | direction | BFD | routes | n | dark, ms: median | p95 | max | packets lost: median | p95 | max | last lost, ms after detection: median | max |\n")
	b.WriteString("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		after := " | "
		if a := r.AfterDetection; a != nil {
			after = fmt.Sprintf("%.1f | %.1f", a.Median, a.Max)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %s |\n", r.Fault, arrow(r.Direction), r.BFD, r.Routes, r.N,
			r.LostMS.Median, r.LostMS.P95, r.LostMS.Max, r.LostPackets.Median, r.LostPackets.P95, r.LostPackets.Max, after)
	}
	return b.String()
}

func arrow(direction string) string { return strings.Replace(direction, "-", " → ", 1) }

// Measures of the picture, in its own units.
const (
	rowHeight  = 16
	labelWidth = 300
	barWidth   = 600
	margin     = 24
)

// picture draws a bar per row, as long as the median time dark, with a mark at
// the longest.
func picture(results []Result) string {
	longest := 1.0
	for _, r := range results {
		longest = max(longest, r.LostMS.Max)
	}
	height := 2*margin + rowHeight*len(results)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", labelWidth+barWidth+90, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="16" font-weight="bold">milliseconds dark: median (bar), longest (mark)</text>`+"\n", labelWidth)
	colors := map[string]string{directions[0]: "#2b6cb0", directions[1]: "#c05621"}
	for i, r := range results {
		y := margin + rowHeight*i
		x := func(ms float64) float64 { return labelWidth + ms/longest*barWidth }
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s, %s, BFD %s, %d routes</text>`, labelWidth-6, y+11, r.Fault, arrow(r.Direction), r.BFD, r.Routes)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y+2, max(x(r.LostMS.Median)-labelWidth, 1), rowHeight-5, colors[r.Direction])
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="2" height="%d" fill="black"/>`, x(r.LostMS.Max), y+1, rowHeight-3)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f</text>`+"\n", x(r.LostMS.Max)+5, y+11, r.LostMS.Median)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
