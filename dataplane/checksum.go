package dataplane

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to the Internet checksum's running sum (RFC 1071), eight octets
// at a time with the carry brought round.
func sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[0:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 2 {
		acc, carry = bits.Add64(acc, uint64(binary.BigEndian.Uint16(b)), carry)
		b = b[2:]
	}
	if len(b) == 1 { // padded with a zero octet on the right
		acc, carry = bits.Add64(acc, uint64(b[0])<<8, carry)
	}
	acc, carry = bits.Add64(acc, 0, carry)
	return acc + carry
}

// fold brings a running sum down to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// headerChecksumOK verifies an IPv4 header; h is exactly the header. A correct
// header, its checksum included, sums to all ones.
func headerChecksumOK(h []byte) bool { return fold(sum(h, 0)) == 0xffff }

// plainChecksumOK is headerChecksumOK of a header without options. All ones are
// all ones in any byte order, so the processor's own does.
func plainChecksumOK(h *[minIPv4]byte) bool {
	acc, carry := bits.Add64(binary.NativeEndian.Uint64(h[:8]), binary.NativeEndian.Uint64(h[8:16]), 0)
	acc, carry = bits.Add64(acc, uint64(binary.NativeEndian.Uint32(h[16:])), carry)
	acc += carry
	acc = acc>>32 + acc&0xffffffff // 33 bits
	acc = acc>>16 + acc&0xffff     // 18 bits
	return acc%0xffff == 0         // never 0: the version is not
}
