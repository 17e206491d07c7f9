package speaker

import (
	"encoding/binary"
	"slices"

	"msee/bgp"
	"msee/bgp/evpn"
)

// EVPN sessions (AFI 25, SAFI 70): what differs from those with prefixes. What they
// hear is decoded as other UPDATEs are, and queued by its own keys. What they say is
// little, so the edge gives it whole, and each connection is told the difference.

// reachEVPN takes the routes of MP_REACH_NLRI. One that is there twice and malformed
// once is withdrawn (RFC 7606 §2).
func (p *updateParser) reachEVPN(nlri []byte) error {
	parsed, err := evpn.ParseNLRI(nlri)
	if err != nil {
		return &updateError{10, "MP_REACH_NLRI: " + err.Error()}
	}
	if hop := p.attrs.NextHop; !evpn.IsVTEP(hop) {
		p.treatAsWithdraw("MP_REACH_NLRI: next hop %v is not a host's address", hop)
	}
	// The UPDATE is short, so a list of the malformed will do.
	p.out.evpn.Announce = slices.DeleteFunc(parsed.Routes, func(r evpn.Route) bool { return slices.Contains(parsed.Malformed, r.Key) })
	p.out.evpn.Withdraw = append(p.out.evpn.Withdraw, parsed.Malformed...)
	p.spoilt = parsed.Why
	return nil
}

func (p *updateParser) unreachEVPN(nlri []byte) error {
	keys, err := evpn.ParseWithdrawn(nlri)
	if err != nil {
		return &updateError{10, "MP_UNREACH_NLRI: " + err.Error()}
	}
	p.out.evpn.Withdraw = append(p.out.evpn.Withdraw, keys...)
	return nil
}

func (p *updateParser) extended(v []byte) {
	var err error
	if p.evpn.Extended, err = evpn.ParseExtended(v); err != nil {
		p.treatAsWithdraw("%v", err)
	}
}

func (p *updateParser) pmsi(v []byte) {
	var err error
	if p.evpn.Flood, err = evpn.ParsePMSI(v); err != nil {
		p.treatAsWithdraw("%v", err)
	}
}

// withdrawEVPN takes all that is announced as withdrawn.
func (p *updateParser) withdrawEVPN() {
	u := &p.out.evpn
	for _, r := range u.Announce {
		u.Withdraw = append(u.Withdraw, r.Key)
	}
	u.Announce = nil
}

// shareEVPN gives all that is announced its attributes.
func (p *updateParser) shareEVPN() {
	a := p.evpn
	a.NextHop, a.ASPath, a.Communities = p.attrs.NextHop, p.attrs.ASPath, p.attrs.Communities
	for i := range p.out.evpn.Announce {
		p.out.evpn.Announce[i].Attrs = &a
	}
}

// updateEVPN turns what was received into a change of the Adj-RIB-In.
func (r *received) updateEVPN(session string) *evpn.Update {
	r.evpn.Session = session
	return &r.evpn
}

// takeEVPN moves changes of up to maxRoutes weight out of q.
func takeEVPN(session string, q *queue[evpn.Key, *evpn.Route]) *evpn.Update {
	u := &evpn.Update{Session: session}
	q.take(maxRoutes, func(k evpn.Key, r *evpn.Route) int {
		if r == nil {
			u.Withdraw = append(u.Withdraw, k)
			return 1
		}
		u.Announce = append(u.Announce, *r)
		return 1 + (len(r.Attrs.ASPath)+len(r.Attrs.Communities)+2*len(r.Attrs.Extended.Targets))/16
	})
	return u
}

// evpnRoutes is an evpn.Update on the wire. Routes are encoded as BGP does it.
type evpnRoutes struct {
	Session  string
	Groups   []evpnGroup
	Withdraw []byte
}

type evpnGroup struct {
	Attrs evpn.Attrs
	NLRI  []byte
}

// packEVPN groups the announcements by attributes; equal pointers share a group.
func packEVPN(u *evpn.Update) *evpnRoutes {
	r := &evpnRoutes{Session: u.Session}
	for _, k := range u.Withdraw {
		r.Withdraw = evpn.AppendWithdrawn(r.Withdraw, k)
	}
	at := make(map[*evpn.Attrs]int)
	for _, a := range u.Announce {
		i, ok := at[a.Attrs]
		if !ok {
			i = len(r.Groups)
			at[a.Attrs] = i
			r.Groups = append(r.Groups, evpnGroup{Attrs: *a.Attrs})
		}
		r.Groups[i].NLRI = evpn.AppendNLRI(r.Groups[i].NLRI, a)
	}
	return r
}

// unpack is the inverse of packEVPN.
func (r *evpnRoutes) unpack() (*evpn.Update, error) {
	u := &evpn.Update{Session: r.Session}
	var err error
	if u.Withdraw, err = evpn.ParseWithdrawn(r.Withdraw); err != nil {
		return nil, err
	}
	for i := range r.Groups {
		p, err := evpn.ParseNLRI(r.Groups[i].NLRI)
		if err != nil {
			return nil, err
		}
		for _, route := range p.Routes {
			route.Attrs = &r.Groups[i].Attrs
			u.Announce = append(u.Announce, route)
		}
	}
	return u, nil
}

