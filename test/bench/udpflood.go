package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// udpFlood is small UDP frames from a sender that is faster than any router; the
// value is what arrives, in millions a second. The sender and what the kernel does
// for the router's device are on processor 0 for both sides, an MSEE's threads
// and a peer's on processor 1. The kernel forwards where it receives, on processor 0.
type udpFlood struct{ octets, flows int }

// floodWarmup is how long a flood runs before it is measured.
const floodWarmup = 500 * time.Millisecond

// floodWindow is what quick moments of the machine are told from slow ones by.
const floodWindow = 100 * time.Millisecond

func (u udpFlood) measure(ctx context.Context, b *bench, s side) (reading, error) {
	restore, err := b.bed.prepareFlood(ctx, vnet)
	if err != nil {
		return reading{}, err
	}
	defer restore()
	mpps, extra, err := u.delivered(ctx, b, s, 0)
	return reading{mpps, extra}, err
}

// overload is what arrives of twice as much as the router can carry, in % of its
// best. The best is the most that arrives of several offered rates, held evenly; of
// each it is the median of as many turns, as this machine is quicker in one second than
// in the next. Where a held rate falls short of twice, as the sender and the router's
// reception share a processor, it is what arrives of all that the sender can send.
func (u udpFlood) overload(ctx context.Context, b *bench, s side) (reading, error) {
	restore, err := b.bed.prepareFlood(ctx, vnet)
	if err != nil {
		return reading{}, err
	}
	defer restore()
	first, _, err := u.delivered(ctx, b, s, 0)
	if err != nil {
		return reading{}, err
	}
	const all, twice = 0, 3 // of:
	rates := [...]float64{0, first, 1.2 * first, 2 * first}
	var arrived, offered [len(rates)][]float64
	var extras [len(rates)]map[string]float64 // of the last turn
	for range overloadTurns {
		for i, rate := range rates {
			mpps, e, err := u.delivered(ctx, b, s, 1e6*rate)
			if err != nil {
				return reading{}, err
			}
			arrived[i], offered[i], extras[i] = append(arrived[i], mpps), append(offered[i], e["offeredMpps"]), e
		}
	}
	best, most := 0.0, twice
	for _, got := range arrived {
		best = max(best, median(got))
	}
	if short := 1.95 * best; median(offered[twice]) < short && median(offered[all]) > median(offered[twice]) {
		most = all
	}
	extra := extras[most]
	extra["bestMpps"], extra["floodedMpps"], extra["twiceMpps"] = best, median(arrived[all]), median(arrived[twice])
	extra["offeredMpps"], extra["timesOffered"] = median(offered[most]), median(offered[most])/best
	return reading{100 * median(arrived[most]) / best, extra}, nil
}

// overloadTurns is how often overload takes each rate.
const overloadTurns = 3

// delivered floods with so many frames a second, 0 for all it can, and returns
// how many millions a second reach the VNet's device.
func (u udpFlood) delivered(ctx context.Context, b *bench, s side, perSecond float64) (mpps float64, extra map[string]float64, err error) {
	f, err := b.bed.flood(s, u)
	if err != nil {
		return 0, nil, err
	}
	f.perSecond = perSecond
	sender, err := f.start(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, sender.end()) }()
	pause(ctx, floodWarmup)
	m, err := b.bed.watch(false)
	if err != nil {
		return 0, nil, err
	}
	before, err := sender.count()
	if err != nil {
		return 0, nil, err
	}
	after, rates := before, []float64(nil)
	for end := before.at.Add(time.Duration(b.seconds) * time.Second); after.at.Before(end) && ctx.Err() == nil; {
		pause(ctx, floodWindow)
		was := after
		if after, err = sender.count(); err != nil {
			return 0, nil, err
		}
		rates = append(rates, float64(after.arrived-was.arrived)/after.at.Sub(was.at).Seconds()/1e6)
	}
	if extra, err = m.done(); err != nil {
		return 0, nil, err
	}
	took := after.at.Sub(before.at).Seconds()
	sent, arrived := float64(after.sent-before.sent), float64(after.arrived-before.arrived)
	if arrived == 0 {
		return 0, nil, errors.Join(ctx.Err(), fmt.Errorf("none of the %g frames sent arrived", sent))
	}
	slices.Sort(rates)
	extra["p95Mpps"] = quantile(rates, 0.95)
	extra["offeredMpps"], extra["lostPercent"] = sent/took/1e6, 100*(1-arrived/sent)
	return arrived / took / 1e6, extra, ctx.Err()
}

