package dataplane

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"msee/dataplane/port"
)

// policerRun is how long each rate is measured at least, in the time that the load
// makes pass, and policerBatches how many batches are offered.
const (
	policerRun     = 100 * time.Millisecond
	policerBatches = 10_000
)

// BenchmarkPolicerError offers a worker twice a circuit's bandwidth and tells by
// how much what passes differs from it, at worst, in percent: TCP superframes
// and small UDP, 50 Mbit/s to 10 Gbit/s. The load sets the clock, as no sender here
// is fast enough for small frames at the highest rates, nor undisturbed for long.
// It counts from one frame that passes to another, so that the length of a frame
// is no error.
func BenchmarkPolicerError(b *testing.B) {
	worst := 0.0
	for b.Loop() {
		for name, octets := range map[string]int{"superframes": 60_052, "UDP": 46} {
			for _, mbps := range []int{50, 200, 1000, 5000, 10_000} {
				e := policerError(b, octets, mbps)
				b.Logf("%s at %d Mbit/s: %+.3f %%", name, mbps, e)
				worst = max(worst, math.Abs(e))
			}
		}
	}
	b.ReportMetric(worst, "percent")
}

// policerError measures one rate.
func policerError(b *testing.B, octets, mbps int) float64 {
	r := rand.New(rand.NewPCG(10, 1))
	bench := newPipelineBench(b, r, 100, 1600)
	meter := new(Meter)
	bench.customer.Ingress = &Direction{NewPolicer(mbps), meter}
	bench.worker.engine.Snapshot().Ports[0].sumUp()
	w := bench.worker
	w.adopt(w.engine.Snapshot())
	template := bench.sized(octets)
	address(template, binary.BigEndian.Uint32(bench.routes[0].Addr().AsSlice()))
	frames := make([]port.Frame, max(1, min(vector, 60_000/octets)))
	// The clock's step is what the frames last at the rate, taken twice as fast
	// on average.
	each := float64(octets)
	if template.VNet.GSOType != port.GSONone {
		each += float64((octets-52+1447)/1448-1) * 52 // the segments' own headers
	}
	step := float64(len(frames)) * each * 8 / (2 * float64(mbps) * 1e6) * 1e9
	var first, last struct {
		octets uint64
		at     time.Duration
	}
	const warm = policerRun / 2 // a full bucket goes before the clock starts
	run := max(policerRun, time.Duration(policerBatches*step))
	for w.now < warm+run {
		w.now += time.Duration(step * 2 * r.Float64())
		for k := range frames {
			frames[k] = *template
		}
		headers := append([]byte(nil), template.Buf[:template.Start+benchL3+minIPv4]...)
		w.forward(frames)
		copy(template.Buf, headers)
		w.queues[0].frames, w.queues[1].frames = w.queues[0].frames[:0], w.queues[1].frames[:0]
		if n := meter.Bytes.Load(); n != last.octets {
			last.octets, last.at = n, w.now
			if first.octets == 0 && w.now > warm {
				first = last
			}
		}
	}
	passed := float64(last.octets-first.octets) * 8 / (last.at - first.at).Seconds()
	return 100 * (passed/(float64(mbps)*1e6) - 1)
}

// sized makes a frame to nowhere with an IP packet of that many octets: of more
// than an MTU, a TCP superframe.
func (p *pipelineBench) sized(octets int) *port.Frame {
	f := p.frame()
	f.Buf = append(f.Buf[:f.Start+benchL3+minIPv4], make([]byte, octets-minIPv4)...)
	f.End = len(f.Buf)
	ip := f.Bytes()[benchL3:]
	binary.BigEndian.PutUint16(ip[2:], uint16(octets))
	if octets > p.customer.MTU {
		ip[9], ip[minIPv4+12] = protoTCP, 8<<4 // a header of 32 octets
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1448,
			CsumStart: benchL3 + minIPv4, CsumOffset: 16}
	}
	return f
}
