// Package gso cuts superframes into the frames they stand for, joins frames
// into superframes again, and finishes or takes back checksums that were left
// to a device: what a kernel does between its stack and a plain device, and
// byte for byte as it does it (net/ipv4/tcp_offload.c, udp_offload.c).
//
// A superframe is one TCP segment, or a train of UDP datagrams of equal size,
// of up to 64 KiB, with a virtio-net header that says how to cut it (VIRTIO 1.2
// §5.1.6). All functions work on memory of the caller's and allocate nothing;
// they believe no length that a frame states. A Plan and a Table are for one
// goroutine at a time.
//
// Left out: UFO (a superframe of IP fragments), IPv6 jumbograms, joining frames in
// tunnels (the caller takes the outer headers off first).
package gso

import (
	"encoding/binary"
	"hash/crc32"

	"msee/dataplane/port"
)

const (
	minIPv4 = 20
	minIPv6 = 40
	minTCP  = 20
	udpLen  = 8

	protoTCP = 6
	protoUDP = 17

	// Where the checksum stands in a TCP and in a UDP header, octets.
	tcpSum = 16
	udpSum = 6

	maxIP = 65535 // octets of an IPv4 packet; IPv6 could have 40 more
)

// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpURG = 0x20
	tcpCWR = 0x80
)

// headers is where the parts of a frame begin, and what its kind is.
type headers struct {
	l3, l4, payload, end int // offsets in the frame; end is behind the IP packet
	v6, udp              bool
}

// locate finds the transport header of the IP packet at frame[l3:], and says of
// what protocol it is. hint is where it is said to begin, 0 if nobody said it;
// only then may IPv6 extension headers stand before it, and its protocol, left
// at 0, be the caller's to know.
func locate(frame []byte, l3, hint int) (h headers, proto byte, ok bool) {
	if l3 < 0 || l3+minIPv4 > len(frame) {
		return h, 0, false
	}
	h.l3 = l3
	switch ip := frame[l3:]; ip[0] >> 4 {
	case 4:
		h.l4 = l3 + int(ip[0]&0x0f)*4
		h.end = l3 + int(binary.BigEndian.Uint16(ip[2:]))
		proto = ip[9]
		if h.l4 < l3+minIPv4 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // a fragment
			return h, 0, false
		}
	case 6:
		if len(ip) < minIPv6 {
			return h, 0, false
		}
		h.v6 = true
		h.l4 = l3 + minIPv6
		h.end = h.l4 + int(binary.BigEndian.Uint16(ip[4:]))
		proto = ip[6]
		if hint > h.l4 && proto != protoTCP && proto != protoUDP {
			h.l4, proto = hint, 0
		}
	default:
		return h, 0, false
	}
	return h, proto, h.end <= len(frame) && (hint == 0 || hint == h.l4)
}

// transport completes h for a transport header of TCP or UDP; false if it does
// not fit into the packet.
func (h *headers) transport(frame []byte, udp bool) bool {
	h.udp = udp
	if udp {
		h.payload = h.l4 + udpLen
		return h.payload <= h.end
	}
	if h.l4+minTCP > h.end {
		return false
	}
	h.payload = h.l4 + int(frame[h.l4+12]>>4)*4
	return h.payload >= h.l4+minTCP && h.payload <= h.end
}

// sumAt is where the transport checksum stands.
func (h *headers) sumAt() int {
	if h.udp {
		return h.l4 + udpSum
	}
	return h.l4 + tcpSum
}

// pseudo is the running sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1)
// for a transport header and payload of length octets.
func (h *headers) pseudo(frame []byte, length int) uint64 {
	acc := uint64(protoTCP)
	if h.udp {
		acc = protoUDP
	}
	acc += uint64(length)
	if h.v6 {
		return Sum(frame[h.l3+8:h.l3+40], acc)
	}
	return Sum(frame[h.l3+12:h.l3+20], acc)
}

// SCTPSum is where the checksum, a CRC32c, stands in an SCTP header (RFC 9260
// §3.1). No other protocol that leaves its checksum to devices has it there.
const SCTPSum = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CompleteChecksum computes the transport checksum that the sender left to a
// device (VNetNeedsCsum); the field holds the pseudo-header's sum already, or is
// SCTP's, which covers no pseudo-header. It reports false, and leaves the frame
// alone, if h points outside of it.
func CompleteChecksum(frame []byte, h *port.VNetHdr) bool {
	from := int(h.CsumStart)
	at := from + int(h.CsumOffset)
	if h.CsumOffset == SCTPSum {
		if at+4 > len(frame) {
			return false
		}
		clear(frame[at : at+4])
		binary.LittleEndian.PutUint32(frame[at:], crc32.Checksum(frame[from:], castagnoli)) // RFC 9260 appendix A
		h.Flags &^= port.VNetNeedsCsum
		return true
	}
	if at+2 > len(frame) {
		return false
	}
	binary.BigEndian.PutUint16(frame[at:], nonZero(^Fold(Sum(frame[from:], 0))))
	h.Flags &^= port.VNetNeedsCsum
	return true
}

// LeaveChecksum is the opposite: it puts the pseudo-header's sum into the field
// of the TCP or UDP packet at frame[l3:], and leaves the rest to a device. It
// reports false if there is no such packet.
func LeaveChecksum(frame []byte, l3 int, h *port.VNetHdr) bool {
	at, proto, ok := locate(frame, l3, 0)
	if !ok || proto != protoTCP && proto != protoUDP || !at.transport(frame, proto == protoUDP) {
		return false
	}
	at.leave(frame, h)
	return true
}

func (h *headers) leave(frame []byte, v *port.VNetHdr) {
	binary.BigEndian.PutUint16(frame[h.sumAt():], Fold(h.pseudo(frame, h.end-h.l4)))
	v.Flags |= port.VNetNeedsCsum
	v.CsumStart = uint16(h.l4)
	v.CsumOffset = uint16(h.sumAt() - h.l4)
}

// nonZero is c, but never zero, which in UDP means no checksum (RFC 768). In
// TCP both are the same number.
func nonZero(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}
