package dataplane

import (
	"encoding/binary"

	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/fastpath"
	"msee/vlan"
)

// A frame's way through the router, top to bottom. forward is the whole list.
// Each step runs over a batch of frames before the next begins, so that its code
// and tables stay in the caches and the misses of one frame do not hold up the
// others; it settles a frame's verdict or leaves it to the next step.
//
//	admit     length, destination MAC; EAPOL → the port's KaY
//	unprotect MACsec, on a protected port: SecTAG, ICV, replay window
//	demux     tags → subinterface → VRF
//	untunnel  VXLAN to us: VNI → subinterface → VRF, and on with the inner frame
//	local     ARP and IPv6 link scope → the kernel
//	check     version, lengths, header checksum, addresses
//	source    what the customer may send from
//	fastPath  exact match → adjacency, where FastPath is on
//	lookup    else the longest prefix match → next-hop group → adjacency; ours → the kernel
//	police    the circuit's bandwidth; bytes metered
//	rewrite   TTL, MTU, MACs and tags
//	enqueue   in line for the egress port
//	settle    verdicts counted; what the sender should hear of is answered by ICMP
//	transmit  once for all that was received, one call per egress port; sealed
//	          on the way if that port is protected
//
// ICMP errors are made in icmp.go, what the kernel should see is handed over in
// punt.go, what has to be cut is cut in fragment.go.

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

// packet is what the steps learn of a frame; a field is valid from the step
// named.
type packet struct {
	*port.Frame
	in        *Subinterface   // demux
	search    fib.Search4     // lookup, of IPv4
	line      *fastpath.Line4 // fastPath: where to look
	out       *Rewrite        // fastPath, or lookup
	outer     int             // untunnel: where in Buf the outer IP packet begins, of a frame out of a tunnel
	l3        int             // demux: where the payload begins in Buf
	headerLen int             // check: of the IP header; IPv6 without its extension headers
	etherType uint16          // demux
	verdict   Verdict         // proceed until a step settles it
	group     bool            // admit: the destination MAC is a group address
	v6        bool            // check
	generated bool            // ours, not received: no errors about it, and its TTL is as it should be
}

// ip returns the IP packet. Valid from check on.
func (p *packet) ip() []byte { return p.Buf[p.l3:p.End] }

// vector is how many frames go through the steps together: enough to be worth
// it, few enough for what is known of them to stay in the nearest cache.
const vector = 64

// forward takes frames, a vector at most, through the steps. Those of verdict
// Transmit are queued then; it is transmit that counts them.
func (w *Worker) forward(frames []port.Frame) {
	ps := w.packets[:len(frames)]
	for i := range ps {
		frames[i].Inner = 0
		ps[i] = packet{Frame: &frames[i]}
	}
	if w.port.CrossConnect != nil {
		w.crossConnect(ps)
		return
	}
	w.admit(ps)
	w.unprotect(ps)
	w.demux(ps)
	w.untunnel(ps)
	w.local(ps)
	check(ps)
	w.source(ps)
	if w.fastPath(ps) {
		w.lookup(ps)
	}
	w.police(ps)
	w.rewrite(ps)
	w.enqueue(ps)
	w.settle(ps)
}

// admit takes frames that are whole and meant for us.
func (w *Worker) admit(ps []packet) {
	for i := range ps {
		p := &ps[i]
		b := p.Bytes()
		switch {
		case p.Truncated:
			p.verdict = DropTruncated
			continue
		case len(b) < vlan.EthLen:
			p.verdict = DropRunt
			continue
		}
		p.group = b[0]&1 != 0
		switch {
		case binary.BigEndian.Uint16(b[12:]) == etherTypePAE && p.OuterTPID == 0:
			p.verdict = w.puntEAPOL(b)
		case !p.group && port.MAC(b[:6]) != w.mac:
			p.verdict = DropNotForUs
		}
	}
}

// demux finds the subinterface by the frame's tags.
func (w *Worker) demux(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		tags, etherType, length := vlan.Parse(p.Bytes(), p.OuterTPID, p.OuterTCI)
		if length == 0 {
			p.verdict = DropRunt
			continue
		}
		p.etherType, p.l3 = etherType, p.Start+length
		p.in = w.port.subinterface(tags)
		if p.in == nil {
			p.verdict = DropUnknownVLAN
			continue
		}
		w.countRx(p)
	}
}

