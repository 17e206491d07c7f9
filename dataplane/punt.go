package dataplane

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// Punt is the kernel's side of a subinterface: a TAP in the VRF's namespace
// with the subinterface's addresses. The kernel keeps ARP, neighbor discovery
// and TCP; the dataplane hands it what is for us and sends what it says. Both
// ways frames are untagged here and tagged on the port.
//
// A Punt belongs to the worker of its subinterface's port, which reads and
// writes the descriptor; who opened it closes it, after Engine.Sync has
// returned for a snapshot without it.
type Punt struct {
	FD     int // of the TAP, non-blocking, without virtio-net header
	shares [verdictCount]share
}

// Rates to the kernel, frames per second, with a burst of half a second: of a
// subinterface at most, of one that counts as quiet, and of all of a thread
// together (see budget). BGP takes the most: a full table is some 50,000 frames.
const (
	puntARPPerSecond        = 200
	puntLinkLocalPerSecond  = 200
	puntLocalPerSecond      = 20000
	puntQuietPerSecond      = 20 // of ARP and link scope
	puntLocalQuietPerSecond = 500
	puntNeighborsPerThread  = 4000 // ARP and link scope
	puntLocalPerThread      = 40000
	puntEAPOLPerSecond      = 100 // per port; a KaY says hello every two seconds
)

// NewPunt returns the kernel's side behind a TAP's descriptor.
func NewPunt(fd int) *Punt {
	t := &Punt{FD: fd}
	t.shares[PuntARP] = newShare(puntARPPerSecond, puntQuietPerSecond)
	t.shares[PuntLinkLocal] = newShare(puntLinkLocalPerSecond, puntQuietPerSecond)
	t.shares[PuntLocal] = newShare(puntLocalPerSecond, puntLocalQuietPerSecond)
	return t
}

// punt hands the frame to the kernel by the TAP of the subinterface it came in
// by. A superframe goes whole: the kernel takes any length from a TAP.
func (w *Worker) punt(p *packet, v Verdict) Verdict {
	t := p.in.Punt
	if t == nil {
		return DropPuntFailed
	}
	if !w.thread.punts[v].take(&t.shares[v], w.now) {
		return DropPuntPoliced
	}
	if p.in.Tunnel != nil && !p.generated {
		w.learn(p)
	}
	return w.handOver(p, t, [12]byte(p.Buf[p.Start:]), v)
}

// paeGroups are the group addresses 802.1X frames come to, by their last octet:
// 01-80-C2-00-00-00 and so on (IEEE 802.1X-2020 §11.1.1).
const paeGroups = 1<<0x00 | 1<<0x03 | 1<<0x0e

// puntEAPOL hands a copy of an 802.1X frame to the KaY of the port.
func (w *Worker) puntEAPOL(b []byte) Verdict {
	group := port.MAC(b[:6]) == port.MAC{0x01, 0x80, 0xc2, 5: b[5]} && b[5] < 16 && paeGroups>>b[5]&1 != 0
	if !group && port.MAC(b[:6]) != w.mac {
		return DropNotForUs
	}
	if w.port.EAPOL == nil {
		return DropEtherType
	}
	if !w.eapol.take(w.now) {
		return DropPuntPoliced
	}
	select {
	case w.port.EAPOL <- bytes.Clone(b):
		return PuntEAPOL
	default:
		return DropPuntFailed
	}
}

// handOver writes the frame to a TAP, untagged, with these addresses.
func (w *Worker) handOver(p *packet, t *Punt, macs [12]byte, v Verdict) Verdict {
	start := p.l3 - vlan.EthLen
	cut := v == PuntGlean && p.VNet.GSOType != port.GSONone
	if !cut && p.VNet.Flags&port.VNetNeedsCsum != 0 && !completeChecksum(p) {
		return DropMalformed
	}
	copy(p.Buf[start:], macs[:])
	binary.BigEndian.PutUint16(p.Buf[start+12:], p.etherType)
	if cut {
		return w.handOverCut(p, t, start, v)
	}
	if _, err := unix.Write(t.FD, p.Buf[start:p.End]); err != nil {
		return DropPuntFailed
	}
	return v
}

