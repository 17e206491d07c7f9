package fib

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// golden is the slow twin: a list that is searched from end to end.
type golden map[netip.Prefix]int

func (g golden) lookup(addr netip.Addr) (netip.Prefix, int, bool) {
	best, found := netip.Prefix{}, false
	for p := range g {
		if p.Contains(addr) && (!found || p.Bits() > best.Bits()) {
			best, found = p, true
		}
	}
	return best, g[best], found
}

func (g golden) apply(changes []Change[int]) golden {
	next := maps.Clone(g)
	for _, c := range changes {
		if c.Delete {
			delete(next, c.Prefix.Masked())
		} else if c.Prefix.IsValid() {
			next[c.Prefix.Masked()] = c.Value
		}
	}
	return next
}

// randomAddr draws from few networks, so that prefixes nest and lookups hit.
func randomAddr(r *rand.Rand) netip.Addr {
	octet := func() byte { return byte(r.IntN(3) * 85) }
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10 + byte(r.IntN(2)), octet(), octet(), byte(r.Uint32())})
	}
	a := [16]byte{0: 0x20, 1: 1, 7: octet(), 8: octet(), 14: octet(), 15: byte(r.Uint32())}
	return netip.AddrFrom16(a)
}

// randomPrefix has host bits set as often as not.
func randomPrefix(r *rand.Rand) netip.Prefix {
	a := randomAddr(r)
	return netip.PrefixFrom(a, r.IntN(a.BitLen()+1))
}

// randomChanges draws values below kinds, so that routes share them or not.
func randomChanges(r *rand.Rand, g golden, n, kinds int) []Change[int] {
	there := slices.SortedFunc(maps.Keys(g), comparePrefix)
	changes := make([]Change[int], n)
	for i := range changes {
		c := Change[int]{Prefix: randomPrefix(r), Value: r.IntN(kinds), Delete: r.IntN(2) == 0}
		if len(there) > 0 && r.IntN(3) > 0 {
			c.Prefix = there[r.IntN(len(there))]
		}
		if r.IntN(50) == 0 {
			c.Prefix = netip.Prefix{}
		}
		changes[i] = c
	}
	return changes
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func check(t *testing.T, r *rand.Rand, table *Table[int], g golden) {
	t.Helper()
	var got []netip.Prefix
	for p, v := range table.All() {
		got = append(got, p)
		if want, ok := g[p]; !ok || v != want {
			t.Fatalf("All yields %v %d, want %d, %v", p, v, want, ok)
		}
		if v2, ok := table.Get(p); !ok || v2 != v {
			t.Fatalf("Get %v = %d, %v, want %d", p, v2, ok, v)
		}
	}
	if want := slices.SortedFunc(maps.Keys(g), comparePrefix); !slices.Equal(got, want) {
		t.Fatalf("All yields %v, want %v", got, want)
	}
	if table.Len4()+table.Len6() != len(g) {
		t.Fatalf("Len4 %d + Len6 %d, want %d", table.Len4(), table.Len6(), len(g))
	}
	var raw []uint32
	var wants []int
	for range 100 {
		addr := randomAddr(r)
		wantP, want, wantOK := g.lookup(addr)
		if v, ok := table.Lookup(addr); v != want || ok != wantOK {
			t.Fatalf("Lookup %v = %d, %v, want %d, %v", addr, v, ok, want, wantOK)
		}
		if p, v, ok := table.LookupPrefix(addr); p != wantP || v != want || ok != wantOK {
			t.Fatalf("LookupPrefix %v = %v, %d, %v, want %v, %d, %v", addr, p, v, ok, wantP, want, wantOK)
		}
		if addr.Is6() {
			if v, ok := table.Lookup6(raw6(addr)); v != want || ok != wantOK {
				t.Fatalf("Lookup6 %v = %d, %v, want %d, %v", addr, v, ok, want, wantOK)
			}
			continue
		}
		if v, ok := table.Lookup4(raw4(addr)); v != want || ok != wantOK {
			t.Fatalf("Lookup4 %v = %d, %v, want %d, %v", addr, v, ok, want, wantOK)
		}
		raw, wants = append(raw, raw4(addr)), append(wants, want)
	}
	checkAll4(t, table, raw, wants)
	checkNumbers(t, table)
}

// checkAll4 compares what LookupAll4 has for addresses, a batch at a time and less in the
// end, with what is wanted.
func checkAll4(t *testing.T, table *Table[int], addrs []uint32, want []int) {
	t.Helper()
	for len(addrs) > 0 {
		var batch [Batch]uint32
		var values [Batch]int
		values[Batch-1] = -1
		n := copy(batch[:], addrs)
		table.LookupAll4(&batch, &values, n)
		for i, v := range values[:n] {
			if v != want[i] {
				t.Fatalf("LookupAll4 %v, the %dth of %d, = %d, want %d", addr4(batch[i]), i, n, v, want[i])
			}
		}
		if n < Batch && values[Batch-1] != -1 {
			t.Fatalf("LookupAll4 of %d has written to values[%d]", n, Batch-1)
		}
		addrs, want = addrs[n:], want[n:]
	}
}

// checkNumbers looks for numbers that are lost or in use twice.
func checkNumbers(t *testing.T, table *Table[int]) {
	t.Helper()
	n := table.numbers
	users := make([]uint32, len(n.list))
	for _, v := range table.All() {
		users[n.of[v]]++
	}
	if !slices.Equal(users, n.users) {
		t.Fatalf("the numbers have %v users, want %v", n.users, users)
	}
	if len(n.of)+len(n.free)+1 != len(n.list) {
		t.Fatalf("%d values and %d free numbers of %d", len(n.of), len(n.free), len(n.list)-1)
	}
	for v, number := range n.of {
		if n.list[number] != v || slices.Contains(n.free, number) {
			t.Fatalf("%d has number %d, which has %d; free are %v", v, number, n.list[number], n.free)
		}
	}
}

// TestGolden compares generations of random tables with the slow twin, and
// then every generation again, now that later ones were derived from it.
func TestGolden(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		table, g := New[int](), golden{}
		var tables []*Table[int]
		var twins []golden
		for range 25 {
			changes := randomChanges(r, g, r.IntN(60), []int{4, math.MaxInt}[seed%2])
			if r.IntN(4) == 0 {
				changes = changes[:min(1, len(changes))]
			}
			table, g = table.With(changes), g.apply(changes)
			check(t, r, table, g)
			tables, twins = append(tables, table), append(twins, g)
		}
		for i := range tables {
			check(t, r, tables[i], twins[i])
		}
	}
}

