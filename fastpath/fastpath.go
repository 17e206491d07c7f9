// Package fastpath is the exact match in front of the longest prefix match: a
// destination in a VRF → where its host is. It holds the endpoints of
// ExpressRoute FastPath, up to a few hundred thousand, and changes one by one
// under the readers.
//
// One goroutine writes at a time; any number read, without locks, and see every
// change at once. An IPv4 destination and its value are one word, so that a reader
// has both or neither. In the table for IPv6 a slot keeps the key that it was first
// given until the table is copied: a reader never takes one destination's value for
// another's, whatever happens between its loads.
package fastpath

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// Value is what a destination leads to, in the words of whoever set it: 1 to
// MaxValue.
type Value uint32

// MaxValue is the largest that a table holds.
const MaxValue Value = 1<<31 - 1

// Table holds the endpoints of a VRF. Its zero value is empty. The unspecified
// addresses are no destinations: there is never a value for them.
type Table struct {
	v4 atomic.Pointer[table4]
	v6 atomic.Pointer[table6]
}

// Batch is how many destinations Lookup4 takes at most.
const Batch = 64

// Lookup4 finds IPv4 destinations, given as numbers: values[i] is that of addrs[i],
// 0 if it is not there. All memory is asked for before any is waited for. Of both
// only the first n count.
func (t *Table) Lookup4(addrs *[Batch]uint32, values *[Batch]Value, n int) {
	m := t.v4.Load()
	if m == nil {
		clear(values[:n])
		return
	}
	var buckets [Batch]*bucket
	for i, addr := range addrs[:n] {
		b := &m.buckets[m.home(addr)]
		b[0].Load() // the cache miss, if it is one
		buckets[i] = b
	}
	for i, addr := range addrs[:n] {
		b := buckets[i]
		s0, s1, s2, s3 := b[0].Load(), b[1].Load(), b[2].Load(), b[3].Load()
		// Where in the bucket it stands nobody can predict, so all are compared
		// without a branch.
		var found uint64
		if uint32(s0) == addr {
			found = s0
		}
		if uint32(s1) == addr {
			found = s1
		}
		if uint32(s2) == addr {
			found = s2
		}
		if uint32(s3) == addr {
			found = s3
		}
		if found == 0 && s3 != 0 { // the bucket is full: go on behind it
			found = m.find(addr)
		}
		values[i] = Value(found>>32) & MaxValue
	}
}

// Lookup6 finds an IPv6 destination, given as its upper and lower half; 0 if it is
// not there.
func (t *Table) Lookup6(hi, lo uint64) Value {
	if m := t.v6.Load(); m != nil {
		if s := m.slot([2]uint64{hi, lo}); s != nil {
			return Value(s.Load()) & MaxValue
		}
	}
	return 0
}

// Lookup finds a destination, for those that are not in a hurry; 0 if it is not
// there.
func (t *Table) Lookup(addr netip.Addr) Value {
	if hi, lo := halves(addr); addr.Is6() {
		return t.Lookup6(hi, lo)
	} else if m := t.v4.Load(); m != nil {
		return Value(m.find(uint32(lo))>>32) & MaxValue
	}
	return 0
}

// Set adds a destination or changes where it leads.
func (t *Table) Set(addr netip.Addr, v Value) {
	switch hi, lo := halves(addr); {
	case addr.IsUnspecified():
	case addr.Is4():
		set(&t.v4, uint32(lo), v)
	default:
		set(&t.v6, [2]uint64{hi, lo}, v)
	}
}

// Delete removes a destination, if it is there.
func (t *Table) Delete(addr netip.Addr) {
	if hi, lo := halves(addr); addr.Is6() {
		del(&t.v6, [2]uint64{hi, lo})
	} else {
		del(&t.v4, uint32(lo))
	}
}

// Len is the number of destinations. It is the writer's to call.
func (t *Table) Len() int {
	n := 0
	if m := t.v4.Load(); m != nil {
		n += m.live
	}
	if m := t.v6.Load(); m != nil {
		n += m.live
	}
	return n
}

