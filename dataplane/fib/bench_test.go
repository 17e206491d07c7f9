package fib

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gaissmai/bart"
)

// The benchmarks that performance is followed by: lookups of 65,536 random
// addresses within the routes, beside bart.Table. Each table is made only if it
// is asked for.

// sizes are those of the lookup benchmarks.
var sizes = []struct {
	name string
	n    int
}{{"10k", 10_000}, {"200k", 200_000}, {"1m", 1_000_000}}

func BenchmarkLookup4(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			benchmarkLookup(b, func(r *rand.Rand) []netip.Prefix { return spread(r, size.n) })
		})
	}
}

func BenchmarkLookup6(b *testing.B) {
	b.Run("10k", func(b *testing.B) {
		benchmarkLookup(b, func(r *rand.Rand) []netip.Prefix { return spread6(r, 10_000) })
	})
}

func benchmarkLookup(b *testing.B, routes func(*rand.Rand) []netip.Prefix) {
	r := rand.New(rand.NewPCG(7, 1))
	prefixes := routes(r)
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		addrs[i] = within(r, prefixes[r.IntN(len(prefixes))])
	}
	b.Run("fib", func(b *testing.B) {
		changes := make([]Change[int], len(prefixes))
		for i, p := range prefixes {
			changes[i] = Change[int]{Prefix: p, Value: i}
		}
		table := New[int]().With(changes)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			sink, _ = table.Lookup(addrs[i&(1<<16-1)])
		}
	})
	b.Run("bart_table", func(b *testing.B) {
		table := new(bart.Table[int])
		for i, p := range prefixes {
			table.Insert(p, i)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			sink, _ = table.Lookup(addrs[i&(1<<16-1)])
		}
	})
}

// spread6 returns prefixes of global unicast, of lengths as in the Internet's
// table.
func spread6(r *rand.Rand, n int) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	var out []netip.Prefix
	for len(out) < n {
		bits := []int{48, 48, 48, 48, 48, 32, 32, 40 + r.IntN(8), 33 + r.IntN(15), 56 + r.IntN(9)}[r.IntN(10)]
		// Few registries give out the addresses, so the first bits are alike.
		a := [16]byte{0: 0x20 | byte(r.IntN(16)&0xa), 1: byte(r.IntN(24)), 2: byte(r.Uint32()), 3: byte(r.Uint32())}
		for i := 4; i < 8; i++ {
			a[i] = byte(r.Uint32())
		}
		if p := netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// within returns a random address of a prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch left := p.Bits() - 8*i; {
		case left <= 0:
			b[i] = byte(r.Uint32())
		case left < 8:
			b[i] |= byte(r.Uint32()) & (0xff >> left)
		}
	}
	addr, _ := netip.AddrFromSlice(b) // of the length that AsSlice gave
	return addr
}
