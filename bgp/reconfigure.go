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
	if slices.EqualFunc(r.peers, peers, func(p *peer, cfg Peer) bool { return *p.cfg == cfg }) {
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
		}
		next[i] = p
	}
	for _, d := range r.batch.dirty {
		r.removeFunc(d.entry, func(p *peer) bool { return !slices.Contains(kept, p) })
	}
	for i, p := range next {
		p.cfg = &peers[i]
	}
	r.peers = next
	r.reimport()
	return r.settle()
}

// SetPolicy applies changed settings of the policy to all routes as they were
// received. The Kind stays: another kind is another VRF, with another RIB.
func (r *RIB) SetPolicy(p Policy) Changes {
	p.Kind, p.AddressSpace = r.policy.Kind, r.originated
	r.policy = p
	r.touchAll()
	r.reimport()
	return r.settle()
}

// Originate makes prefixes the routes of this device itself, and its own
// address space to the policy.
func (r *RIB) Originate(prefixes []netip.Prefix) Changes {
	own := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() {
			own = append(own, p.Masked())
		}
	}
	slices.SortFunc(own, netip.Prefix.Compare)
	own = slices.Compact(own)
	if slices.Equal(own, r.originated) {
		return Changes{}
	}
	r.originated, r.policy.AddressSpace = own, own
	r.touchAll()
	for _, d := range r.batch.dirty {
		r.removeFunc(d.entry, func(p *peer) bool { return p == r.local })
	}
	for _, prefix := range own {
		e := r.table[prefix]
		if e == nil {
			e = r.newEntry(prefix)
			r.touch(prefix, e)
		}
		set := r.attrs.intern(&Attrs{Origin: OriginIGP})
		r.add(e, path{peer: r.local, in: set, attrs: set.hold()})
	}
	r.reimport()
	return r.settle()
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
				r.reimportPath(&d.entry.paths[i], im, d.prefix)
			}
		}
	}
	for _, im := range importers {
		im.close()
	}
}

func (r *RIB) reimportPath(p *path, im *importer, prefix netip.Prefix) {
	im.load(&p.in.Attrs)
	was := *p
	*p = im.path(prefix)
	p.generation = was.generation
	p.peer.counts.Accepted += oneIf(p.reason == "") - oneIf(was.reason == "")
	r.attrs.release(was.in)
	r.attrs.release(was.attrs)
}

func (r *RIB) removeFunc(e *entry, which func(*peer) bool) {
	for i := len(e.paths) - 1; i >= 0; i-- {
		if which(e.paths[i].peer) {
			r.remove(e, i)
		}
	}
}
