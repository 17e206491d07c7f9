package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tcp is iperf3 over TCP from the customer to the VNet, or back.
type tcp struct {
	flows   int
	reverse bool
}

func (t tcp) measure(ctx context.Context, b *bench, s side) (reading, error) {
	args := []string{"-P", strconv.Itoa(t.flows)}
	if t.reverse {
		args = append(args, "-R")
	}
	m, err := b.bed.watch(t.reverse)
	if err != nil {
		return reading{}, err
	}
	report, err := iperf(ctx, b.bed.path(s), b.seconds, args...)
	if err != nil {
		return reading{}, err
	}
	extra, err := m.done()
	if err != nil {
		return reading{}, err
	}
	extra["retransmits"] = report.End.SumSent.Retransmits
	if perCore, ok := extra["gbpsPerRouterCore"]; ok {
		bound := copyBound(copyNear)
		extra["copyBoundGbps"], extra["copyBoundPercent"] = bound, 100*perCore/bound
		extra["copyColdGbps"] = copyBound(copyCold)
	}
	return reading{report.End.SumReceived.BitsPerSecond / 1e9, extra}, nil
}

// udp is iperf3 over UDP as fast as it can send; the value is what arrives.
// The sender is slower than the router may be: see docs/performance.md.
type udp struct{ octets int }

func (u udp) measure(ctx context.Context, b *bench, s side) (reading, error) {
	m, err := b.bed.watch(false)
	if err != nil {
		return reading{}, err
	}
	before, _, err := linkReceived(vnet, "eth1")
	if err != nil {
		return reading{}, err
	}
	report, err := iperf(ctx, paths[s], b.seconds, "-u", "-b", "0", "-l", strconv.Itoa(u.octets))
	if err != nil {
		return reading{}, err
	}
	after, _, err := linkReceived(vnet, "eth1")
	if err != nil {
		return reading{}, err
	}
	extra, err := m.done()
	if err != nil {
		return reading{}, err
	}
	// iperf3 reports what its receiver read; the receiver may be the slowest.
	extra["offeredMpps"] = report.End.Sum.Packets / report.End.Sum.Seconds / 1e6
	extra["lostAtReceiverPercent"] = report.End.Sum.LostPercent
	return reading{float64(after-before) / report.End.Sum.Seconds / 1e6, extra}, nil
}

// meter explains a run: what the router saw and what it took.
type meter struct {
	bed            *bed
	reverse        bool
	pid            int // of the router; 0 for the kernel, whose time is everybody's
	cpu            cpuUse
	router         time.Duration
	frames, octets uint64
	drops          uint64
	rss            float64 // of the router's processes, MB
}

// watch begins to measure.
func (d *bed) watch(reverse bool) (*meter, error) {
	m := &meter{bed: d, reverse: reverse}
	var err error
	if m.pid, err = d.routerPID(); err != nil {
		return nil, err
	}
	return m, m.read()
}

func (m *meter) read() (err error) {
	if m.frames, m.octets, err = m.bed.ingress(m.reverse); err != nil {
		return err
	}
	if m.cpu, err = takeCPU(); err != nil || m.pid == 0 {
		return err
	}
	if m.bed.router.isMSEE() {
		if m.drops, err = m.bed.drops(); err != nil {
			return err
		}
	}
	procs, err := readProcesses()
	if err != nil {
		return err
	}
	m.rss = rssOf(slices.Collect(maps.Keys(descendants(procs, m.pid))))
	m.router, err = processCPU(m.pid)
	return err
}

// done returns the differences.
func (m *meter) done() (map[string]float64, error) {
	before := *m
	if err := m.read(); err != nil {
		return nil, err
	}
	frames, octets := float64(m.frames-before.frames), float64(m.octets-before.octets)
	extra := map[string]float64{"busyCores": before.cpu.busyUntil(m.cpu)}
	all := max(0, m.cpu.busy-before.cpu.busy-(m.cpu.foreign-before.cpu.foreign))
	per := func(seconds float64, who string) {
		if frames > 0 {
			extra[who+"PerGbit"], extra[who+"PerMframe"] = seconds/(octets*8/1e9), seconds/(frames/1e6)
		}
	}
	per(all, "cpuSeconds")
	if frames > 0 {
		extra["meanFrameOctets"] = octets / frames
	}
	if m.pid == 0 {
		return extra, nil
	}
	seconds := (m.router - before.router).Seconds()
	extra["routerCPUSeconds"], extra["rssMB"] = seconds, m.rss
	per(seconds, "routerCPUSeconds")
	if m.bed.router.isMSEE() {
		extra["routerDrops"] = float64(m.drops - before.drops)
	}
	if seconds > 0 {
		extra["gbpsPerRouterCore"] = octets * 8 / 1e9 / seconds
	}
	return extra, nil
}

// iperfReport is what we read of iperf3's report.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		SumSent struct {
			Retransmits float64 `json:"retransmits"`
		} `json:"sum_sent"`
		Congestion  string `json:"sender_tcp_congestion"` // TCP
		SumReceived struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct { // UDP
			Packets     float64 `json:"packets"`
			Seconds     float64 `json:"seconds"`
			LostPercent float64 `json:"lost_percent"`
		} `json:"sum"`
	} `json:"end"`
}

// errRefused says that nobody listens.
var errRefused = errors.New("connection refused")

// parseIperf reads a report, or iperf3's own error.
func parseIperf(out []byte) (*iperfReport, error) {
	r := &iperfReport{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("read iperf3 report: %w: %.200q", err, out)
	}
	switch {
	case strings.Contains(r.Error, "refused"):
		return nil, errRefused
	case r.End.Congestion != "" && r.End.Congestion != congestionControl:
		return nil, fmt.Errorf("iperf3: TCP with %s, want %s", r.End.Congestion, congestionControl)
	case r.Error != "":
		return nil, fmt.Errorf("iperf3: %s", r.Error)
	case r.End.SumReceived.BitsPerSecond <= 0 && r.End.Sum.Packets <= 0:
		return nil, errors.New("iperf3: nothing arrived")
	}
	return r, nil
}
