// Package fastpath is the exact match in front of the longest prefix match: one
// destination in one VRF → where its host is. It holds the endpoints of
// ExpressRoute FastPath, up to a few hundred thousand, and changes one by one
// under the readers.
//
// One goroutine writes at a time; any number read, without locks, and see every
// change at once. A slot of the hash table keeps the key that it was first
// given until the table is copied, so that a reader never takes one
// destination's value for another's, whatever happens between its two loads.
package fastpath

import (
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// Value is what a destination leads to, in the words of whoever set it; never 0.
type Value uint64

// VRF numbers a forwarding table. It is not used again for another one.
type VRF uint32

// Table holds the endpoints of all VRFs. Its zero value is empty.
type Table struct {
	v4 atomic.Pointer[table4]
	v6 atomic.Pointer[table6]
}

// Lookup4 finds an IPv4 destination, given as a number.
func (t *Table) Lookup4(vrf VRF, addr uint32) (Value, bool) {
	if m := t.v4.Load(); m != nil {
		return m.lookup(key4(vrf, addr))
	}
	return 0, false
}

// View4 is the IPv4 side of a table, for a VRF, as a reader sees it for a moment:
// what many lookups have in common. Its zero value finds nothing.
type View4 struct {
	table *table4
	key   uint64 // of address 0
}

// View4 returns the view of a VRF. Keep it for a batch, not longer: it holds on to
// a table that the writer may have copied.
func (t *Table) View4(vrf VRF) View4 { return View4{t.v4.Load(), key4(vrf, 0)} }

// Near begins a lookup: it asks for the memory where Find will look, and does not
// wait for it.
func (v View4) Near(addr uint32) *Line4 {
	if v.table == nil {
		return nil
	}
	key := v.key | uint64(addr)
	l := &v.table.lines[mix(key, key)>>v.table.shift&uint64(len(v.table.lines)-1)]
	l.keys[0].Load() // the cache miss, if it is one
	return l
}

// Find ends the lookup that Near began for the same destination; 0 if it is not
// there. Where in the line a key stands nobody can predict, so all are looked at
// without a branch.
func (v View4) Find(l *Line4, addr uint32) Value {
	if l == nil {
		return 0
	}
	key, found := v.key|uint64(addr), uint64(0)
	k0, v0 := l.keys[0].Load(), l.values[0].Load()
	k1, v1 := l.keys[1].Load(), l.values[1].Load()
	k2, v2 := l.keys[2].Load(), l.values[2].Load()
	k3, v3 := l.keys[3].Load(), l.values[3].Load()
	if k0 == key {
		found = v0
	}
	if k1 == key {
		found = v1
	}
	if k2 == key {
		found = v2
	}
	if k3 == key {
		found = v3
	}
	if found == 0 && k3 != 0 { // the line is full: go on behind it
		rest, _ := v.table.lookup(key)
		return rest
	}
	return Value(found)
}

// Lookup6 finds an IPv6 destination, given as its upper and lower half.
func (t *Table) Lookup6(vrf VRF, hi, lo uint64) (Value, bool) {
	if m := t.v6.Load(); m != nil {
		return m.lookup(key6{used | uint64(vrf), hi, lo})
	}
	return 0, false
}

// Lookup finds a destination; for those that are not in a hurry.
func (t *Table) Lookup(vrf VRF, addr netip.Addr) (Value, bool) {
	if addr.Is4() {
		return t.Lookup4(vrf, uint32(low(addr)))
	}
	k := newKey6(vrf, addr)
	return t.Lookup6(vrf, k[1], k[2])
}

// Set adds a destination or changes where it leads. v is not 0.
func (t *Table) Set(vrf VRF, addr netip.Addr, v Value) {
	if addr.Is4() {
		set(&t.v4, key4(vrf, uint32(low(addr))), v)
	} else {
		set(&t.v6, newKey6(vrf, addr), v)
	}
}

// Delete removes a destination, if it is there.
func (t *Table) Delete(vrf VRF, addr netip.Addr) {
	if addr.Is4() {
		del(&t.v4, key4(vrf, uint32(low(addr))))
	} else {
		del(&t.v6, newKey6(vrf, addr))
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

// Memory is what the table takes, in octets: 16 for a slot of IPv4 and 32 for
// one of IPv6. While destinations only come, between 2/5 and 4/5 of the slots are
// taken once there are a few: 20 to 40 and 40 to 80 octets a destination.
func (t *Table) Memory() int {
	n := 0
	if m := t.v4.Load(); m != nil {
		n += len(m.lines) * lineLen
	}
	if m := t.v6.Load(); m != nil {
		n += len(m.lines) * lineLen
	}
	return n
}

const (
	lineLen = 64 // octets: a cache line
	// used marks a slot that has a key, VRF 0 and address 0 included.
	used = 1 << 63
	// minLines are in the smallest table.
	minLines = 16
)

// key4 is VRF and address in one word.
func key4(vrf VRF, addr uint32) uint64 { return used | uint64(vrf&0x7fffffff)<<32 | uint64(addr) }

// key6 is the VRF and the two halves of the address.
type key6 [3]uint64

func newKey6(vrf VRF, addr netip.Addr) key6 {
	b := addr.As16()
	k := key6{0: used | uint64(vrf)}
	for i, octet := range b {
		k[1+i/8] = k[1+i/8]<<8 | uint64(octet)
	}
	return k
}

// low is the address's last 64 bits.
func low(addr netip.Addr) uint64 { return newKey6(0, addr.Unmap())[2] }

// mix multiplies to 128 bits and folds them: every bit of the key reaches the
// upper bits of the result, which choose the line.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xe7037ed1a0b428db)
	return hi ^ lo
}

// hashTable is what the writer does to either kind of table.
type hashTable[K any, T any] interface {
	*T
	// find returns the value of a key's slot, and nil if it has none.
	find(K) *atomic.Uint64
	// put takes the first free slot for a key that has none.
	put(K, Value)
	// room says whether a slot may still be taken.
	room() bool
	// grown is a copy with room, without the slots of what was deleted.
	grown() *T
	count(int)
}

func set[K, T any, P hashTable[K, T]](at *atomic.Pointer[T], k K, v Value) {
	m := P(at.Load())
	if m != nil {
		if slot := m.find(k); slot != nil {
			if slot.Swap(uint64(v)) == 0 {
				m.count(1)
			}
			return
		}
	}
	if m == nil || !m.room() {
		m = P(m.grown())
		m.put(k, v)
		at.Store((*T)(m))
		return
	}
	m.put(k, v)
}

func del[K, T any, P hashTable[K, T]](at *atomic.Pointer[T], k K) {
	m := P(at.Load())
	if m == nil {
		return
	}
	if slot := m.find(k); slot != nil && slot.Swap(0) != 0 {
		m.count(-1)
	}
}

// size is the number of lines for n destinations, so that they take at most
// half of the slots: there is half as much room again before the next copy.
func size(n, perLine int) int {
	lines := minLines
	for lines*perLine/2 < n {
		lines *= 2
	}
	return lines
}

// table4 is a hash table of lines that a probe reads whole: a cache miss for
// one destination, hardly ever two.
type table4 struct {
	lines []Line4 // a power of two of them
	shift int     // of a hash, so that it is a line's index
	taken int     // slots, deleted ones included; the writer's
	live  int     // without those; the writer's
}

// Line4 is a line of the table for IPv4.
type Line4 struct {
	keys   [4]atomic.Uint64 // 0 if free; then the rest of the line is free too
	values [4]atomic.Uint64 // 0 if deleted
}

func newTable4(lines int) *table4 {
	return &table4{lines: make([]Line4, lines), shift: 64 - bits.TrailingZeros(uint(lines))}
}

func (m *table4) lookup(key uint64) (Value, bool) {
	for at := mix(key, key) >> m.shift; ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l.keys {
			switch l.keys[i].Load() {
			case key:
				v := l.values[i].Load()
				return Value(v), v != 0
			case 0:
				return 0, false
			}
		}
	}
}

func (m *table4) find(key uint64) *atomic.Uint64 {
	for at := mix(key, key) >> m.shift; ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l.keys {
			switch l.keys[i].Load() {
			case key:
				return &l.values[i]
			case 0:
				return nil
			}
		}
	}
}

