package dataplane

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"msee/dataplane/port"
)

// Gateway is what an instance of a VNet's gateway passes from on-premises into the
// VNet: so much and no more, and no fragments. It hangs on the subinterfaces that
// the MSEEs are behind. Any number of workers share it without a lock.
type Gateway struct {
	limits  GatewayLimits
	packets *Policer // of packets for octets
	octets  *Policer
	flows   *flowTable
	*GatewayCounters
}

// GatewayLimits are what a Gateway passes.
type GatewayLimits struct {
	MTU              int // of IP packets, octets
	Mbps             int
	PacketsPerSecond int
	Flows            int
	FlowIdle         time.Duration // how long a flow without packets counts; less than an hour
}

// GatewayCounters are what has found room, and what has not, in packets and by why. A
// superframe counts as its segments.
type GatewayCounters struct {
	Passed  Meter
	Dropped [gatewayDrops]atomic.Uint64
}

// Places in GatewayCounters.Dropped.
const (
	GatewayDropFragment = iota
	GatewayDropTooBig
	GatewayDropFlows
	GatewayDropPackets
	GatewayDropBandwidth
	gatewayDrops
)

var gatewayVerdicts = [gatewayDrops]Verdict{
	DropGatewayFragment, DropTooBig, DropGatewayFlows, DropGatewayPPS, DropGatewayMbps,
}

// gatewayBurst is how much of what a gateway passes may come at once, beginning with an
// idle one. It stands for the queues that a gateway has: TCP that is held back for want
// of them, by a bucket of a few superframes, would show less than the SKU's bandwidth.
const gatewayBurst = 100 * time.Millisecond

// minPacketBurst is how many packets may come at once at the least: a superframe has
// some fifty.
const minPacketBurst = 512

// NewGateway returns a gateway that passes so much. It goes on with the counters of the
// one before, if that is not nil, and with its flows unless their limits have changed:
// if so, all flows are new.
func NewGateway(l GatewayLimits, before *Gateway) *Gateway {
	g := &Gateway{limits: l, packets: newBucket(uint64(l.PacketsPerSecond), gatewayBurst, minPacketBurst),
		octets: newBucket(uint64(l.Mbps)*1e6/8, gatewayBurst, minBurst)}
	if before == nil {
		g.GatewayCounters = new(GatewayCounters)
	} else {
		g.GatewayCounters = before.GatewayCounters
	}
	if before != nil && before.limits.Flows == l.Flows && before.limits.FlowIdle == l.FlowIdle {
		g.flows = before.flows
	} else {
		g.flows = newFlowTable(l.Flows, l.FlowIdle)
	}
	return g
}

// Flows is how many flows it has.
func (g *Gateway) Flows() int { return int(g.flows.used.Load()) }

// Sweep forgets idle flows. It is the control side's, every few seconds; now is
// Engine.Now.
func (g *Gateway) Sweep(now time.Duration) { g.flows.sweep(now) }

// gateway drops what is more than the gateway passes, in this order: fragments, what
// is too long, what is of one flow too many, of packets, of octets. A flow that is
// there stays for as long as it has packets, dropped ones too. What is dropped for its
// octets has been counted against the packets.
//
// A packet that the kernel is to find the neighbor for is none of these: puntGlean lets
// far fewer pass.
func (w *Worker) gateway(ps []packet) {
	var g *Gateway
	first := 0
	for i := range ps {
		p := &ps[i]
		w.charges[i] = charge{}
		if p.verdict != proceed || p.in.Gateway == nil {
			continue
		}
		if p.in.Gateway != g {
			w.gatewayRun(ps, g, first, i)
			g, first = p.in.Gateway, i
		}
		n, ok := g.admit(p)
		switch {
		case !ok || ttl(p.ip(), p.v6) <= 1 || p.v6 && linkLocal(p.ip()[8:]): // rewrite drops it
		case p.verdict != proceed:
		case g.flows.take(flowID(p.ip(), p.v6, g.flows.salt), w.now):
			w.charges[i].octets = int32(n)
		default:
			p.verdict = g.drop(GatewayDropFlows, n)
		}
	}
	w.gatewayRun(ps, g, first, len(ps))
}

// admit settles what no gateway passes, whatever room there is, and returns how many
// packets the frame is; false if it is a superframe that cannot be one.
func (g *Gateway) admit(p *packet) (packets int, ok bool) {
	packets, longest := 1, p.End-p.l3
	if p.VNet.GSOType != port.GSONone {
		headers, ok := superframeHeaders(p)
		if !ok {
			return 0, false
		}
		_, packets = superframeShape(p)
		longest = min(longest, headers+int(p.VNet.GSOSize))
	}
	switch {
	case isFragment(p):
		p.verdict = g.drop(GatewayDropFragment, packets)
	case longest > g.limits.MTU:
		p.verdict = g.drop(GatewayDropTooBig, packets)
	}
	return packets, true
}

// gatewayGlean is puntGlean at a gateway. It has no need of the rates: the kernel gets
// far fewer.
func (w *Worker) gatewayGlean(p *packet, out *Subinterface) Verdict {
	g := p.in.Gateway
	n, ok := g.admit(p)
	if p.verdict != proceed {
		return p.verdict
	}
	octets := uint64(p.End - p.l3)
	if ok && p.VNet.GSOType != port.GSONone {
		octets = uint64(superframeOctets(p))
	}
	v := w.puntGlean(p, out)
	if v == PuntGlean {
		g.Passed.Packets.Add(uint64(n))
		g.Passed.Bytes.Add(octets)
	}
	return v
}

// isFragment reports whether the packet is a piece of another. One that has IPv6's
// header for that but is whole (RFC 6946) counts as one.
func isFragment(p *packet) bool {
	if p.v6 {
		_, _, whole := upperLayer6(p.ip())
		return !whole
	}
	return binary.BigEndian.Uint16(p.Buf[p.l3+6:])&(flagMF|fragmentOffset) != 0
}

func (g *Gateway) drop(why, packets int) Verdict {
	g.Dropped[why].Add(uint64(packets))
	return gatewayVerdicts[why]
}

// gatewayRun polices those of one gateway among ps[from:to]; their charges are
// packets.
func (w *Worker) gatewayRun(ps []packet, g *Gateway, from, to int) {
	if g == nil {
		return
	}
	run := w.charges[from:to]
	g.packets.police(w.now, run)
	var packets, octets uint64
	for i := range run {
		c, p := &run[i], &ps[from+i]
		switch {
		case c.octets == 0:
		case c.drop:
			p.verdict = g.drop(GatewayDropPackets, int(c.octets))
			*c = charge{}
		case p.VNet.GSOType != port.GSONone:
			c.octets = superframeOctets(p)
		default:
			c.octets = int32(p.End - p.l3)
		}
	}
	g.octets.police(w.now, run)
	for i, c := range run {
		p := &ps[from+i]
		switch {
		case c.octets == 0:
		case c.drop:
			p.verdict = g.drop(GatewayDropBandwidth, int(segments(p)))
		default:
			packets += segments(p)
			octets += uint64(c.octets)
		}
	}
	g.Passed.Packets.Add(packets)
	g.Passed.Bytes.Add(octets)
}
