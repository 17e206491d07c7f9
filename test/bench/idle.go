package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// pingInterval is long enough that everything is asleep in between.
const pingInterval = 10 * time.Millisecond

// pingIdle is the round trip time through a router that has nothing else to do.
func pingIdle(ctx context.Context, b *bench, s side) (reading, error) {
	p := paths[s]
	count := int(time.Duration(b.seconds) * time.Second / pingInterval)
	out, err := output(ctx, customer, "ping", "-n", "-i", fmt.Sprint(pingInterval.Seconds()), "-c", strconv.Itoa(count),
		"-W", "1", "-I", p.from, p.to)
	if err != nil {
		return reading{}, fmt.Errorf("%w: %s", err, lastLine(out))
	}
	rtts := parsePing(out)
	if len(rtts) == 0 {
		return reading{}, errors.New("ping printed no round trip times")
	}
	slices.Sort(rtts)
	return reading{quantile(rtts, 0.5), map[string]float64{
		"p99": quantile(rtts, 0.99), "lost": float64(count - len(rtts)),
	}}, nil
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// parsePing returns the round trip times in microseconds.
func parsePing(out []byte) (rtts []float64) {
	for _, m := range pingTime.FindAllSubmatch(out, -1) {
		if ms, err := strconv.ParseFloat(string(m[1]), 64); err == nil {
			rtts = append(rtts, ms*1000)
		}
	}
	return rtts
}

// idleCPU is what a converged MSEE without traffic takes, its speaker included,
// in percent of one core.
func idleCPU(ctx context.Context, b *bench, _ side) (reading, error) {
	pid, err := b.bed.pid()
	if err != nil {
		return reading{}, err
	}
	before, err := treeCPU(pid)
	if err != nil {
		return reading{}, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return reading{}, ctx.Err()
	case <-time.After(time.Duration(b.seconds) * time.Second):
	}
	after, err := treeCPU(pid)
	if err != nil {
		return reading{}, err
	}
	return reading{value: 100 * (after - before).Seconds() / time.Since(began).Seconds()}, nil
}

// treeCPU adds up the CPU time of a process and those below it.
func treeCPU(pid int) (sum time.Duration, err error) {
	procs, err := readProcesses()
	if err != nil {
		return 0, err
	}
	for pid := range descendants(procs, pid) {
		t, err := processCPU(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
