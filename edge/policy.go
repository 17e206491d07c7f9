package edge

import (
	"msee/bgp"
	"msee/circuit"
	"msee/community"
	"msee/config"
)

// policy is the import and export policy that a VRF's configuration asks for.
func policy(c config.VRF) bgp.Policy {
	var p bgp.Policy
	switch c.PeeringType {
	case "AzurePrivatePeering":
		p = bgp.PrivatePeering()
		p.Regions = c.Regions
	case "MicrosoftPeering":
		p = bgp.MicrosoftPeering(c.AllowedPrefixes)
		p.RouteFilter, p.RouteFilterIPv6 = values(c.RouteFilter), values(c.RouteFilterIPv6)
		for _, a := range c.Advertised {
			if a.State != circuit.Configured {
				p.Unvalidated = append(p.Unvalidated, a.Prefix)
			}
		}
	default:
		p = bgp.Gateway()
		p.AllowRemoteVnetTraffic = c.AllowRemoteVnetTraffic
		return p
	}
	p.AllowOwnAS = c.AllowOwnAS
	return p
}

// originated are the routes of the device itself in a VRF. An instance of a gateway
// has the VNet's only when it is ready (see pair.go). A Microsoft peering
// with a way to Microsoft's network has its services only while that is up, each
// family by its own session.
func (e *Edge) originated(c config.VRF) []bgp.Route {
	has, up := map[bool]bool{}, map[bool]bool{} // by whether IPv6
	for _, s := range c.Sessions {
		if s.Side == config.SideMicrosoft {
			has[s.Peer.Is6()] = true
			up[s.Peer.Is6()] = up[s.Peer.Is6()] || e.sessions[s.Name] != nil && e.sessions[s.Name].reached
		}
	}
	if len(e.pairLinks()) > 0 && !e.pair.ready {
		return nil
	}
	var routes []bgp.Route
	for _, o := range c.Originate {
		if v6 := o.Prefix.Addr().Is6(); !has[v6] || up[v6] {
			routes = append(routes, bgp.Route{Prefix: o.Prefix, Attrs: &bgp.Attrs{Communities: values(o.Communities)}})
		}
	}
	return routes
}

// networkChanged is called when the state of a session with Microsoft's network
// may have changed. One that a restart of the speaker, or its own, took down
// counts as up as long as its routes may be stale: it forwards on.
func (e *Edge) networkChanged(s *session) {
	state := s.status.State
	reached := state == bgp.StateEstablished || (state == bgp.StateDown || !s.sweepAt.IsZero()) && s.reached
	if s.cfg.Side != config.SideMicrosoft || reached == s.reached {
		return
	}
	s.reached = reached
	e.ribChanged(s.vrf, s.vrf.rib.Originate(e.originated(s.vrf.cfg)))
}

func values(communities []community.Value) []uint32 {
	var out []uint32
	for _, c := range communities {
		out = append(out, uint32(c))
	}
	return out
}
