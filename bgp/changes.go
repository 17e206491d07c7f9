package bgp

import (
	"net/netip"
	"slices"

	"msee/bgp/evpn"
)

// Changes is what a change of the RIB means to others. Order within a list
// means nothing.
type Changes struct {
	Routes  []RouteChange // for the FIB: prefixes whose next hops changed
	Updates []Update      // for the speaker: Adj-RIB-Out changes, at most one Update per session
	// Exceeded are the sessions that have just announced more than their
	// MaxPrefixes. Their routes are gone, and what they say is ignored until
	// [RIB.Down]: they are to be ended.
	Exceeded []string
}

// RouteChange is a prefix's new next hops.
type RouteChange struct {
	Prefix netip.Prefix
	// NextHops are the ECMP set in order of peer address, each next hop once.
	// Empty if BGP has no way there (any more): none is known, or the prefix
	// is our own. Changes with equal sets may share one slice.
	NextHops []NextHop
}

// NextHop is a next hop and the session that it was heard from.
type NextHop struct {
	Session string
	Addr    netip.Addr
	MAC     evpn.MAC // see [Attrs]
}

// Empty reports whether nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Routes) == 0 && len(c.Updates) == 0 && len(c.Exceeded) == 0
}

// batch remembers what the entries touched since the last settle were, so that
// only what differs in the end is reported.
type batch struct {
	dirty    []dirty
	members  []member // multipath sets as they were, of one entry after the other
	old, new []NextHop
}

type dirty struct {
	prefix netip.Prefix
	entry  *entry
	was    int // how many members are its
}

// member is a route of a multipath set under the configuration of its time.
type member struct {
	from  *Peer
	attrs *attrSet
}

// keepBatch is the most entries a batch's memory is kept for.
const keepBatch = 1 << 14

// expect makes room for a batch of up to n entries.
func (r *RIB) expect(n int) {
	r.batch.dirty = slices.Grow(r.batch.dirty, min(n, keepBatch))
}

// touch must be called before an entry is changed.
func (r *RIB) touch(prefix netip.Prefix, e *entry) {
	if e.dirty {
		return
	}
	e.dirty = true
	for i := range e.paths[:e.multipath] {
		r.batch.members = append(r.batch.members, e.member(i))
	}
	r.batch.dirty = append(r.batch.dirty, dirty{prefix, e, e.multipath})
}

func (e *entry) member(i int) member { return member{e.paths[i].peer.cfg, e.paths[i].attrs} }

// best returns the route that is announced; its from is nil if there is none.
func (e *entry) best() member {
	if e.multipath == 0 {
		return member{}
	}
	return e.member(0)
}

// settle decides all touched entries anew and ends the batch.
func (r *RIB) settle() Changes {
	var c Changes
	members := r.batch.members
	for i, d := range r.batch.dirty {
		was := members[:d.was]
		members = members[d.was:]
		left := len(r.batch.dirty) - i
		d.entry.dirty = false
		d.entry.decide()
		r.changeRoute(&c, d, was, left)
		r.changeAdjRIBOut(d, was, left)
		if len(d.entry.paths) == 0 {
			delete(r.table, d.prefix)
			r.lengths[oneIf(d.prefix.Addr().Is6())][d.prefix.Bits()]--
		}
	}
	for _, p := range r.peers {
		if len(p.update.Announce)+len(p.update.Withdraw) > 0 {
			p.update.Session = p.cfg.Name
			c.Updates = append(c.Updates, p.update)
			p.update = Update{}
		}
		p.was = p.cfg
	}
	r.was = r.policy
	r.endBatch()
	return c
}

func (r *RIB) endBatch() {
	b := &r.batch
	if cap(b.dirty) > keepBatch {
		*b = batch{}
		return
	}
	clear(b.dirty)
	clear(b.members)
	b.dirty, b.members = b.dirty[:0], b.members[:0]
}

// appendOf appends to a list that may get as many elements as there are entries
// left in the batch. Making room for them at once, if they are not very many,
// halves the time of a table that is new.
func appendOf[E any](list []E, e E, left int) []E {
	if list == nil {
		list = make([]E, 0, min(left, keepBatch))
	}
	return append(list, e)
}

func (r *RIB) changeRoute(c *Changes, d dirty, was []member, left int) {
	b := &r.batch
	b.old, b.new = b.old[:0], b.new[:0]
	for _, m := range was {
		b.old = m.appendNextHop(b.old)
	}
	for i := range d.entry.multipath {
		b.new = d.entry.member(i).appendNextHop(b.new)
	}
	if slices.Equal(b.old, b.new) {
		return
	}
	change := RouteChange{Prefix: d.prefix}
	if n := len(c.Routes); n > 0 && slices.Equal(c.Routes[n-1].NextHops, b.new) {
		change.NextHops = c.Routes[n-1].NextHops
	} else {
		change.NextHops = slices.Clone(b.new)
	}
	c.Routes = appendOf(c.Routes, change, left)
}

// appendNextHop leaves out a next hop that is there already, by a third party's
// word: it would get twice its share.
func (m member) appendNextHop(hops []NextHop) []NextHop {
	hop, mac := m.attrs.NextHop, m.attrs.MAC
	known := func(h NextHop) bool { return h.Addr == hop && h.MAC == mac }
	if m.from.Side == SideLocal || slices.ContainsFunc(hops, known) {
		return hops
	}
	return append(hops, NextHop{Session: m.from.Name, Addr: hop, MAC: mac})
}

// changeAdjRIBOut adds to each peer's update what differs between the export of
// the best route as it was and as it is.
func (r *RIB) changeAdjRIBOut(d dirty, was []member, left int) {
	var before member
	if len(was) > 0 {
		before = was[0]
	}
	now := d.entry.best()
	for _, p := range r.peers {
		old := exported(&r.was, p.was, before, d.prefix)
		a := exported(&r.policy, p.cfg, now, d.prefix)
		switch {
		case a == old || a != nil && old != nil && a.Equal(old):
		case a != nil:
			p.update.Announce = appendOf(p.update.Announce, Route{Prefix: d.prefix, Attrs: a}, left)
			p.counts.Advertised += oneIf(old == nil)
		default:
			p.update.Withdraw = appendOf(p.update.Withdraw, d.prefix, left)
			p.counts.Advertised--
		}
	}
}

// exported is Policy.Export by way of the set's memory.
func exported(policy *Policy, to *Peer, best member, prefix netip.Prefix) *Attrs {
	if to == nil || best.from == nil || !to.carries(prefix) {
		return nil
	}
	return best.attrs.export(policy.exportAs(to, best.from, &best.attrs.Attrs))
}
