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
	rtts, lost, err := pings(ctx, b, s)
	if err != nil {
		return reading{}, err
	}
	return reading{quantile(rtts, 0.5), map[string]float64{"p99": quantile(rtts, 0.99), "lost": lost}}, nil
}

// pingLoad is the 99th percentile beside one TCP flow at full speed.
func pingLoad(ctx context.Context, b *bench, s side) (reading, error) {
	type outcome struct {
		report *iperfReport
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		report, err := iperf(ctx, paths[s], b.seconds+2)
		done <- outcome{report, err}
	}()
	time.Sleep(time.Second) // it is at full speed then
	rtts, lost, err := pings(ctx, b, s)
	o := <-done
	if err = errors.Join(err, o.err); err != nil {
		return reading{}, err
	}
	return reading{quantile(rtts, 0.99), map[string]float64{
		"p50": quantile(rtts, 0.5), "lost": lost, "gbps": o.report.End.SumReceived.BitsPerSecond / 1e9,
	}}, nil
}

// pings returns the round trip times of a run in microseconds, sorted.
func pings(ctx context.Context, b *bench, s side) (rtts []float64, lost float64, err error) {
	p := paths[s]
	count := int(time.Duration(b.seconds) * time.Second / pingInterval)
	out, err := output(ctx, customer, "ping", "-n", "-i", fmt.Sprint(pingInterval.Seconds()), "-c", strconv.Itoa(count),
		"-W", "1", "-I", p.from, p.to)
	rtts = parsePing(out)
	if len(rtts) == 0 {
		return nil, 0, fmt.Errorf("ping printed no round trip times: %w: %s", err, lastLine(out))
	}
	slices.Sort(rtts)
	return rtts, float64(count - len(rtts)), nil
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