// floodCount is how far a flood is.
type floodCount struct {
	at            time.Time
	sent, arrived uint64 // by the customer's device, at the VNet's
}

func (s *sending) count() (c floodCount, err error) {
	c.at = time.Now()
	if c.sent, err = s.offered(); err != nil {
		return c, err
	}
	c.arrived, _, err = linkReceived(vnet, "eth1")
	return c, err
}

// pause returns after d, or when the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// steadyWindow is what the sender's evenness is told by.
const steadyWindow = 10 * time.Millisecond

// steady shows that the sender is even: nothing forwards, the router's device
// drops, and its counter is read every 10 ms. The value is what the slow windows
// (5th percentile) had, in % of the median one, at full speed or at half of it held,
// whichever is worse.
func (u udpFlood) steady(ctx context.Context, b *bench, _ side) (reading, error) {
	restore, err := b.bed.prepareFlood(ctx, router)
	if err != nil {
		return reading{}, err
	}
	defer restore()
	full, err := u.windows(ctx, b, 0)
	if err != nil {
		return reading{}, err
	}
	half, err := u.windows(ctx, b, quantile(full, 0.5)/2)
	if err != nil {
		return reading{}, err
	}
	share := func(rates []float64, q float64) float64 {
		return 100 * quantile(rates, q) / max(1, quantile(rates, 0.5))
	}
	return reading{min(share(full, 0.05), share(half, 0.05)), map[string]float64{
		"fullMpps": quantile(full, 0.5) / 1e6, "fullP1Percent": share(full, 0.01), "fullP5Percent": share(full, 0.05), "fullP95Percent": share(full, 0.95),
		"halfMpps": quantile(half, 0.5) / 1e6, "halfP1Percent": share(half, 0.01), "halfP5Percent": share(half, 0.05), "halfP95Percent": share(half, 0.95),
		"windows": float64(len(full) + len(half)),
	}}, ctx.Err()
}

// windows returns the frames a second that reach the router's device, of windows
// of 10 ms each, sorted.
func (u udpFlood) windows(ctx context.Context, b *bench, perSecond float64) (rates []float64, err error) {
	f, err := b.bed.flood(baseline, u)
	if err != nil {
		return nil, err
	}
	f.perSecond = perSecond
	sender, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sender.end()) }()
	pause(ctx, floodWarmup)
	end := time.Now().Add(time.Duration(b.seconds) * time.Second)
	at := time.Now()
	before, _, err := linkReceived(router, "eth1")
	for err == nil && at.Before(end) && ctx.Err() == nil {
		time.Sleep(time.Until(at.Add(steadyWindow)))
		now := time.Now()
		var after uint64
		after, _, err = linkReceived(router, "eth1")
		rates = append(rates, float64(after-before)/now.Sub(at).Seconds())
		at, before = now, after
	}
	slices.Sort(rates)
	if err == nil && (len(rates) == 0 || rates[len(rates)-1] == 0) {
		err = errors.New("nothing of the flood arrived")
	}
	return rates, err
}

// prepareFlood makes the bed ready for a flood: the sink's device drops it, and
// the router's takes frames in its own time (NAPI), which the sender needs and
// any device with an XDP program has anyway.
func (d *bed) prepareFlood(ctx context.Context, sinkNode string) (restore func(), err error) {
	sink, err := atIngress(sinkNode, "eth1", dropFlood())
	if err != nil {
		return nil, err
	}
	if out, err := output(ctx, router, "ethtool", "-K", "eth1", "gro", "on"); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, lastLine(out)), sink.Close())
	}
	return func() {
		sink.Close()
		output(context.WithoutCancel(ctx), router, "ethtool", "-K", "eth1", "gro", "off")
	}, nil
}

// flood returns the sender of a side.
func (d *bed) flood(s side, u udpFlood) (f flood, err error) {
	p := paths[s]
	f = flood{node: customer, device: "eth1", octets: u.octets, flows: u.flows,
		from: netip.MustParseAddr(p.from), dst: netip.MustParseAddr(p.to)}
	if s == subject {
		f.ctag = benchVLAN
	}
	f.to, err = macOf(router, "eth1")
	return f, err
}
