package dataplane

import (
	"math/bits"
	"sync/atomic"
	"time"

	"msee/dataplane/port"
)

// Policer holds one direction of a circuit's link to its bandwidth: a token
// bucket of octets of IP packets, single rate, two colours: what finds tokens
// passes, the rest is dropped. Any number of workers share it without a lock.
//
// The bucket is one number, the level below which the octets the rate has
// granted since the epoch are used up (the virtual scheduling of GCRA, ITU-T
// I.371, with octets for time). So a superframe takes its tokens at once and in
// full, and what has passed in the long run is the rate, exactly.
type Policer struct {
	rate  uint64 // octets per second
	burst int64  // octets
	used  atomic.Int64
	// over decides when it acts at all, if that is not always: it has to find
	// the traffic above its own, higher rate first.
	over     *Policer
	actUntil atomic.Int64 // time since the epoch, ns

	DroppedFrames, DroppedBytes atomic.Uint64
}

const (
	// burstTime is how much of the rate may come at once, beginning with an idle
	// link.
	burstTime = 10 * time.Millisecond
	// minBurst holds a few superframes: a slow circuit must not starve them.
	minBurst = 256 << 10
	// An ExpressRoute Direct circuit is throttled to its bandwidth once traffic
	// has exceeded that by a fifth, for about a second.
	directExcess = 5 // one part in
	directTime   = time.Second
)

// NewPolicer returns the policer of a provider's circuit, of mbps Mbit/s.
func NewPolicer(mbps int) *Policer { return newBucket(uint64(mbps)*1e6/8, burstTime, minBurst) }

// NewDirectPolicer returns the policer of an ExpressRoute Direct circuit of mbps
// Mbit/s (enableDirectPortRateLimit): it acts when traffic is more than 20 % above
// that, and until it has not been so for a second.
func NewDirectPolicer(mbps int) *Policer {
	p := NewPolicer(mbps)
	p.over = newBucket(p.rate+p.rate/directExcess, directTime, minBurst)
	return p
}

// newBucket returns a policer of rate octets per second, and of what that is in burst
// at once, but so many octets at the least.
func newBucket(rate uint64, burst time.Duration, atLeast int64) *Policer {
	p := &Policer{rate: rate}
	p.burst = max(int64(p.granted(burst)), atLeast)
	p.used.Store(-p.burst) // full at the epoch
	return p
}

// granted is how many octets the rate has granted by now.
func (p *Policer) granted(now time.Duration) uint64 {
	hi, lo := bits.Mul64(uint64(now), p.rate)
	octets, _ := bits.Div64(hi, lo, uint64(time.Second))
	return octets
}

// charge is what one packet costs, and whether it may pass; none is one that does
// not concern the policer.
type charge struct {
	octets int32
	drop   bool
}

// police decides about packets that come at now, in their order.
func (p *Policer) police(now time.Duration, charges []charge) {
	if p.over != nil && !p.acts(now, charges) {
		return
	}
	granted := int64(p.granted(now))
	for {
		old := p.used.Load()
		used := max(old, granted-p.burst)
		var frames, octets uint64
		for i := range charges {
			c := &charges[i]
			c.drop = c.octets > 0 && used+int64(c.octets) > granted
			if c.drop {
				frames, octets = frames+1, octets+uint64(c.octets)
			} else {
				used += int64(c.octets)
			}
		}
		if !p.used.CompareAndSwap(old, used) {
			continue // another worker was in between: decide anew
		}
		if frames > 0 {
			p.DroppedFrames.Add(frames)
			p.DroppedBytes.Add(octets)
		}
		return
	}
}

// acts reports whether the traffic, this included, has been too much of late.
func (p *Policer) acts(now time.Duration, charges []charge) bool {
	dropped := p.over.DroppedFrames.Load()
	p.over.police(now, charges)
	if p.over.DroppedFrames.Load() != dropped {
		p.actUntil.Store(int64(now + directTime))
	}
	for i := range charges {
		charges[i].drop = false
	}
	return int64(now) < p.actUntil.Load()
}

// Direction is one way through a customer's subinterface: the policer of its
// circuit's link, which the circuit's peerings share, and the peering's own meter.
// It is immutable.
type Direction struct {
	Policer *Policer // nil: no limit
	Meter   *Meter
}

// Meter counts what has passed, in IP packets as they are on the wire: a
// superframe counts as its segments.
type Meter struct{ Packets, Bytes atomic.Uint64 }

// police holds customers to their circuits' bandwidth and meters what passes,
// on the way in and on the way out. Packets to the kernel are settled by now, so
// a customer that sends too much does not lose its own BGP session; and so are those
// that went no further, for TTL or size, which take no tokens from those that do,
// nor are billed.
func (w *Worker) police(ps []packet) {
	if w.port.ingress {
		w.policeWay(ps, false)
	}
	if w.metersOut {
		w.policeWay(ps, true)
	}
}

// policeWay takes packets of one Direction together: one step of the policer and
// of the meter for a run of them.
func (w *Worker) policeWay(ps []packet, out bool) {
	var d *Direction
	first := 0
	for i := range ps {
		p := &ps[i]
		w.charges[i] = charge{}
		if p.verdict != proceed {
			continue
		}
		next := p.in.Ingress
		if out {
			next = p.out.Out.Egress
		}
		if next == nil {
			continue
		}
		if next != d {
			w.policeRun(ps, d, first, i)
			d, first = next, i
		}
		w.charges[i].octets = int32(p.End - p.l3)
		if p.VNet.GSOType != port.GSONone {
			w.charges[i].octets = superframeOctets(p)
		}
	}
	w.policeRun(ps, d, first, len(ps))
}

// policeRun settles the packets of one Direction among ps[from:to].
func (w *Worker) policeRun(ps []packet, d *Direction, from, to int) {
	if d == nil {
		return
	}
	run := w.charges[from:to]
	if d.Policer != nil {
		d.Policer.police(w.now, run)
	}
	var packets, octets uint64
	for i, c := range run {
		p := &ps[from+i]
		switch {
		case c.octets == 0:
		case c.drop:
			p.verdict = DropPoliced
		default:
			packets += segments(p)
			octets += uint64(c.octets)
		}
	}
	d.Meter.Packets.Add(packets)
	d.Meter.Bytes.Add(octets)
}
