package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// goBench is a Go benchmark of a package.
type goBench struct {
	pkg, bench string    // BenchmarkBENCH in package pkg; may have slashes
	unit       string    // which of the benchmark's figures is the value
	sides      [2]string // sub-benchmarks, "" for none
}

// runTime is the share of a run's seconds that a benchmark takes. Its figures
// are steadier than traffic's, and its tables take time to build.
const runTime = 0.2

func (g goBench) measure(ctx context.Context, b *bench, s side) (reading, error) {
	binary, err := b.testBinary(ctx, g.pkg)
	if err != nil {
		return reading{}, err
	}
	name := g.bench
	if sub := g.sides[s]; sub != "" {
		name += "/" + sub
	}
	// Each part of the pattern matches one level of sub-benchmarks.
	pattern := "^Benchmark" + strings.ReplaceAll(name, "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchmem",
		"-test.benchtime", fmt.Sprintf("%.2fs", runTime*float64(b.seconds)), "-test.cpu", "1")
	cmd.Dir = b.scratch
	out, err := cmd.CombinedOutput()
	if err != nil {
		return reading{}, errors.Join(ctx.Err(), fmt.Errorf("run Benchmark%s of %s: %w: %s", name, g.pkg, err, lastLine(out)))
	}
	figures := parseBench(string(out))
	value, ok := figures[g.unit]
	if !ok {
		return reading{}, fmt.Errorf("run Benchmark%s of %s: it reports no %s", name, g.pkg, g.unit)
	}
	delete(figures, g.unit)
	return reading{value, figures}, nil
}

// testBinary builds a package's tests, once.
func (b *bench) testBinary(ctx context.Context, pkg string) (string, error) {
	if path, ok := b.binaries[pkg]; ok {
		return path, nil
	}
	path := filepath.Join(b.scratch, strings.ReplaceAll(pkg, "/", "-")+".test")
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", path, pkg).CombinedOutput()
	if err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("build tests of %s: %w: %s", pkg, err, out))
	}
	if b.binaries == nil {
		b.binaries = map[string]string{}
	}
	b.binaries[pkg] = path
	return path, nil
}

// parseBench reads the figures of the benchmark that go test printed, by unit.
func parseBench(out string) map[string]float64 {
	figures := map[string]float64{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 { // behind the name and the number of iterations
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				figures[fields[i+1]] = v
			}
		}
	}
	return figures
}
