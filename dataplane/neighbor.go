package dataplane

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Who may speak to the kernel as a neighbor. Each sender it hears takes a place
// in its neighbor table, which all VRFs of a host share and which is small
// (gc_thresh3, 1024 as a rule): one customer that invents senders would push out
// the others' neighbors. So ARP and neighbor discovery reach the kernel only
// from addresses of the subinterface's own subnets, and from few link-local
// ones; and what makes the kernel look for a neighbor, or is from a new link-local
// one, is counted for the whole device (gleanPerDevice).

// maxLinkLocals is how many link-local senders a subinterface has at a time.
const maxLinkLocals = 64

// linkLocalFor is how long a link-local sender that says nothing keeps its place.
const linkLocalFor = time.Minute

// neighborhood is what a worker keeps of a subinterface's link-local senders.
type neighborhood [maxLinkLocals]struct {
	addr [16]byte
	seen time.Duration
}

// admit reports whether the sender is known or has found a place at now, which
// mayAdd is asked for.
func (n *neighborhood) admit(addr [16]byte, now time.Duration, mayAdd func() bool) bool {
	free := -1
	for i := range n {
		switch e := &n[i]; {
		case e.addr == addr:
			e.seen = now
			return true
		case e.addr == [16]byte{} || now-e.seen > linkLocalFor:
			free = i
		}
	}
	if free < 0 || !mayAdd() {
		return false
	}
	n[free].addr, n[free].seen = addr, now
	return true
}

// fromNeighborARP reports whether the ARP packet b is of IPv4 over Ethernet and
// from a neighbor, or a probe, whose sender is 0.0.0.0 (RFC 826, RFC 5227 §2.1.1).
func (s *Subinterface) fromNeighborARP(b []byte) bool {
	if len(b) < 28 || binary.BigEndian.Uint64(b)>>16 != 0x0001_0800_0604 {
		return false
	}
	sender := [4]byte(b[14:18])
	return sender == [4]byte{} || s.Subnet4.Contains(netip.AddrFrom4(sender))
}

// fromNeighbor6 is the same for IPv6: a neighbor, a link-local sender, or none
// yet (::, duplicate address detection, RFC 4862 §5.4.2).
func (w *Worker) fromNeighbor6(p *packet, src [16]byte) bool {
	if linkLocal(src[:]) {
		return p.in.limits.linkLocals.admit(src, w.now, func() bool { return w.mayBegin(p.in) })
	}
	return src == [16]byte{} || p.in.Subnet6.Contains(netip.AddrFrom16(src))
}

// mayBegin reports whether what came in by the subinterface may begin one more
// entry in the kernel's table.
func (w *Worker) mayBegin(in *Subinterface) bool {
	return w.engine.gleans.take(&in.limits.glean, w.now)
}
