package edge

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"msee/bgp"
	"msee/circuit"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
	"msee/fastpath"
)

// Endpoints: a gateway tells its MSEEs the hosts of its VNet's addresses, each as
// a host route with the host as next hop and a community that says what kind of
// address it is. They are no routes of the RIB: the customer does not hear of
// them, and they do not count among his prefixes. An MSEE programs those that
// FastPath is allowed for into the exact match; all others, and all if it is
// off, follow the VNet's prefix to the gateway.

// endpointCommunity marks an endpoint; the kind's place in circuit.EndpointKinds
// is added to it.
const endpointCommunity = bgp.ASGateway<<16 | 5000

// endpoints are a VRF's.
type endpoints struct {
	dp    *dataplane.Endpoints
	all   map[netip.Addr]*endpoint
	hosts map[hop]*endpointHost // of those that are programmed
	// review are prefixes that gateways have announced or withdrawn, and with that
	// perhaps endpoints become theirs to tell of, or not.
	review []netip.Prefix
	told   map[string]told // by session
	most   int             // of one session
	// programmed and refused, by reason, count what all are.
	programmed int
	refused    map[circuit.Refusal]int
}

// told is how many endpoints a session has told of.
type told struct {
	kept    int
	refused int // announcements above the bound, since it told of none
}

// endpointsPerSession bounds what is kept of one session's endpoints, programmed
// or not: a peer must not use up the memory. It is twice what the largest port
// programs, so that after a peer's restart all can be other ones than before.
const endpointsPerSession = 2 * 200_000

// endpoint is an address and what sessions say of it.
type endpoint struct {
	ways    []way // at most one per session, the one heard last first
	hop     hop   // programmed; zero if it is not
	refused circuit.Refusal
	counted bool // among the endpoints' numbers
}

type way struct {
	session string // or the subinterface's name, of what EVPN tells
	host    netip.Addr
	mac     port.MAC // told by EVPN: the destination, behind the VTEP host; else zero
	kind    circuit.EndpointKind
	stale   bool // from before the speaker's restart, or the peer's
}

type endpointHost struct {
	*dataplane.Adjacency
	number dataplane.Host
	users  int // endpoints
}

// endpointPort counts what all circuits of a port have programmed.
type endpointPort struct {
	used    int
	waiting map[waiter]bool // refused for the limit alone
}

type waiter struct {
	vrf  *vrf
	addr netip.Addr
}

func newEndpoints(f *dataplane.FastPath) *endpoints {
	return &endpoints{
		dp:  &dataplane.Endpoints{FastPath: f},
		all: map[netip.Addr]*endpoint{}, hosts: map[hop]*endpointHost{},
		told: map[string]told{}, most: endpointsPerSession, refused: map[circuit.Refusal]int{},
	}
}

// endpointUpdate takes what an update says of endpoints, and returns the rest.
func (e *Edge) endpointUpdate(s *session, u bgp.Update) bgp.Update {
	if e.device.Kind != config.KindEdge || s.cfg.Side != config.SideCore {
		return u
	}
	v := s.vrf
	for _, p := range u.Withdraw {
		if p.IsSingleIP() && v.endpoints.all[p.Addr()] != nil {
			e.setWay(v, p.Addr(), s.cfg.Name, nil)
		}
	}
	v.endpoints.review = append(v.endpoints.review, u.Withdraw...)
	rest := u.Announce[:0:0]
	for i, r := range u.Announce {
		kind, ok := circuit.EndpointKind(""), false
		if r.Attrs != nil {
			kind, ok = endpointKind(r.Prefix, r.Attrs.Communities)
		}
		if ok && rest == nil {
			rest = append(make([]bgp.Route, 0, len(u.Announce)), u.Announce[:i]...)
		}
		switch {
		case ok:
			e.setWay(v, r.Prefix.Addr(), s.cfg.Name, &way{session: s.cfg.Name, host: r.Attrs.NextHop, kind: kind})
		case rest != nil:
			rest = append(rest, r)
		}
		if !ok {
			v.endpoints.review = append(v.endpoints.review, r.Prefix)
		}
		if !ok && r.Prefix.IsSingleIP() && v.endpoints.all[r.Prefix.Addr()] != nil {
			e.setWay(v, r.Prefix.Addr(), s.cfg.Name, nil) // an ordinary host route now
		}
	}
	if rest != nil {
		u.Announce = rest
	}
	return u
}

// endpointKind says whether a route with these communities is an endpoint, and of what kind.
func endpointKind(p netip.Prefix, communities []uint32) (circuit.EndpointKind, bool) {
	if !p.IsSingleIP() || p.Addr().Is4In6() {
		return "", false
	}
	return kindOf(communities)
}

// mayTell counts one more endpoint of a session, unless it has told of too many.
func (e *Edge) mayTell(v *vrf, session string) bool {
	t := v.endpoints.told[session]
	ok := t.kept < v.endpoints.most
	if ok {
		t.kept++
	} else {
		if t.refused == 0 {
			e.log.Error("too many endpoints; further ones go by the gateway", "session", session, "limit", v.endpoints.most)
		}
		t.refused++
	}
	v.endpoints.told[session] = t
	return ok
}

