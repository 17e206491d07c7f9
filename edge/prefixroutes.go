package edge

import (
	"net/netip"
	"slices"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/circuit"
	"msee/config"
	"msee/dataplane/port"
)

// IP prefix routes (EVPN type 5, RFC 9136): what a gateway and an MSEE tell each other in
// a session inside the VNet, told on the underlay instead. Each neighbour that a
// connection exchanges them with is, in each family, a peer of its VRF's RIB like any other, under the same
// policy and limits; only its updates come out of EVPN's table and go into the carrying
// session's Adj-RIB-Out. A next hop is a VTEP and the router's MAC behind it (RFC 9136
// §4.4.1, interface-less), or a gateway's address in the network's own subnet, which is a
// neighbor like any other (§4.1).

// carrier is the session whose connection carries s.
func (e *Edge) carrier(s *session) *session {
	if c := e.sessions[s.cfg.Carrier]; c != nil {
		return c
	}
	return s
}

// pathsTold is how many routes of one neighbour to a prefix the RIB hears of at most: of more
// than are used together, as policy may refuse some.
const pathsTold = 4 * bgp.MaxPaths

// prefixesTold brings what EVPN's table says of these prefixes to the RIBs.
func (e *Edge) prefixesTold(prefixes []evpn.Prefix) {
	updates := map[string][]bgp.Paths{}
	var changed []*vrf
	shared := map[toldAttrs]*bgp.Attrs{}
	for _, p := range prefixes {
		sub := e.overlay.networks[p.VNI]
		if sub == nil {
			continue
		}
		v := sub.vrf
		if !slices.Contains(changed, v) {
			changed = append(changed, v)
		}
		routed := len(v.rib.Explain(p.Prefix)) > 0 // and so endpoints may be in it, or not any more
		for i := range v.cfg.Sessions {
			c := &v.cfg.Sessions[i]
			if c.Carrier == "" || c.Subinterface != sub.cfg.Name || c.Local.Is4() != p.Prefix.Addr().Is4() {
				continue
			}
			now := bgp.Paths{Prefix: p.Prefix}
			var endpoint *way
			for _, r := range e.overlay.table.Prefix(p) {
				if r.Session != c.Carrier || c.TellOnly { // one that is told only now has said something before, maybe
					continue
				}
				if kind, ok := endpointKind(r.Prefix, r.Attrs.Communities); ok && r.Gateway.IsValid() && e.device.Kind == config.KindEdge {
					if endpoint == nil {
						endpoint = &way{session: c.Name, host: r.Gateway, kind: kind}
					}
				} else if len(now.Attrs) < pathsTold {
					now.Attrs = append(now.Attrs, attrsTold(r, shared))
				}
			}
			updates[c.Name] = append(updates[c.Name], now)
			routed = routed || len(now.Attrs) > 0
			if p.Prefix.IsSingleIP() {
				e.setWay(v, p.Prefix.Addr(), c.Name, endpoint)
			}
		}
		if routed {
			v.endpoints.review = append(v.endpoints.review, p.Prefix)
		}
	}
	for _, v := range changed {
		for _, c := range v.cfg.Sessions {
			if u := updates[c.Name]; u != nil {
				e.ribChanged(v, v.rib.Replace(c.Name, u))
				if s := e.sessions[c.Name]; s != nil {
					e.watchLimit(s)
				}
			}
		}
	}
}

// toldAttrs are what routes share that have equal attributes for the RIB.
type toldAttrs struct {
	attrs   *evpn.Attrs
	gateway netip.Addr
}

func attrsTold(r *evpn.Entry, shared map[toldAttrs]*bgp.Attrs) *bgp.Attrs {
	key := toldAttrs{r.Attrs, r.Gateway}
	a := shared[key]
	if a == nil {
		a = &bgp.Attrs{NextHop: r.Attrs.NextHop, MAC: r.Attrs.Extended.RouterMAC, Origin: bgp.OriginIGP, ASPath: r.Attrs.ASPath, Communities: r.Attrs.Communities}
		if r.Gateway.IsValid() {
			a.NextHop, a.MAC = r.Gateway, evpn.MAC{}
		}
		shared[key] = a
	}
	return a
}

// toldAgain has the RIBs hear all that the table says: of peers that are new, or have
// come back from a limit. What they know already changes nothing.
func (e *Edge) toldAgain() {
	for vni := range e.overlay.networks {
		e.prefixesTold(e.overlay.table.Prefixes(vni))
	}
}

