package fib

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
)

// TestExample is the worked example of the package comment.
func TestExample(t *testing.T) {
	var changes []Change[string]
	for _, c := range []struct{ prefix, value string }{
		{"0.0.0.0/0", "A"}, {"10.0.0.0/8", "B"}, {"10.1.2.0/23", "C"}, {"10.1.3.64/26", "D"},
	} {
		changes = append(changes, Change[string]{Prefix: netip.MustParsePrefix(c.prefix), Value: c.value})
	}
	table := New[string]().With(changes)
	for addr, want := range map[string]string{
		"11.0.0.1": "A", "9.255.255.255": "A", "10.9.9.9": "B", "10.1.1.255": "B", "10.1.4.0": "B",
		"10.1.2.0": "C", "10.1.3.63": "C", "10.1.3.64": "D", "10.1.3.70": "D", "10.1.3.127": "D", "10.1.3.128": "C",
	} {
		if v, ok := table.Lookup(netip.MustParseAddr(addr)); v != want || !ok {
			t.Errorf("%s leads to %q, %v, want %s", addr, v, ok, want)
		}
	}
	page := table.pages[10]
	for i, chunk := range page.chunks {
		if page.bases[i] != 2 || (chunk == &emptyChunk) != (i != 1) {
			t.Errorf("10.%d has base %d and chunk %v", i, page.bases[i], chunk.entries)
		}
	}
	chunk := page.chunks[1]
	if want := [256]uint16{2: 3, 3: blockFlag}; chunk.entries != want {
		t.Errorf("10.1 has the entries %v", chunk.entries)
	}
	if b := chunk.blocks[0]; len(b.numbers) != 3 || b.starts != [4]uint64{1: 1, 2: 1} || b.before != [4]uint8{2: 1, 3: 2} {
		t.Errorf("10.1.3 has the block %+v", b)
	}
	if table.pages[11] != &emptyPage {
		t.Errorf("11 has a page of its own")
	}
}

// TestLocalChanges makes few changes at a time in big tables, and looks up what is
// on either side of both ends of what changed, beside bart. In the end it does so in
// the older tables.
func TestLocalChanges(t *testing.T) {
	for name, routes := range map[string]func(*rand.Rand, int) []netip.Prefix{"spread": spread, "private": private, "nested": nested, "spread6": spread6} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			prefixes := routes(r, 4000)
			values := hops()
			table := New[*int]().With(setAll(prefixes[:2000], values))
			tables := []*Table[*int]{table}
			var touched []netip.Addr
			for range 100 {
				var changes []Change[*int]
				for range 1 + r.IntN(1+r.IntN(40)) {
					p := prefixes[r.IntN(len(prefixes))]
					changes = append(changes, Change[*int]{p, values[r.IntN(len(values))], r.IntN(2) == 0})
					touched = append(touched, edges(p)...)
				}
				table = table.With(changes)
				checkTrie(t, table, touched[max(0, len(touched)-100):])
				tables = append(tables, table)
			}
			for _, table := range tables {
				checkTrie(t, table, touched)
			}
		})
	}
}

// checkTrie compares the compiled form with the trie that it was compiled from.
func checkTrie(t *testing.T, table *Table[*int], addrs []netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		_, want, wantOK := table.LookupPrefix(a)
		if got, ok := table.Lookup(a); got != want || ok != wantOK {
			t.Fatalf("Lookup %v = %p, %v, the trie has %p, %v", a, got, ok, want, wantOK)
		}
	}
}

// nested returns prefixes of all lengths that have much in common.
func nested(r *rand.Rand, n int) []netip.Prefix {
	return distinct(n, func() netip.Prefix {
		return netip.PrefixFrom(addr4(10<<24|r.Uint32N(4)<<22|r.Uint32N(4)<<16|r.Uint32N(8)<<7|r.Uint32N(128)), r.IntN(33))
	})
}