// local sorts out what never leaves the link: ARP, IPv6 neighbor discovery and
// link-local unicast go to the kernel, other group packets nowhere (we route
// no multicast).
func (w *Worker) local(ps []packet) {
	for i := range ps {
		p := &ps[i]
		switch {
		case p.verdict != proceed:
		case p.etherType == etherTypeIPv4:
			if p.group {
				p.verdict = DropNotForUs // RFC 1812 §5.3.4 and no multicast routing
			}
		case p.etherType == etherTypeIPv6:
			p.verdict = w.local6(p)
		case p.etherType == etherTypeARP:
			p.verdict = DropForeignNeighbor
			if p.in.fromNeighborARP(p.Buf[p.l3:p.End]) {
				p.verdict = w.punt(p, PuntARP)
			}
		default:
			p.verdict = DropEtherType
		}
	}
}

func (w *Worker) local6(p *packet) Verdict {
	b := p.Buf[p.l3:p.End]
	if len(b) < minIPv6 {
		return DropMalformed
	}
	if p.group && (b[24] != 0xff || b[25]&0x0f != 2) { // ff02::/16, whatever the flags
		return DropNotForUs
	}
	if !p.group && !linkLocal(b[24:]) {
		return proceed
	}
	if !w.fromNeighbor6(p, [16]byte(b[8:24])) {
		return DropForeignNeighbor
	}
	return w.punt(p, PuntLinkLocal)
}

