package dataplane

import (
	"encoding/binary"
	"net/netip"

	"msee/dataplane/fib"
	"msee/dataplane/port"
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
//	gateway   the limits of a VNet's gateway, at one
//	rewrite   TTL, MTU, MACs and tags
//	police    the circuit's bandwidth; bytes metered, of what has got this far
//	enqueue   in line for the egress port, superframes in one of their own; cut to pieces
//	          (fragment.go) what is too long for its way out and may be
//	settle    verdicts counted; what the sender should hear of is answered by ICMP
//	transmit  once for all that was received, one call per egress port; sealed
//	          on the way if that port is protected
//
// ICMP errors are made in icmp.go, what the kernel should see is handed over in
// punt.go.

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

// packet is what the steps learn of a frame, in one line of the cache; a field is valid
// from the step named.
type packet struct {
	*port.Frame
	in        *Subinterface // demux
	route     *NextHopGroup // lookup; nil: none
	out       *Rewrite      // fastPath, or lookup
	l3        int           // demux: where the payload begins in Buf
	tags      uint64        // admit: the octets behind the addresses; 0 of a frame that ends there
	outer     uint32        // untunnel: where in Buf the outer IP packet begins, of a frame out of a tunnel
	dst       uint32        // check: where an IPv4 packet goes
	etherType uint16        // demux
	headerLen uint8         // check: of the IP header; IPv6 without its extension headers
	verdict   Verdict       // proceed until a step settles it
	group     bool          // admit: the destination MAC is a group address
	v6        bool          // check
	generated bool          // ours, not received: no errors about it, and its TTL is as it should be
}

// begin makes p that of a frame as received. It leaves what a step sets before another
// reads it.
func (p *packet) begin(f *port.Frame) {
	f.Inner = 0
	p.Frame, p.in, p.out, p.outer = f, nil, nil, 0
	p.verdict, p.group, p.v6, p.generated = proceed, false, false, false
}

// readTags sets tags. (Inlined.)
func (p *packet) readTags() {
	p.tags = 0
	if at := p.Start + 12; at+8 <= p.End {
		p.tags = binary.NativeEndian.Uint64(p.Buf[at : at+8 : at+8])
	}
}

// ip returns the IP packet. Valid from check on.
func (p *packet) ip() []byte { return p.Buf[p.l3:p.End] }

// vector is how many frames go through the steps together: enough to be worth
// it, few enough for what is known of them to stay in the nearest cache.
const vector = 64

// forward takes frames, a vector at most, through the steps. Those of verdict
// Transmit are queued then; it is transmit that counts them. It returns how many
// octets came.
func (w *Worker) forward(frames []port.Frame) (octets int) {
	ps := w.packets[:len(frames)]
	if w.port.CrossConnect != nil {
		return w.crossConnect(ps, frames)
	}
	octets = w.admit(ps, frames)
	w.unprotect(ps)
	special := w.demux(ps)
	w.untunnel(ps)
	if special || w.port.tunnels {
		w.local(ps)
	}
	check(ps)
	w.source(ps)
	if !w.port.endpoints || w.fastPath(ps) {
		w.lookup(ps)
	}
	if w.port.gateways {
		w.gateway(ps)
	}
	long := w.rewrite(ps)
	w.police(ps)
	if w.enqueue(ps, long) < len(ps) {
		w.settle(ps)
	}
	return octets
}

// admit takes frames that are whole and meant for us. It returns how many octets came.
func (w *Worker) admit(ps []packet, frames []port.Frame) (octets int) {
	for i := range frames {
		p := &ps[i]
		p.begin(&frames[i])
		octets += p.Len()
		switch {
		case p.Truncated:
			p.verdict = DropTruncated
			continue
		case p.Len() < vlan.EthLen:
			p.verdict = DropRunt
			continue
		}
		p.readTags()
		eth := p.Buf[p.Start : p.Start+vlan.EthLen : p.Start+vlan.EthLen]
		to := binary.LittleEndian.Uint64(eth)
		p.group = to&1 != 0
		switch {
		case binary.BigEndian.Uint16(eth[12:]) == etherTypePAE && p.OuterTPID == 0:
			p.verdict = w.puntEAPOL(p.Bytes())
		case !p.group && to<<16 != w.macWord:
			p.verdict = DropNotForUs
		}
	}
	return octets
}

// demux finds the subinterface by the frame's tags. It reports whether there is
// something else than IPv4 unicast, for local.
func (w *Worker) demux(ps []packet) (special bool) {
	var of *Subinterface
	count, octets := 0, 0
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		if w.tagged.as(p) {
			p.etherType, p.l3, p.in = w.tagged.etherType, p.Start+w.tagged.length, w.tagged.in
		} else if p.verdict = w.parse(p); p.verdict != proceed {
			continue
		}
		special = special || p.etherType != etherTypeIPv4 || p.group
		if p.in != of {
			w.countRx(of, count, octets)
			of, count, octets = p.in, 0, 0
		}
		count++
		octets += p.End - p.l3
	}
	w.countRx(of, count, octets)
	return special
}

// parse is demux for a frame that is tagged otherwise than the one before.
func (w *Worker) parse(p *packet) Verdict {
	tags, etherType, length := vlan.Parse(p.Bytes(), p.OuterTPID, p.OuterTCI)
	if length == 0 {
		return DropRunt
	}
	p.etherType, p.l3 = etherType, p.Start+length
	if p.in = w.port.subinterface(tags); p.in == nil {
		return DropUnknownVLAN
	}
	w.tagged.note(p, length)
	return proceed
}

