package dataplane

import (
	"encoding/binary"
	"net/netip"

	"msee/bfd"
	"msee/dataplane/port"
)

// Echoes of peers that were told that they may send some come in two forms: to us, as FRR
// sends them, or to their own sender, which is RFC 5881's (§4) and what other routers send.
// Both go back at once, by the queue of BFD's own packets.

// reflect sends an echo back where it came from (RFC 5880 §6.4), one hop
// poorer, as FRR wants it: with 255 its sender would take it for a request.
func (t *bfdTable) reflect(w *Worker, s *bfdSession, udp []byte) bfd.Reason {
	r := s.Adjacency.Rewrite()
	n := len(udp) - udpLen
	if r == nil || s.Config.RequiredMinEcho == 0 || n > bfd.MaxLen {
		return bfd.UnknownSession
	}
	copy(t.frame.Buf[port.Headroom+ipUDPMax:], udp[udpLen:])
	t.send(w, r, s.Local, s.Peer, bfd.EchoPort, binary.BigEndian.Uint16(udp), bfd.HopLimit-1, n)
	s.echoes, s.echoBytes = s.echoes+1, s.echoBytes+uint64(n)
	return bfd.Accepted
}

// loopEcho sends an echo back that is addressed to its own sender. Any router would forward
// it there; here it waits for no bulk traffic, and the circuit's policer does not drop it.
// It reports whether it has; the rest is forwarded.
func (w *Worker) loopEcho(p *packet) bool {
	t := &w.bfd
	b := p.ip()
	if len(t.byPeer) == 0 || p.generated || len(b) < int(p.headerLen)+udpLen || len(b) > ipUDPMax+bfd.MaxLen ||
		p.VNet.GSOType != port.GSONone || p.isFragment() {
		return false
	}
	proto, dest := b[9], netip.AddrFrom4([4]byte(b[16:20]))
	if p.v6 {
		proto, dest = b[6], netip.AddrFrom16([16]byte(b[24:40]))
	}
	if proto != protoUDP || ttl(b, p.v6) != bfd.HopLimit || binary.BigEndian.Uint16(b[int(p.headerLen)+2:]) != bfd.EchoPort {
		return false
	}
	s := t.byPeer[bfdPeer{p.in.VRF, p.in.Name, dest}]
	if s == nil || s.Config.RequiredMinEcho == 0 || !s.limit.take(w.now) ||
		p.VNet.Flags&port.VNetNeedsCsum != 0 && !completeChecksum(p) {
		return false
	}
	l3 := port.Headroom
	t.frame.End = l3 + copy(t.frame.Buf[l3:], b)
	if b = t.frame.Buf[l3:t.frame.End]; p.v6 {
		b[7]--
	} else {
		decrementTTL((*[minIPv4]byte)(b))
	}
	t.emit(w, p.out, l3, p.etherType)
	s.echoes, s.echoBytes = s.echoes+1, s.echoBytes+uint64(len(b)-int(p.headerLen)-udpLen)
	return true
}
