package dataplane

import (
	"encoding/binary"

	"msee/dataplane/port"
	"msee/vlan"
)

// A frame's way through the router, top to bottom. Each step passes the frame
// on (proceed) or settles its verdict; forward is the whole list.
//
//	admit     length, destination MAC; EAPOL → the port's KaY
//	demux     tags → subinterface → VRF
//	local     ARP and IPv6 link scope → the kernel
//	check     version, lengths, header checksum, addresses
//	lookup    longest prefix match → next-hop group → adjacency; ours → the kernel
//	rewrite   TTL, MTU, MACs and tags
//	transmit  queued for the egress port, sent with the batch
//
// Drops that the sender should hear of (no route, TTL, too big) are answered
// in icmp.go; what the kernel should see is handed over in punt.go; what has
// to be cut is cut in fragment.go.

// EtherTypes of payloads.
const (
	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	etherTypePAE  = 0x888e // EAPOL (IEEE 802.1X-2020 §11.1.4)
)

// minIPv4 and minIPv6 are the shortest headers, octets.
const (
	minIPv4 = 20
	minIPv6 = 40
)

// packet is what the steps learn of the frame at hand. A worker has one and
// uses it again for each frame; a field is valid from the step named.
type packet struct {
	*port.Frame
	in        *Subinterface // demux
	etherType uint16        // demux
	l3        int           // demux: where the payload begins in Buf
	group     bool          // admit: the destination MAC is a group address
	v6        bool          // check
	headerLen int           // check: of the IP header; IPv6 without its extension headers
	out       *Rewrite      // lookup
	generated bool          // ours, not received: no errors about it, and its TTL is as it should be
}

// ip returns the IP packet. Valid from check on.
func (p *packet) ip() []byte { return p.Buf[p.l3:p.End] }

// forward runs the steps over one frame. The verdict Transmit is provisional:
// it stands for "queued", and transmit settles it.
func (w *Worker) forward(p *packet) Verdict {
	if v := w.admit(p); v != proceed {
		return v
	}
	if v := w.demux(p); v != proceed {
		return v
	}
	if v := w.local(p); v != proceed {
		return v
	}
	if v := check(p); v != proceed {
		return v
	}
	if v := w.lookup(p); v != proceed {
		return v
	}
	if v := w.rewrite(p); v != proceed {
		return v
	}
	return w.enqueue(p)
}

// admit takes frames that are whole and meant for us.
func (w *Worker) admit(p *packet) Verdict {
	if p.Truncated {
		return DropTruncated
	}
	b := p.Bytes()
	if len(b) < vlan.EthLen {
		return DropRunt
	}
	p.group = b[0]&1 != 0
	if binary.BigEndian.Uint16(b[12:]) == etherTypePAE && p.OuterTPID == 0 {
		return w.puntEAPOL(b)
	}
	if !p.group && port.MAC(b[:6]) != w.mac {
		return DropNotForUs
	}
	return proceed
}

// demux finds the subinterface by the frame's tags.
func (w *Worker) demux(p *packet) Verdict {
	p.in = nil
	tags, ok := vlan.Parse(p.Bytes(), p.OuterTPID, p.OuterTCI)
	if !ok {
		return DropRunt
	}
	p.etherType = tags.EtherType
	p.l3 = p.Start + tags.Len
	if tags.Tags > 0 && tags.OuterTPID != w.port.TPID {
		return DropUnknownVLAN
	}
	if tags.Tags < 2 {
		p.in = w.port.dot1q[tags.Outer]
	} else if inner := w.port.qinq[tags.Outer]; inner != nil {
		p.in = inner[tags.Inner]
	}
	if p.in == nil {
		return DropUnknownVLAN
	}
	w.countRx(p)
	return proceed
}

