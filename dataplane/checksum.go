package dataplane

import (
	"encoding/binary"
	"math/bits"

	"msee/dataplane/gso"
)

// headerChecksumOK verifies an IPv4 header; h is exactly the header. A correct
// header, its checksum included, sums to all ones.
func headerChecksumOK(h []byte) bool { return gso.Fold(gso.Sum(h, 0)) == 0xffff }

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
