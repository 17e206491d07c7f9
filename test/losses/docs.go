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
