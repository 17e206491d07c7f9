package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What is between these lines of performance.md is ours to write.
const (
	figuresBegin = "<!-- make bench DOCS=docs writes from here -->\n"
	figuresEnd   = "<!-- to here -->\n"
)

// writeDocs puts the table and the plot into performance.md. "" is no directory.
func writeDocs(dir string, results []result) error {
	if dir == "" {
		return nil
	}
	file := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	page, err := insertFigures(string(text), results)
	if err == nil {
		err = os.WriteFile(file, []byte(page), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write figures into %s: %w", file, err)
	}
	return writePlot(filepath.Join(dir, "bench.svg"), results)
}

// insertFigures replaces what is between the marks of a page.
func insertFigures(page string, results []result) (string, error) {
	before, rest, found := strings.Cut(page, figuresBegin)
	_, after, ends := strings.Cut(rest, figuresEnd)
	if !found || !ends {
		return "", fmt.Errorf("want the lines %q and %q", strings.TrimSpace(figuresBegin), strings.TrimSpace(figuresEnd))
	}
	return before + figuresBegin + "\n" + figures(results) + "\n" + figuresEnd + after, nil
}

// figures are the plot, where and when the results come from, and the table, group
// by group as the plot has them.
func figures(results []result) string {
	var b strings.Builder
	b.WriteString("![ratio of msee to its baseline, row by row](bench.svg)\n\n")
	for _, o := range origins(results) {
		fmt.Fprintf(&b, "%s\n", o)
	}
	b.WriteString("\nMedians (least – most of the rounds). CPU, frame and memory are of msee / baseline; what they count is above. Noisy: runs of both that others disturbed.\n\n")
	b.WriteString("| row | unit | msee | baseline | | ratio | CPU s/Gbit | CPU s/Mframe | router s/Gbit | router s/Mframe | frame, octets | MB | rounds | noisy | how |\n")
	b.WriteString("|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n")
	notes := map[string]string{}
	for group := range groups {
		for i := range results {
			r := &results[i]
			if groupOf(r.Name) != group {
				continue
			}
			if r.Note != "" {
				notes[r.Baseline.Name] = r.Note
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s | %d | %d | %s |\n", r.Name, r.Unit, spread(r.Value, r.Min, r.Max), r.Baseline.Name,
				r.theirs(), spread(r.Ratio, r.RatioMin, r.RatioMax), strings.Join(r.costs(), " | "), r.Runs, r.Noisy, r.how())
		}
	}
	if len(notes) > 0 {
		b.WriteString("\nWhat the peers were:\n\n")
	}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, notes[name])
	}
	return b.String()
}

// origins say where and when the results were measured, a line for each set of
// equal ones.
func origins(results []result) []string {
	var lines []string
	for _, r := range results {
		line := fmt.Sprintf("%s, %s, runs of %d s.", r.Machine, r.When.Format(time.DateOnly), r.Seconds)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// readResults reads what -out wrote, of files in a list with commas, and merges it.
func readResults(files string) ([]result, error) {
	var parts [][]result
	for _, file := range strings.Split(files, ",") {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		var part []result
		if err := json.Unmarshal(data, &part); err != nil {
			return nil, fmt.Errorf("read results from %s: %w", file, err)
		}
		parts = append(parts, part)
	}
	return merge(parts...), nil
}

// merge joins results, each row once: that of the last part that has it. They are
// in the order in which they are measured; a row that is not measured any more
// goes to the end.
func merge(parts ...[]result) []result {
	last := map[string]result{}
	for _, r := range slices.Concat(parts...) {
		last[r.Name] = r
	}
	var merged []result
	for _, name := range rowNames() {
		if r, ok := last[name]; ok {
			merged = append(merged, r)
			delete(last, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(last)) {
		merged = append(merged, last[name])
	}
	return merged
}
