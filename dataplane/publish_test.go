package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// TestPublishingUnderLoad sends through one VRF while a hundred tables are published, a
// hundred a second where the machine has the time, each with a hundred more routes of
// another VRF: not a frame is lost, and what each took on the way is told with and without.
func TestPublishingUnderLoad(t *testing.T) {
	e := NewEngine(testLog)
	options := func(a, b port.MAC) port.PairOptions {
		return port.PairOptions{MACs: [2]port.MAC{a, b}, Slots: 1024, MaxFrame: 1600}
	}
	far, customer := port.NewPair(options(ceMAC, mseeMAC))
	core, sink := port.NewPair(options(coreMAC, gwMAC))
	t.Cleanup(func() {
		e.Close()
		for _, p := range []port.Port{far, customer, core, sink} {
			p.Close()
		}
	})
	in := &Subinterface{Name: "cust", MTU: 1500, Counters: new(Counters)}
	out := &Subinterface{Name: "core", Port: 1, MTU: 1500, Counters: new(Counters)}
	neighbor := NewAdjacency("core", netip.MustParseAddr("10.100.255.12"))
	neighbor.Resolve(&Rewrite{Out: out, Header: vlan.NewHeader(gwMAC, coreMAC, vlan.TPIDQ, 0, 0)})
	group := &NextHopGroup{Members: []*Adjacency{neighbor}}
	quiet := fib.New[*NextHopGroup]().With([]fib.Change[*NextHopGroup]{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Value: group}})
	busy := fib.New[*NextHopGroup]()
	ports := []*Port{
		NewPort(0, "cust", customer, vlan.TPIDQ, new(PortCounters), []*Subinterface{in}, nil),
		NewPort(1, "core", core, vlan.TPIDQ, new(PortCounters), []*Subinterface{out}, nil),
	}
	for i, p := range ports {
		if err := e.AddPort(i, p.Port, AnyCPU); err != nil {
			t.Fatal(err)
		}
	}
	publish := func() { e.Publish(&Snapshot{Ports: ports, VRFs: []VRF{{"quiet", quiet}, {"busy", busy}}}) }
	publish()
	e.Sync()
	sender, err := far.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()

	// run sends until it is enough, a few frames at a time, and returns what they took.
	run := func(enough func(since time.Duration) bool) (taken []time.Duration) {
		b := frame(t, mseeMAC, nil, q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...)
		frames := make([]*port.Frame, 16)
		for i := range frames {
			frames[i] = &port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
		}
		batch := make([]port.Frame, port.BatchSize)
		for start := time.Now(); !enough(time.Since(start)); {
			began := time.Now()
			for i, f := range frames {
				binary.BigEndian.PutUint32(f.Buf[f.End-4:], uint32(i))
			}
			if n, err := sender.Send(frames); n != len(frames) || err != nil {
				t.Fatalf("sent %d frames: %v", n, err)
			}
			for got, since := 0, time.Now(); got < len(frames); {
				n, _ := sink.Recv(batch)
				sink.Release()
				if got += n; time.Since(since) > 5*time.Second {
					t.Fatalf("%d of %d frames came", got, len(frames))
				}
			}
			taken = append(taken, time.Since(began))
		}
		slices.Sort(taken)
		return taken
	}

	const every = 10 * time.Millisecond
	before := run(func(since time.Duration) bool { return since >= 500*time.Millisecond })
	stop := make(chan struct{})
	var published atomic.Int32
	var publisher sync.WaitGroup
	publisher.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			var changes []fib.Change[*NextHopGroup]
			for _, p := range randomRoutes(r, 100) {
				changes = append(changes, fib.Change[*NextHopGroup]{Prefix: p, Value: group})
			}
			busy = busy.With(changes)
			publish()
			published.Add(1)
		}
	})
	const wanted, patience = 100, time.Minute
	var took time.Duration
	during := run(func(since time.Duration) bool {
		took = since
		return published.Load() >= wanted || since >= patience
	})
	close(stop)
	publisher.Wait()
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
	t.Logf("%d publications in %v, %d routes; 16 frames took %v (p50), %v (p99) before, %v, %v meanwhile, of %d and %d",
		published.Load(), took.Round(time.Millisecond), busy.Len4(), before[len(before)/2], p99(before), during[len(during)/2], p99(during), len(before), len(during))
	if n := published.Load(); n < wanted {
		t.Errorf("%d publications in %v, want %d", n, took, wanted)
	}
	publish()
	e.Sync() // the worker has come round: the last frames arrived before they were counted
	c := ports[0].Counters
	if sent := uint64(16 * (len(before) + len(during))); c.RxFrames.Load() != sent || c.Verdicts[Transmit].Load() != sent {
		t.Errorf("%d frames sent, %d received, %d forwarded", sent, c.RxFrames.Load(), c.Verdicts[Transmit].Load())
	}
}