// edges returns the first and the last address of a prefix and their neighbors.
func edges(p netip.Prefix) []netip.Addr {
	first := p.Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < first.BitLen(); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // of the length that AsSlice gave
	out := []netip.Addr{first, last}
	for _, a := range []netip.Addr{first.Prev(), last.Next()} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// TestSharing checks that a change makes nothing new but what it is about, and that
// nothing is left of routes that are gone.
func TestSharing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	old := New[*int]().With(setAll(spread(r, 5000), hops()))
	route := netip.MustParsePrefix("10.1.3.64/26")
	set := []Change[*int]{{Prefix: route, Value: new(int)}}
	next := old.With(set)
	for i := range old.pages {
		if same := old.pages[i] == next.pages[i]; same != (i != 10) {
			t.Errorf("page %d is shared: %v", i, same)
		}
	}
	for i := range old.pages[10].chunks {
		if same := old.pages[10].chunks[i] == next.pages[10].chunks[i]; same != (i != 1) {
			t.Errorf("chunk %d is shared: %v", i, same)
		}
	}
	set[0].Delete = true
	for _, table := range []*Table[*int]{New[*int](), New[*int]().With([]Change[*int]{{Prefix: route, Value: new(int)}}).With(set)} {
		for i, page := range table.pages {
			if page != &emptyPage {
				t.Errorf("a table without routes has a page %d", i)
			}
		}
	}
	change := []Change[*int]{{Prefix: defaultRoute, Value: new(int)}}
	if next := old.With(change); next.pages != old.pages {
		t.Errorf("a default route makes new pages")
	}
}

// TestManyValues goes to more values than there are numbers for, and back.
func TestManyValues(t *testing.T) {
	const n = maxNumber + 1
	changes := make([]Change[int], n)
	for i := range changes {
		changes[i] = Change[int]{Prefix: netip.PrefixFrom(addr4(10<<24|uint32(i)<<8), 24), Value: -i}
	}
	most := New[int]().With(changes[:n-1])
	if most.pages == nil {
		t.Errorf("%d values are too many", n-1)
	}
	all := most.With(changes[n-1:])
	if all.pages != nil {
		t.Errorf("%d values are not too many", n)
	}
	for i := range changes[1000:] {
		changes[1000+i].Delete = true
	}
	less := all.With(changes)
	if less.pages == nil || len(less.values) != 1001 {
		t.Errorf("of 1,000 values there are %d", len(less.values)-1)
	}
	for name, table := range map[string]*Table[int]{"most": most, "all": all, "less": less} {
		addrs := make([]uint32, n)
		for i := range addrs {
			addrs[i] = 10<<24 | uint32(i)<<8 | 9
		}
		wants := make([]int, n)
		for i, a := range addrs {
			want, wantOK := table.Get(changes[i].Prefix)
			if v, ok := table.Lookup4(a); v != want || ok != wantOK {
				t.Fatalf("%s: Lookup4 %x = %d, %v, want %d, %v", name, a, v, ok, want, wantOK)
			}
			wants[i] = want
		}
		checkAll4(t, table, addrs, wants)
	}
}

func TestLookupAllocs(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	changes := setAll(append(spread(r, 1000), spread6(r, 1000)...), hops())
	table := New[*int]().With(changes)
	v4, v6 := changes[0].Prefix.Addr(), changes[1000].Prefix.Addr()
	var addrs [Batch]uint32
	var values [Batch]*int
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup(v4)
		table.Lookup(v6)
		table.Lookup4(raw4(v4))
		table.Lookup6(raw6(v6))
		table.LookupAll4(&addrs, &values, Batch)
	}); n != 0 {
		t.Errorf("lookups allocate %v times", n)
	}
}

// TestMemory holds the table to what the package comment says.
func TestMemory(t *testing.T) {
	vrf := setAll([]netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.3.0/24"),
		netip.MustParsePrefix("192.168.100.128/30"), netip.MustParsePrefix("192.168.100.129/32"), netip.MustParsePrefix("fd00::/64"),
	}, hops())
	r := rand.New(rand.NewPCG(6, 6))
	many := setAll(private(r, 10_000), hops())
	for _, tc := range []struct {
		name    string
		changes []Change[*int]
		limit   uint64
	}{{"empty", nil, 1500}, {"six routes", vrf, 15_000}, {"10,000 routes in 10/8", many, 1_300_000}} {
		const n = 20
		tables, memory := sized(func() (out [n]*Table[*int]) {
			for i := range out {
				out[i] = New[*int]().With(tc.changes)
			}
			return out
		})
		if got := memory / n; got > tc.limit {
			t.Errorf("%s take %d octets, want at most %d", tc.name, got, tc.limit)
		} else {
			t.Logf("%s take %d octets", tc.name, got)
		}
		runtime.KeepAlive(tables)
	}
}
