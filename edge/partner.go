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
// from the moment that BFD knows; routes whose last way is gone are kept for that
// a while, though their peers are told at once that they are gone. A packet that
// comes from the partner never goes back there.

// repairFor is how long a route is kept for repair: gateways need a moment to
// move, and Azure's up to a minute.
const repairFor = time.Minute

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
			h := hop{s, circuit.MSEECoreAddress(a.Masked(), role)}
			if hops = append(hops, h); !v.fwd.resolved(h) {
				e.asking[h] = true
			}
		}
	}
	return hops
}

// keepForRepair takes out of a change those routes that have no way left but a
// backup: forwarding keeps them. Routes that go though their neighbor can be
// reached (a prefix limit, a reset of BGP) are not kept: they would lead to it,
// past shorter ones that are live.
func (v *vrf) keepForRepair(c *bgp.Changes, now time.Time) {
	c.Routes = slices.DeleteFunc(c.Routes, func(r bgp.RouteChange) bool {
		g := v.fwd.routed[r.Prefix]
		if len(r.NextHops) > 0 || g == nil || len(g.Backup) == 0 || !g.lost() {
			return false
		}
		if v.repair.kept == nil {
			v.repair.kept = map[netip.Prefix]time.Time{}
		}
		v.repair.kept[r.Prefix] = now.Add(repairFor)
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
		if g := old.routed[prefix]; g != nil {
			members, backup = v.still(g.hops[:g.members]), v.still(g.hops[g.members:])
		}
		if len(members) == 0 || len(backup) == 0 {
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
			there = append(there, hop{s, h.addr})
		}
	}
	return there
}

// endRepair drops the routes that were kept long enough.
func (e *Edge) endRepair(now time.Time) {
	for _, v := range e.vrfs {
		for prefix, until := range v.repair.kept {
			if now.Before(until) {
				continue
			}
			delete(v.repair.kept, prefix)
			v.fwd.set(v.fwd.routed, prefix, nil)
		}
	}
}
