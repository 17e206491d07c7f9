package dataplane

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// Packets for a neighbor on a connected subnet that is not known yet: the kernel asks
// for it, and holds them meanwhile.

// Each packet to a neighbor not known yet may begin an entry in the kernel's
// neighbor table, which all namespaces of the host share, and so may each new
// link-local sender. It holds gc_thresh3 entries, 1024 as a rule, and none that is
// younger than five seconds is pushed out: so this is what all of the device may
// begin in a second.
const (
	gleanPerDevice      = 100
	gleanPerSecond      = 50 // of one subinterface: who scans a subnet
	gleanQuietPerSecond = 5
)

// What the kernel is to hold for neighbors that it looks for already begins nothing,
// and costs a call and memory: packets per second of a subinterface, of one that counts
// as quiet, and of a thread. A burst is of half a second. Of 1,500 octets, a subinterface's
// take 35 MB at most in the three seconds that the kernel looks.
const (
	heldPerSecond      = 5000
	heldQuietPerSecond = 500
	heldPerThread      = 10000
)

// lookFor is how long the kernel looks for a neighbor: three requests, a second apart
// (mcast_solicit, retrans_time_ms). Then it begins anew.
const lookFor = 3 * time.Second

// begun is a neighbor that the kernel looks for, because of what came in by a
// subinterface.
type begun struct {
	out *Subinterface
	to  [16]byte // its address; of IPv4 the first four octets
	at  time.Duration
}

// puntGlean hands the packet to the kernel for a neighbor on a connected
// subnet that is not known yet: the kernel holds it while it asks, and then
// sends it itself. It comes by the TAP of the subinterface that it is to leave
// by, so that all happens on the one.
func (w *Worker) puntGlean(p *packet, out *Subinterface) Verdict {
	if out.Punt == nil {
		return DropPuntFailed
	}
	if !p.generated && ttl(p.ip(), p.v6) <= 1 {
		return DropTTL // or the kernel would say so, with another address of its own
	}
	if p.VNet.GSOType != port.GSONone {
		if headers, ok := superframeHeaders(p); !ok {
			return DropMalformed
		} else if headers+int(p.VNet.GSOSize) > out.MTU {
			return DropTooBig
		}
	}
	if p.generated || !w.mayHold(p, out) {
		return DropPuntPoliced
	}
	mac := w.snap.Ports[out.Port].Port.MAC()
	return w.handOver(p, out.Punt, [12]byte(append(mac[:], mac[:]...)), PuntGlean)
}

// mayHold reports whether the kernel may get one more packet to hold. The first for a
// neighbor may begin an entry in its table, of which there are few; those behind it do not.
func (w *Worker) mayHold(p *packet, out *Subinterface) bool {
	l := p.in.limits
	n := begun{out: out, at: w.now}
	if p.v6 {
		n.to = [16]byte(p.ip()[24:])
	} else {
		copy(n.to[:], p.ip()[16:20])
	}
	known := &l.begun[mix(binary.LittleEndian.Uint64(n.to[:]), binary.LittleEndian.Uint64(n.to[8:])^l.salt)%uint64(len(l.begun))]
	if known.out != out || known.to != n.to || w.now-known.at >= lookFor {
		if !w.mayBegin(p.in) {
			return false
		}
		*known = n
	}
	for range segments(p) {
		if !w.thread.punts[PuntGlean].take(&l.held, w.now) {
			return false
		}
	}
	return true
}

// handOverCut hands the kernel, which is to send it on, what a superframe stands
// for: it would take the whole for a packet that does not fit. The frame begins at
// start in Buf.
func (w *Worker) handOverCut(p *packet, t *Punt, start int, v Verdict) Verdict {
	h := p.VNet
	h.CsumStart = uint16(int(h.CsumStart) + p.Start - start)
	plan, ok := gso.Cut(p.Buf[start:p.End], vlan.EthLen, h)
	buf := w.injectBufs[0] // free while frames are received
	if !ok || plan.Len > len(buf) {
		return DropMalformed
	}
	for i := range plan.Segments {
		if _, err := unix.Write(t.FD, buf[:plan.Segment(i, buf)]); err != nil {
			return DropPuntFailed
		}
	}
	return v
}