// completeChecksum computes the transport checksum that the sender's kernel
// left to its device (VIRTIO_NET_HDR_F_NEEDS_CSUM), behind the Ethernet header.
func completeChecksum(p *packet) bool {
	return p.Start+int(p.VNet.CsumStart) >= p.l3 && gso.CompleteChecksum(p.Bytes(), &p.VNet)
}

// startChecksum prepares a superframe whose checksum a NIC has verified and
// whose segments now need one each: pseudo-header sum in the field, the rest
// left to whoever segments it.
func startChecksum(p *packet, l4 int) {
	proto, field := uint64(protoTCP), 16
	if t := p.VNet.GSOType &^ port.GSOECN; t != port.GSOTCPv4 && t != port.GSOTCPv6 {
		proto, field = protoUDP, 6
	}
	addrs := p.Buf[p.l3+12 : p.l3+20]
	if p.v6 {
		addrs = p.Buf[p.l3+8 : p.l3+40]
	}
	pseudo := gso.Fold(gso.Sum(addrs, proto+uint64(p.End-l4)))
	binary.BigEndian.PutUint16(p.Buf[l4+field:], pseudo)
	p.VNet.Flags |= port.VNetNeedsCsum
	p.VNet.CsumStart = uint16(l4 - p.Start)
	p.VNet.CsumOffset = uint16(field)
}

// injectBatch bounds how many frames of one TAP are sent before the port has
// its turn again.
const injectBatch = 32

// inject sends what the kernel has put on a subinterface's TAP: out of the
// subinterface's port as it is, or by the VRF's table.
func (w *Worker) inject(s *Subinterface) {
	for i := range injectBatch {
		buf := w.injectBufs[i]
		n, err := unix.Read(s.Punt.FD, buf[port.Headroom:])
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			w.lostTap(s, err)
		}
		if err != nil || n < vlan.EthLen {
			break
		}
		f := &w.injectFrames[i]
		*f = port.Frame{Buf: buf, Start: port.Headroom, End: port.Headroom + n}
		s.Counters.Injected.Add(1)
		if s.Origin {
			w.originate(s, f)
			continue
		}
		if s.Tunnel != nil {
			w.injectTunnel(s, f)
			continue
		}
		eth := f.Bytes()[:vlan.EthLen]
		h := vlan.NewHeader([6]byte(eth[0:6]), [6]byte(eth[6:12]), w.port.TPID, s.Outer, s.Inner)
		f.Start = h.Put(buf, port.Headroom+vlan.EthLen, binary.BigEndian.Uint16(eth[12:]))
		w.enqueueControl(s.Port, f)
	}
	w.transmit()
	w.pieces = w.pieces[:0]
}

// lostTap stops watching a TAP that somebody has deleted, which would wake us
// for ever, and tells the control side.
func (w *Worker) lostTap(s *Subinterface, err error) {
	w.thread.unwatch(s.Punt.FD)
	delete(w.taps, s.Punt.FD)
	w.log.Error("punt TAP lost", "interface", s.Name, "err", err)
	select {
	case w.engine.lostTaps <- s:
	default:
	}
}

// originate routes a packet of the kernel's by the VRF's table.
func (w *Worker) originate(s *Subinterface, f *port.Frame) {
	p := packet{Frame: f, in: s, l3: f.Start + vlan.EthLen, etherType: binary.BigEndian.Uint16(f.Bytes()[12:])}
	if p.etherType != etherTypeIPv4 && (p.etherType != etherTypeIPv6 || len(p.ip()) < minIPv6) {
		w.dropOwn(DropMalformed)
		return
	}
	w.sendOwn(p)
}

// sendOwn routes a packet of our own by the VRF's table, puts it in line and
// reports whether it could. One that it could not is counted.
func (w *Worker) sendOwn(p packet) bool {
	ps := w.own[:]
	ps[0] = p
	ps[0].generated = true
	check(ps)
	w.lookup(ps)
	if w.rewrite(ps) && ps[0].verdict == proceed {
		ps[0].verdict = w.fragment(&ps[0])
	}
	if v := ps[0].verdict; v != proceed {
		if v >= DropRunt {
			w.dropOwn(v)
		}
		return false
	}
	w.enqueueControl(ps[0].out.Out.Port, ps[0].Frame)
	return true
}