// advertise brings a change of an Adj-RIB-Out to the speaker.
func (e *Edge) advertise(v *vrf, u bgp.Update) {
	s := e.sessions[u.Session]
	if s == nil || s.cfg.Carrier == "" {
		e.speaker.Advertise(u)
		return
	}
	sub := v.subs[s.cfg.Subinterface]
	if sub == nil || e.overlay.networks[sub.cfg.VXLAN.VNI] != sub {
		return // advertiseOverlay tells all
	}
	out := evpn.Update{Session: s.cfg.Carrier, Announce: e.prefixRoutes(sub, &s.cfg, u.Announce)}
	for _, p := range u.Withdraw {
		out.Withdraw = append(out.Withdraw, e.prefixKey(sub, p))
	}
	e.speaker.AdvertiseEVPN(out)
}

func (e *Edge) prefixKey(s *subinterface, p netip.Prefix) evpn.Key {
	return evpn.Key{Type: evpn.TypePrefix, RD: evpn.NewRD(e.device.RouterID, e.overlay.number(s.cfg.VXLAN.VNI)), Prefix: p}
}

// prefixRoutes are routes as a neighbour is told them: the way is by our end of the
// tunnel, to our MAC.
func (e *Edge) prefixRoutes(s *subinterface, to *config.Session, routes []bgp.Route) []evpn.Route {
	vni, local := s.cfg.VXLAN.VNI, s.localVTEP(to.Peer)
	if !local.IsValid() {
		return nil
	}
	extended := evpn.Extended{Targets: e.targets(s), RouterMAC: evpn.MAC(s.port.port.MAC())}
	shared := map[*bgp.Attrs]*evpn.Attrs{}
	out := make([]evpn.Route, len(routes))
	for i, r := range routes {
		a := shared[r.Attrs]
		if a == nil {
			a = &evpn.Attrs{NextHop: local, ASPath: r.Attrs.ASPath, Communities: r.Attrs.Communities, Extended: extended}
			shared[r.Attrs] = a
		}
		out[i] = evpn.Route{Key: e.prefixKey(s, r.Prefix), VNI: vni, Attrs: a}
	}
	return out
}

// endpointRoutes are a gateway's endpoints as an MSEE is told them: host routes, whose host is
// the gateway's address (RFC 9136 §3.2), with the community of their kind.
func (e *Edge) endpointRoutes(s *subinterface, to *config.Session) (routes []evpn.Route) {
	vni, local := s.cfg.VXLAN.VNI, s.localVTEP(to.Peer)
	if to.TellOnly || !local.IsValid() {
		return nil
	}
	shared := map[circuit.EndpointKind]*evpn.Attrs{}
	for _, p := range s.vrf.announced {
		if p.Addr.Is4() != to.Local.Is4() {
			continue
		}
		a := shared[p.Kind]
		if a == nil {
			a = &evpn.Attrs{NextHop: local, Communities: kindCommunity(p.Kind), Extended: evpn.Extended{Targets: e.targets(s)}}
			shared[p.Kind] = a
		}
		routes = append(routes, evpn.Route{Key: e.prefixKey(s, host(p.Addr)), VNI: vni, Gateway: p.Host, Attrs: a})
	}
	return routes
}

// prefixesFor is all that an EVPN session is told of prefixes.
func (e *Edge) prefixesFor(session string) (routes []evpn.Route) {
	for _, v := range e.sortedVRFs() {
		for i := range v.cfg.Sessions {
			c := &v.cfg.Sessions[i]
			if sub := v.subs[c.Subinterface]; c.Carrier == session && sub != nil {
				routes = append(routes, e.prefixRoutes(sub, c, v.rib.AdjRIBOut(c.Name))...)
				routes = append(routes, e.endpointRoutes(sub, c)...)
			}
		}
	}
	return routes
}

// underlayOf is our end of the tunnels that a peer's routes lead into, with its subnet, and
// what is beyond its routers; invalid if they come by no EVPN session.
func (e *Edge) underlayOf(c config.VRF, s config.Session) (own netip.Prefix, beyond []netip.Prefix) {
	i := slices.IndexFunc(c.Subinterfaces, func(x config.Subinterface) bool { return x.Name == s.Subinterface })
	if s.Carrier == "" || i < 0 || c.Subinterfaces[i].VXLAN == nil {
		return own, nil
	}
	for _, r := range c.Subinterfaces[i].VXLAN.Routes {
		beyond = append(beyond, r.Prefix)
	}
	if on := e.vrfs[config.UnderlayVRF].subs[c.Subinterfaces[i].VXLAN.Underlay]; on != nil {
		for _, p := range on.cfg.Addresses {
			if p.Addr().Is4() == s.Peer.Is4() {
				own = p
			}
		}
	}
	return own, beyond
}

// hopOf is the neighbor that a next hop of the RIB's is.
func hopOf(s *subinterface, nh bgp.NextHop) hop {
	return hop{sub: s, addr: nh.Addr, mac: port.MAC(nh.MAC)}
}