// local sorts out what never leaves the link: ARP, IPv6 neighbor discovery and
// link-local unicast go to the kernel, other group packets nowhere (we route
// no multicast).
func (w *Worker) local(p *packet) Verdict {
	switch p.etherType {
	case etherTypeIPv4:
		if p.group {
			return DropNotForUs // RFC 1812 §5.3.4 and no multicast routing
		}
		return proceed
	case etherTypeIPv6:
		b := p.Buf[p.l3:p.End]
		if len(b) < minIPv6 {
			return DropMalformed
		}
		if p.group && (b[24] != 0xff || b[25]&0x0f != 2) { // ff02::/16, whatever the flags
			return DropNotForUs
		}
		if p.group || linkLocal(b[24:]) {
			if !w.fromNeighbor6(p, [16]byte(b[8:24])) {
				return DropForeignNeighbor
			}
			return w.punt(p, PuntLinkLocal)
		}
		return proceed
	case etherTypeARP:
		if !p.in.fromNeighborARP(p.Buf[p.l3:p.End]) {
			return DropForeignNeighbor
		}
		return w.punt(p, PuntARP)
	default:
		return DropEtherType
	}
}

// linkLocal reports fe80::/10 (RFC 4291 §2.5.6).
func linkLocal(a []byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// check verifies the IP header (RFC 1812 §5.2.2, RFC 8200 §3) and cuts off
// Ethernet's padding.
func check(p *packet) Verdict {
	b := p.Buf[p.l3:p.End]
	var total int
	if p.etherType == etherTypeIPv4 {
		if len(b) < minIPv4 || b[0]>>4 != 4 {
			return DropMalformed
		}
		p.v6 = false
		p.headerLen = int(b[0]&0x0f) * 4
		total = int(binary.BigEndian.Uint16(b[2:]))
		if p.headerLen < minIPv4 || total < p.headerLen || total > len(b) {
			return DropMalformed
		}
		if !headerChecksumOK(b[:p.headerLen]) {
			return DropChecksum
		}
		if martian4(b[12]) || b[12] >= 224 || martian4(b[16]) || b[16] >= 224 {
			return DropMartian
		}
	} else {
		if b[0]>>4 != 6 { // local has checked the length
			return DropMalformed
		}
		p.v6 = true
		p.headerLen = minIPv6
		total = minIPv6 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return DropMalformed
		}
		if martian6([16]byte(b[8:24])) || martian6([16]byte(b[24:40])) {
			return DropMartian
		}
	}
	p.End = p.l3 + total
	return proceed
}

// martian4 reports 0/8 and 127/8 by an address's first octet.
func martian4(first byte) bool { return first == 0 || first == 127 }

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

