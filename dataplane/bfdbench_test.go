package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"msee/bfd"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// BenchmarkFailoverTurn is the time from the moment that a neighbor's detection
// time is over to the first frame that leaves by another, for all of so many
// routes that led to it.
func BenchmarkFailoverTurn(b *testing.B) {
	for _, routes := range []int{100, 100_000} {
		b.Run(fmt.Sprint(routes), func(b *testing.B) { benchmarkTurn(b, routes) })
	}
}

func benchmarkTurn(b *testing.B, routes int) {
	t := newTurning(b, routes)
	var turned time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		t.peerSpeaks(b)
		if got := t.forward(b); got != 1 {
			b.Fatalf("left by port %d with the neighbor alive", got)
		}
		t.engine.epoch = t.engine.epoch.Add(-time.Minute) // silence
		b.StartTimer()
		began := time.Now()
		t.worker.serveBFD(0, false) // finds the detection time over; a late look extends it once
		t.worker.engine.epoch = t.engine.epoch.Add(-time.Second)
		t.worker.serveBFD(0, false)
		got := t.forward(b)
		turned += time.Since(began)
		if got != 2 {
			b.Fatalf("left by port %d with the neighbor dead", got)
		}
	}
	b.ReportMetric(float64(turned.Nanoseconds())/1000/float64(b.N), "µs/turn")
}

// turning is a router with a BFD session to one of two neighbors, to which all
// its routes lead.
type turning struct {
	engine  *Engine
	worker  *Worker
	in      *fakePort
	out     [2]*fakePort
	session *BFDSession
	cfg     bfd.Config
	far     *bfd.Session
	frame   []byte
}

func newTurning(b *testing.B, routes int) *turning {
	t := &turning{in: &fakePort{mac: mseeMAC}, out: [2]*fakePort{{mac: coreMAC}, {mac: coreMAC}}}
	sub := func(p int, addr string) *Subinterface {
		a := netip.MustParseAddr(addr)
		return &Subinterface{Name: fmt.Sprint("p", p), Port: p, MTU: 1500, Addr4: a, Subnet4: netip.PrefixFrom(a, 24).Masked(), Counters: new(Counters)}
	}
	subs := []*Subinterface{sub(0, "10.0.0.1"), sub(1, "10.0.1.1"), sub(2, "10.0.2.1")}
	member := func(p int, addr string) *Adjacency {
		a := NewAdjacency(subs[p].Name, netip.MustParseAddr(addr))
		a.Resolve(&Rewrite{Out: subs[p], Header: vlan.NewHeader(gwMAC, coreMAC, 0x8100, 0, 0)})
		return a
	}
	first, second := member(1, "10.0.1.2"), member(2, "10.0.2.2")
	group := &NextHopGroup{Kind: Forward, Members: []*Adjacency{first}, Backup: []*Adjacency{second}}
	changes := []fib.Change[*NextHopGroup]{{Prefix: netip.MustParsePrefix("10.0.1.1/32"), Value: &NextHopGroup{Kind: Local}}}
	for n := range routes {
		a := netip.AddrFrom4([4]byte{100, byte(n >> 16), byte(n >> 8), byte(n)})
		changes = append(changes, fib.Change[*NextHopGroup]{Prefix: netip.PrefixFrom(a, 32), Value: group})
	}
	t.engine = NewEngine(testLog)
	ports := []*Port{}
	for i, p := range []*fakePort{t.in, t.out[0], t.out[1]} {
		ports = append(ports, NewPort(i, "p", p, 0x8100, new(PortCounters), subs[i:i+1], nil))
	}
	t.engine.snap.Store(&Snapshot{Ports: ports, VRFs: []VRF{{Name: "v", FIB: fib.New[*NextHopGroup]().With(changes)}}})
	// One worker has all: its own port is the first neighbor's, whose session it
	// runs, and frames come in by that as well.
	t.worker = testWorker(b, t.engine, 1, t.out[0])
	t.worker.adopt(t.engine.snap.Load())
	t.cfg = bfdConfig
	t.session = NewBFDSession(BFDSession{Name: "turn", Interface: "p1", Local: subs[1].Addr4, Peer: first.Addr, Adjacency: first, Config: t.cfg})
	t.worker.bfd.set(t.worker, []*BFDSession{t.session})
	cfg := t.cfg
	cfg.MyDiscriminator = 0x2002
	t.far = bfd.New(cfg, 1, 0)
	ip := make([]byte, 60)
	putIPv4(ip, [4]byte{10, 0, 1, 9}, [4]byte{100, 0, 0, byte(routes / 2)}, 64, len(ip))
	t.frame = append(append(append([]byte{}, coreMAC[:]...), ceMAC[:]...), 8, 0)
	t.frame = append(t.frame, ip...)
	return t
}

// peerSpeaks brings the session up.
func (t *turning) peerSpeaks(b *testing.B) {
	for range 100 {
		now := t.worker.clock()
		t.worker.bfd.serve(t.worker, now, true)
		for _, f := range t.out[0].tx {
			payload := f.Bytes()[vlan.EthLen+minIPv4+udpLen:]
			if binary.BigEndian.Uint16(f.Bytes()[vlan.EthLen+minIPv4+2:]) == bfd.ControlPort {
				if p, r := bfd.Parse(payload); r == bfd.Accepted {
					t.far.Receive(now, &p)
				}
			}
		}
		t.out[0].tx = nil
		for m := t.far.Transmit(now, nil); len(m) > 0; m = t.far.Transmit(now, nil) {
			if p, r := bfd.Parse(m); r == bfd.Accepted {
				s := t.worker.bfd.sessions[0]
				s.machine.Receive(now, &p)
				t.worker.bfd.outcome(t.worker, s)
			}
		}
		if t.session.Report().State == bfd.Up {
			return
		}
		t.engine.epoch = t.engine.epoch.Add(-200 * time.Millisecond)
		t.far.Expire(t.worker.clock())
	}
	b.Fatalf("the session does not come up: %+v", t.session.Report())
}

// forward sends a frame through and returns the port that it left by.
func (t *turning) forward(b *testing.B) int {
	t.out[0].tx, t.out[1].tx = nil, nil
	f := port.Frame{Buf: append(make([]byte, port.Headroom), t.frame...), Start: port.Headroom}
	f.End = len(f.Buf)
	t.out[0].rx = append(t.out[0].rx, f)
	t.worker.step()
	for i, p := range t.out {
		for _, f := range p.tx {
			if f.Bytes()[vlan.EthLen+16] == 100 {
				return i + 1
			}
		}
	}
	b.Fatal("the frame did not leave")
	return 0
}
