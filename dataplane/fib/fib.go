package fib

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Table maps prefixes to values of type V, by longest match. It is safe for any
// number of readers and never changes; make one with [New] or [Table.With].
//
// Values that are equal are stored once. With more than 32,767 different ones a
// table still works, but its IPv4 lookups take several times longer.
type Table[V comparable] struct {
	// values are those of numbers.list but for values[0], the IPv4 default
	// route's (or V's zero value).
	values     []V
	hasDefault bool
	pages      *pages // nil if there are more values than it has numbers for

	routes4 *bart.Table[uint32]
	routes6 *bart.Fast[uint32]
	numbers *numbers[V]
}

// Change sets or deletes one prefix.
type Change[V comparable] struct {
	Prefix netip.Prefix // host bits are ignored
	Value  V            // ignored if Delete
	Delete bool         // no matter if the prefix is not there
}

// New returns an empty table.
func New[V comparable]() *Table[V] {
	return &Table[V]{
		values:  make([]V, 1),
		pages:   &emptyPages,
		routes4: new(bart.Table[uint32]),
		routes6: new(bart.Fast[uint32]),
		numbers: newNumbers[V](),
	}
}

// Lookup returns the value of the longest prefix that covers addr. A zone is
// ignored; an IPv4-mapped IPv6 address is looked up as IPv6. It does not
// allocate.
func (t *Table[V]) Lookup(addr netip.Addr) (V, bool) {
	if addr.Is4() {
		b := addr.As4()
		return t.Lookup4(binary.BigEndian.Uint32(b[:]))
	}
	n, ok := t.routes6.Lookup(addr)
	return t.numbers.list[n], ok
}

// Lookup4 is [Table.Lookup] of an IPv4 address as a big-endian number:
// 192.0.2.1 is 0xc0000201.
func (t *Table[V]) Lookup4(addr uint32) (V, bool) {
	if t.pages == nil {
		return t.lookupTrie4(addr)
	}
	page, chunk := t.pages.at(addr)
	n := chunk.entries[addr>>8&0xff]
	if more(n) != 0 {
		n = page.lookupMore(chunk, n, addr)
	}
	return t.values[n], n != 0 || t.hasDefault
}

// Batch is how many addresses LookupAll4 takes at most.
const Batch = 64

// LookupAll4 is [Table.Lookup4] of n addresses: values[i] is that of addrs[i], V's zero
// value if there is none. Each step is taken for all of them before the next, so that the
// processor waits for many cache misses at once; and the few addresses that need a third
// step are gathered without a branch, as no processor can guess which they are.
func (t *Table[V]) LookupAll4(addrs *[Batch]uint32, values *[Batch]V, n int) {
	if t.pages == nil {
		for i, addr := range addrs[:n] {
			values[i], _ = t.lookupTrie4(addr)
		}
		return
	}
	var chunks [Batch]*chunk
	for i, addr := range addrs[:n] {
		_, chunks[i] = t.pages.at(addr)
	}
	var late [Batch]uint8
	lates := 0
	for i, addr := range addrs[:n] {
		entry := chunks[i].entries[addr>>8&0xff]
		more := more(entry)
		values[i] = t.values[entry&uint16(more-1)]
		late[lates&(Batch-1)] = uint8(i)
		lates += more
	}
	for _, i := range late[:lates] {
		addr := addrs[i&(Batch-1)]
		page, chunk := t.pages.at(addr)
		values[i&(Batch-1)] = t.values[page.lookupMore(chunk, chunk.entries[addr>>8&0xff], addr)]
	}
}

func (t *Table[V]) lookupTrie4(addr uint32) (V, bool) {
	n, ok := t.routes4.Lookup(addr4(addr))
	return t.numbers.list[n], ok
}

// Lookup6 is [Table.Lookup] of an IPv6 address as two big-endian numbers.
func (t *Table[V]) Lookup6(hi, lo uint64) (V, bool) {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	n, ok := t.routes6.Lookup(netip.AddrFrom16(b))
	return t.numbers.list[n], ok
}

// LookupPrefix is [Table.Lookup] that also tells which prefix matched. It is
// slower: for operators, not for frames.
func (t *Table[V]) LookupPrefix(addr netip.Addr) (netip.Prefix, V, bool) {
	prefix, n, ok := t.triesOf(addr).LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
	return prefix, t.numbers.list[n], ok
}

// Get returns the value of exactly that prefix.
func (t *Table[V]) Get(prefix netip.Prefix) (V, bool) {
	n, ok := t.triesOf(prefix.Addr()).Get(prefix)
	return t.numbers.list[n], ok
}

// All iterates over the table in order: IPv4 first, by address, and a shorter
// prefix before the longer ones of the same address.
func (t *Table[V]) All() iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for _, routes := range []iter.Seq2[netip.Prefix, uint32]{t.routes4.AllSorted4(), t.routes6.AllSorted6()} {
			for prefix, n := range routes {
				if !yield(prefix, t.numbers.list[n]) {
					return
				}
			}
		}
	}
}

// Len4 returns the number of IPv4 prefixes.
func (t *Table[V]) Len4() int { return t.routes4.Size4() }

// Len6 returns the number of IPv6 prefixes.
func (t *Table[V]) Len6() int { return t.routes6.Size6() }

// prefixes is what the two tries have in common. They differ in what they are
// good at: bart.Fast looks up faster, which counts for IPv6; bart.Table takes half
// the memory, which counts for IPv4, where it looks up nothing.
type prefixes interface {
	Get(netip.Prefix) (uint32, bool)
	LookupPrefixLPM(netip.Prefix) (netip.Prefix, uint32, bool)
}

func (t *Table[V]) triesOf(addr netip.Addr) prefixes {
	if addr.Is4() {
		return t.routes4
	}
	return t.routes6
}

func addr4(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}
