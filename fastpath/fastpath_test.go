package fastpath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

type dest struct {
	vrf  VRF
	addr netip.Addr
}

// anAddr makes one of few addresses, so that tests meet the same one often.
func anAddr(r *rand.Rand, few uint32) netip.Addr {
	n := r.Uint32N(few)
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 7: byte(n), 14: byte(n >> 8), 15: byte(n)})
}

// TestAgainstMap: after any sequence of changes, the table holds what a map
// holds, in all VRFs.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		var table Table
		golden := map[dest]Value{}
		for range 30_000 {
			d := dest{VRF(r.IntN(3)), anAddr(r, 2000)}
			if r.IntN(3) == 0 {
				table.Delete(d.vrf, d.addr)
				delete(golden, d)
			} else {
				v := Value(1 + r.Uint64N(1000))
				table.Set(d.vrf, d.addr, v)
				golden[d] = v
			}
		}
		if table.Len() != len(golden) {
			t.Errorf("seed %d: %d destinations, want %d", seed, table.Len(), len(golden))
		}
		for range 20_000 {
			d := dest{VRF(r.IntN(4)), anAddr(r, 2200)}
			got, ok := table.Lookup(d.vrf, d.addr)
			if d.addr.Is4() {
				n := uint32(low(d.addr))
				view := table.View4(d.vrf)
				if v := view.Find(view.Near(n), n); v != got {
					t.Fatalf("seed %d: %v in two steps leads to %d, in one to %d", seed, d, v, got)
				}
			}
			if want, wantOK := golden[d]; got != want || ok != wantOK {
				t.Fatalf("seed %d: %v leads to %d, %v; want %d, %v", seed, d, got, ok, want, wantOK)
			}
		}
	}
}

// TestEdges: the zero VRF, addresses of all zeros and all ones, and IPv4 beside
// its mapped form are all different destinations.
func TestEdges(t *testing.T) {
	var table Table
	all := []dest{}
	for _, vrf := range []VRF{0, 1, 1<<31 - 1} {
		for _, a := range []string{"0.0.0.0", "255.255.255.255", "::", "::ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
			all = append(all, dest{vrf, netip.MustParseAddr(a)})
		}
	}
	for i, d := range all {
		if _, ok := table.Lookup(d.vrf, d.addr); ok {
			t.Errorf("%v is there before it is set", d)
		}
		table.Set(d.vrf, d.addr, Value(i+1))
	}
	for i, d := range all {
		if v, _ := table.Lookup(d.vrf, d.addr); v != Value(i+1) {
			t.Errorf("%v leads to %d, want %d", d, v, i+1)
		}
	}
}

// TestChurn: deleting as much as is added for ever does not make the table grow.
func TestChurn(t *testing.T) {
	var table Table
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 200_000 {
		table.Set(1, addr(i), 1)
		if i >= 1000 {
			table.Delete(1, addr(i-1000))
		}
	}
	if table.Len() != 1000 || table.Memory() > 1000*100 {
		t.Errorf("%d destinations in %d octets", table.Len(), table.Memory())
	}
}

