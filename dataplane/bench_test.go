package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"msee/dataplane/fib"
	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// BenchmarkPipelineDot1Q10k is a worker's whole step over batches of 64-octet
// frames: received from a cable in memory with one tag, routed by a VRF of
// 10,000 routes to one of 4,096 random destinations, and sent with one tag on
// another cable, copies included. ns/frame leaves out filling the one cable and
// emptying the other.
func BenchmarkPipelineDot1Q10k(b *testing.B) { benchmarkPipeline(b, 1, false) }

// BenchmarkPipelineDot1Q10kPoliced is the same with a circuit's policer, which
// drops nothing, and a meter.
func BenchmarkPipelineDot1Q10kPoliced(b *testing.B) { benchmarkPipeline(b, 1, true) }

// benchmarkPipeline has routes with so many equal next hops.
func benchmarkPipeline(b *testing.B, nextHops int, policed bool) {
	const destinations = 4096
	r := rand.New(rand.NewPCG(10, 1))
	bench := newPipelineBench(b, r, 10_000, 1600)
	for i, g := range bench.groups {
		for n := range nextHops - 1 {
			g.Members = append(g.Members, bench.neighbor(byte(16*(n+1)+i)))
		}
	}
	meter := new(Meter)
	if policed {
		bench.customer.Ingress = &Direction{NewPolicer(100_000), meter}
		bench.worker.engine.Snapshot().Ports[0].sumUp()
	}
	addrs := make([]uint32, destinations)
	for i := range addrs {
		addrs[i] = bench.destination(r)
	}
	bench.run(b, addrs)
	if n := bench.worker.engine.Snapshot().Ports[0].Counters.RxFrames.Load(); policed && meter.Packets.Load() != n {
		b.Errorf("%d of %d frames are metered", meter.Packets.Load(), n)
	}
}

// run sends frames to addrs, over and over, through the worker.
func (bench *pipelineBench) run(b *testing.B, addrs []uint32) {
	frames := make([]*port.Frame, port.BatchSize)
	for i := range frames {
		frames[i] = bench.frame()
	}
	var stepping time.Duration
	var times batchTimes
	steps := 0
	b.ReportAllocs()
	for b.Loop() {
		for i, f := range frames {
			address(f, addrs[(steps*len(frames)+i)%len(addrs)])
		}
		if sent, err := bench.far.Send(frames); sent != len(frames) || err != nil {
			b.Fatalf("offered %d of %d frames: %v", sent, len(frames), err)
		}
		began := time.Now()
		bench.worker.step()
		took := time.Since(began)
		stepping += took
		times.add(took)
		if n, _ := bench.sink.Recv(bench.out); n != len(frames) {
			b.Fatalf("%d of %d frames arrived; verdicts %v", n, len(frames), bench.verdicts())
		}
		bench.sink.Release()
		steps++
	}
	b.ReportMetric(float64(stepping.Nanoseconds())/float64(steps*port.BatchSize), "ns/frame")
	b.ReportMetric(times.percentile(5), "p5-ns/frame")
	b.ReportMetric(times.percentile(50), "p50-ns/frame")
}

// batchTimes counts batches by what one of their frames took, in tenths of a
// nanosecond: the quick ones are those that nothing else on the machine has disturbed.
type batchTimes [10_000]int

func (t *batchTimes) add(batch time.Duration) {
	t[min(int(batch*10/port.BatchSize), len(t)-1)]++
}

// percentile is in ns per frame.
func (t *batchTimes) percentile(p int) float64 {
	all := 0
	for _, n := range t {
		all += n
	}
	below := 0
	for tenths, n := range t {
		if below += n; below*100 >= all*p {
			return float64(tenths) / 10
		}
	}
	return 0
}

// pipelineBench is a router between two cables.
type pipelineBench struct {
	routes []netip.Prefix
	worker *Worker
	far    port.Sender // into the customer's port
	sink   port.Port   // behind the core's
	out    []port.Frame

	customer, core *Subinterface
	groups         []*NextHopGroup // of the routes
}

// newPipelineBench has cables for frames of up to longest octets.
func newPipelineBench(b *testing.B, r *rand.Rand, routes, longest int) *pipelineBench {
	p := &pipelineBench{routes: randomRoutes(r, routes), out: make([]port.Frame, port.BatchSize)}
	ce, customer := port.NewPollPair(port.PairOptions{MACs: [2]port.MAC{ceMAC, mseeMAC}, MaxFrame: longest})
	core, gateway := port.NewPollPair(port.PairOptions{MACs: [2]port.MAC{coreMAC, gwMAC}, MaxFrame: longest})
	p.sink = gateway
	var err error
	if p.far, err = ce.NewSender(); err != nil {
		b.Fatal(err)
	}
	const tpid = 0x8100
	in := &Subinterface{Name: "cust.100", Outer: 100, MTU: 1500, Counters: new(Counters)}
	out := &Subinterface{Name: "core.200", Port: 1, Outer: 200, MTU: 1500, Counters: new(Counters)}
	p.customer, p.core = in, out
	p.groups = make([]*NextHopGroup, 16)
	for i := range p.groups {
		p.groups[i] = &NextHopGroup{Kind: Forward, Members: []*Adjacency{p.neighbor(byte(i))}}
	}
	var changes []fib.Change[*NextHopGroup]
	for i, prefix := range p.routes {
		changes = append(changes, fib.Change[*NextHopGroup]{Prefix: prefix, Value: p.groups[i%len(p.groups)]})
	}
	e := NewEngine(testLog)
	e.snap.Store(&Snapshot{
		Ports: []*Port{
			NewPort(0, "cust", customer, tpid, new(PortCounters), []*Subinterface{in}, nil),
			NewPort(1, "core", core, tpid, new(PortCounters), []*Subinterface{out}, nil),
		},
		VRFs: []VRF{{"a", fib.New[*NextHopGroup]().With(changes)}},
	})
	p.worker = testWorker(b, e, 0, customer)
	return p
}

