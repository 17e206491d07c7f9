package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
)

// Errors the router owes a sender (RFC 1812 §4.3, RFC 4443 §2.4). They are
// rare and rate-limited, so they may allocate; they leave by the VRF's table
// with the address of the subinterface the packet came in by, which is what
// makes a peering address show in traceroute.

// Rate of ICMP errors: an error storm must not become ours. Of a subinterface, of
// one that counts as quiet, and of all of a thread (see budget).
const (
	icmpPerSecond      = 500
	icmpQuietPerSecond = 20
	icmpPerThread      = 4000
)

// Rate of ICMP errors to one source: one who scans must not use up what the
// subinterface has, which a traceroute or a path MTU may need.
const (
	icmpPerSourceEvery = time.Second / 50
	icmpSourceBurst    = 50
	icmpSources        = 128
)

// sourceLimits bounds errors by source, an IPv6 one by its /64. Sources share
// places by hash; each has when its bucket is full again.
type sourceLimits struct {
	salt uint64 // which sources share a place is not to be guessed
	full [icmpSources]time.Duration
}

func (l *sourceLimits) take(p *packet, now time.Duration) bool {
	b := p.ip()
	source := uint64(binary.BigEndian.Uint32(b[12:]))
	if p.v6 {
		source = binary.BigEndian.Uint64(b[8:])
	}
	full := &l.full[mix(source, l.salt)%icmpSources]
	next := max(*full, now) + icmpPerSourceEvery
	if next-now > icmpSourceBurst*icmpPerSourceEvery {
		return false
	}
	*full = next
	return true
}

// How much of the offending packet an error quotes, octets, error headers
// included (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
const (
	maxICMPv4 = 576
	maxICMPv6 = 1280
)

// replyTTL is the TTL and hop limit of what we send.
const replyTTL = 64

// answer tells the sender of a dropped packet, if it should hear of that.
func (w *Worker) answer(p *packet) {
	switch p.verdict {
	case DropTTL:
		w.sendError(p,
			layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimeExceeded, layers.ICMPv4CodeTTLExceeded),
			layers.CreateICMPv6TypeCode(layers.ICMPv6TypeTimeExceeded, layers.ICMPv6CodeHopLimitExceeded), 0)
	case DropNoRoute:
		w.sendError(p,
			layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeNet),
			layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodeNoRouteToDst), 0)
	case DropTooBig:
		w.sendError(p,
			layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded),
			layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0), p.mtu())
	}
}

// mtu is what the packet must fit: that of where it is to leave by, and of a gateway.
func (p *packet) mtu() int {
	mtu := 0
	if p.out != nil {
		mtu = p.out.Out.MTU
	} else { // its neighbor is not known yet
		mtu = p.route.Out.MTU
	}
	if p.in.Gateway != nil {
		mtu = min(mtu, p.in.Gateway.limits.MTU)
	}
	return mtu
}

// sendError answers p with an ICMP error, if p may be answered at all.
func (w *Worker) sendError(p *packet, code4 layers.ICMPv4TypeCode, code6 layers.ICMPv6TypeCode, mtu int) {
	from := p.in.Addr4
	if p.v6 {
		from = p.in.Addr6
	}
	if !from.IsValid() || !answerable(p) || len(w.replies) == cap(w.replies) ||
		!p.in.limits.icmpSources.take(p, w.now) || !w.thread.errors.take(&p.in.limits.icmp, w.now) {
		return
	}
	var b []byte
	var err error
	if p.v6 {
		b, err = icmp6Error(p.ip(), from, code6, mtu)
	} else {
		b, err = icmp4Error(p.ip(), from, code4, mtu)
	}
	if err != nil {
		return // the offending packet was too odd to quote
	}
	w.sendReply(p, b)
}

// answerable says whether an error about p is allowed: not about errors, not
// about fragments but the first, and only to a single station (RFC 1812
// §4.3.2.7, RFC 4443 §2.4 (e)).
func answerable(p *packet) bool {
	b := p.ip()
	if p.v6 {
		proto, at, whole := upperLayer6(b)
		isError := proto == protoICMPv6 && (!whole || len(b) <= at || b[at] < 128) ||
			isExtension(proto) // an error may be behind more of them than are walked
		return !isError && [16]byte(b[8:24]) != [16]byte{}
	}
	if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 { // fragment offset
		return false
	}
	if b[9] == protoICMP {
		if len(b) <= int(p.headerLen) {
			return false
		}
		t := b[p.headerLen]
		return t == layers.ICMPv4TypeEchoRequest || t == layers.ICMPv4TypeEchoReply || t == layers.ICMPv4TypeTimestampRequest
	}
	return true
}

func icmp4Error(quoted []byte, from netip.Addr, code layers.ICMPv4TypeCode, mtu int) ([]byte, error) {
	quoted = quoted[:min(len(quoted), maxICMPv4-minIPv4-8)]
	ip := &layers.IPv4{
		Version: 4, TTL: replyTTL, Protocol: layers.IPProtocolICMPv4, TOS: 0xc0, // internetwork control
		SrcIP: from.AsSlice(), DstIP: net.IP(quoted[12:16]),
	}
	icmp := &layers.ICMPv4{TypeCode: code, Seq: uint16(mtu)} // RFC 1191 §4: next-hop MTU in the last 16 bits
	return serialize(ip, icmp, gopacket.Payload(quoted))
}

func icmp6Error(quoted []byte, from netip.Addr, code layers.ICMPv6TypeCode, mtu int) ([]byte, error) {
	quoted = quoted[:min(len(quoted), maxICMPv6-minIPv6-8)]
	ip := &layers.IPv6{
		Version: 6, HopLimit: replyTTL, NextHeader: layers.IPProtocolICMPv6, TrafficClass: 0xc0,
		SrcIP: from.AsSlice(), DstIP: net.IP(quoted[8:24]),
	}
	icmp := &layers.ICMPv6{TypeCode: code}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	field := binary.BigEndian.AppendUint32(nil, uint32(mtu)) // RFC 4443 §3.2; unused in others
	return serialize(ip, icmp, gopacket.Payload(append(field, quoted...)))
}

func serialize(l ...gopacket.SerializableLayer) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...)
	return buf.Bytes(), err
}

// sendReply routes an IP packet of our own back through the VRF that p came
// in by.
func (w *Worker) sendReply(p *packet, ip []byte) {
	buf := make([]byte, port.Headroom+len(ip))
	copy(buf[port.Headroom:], ip)
	w.replies = append(w.replies, port.Frame{Buf: buf, Start: port.Headroom, End: len(buf)})
	r := packet{
		Frame: &w.replies[len(w.replies)-1], in: p.in, etherType: p.etherType,
		l3: port.Headroom, v6: p.v6, headerLen: minIPv4,
	}
	if r.v6 {
		r.headerLen = minIPv6
	}
	if w.sendOwn(r) {
		p.in.Counters.Generated.Add(1)
	}
}
