package injector

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// Mutate returns an UPDATE that announces prefix with path attributes that are
// spoiled: flags, values and lengths that are wrong, attributes doubled, left out
// and made up, the last one longer than there is room. All of it is what RFC 7606
// has a speaker withdraw the route or discard the attribute for; what must end
// the session is not among it.
func (i *Injector) Mutate(r *rand.Rand, prefix netip.Prefix) []byte {
	nlri := append([]byte{byte(prefix.Bits())}, prefix.Addr().AsSlice()[:(prefix.Bits()+7)/8]...)
	type attribute struct {
		flags, kind byte
		value       []byte
	}
	as := binary.BigEndian.AppendUint32(nil, i.AS)
	list := []attribute{
		{0x40, 1, []byte{0}},
		{0x40, 2, append([]byte{2, 1}, as...)},
		{0x80, 4, []byte{0, 0, 0, 1}},
		{0xc0, 8, []byte{0xfd, 0xe9, 0, 1}},
		{0xc0, 7, append(as[:4:4], 192, 0, 2, 1)},
	}
	if i.Local.Is4() {
		list = append(list, attribute{0x40, 3, i.Local.AsSlice()})
	}
	for range 1 + r.IntN(3) {
		at := r.IntN(len(list))
		a := &list[at]
		a.value = append([]byte(nil), a.value...)
		switch r.IntN(6) {
		case 0:
			a.flags = byte(r.Uint32()) &^ 0x10 // not the extended length
		case 1:
			for j := range a.value {
				a.value[j] = byte(r.Uint32())
			}
		case 2:
			a.value = a.value[:r.IntN(len(a.value)+1)]
		case 3:
			for range r.IntN(12) {
				a.value = append(a.value, byte(r.Uint32()))
			}
		case 4:
			list = append(list, *a)
		case 5:
			if a.kind = byte(r.IntN(256)); a.kind == 14 || a.kind == 15 {
				a.kind = 3
			}
		}
	}
	var attrs []byte
	if i.Local.Is6() { // MP_REACH_NLRI comes first (RFC 7606 §5.1), so that its prefix is always found
		mp := append(append([]byte{0, 2, 1, 16}, i.Local.AsSlice()...), 0)
		if r.IntN(4) == 0 {
			mp[4+r.IntN(16)] = byte(r.Uint32()) // a next hop of nobody
		}
		mp = append(mp, nlri...)
		attrs, nlri = append([]byte{0x80, 14, byte(len(mp))}, mp...), nil
	}
	for n, a := range list {
		if a.kind == 0 || a.kind > 8 {
			a.flags |= 0x80 // one that is well-known and not known ends the session
		}
		length := byte(len(a.value))
		if n == len(list)-1 && r.IntN(8) == 0 {
			length += byte(1 + r.IntN(100))
		}
		attrs = append(append(attrs, a.flags, a.kind, length), a.value...)
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	return message(bgpUpdate, append(append(body, attrs...), nlri...))
}

// Send writes messages as they are.
func (i *Injector) Send(messages []byte) error {
	_, err := i.conn.Write(messages)
	return err
}
