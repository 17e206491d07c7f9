package gso

import (
	"encoding/binary"

	"msee/dataplane/port"
)

// Plan says how one superframe is cut. It refers to the superframe's memory,
// which must not change while segments are written.
type Plan struct {
	// Segments is how many frames come of it, at least 1.
	Segments int
	// Len is the length of all of them but the last, which may be shorter.
	Len int

	headers
	frame []byte
	size  int // payload of all but the last, octets
	// Running sums over what is the same in all segments.
	ipSum, l4Sum uint64
	id           uint16 // IPv4 identification of the first
	seq          uint32 // TCP sequence number of the first
	flags        byte   // TCP, of the superframe
	noSum        bool   // UDP without checksum
	// Of a tunnel: where its IP and UDP headers begin, 0 without one, and the
	// running sum of an IPv4 header.
	outer, outerUDP int
	outerSum        uint64
}

// MaxSegments is how many frames a superframe may stand for. A full one with
// segments of 32 octets has as many, and no sender makes them that short; but the
// header is the sender's word, and cutting 64 KB into single octets would hold up
// all else that the thread does.
const MaxSegments = 2048

// TooFine reports whether segments of so many octets make too many, if any, of a
// superframe's payload.
func TooFine(payload int, size uint16) bool { return payload > MaxSegments*int(size) }

// Cut plans a superframe: TCP over IPv4 or IPv6, or UDP (VNetHdr.GSOType). The
// IP packet begins at frame[l3], and everything before it is repeated in front
// of every segment. It reports false if the frame is not what h says, or TooFine.
func Cut(frame []byte, l3 int, h port.VNetHdr) (p Plan, ok bool) {
	kind := h.GSOType &^ port.GSOECN
	want := byte(protoTCP)
	switch kind {
	case port.GSOTCPv4, port.GSOTCPv6:
	case port.GSOUDPL4:
		want = protoUDP
	default:
		return p, false
	}
	partial := h.Flags&port.VNetNeedsCsum != 0
	hint := 0
	if partial {
		hint = int(h.CsumStart)
	}
	var proto byte
	if p.headers, proto, ok = locate(frame, l3, hint); !ok || proto != want && proto != 0 || h.GSOSize == 0 {
		return p, false
	}
	if kind == port.GSOTCPv4 && p.v6 || kind == port.GSOTCPv6 && !p.v6 {
		return p, false
	}
	if !p.transport(frame, want == protoUDP) || partial && int(h.CsumOffset) != p.sumAt()-p.l4 {
		return p, false
	}
	if TooFine(p.end-p.payload, h.GSOSize) {
		return p, false
	}
	p.frame, p.size = frame[:p.end], int(h.GSOSize)
	p.Segments = max(1, (p.end-p.payload+p.size-1)/p.size)
	p.Len = p.payload + min(p.size, p.end-p.payload)
	p.sums(partial)
	return p, true
}

// CutTunnel is Cut for a superframe in a UDP tunnel such as VXLAN: the outer IP
// packet begins at frame[outer], the inner one at frame[l3]. The outer UDP
// checksum must be zero, and stays so; what the outer lengths say does not matter.
func CutTunnel(frame []byte, outer, l3 int, h port.VNetHdr) (p Plan, ok bool) {
	if p, ok = Cut(frame, l3, h); !ok || outer <= 0 || outer+minIPv4 > l3 {
		return p, false
	}
	p.outer = outer
	var proto byte
	switch ip := frame[outer:l3]; ip[0] >> 4 {
	case 4:
		p.outerUDP, proto = outer+int(ip[0]&0x0f)*4, ip[9]
		if p.outerUDP < outer+minIPv4 || p.outerUDP > l3 {
			return p, false
		}
		// Total length and checksum are out.
		p.outerSum = uint64(Fold(Sum(ip[:2], Sum(ip[4:10], Sum(frame[outer+12:p.outerUDP], 0)))))
	case 6:
		p.outerUDP, proto = outer+minIPv6, ip[min(6, len(ip)-1)]
	}
	return p, proto == protoUDP && p.outerUDP+udpLen <= l3 && binary.BigEndian.Uint16(frame[p.outerUDP+udpSum:]) == 0
}

