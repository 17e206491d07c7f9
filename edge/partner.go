package edge

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"msee/bgp"
	"msee/circuit"
	"msee/config"
	"msee/dataplane"
)

// Local repair: the MSEEs of a pair stand in each GatewaySubnet together, and so
// have a path to each other in every VRF that has a connection. Each route to a
// customer has the partner there as its backup. When the customer's link dies,
// what the gateways still send here goes to the customer by the partner's link,
// from the moment that BFD knows, or that the link has no carrier; routes whose last way is gone are kept for that
// a while, though their peers are told at once that they are gone. A packet that
// comes from the partner never goes back there.
//
// Gateways hear it and use the partner. Hosts that FastPath leads past them do not: they
// send to both MSEEs, whatever these know. So where there are such, a route is kept for as
// long as its neighbor cannot be reached.
//
// A session that ends though its neighbor can be reached (a reset of BGP, a prefix
// limit) hands its routes to the partner for the moment that gateways need.

// repairFor is how long a route is kept for repair: gateways need a moment to
// move, and Azure's up to a minute.
const repairFor = time.Minute

// repairMost is how many routes a VRF keeps for longer than that, for FastPath's hosts: what a
// circuit may announce. A customer that comes and goes with others each time gets no more.
const repairMost = 10_000

// handOverFor is how long the partner has the routes of a session that ended though
// its neighbor can be reached. Gateways of ours need 0.2 s for 10,000 routes. It is
// short as such a route stands before shorter ones that are live.
const handOverFor = 5 * time.Second

// repair is a VRF's routes that the RIB has no more, each with its end: one that
// comes later must not keep those before it, or a peer that announces others
// each time it is back would have the FIB grow without bounds.
type repair struct {
	kept map[netip.Prefix]time.Time
}

// partners are the partner's addresses in a VRF, of the family of a next hop.
func (e *Edge) partners(v *vrf, like netip.Addr) (hops []hop) {
	role := circuit.RolePrimary
	switch {
	case e.device.Kind != config.KindEdge:
		return nil
	case e.device.Role == string(circuit.RolePrimary):
		role = circuit.RoleSecondary
	}
	for _, name := range slices.Sorted(maps.Keys(v.subs)) {
		s := v.subs[name]
		if s.cfg.Side != config.SideCore {
			continue
		}
		for _, a := range s.cfg.Addresses {
			if a.Addr().Is4() != like.Is4() {
				continue
			}
			h := hop{sub: s, addr: circuit.MSEECoreAddress(a.Masked(), role)}
			if hops = append(hops, h); !v.fwd.resolved(h) {
				e.asking[h] = true
			}
		}
	}
	return hops
}

// keepForRepair takes out of a session's end those routes that have no way left but
// a backup: forwarding keeps them. With a neighbor that can be reached, which may not
// want the traffic any more, they lead to the backup alone, and not for long.
func (v *vrf) keepForRepair(c *bgp.Changes, now time.Time) {
	var last, handedOver *group // routes mostly share one
	c.Routes = slices.DeleteFunc(c.Routes, func(r bgp.RouteChange) bool {
		g := v.fwd.routed[r.Prefix]
		if len(r.NextHops) > 0 || g == nil || len(g.Backup) == 0 {
			return false
		}
		if v.repair.kept == nil {
			v.repair.kept = map[netip.Prefix]time.Time{}
		}
		v.repair.kept[r.Prefix] = now.Add(repairFor)
		if !g.lost() {
			if g != last {
				last, handedOver = g, v.fwd.group(dataplane.Forward, nil, nil, g.hops[g.members:])
			}
			v.repair.kept[r.Prefix] = now.Add(handOverFor)
			v.fwd.set(v.fwd.routed, r.Prefix, handedOver)
		}
		return true
	})
}

// lost reports that no member of the group can be reached.
func (g *group) lost() bool {
	for i, h := range g.hops[:g.members] {
		if g.Members[i].Usable() != nil && h.sub.port.whyDown() == "" {
			return false
		}
	}
	return true
}

// keepRepairing takes over the kept routes of the VRF's forwarding state before.
// Those whose way to the customer or to the partner is gone end.
func (v *vrf) keepRepairing(old *forwarding) {
	for prefix := range v.repair.kept {
		var members, backup []hop
		g := old.routed[prefix]
		if g != nil {
			members, backup = v.still(g.hops[:g.members]), v.still(g.hops[g.members:])
		}
		if len(backup) == 0 || len(members) == 0 && g.members > 0 {
			delete(v.repair.kept, prefix)
			continue
		}
		v.fwd.set(v.fwd.routed, prefix, v.fwd.group(dataplane.Forward, nil, members, backup))
	}
}

// still returns those hops whose subinterfaces the VRF still has, on them as
// they are now.
func (v *vrf) still(hops []hop) (there []hop) {
	for _, h := range hops {
		if s := v.subs[h.sub.cfg.Name]; s != nil {
			h.sub = s
			there = append(there, h)
		}
	}
	return there
}

// endRepair drops the routes that were kept long enough.
func (e *Edge) endRepair(now time.Time) {
	for _, v := range e.vrfs {
		longer := len(v.repair.kept) > 0 && len(v.repair.kept) <= repairMost && e.bypassed(v)
		for prefix, until := range v.repair.kept {
			switch g := v.fwd.routed[prefix]; {
			case longer && g != nil && g.members > 0 && g.lost():
				v.repair.kept[prefix] = now.Add(repairFor) // from when it can be reached again: BGP is not back yet then
			case !now.Before(until):
				delete(v.repair.kept, prefix)
				v.fwd.set(v.fwd.routed, prefix, nil)
			}
		}
	}
}

// bypassed reports whether FastPath leads past a gateway of the VRF.
func (e *Edge) bypassed(v *vrf) bool {
	for _, s := range e.sessions {
		if s.vrf == v && s.cfg.FastPath.ExpressRouteGatewayBypass {
			return true
		}
	}
	return false
}