// Memory is what the table takes, in octets: 8 for a slot of IPv4 and 32 for one of
// IPv6. While destinations only come, between 1/4 and 1/2 of the slots for IPv4, and 3/8
// and 3/4 of those for IPv6, are taken once there are a few: 16 to 32 and 43 to 86
// octets a destination.
func (t *Table) Memory() int {
	n := 0
	if m := t.v4.Load(); m != nil {
		n += len(m.buckets) * 4 * 8
	}
	if m := t.v6.Load(); m != nil {
		n += len(m.lines) * 2 * 32
	}
	return n
}

const (
	// used marks a slot that has a key, be its destination deleted or not.
	used = 1 << 31
	// minSlots are in the smallest table.
	minSlots = 32
)

// halves is an address as two numbers; of IPv4 it is the lower one.
func halves(addr netip.Addr) (hi, lo uint64) {
	if addr.Is4() {
		for _, octet := range addr.As4() {
			lo = lo<<8 | uint64(octet)
		}
		return 0, lo
	}
	for i, octet := range addr.As16() {
		if i < 8 {
			hi = hi<<8 | uint64(octet)
		} else {
			lo = lo<<8 | uint64(octet)
		}
	}
	return hi, lo
}

// hashTable is what the writer does to either kind of table.
type hashTable[K any, T any] interface {
	*T
	// change sets the value of a key, 0 for none; false if it has no slot.
	change(K, Value) bool
	// add takes a slot for a key that has none.
	add(K, Value)
	// room says whether a slot may still be taken.
	room() bool
	// grown is a copy with room, without the slots of what was deleted.
	grown() *T
}

func set[K, T any, P hashTable[K, T]](at *atomic.Pointer[T], k K, v Value) {
	m := P(at.Load())
	if m != nil && m.change(k, v) {
		return
	}
	if m == nil || !m.room() {
		m = P(m.grown())
		m.add(k, v)
		at.Store((*T)(m))
		return
	}
	m.add(k, v)
}

func del[K, T any, P hashTable[K, T]](at *atomic.Pointer[T], k K) {
	if m := P(at.Load()); m != nil {
		m.change(k, 0)
	}
}

// shape is what both kinds have.
type shape struct {
	multiplier uint64 // of a hash: odd, and nobody's to guess
	slots      int
	most       int // that may be taken
	taken      int // slots, deleted ones included; the writer's
	live       int // without those; the writer's
}

// newShape is that of a table for n destinations and some more, of whose slots so many
// eighths may be taken.
func newShape(n, eighths int) shape {
	slots := minSlots
	for slots*(eighths-1)/8 < n {
		slots *= 2
	}
	return shape{multiplier: rand.Uint64() | 1, slots: slots, most: slots * eighths / 8}
}

func (s *shape) room() bool { return s.taken < s.most }

// count is after a slot that had or had not a destination has one or has none.
func (s *shape) count(was, is bool) {
	if was {
		s.live--
	}
	if is {
		s.live++
	}
}

// table4 is a hash table of buckets that a probe reads whole: a cache miss for
// one destination, hardly ever two.
type table4 struct {
	shape
	buckets []bucket // a power of two of them
}

// bucket is half a cache line. A slot has the destination in its lower half, value
// and used in its upper one; 0 is free, and then so is the rest of the bucket.
type bucket [4]atomic.Uint64

// newTable4 keeps half of the slots free, so that few buckets overflow: which do is
// another thing that nobody can predict.
func newTable4(n int) *table4 {
	s := newShape(n, 4)
	return &table4{shape: s, buckets: make([]bucket, s.slots/4)}
}

// home is the bucket where an address is, unless it was full. (Inlined.)
func (m *table4) home(addr uint32) uint64 {
	h := uint64(addr) * m.multiplier
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15 >> 32
	return h * uint64(len(m.buckets)) >> 32 // 0 ≤ h/2³² < 1
}