// lookup finds the adjacency by longest prefix match and flow hash.
func (w *Worker) lookup(p *packet) Verdict {
	table, b := w.snap.VRFs[p.in.VRF].FIB, p.ip()
	var group *NextHopGroup
	var ok bool
	if p.v6 {
		group, ok = table.Lookup6(binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
	} else {
		group, ok = table.Lookup4(binary.BigEndian.Uint32(b[16:]))
	}
	if !ok {
		w.sendUnreachable(p)
		return DropNoRoute
	}
	switch group.Kind {
	case Forward:
		p.out = group.choose(b, p.v6)
	case Neighbor:
		p.out = group.Members[0].Rewrite()
	case Local:
		if p.generated {
			return DropMartian // an answer to ourselves: the source was forged
		}
		if v := w.localBFD(p); v != proceed {
			return v
		}
		return w.punt(p, PuntLocal)
	case Glean:
		return w.puntGlean(p, group.Out)
	case Blackhole:
		return DropBlackhole
	}
	if p.out == nil {
		for _, a := range group.Members {
			w.resolve(a)
		}
		return DropUnresolved
	}
	return proceed
}

// rewrite turns the frame into the one that leaves: TTL, MTU, MACs and tags,
// and a virtio-net header that fits the new Ethernet header.
func (w *Worker) rewrite(p *packet) Verdict {
	b := p.Buf[p.l3:p.End]
	if p.v6 {
		if linkLocal(b[8:]) {
			return DropMartian // RFC 4291 §2.5.6: it does not leave its link
		}
		if b[7] <= 1 && !p.generated {
			w.sendTimeExceeded(p)
			return DropTTL
		}
	} else if b[8] <= 1 && !p.generated {
		w.sendTimeExceeded(p)
		return DropTTL
	}
	hdr := &p.out.Header
	if p.VNet.GSOType == port.GSONone {
		if len(b) > p.out.Out.MTU {
			if mayFragment(p) {
				return w.fragment(p)
			}
			w.sendTooBig(p)
			return DropTooBig
		}
		p.VNet.HdrLen = 0 // a hint that could exceed the frame now
	} else if v := w.rewriteSuperframe(p, hdr.Len()); v != proceed {
		return v
	}
	switch {
	case p.generated: // this is its first hop
	case p.v6:
		b[7]--
	default:
		decrementTTL(b)
	}
	start := hdr.Put(p.Buf, p.l3, p.etherType)
	// The header grew or shrank in front: what counts from the first octet
	// counts from another one now.
	p.VNet.CsumStart = uint16(int(p.VNet.CsumStart) + p.Start - start)
	p.Start = start
	return proceed
}

// rewriteSuperframe checks a GSO superframe's segments against the MTU (never
// its own length) and sets what the kernel needs to segment it: HdrLen exactly
// the headers, as the kernel makes that much of the frame linear.
func (w *Worker) rewriteSuperframe(p *packet, ethLen int) Verdict {
	l4, ok := transportOffset(p)
	if !ok {
		return DropMalformed
	}
	headers := l4 - p.l3
	switch p.VNet.GSOType &^ port.GSOECN {
	case port.GSOTCPv4, port.GSOTCPv6:
		if l4+20 > p.End {
			return DropMalformed
		}
		headers += int(p.Buf[l4+12]>>4) * 4
	default:
		headers += 8 // UDP
	}
	if p.l3+headers > p.End || p.VNet.GSOSize == 0 {
		return DropMalformed
	}
	if headers+int(p.VNet.GSOSize) > p.out.Out.MTU {
		w.sendTooBig(p)
		return DropTooBig
	}
	if p.VNet.Flags&port.VNetNeedsCsum == 0 {
		startChecksum(p, l4)
	}
	p.VNet.HdrLen = uint16(ethLen + headers)
	return proceed
}

// transportOffset returns where in Buf the transport header of a superframe
// begins. Where the checksum is left to us it begins there, which spares
// walking IPv6 extension headers.
func transportOffset(p *packet) (int, bool) {
	l4 := p.l3 + p.headerLen
	if p.VNet.Flags&port.VNetNeedsCsum != 0 {
		l4 = p.Start + int(p.VNet.CsumStart)
	} else if p.v6 && p.Buf[p.l3+6] != protoTCP && p.Buf[p.l3+6] != protoUDP {
		return 0, false // coalesced by a NIC that also verified it: never with extension headers
	}
	return l4, l4 >= p.l3+p.headerLen && l4+8 <= p.End
}

// decrementTTL takes one from the TTL and mends the checksum (RFC 1624).
func decrementTTL(h []byte) {
	h[8]--
	sum := uint32(binary.BigEndian.Uint16(h[10:])) + 0x0100
	binary.BigEndian.PutUint16(h[10:], uint16(sum+sum>>16))
}

// enqueue puts the frame in line for its egress port. It leaves with the
// batch; see Worker.transmit.
func (w *Worker) enqueue(p *packet) Verdict {
	q := w.egressTo(p.out.Out.Port)
	if q == nil {
		return DropEgressDown
	}
	q.frames = append(q.frames, p.Frame)
	w.countTx(p)
	return Transmit
}

// transmit sends what the batch has queued, one call per egress port, ours
// ahead of what is forwarded, and settles the verdicts of the latter.
func (w *Worker) transmit() {
	for _, q := range w.queues {
		if len(q.control) > 0 {
			q.send(q.control)
			q.control = q.control[:0]
		}
		if len(q.frames) > 0 {
			sent := q.send(q.frames)
			w.verdicts[Transmit] += uint64(sent)
			w.verdicts[DropEgressFull] += uint64(len(q.frames) - sent)
			q.frames = q.frames[:0]
		}
	}
}

// send transmits frames, counts for the port, and returns how many left.
func (q *egressQueue) send(frames []*port.Frame) int {
	var bytes uint64
	for _, f := range frames {
		bytes += uint64(f.Len())
	}
	sent, err := q.sender.Send(frames)
	c := q.port.Counters
	c.TxFrames.Add(uint64(sent))
	c.TxBytes.Add(bytes) // as offered: what was lost shows in TxDrops
	if sent < len(frames) {
		c.TxDrops.Add(uint64(len(frames) - sent))
	}
	if err != nil {
		c.Errors.Add(1)
	}
	return sent
}