func TestLookupOddAddresses(t *testing.T) {
	table := New[int]().With([]Change[int]{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Value: 4},
		{Prefix: netip.MustParsePrefix("fe80::/10"), Value: 6},
	})
	for _, tc := range []struct {
		addr netip.Addr
		want int
		ok   bool
	}{
		{netip.Addr{}, 0, false},
		{netip.MustParseAddr("192.0.2.1"), 4, true},
		{netip.MustParseAddr("::ffff:192.0.2.1"), 0, false},
		{netip.MustParseAddr("fe80::1%eth0"), 6, true},
	} {
		if v, ok := table.Lookup(tc.addr); v != tc.want || ok != tc.ok {
			t.Errorf("Lookup %v = %d, %v", tc.addr, v, ok)
		}
		if _, v, ok := table.LookupPrefix(tc.addr); v != tc.want || ok != tc.ok {
			t.Errorf("LookupPrefix %v = %d, %v", tc.addr, v, ok)
		}
	}
}

func TestWithNothing(t *testing.T) {
	table := New[int]().With([]Change[int]{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Value: 1}})
	for _, changes := range [][]Change[int]{
		nil,
		{{Prefix: netip.Prefix{}, Value: 1}},
		{{Prefix: netip.MustParsePrefix("10.0.0.0/9"), Value: 1}, {Prefix: netip.MustParsePrefix("10.0.0.0/9"), Delete: true}},
	} {
		if next := table.With(changes); next.Len4() != 1 || next.Len6() != 0 {
			t.Errorf("With(%v) has %d+%d routes", changes, next.Len4(), next.Len6())
		}
	}
}

// TestConcurrentReaders lets the race detector watch readers of old and new
// snapshots while a writer derives the next. In each generation all prefixes
// have the generation's number, so a torn table shows.
func TestConcurrentReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	prefixes := spread(r, 300)
	generation := func(n int) []Change[int] {
		var changes []Change[int]
		for _, p := range prefixes {
			changes = append(changes, Change[int]{Prefix: p, Value: n})
		}
		changes = append(changes, Change[int]{Prefix: netip.MustParsePrefix("240.0.0.0/8"), Value: n, Delete: n%2 == 0})
		return changes
	}
	var current atomic.Pointer[Table[int]]
	current.Store(New[int]().With(generation(0)))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for !done.Load() {
				table := current.Load()
				want, _ := table.Lookup(prefixes[0].Addr())
				for _, p := range prefixes {
					got, ok := table.Get(p)
					if v, _ := table.Lookup4(raw4(p.Addr())); got != want || v != want || !ok {
						t.Errorf("a snapshot of generation %d has %d at %v, and looks up %d", want, got, p, v)
						return
					}
				}
			}
		})
	}
	for n := range 100 {
		current.Store(current.Load().With(generation(n + 1)))
	}
	done.Store(true)
	readers.Wait()
}
