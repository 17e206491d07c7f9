package fastpath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// anAddr makes one of few addresses, so that tests meet the same one often.
func anAddr(r *rand.Rand, few uint32) netip.Addr {
	n := r.Uint32N(few)
	return address(n, r.IntN(2) == 0)
}

func address(n uint32, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 7: byte(n), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
	}
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// number is an IPv4 address as Lookup4 takes it.
func number(a netip.Addr) uint32 {
	_, lo := halves(a)
	return uint32(lo)
}

// lookup looks an address up as the pipeline does, among others.
func (t *Table) lookup(r *rand.Rand, a netip.Addr) Value {
	if a.Is6() {
		return t.Lookup6(halves(a))
	}
	var addrs [Batch]uint32
	var values [Batch]Value
	n := 1 + r.IntN(Batch)
	for i := range n {
		addrs[i], values[i] = 10<<24|r.Uint32N(2000), 99
	}
	at := r.IntN(n)
	addrs[at] = number(a)
	t.Lookup4(&addrs, &values, n)
	return values[at]
}

// TestAgainstMap: after any sequence of changes, the table holds what a map holds.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 2))
		var table Table
		golden := map[netip.Addr]Value{}
		for range 30_000 {
			a := anAddr(r, 2000)
			if r.IntN(3) == 0 {
				table.Delete(a)
				delete(golden, a)
			} else {
				v := 1 + Value(r.IntN(1000))
				table.Set(a, v)
				golden[a] = v
			}
		}
		if table.Len() != len(golden) {
			t.Errorf("seed %d: %d destinations, want %d", seed, table.Len(), len(golden))
		}
		for range 3_000 {
			a := anAddr(r, 2200)
			if got, want := table.Lookup(a), golden[a]; got != want {
				t.Fatalf("seed %d: %v leads to %d, want %d", seed, a, got, want)
			}
			if got, want := table.lookup(r, a), golden[a]; got != want {
				t.Fatalf("seed %d: among others %v leads to %d, want %d", seed, a, got, want)
			}
		}
	}
}

// FuzzTable: whatever is set and deleted, in a table so small that buckets
// overflow, it holds what a map holds.
func FuzzTable(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x81, 2, 0x82, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, changes []byte) {
		var table Table
		golden := map[netip.Addr]Value{}
		for i, c := range changes {
			a := address(uint32(c&0x3f), c&0x40 != 0)
			if c&0x80 != 0 {
				table.Delete(a)
				delete(golden, a)
			} else {
				table.Set(a, Value(i+1))
				golden[a] = Value(i + 1)
			}
		}
		for n := range uint32(0x40) {
			for _, a := range []netip.Addr{address(n, false), address(n, true)} {
				if got := table.Lookup(a); got != golden[a] {
					t.Errorf("%v leads to %d, want %d", a, got, golden[a])
				}
			}
		}
		if table.Len() != len(golden) {
			t.Errorf("%d destinations, want %d", table.Len(), len(golden))
		}
	})
}

// TestEdges: addresses of all ones, the largest value, and IPv4 beside its mapped
// form; the unspecified addresses are never there.
func TestEdges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var table Table
	all := []netip.Addr{}
	for _, a := range []string{"0.0.0.1", "255.255.255.255", "::1", "::ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		all = append(all, netip.MustParseAddr(a))
	}
	for i, a := range all {
		if v := table.Lookup(a); v != 0 {
			t.Errorf("%v is there before it is set", a)
		}
		table.Set(a, MaxValue-Value(i))
	}
	for i, a := range all {
		if v := table.lookup(r, a); v != MaxValue-Value(i) {
			t.Errorf("%v leads to %d, want %d", a, v, MaxValue-Value(i))
		}
	}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		table.Delete(a)
		table.Set(a, 1)
		if v := table.lookup(r, a); v != 0 || table.Len() != len(all) {
			t.Errorf("%v leads to %d; there are %d destinations, want %d", a, v, table.Len(), len(all))
		}
		table.Delete(a)
	}
	if table.Len() != len(all) {
		t.Errorf("%d destinations, want %d", table.Len(), len(all))
	}
}

// TestChurn: deleting as much as is added for ever does not make the table grow.
func TestChurn(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		var table Table
		for i := range uint32(50_000) {
			table.Set(address(i, v6), 1)
			if i >= 1000 {
				table.Delete(address(i-1000, v6))
			}
		}
		if table.Len() != 1000 || table.Memory() > 1000*140 {
			t.Errorf("%d destinations in %d octets", table.Len(), table.Memory())
		}
	}
}

