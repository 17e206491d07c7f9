package dataplane

import (
	"encoding/binary"
	"math/bits"

	"msee/dataplane/gso"
)

// headerChecksumOK verifies an IPv4 header; h is exactly the header. A correct
// header, its checksum included, sums to all ones.
func headerChecksumOK(h []byte) bool { return gso.Fold(gso.Sum(h, 0)) == 0xffff }

// plainHeader is an IPv4 header without options, in little-endian words, each of which
// is loaded once.
type plainHeader struct {
	a, b uint64
	c    uint32
}

func readPlain(h *[minIPv4]byte) plainHeader {
	return plainHeader{binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint32(h[16:])}
}

// total is the total length.
func (h plainHeader) total() int { return int(bits.ReverseBytes16(uint16(h.a >> 16))) }

// dst is the destination.
func (h plainHeader) dst() uint32 { return bits.ReverseBytes32(h.c) }

// plain says whether it is one: version 4, without options, not shorter than itself.
func (h plainHeader) plain() bool { return byte(h.a) == 4<<4|minIPv4/4 && h.total() >= minIPv4 }

// routable says whether its addresses may be routed.
func (h plainHeader) routable() bool { return !martian4(byte(h.b>>32)) && !martian4(byte(h.c)) }

// checksumOK is headerChecksumOK. All ones are all ones in any byte order.
func (h plainHeader) checksumOK() bool {
	acc, carry := bits.Add64(h.a, h.b, 0)
	acc, carry = bits.Add64(acc, uint64(h.c), carry)
	acc += carry
	acc = acc>>32 + acc&0xffffffff // 33 bits
	acc = acc>>16 + acc&0xffff     // 18 bits
	return acc%0xffff == 0         // never 0: the version is not
}