// local sorts out what never leaves the link: ARP, IPv6 neighbor discovery and
// link-local unicast go to the kernel (BFD's, on its way to a session, looks like
// any datagram for us), other group packets nowhere (we route
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
	if !p.group && (!linkLocal(b[24:]) || b[6] == protoUDP && p.in.Link == netip.AddrFrom16([16]byte(b[24:40]))) {
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
// Ethernet's padding. What most packets are like passes here; checkOne looks at the
// others, and says what is wrong.
func check(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		if p.etherType == etherTypeIPv4 && p.VNet.Flags&port.VNetNeedsCsum == 0 && p.VNet.GSOType == port.GSONone {
			if length := p.End - p.l3; length >= minIPv4 {
				h := readPlain((*[minIPv4]byte)(p.Buf[p.l3 : p.l3+minIPv4 : p.l3+minIPv4]))
				if h.plain() && h.total() <= length && h.checksumOK() && h.routable() {
					p.headerLen, p.dst, p.End = minIPv4, h.dst(), p.l3+h.total()
					continue
				}
			}
		}
		p.verdict = checkOne(p)
	}
}

// lookup finds the adjacency by longest prefix match and flow hash, of those packets
// that fastPath has left.
func (w *Worker) lookup(ps []packet) {
	var table *fib.Table[*NextHopGroup]
	of := -1 // the VRF that it is of
	q, n := &w.sought, 0
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed || p.out != nil {
			continue
		}
		if p.in.VRF != of {
			w.follow(ps, table, n)
			table, of, n = w.table(p), p.in.VRF, 0
		}
		if p.v6 {
			b := p.ip()
			p.route, _ = table.Lookup6(binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
			w.leave(p)
			continue
		}
		q.addrs[n&(vector-1)], q.of[n&(vector-1)] = p.dst, uint8(i)
		n++
	}
	w.follow(ps, table, n)
}

// rewrite turns the frame into the one that leaves: TTL, MTU, MACs and tags,
// and a virtio-net header that fits the new Ethernet header. It reports whether
// there is something to cut.
func (w *Worker) rewrite(ps []packet) (long bool) {
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		// The new Ethernet header goes in front of the IP header.
		b := p.Buf[p.l3-vlan.Room : p.l3+minIPv4 : p.l3+minIPv4]
		eth, ip := (*[vlan.Room]byte)(b[:]), (*[minIPv4]byte)(b[vlan.Room:])
		hdr := &p.out.Header
		switch {
		case p.v6 && linkLocal(ip[8:]):
			p.verdict = DropMartian // RFC 4291 §2.5.6: it does not leave its link
		case ttl(ip[:], p.v6) <= 1 && !p.generated:
			p.verdict = DropTTL
		case p.VNet.GSOType != port.GSONone:
			p.verdict = rewriteSuperframe(p, hdr.Len())
		case p.End-p.l3 <= p.out.Out.MTU:
			p.VNet.HdrLen = 0 // a hint that could exceed the frame now
		case mayFragment(p):
			long = true
		default:
			p.verdict = DropTooBig
		}
		if p.verdict != proceed {
			continue
		}
		switch {
		case p.generated: // this is its first hop
		case p.v6:
			ip[7]--
		default:
			decrementTTL(ip)
		}
		hdr.PutFront(eth, p.etherType)
		start := p.l3 - hdr.Len()
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
	return long
}

// ttl is the TTL or hop limit.
func ttl(b []byte, v6 bool) byte {
	if v6 {
		return b[7]
	}
	return b[8]
}

// decrementTTL takes one from the TTL and mends the checksum (RFC 1624).
func decrementTTL(h *[minIPv4]byte) {
	h[8]--
	sum := uint32(binary.BigEndian.Uint16(h[10:])) + 0x0100
	binary.BigEndian.PutUint16(h[10:], uint16(sum+sum>>16))
}

// enqueue puts the frame in line for its egress port. It leaves with the
// batch; see Worker.transmit. If long is set there are some to cut. It returns how many are
// in line as they are.
func (w *Worker) enqueue(ps []packet, long bool) (queued int) {
	opened := w.port.SecY != nil
	var q *egressQueue
	var out *Subinterface // that leads there
	count, octets := 0, 0
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		if long && p.tooLong() {
			w.hasten(p)
			p.verdict = w.fragment(p)
			continue
		}
		if p.out.Out != out {
			w.countTx(out, count, octets)
			out, count, octets = p.out.Out, 0, 0
			q = w.egressTo(out.Port)
		}
		if q == nil {
			p.verdict = DropEgressDown
			continue
		}
		p.verdict = Transmit
		queued++
		count++
		octets += p.End - p.l3
		if opened && q.port.SecY == nil && p.out.VTEP == nil && q.join.Add(p.Frame, p.l3-p.Start) {
			w.verdicts[Transmit]++ // with the frame it was joined to
			continue
		}
		if w.bulk.mayWait(p) && w.waitsBehind(q, i, p) {
			continue
		}
		q.frames = append(q.frames, p.Frame)
	}
	w.countTx(out, count, octets)
	return queued
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
			w.note(q.send(q.frames))
			q.frames = q.frames[:0]
			q.join.Release()
		}
		if len(q.bulk) > 0 {
			frames := w.nextBulk(q)
			w.note(q.send(frames))
			q.shift(len(frames))
		}
	}
}

// note settles the verdicts of forwarded frames that were sent.
func (w *Worker) note(s sealed) {
	w.verdicts[Transmit] += uint64(s.sent)
	w.verdicts[DropEgressFull] += uint64(s.full)
	w.verdicts[DropNoKey] += uint64(s.noKey)
	w.verdicts[DropTooBig] += uint64(s.tooLong)
}
