package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"msee/dataplane/port"
	"msee/vlan"
	"msee/vxlan"
)

// VXLAN: subinterfaces that are not on a link but on an overlay network, which
// runs over another subinterface of their port, the underlay. What comes out of a
// tunnel goes on through the pipeline as if received by the overlay's
// subinterface; what goes into one gets its outer headers in rewrite.

// Tunnel is what makes a Subinterface one of a VXLAN network. It is immutable but
// for what SetVTEPs and Place set.
type Tunnel struct {
	VNI    uint32 // of 24 bits
	ends   atomic.Pointer[ends]
	places atomic.Pointer[map[port.MAC]*VTEP]
}

// ends are the other ends of a Tunnel. They never change.
type ends struct {
	flood []*VTEP // those that get frames for everybody
	// byAddr finds all: a hash table, as hosts may be many. Free places are nil.
	byAddr []*VTEP
}

// VTEP is the other end of a tunnel (RFC 7348 §3).
type VTEP struct {
	Addr   netip.Addr
	Via    *Adjacency // the neighbor on the underlay that leads there
	header vxlan.Header
}

// NewVTEP returns the other end at addr of a tunnel from local, of the same family.
func NewVTEP(local, addr netip.Addr, vni uint32, via *Adjacency) *VTEP {
	return &VTEP{Addr: addr, Via: via, header: vxlan.NewHeader(local, addr, vni)}
}

// NewTunnel returns the tunnels of a VXLAN network, all of whose other ends get frames
// for everybody.
func NewTunnel(vni uint32, vteps []*VTEP) *Tunnel {
	t := &Tunnel{VNI: vni}
	t.SetVTEPs(vteps, vteps)
	t.Place(nil)
	return t
}

// SetVTEPs replaces the other ends, of which some get frames for everybody. Those that
// stay had better be the same objects: rewrites have them.
func (t *Tunnel) SetVTEPs(all, flood []*VTEP) {
	size := 4
	for size < 2*len(all) {
		size *= 2
	}
	e := &ends{flood: flood, byAddr: make([]*VTEP, size)}
	for _, v := range all {
		at := hashAddr(v.Addr.AsSlice())
		for e.byAddr[at&uint64(size-1)] != nil {
			at++
		}
		e.byAddr[at&uint64(size-1)] = v
	}
	t.ends.Store(e)
}

// Place says which stations are behind which ends; all others are sought behind
// all. The map is the Tunnel's then.
func (t *Tunnel) Place(stations map[port.MAC]*VTEP) { t.places.Store(&stations) }

// VTEP returns the other end at addr; nil if there is none.
func (t *Tunnel) VTEP(addr netip.Addr) *VTEP { return t.from(addr.AsSlice()) }

// from is VTEP by the octets of the address.
func (t *Tunnel) from(addr []byte) *VTEP {
	byAddr := t.ends.Load().byAddr
	mask := uint64(len(byAddr) - 1)
	for at := hashAddr(addr); ; at++ {
		v := byAddr[at&mask]
		if v == nil {
			return nil
		}
		if len(addr) == 4 {
			if v.Addr.Is4() && v.Addr.As4() == [4]byte(addr) {
				return v
			}
		} else if v.Addr.Is6() && v.Addr.As16() == [16]byte(addr) {
			return v
		}
	}
}

func hashAddr(a []byte) uint64 {
	if len(a) == 4 {
		return mix(uint64(binary.LittleEndian.Uint32(a)), 4)
	}
	return mix(binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(a[8:]))
}

// untunnel takes the inner frames out of VXLAN that is for us. The rest of what
// comes in by an underlay goes on as it is.
func (w *Worker) untunnel(ps []packet) {
	if !w.port.tunnels {
		return
	}
	for i := range ps {
		if p := &ps[i]; p.verdict == proceed && p.in.Underlay && !p.group {
			p.verdict = w.untunnelOne(p)
		}
	}
}

func (w *Worker) untunnelOne(p *packet) (v Verdict) {
	var src, dst []byte
	var class byte
	switch {
	case p.etherType == etherTypeIPv4:
		if v = check4(p); v != proceed {
			return v
		}
		b := p.ip()
		src, dst, class = b[12:16], b[16:20], b[1]
		if !p.in.Addr4.Is4() || [4]byte(dst) != p.in.Addr4.As4() {
			return proceed
		}
	case p.etherType == etherTypeIPv6 && p.End-p.l3 >= minIPv6:
		if v = check6(p); v != proceed {
			return v
		}
		b := p.ip()
		src, dst, class = b[8:24], b[24:40], b[0]<<4|b[1]>>4
		if !p.in.Addr6.IsValid() || [16]byte(dst) != p.in.Addr6.As16() {
			return proceed
		}
	default:
		return proceed
	}
	found, result := vxlan.Parse(p.ip(), int(p.headerLen))
	switch result {
	case vxlan.Other:
		return proceed
	case vxlan.Malformed:
		return DropMalformed
	}
	in := w.port.tunnel(found.VNI)
	if in == nil {
		return DropUnknownVNI
	}
	if in.Tunnel.from(src) == nil {
		return DropForeignVTEP // RFC 7348 §7: anyone on the underlay could be one
	}
	inner, end := p.l3+found.Inner, p.l3+found.End
	eth := p.Buf[inner:end]
	etherType := binary.BigEndian.Uint16(eth[12:])
	group := eth[0]&1 != 0
	switch {
	case !group && port.MAC(eth[:6]) != w.mac:
		return DropNotForUs
	case etherType == vlan.TPIDQ || etherType == vlan.TPIDAD:
		return DropUnknownVLAN // RFC 7348 §6.1: no tags inside
	case etherType == etherTypePAE:
		return DropEtherType
	case !innerVNet(p, inner):
		return DropMalformed
	case !vxlan.Decap(class, eth[vlan.EthLen:]):
		return DropCongested
	}
	p.in, p.outer = in, uint32(p.l3)
	p.Start, p.End, p.l3 = inner, end, inner+vlan.EthLen
	p.etherType, p.group, p.v6 = etherType, group, false
	w.countRx(in, 1, p.End-p.l3)
	return proceed
}

