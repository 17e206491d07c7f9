package dataplane

import (
	"hash/fnv"
	"math/bits"
	"net/netip"
	"sync/atomic"

	"msee/vlan"
)

// Adjacency is a neighbor on a subinterface: one object for as long as anyone
// needs it, shared by all next-hop groups it is in. So a neighbor that is lost
// costs one store, whatever the number of groups and routes, and so does one
// that comes back.
//
// Control writes the rewrite; anyone may mark it down, the worker that hears a
// BFD session fail included.
type Adjacency struct {
	Addr netip.Addr

	// ready is what the hot path needs to know: the rewrite, if the neighbor can be
	// used and is on the link. It follows from what is below.
	ready   atomic.Pointer[Rewrite]
	rewrite atomic.Pointer[Rewrite] // nil: not resolved
	down    atomic.Uint32           // DownReasons
	seed    uint64                  // of its weight for a flow
}

// Rewrite is how to send a packet to a neighbor: the subinterface and all that
// goes in front of the packet. It is immutable.
type Rewrite struct {
	Out    *Subinterface
	Header vlan.Header
	VTEP   *VTEP // the neighbor is behind a VXLAN tunnel, and Header the inner one; nil: it is on the link
}

// DownReason is why a neighbor that is resolved is not used. Each reason has its
// own bit, so that the end of one does not end another.
type DownReason uint32

const (
	DownBFD  DownReason = 1 << iota // its BFD session is down
	DownLink                        // the link that it is on is down
)

// NewAdjacency returns the adjacency of a neighbor that is not resolved yet.
// Which flows prefer it follows from the names alone, and so outlasts a restart.
func NewAdjacency(subinterface string, addr netip.Addr) *Adjacency {
	h := fnv.New64a()
	h.Write([]byte(subinterface))
	h.Write(addr.AsSlice())
	return &Adjacency{Addr: addr, seed: mix(h.Sum64(), 0)}
}

// Resolve sets how to reach the neighbor; nil if nobody knows.
func (a *Adjacency) Resolve(r *Rewrite) {
	a.rewrite.Store(r)
	a.settle()
}

// settle brings ready to what follows from the rest. Whoever changed that comes here
// behind it, and leaves only when ready has been right after the store: so it is in
// the end, whoever else was in between. What is out of date is not stored over what
// somebody else has changed since; but where a neighbor comes up and goes down at once, and
// so ready was nil before and after, it may be shown as usable until the next look.
func (a *Adjacency) settle() {
	for {
		old := a.ready.Load()
		ready := a.direct()
		if a.ready.CompareAndSwap(old, ready) && a.direct() == ready {
			return
		}
	}
}

// direct is the rewrite of a neighbor on the link that can be used, else nil.
func (a *Adjacency) direct() *Rewrite {
	r := a.rewrite.Load()
	if a.down.Load() != 0 || r == nil || r.VTEP != nil {
		return nil
	}
	return r
}

// Rewrite returns how to reach the neighbor, be it down or not; nil if nobody
// knows.
func (a *Adjacency) Rewrite() *Rewrite { return a.rewrite.Load() }

// SetDown gives a reason not to use the neighbor, or takes it back. It is safe
// from any goroutine and neither waits nor allocates.
func (a *Adjacency) SetDown(why DownReason, down bool) {
	if down {
		a.down.Or(uint32(why))
	} else {
		a.down.And(^uint32(why))
	}
	a.settle()
}

// Down returns the reasons not to use the neighbor; 0 for none.
func (a *Adjacency) Down() DownReason { return DownReason(a.down.Load()) }

// Usable returns the rewrite if the neighbor can be used now, else nil.
func (a *Adjacency) Usable() *Rewrite {
	if r := a.ready.Load(); r != nil {
		return r
	}
	return a.tunnelled()
}