func (m *table4) put(key uint64, v Value) {
	for at := mix(key, key) >> m.shift; ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l.keys {
			if l.keys[i].Load() == 0 {
				l.values[i].Store(uint64(v)) // before the key makes it visible
				l.keys[i].Store(key)
				m.taken++
				m.live++
				return
			}
		}
	}
}

func (m *table4) room() bool { return m.taken < len(m.lines)*4*13/16 }

func (m *table4) count(by int) { m.live += by }

func (m *table4) grown() *table4 {
	if m == nil {
		return newTable4(minLines)
	}
	out := newTable4(size(m.live+1, 4))
	for at := range m.lines {
		l := &m.lines[at]
		for i := range l.keys {
			if k, v := l.keys[i].Load(), l.values[i].Load(); k != 0 && v != 0 {
				out.put(k, Value(v))
			}
		}
	}
	return out
}

// table6 is the same with two slots to a line.
type table6 struct {
	lines []line6
	shift int
	taken int
	live  int
}

type line6 [2]struct {
	vrf    atomic.Uint64 // with used; 0 if free
	hi, lo atomic.Uint64 // of the address; before vrf makes them visible
	value  atomic.Uint64 // 0 if deleted
}

func newTable6(lines int) *table6 {
	return &table6{lines: make([]line6, lines), shift: 64 - bits.TrailingZeros(uint(lines))}
}

func (k *key6) hash() uint64 { return mix(k[1]^k[0]<<1, k[2]) }

func (m *table6) lookup(k key6) (Value, bool) {
	if slot := m.find(k); slot != nil {
		v := slot.Load()
		return Value(v), v != 0
	}
	return 0, false
}

func (m *table6) find(k key6) *atomic.Uint64 {
	for at := k.hash() >> m.shift; ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l {
			s := &l[i]
			switch vrf := s.vrf.Load(); {
			case vrf == k[0] && s.hi.Load() == k[1] && s.lo.Load() == k[2]:
				return &s.value
			case vrf == 0:
				return nil
			}
		}
	}
}

func (m *table6) put(k key6, v Value) {
	for at := k.hash() >> m.shift; ; at++ {
		l := &m.lines[at&uint64(len(m.lines)-1)]
		for i := range l {
			if s := &l[i]; s.vrf.Load() == 0 {
				s.hi.Store(k[1])
				s.lo.Store(k[2])
				s.value.Store(uint64(v))
				s.vrf.Store(k[0])
				m.taken++
				m.live++
				return
			}
		}
	}
}

func (m *table6) room() bool { return m.taken < len(m.lines)*2*13/16 }

func (m *table6) count(by int) { m.live += by }

func (m *table6) grown() *table6 {
	if m == nil {
		return newTable6(minLines)
	}
	out := newTable6(size(m.live+1, 2))
	for at := range m.lines {
		for i := range m.lines[at] {
			s := &m.lines[at][i]
			if vrf, v := s.vrf.Load(), s.value.Load(); vrf != 0 && v != 0 {
				out.put(key6{vrf, s.hi.Load(), s.lo.Load()}, Value(v))
			}
		}
	}
	return out
}
