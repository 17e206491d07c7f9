package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// bfdRows are what BFD promises: a turn within a millisecond whatever the number
// of routes, and no neighbor taken for dead on a busy router.
func bfdRows() []*row {
	turn := func(name, routes string) *row {
		return &row{name: name, unit: "µs", smaller: true, baseline: "target", target: 1000,
			measure: goBench{pkg: "msee/dataplane", bench: "FailoverTurn/" + routes, unit: "µs/turn"}.measure}
	}
	return []*row{
		turn("failover_turn_100_us", "100"),
		turn("failover_turn_100k_us", "100000"),
		{name: "bfd_false_downs", unit: "", smaller: true, baseline: "target", target: 1, measure: soak},
	}
}

var falseDowns = regexp.MustCompile(`(\d+) false downs`)

// soak runs test's BFDSoak: 64 sessions of 50 ms × 3 under iperf3 and a storm of
// routes.
func soak(ctx context.Context, b *bench, _ side) (reading, error) {
	binary, err := b.testBinary(ctx, "msee/test")
	if err != nil {
		return reading{}, err
	}
	// In a session of its own, so that its precedence is its own as well.
	cmd := exec.CommandContext(ctx, "setsid", "-w", binary, "-test.run", "^TestBFDSoak$", "-test.v", "-bfdsoak", fmt.Sprintf("%ds", 10*b.seconds), "-bfdsoak.interval", "50ms")
	cmd.Dir = "test"
	out, err := cmd.CombinedOutput()
	m := falseDowns.FindSubmatch(out)
	if m == nil {
		return reading{}, errors.Join(ctx.Err(), fmt.Errorf("run the BFD soak: %w: %s", err, lastLine(out)))
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	return reading{value: n}, err
}
