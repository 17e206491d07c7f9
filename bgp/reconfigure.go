package bgp

import (
	"net/netip"
	"slices"
)

// SetPeers makes peers, whose names must differ, the RIB's sessions. The routes
// of a peer that is gone, or is now another session (AS or addresses), are
// dropped; other changes (weight, connection, side, subnet) are applied to the
// routes already there. Adj-RIBs-Out go by name: that of a new name is among
// the changes as a whole, that of a name that is gone is forgotten.
func (r *RIB) SetPeers(peers []Peer) Changes {
	if slices.EqualFunc(r.peers, peers, func(p *peer, cfg Peer) bool { return p.cfg.equal(&cfg) }) {
		return Changes{}
	}
	r.touchAll()
	peers = slices.Clone(peers)
	next := make([]*peer, len(peers))
	kept := []*peer{r.local} // of these the routes stay
	for i, cfg := range peers {
		p := r.peer(cfg.Name)
		if p == nil {
			p = new(peer)
		} else if p.cfg.sameSession(&cfg) {
			kept = append(kept, p)
		} else {
			p.stale, p.over = false, false
		}
		next[i] = p
	}
	for _, d := range r.batch.dirty {
		r.removeFunc(d.entry, func(p *path) bool { return !slices.Contains(kept, p.peer) })
	}
	for i, p := range next {
		p.cfg = &peers[i]
	}
	r.peers = next
	r.reimport()
	for _, p := range next {
		p.over = p.over || p.exceeds()
	}
	return r.settleLimits()
}

// SetPolicy applies changed settings of the policy to all routes as they were
// received. The Kind stays: another kind is another VRF, with another RIB.
func (r *RIB) SetPolicy(p Policy) Changes {
	p.Kind, p.AddressSpace = r.policy.Kind, r.policy.AddressSpace
	r.policy = p
	r.touchAll()
	r.reimport()
	return r.settle()
}

// Originate makes routes, of which only the prefix and the communities count,
// those of this device itself, and their prefixes its own address space to the
// policy. Of several with one prefix the first counts.
func (r *RIB) Originate(routes []Route) Changes {
	own := make([]Route, 0, len(routes))
	for _, o := range routes {
		if o.Prefix.IsValid() {
			own = append(own, Route{o.Prefix.Masked(), originAttrs(o.Attrs)})
		}
	}
	slices.SortStableFunc(own, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	own = slices.CompactFunc(own, func(a, b Route) bool { return a.Prefix == b.Prefix })
	if slices.EqualFunc(own, r.originated, func(a, b Route) bool { return a.Prefix == b.Prefix && a.Attrs.Equal(b.Attrs) }) {
		return Changes{}
	}
	r.originated, r.policy.AddressSpace = own, make([]netip.Prefix, len(own))
	for i, o := range own {
		r.policy.AddressSpace[i] = o.Prefix
	}
	r.touchAll()
	for _, d := range r.batch.dirty {
		r.removeFunc(d.entry, func(p *path) bool { return p.peer == r.local })
	}
	for _, o := range own {
		e := r.table[o.Prefix]
		if e == nil {
			e = r.newEntry(o.Prefix)
			r.touch(o.Prefix, e)
		}
		set := r.attrs.intern(o.Attrs)
		r.add(e, path{peer: r.local, in: set, attrs: set.hold()})
	}
	r.reimport()
	return r.settle()
}

func originAttrs(a *Attrs) *Attrs {
	if a == nil {
		a = &Attrs{}
	}
	return &Attrs{Origin: OriginIGP, Communities: a.Communities}
}

func (r *RIB) touchAll() {
	for prefix, e := range r.table {
		r.touch(prefix, e)
	}
}

// reimport runs import policy again on all routes of the touched entries.
func (r *RIB) reimport() {
	importers := make(map[*peer]*importer, len(r.peers))
	for _, p := range r.peers {
		importers[p] = &importer{rib: r, peer: p}
	}
	for _, d := range r.batch.dirty {
		for i := range d.entry.paths {
			if im := importers[d.entry.paths[i].peer]; im != nil {
				r.reimportPath(d.entry, i, im, d.prefix)
			}
		}
	}
	for _, im := range importers {
		im.close()
	}
}

func (r *RIB) reimportPath(e *entry, i int, im *importer, prefix netip.Prefix) {
	p := &e.paths[i]
	im.load(&p.in.Attrs)
	_, before := e.has(p.peer)
	was := *p
	*p = im.path(prefix)
	p.generation = was.generation
	_, after := e.has(p.peer)
	p.peer.counts.Accepted += oneIf(after) - oneIf(before)
	r.attrs.release(was.in)
	r.attrs.release(was.attrs)
}
