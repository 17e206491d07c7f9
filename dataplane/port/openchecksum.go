package port

import (
	"encoding/binary"
	"math/bits"
)

// openChecksum finds out whether the transport checksum of a frame was left to
// the device: the far end of a veth never fills it in, and AF_XDP says nothing
// of it. Such a field holds the sum of the pseudo-header alone, which one frame
// in 65,536 has by chance too; that one is recognised by its sum being right.
// It returns the header that AF_PACKET would have given the frame.
//
// What it does not find are checksums inside tunnels, and SCTP's.
func openChecksum(b []byte) (h VNetHdr) {
	at, etherType := 14, etherTypeAt(b, 12)
	for range 2 {
		if etherType != 0x8100 && etherType != 0x88a8 {
			break
		}
		etherType = etherTypeAt(b, at+2)
		at += 4
	}
	var l4, end int
	var proto byte
	var pseudo uint64
	switch {
	case etherType == 0x0800 && len(b) >= at+20:
		ip := b[at:]
		l4, end, proto = at+int(ip[0]&15)*4, at+int(binary.BigEndian.Uint16(ip[2:])), ip[9]
		if ip[0]>>4 != 4 || l4 < at+20 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // a fragment has its checksum
			return h
		}
		pseudo = uint64(binary.BigEndian.Uint32(ip[12:])) + uint64(binary.BigEndian.Uint32(ip[16:]))
	case etherType == 0x86dd && len(b) >= at+40:
		ip := b[at:]
		l4, end, proto = at+40, at+40+int(binary.BigEndian.Uint16(ip[4:])), ip[6]
		for i := 8; i < 40; i += 4 {
			pseudo += uint64(binary.BigEndian.Uint32(ip[i:]))
		}
		// Hop-by-hop and destination options (RFC 8200 §4.1): no other header
		// stands before a checksum that is left open.
		for range 4 {
			if proto != 0 && proto != 60 || l4+8 > len(b) {
				break
			}
			proto, l4 = b[l4], l4+8+int(b[l4+1])*8
		}
	default:
		return h
	}
	var field int
	switch proto {
	case 6:
		field = 16
	case 17:
		field = 6
	default:
		return h
	}
	if end > len(b) || l4+field+2 > end {
		return h
	}
	pseudo += uint64(proto) + uint64(end-l4)
	sum := binary.BigEndian.Uint16(b[l4+field:])
	if sum != fold(pseudo) || isComplete(b[l4:end], pseudo) {
		return h
	}
	return VNetHdr{Flags: VNetNeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(field)}
}

// etherTypeAt reads the EtherType at an offset, 0 if the frame ends before it.
func etherTypeAt(b []byte, at int) uint16 {
	if at+2 > len(b) {
		return 0
	}
	return binary.BigEndian.Uint16(b[at:])
}

// isComplete reports whether a segment's checksum is right.
func isComplete(segment []byte, pseudo uint64) bool { return wordsOf(segment, pseudo) == 0xffff }

// finishChecksum fills in the checksum of a frame that was left open. A sum of 0
// is written as 0xffff, which means the same and in UDP not that there is none.
func finishChecksum(b []byte, h *VNetHdr) {
	sum := ^wordsOf(b[h.CsumStart:], 0)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[h.CsumStart+h.CsumOffset:], sum)
}

// canFinish reports whether an open checksum lies in a frame of n octets, and is one
// that finishChecksum can make: SCTP's is a CRC.
func (h *VNetHdr) canFinish(n int) bool {
	return h.CsumOffset != sctpSum && int(h.CsumStart)+int(h.CsumOffset)+2 <= n
}

// sctpSum is where the checksum stands in an SCTP header (RFC 9260 §3.1).
const sctpSum = 8

// wordsOf is the one's complement sum of 16-bit words (RFC 1071).
func wordsOf(b []byte, sum uint64) uint16 {
	carry := uint64(0)
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
	}
	var rest [8]byte
	copy(rest[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(rest[:]), carry)
	return fold(uint64(fold(sum)) + carry)
}

// fold adds up the 16-bit words of a sum with their carries.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}
