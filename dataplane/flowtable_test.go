package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFlowTableLimit: exactly so many flows, of any limit; the same ones again are no
// new ones; and what is idle makes room.
func TestFlowTableLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	for _, limit := range []int{1, 2, 31, 1000, 20_000} {
		table := newFlowTable(limit, 4*time.Minute)
		hashes := make([]uint64, limit)
		for i := range hashes {
			hashes[i] = r.Uint64()
			if !table.take(hashes[i], time.Second) {
				t.Fatalf("limit %d: flow %d finds no room", limit, i)
			}
		}
		extra := r.Uint64()
		if table.take(extra, time.Second) {
			t.Errorf("limit %d: one more finds room", limit)
		}
		for _, h := range hashes[limit/2:] {
			if !table.take(h, 200*time.Second) {
				t.Fatalf("limit %d: a flow is not known again", limit)
			}
		}
		table.sweep(241 * time.Second)
		if got := table.used.Load(); got != int64(limit) {
			t.Errorf("limit %d: %d flows after a sweep at the timeout", limit, got)
		}
		table.sweep(242 * time.Second)
		if got, want := int(table.used.Load()), limit-limit/2; got != want {
			t.Errorf("limit %d: %d flows after a sweep beyond it, want %d", limit, got, want)
		}
		if limit > 1 && !table.take(extra, 242*time.Second) {
			t.Errorf("limit %d: no room for one more after the sweep", limit)
		}
		table.sweep(time.Hour)
		if got := table.used.Load(); got != 0 {
			t.Errorf("limit %d: %d flows are left", limit, got)
		}
	}
}

// TestFlowTableOverTheClock: the second that a flow was last seen is kept modulo
// 2^16.
func TestFlowTableOverTheClock(t *testing.T) {
	table := newFlowTable(10, time.Minute)
	table.take(1<<40, 65_530*time.Second)
	if table.sweep(65_540 * time.Second); table.used.Load() != 1 {
		t.Error("a flow is gone ten seconds after it was seen")
	}
	if table.sweep(65_600 * time.Second); table.used.Load() != 0 {
		t.Error("a flow is there 70 seconds after it was seen")
	}
}

// TestFlowTableIsShared: workers that take new and known flows while others sweep
// count no flow that is not there.
func TestFlowTableIsShared(t *testing.T) {
	const limit, workers, rounds = 500, 4, 3_000
	table := newFlowTable(limit, 2*time.Second)
	var clock atomic.Int64
	var over atomic.Bool
	var wait sync.WaitGroup
	for n := range workers {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 2))
			for i := range rounds {
				now := time.Duration(clock.Add(int64(time.Millisecond)))
				table.take(mix(r.Uint64N(2*limit), 9), now)
				if i%500 == 0 {
					table.sweep(now)
				}
				words := 0
				if i%1000 == 0 {
					for l := range table.lines {
						for k := range table.lines[l] {
							if table.lines[l][k].Load() != 0 {
								words++
							}
						}
					}
				}
				// What is counted comes before what is entered, and goes after it.
				over.Store(over.Load() || words > limit+workers)
			}
		})
	}
	wait.Wait()
	if over.Load() {
		t.Error("there were more flows than the limit")
	}
	table.sweep(time.Duration(clock.Load()) + time.Hour/2)
	if got := table.used.Load(); got != 0 {
		t.Errorf("%d flows are counted in an empty table", got)
	}
}

// TestFlowIDSalt: no address makes the salt, or the other addresses, void. With these
// in one place a factor of mix is 0 if it is not salted.
func TestFlowIDSalt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for _, at := range []int{8, 16, 24, 32} {
		seen := map[uint64]bool{}
		for n := range uint64(1000) {
			p := make([]byte, minIPv6+8)
			p[0], p[6] = 6<<4, protoUDP
			for i := 8; i < 40; i += 8 {
				binary.LittleEndian.PutUint64(p[i:], 1)
			}
			other := 8 + (at - 8) ^ 8 // the other half of the same address
			binary.LittleEndian.PutUint64(p[other:], n/2)
			for _, null := range []uint64{0xe7037ed1a0b428db, 0x9e3779b97f4a7c15} {
				binary.LittleEndian.PutUint64(p[at:], null)
				seen[flowID(p, true, [2]uint64{r.Uint64(), r.Uint64()})] = true
			}
		}
		if len(seen) != 2000 {
			t.Errorf("octet %d: 2000 flows, each with a salt of its own, have %d hashes", at, len(seen))
		}
	}
}

func BenchmarkFlowTable(b *testing.B) {
	const flows = 500_000
	table := newFlowTable(flows, 4*time.Minute)
	r := rand.New(rand.NewPCG(1, 1))
	hashes := make([]uint64, flows)
	for i := range hashes {
		hashes[i] = r.Uint64()
		table.take(hashes[i], 0)
	}
	r.Shuffle(flows, func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
	i := 0
	for b.Loop() {
		if !table.take(hashes[i], 0) {
			b.Fatal("no room")
		}
		if i++; i == flows {
			i = 0
		}
	}
}