// tunnelled is the rewrite of a neighbor behind a tunnel that can be used, else nil.
func (a *Adjacency) tunnelled() *Rewrite {
	r := a.rewrite.Load()
	if a.down.Load() != 0 || r == nil || r.VTEP == nil || r.VTEP.Via.ready.Load() == nil {
		return nil
	}
	return r
}

// NextHopGroup is where a route leads. Routes share groups; a group is
// immutable, only its members change state.
type NextHopGroup struct {
	Kind GroupKind
	// Members are the equal ways of a Forward group, Backup those for when none
	// of them can be used, and no members. A Neighbor group has one member.
	Members, Backup []*Adjacency
	// Out is the connected subnet's subinterface in a Glean group: the packet's
	// own destination is the neighbor.
	Out *Subinterface
}

// GroupKind says what a route does with a packet.
type GroupKind uint8

const (
	Forward   GroupKind = iota // to one of the members
	Neighbor                   // to the one member, even if it is down: it is where the packet is for
	Local                      // ours: to the kernel
	Glean                      // on a connected subnet, neighbor not known yet
	Blackhole                  // discard
)

func (k GroupKind) String() string {
	return [...]string{"forward", "neighbor", "local", "glean", "blackhole"}[k]
}

// sole is choose where there is nothing to choose: the one member of a Forward
// group, if it can be used and is on the link. Nil says nothing. (Inlined.)
func (g *NextHopGroup) sole() *Rewrite {
	if len(g.Members) != 1 || g.Kind != Forward {
		return nil
	}
	return g.Members[0].ready.Load()
}

// choose returns the rewrite for an IP packet to a Forward group: of the members
// that can be used the one that weighs most for its flow, else of the backups;
// nil if none can.
func (g *NextHopGroup) choose(ip []byte, v6 bool) *Rewrite {
	if len(g.Members) == 1 {
		if r := g.Members[0].Usable(); r != nil {
			return r
		}
	}
	flow := uint64(flowHash(ip, v6))
	if r := likely(g.Members, flow); r != nil {
		return r
	}
	if r := heaviest(g.Members, flow); r != nil {
		return r
	}
	return heaviest(g.Backup, flow)
}

// likely is heaviest if the one that weighs most can be used and is on the link, else
// nil. It compares without a branch, which would be mispredicted for every second flow.
func likely(members []*Adjacency, flow uint64) *Rewrite {
	var most, best uint64
	for i, a := range members {
		w := mix(flow, a.seed)
		_, more := bits.Sub64(most, w, 0) // 1 if w > most
		most += (w - most) & -more
		best += (uint64(i) - best) & -more
	}
	if best >= uint64(len(members)) {
		return nil // there is none
	}
	return members[best].ready.Load()
}

// bounces reports that a packet that came from src, an Ethernet address, has come from
// a backup, and would go to one as its group has nothing else left: that one or, with
// several links between the two, another. Two routers that repair for each other would
// send it to and fro.
func (g *NextHopGroup) bounces(out *Rewrite, src []byte) bool {
	for _, a := range g.Backup {
		if a.Rewrite() == out {
			return g.backedUpBy(src)
		}
	}
	return false
}

func (g *NextHopGroup) backedUpBy(mac []byte) bool {
	for _, a := range g.Backup {
		if r := a.Rewrite(); r != nil && r.Header.Dst() == [6]byte(mac) {
			return true
		}
	}
	return false
}

// heaviest is rendezvous hashing (Thaler, Ravishankar: "Using Name-Based
// Mappings to Increase Hit Rates", 1998): each neighbor weighs something else
// for each flow, whoever else is in the group. A neighbor that goes takes only
// its own flows with it, and has the same ones again when it is back, whether
// it was marked down or its route withdrawn; no table needs to remember that.
func heaviest(members []*Adjacency, flow uint64) (best *Rewrite) {
	var most uint64
	for _, a := range members {
		if w := mix(flow, a.seed); best == nil || w > most {
			if r := a.Usable(); r != nil {
				best, most = r, w
			}
		}
	}
	return best
}