// takeBack counts one endpoint of a session less.
func (es *endpoints) takeBack(session string) {
	t := es.told[session]
	if t.kept--; t.kept == 0 {
		delete(es.told, session)
		return
	}
	es.told[session] = t
}

// setWay replaces what a session says of an endpoint, nil for nothing.
func (e *Edge) setWay(v *vrf, addr netip.Addr, session string, w *way) {
	ep := v.endpoints.all[addr]
	i := -1
	if ep != nil {
		i = slices.IndexFunc(ep.ways, func(x way) bool { return x.session == session })
	}
	if i < 0 && (w == nil || !e.mayTell(v, session)) {
		return
	}
	if ep == nil {
		ep = &endpoint{}
		v.endpoints.all[addr] = ep
	}
	switch {
	case w == nil:
		ep.ways = slices.Delete(ep.ways, i, i+1)
		v.endpoints.takeBack(session)
	case i >= 0 && ep.ways[i].host == w.host && ep.ways[i].mac == w.mac && ep.ways[i].kind == w.kind:
		ep.ways[i].stale = false // nothing new, so not the latest word
		return
	default:
		if i >= 0 {
			ep.ways = slices.Delete(ep.ways, i, i+1)
		}
		ep.ways = slices.Insert(ep.ways, 0, *w)
	}
	e.programEndpoint(v, addr, ep)
}

// endpointsGone drops what a session has said of endpoints, or only what it has
// not said again since the restart.
func (e *Edge) endpointsGone(v *vrf, session string, onlyStale bool) {
	for addr, ep := range v.endpoints.all {
		for _, w := range ep.ways {
			if w.session == session && (w.stale || !onlyStale) {
				e.setWay(v, addr, session, nil)
				break
			}
		}
	}
}

// endpointsStale marks what a session has said, or all have if it is "", as heard
// before the restart of the peer or of the speaker.
func (v *vrf) endpointsStale(session string) {
	for _, ep := range v.endpoints.all {
		for i := range ep.ways {
			if ep.ways[i].mac != (port.MAC{}) {
				continue // EVPN's table knows
			}
			ep.ways[i].stale = ep.ways[i].stale || session == "" || ep.ways[i].session == session
		}
	}
}

// reviewOneByOne is for how many prefixes it is worth asking which endpoints are in
// them.
const reviewOneByOne = 64

// reviewAll has all endpoints of the VRF decided anew.
func (v *vrf) reviewAll() {
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		v.endpoints.review = append(v.endpoints.review, netip.PrefixFrom(all, 0))
	}
}

// reviewAnnounced decides the endpoints of those VRFs anew whose gateways have
// changed what they announce.
func (e *Edge) reviewAnnounced() {
	for _, v := range e.vrfs {
		changed := v.endpoints.review
		if v.endpoints.review = nil; len(changed) == 0 {
			continue
		}
		for addr, ep := range v.endpoints.all {
			if len(changed) > reviewOneByOne || slices.ContainsFunc(changed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				e.programEndpoint(v, addr, ep)
			}
		}
	}
}

// reviewEndpoints decides all endpoints anew: sessions, subinterfaces or what
// their connections allow may have changed. What stays programmed is not touched.
func (e *Edge) reviewEndpoints() {
	for _, v := range e.vrfs {
		for addr, ep := range v.endpoints.all {
			ep.ways = slices.DeleteFunc(ep.ways, func(w way) bool { return !e.speaks(v, addr, w) })
			e.programEndpoint(v, addr, ep)
		}
		maps.DeleteFunc(v.endpoints.told, func(session string, _ told) bool { return e.sessions[session] == nil && v.subs[session] == nil })
	}
}

// programEndpoint brings the exact match to what is to become of an endpoint, and
// gives room that has come to those that wait for it.
func (e *Edge) programEndpoint(v *vrf, addr netip.Addr, ep *endpoint) {
	counted := e.endpointPort(v)
	e.program(counted, v, addr, ep)
	for w := range counted.waiting {
		if counted.used >= e.endpointLimit(w.vrf) {
			return
		}
		e.program(counted, w.vrf, w.addr, w.vrf.endpoints.all[w.addr])
	}
}

func (e *Edge) program(counted *endpointPort, v *vrf, addr netip.Addr, ep *endpoint) {
	delete(counted.waiting, waiter{v, addr})
	v.endpoints.count(ep, false)
	want, refused := e.placeOf(v, addr, ep)
	if want.sub != nil && ep.hop.sub == nil && counted.used >= e.endpointLimit(v) {
		if len(counted.waiting) == 0 {
			e.log.Warn("FastPath limit reached; further endpoints go by the gateway", "port", v.customerPort(), "limit", e.endpointLimit(v))
		}
		counted.waiting[waiter{v, addr}] = true
		want, refused = hop{}, circuit.RefusedLimit
	}
	if want != ep.hop {
		refused = e.moveEndpoint(v, addr, ep, want, refused)
	}
	ep.refused = refused
	if len(ep.ways) == 0 {
		delete(v.endpoints.all, addr)
		return
	}
	v.endpoints.count(ep, true)
}

