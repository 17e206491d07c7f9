package dataplane

import (
	"encoding/binary"

	"msee/dataplane/gso"
	"msee/dataplane/port"
)

// What check, the step, asks of a packet's headers.

// takeOpenChecksum says whether a checksum that was left to us, or to whoever gets
// the frame next, is behind the IP header. Elsewhere it would be written over
// addresses and tags that have been checked by then. SCTP's is completed here: a
// virtio-net header cannot say that it is a CRC, and the next would take it for a sum.
func takeOpenChecksum(p *packet) bool {
	from := p.Start + int(p.VNet.CsumStart)
	if from < p.l3+int(p.headerLen) || from+int(p.VNet.CsumOffset)+2 > p.End {
		return false
	}
	return p.VNet.CsumOffset != gso.SCTPSum || completeChecksum(p)
}

// checkOne is check in full.
func checkOne(p *packet) (v Verdict) {
	if p.etherType == etherTypeIPv4 {
		v = check4(p)
	} else {
		v = check6(p)
	}
	if v == proceed && (p.VNet.Flags&port.VNetNeedsCsum != 0 && !takeOpenChecksum(p) ||
		p.VNet.GSOType != port.GSONone && gso.TooFine(p.End-p.l3-int(p.headerLen), p.VNet.GSOSize)) {
		return DropMalformed
	}
	return v
}

func check4(p *packet) Verdict {
	b := p.Buf[p.l3:p.End]
	if len(b) < minIPv4 {
		return DropMalformed
	}
	h := (*[minIPv4]byte)(b)
	total := int(binary.BigEndian.Uint16(h[2:]))
	if total > len(b) {
		return DropMalformed
	}
	p.headerLen = (h[0] & 0x0f) * 4
	if h[0]>>4 != 4 || p.headerLen < minIPv4 || total < int(p.headerLen) {
		return DropMalformed
	}
	if !headerChecksumOK(b[:p.headerLen]) {
		return DropChecksum
	}
	p.dst = binary.BigEndian.Uint32(h[16:])
	if martian4(h[12]) || martian4(h[16]) {
		return DropMartian
	}
	p.End = p.l3 + total
	return proceed
}

func check6(p *packet) Verdict {
	b := p.Buf[p.l3:p.End] // local has checked the length
	if b[0]>>4 != 6 {
		return DropMalformed
	}
	p.v6, p.headerLen = true, minIPv6
	total := minIPv6 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return DropMalformed
	}
	if martian6([16]byte(b[8:24])) || martian6([16]byte(b[24:40])) {
		return DropMartian
	}
	p.End = p.l3 + total
	return proceed
}

// martian4 reports 0/8, 127/8 and 224/3 by an address's first octet.
func martian4(first byte) bool { return first-1 >= 223 || first == 127 }

// martian6 reports addresses a router must not forward from or to: multicast
// as a source, loopback, unspecified, IPv4-mapped (RFC 4291 §2.5). Link-local
// sources are rewrite's concern, as they may speak to us.
func martian6(a [16]byte) bool {
	if a[0] == 0xff {
		return true
	}
	return binary.BigEndian.Uint64(a[:8]) == 0 &&
		(binary.BigEndian.Uint64(a[8:])>>32 == 0xffff || binary.BigEndian.Uint64(a[8:]) <= 1)
}
