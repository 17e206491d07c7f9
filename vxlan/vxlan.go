// Package vxlan is what a VXLAN tunnel puts in front of an Ethernet frame (RFC
// 7348): an outer IPv4 or IPv6 header, UDP and the VXLAN header; composed once
// per tunnel, and read off what arrives.
//
// The outer UDP checksum is zero, with IPv6 too (RFC 7348 §5, RFC 6935 §5): who
// ends the tunnel must take that (in Linux: udp6zerocsumrx). Of what is received
// it is not verified, which RFC 7348 §4.1 leaves open: the inner packet has
// checksums of its own.
package vxlan

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Port is the UDP port that tunnels end at.
const Port = 4789

const (
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8
	vxlanLen = 8
	ethLen   = 14

	protoUDP = 17
	hopLimit = 64
	flagI    = 0x08 // the VNI is valid (RFC 7348 §5)
)

// MaxVNI is the highest VXLAN network identifier.
const MaxVNI = 1<<24 - 1

// MaxLen is the length of the longest Header.
const MaxLen = ipv6Len + udpLen + vxlanLen

// Overhead is by how much the inner IP packet is shorter than the outer one,
// octets: 50 or 70.
func Overhead(v6 bool) int {
	if v6 {
		return MaxLen + ethLen
	}
	return ipv4Len + udpLen + vxlanLen + ethLen
}

// Header is a composed header of a tunnel: outer IP, UDP and VXLAN, without what
// differs from frame to frame.
type Header struct {
	b   [MaxLen]byte
	len int
	sum uint32 // IPv4: of what its checksum covers and is the same in all
}

// NewHeader composes the header of frames in network vni, which is at most
// MaxVNI, from src to dst, of the same family.
func NewHeader(src, dst netip.Addr, vni uint32) Header {
	var h Header
	if src.Is4() {
		h.len = ipv4Len
		h.b[0] = 0x45
		h.b[6] = 0x40 // DF: never cut, so no identification is needed (RFC 6864 §4)
		h.b[8], h.b[9] = hopLimit, protoUDP
		copy(h.b[12:], src.AsSlice())
		copy(h.b[16:], dst.AsSlice())
		for i := 0; i < ipv4Len; i += 2 {
			h.sum += uint32(binary.BigEndian.Uint16(h.b[i:]))
		}
	} else {
		h.len = ipv6Len
		h.b[0], h.b[6], h.b[7] = 0x60, protoUDP, hopLimit
		copy(h.b[8:], src.AsSlice())
		copy(h.b[24:], dst.AsSlice())
	}
	udp := h.b[h.len:]
	binary.BigEndian.PutUint16(udp[2:], Port)
	udp[udpLen] = flagI
	binary.BigEndian.PutUint32(udp[udpLen+4:], vni<<8)
	h.len += udpLen + vxlanLen
	return h
}

// Len returns the length of the header in octets.
func (h *Header) Len() int { return h.len }

// V6 reports whether the outer packet is IPv6.
func (h *Header) V6() bool { return h.len == MaxLen }

// Put writes the header so that it ends where the inner frame begins, and
// returns where it begins. The inner frame is b[inner:end]; class is its
// packet's traffic class, which the outer one gets (RFC 6040 §4.1: that is what
// keeps congestion marks), and flow a hash of its flow, the source port (RFC
// 7348 §5). There must be MaxLen octets in front of inner.
func (h *Header) Put(b []byte, inner, end int, class byte, flow uint32) int {
	if h.V6() {
		start := inner - MaxLen
		dst := (*[MaxLen]byte)(b[start:inner])
		*dst = h.b
		length := uint16(end - start - ipv6Len)
		dst[0] |= class >> 4
		dst[1] = class << 4
		binary.BigEndian.PutUint16(dst[4:], length)
		putUDP(dst[ipv6Len:], length, flow)
		return start
	}
	const n = ipv4Len + udpLen + vxlanLen
	start := inner - n
	dst := (*[n]byte)(b[start:inner])
	*dst = [n]byte(h.b[:n])
	length := uint16(end - start)
	dst[1] = class
	binary.BigEndian.PutUint16(dst[2:], length)
	sum := h.sum + uint32(class) + uint32(length)
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(dst[10:], ^uint16(sum+sum>>16))
	putUDP(dst[ipv4Len:], length-ipv4Len, flow)
	return start
}

// putUDP completes the UDP header. Source ports are of the dynamic range, 49152
// and up.
func putUDP(udp []byte, length uint16, flow uint32) {
	binary.BigEndian.PutUint16(udp, 0xc000|uint16(bits.RotateLeft32(flow, 16)^flow)&0x3fff)
	binary.BigEndian.PutUint16(udp[4:], length)
}

// Packet is what Parse finds.
type Packet struct {
	VNI        uint32
	Inner, End int // the inner frame is ip[Inner:End]
}

// Result says what Parse makes of a packet.
type Result uint8

const (
	Other     Result = iota // not VXLAN: another protocol or port, or a fragment
	Malformed               // VXLAN, but its lengths are wrong or it has no VNI
	Tunnelled               // VXLAN
)

// Parse reads a packet with an IP header of headerLen octets, extension headers
// not included, whose version and lengths have been checked. A fragment is
// Other: tunnel endpoints must not fragment (RFC 7348 §4.3).
func Parse(ip []byte, headerLen int) (p Packet, r Result) {
	proto := ip[9]
	if ip[0]>>4 == 6 {
		proto = ip[6]
	} else if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // MF or an offset
		return p, Other
	}
	if proto != protoUDP || len(ip) < headerLen+4 || binary.BigEndian.Uint16(ip[headerLen+2:]) != Port {
		return p, Other
	}
	udp := ip[headerLen:]
	if len(udp) < udpLen+vxlanLen+ethLen {
		return p, Malformed
	}
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpLen+vxlanLen+ethLen || length > len(udp) || udp[udpLen]&flagI == 0 {
		return p, Malformed
	}
	p.VNI = binary.BigEndian.Uint32(udp[udpLen+4:]) >> 8
	p.Inner, p.End = headerLen+udpLen+vxlanLen, headerLen+length
	return p, Tunnelled
}

// Explicit congestion notification, the lower two bits of the traffic class (RFC
// 3168 §5).
const (
	notECT = 0
	ect1   = 1
	ce     = 3
)

// Decap brings a congestion mark that the outer packet has got on its way, class
// being its traffic class, to the inner IP packet (RFC 6040 §4.2). It reports
// false if the packet must be dropped: it met congestion, and its sender would
// not understand that. What is no IP packet is left as it is.
func Decap(class byte, ip []byte) bool {
	outer := class & 3
	if outer != ce && outer != ect1 || len(ip) < ipv4Len {
		return true
	}
	v4 := ip[0]>>4 == 4
	inner := ip[1] & 3
	if !v4 {
		if inner = ip[1] >> 4 & 3; ip[0]>>4 != 6 {
			return true
		}
	}
	switch {
	case inner == notECT:
		return outer != ce
	case inner == ce || inner == outer:
		return true
	}
	if !v4 {
		ip[1] = ip[1]&^0x30 | outer<<4
		return true
	}
	// RFC 1624 (eqn. 3), for the one word that differs.
	before := uint32(binary.BigEndian.Uint16(ip))
	ip[1] = ip[1]&^3 | outer
	sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + (before ^ 0xffff) + uint32(binary.BigEndian.Uint16(ip))
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	return true
}
