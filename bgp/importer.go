package bgp

import "net/netip"

// importer runs import policy on one peer's routes. Those of one UPDATE share
// their attributes, so it keeps its last answer. It holds on to sets until the
// next answer or close.
type importer struct {
	rib    *RIB
	peer   *peer
	last   *Attrs // answered below; nil if none
	in     *attrSet
	attrs  *attrSet
	reason Reason // of the attributes alone
}

// load sets the importer on a route's attributes as received.
func (im *importer) load(a *Attrs) {
	if im.last == a {
		return
	}
	im.close()
	r := im.rib
	im.last, im.in = a, r.attrs.intern(a)
	attrs, reason := r.policy.importAttrs(im.peer.cfg, &im.in.Attrs)
	im.reason = reason
	if attrs == &im.in.Attrs {
		im.attrs = im.in.hold()
	} else {
		im.attrs = r.attrs.intern(attrs)
	}
}

// path makes the route to prefix with the loaded attributes.
func (im *importer) path(prefix netip.Prefix) path {
	p := path{peer: im.peer, attrs: im.attrs, in: im.in, reason: im.reason, generation: im.peer.generation}
	if why := im.rib.policy.refusesPrefix(im.peer.cfg, prefix); why != "" {
		p.reason = why
	}
	if p.reason != "" {
		p.attrs = p.in
	}
	p.in.hold()
	p.attrs.hold()
	return p
}

func (im *importer) close() {
	if im.last != nil {
		im.rib.attrs.release(im.in)
		im.rib.attrs.release(im.attrs)
		im.last = nil
	}
}
