package dataplane

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"msee/bfd"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/macsec"
	"msee/vlan"
)

// Snapshot is everything the workers read: immutable once published, replaced
// as a whole. Only an Adjacency changes under it, so that losing a neighbor is
// one store whatever the number of groups and routes.
type Snapshot struct {
	Ports []*Port // by Port.Index; nil where there is none
	VRFs  []VRF   // by Subinterface.VRF
}

// VRF is one forwarding table.
type VRF struct {
	Name string
	FIB  *fib.Table[*NextHopGroup]
}

// Port is a port's demultiplexing table. It is immutable; a new table for the
// same port keeps Index, Port and Counters.
type Port struct {
	Index    int // in Snapshot.Ports; never used again for another port
	Name     string
	Port     port.Port
	TPID     uint16 // of the outer tag
	Counters *PortCounters
	// EAPOL is where 802.1X frames go, copied, Ethernet header included: the
	// KaY of this port. Nil if it has none; when full, frames are dropped.
	EAPOL chan<- []byte
	// SecY protects the port: nothing but EAPOL passes in clear. Nil if the
	// port has no MACsec. It stays the same in every table of the port.
	SecY *macsec.SecY

	// CrossConnect is where all frames go, unread: no subinterface of this port
	// gets any. Nil on a port of the router.
	CrossConnect *CrossConnect

	// Arrays rather than maps: a tag is its own index. dot1q[0] is the
	// untagged subinterface.
	dot1q   [4096]*Subinterface
	qinq    [4096]*[4096]*Subinterface
	vni     [4096]*[4096]*Subinterface // by the VNI's upper and lower half
	tunnels bool                       // it carries VXLAN
	// What some subinterface of the port has; steps that none needs are left out.
	checksSources, endpoints, ingress, egress, gateways bool
	// inject lists whose TAPs this port's worker reads.
	inject []*Subinterface
}

// CrossConnect is the other port of a cross-connect.
type CrossConnect struct {
	Port int // Port.Index
}

// NewPort makes the demultiplexing table of a port for its subinterfaces.
// No two of them have the same tags. Origins are the VRFs' own (see
// Subinterface.Origin) whose TAPs the port's worker shall read.
func NewPort(index int, name string, p port.Port, tpid uint16, counters *PortCounters, subs, origins []*Subinterface) *Port {
	t := &Port{Index: index, Name: name, Port: p, TPID: tpid, Counters: counters, inject: slices.Concat(subs, origins)}
	for _, s := range subs {
		if s.limits == nil {
			s.limits = newLimits()
		}
		if s.Tunnel != nil {
			hi, lo := s.Tunnel.VNI>>12, s.Tunnel.VNI&0xfff
			if t.vni[hi] == nil {
				t.vni[hi] = new([4096]*Subinterface)
			}
			t.vni[hi][lo], t.tunnels = s, true
			continue
		}
		if s.Inner == 0 {
			t.dot1q[s.Outer] = s
			continue
		}
		if t.qinq[s.Outer] == nil {
			t.qinq[s.Outer] = new([4096]*Subinterface)
		}
		t.qinq[s.Outer][s.Inner] = s
	}
	t.sumUp()
	return t
}

// sumUp notes which steps the port's subinterfaces need.
func (p *Port) sumUp() {
	for _, s := range p.inject {
		p.checksSources = p.checksSources || s.Sources != nil || s.SourceCheck != SourceAny
		p.endpoints = p.endpoints || s.Endpoints != nil
		p.ingress = p.ingress || s.Ingress != nil
		p.egress = p.egress || s.Egress != nil
		p.gateways = p.gateways || s.Gateway != nil
	}
}

// subinterface returns the one with these tags; nil if there is none.
func (p *Port) subinterface(tags vlan.Stack) *Subinterface {
	switch {
	case tags.Outer != 0 && tags.OuterTPID != p.TPID:
		return nil
	case tags.Inner == 0:
		return p.dot1q[tags.Outer]
	case p.qinq[tags.Outer] != nil:
		return p.qinq[tags.Outer][tags.Inner]
	}
	return nil
}

