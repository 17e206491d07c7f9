package gso

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds b to the Internet checksum's running sum (RFC 1071), eight octets
// at a time with the carry brought round. b begins at an even octet.
func Sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 64 {
		_ = b[63] // BCE
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[0:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
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

// Fold brings a running sum down to 16 bits.
func Fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// without is the summand that takes v out of a running sum.
func without(v uint16) uint64 { return uint64(^v) }
