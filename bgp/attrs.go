package bgp

import (
	"encoding/binary"
	"slices"
)

// Equal reports whether a and b say the same.
func (a *Attrs) Equal(b *Attrs) bool {
	return a.NextHop == b.NextHop && a.MAC == b.MAC && a.Origin == b.Origin &&
		a.HasMED == b.HasMED && a.MED == b.MED &&
		slices.Equal(a.ASPath, b.ASPath) && slices.Equal(a.Communities, b.Communities)
}

// attrSet is the one copy of equal attributes in a RIB: a full table has a
// million routes, but only some thousand sets.
type attrSet struct {
	Attrs
	key      string
	refs     int
	exported [exportVariants]*Attrs // what each kind of export makes of it, once asked
}

func (s *attrSet) export(as exportAs) *Attrs {
	if s.exported[as] == nil {
		s.exported[as] = as.attrs(&s.Attrs)
	}
	return s.exported[as]
}

// attrTable interns attributes. Sets are counted, not left to the garbage
// collector: a peer that flaps with ever new paths leaves nothing behind.
type attrTable struct {
	sets map[string]*attrSet
	buf  []byte
}

// intern returns the set equal to a, and counts the caller as a holder of it.
func (t *attrTable) intern(a *Attrs) *attrSet {
	t.buf = appendKey(t.buf[:0], a)
	s := t.sets[string(t.buf)]
	if s == nil {
		s = &attrSet{Attrs: *a, key: string(t.buf)}
		t.sets[s.key] = s
	}
	s.refs++
	return s
}

// release takes back what intern or hold counted. The set stays readable.
func (t *attrTable) release(s *attrSet) {
	if s.refs--; s.refs == 0 {
		delete(t.sets, s.key)
	}
}

func (s *attrSet) hold() *attrSet {
	s.refs++
	return s
}

// appendKey appends a's value in an encoding no other value has.
func appendKey(b []byte, a *Attrs) []byte {
	hop := a.NextHop.As16() // 4in6 and 4 differ by BitLen
	b = append(b, hop[:]...)
	b = append(b, a.MAC[:]...)
	b = append(b, byte(a.NextHop.BitLen()), a.Origin, byte(oneIf(a.HasMED)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.NextHop.Zone())))
	b = append(b, a.NextHop.Zone()...)
	b = binary.BigEndian.AppendUint32(b, a.MED)
	b = binary.BigEndian.AppendUint32(b, uint32(len(a.ASPath)))
	for _, as := range a.ASPath {
		b = binary.BigEndian.AppendUint32(b, as)
	}
	for _, c := range a.Communities {
		b = binary.BigEndian.AppendUint32(b, c)
	}
	return b
}
