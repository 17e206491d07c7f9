package edge

import (
	"maps"
	"net/netip"
	"slices"

	"msee/bgp"
	"msee/circuit"
	"msee/config"
)

// Endpoints at the gateway: it tells the MSEEs of them, and knows them itself before
// anything comes for them.

// announceEndpoints brings what the MSEEs were told in sessions inside the VNet to what
// the configuration says now; for EVPN advertiseOverlay does.
func (e *Edge) announceEndpoints(v *vrf, was, now []config.Endpoint) {
	for _, s := range v.cfg.Sessions {
		if s.Carrier != "" {
			continue
		}
		u := bgp.Update{Session: s.Name}
		for _, p := range was {
			if p.Addr.Is4() == s.Peer.Is4() && !slices.ContainsFunc(now, func(q config.Endpoint) bool { return q.Addr == p.Addr }) {
				u.Withdraw = append(u.Withdraw, host(p.Addr))
			}
		}
		for _, p := range now {
			if p.Addr.Is4() == s.Peer.Is4() {
				u.Announce = append(u.Announce, bgp.Route{Prefix: host(p.Addr), Attrs: &bgp.Attrs{
					NextHop: p.Host, Origin: bgp.OriginIGP, Communities: kindCommunity(p.Kind)}})
			}
		}
		if len(u.Withdraw)+len(u.Announce) > 0 {
			e.speaker.Advertise(u)
		}
	}
}

// kindCommunity marks an endpoint of a kind.
func kindCommunity(k circuit.EndpointKind) []uint32 {
	return []uint32{endpointCommunity + uint32(slices.Index(circuit.EndpointKinds, k))}
}

// endpointsAsked is how many of its endpoints an instance asks for before there is
// traffic: each takes a place in the kernel's neighbor table, which all namespaces of the
// host share (gc_thresh3, 1024 as a rule).
const endpointsAsked = 256

// stations yields the endpoints of a gateway's VRF as neighbors in the VNet, the first
// endpointsAsked of its own and of what it was told first. While FastPath is on nothing
// comes for them, and when it is switched off all does at once.
func (v *vrf) stations(yield func(hop) bool) {
	left := endpointsAsked
	next := func(a netip.Addr) bool {
		s := v.inVNet(a)
		left--
		return left >= 0 && (s == nil || yield(hop{sub: s, addr: a}))
	}
	for _, p := range v.announced {
		if !next(p.Addr) {
			return
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(v.heardOf), netip.Addr.Compare) { // the same each time
		if !next(a) {
			return
		}
	}
}

// inVNet is the subinterface of the VNet's subnet that an address is in, nil if it is in none.
func (v *vrf) inVNet(a netip.Addr) *subinterface {
	for _, s := range v.subs {
		if s.cfg.Side == config.SideVNet && subnetOf(s.cfg.Addresses, a) {
			return s
		}
	}
	return nil
}

// stationTold notes that hosts tell of an address by EVPN, or do no more, if it is in the
// gateway's VNet and among the first.
func (e *Edge) stationTold(v *vrf, a netip.Addr, there bool) {
	_, known := v.heardOf[a]
	switch s := v.inVNet(a); {
	case !there:
		delete(v.heardOf, a)
	case known, s == nil, len(v.heardOf) >= endpointsAsked:
	default:
		if v.heardOf == nil {
			v.heardOf = map[netip.Addr]struct{}{}
		}
		v.heardOf[a] = struct{}{}
		if h := (hop{sub: s, addr: a}); !h.silent(e.maintenance) {
			e.asking[h] = true
		}
	}
}

// askStations has those asked for that may be, and that are due.
func (e *Edge) askStations(v *vrf, due func(netip.Addr) bool) {
	for h := range v.stations {
		if due(h.addr) && !h.silent(e.maintenance) {
			e.asking[h] = true
		}
	}
}