// find returns what is in the slot of an address; 0 if it has none.
func (m *table4) find(addr uint32) (found uint64) {
	for at := m.home(addr); ; at++ {
		b := &m.buckets[at&uint64(len(m.buckets)-1)]
		for i := range b {
			if s := b[i].Load(); s == 0 || uint32(s) == addr {
				return s
			}
		}
	}
}

func word(addr uint32, v Value) uint64 { return uint64(used|v)<<32 | uint64(addr) }

func has(slot uint64) bool { return Value(slot>>32)&MaxValue != 0 }

// slot returns the slot of an address, or else the one it may take: the first that
// is free or was another's, as key and value change at once.
func (m *table4) slot(addr uint32) (slot *atomic.Uint64, known bool) {
	for at := m.home(addr); ; at++ {
		b := &m.buckets[at&uint64(len(m.buckets)-1)]
		for i := range b {
			s := b[i].Load()
			if slot == nil && !has(s) {
				slot = &b[i]
			}
			switch {
			case s == 0:
				return slot, false
			case uint32(s) == addr:
				return &b[i], true
			}
		}
	}
}

func (m *table4) change(addr uint32, v Value) bool {
	slot, known := m.slot(addr)
	if known {
		m.count(has(slot.Swap(word(addr, v))), v != 0)
	}
	return known
}

func (m *table4) add(addr uint32, v Value) {
	slot, _ := m.slot(addr)
	if slot.Swap(word(addr, v)) == 0 {
		m.taken++
	}
	m.count(false, true)
}

func (m *table4) grown() *table4 {
	if m == nil {
		return newTable4(0)
	}
	out := newTable4(m.live + 1)
	for at := range m.buckets {
		for i := range m.buckets[at] {
			if s := m.buckets[at][i].Load(); has(s) {
				out.add(uint32(s), Value(s>>32)&MaxValue)
			}
		}
	}
	return out
}

// table6 is the same with two slots to a cache line, of several words each.
type table6 struct {
	shape
	lines []line6
}

type line6 [2]struct {
	value  atomic.Uint64 // with used; 0 if free
	hi, lo atomic.Uint64 // of the address; before value makes them visible, and never changed
	_      uint64
}

func newTable6(n int) *table6 {
	s := newShape(n, 6)
	return &table6{shape: s, lines: make([]line6, s.slots/2)}
}

// home multiplies to 128 bits and folds them, as both halves count.
func (m *table6) home(k [2]uint64) uint64 {
	hi, lo := bits.Mul64(k[0]^m.multiplier, k[1]^0xe7037ed1a0b428db)
	return (hi ^ lo) >> 32 * uint64(len(m.lines)) >> 32
}

// slot returns the value's place, and nil if the key has none.
func (m *table6) slot(k [2]uint64) *atomic.Uint64 {
	for at := m.home(k); ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l {
			s := &l[i]
			switch {
			case s.value.Load() == 0:
				return nil
			case s.hi.Load() == k[0] && s.lo.Load() == k[1]:
				return &s.value
			}
		}
	}
}

func (m *table6) change(k [2]uint64, v Value) bool {
	s := m.slot(k)
	if s == nil {
		return false
	}
	m.count(Value(s.Swap(uint64(used|v)))&MaxValue != 0, v != 0)
	return true
}

func (m *table6) add(k [2]uint64, v Value) {
	for at := m.home(k); ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l {
			if s := &l[i]; s.value.Load() == 0 {
				s.hi.Store(k[0])
				s.lo.Store(k[1])
				s.value.Store(uint64(used | v))
				m.taken++
				m.count(false, true)
				return
			}
		}
	}
}

func (m *table6) grown() *table6 {
	if m == nil {
		return newTable6(0)
	}
	out := newTable6(m.live + 1)
	for at := range m.lines {
		for i := range m.lines[at] {
			s := &m.lines[at][i]
			if v := Value(s.value.Load()) & MaxValue; v != 0 {
				out.add([2]uint64{s.hi.Load(), s.lo.Load()}, v)
			}
		}
	}
	return out
}
