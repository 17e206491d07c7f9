package fib

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// lengths4 is how many of 10,000 IPv4 prefixes have which length: as in the
// Internet's table (six of ten are /24), and some 4 % longer ones of one's own.
var lengths4 = map[int]int{
	8: 2, 10: 1, 11: 1, 12: 3, 13: 6, 14: 12, 15: 20, 16: 135, 17: 83, 18: 138, 19: 250, 20: 440, 21: 500, 22: 1080,
	23: 960, 24: 6009, 25: 40, 26: 40, 27: 40, 28: 40, 29: 50, 30: 50, 32: 100,
}

// lengths6 is the same of IPv6 prefixes.
var lengths6 = map[int]int{
	20: 5, 24: 15, 28: 60, 29: 250, 30: 100, 32: 1300, 33: 150, 34: 120, 36: 450, 38: 100, 40: 1100, 42: 200, 44: 1000,
	45: 150, 46: 350, 47: 350, 48: 4150, 52: 20, 56: 60, 64: 50, 127: 10, 128: 10,
}

// deck deals lengths in their proportion.
func deck(lengths map[int]int) []int {
	var out []int
	for bits := range 129 {
		for range lengths[bits] {
			out = append(out, bits)
		}
	}
	return out
}

// distinct returns n different prefixes that make returns.
func distinct(n int, next func() netip.Prefix) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		if p := next().Masked(); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// spread returns prefixes anywhere in unicast, of lengths as in the Internet's
// table. Real ones stand closer together, which is kinder to caches.
func spread(r *rand.Rand, n int) []netip.Prefix {
	lengths := deck(lengths4)
	return distinct(n, func() netip.Prefix {
		a := (1+r.Uint32N(222))<<24 | r.Uint32N(1<<24)
		return netip.PrefixFrom(addr4(a), lengths[r.IntN(len(lengths))])
	})
}

// private returns prefixes of /16 to /32 in 10.0.0.0/8.
func private(r *rand.Rand, n int) []netip.Prefix {
	return distinct(n, func() netip.Prefix {
		return netip.PrefixFrom(addr4(10<<24|r.Uint32N(1<<24)), 16+r.IntN(17))
	})
}

// spread6 is spread of IPv6. Few registries give out the addresses, so the first
// bits are alike; and they give out some 20,000 /32 that most others are of.
func spread6(r *rand.Rand, n int) []netip.Prefix {
	lengths := deck(lengths6)
	registries := []uint16{0x2001, 0x2400, 0x2401, 0x2402, 0x2403, 0x2404, 0x2600, 0x2602, 0x2604, 0x2606, 0x2607, 0x2620,
		0x2800, 0x2801, 0x2803, 0x2804, 0x2a00, 0x2a01, 0x2a02, 0x2a03, 0x2a04, 0x2a05, 0x2a06, 0x2a07, 0x2a09, 0x2a0a,
		0x2a0b, 0x2a0c, 0x2a0d, 0x2a0e, 0x2a0f, 0x2c0f}
	return distinct(n, func() netip.Prefix {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], r.Uint64())
		binary.BigEndian.PutUint64(a[8:], r.Uint64())
		binary.BigEndian.PutUint16(a[:], registries[r.IntN(len(registries))])
		binary.BigEndian.PutUint16(a[2:], uint16(r.IntN(640))*102)
		return netip.PrefixFrom(netip.AddrFrom16(a), lengths[r.IntN(len(lengths))])
	})
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

// raw4 and raw6 are addresses as Lookup4 and Lookup6 want them.
func raw4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func raw6(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// setAll returns changes that set prefixes to values in turn.
func setAll[V comparable](prefixes []netip.Prefix, values []V) []Change[V] {
	changes := make([]Change[V], len(prefixes))
	for i, p := range prefixes {
		changes[i] = Change[V]{Prefix: p, Value: values[i%len(values)]}
	}
	return changes
}

// hops are as many values as a VRF has next-hop groups.
func hops() []*int {
	out := make([]*int, 64)
	for i := range out {
		out[i] = new(int)
	}
	return out
}
