package dataplane

import (
	"encoding/binary"

	"msee/vlan"
)

// tagged is how the frame before was tagged, as most come in rows from one
// subinterface: those with the same tags and EtherType need not be parsed.
type tagged struct {
	in           *Subinterface
	hidden       uint32 // the tag that came out of band
	inline, mask uint64 // the octets behind the addresses, and which of them were looked at; inline is 0 if there was no frame before
	length       int
	etherType    uint16
}

// What Parse looks at of the eight octets behind the addresses, as this processor
// loads them: an EtherType, or a tag and the EtherType behind it.
var (
	untagged = binary.NativeEndian.Uint64([]byte{0xff, 0xff, 0, 0, 0, 0, 0, 0})
	oneTag   = binary.NativeEndian.Uint64([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0})
)

// as reports whether the frame is tagged as the one before. (Inlined.)
func (t *tagged) as(p *packet) bool {
	return p.tags&t.mask == t.inline && t.inline != 0 && uint32(p.OuterTPID)<<16|uint32(p.OuterTCI) == t.hidden
}

// note keeps how a frame is tagged, unless Parse has looked at more than as does.
func (t *tagged) note(p *packet, length int) {
	if length > vlan.EthLen+vlan.TagLen {
		return
	}
	t.mask = oneTag
	if length == vlan.EthLen {
		t.mask = untagged
	}
	t.in, t.length, t.etherType = p.in, length, p.etherType
	t.hidden, t.inline = uint32(p.OuterTPID)<<16|uint32(p.OuterTCI), p.tags&t.mask
}
