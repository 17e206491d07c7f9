package speaker

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"msee/bgp"
	"msee/bgp/evpn"
)

// EVPN sessions (AFI 25, SAFI 70): what differs from those with prefixes. What they
// hear is decoded as other UPDATEs are, and both ways routes are queued by their own keys.

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

// evpnWord is the newest word on a route: what is not in its key, and without attributes
// that it is withdrawn.
type evpnWord struct {
	vni, routed uint32
	gateway     netip.Addr
	attrs       *evpn.Attrs
}

// takeEVPN moves changes of up to maxRoutes weight out of q.
func takeEVPN(session string, q *queue[evpn.Key, evpnWord]) *evpn.Update {
	u := &evpn.Update{Session: session}
	if n := min(q.len(), maxRoutes); n > 1 {
		u.Announce = make([]evpn.Route, 0, n)
	}
	q.take(maxRoutes, func(k evpn.Key, w evpnWord) int {
		if w.attrs == nil {
			u.Withdraw = append(u.Withdraw, k)
			return 1
		}
		u.Announce = append(u.Announce, evpn.Route{Key: k, VNI: w.vni, Routed: w.routed, Gateway: w.gateway, Attrs: w.attrs})
		return weightEVPN(w.attrs)
	})
	return u
}

// weightEVPN is weight for EVPN.
func weightEVPN(a *evpn.Attrs) int {
	return 1 + (len(a.ASPath)+len(a.Communities)+2*len(a.Extended.Targets))/16
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
	for n := range u.Announce {
		a := &u.Announce[n]
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

// advertiseEVPN changes the Adj-RIB-Out.
func (s *session) advertiseEVPN(r *evpnRoutes) {
	u, err := r.unpack()
	if err != nil {
		s.log.Error("advertise", "err", err) // the edge's own words: they are sound
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range u.Withdraw {
		delete(s.evpnOut, k)
	}
	for _, r := range u.Announce {
		s.evpnOut[r.Key] = r
	}
	if s.cur == nil {
		return
	}
	for _, k := range u.Withdraw {
		s.evpnDirty.set(k, struct{}{})
	}
	for _, r := range u.Announce {
		s.evpnDirty.set(r.Key, struct{}{})
	}
	s.wakeTellerLocked()
}

// nextEVPN is nextUpdates for an EVPN session.
func (s *session) nextEVPN(w *updateWriter, c *conn) (b []byte, more bool) {
	groups := make(map[*evpn.Attrs][]evpn.Route)
	var order []*evpn.Attrs
	var gone []evpn.Key
	s.mu.Lock()
	if s.cur != c {
		s.mu.Unlock()
		return nil, false
	}
	s.evpnDirty.take(atOnce, func(k evpn.Key, _ struct{}) int {
		r, ok := s.evpnOut[k]
		if !ok {
			gone = append(gone, k)
			return 1
		}
		if groups[r.Attrs] == nil {
			order = append(order, r.Attrs)
		}
		groups[r.Attrs] = append(groups[r.Attrs], r)
		return weightEVPN(r.Attrs)
	})
	more = s.evpnDirty.len() > 0
	s.mu.Unlock()
	for _, a := range order {
		var err error
		if b, err = w.announceEVPN(b, groups[a], a); err != nil {
			s.log.Error("advertise", "routes", len(groups[a]), "err", err)
			for i := range groups[a] { // what was announced before is no longer so
				gone = append(gone, groups[a][i].Key)
			}
		}
	}
	return w.withdrawEVPN(b, gone), more
}

// longestEVPN is the most octets that a route has on the wire.
const longestEVPN = 61

// withdrawEVPN appends the messages that withdraw keys.
func (w *updateWriter) withdrawEVPN(b []byte, keys []evpn.Key) []byte {
	const room = maxMessage - headerLen - 4 - 4 - 3
	for some := range slices.Chunk(keys, room/longestEVPN) {
		nlri := []byte{0, 25, 70}
		for _, k := range some {
			nlri = evpn.AppendWithdrawn(nlri, k)
		}
		b = w.messageEVPN(b, attrMPUnreach, nlri, nil)
	}
	return b
}

// endOfEVPN appends End-of-RIB (RFC 4724 §2).
func (w *updateWriter) endOfEVPN(b []byte) []byte {
	return w.messageEVPN(b, attrMPUnreach, []byte{0, 25, 70}, nil)
}

// announceEVPN appends the messages that announce routes of attributes a.
func (w *updateWriter) announceEVPN(b []byte, routes []evpn.Route, a *evpn.Attrs) ([]byte, error) {
	hop := w.local
	if a.NextHop.IsValid() {
		hop = a.NextHop
	}
	attrs := append(appendAttrHead(nil, flagTransitive, attrOrigin, 1), bgp.OriginIGP)
	path := append([]uint32{w.as}, a.ASPath...)
	attrs = w.appendPath(attrs, path)
	if n := len(a.Communities); n > 0 {
		attrs = appendAttrHead(attrs, flagOptional|flagTransitive, attrCommunities, 4*n)
		for _, c := range a.Communities {
			attrs = binary.BigEndian.AppendUint32(attrs, c)
		}
	}
	attrs = appendAttr(attrs, flagOptional|flagTransitive, attrExtended, evpn.AppendExtended(nil, a.Extended))
	if !w.fourOctets && isWide(path) {
		attrs = appendAttrHead(attrs, flagOptional|flagTransitive, attrAS4Path, pathLen(path, 4))
		attrs = appendSegments(attrs, path, 4)
	}
	if a.Flood != 0 {
		attrs = appendAttr(attrs, flagOptional|flagTransitive, attrPMSI, evpn.AppendPMSI(nil, a.Flood, hop))
	}
	room := maxMessage - headerLen - 4 - len(attrs) - (4 + 5 + 16) // MP_REACH_NLRI but its routes
	if room < longestEVPN {
		return b, errAttrsTooLong
	}
	for some := range slices.Chunk(routes, room/longestEVPN) {
		nlri := append([]byte{0, 25, 70, byte(hop.BitLen() / 8)}, hop.AsSlice()...)
		nlri = append(nlri, 0)
		for i := range some {
			nlri = evpn.AppendNLRI(nlri, &some[i])
		}
		b = w.messageEVPN(b, attrMPReach, nlri, attrs)
	}
	return b, nil
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