// advertiseEVPN replaces the Adj-RIB-Out.
func (s *session) advertiseEVPN(r *evpnRoutes) {
	u, err := r.unpack()
	if err != nil {
		s.log.Error("advertise", "err", err) // the edge's own words: they are sound
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evpnOut = u.Announce
	s.wakeTellerLocked()
}

// tellEVPN is tell for an EVPN session.
func (s *session) tellEVPN(c *conn, w *updateWriter) {
	told := map[evpn.Key]*evpn.Route{}
	ready := s.told // the End-of-RIB is due when it closes; nil when it is out
	if !c.open.carries(l2vpnEVPN) {
		ready = nil
	}
	for all := false; ; {
		if c.retell.Swap(false) {
			clear(told)
		}
		s.mu.Lock()
		routes := s.evpnOut
		s.mu.Unlock()
		b := w.differenceEVPN(nil, told, routes)
		if all {
			b, all, ready = w.messageEVPN(b, attrMPUnreach, []byte{0, 25, 70}, nil), false, nil
		}
		if len(b) > 0 {
			if err := c.send(b, s.cfg.Hold); err != nil {
				s.sendFailed(c, err)
				return
			}
		}
		select {
		case <-c.wake:
		case <-ready:
			all = true
		case <-c.gone:
			return
		}
	}
}

// differenceEVPN appends the messages that lead from told, which it brings up to
// date, to routes.
func (w *updateWriter) differenceEVPN(b []byte, told map[evpn.Key]*evpn.Route, routes []evpn.Route) []byte {
	gone := map[evpn.Key]bool{}
	for k := range told {
		gone[k] = true
	}
	groups := make(map[*evpn.Attrs][]evpn.Route)
	var order []*evpn.Attrs
	for _, r := range routes {
		delete(gone, r.Key)
		if t := told[r.Key]; t != nil && t.VNI == r.VNI && t.Routed == r.Routed && t.Gateway == r.Gateway && t.Attrs.Equal(r.Attrs) {
			continue
		}
		told[r.Key] = &r
		if groups[r.Attrs] == nil {
			order = append(order, r.Attrs)
		}
		groups[r.Attrs] = append(groups[r.Attrs], r)
	}
	for _, a := range order {
		b = w.announceEVPN(b, groups[a], a)
	}
	for k := range gone {
		delete(told, k)
		b = w.messageEVPN(b, attrMPUnreach, evpn.AppendWithdrawn([]byte{0, 25, 70}, k), nil)
	}
	return b
}

// announceEVPN appends the messages that announce routes of attributes a.
func (w *updateWriter) announceEVPN(b []byte, routes []evpn.Route, a *evpn.Attrs) []byte {
	hop := w.local
	if a.NextHop.IsValid() {
		hop = a.NextHop
	}
	attrs := append(appendAttrHead(nil, flagTransitive, attrOrigin, 1), bgp.OriginIGP)
	attrs = w.appendPath(attrs, append([]uint32{w.as}, a.ASPath...))
	if n := len(a.Communities); n > 0 {
		attrs = appendAttrHead(attrs, flagOptional|flagTransitive, attrCommunities, 4*n)
		for _, c := range a.Communities {
			attrs = binary.BigEndian.AppendUint32(attrs, c)
		}
	}
	attrs = appendAttr(attrs, flagOptional|flagTransitive, attrExtended, evpn.AppendExtended(nil, a.Extended))
	if a.Flood != 0 {
		attrs = appendAttr(attrs, flagOptional|flagTransitive, attrPMSI, evpn.AppendPMSI(nil, a.Flood, hop))
	}
	// The longest route has 61 octets; 32 of them leave room for the attributes.
	const together = 32
	for len(routes) > 0 {
		n := min(len(routes), together)
		nlri := append([]byte{0, 25, 70, byte(hop.BitLen() / 8)}, hop.AsSlice()...)
		nlri = append(nlri, 0)
		for _, r := range routes[:n] {
			nlri = evpn.AppendNLRI(nlri, r)
		}
		b = w.messageEVPN(b, attrMPReach, nlri, attrs)
		routes = routes[n:]
	}
	return b
}

// messageEVPN appends an UPDATE of one multiprotocol attribute, first as RFC 7606
// §5.1 asks, and others.
func (w *updateWriter) messageEVPN(b []byte, code uint8, value, attrs []byte) []byte {
	start := len(b)
	b = append(appendHeader(b, typeUpdate), 0, 0, 0, 0)
	at := len(b)
	b = append(appendAttr(b, flagOptional, code, value), attrs...)
	binary.BigEndian.PutUint16(b[at-2:], uint16(len(b)-at))
	binary.BigEndian.PutUint16(b[start+16:], uint16(len(b)-start))
	return b
}

func appendAttr(b []byte, flags, code uint8, value []byte) []byte {
	return append(appendAttrHead(b, flags, code, len(value)), value...)
}
