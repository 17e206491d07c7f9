package speaker

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"msee/bgp"
)

// updateWriter encodes UPDATEs for one peer.
type updateWriter struct {
	local      netip.Addr // the next hop where a route names none
	as         uint32     // ours, put in front of every path
	fourOctets bool       // the peer takes AS numbers of four octets
}

// maxSegment is the most AS numbers a segment can count (RFC 4271 §4.3).
const maxSegment = 255

var errAttrsTooLong = errors.New("path attributes do not fit into a message of 4096 octets")

// announce appends the messages that announce prefixes, which are of the
// session's family, with attributes a.
func (w *updateWriter) announce(b []byte, prefixes []netip.Prefix, a *bgp.Attrs) ([]byte, error) {
	attrs := w.attributes(nil, a)
	v6 := w.local.Is6()
	room := maxMessage - headerLen - 4 - len(attrs)
	if v6 {
		room -= 4 + 5 + 16 // MP_REACH_NLRI but its prefixes
	}
	if room < 1+16 {
		return b, errAttrsTooLong
	}
	for len(prefixes) > 0 {
		var nlri []byte
		nlri, prefixes = takePrefixes(prefixes, room)
		start := len(b)
		b = appendHeader(b, typeUpdate)
		b = append(b, 0, 0) // nothing withdrawn
		at := len(b)
		b = append(b, 0, 0)
		if v6 { // first, as RFC 7606 §5.1 asks
			b = appendAttrHead(b, flagOptional, attrMPReach, 5+16+len(nlri))
			b = append(b, 0, 2, 1, 16)
			hop := w.nextHop(a).As16()
			b = append(append(b, hop[:]...), 0)
			b = append(append(b, nlri...), attrs...)
			binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
		} else {
			b = append(b, attrs...)
			binary.BigEndian.PutUint16(b[at:], uint16(len(attrs)))
			b = append(b, nlri...)
		}
		binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	}
	return b, nil
}

// withdraw appends the messages that withdraw prefixes of the session's family.
func (w *updateWriter) withdraw(b []byte, prefixes []netip.Prefix) []byte {
	for len(prefixes) > 0 {
		var nlri []byte
		nlri, prefixes = takePrefixes(prefixes, maxMessage-headerLen-4-7)
		start := len(b)
		b = appendHeader(b, typeUpdate)
		if w.local.Is6() {
			b = append(b, 0, 0)
			b = binary.BigEndian.AppendUint16(b, uint16(4+3+len(nlri)))
			b = append(b, flagOptional|flagExtended, attrMPUnreach)
			b = binary.BigEndian.AppendUint16(b, uint16(3+len(nlri)))
			b = append(append(b, 0, 2, 1), nlri...)
		} else {
			b = binary.BigEndian.AppendUint16(b, uint16(len(nlri)))
			b = append(append(b, nlri...), 0, 0)
		}
		binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	}
	return b
}

// endOfRIB appends the marker of RFC 4724 §2.
func (w *updateWriter) endOfRIB(b []byte) []byte {
	start := len(b)
	b = appendHeader(b, typeUpdate)
	if b = append(b, 0, 0); w.local.Is6() {
		b = append(b, 0, 6, flagOptional, attrMPUnreach, 3, 0, 2, 1)
	} else {
		b = append(b, 0, 0)
	}
	binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	return b
}

func (w *updateWriter) nextHop(a *bgp.Attrs) netip.Addr {
	if a.NextHop.IsValid() && a.NextHop.Is4() == w.local.Is4() {
		return a.NextHop
	}
	return w.local
}

// attributes appends all but the multiprotocol ones, in order of their codes.
func (w *updateWriter) attributes(b []byte, a *bgp.Attrs) []byte {
	b = append(appendAttrHead(b, flagTransitive, attrOrigin, 1), a.Origin)
	path := append([]uint32{w.as}, a.ASPath...)
	b = w.appendPath(b, path)
	if w.local.Is4() {
		hop := w.nextHop(a).As4()
		b = append(appendAttrHead(b, flagTransitive, attrNextHop, 4), hop[:]...)
	}
	if a.HasMED {
		b = binary.BigEndian.AppendUint32(appendAttrHead(b, flagOptional, attrMED, 4), a.MED)
	}
	if n := len(a.Communities); n > 0 {
		b = appendAttrHead(b, flagOptional|flagTransitive, attrCommunities, 4*n)
		for _, c := range a.Communities {
			b = binary.BigEndian.AppendUint32(b, c)
		}
	}
	if !w.fourOctets && isWide(path) {
		b = appendAttrHead(b, flagOptional|flagTransitive, attrAS4Path, pathLen(path, 4))
		b = appendSegments(b, path, 4)
	}
	return b
}

func (w *updateWriter) appendPath(b []byte, path []uint32) []byte {
	octets := 2
	if w.fourOctets {
		octets = 4
	}
	b = appendAttrHead(b, flagTransitive, attrASPath, pathLen(path, octets))
	return appendSegments(b, path, octets)
}

// isWide reports whether an AS number needs four octets.
func isWide(path []uint32) bool {
	for _, as := range path {
		if as > 0xffff {
			return true
		}
	}
	return false
}

func pathLen(path []uint32, octets int) int {
	return (len(path)+maxSegment-1)/maxSegment*2 + len(path)*octets
}

func appendSegments(b []byte, path []uint32, octets int) []byte {
	for len(path) > 0 {
		n := min(len(path), maxSegment)
		b = append(b, segmentSequence, byte(n))
		for _, as := range path[:n] {
			switch {
			case octets == 4:
				b = binary.BigEndian.AppendUint32(b, as)
			case as > 0xffff:
				b = binary.BigEndian.AppendUint16(b, asTrans)
			default:
				b = binary.BigEndian.AppendUint16(b, uint16(as))
			}
		}
		path = path[n:]
	}
	return b
}

// appendAttrHead appends flags, code and length, the long form if needed. For
// MP_REACH_NLRI it always is, so that its size is known beforehand.
func appendAttrHead(b []byte, flags, code uint8, size int) []byte {
	if size > 255 || code == attrMPReach {
		b = append(b, flags|flagExtended, code)
		return binary.BigEndian.AppendUint16(b, uint16(size))
	}
	return append(b, flags, code, byte(size))
}

// appendHeader appends a header whose length is still to be set.
func appendHeader(b []byte, kind uint8) []byte {
	for range 16 {
		b = append(b, 0xff)
	}
	return append(b, 0, headerLen, kind)
}

// takePrefixes encodes as many prefixes as fit into room and returns the rest.
func takePrefixes(prefixes []netip.Prefix, room int) (nlri []byte, rest []netip.Prefix) {
	nlri = make([]byte, 0, min(room, len(prefixes)*17))
	for i, p := range prefixes {
		n := (p.Bits() + 7) / 8
		if len(nlri)+1+n > room {
			return nlri, prefixes[i:]
		}
		nlri = append(nlri, byte(p.Bits()))
		if p.Addr().Is4() {
			a := p.Addr().As4()
			nlri = append(nlri, a[:n]...)
		} else {
			a := p.Addr().As16()
			nlri = append(nlri, a[:n]...)
		}
	}
	return nlri, nil
}