// neighbor is one on the core.
func (p *pipelineBench) neighbor(n byte) *Adjacency {
	a := NewAdjacency(p.core.Name, netip.AddrFrom4([4]byte{10, 100, 255, n}))
	a.Resolve(&Rewrite{Out: p.core, Header: vlan.NewHeader(gwMAC, coreMAC, 0x8100, p.core.Outer, 0)})
	return a
}

// randomRoutes are of lengths as a customer's are: /24 more often than not.
func randomRoutes(r *rand.Rand, n int) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	routes := make([]netip.Prefix, 0, n)
	for len(routes) < n {
		bits := 24
		if r.IntN(10) < 4 {
			bits = 16 + r.IntN(13)
		}
		a := netip.AddrFrom4([4]byte{byte(1 + r.IntN(126)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
		if p := netip.PrefixFrom(a, bits).Masked(); !seen[p] {
			seen[p] = true
			routes = append(routes, p)
		}
	}
	return routes
}

// destination is somewhere within the routes.
func (p *pipelineBench) destination(r *rand.Rand) uint32 {
	route := p.routes[r.IntN(len(p.routes))]
	addr := route.Addr().As4()
	return binary.BigEndian.Uint32(addr[:]) | r.Uint32()&(1<<(32-route.Bits())-1)
}

// benchL3 is where IP begins in a frame.
const benchL3 = vlan.EthLen + vlan.TagLen

// frame makes one of 64 octets, without FCS, to nowhere.
func (p *pipelineBench) frame() *port.Frame {
	const length = 64
	f := &port.Frame{Buf: make([]byte, port.Headroom+length), Start: port.Headroom, End: port.Headroom + length}
	h := vlan.NewHeader(mseeMAC, ceMAC, 0x8100, 100, 0)
	h.Put(f.Buf, f.Start+benchL3, etherTypeIPv4)
	ip := f.Bytes()[benchL3:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{10, 1, 0, 10})
	binary.BigEndian.PutUint16(ip[22:], 9) // UDP, to discard
	binary.BigEndian.PutUint16(ip[24:], uint16(len(ip)-minIPv4))
	return f
}

// address sends a frame to dst.
func address(f *port.Frame, dst uint32) {
	ip := f.Bytes()[benchL3:]
	binary.BigEndian.PutUint32(ip[16:], dst)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^gso.Fold(gso.Sum(ip[:minIPv4], 0)))
}

// verdicts lists those that were given, for a message.
func (p *pipelineBench) verdicts() map[string]uint64 {
	out := map[string]uint64{}
	c := p.worker.engine.Snapshot().Ports[0].Counters
	for v := range c.Verdicts {
		if n := c.Verdicts[v].Load(); n > 0 {
			out[Verdict(v).String()] = n
		}
	}
	return out
}

// BenchmarkPipelineSteps tells what each step takes, in ns per frame, of the
// same work as BenchmarkPipelineDot1Q10k. Reading the clock between them adds
// some 0.5 ns to each.
func BenchmarkPipelineSteps(b *testing.B) {
	r := rand.New(rand.NewPCG(10, 1))
	bench := newPipelineBench(b, r, 10_000, 1600)
	w := bench.worker
	w.adopt(w.engine.Snapshot())
	addrs := make([]uint32, 4096)
	for i := range addrs {
		addrs[i] = bench.destination(r)
	}
	frames := make([]*port.Frame, port.BatchSize)
	for i := range frames {
		frames[i] = bench.frame()
	}
	var batch []port.Frame // of the vector
	steps := []struct {
		name string
		run  func([]packet)
	}{
		{"admit", func(ps []packet) { w.admit(ps, batch) }}, {"demux", func(ps []packet) { w.demux(ps) }}, {"local", w.local}, {"check", check},
		{"fastPath", func(ps []packet) { w.fastPath(ps) }}, {"lookup", w.lookup}, {"rewrite", func(ps []packet) { w.rewrite(ps) }}, {"police", w.police},
		{"enqueue", func(ps []packet) { w.enqueue(ps, false) }}, {"settle", w.settle},
	}
	spent := make([]time.Duration, len(steps))
	var receive, transmit time.Duration
	batches := 0
	for b.Loop() {
		for i, f := range frames {
			address(f, addrs[(batches*len(frames)+i)%len(addrs)])
		}
		bench.far.Send(frames)
		began := time.Now()
		n, _ := w.device.Recv(w.batch)
		receive += time.Since(began)
		for i := 0; i < n; i += vector {
			ps := w.packets[:vector]
			batch = w.batch[i : i+vector]
			last := time.Now()
			for s := range steps {
				steps[s].run(ps)
				now := time.Now()
				spent[s] += now.Sub(last)
				last = now
			}
		}
		began = time.Now()
		w.transmit()
		transmit += time.Since(began)
		w.device.Release()
		bench.sink.Recv(bench.out)
		bench.sink.Release()
		batches++
	}
	total := float64(batches * port.BatchSize)
	b.ReportMetric(float64(receive)/total, "receive")
	for s := range steps {
		b.ReportMetric(float64(spent[s])/total, steps[s].name)
	}
	b.ReportMetric(float64(transmit)/total, "transmit")
}
