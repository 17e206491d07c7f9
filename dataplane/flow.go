package dataplane

import (
	"encoding/binary"
	"math/bits"
)

// IP protocol numbers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// flowHash spreads flows over the members of a next-hop group: addresses,
// protocol and, in TCP and UDP, ports. Fragments have no ports to offer, and
// must all go one way: none of a fragmented packet's pieces uses them.
func flowHash(p []byte, v6 bool) uint32 {
	var h uint64
	var proto byte
	var l4 int
	if v6 {
		h = mix(binary.LittleEndian.Uint64(p[8:])^binary.LittleEndian.Uint64(p[16:])*3,
			binary.LittleEndian.Uint64(p[24:])^binary.LittleEndian.Uint64(p[32:])*3)
		proto, l4 = p[6], 40
	} else {
		h = binary.LittleEndian.Uint64(p[12:])
		proto, l4 = p[9], int(p[0]&0x0f)*4
		if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 { // MF or an offset
			return finish(h, uint64(proto))
		}
	}
	if (proto == protoTCP || proto == protoUDP) && len(p) >= l4+4 {
		return finish(h, uint64(binary.LittleEndian.Uint32(p[l4:]))<<8|uint64(proto))
	}
	return finish(h, uint64(proto))
}

// mix multiplies to 128 bits and folds them: every input bit reaches the
// middle of the result.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xe7037ed1a0b428db)
	return hi ^ lo
}

func finish(a, b uint64) uint32 {
	h := mix(a, b)
	return uint32(h ^ h>>32)
}