// linkLocal reports fe80::/10 (RFC 4291 §2.5.6).
func linkLocal(a []byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// check verifies the IP header (RFC 1812 §5.2.2, RFC 8200 §3) and cuts off
// Ethernet's padding.
func check(ps []packet) {
	for i := range ps {
		p := &ps[i]
		switch {
		case p.verdict != proceed:
		case p.etherType == etherTypeIPv4:
			p.verdict = check4(p)
		default:
			p.verdict = check6(p)
		}
	}
}

func check4(p *packet) Verdict {
	b := p.Buf[p.l3:p.End]
	if len(b) < minIPv4 || b[0]>>4 != 4 {
		return DropMalformed
	}
	p.headerLen = int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if p.headerLen < minIPv4 || total < p.headerLen || total > len(b) {
		return DropMalformed
	}
	if p.headerLen == minIPv4 && !plainChecksumOK((*[minIPv4]byte)(b)) || p.headerLen != minIPv4 && !headerChecksumOK(b[:p.headerLen]) {
		return DropChecksum
	}
	if martian4(b[12]) || martian4(b[16]) {
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
func martian4(first byte) bool { return first == 0 || first == 127 || first >= 224 }

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
func (w *Worker) lookup(ps []packet) {
	for i := range ps {
		if p := &ps[i]; p.verdict == proceed && p.out == nil && !p.v6 {
			p.search = w.table(p).Search4(binary.BigEndian.Uint32(p.ip()[16:]))
		}
	}
	for i := range ps {
		if p := &ps[i]; p.verdict == proceed && p.out == nil && !p.v6 {
			p.search.Step()
		}
	}
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed || p.out != nil {
			continue
		}
		b := p.ip()
		var group *NextHopGroup
		var ok bool
		if p.v6 {
			group, ok = w.table(p).Lookup6(binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
		} else {
			group, ok = w.table(p).Found4(p.search)
		}
		switch {
		case !ok:
			p.verdict = DropNoRoute
		case group.Kind == Forward:
			if p.out = group.choose(b, p.v6); p.out == nil {
				p.verdict = w.unresolved(group)
			} else if len(group.Backup) > 0 && group.bounces(p.out, p.Bytes()[6:12]) {
				p.verdict = DropUnresolved
			}
		default:
			p.verdict = w.special(p, group)
		}
	}
}

// table is that of the packet's VRF.
func (w *Worker) table(p *packet) *fib.Table[*NextHopGroup] { return w.snap.VRFs[p.in.VRF].FIB }

// special is the end of a lookup that leads to no next hop of a route's.
func (w *Worker) special(p *packet, group *NextHopGroup) Verdict {
	switch group.Kind {
	case Neighbor:
		if p.out = group.Members[0].Rewrite(); p.out == nil {
			return w.unresolved(group)
		}
		return proceed
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
	default:
		return DropBlackhole
	}
}

// unresolved asks for the members of a group of which none can be used.
func (w *Worker) unresolved(group *NextHopGroup) Verdict {
	for _, a := range group.Members {
		w.resolve(a)
	}
	return DropUnresolved
}

// rewrite turns the frame into the one that leaves: TTL, MTU, MACs and tags,
// and a virtio-net header that fits the new Ethernet header.
func (w *Worker) rewrite(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		b := p.ip()
		hdr, mtu := &p.out.Header, p.out.Out.MTU
		switch {
		case p.v6 && linkLocal(b[8:]):
			p.verdict = DropMartian // RFC 4291 §2.5.6: it does not leave its link
		case ttl(b, p.v6) <= 1 && !p.generated:
			p.verdict = DropTTL
		case p.VNet.GSOType != port.GSONone:
			p.verdict = rewriteSuperframe(p, hdr.Len())
		case len(b) <= mtu:
			p.VNet.HdrLen = 0 // a hint that could exceed the frame now
		case mayFragment(p):
			p.verdict = w.fragment(p)
		default:
			p.verdict = DropTooBig
		}
		if p.verdict != proceed {
			continue
		}
		switch {
		case p.generated: // this is its first hop
		case p.v6:
			b[7]--
		default:
			decrementTTL(b)
		}
		start := hdr.Put(p.Buf, p.l3, p.etherType)
		if p.out.VTEP != nil {
			if start = p.out.VTEP.put(p.Frame, start, p.l3); start < 0 {
				p.verdict = DropUnresolved
				continue
			}
		}
		// The header grew or shrank in front: what counts from the first octet
		// counts from another one now.
		p.VNet.CsumStart = uint16(int(p.VNet.CsumStart) + p.Start - start)
		p.Start = start
	}
}

// ttl is the TTL or hop limit.
func ttl(b []byte, v6 bool) byte {
	if v6 {
		return b[7]
	}
	return b[8]
}

// rewriteSuperframe checks a GSO superframe's segments against the MTU (never
// its own length) and sets what the kernel needs to segment it: HdrLen exactly
// the headers, as the kernel makes that much of the frame linear.
func rewriteSuperframe(p *packet, ethLen int) Verdict {
	headers, ok := superframeHeaders(p)
	if !ok {
		return DropMalformed
	}
	if headers+int(p.VNet.GSOSize) > p.out.Out.MTU {
		return DropTooBig
	}
	if p.VNet.Flags&port.VNetNeedsCsum == 0 {
		l4, _ := transportOffset(p)
		startChecksum(p, l4)
	}
	p.VNet.HdrLen = uint16(ethLen + headers)
	return proceed
}

// superframeHeaders returns the length of a superframe's IP and transport
// headers; false if it cannot be one.
func superframeHeaders(p *packet) (int, bool) {
	l4, ok := transportOffset(p)
	if !ok || p.VNet.GSOSize == 0 {
		return 0, false
	}
	headers := l4 - p.l3
	switch p.VNet.GSOType &^ port.GSOECN {
	case port.GSOTCPv4, port.GSOTCPv6:
		if l4+20 > p.End {
			return 0, false
		}
		headers += int(p.Buf[l4+12]>>4) * 4
	default:
		headers += 8 // UDP
	}
	return headers, p.l3+headers <= p.End
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
func (w *Worker) enqueue(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		q := w.egressTo(p.out.Out.Port)
		if q == nil {
			p.verdict = DropEgressDown
			continue
		}
		p.verdict = Transmit
		w.countTx(p)
		if w.port.SecY != nil && q.port.SecY == nil && p.out.VTEP == nil && q.join.Add(p.Frame, p.l3-p.Start) {
			w.verdicts[Transmit]++ // with the frame it was joined to
			continue
		}
		q.frames = append(q.frames, p.Frame)
	}
}

// settle counts the verdicts but Transmit, which transmit counts, and answers
// what is to be answered.
func (w *Worker) settle(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict == Transmit {
			continue
		}
		w.verdicts[p.verdict]++
		if p.verdict >= DropRunt && p.in != nil {
			p.in.Counters.RxDrops.Add(1)
		}
		w.answer(p)
	}
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
			q.join.Flush()
			s := q.send(q.frames)
			w.verdicts[Transmit] += uint64(s.sent)
			w.verdicts[DropEgressFull] += uint64(s.full)
			w.verdicts[DropNoKey] += uint64(s.noKey)
			w.verdicts[DropTooBig] += uint64(s.tooLong)
			q.frames = q.frames[:0]
			q.join.Release()
		}
	}
}

// send transmits frames, counts for the port, and returns what became of them.
// All that leaves by the port leaves here, and is sealed if it is protected.
func (q *egressQueue) send(frames []*port.Frame) (s sealed) {
	var bytes uint64
	for _, f := range frames {
		bytes += uint64(f.Len())
	}
	var err error
	if q.port.SecY != nil {
		if q.sealer == nil || q.sealer.secy != q.port.SecY {
			q.sealer = &sealer{secy: q.port.SecY, sender: q.sender}
		}
		s, err = q.sealer.send(frames)
	} else {
		s.sent, err = q.out().Send(frames)
		s.full = len(frames) - s.sent
	}
	c := q.port.Counters
	c.TxFrames.Add(uint64(s.sent))
	c.TxBytes.Add(bytes) // as offered: what was lost shows in TxDrops
	if s.sent < len(frames) {
		c.TxDrops.Add(uint64(len(frames) - s.sent))
	}
	if err != nil {
		c.Errors.Add(1)
	}
	return s
}
