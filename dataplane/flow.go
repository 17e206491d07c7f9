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

	// IPv6 extension headers.
	protoHopByHop    = 0
	protoRouting     = 43
	protoFragment    = 44
	protoAH          = 51
	protoDestination = 60
)

// flowHash spreads flows over the members of a next-hop group: addresses,
// protocol and, in TCP and UDP, ports. Fragments have no ports to offer, and
// must all go one way: none of a fragmented packet's pieces uses them. Where there are
// none, IPv6's flow label tells flows apart (RFC 6437 §3); where there are, it does not
// count, as hosts change it within a connection that makes no progress.
func flowHash(p []byte, v6 bool) uint32 {
	var h uint64
	var proto byte
	var l4 int
	var label uint64
	if v6 {
		label = uint64(binary.BigEndian.Uint32(p)&0xfffff) << 8
		h = mix(binary.LittleEndian.Uint64(p[8:])^binary.LittleEndian.Uint64(p[16:])*3,
			binary.LittleEndian.Uint64(p[24:])^binary.LittleEndian.Uint64(p[32:])*3)
		var whole bool
		if proto, l4, whole = upperLayer6(p); !whole {
			return finish(h, label|protoFragment)
		}
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
	return finish(h, label|uint64(proto))
}

// maxExtensions is how many extension headers are walked at most. What is behind
// more hashes by the protocol number of the last one looked at.
const maxExtensions = 8

// upperLayer6 finds the upper-layer header of an IPv6 packet behind its extension
// headers (RFC 8200 §4): its protocol, and where it begins. If the packet is a
// fragment, whole is false, and what begins there perhaps no header. The extension
// headers are walked, not processed: those of every hop are for nodes that are
// configured to (RFC 8200 §4.3), the others for the destination. What ends the walk
// early may be one of them still: see isExtension.
func upperLayer6(p []byte) (proto byte, at int, whole bool) {
	proto, at, whole = p[6], minIPv6, true
	for range maxExtensions {
		if len(p) < at+8 {
			break
		}
		length := 8
		switch proto {
		case protoHopByHop, protoRouting, protoDestination:
			length += int(p[at+1]) * 8
		case protoAH:
			length = (int(p[at+1]) + 2) * 4 // RFC 4302 §2.2
		case protoFragment:
			whole = false
		default:
			return proto, at, whole
		}
		proto, at = p[at], at+length
	}
	return proto, at, whole
}

// isExtension says whether a protocol is one of the extension headers that
// upperLayer6 walks: of what it returns, that there were more of them.
func isExtension(proto byte) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAH, protoDestination:
		return true
	}
	return false
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