// count adds an endpoint as it is to the numbers, or takes it out.
func (es *endpoints) count(ep *endpoint, add bool) {
	by := boolToInt(add) - boolToInt(ep.counted)
	switch ep.counted = add; {
	case by == 0:
	case ep.hop.sub != nil:
		es.programmed += by
	default:
		if es.refused[ep.refused] += by; es.refused[ep.refused] == 0 {
			delete(es.refused, ep.refused)
		}
	}
}

// placeOf returns where an endpoint's host is if FastPath is allowed, by the
// latest word of those sessions that it is allowed for.
func (e *Edge) placeOf(v *vrf, addr netip.Addr, ep *endpoint) (_ hop, refused circuit.Refusal) {
	for _, w := range ep.ways {
		if w.mac != (port.MAC{}) {
			h, why := e.toldPlace(v, addr, w)
			if h.sub != nil {
				return h, ""
			}
			refused = cmp.Or(refused, why)
			continue
		}
		s := e.sessions[w.session]
		why := s.cfg.FastPath.Refuses(w.kind)
		if sub := v.subs[s.cfg.Subinterface]; why == "" && sub != nil {
			switch {
			case w.host == s.cfg.Local || !subnet(v.cfg, s.cfg).Contains(w.host):
				why = "the host is not on the connection's GatewaySubnet"
			case !v.rib.Covers(w.session, addr):
				why = "the address is in no prefix that its gateway announces"
			default:
				return hop{sub: sub, addr: w.host}, ""
			}
		}
		if refused == "" {
			refused = why
		}
	}
	return hop{}, refused
}

// moveEndpoint makes an endpoint lead to another host, to one at all, or to none.
func (e *Edge) moveEndpoint(v *vrf, addr netip.Addr, ep *endpoint, to hop, refused circuit.Refusal) circuit.Refusal {
	counted, was := e.endpointPort(v), ep.hop
	if to.sub != nil {
		number, ok := e.useHost(v, to)
		if ok {
			v.endpoints.dp.Set(addr, fastpath.Value(number))
		} else {
			to, refused = hop{}, "too many hosts"
		}
	}
	if to.sub == nil && was.sub != nil {
		v.endpoints.dp.Delete(addr)
	}
	if ep.hop = to; to.sub != nil {
		counted.used++
	}
	if was.sub != nil {
		counted.used--
		e.leaveHost(v, was)
	}
	return refused
}

// useHost returns the number of a host for one more endpoint.
func (e *Edge) useHost(v *vrf, h hop) (dataplane.Host, bool) {
	host := v.endpoints.hosts[h]
	if host == nil {
		a := v.fwd.adjacency(h)
		number, ok := e.fastPath.AddHost(a.Adjacency)
		if !ok {
			e.engine.Sync() // so that no worker is still on its way to one given back
			e.fastPath.RecycleHosts()
			number, ok = e.fastPath.AddHost(a.Adjacency)
		}
		if !ok {
			v.fwd.forget(a)
			return 0, false
		}
		v.fwd.useAdjacency(a)
		host = &endpointHost{Adjacency: a.Adjacency, number: number}
		v.endpoints.hosts[h] = host
		if !v.fwd.resolved(h) {
			e.asking[h] = true
		}
	}
	host.users++
	return host.number, true
}

func (e *Edge) leaveHost(v *vrf, h hop) {
	host := v.endpoints.hosts[h]
	if host.users--; host.users > 0 {
		return
	}
	e.fastPath.RemoveHost(host.number)
	delete(v.endpoints.hosts, h)
	if a := v.fwd.adjacencies[h]; a != nil {
		a.users--
		v.fwd.forget(a)
	}
}

// rehost takes the hosts over into a forwarding state made anew, which has
// inherited their adjacencies.
func (v *vrf) rehost() {
	for h := range v.endpoints.hosts {
		v.fwd.adjacency(h).users++
	}
}

// forgetEndpoints takes a VRF that goes out of the exact match.
func (e *Edge) forgetEndpoints(v *vrf) {
	for addr, ep := range v.endpoints.all {
		ep.ways = nil
		e.programEndpoint(v, addr, ep)
	}
	clear(v.endpoints.told)
}

// customerPort is the name of the port that a peering's customer is on.
func (v *vrf) customerPort() string {
	for i := range v.cfg.Subinterfaces {
		if s := &v.cfg.Subinterfaces[i]; s.Side == config.SideCustomer {
			return s.Port
		}
	}
	return ""
}

func (e *Edge) endpointPort(v *vrf) *endpointPort {
	name := v.customerPort()
	p := e.endpointPorts[name]
	if p == nil {
		p = &endpointPort{waiting: map[waiter]bool{}}
		e.endpointPorts[name] = p
	}
	return p
}

// endpointLimit is that of the port of the VRF's customer.
func (e *Edge) endpointLimit(v *vrf) int {
	name := v.customerPort()
	for i := range e.device.Ports {
		if p := &e.device.Ports[i]; p.Name == name {
			return circuit.FastPathLimit(p.DirectGbps)
		}
	}
	return 0
}