// tunnel returns the subinterface with this VNI, of 24 bits; nil if there is none.
func (p *Port) tunnel(vni uint32) *Subinterface {
	if half := p.vni[vni>>12]; half != nil {
		return half[vni&0xfff]
	}
	return nil
}

// Subinterface is an L3 interface. It is immutable but for its counters.
type Subinterface struct {
	Name             string
	Port             int          // Port.Index
	VRF              int          // index in Snapshot.VRFs
	Outer, Inner     uint16       // VLAN identifiers; see vlan.Stack
	Tunnel           *Tunnel      // instead of those, on a VXLAN network; nil on a link
	Underlay         bool         // the port's tunnels run over it
	MTU              int          // of IP packets, octets
	Addr4, Addr6     netip.Addr   // ours; the source of ICMP errors. Invalid if there is none
	Subnet4, Subnet6 netip.Prefix // theirs, masked
	// Link is our link-local address that BFD is spoken with; invalid if there is
	// none. The VRF's table has it as Local.
	Link netip.Addr
	Punt *Punt // the kernel's side; nil in tests that need none
	// Ingress and Egress are on a customer's subinterface what it sends, and
	// what is sent to it; nil on others.
	Ingress, Egress *Direction
	Sources         *Sources    // all that may be forwarded from here comes from one of these; nil: any
	SourceCheck     SourceCheck // what else its source must be
	// Gateway is what may come in here at a VNet's gateway, from the MSEEs; nil
	// elsewhere.
	Gateway *Gateway
	// Origin marks not an interface on a port but where the kernel hands over
	// packets for the VRF's table to route: what it has to say to stations that
	// are on no subnet of ours.
	Origin   bool
	Counters *Counters
	// Endpoints are looked up first for what comes in here; nil for none.
	Endpoints *Endpoints

	limits *limits // of what comes in here; the port's worker's
}

// limits bound what one subinterface can make the router do. They are apart
// for each, so that one customer cannot use up another's.
type limits struct {
	icmp        share        // errors sent
	icmpSources sourceLimits // the same, by whom they are for
	glean       share        // neighbors that the kernel is to find
	held        share        // packets that it holds meanwhile
	begun       [64]begun    // which it looks for, by hash
	salt        uint64       // of that hash
	linkLocals  neighborhood
	learned     [16]learned // of a tunnel's
	learn       tokenBucket // what the control side is told of them
}

func newLimits() *limits {
	return &limits{
		icmp:        newShare(icmpPerSecond, icmpQuietPerSecond),
		icmpSources: sourceLimits{salt: rand.Uint64()},
		glean:       newShare(gleanPerSecond, gleanQuietPerSecond),
		held:        newShare(heldPerSecond, heldQuietPerSecond),
		salt:        rand.Uint64(),
		learn:       newTokenBucket(learnPerSecond, learnBurst),
	}
}

// Counters are a subinterface's. Workers add to them at most once per batch
// and run of frames. A GSO superframe counts as one frame.
type Counters struct {
	RxFrames, RxBytes atomic.Uint64 // octets behind the Ethernet header, padding included
	TxFrames, TxBytes atomic.Uint64 // queued; what the port could not send is in its TxDrops
	RxDrops           atomic.Uint64 // received here and given a drop verdict
	Injected          atomic.Uint64 // frames the kernel sent
	Generated         atomic.Uint64 // ICMP errors sent
}

// PortCounters are a port's: what its worker received, by verdict.
type PortCounters struct {
	RxFrames, RxBytes atomic.Uint64 // octets of frames without FCS
	TxFrames, TxBytes atomic.Uint64 // by any worker
	TxDrops           atomic.Uint64
	Errors            atomic.Uint64 // of the device, receive and transmit
	Verdicts          [verdictCount]atomic.Uint64
	// OwnDrops are frames of our own, the kernel's among them, that did not leave, by why.
	OwnDrops    [verdictCount]atomic.Uint64
	BFDDiscards [bfd.Reasons]atomic.Uint64 // why DropBFD, and what else a session did not take
}
