package dataplane

import (
	"encoding/binary"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// IPv4's flags and offset, the 16 bits at octet 6 (RFC 791 §3.1).
const (
	flagDF         = 0x4000
	flagMF         = 0x2000
	fragmentOffset = 0x1fff // in units of 8 octets
	fragmentEnd    = (fragmentOffset + 1) * 8
)

// piecePool is how many pieces and copies wait for one transmission at most.
const piecePool = 64

// piece returns a frame of injectBufLen octets to be filled and put in line. It
// may have to send what is in line already.
func (w *Worker) piece() *port.Frame {
	if len(w.pieces) == cap(w.pieces) {
		w.transmit() // and with that the pieces before are gone
		w.pieces = w.pieces[:0]
	}
	i := len(w.pieces)
	w.pieces = w.pieces[:i+1]
	f := &w.pieces[i]
	if f.Buf == nil {
		f.Buf = make([]byte, injectBufLen)
	}
	return f
}

// mayFragment says whether a router may cut the packet: IPv4 without DF. IPv6
// is cut by its sender alone (RFC 8200 §4.5), and superframes are of TCP,
// which sets DF, or of a sender that can make smaller segments.
func mayFragment(p *packet) bool {
	return !p.v6 && p.VNet.GSOType == port.GSONone && binary.BigEndian.Uint16(p.Buf[p.l3+6:])&flagDF == 0
}

// tooLong reports whether a packet is longer than its way out takes. It has passed
// rewrite, and so may be cut.
func (p *packet) tooLong() bool { return p.VNet.GSOType == port.GSONone && p.End-p.l3 > p.out.Out.MTU }

// fragment sends an IPv4 packet in pieces that fit the egress MTU (RFC 791
// §3.2).
func (w *Worker) fragment(p *packet) Verdict {
	if p.VNet.Flags&port.VNetNeedsCsum != 0 && !completeChecksum(p) {
		return DropMalformed // the pieces have no checksum of their own to leave to a device
	}
	q := w.egressTo(p.out.Out.Port)
	if q == nil {
		return DropEgressDown
	}
	first := p.ip()[:p.headerLen]
	header := first
	payload := p.ip()[p.headerLen:]
	field := binary.BigEndian.Uint16(first[6:])
	offset := int(field&fragmentOffset) * 8
	if offset+len(payload) > fragmentEnd {
		return DropMalformed // offsets of its pieces would run into the flags
	}
	for len(payload) > 0 {
		n := min(len(payload), (p.out.Out.MTU-len(header))&^7)
		if n <= 0 {
			return DropTooBig // an MTU that holds no header and 8 octets
		}
		flags := field & flagMF // of the packet, if it is a fragment itself
		if n < len(payload) {
			flags = flagMF
		}
		if !w.sendFragment(p, q, header, payload[:n], flags|uint16(offset/8)) {
			return DropUnresolved
		}
		payload, offset = payload[n:], offset+n
		header = w.laterHeader(first)
	}
	return Fragmented
}

// sendFragment queues one piece. It reports false if the tunnel that it is to go
// into leads nowhere now.
func (w *Worker) sendFragment(p *packet, q *egressQueue, header, payload []byte, field uint16) bool {
	f := w.piece()
	l3 := port.Headroom + vlan.EthLen
	b := f.Buf[l3:]
	copy(b, header)
	total := len(header) + copy(b[len(header):], payload)
	b[0] = 0x40 | byte(len(header)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	binary.BigEndian.PutUint16(b[6:], field)
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], ^gso.Fold(gso.Sum(b[:len(header)], 0)))
	*f = port.Frame{Buf: f.Buf, End: l3 + total}
	if !p.out.put(f, l3, p.etherType) {
		return false
	}
	q.control = append(q.control, f)
	p.out.Out.Counters.TxFrames.Add(1)
	p.out.Out.Counters.TxBytes.Add(uint64(total))
	return true
}

// laterHeader is the header of the pieces behind the first: with those options
// only that are marked to be copied (RFC 791 §3.1).
func (w *Worker) laterHeader(first []byte) []byte {
	if len(first) == minIPv4 {
		return first
	}
	h := append(w.header[:0], first[:minIPv4]...)
	for o := first[minIPv4:]; len(o) > 0 && o[0] != 0; { // 0 ends the list
		n := 1
		if o[0] != 1 { // 1 is padding and has no length
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				break
			}
			n = int(o[1])
		}
		if o[0]&0x80 != 0 {
			h = append(h, o[:n]...)
		}
		o = o[n:]
	}
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	return h
}