// innerVNet turns a virtio-net header to the inner frame, which begins at inner in
// Buf: of a superframe in a tunnel it speaks of the inner packet already, only its
// offsets count from the outer frame. It reports false if it is neither that nor
// about a single frame.
func innerVNet(p *packet, inner int) bool {
	h, off := &p.VNet, inner-p.Start
	h.HdrLen = uint16(max(int(h.HdrLen)-off, 0))
	partial := h.Flags&port.VNetNeedsCsum != 0 && int(h.CsumStart) >= off+vlan.EthLen
	h.Flags = 0 // a verified or an unfinished checksum was the outer one
	if partial {
		h.Flags = port.VNetNeedsCsum
		h.CsumStart -= uint16(off)
	}
	switch h.GSOType &^ port.GSOECN {
	case port.GSONone, port.GSOTCPv4, port.GSOTCPv6: // the outer packet is not TCP
		return true
	}
	return partial // else a train of outer datagrams
}

// put puts the outer headers in front of the inner frame, which begins at inner in
// the frame's Buf and whose packet, of at least an IP header, at l3, and returns where all
// begins; -1 if the other end cannot be reached now.
func (v *VTEP) put(f *port.Frame, inner, l3 int) int {
	via := v.Via.Rewrite()
	if via == nil || via.VTEP != nil {
		return -1
	}
	b := f.Buf[l3:f.End]
	v6 := false
	var class byte
	switch b[0] >> 4 {
	case 4:
		class = b[1]
	case 6:
		v6, class = true, b[0]<<4|b[1]>>4
	}
	start := v.header.Put(f.Buf, inner, f.End, class, flowHash(b, v6))
	etherType := uint16(etherTypeIPv4)
	if v.header.V6() {
		etherType = etherTypeIPv6
	}
	start = via.Header.Put(f.Buf, start, etherType)
	if f.VNet.GSOType != port.GSONone {
		f.VNet.HdrLen += uint16(inner - start)
	}
	f.Inner = l3
	return start
}

// put puts all headers in front of the IP packet at l3, and reports whether the
// neighbor can be reached. It is for frames of our own; rewrite has more to do.
func (r *Rewrite) put(f *port.Frame, l3 int, etherType uint16) bool {
	f.Start = r.Header.Put(f.Buf, l3, etherType)
	if r.VTEP != nil {
		f.Start = r.VTEP.put(f, f.Start, l3)
	}
	return f.Start >= 0
}

// Learned says behind which end of a tunnel a station is.
type Learned struct {
	In   *Subinterface
	MAC  port.MAC
	VTEP *VTEP
}

// learnedQueue bounds how many of them wait; of more the next frame tells again.
const learnedQueue = 256

// learnPerSecond is how many stations the control side hears of from one network: one
// who invents them must not keep it from its other business.
const (
	learnPerSecond = 50
	learnBurst     = 200
)

// learned is what a worker has told last of a station.
type learned struct {
	mac  port.MAC
	vtep *VTEP
}

// learn notes where a frame for the kernel came from (RFC 7348 §4.1). Only such
// frames teach: they are few, and those that make neighbors are among them.
func (w *Worker) learn(p *packet) {
	l := learned{mac: port.MAC(p.Bytes()[6:12])}
	outer := p.Buf[p.outer:]
	if outer[0]>>4 == 4 {
		l.vtep = p.in.Tunnel.from(outer[12:16])
	} else {
		l.vtep = p.in.Tunnel.from(outer[8:24])
	}
	known := &p.in.limits.learned[l.mac[5]%16]
	if l == *known || l.vtep == nil || !p.in.limits.learn.take(w.now) {
		return
	}
	select {
	case w.engine.learned <- Learned{p.in, l.mac, l.vtep}:
		*known = l
	default: // the control side is behind
	}
}

// injectTunnel sends what the kernel has put on the TAP of a tunnel's
// subinterface, to the one end where the station is, or to all.
func (w *Worker) injectTunnel(s *Subinterface, f *port.Frame) {
	b := f.Bytes()
	if n := len(b) - vlan.EthLen; n < minIPv4 || n < minIPv6 && b[vlan.EthLen]>>4 == 6 {
		w.dropOwn(DropMalformed) // not what a kernel says: too short to tell flows apart
		return
	}
	if v := (*s.Tunnel.places.Load())[port.MAC(b[:6])]; v != nil && b[0]&1 == 0 {
		w.sendInto(v, s, f)
		return
	}
	for _, v := range s.Tunnel.ends.Load().flood {
		c := w.piece()
		*c = port.Frame{Buf: c.Buf, Start: f.Start, End: f.Start + copy(c.Buf[f.Start:], f.Bytes())}
		w.sendInto(v, s, c)
	}
}

func (w *Worker) sendInto(v *VTEP, s *Subinterface, f *port.Frame) {
	start := v.put(f, f.Start, f.Start+vlan.EthLen)
	if start < 0 {
		w.dropOwn(DropUnresolved)
		w.resolve(v.Via)
		return
	}
	f.Start = start
	w.enqueueControl(s.Port, f)
}