// wrap brings the outer headers of a segment to its length.
func (p *Plan) wrap(dst []byte) {
	n := len(dst)
	if dst[p.outer]>>4 == 4 {
		total := uint16(n - p.outer)
		binary.BigEndian.PutUint16(dst[p.outer+2:], total)
		binary.BigEndian.PutUint16(dst[p.outer+10:], ^Fold(p.outerSum+uint64(total)))
	} else {
		binary.BigEndian.PutUint16(dst[p.outer+4:], uint16(n-p.outer-minIPv6))
	}
	binary.BigEndian.PutUint16(dst[p.outerUDP+4:], uint16(n-p.outerUDP))
}

// sums prepares the running sums: the headers without the fields that differ
// from segment to segment.
func (p *Plan) sums(partial bool) {
	if !p.v6 {
		ip := p.frame[p.l3:p.l4]
		p.id = binary.BigEndian.Uint16(ip[4:])
		// Total length, identification and checksum are out.
		p.ipSum = uint64(Fold(Sum(ip[:2], Sum(ip[6:10], Sum(ip[12:], 0)))))
	}
	field := binary.BigEndian.Uint16(p.frame[p.sumAt():])
	pseudo := p.pseudo(p.frame, 0)
	if partial {
		// The field is the pseudo-header's sum, which knows of the final
		// destination even where a routing header has it.
		pseudo = uint64(field) + without(uint16(p.end-p.l4))
	}
	l4 := p.frame[p.l4:p.payload]
	if p.udp {
		p.l4Sum = uint64(Fold(Sum(l4[:4], pseudo)))
		p.noSum = !partial && field == 0
		return
	}
	p.seq = binary.BigEndian.Uint32(l4[4:])
	p.flags = l4[13]
	// Sequence number, flags and checksum are out.
	acc := uint64(l4[12]) << 8
	acc = Sum(l4[:4], Sum(l4[8:12], Sum(l4[14:16], Sum(l4[18:], acc))))
	p.l4Sum = uint64(Fold(acc)) + uint64(Fold(pseudo))
}

// Segment writes segment i, of 0 to Segments−1, with its checksums complete, to
// the beginning of dst, and returns its length; 0 if dst does not hold Len
// octets.
func (p *Plan) Segment(i int, dst []byte) int {
	if len(dst) < p.Len || uint(i) >= uint(p.Segments) {
		return 0
	}
	from := p.payload + i*p.size
	to := min(from+p.size, p.end)
	n := copy(dst, p.frame[:p.payload])
	n += copy(dst[n:], p.frame[from:to])
	dst = dst[:n]
	if p.v6 {
		binary.BigEndian.PutUint16(dst[p.l3+4:], uint16(n-p.l3-minIPv6))
	} else {
		total, id := uint16(n-p.l3), p.id+uint16(i)
		ip := dst[p.l3:p.l4]
		binary.BigEndian.PutUint16(ip[2:], total)
		binary.BigEndian.PutUint16(ip[4:], id)
		binary.BigEndian.PutUint16(ip[10:], ^Fold(p.ipSum+uint64(total)+uint64(id)))
	}
	l4 := dst[p.l4:p.payload]
	acc := p.l4Sum + uint64(n-p.l4)
	if p.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(n-p.l4))
		acc += uint64(n - p.l4)
	} else {
		seq, flags := p.seq+uint32(i*p.size), p.flags
		if i > 0 {
			flags &^= tcpCWR // RFC 3168 §6.1.2: one reduction, told once
		}
		if i < p.Segments-1 {
			flags &^= tcpFIN | tcpPSH
		}
		binary.BigEndian.PutUint32(l4[4:], seq)
		l4[13] = flags
		acc += uint64(seq>>16) + uint64(seq&0xffff) + uint64(flags)
	}
	sum := ^Fold(Sum(dst[p.payload:], acc))
	switch {
	case p.noSum:
		sum = 0
	case p.udp:
		sum = nonZero(sum)
	}
	binary.BigEndian.PutUint16(dst[p.sumAt():], sum)
	if p.outer > 0 {
		p.wrap(dst)
	}
	return n
}