// TestReadersUnderChange: whatever the writer does, a reader gets a value that
// belongs to the destination it asked for, and one that stays is always there.
func TestReadersUnderChange(t *testing.T) {
	const stays = 100
	var table Table
	value := func(vrf VRF, a netip.Addr, version uint64) Value {
		return Value(newKey6(vrf, a)[2]<<32>>32<<16 | uint64(vrf)<<8&0xff00 | version%255 + 1)
	}
	addr := func(i uint32, v6 bool) netip.Addr {
		if v6 {
			return netip.AddrFrom16([16]byte{0: 0x20, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		}
		return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for i := range uint32(stays) {
		table.Set(1, addr(i, i%2 == 0), value(1, addr(i, i%2 == 0), 0))
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for g := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 3))
			for !done.Load() {
				i := r.Uint32N(3000)
				vrf := VRF(1 + r.IntN(2))
				a := addr(i, i%2 == 0)
				v, ok := table.Lookup(vrf, a)
				if ok && v&^0xff != value(vrf, a, 0)&^0xff {
					t.Errorf("%v in VRF %d leads to %x", a, vrf, v)
					return
				}
				if !ok && vrf == 1 && i < stays {
					t.Errorf("%v, which stays, was not found", a)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 3))
	for n := range uint64(40_000) {
		i, vrf := r.Uint32N(3000), VRF(1+r.IntN(2))
		a := addr(i, i%2 == 0)
		if r.IntN(3) == 0 && !(vrf == 1 && i < stays) {
			table.Delete(vrf, a)
		} else {
			table.Set(vrf, a, value(vrf, a, n))
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestMemory holds the stated octets per destination.
func TestMemory(t *testing.T) {
	for _, n := range []int{25_000, 100_000, 200_000} {
		var v4, v6 Table
		for i := range n {
			v4.Set(1, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
			v6.Set(1, netip.AddrFrom16([16]byte{0: 0x20, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 1)
		}
		t.Logf("%d destinations: IPv4 %.1f, IPv6 %.1f octets each", n, float64(v4.Memory())/float64(n), float64(v6.Memory())/float64(n))
		if v4.Memory() > n*42 || v6.Memory() > n*84 {
			t.Errorf("%d destinations take %d and %d octets", n, v4.Memory(), v6.Memory())
		}
	}
}

func TestAllocs(t *testing.T) {
	var table Table
	a := netip.MustParseAddr("10.0.0.1")
	table.Set(1, a, 1)
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup4(1, 0x0a000001)
		table.Lookup6(1, 1, 2)
		table.Set(1, a, 2)
		table.Delete(1, a)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		var table Table
		r := rand.New(rand.NewPCG(1, 1))
		order := make([]uint32, 1<<16)
		for i := range n {
			table.Set(1, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Value(i+1))
		}
		for i := range order {
			order[i] = 10<<24 | r.Uint32N(uint32(n))
		}
		b.Run(fmt.Sprint("hit/", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok := table.Lookup4(1, order[i%len(order)]); !ok {
					b.Fatal("missed")
				}
			}
		})
		b.Run(fmt.Sprint("miss/", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok := table.Lookup4(2, order[i%len(order)]); ok {
					b.Fatal("hit")
				}
			}
		})
	}
}

// BenchmarkUpdateUnderLoad changes one of 200,000 destinations after the other
// while another goroutine looks up without pause.
func BenchmarkUpdateUnderLoad(b *testing.B) {
	const n = 200_000
	var table Table
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		table.Set(1, addrs[i], 1)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var done atomic.Bool
	var wg sync.WaitGroup
	var lookups uint64
	wg.Go(func() {
		r := rand.New(rand.NewPCG(2, 2))
		for !done.Load() {
			table.Lookup4(1, 10<<24|r.Uint32N(n))
			lookups++
		}
	})
	for i := 0; b.Loop(); i++ {
		switch i % 3 { // away, back, elsewhere
		case 0:
			table.Delete(1, addrs[i/3%n])
		case 1:
			table.Set(1, addrs[i/3%n], Value(i+1))
		default:
			table.Set(1, addrs[i/3%n], Value(i+2))
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	done.Store(true)
	wg.Wait()
	b.ReportMetric(float64(lookups)/b.Elapsed().Seconds(), "lookups/s")
}

func BenchmarkUpdate(b *testing.B) {
	const n = 200_000
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	b.Run("change", func(b *testing.B) {
		var table Table
		for i := 0; b.Loop(); i++ {
			table.Set(1, addrs[i%n], Value(i+1))
		}
	})
	b.Run("replace", func(b *testing.B) { // another destination each time
		var table Table
		for i := 0; b.Loop(); i++ {
			table.Set(1, addrs[i%n], 1)
			if i >= n/2 {
				table.Delete(1, addrs[(i-n/2)%n])
			}
		}
	})
}