// TestReadersUnderChange: whatever the writer does, a reader gets a value that
// belongs to the destination it asked for, and one that stays is always there.
func TestReadersUnderChange(t *testing.T) {
	const stays = 100
	var table Table
	value := func(i uint32, version uint32) Value { return Value(i<<8 | version%255 + 1) }
	for i := range uint32(stays) {
		table.Set(address(i, i%2 == 0), value(i, 0))
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for g := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 3))
			for !done.Load() {
				i := r.Uint32N(3000)
				a := address(i, i%2 == 0)
				v := table.lookup(r, a)
				if v != 0 && v&^0xff != value(i, 0)&^0xff {
					t.Errorf("%v leads to %x", a, v)
					return
				}
				if v == 0 && i < stays {
					t.Errorf("%v, which stays, was not found", a)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 3))
	for n := range uint32(80_000) {
		i := r.Uint32N(3000)
		if a := address(i, i%2 == 0); r.IntN(2) == 0 && i >= stays {
			table.Delete(a)
		} else {
			table.Set(a, value(i, n))
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestMemory holds the stated octets per destination.
func TestMemory(t *testing.T) {
	for _, n := range []int{25_000, 100_000} {
		var v4, v6 Table
		for i := range uint32(n) {
			v4.Set(address(i, false), 1)
			v6.Set(address(i, true), 1)
		}
		t.Logf("%d destinations: IPv4 %.1f, IPv6 %.1f octets each", n, float64(v4.Memory())/float64(n), float64(v6.Memory())/float64(n))
		if v4.Memory() > n*32 || v6.Memory() > n*86 {
			t.Errorf("%d destinations take %d and %d octets", n, v4.Memory(), v6.Memory())
		}
	}
}

func TestAllocs(t *testing.T) {
	var table Table
	a := netip.MustParseAddr("10.0.0.1")
	addrs, values := [Batch]uint32{0x0a000001}, [Batch]Value{}
	table.Set(a, 1)
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup4(&addrs, &values, 1)
		table.Lookup6(1, 2)
		table.Set(a, 2)
		table.Delete(a)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLookup looks up Batch destinations at a time; an operation is one of them.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10_000, 200_000} {
		var table Table
		r := rand.New(rand.NewPCG(1, 1))
		order := make([]uint32, 1<<18)
		for i := range n {
			table.Set(address(uint32(i), false), Value(i+1))
		}
		for _, kind := range []string{"hit", "miss"} {
			for i := range order {
				order[i] = 10<<24 | r.Uint32N(uint32(n))
				if kind == "miss" {
					order[i] |= 1 << 24
				}
			}
			b.Run(fmt.Sprint(kind, "/", n), func(b *testing.B) {
				var values [Batch]Value
				for i := 0; b.Loop(); i++ {
					if at := i & (len(order) - 1); at%Batch == 0 {
						table.Lookup4((*[Batch]uint32)(order[at:]), &values, Batch)
						if (values[7] != 0) != (kind == "hit") {
							b.Fatal("not a", kind)
						}
					}
				}
			})
		}
	}
}

// BenchmarkUpdateUnderLoad changes one of 200,000 destinations after the other
// while another goroutine looks up without pause.
func BenchmarkUpdateUnderLoad(b *testing.B) {
	const n = 200_000
	var table Table
	addrs := shuffled(n)
	for _, a := range addrs {
		table.Set(a, 1)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	var lookups uint64
	wg.Go(func() {
		r := rand.New(rand.NewPCG(2, 2))
		var sought [Batch]uint32
		var values [Batch]Value
		for !done.Load() {
			for i := range sought {
				sought[i] = 10<<24 | r.Uint32N(n)
			}
			table.Lookup4(&sought, &values, Batch)
			lookups += Batch
		}
	})
	for i := 0; b.Loop(); i++ {
		switch i % 3 { // away, back, elsewhere
		case 0:
			table.Delete(addrs[i/3%n])
		case 1:
			table.Set(addrs[i/3%n], Value(i+1))
		default:
			table.Set(addrs[i/3%n], Value(i+2))
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	done.Store(true)
	wg.Wait()
	b.ReportMetric(float64(lookups)/b.Elapsed().Seconds(), "lookups/s")
}

// shuffled is n addresses in no order.
func shuffled(n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = address(uint32(i), false)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

func BenchmarkUpdate(b *testing.B) {
	const n = 200_000
	addrs := shuffled(n)
	b.Run("change", func(b *testing.B) {
		var table Table
		for i := 0; b.Loop(); i++ {
			table.Set(addrs[i%n], Value(i+1))
		}
	})
	b.Run("replace", func(b *testing.B) { // another destination each time
		var table Table
		for i := 0; b.Loop(); i++ {
			table.Set(addrs[i%n], 1)
			if i >= n/2 {
				table.Delete(addrs[(i-n/2)%n])
			}
		}
	})
}
