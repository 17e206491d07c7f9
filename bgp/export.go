package bgp

import (
	"slices"

	"msee/community"
)

// exportAs is what export policy makes of a route's attributes.
type exportAs uint8

const (
	exportNothing exportAs = iota // the route is not announced
	exportVNet                    // with an empty AS path, as if it were ours, and the VNet's communities
	exportMarked                  // the same with all its communities
	exportPath                    // with its AS path
	exportTransit                 // with 65515 replaced by 12076
	exportKinds   = iota
)

// Added to a kind, a drained device's own AS comes in front of the path
// DrainPrepends times more.
const (
	drainedMSEE    = exportKinds
	drainedGateway = 2 * exportKinds
	exportVariants = 3 * exportKinds
)

// DrainPrepends is how often a device under maintenance puts its AS in front,
// so that its peers choose others while it still forwards; Azure's number.
const DrainPrepends = 8

// Export returns the attributes with which the best route, heard from one peer,
// is announced to another, or nil if it is not. NextHop is left zero, for the
// speaker to put the session's own address in; the AS path is without our AS,
// which the speaker prepends. MED is not passed on (RFC 4271 §5.1.4).
func (p *Policy) Export(to, from *Peer, r Route) *Attrs {
	if !to.carries(r.Prefix) {
		return nil
	}
	return p.exportAs(to, from, r.Attrs).attrs(r.Attrs)
}

// exportAs is the kind of export, and whether the path is prepended.
func (p *Policy) exportAs(to, from *Peer, a *Attrs) exportAs {
	as := p.exportKind(to, from, a)
	switch {
	case as == exportNothing || !p.Drained:
		return as
	case p.Kind == KindGateway:
		return as + drainedGateway
	default:
		return as + drainedMSEE
	}
}

// exportKind decides by where a route comes from and where it would go, and on a
// Microsoft peering by its communities.
func (p *Policy) exportKind(to, from *Peer, a *Attrs) exportAs {
	switch p.Kind {
	case KindPrivate:
		return exportPrivate(to, from)
	case KindMicrosoft:
		return p.exportMicrosoft(to, from, a)
	case KindGateway:
		// A gateway is no transit: what one MSEE says is not told the other.
		if from.Side == SideLocal && to.Side == SideMSEE {
			return exportMarked
		}
	}
	return exportNothing
}

// exportMicrosoft announces to the customer the services that the route filter
// allows, and to Microsoft's network what the customer announced.
func (p *Policy) exportMicrosoft(to, from *Peer, a *Attrs) exportAs {
	switch {
	case to.Side == SideMicrosoft && from.Side == SideCustomer:
		return exportPath
	case to.Side == SideCustomer && from.Side == SideLocal && p.filterPasses(to, a.Communities):
		return exportMarked
	}
	return exportNothing
}

func (p *Policy) filterPasses(to *Peer, communities []uint32) bool {
	filter := p.RouteFilter
	if to.Addr.Is6() {
		filter = p.RouteFilterIPv6
	}
	return slices.ContainsFunc(communities, func(c uint32) bool { return slices.Contains(filter, c) })
}

func exportPrivate(to, from *Peer) exportAs {
	switch {
	case to.Side == SideCustomer && from.Side == SideGateway:
		return exportVNet // customers see VNets as of 12076 alone
	case to.Side == SideGateway && from.Side == SideCustomer:
		return exportPath
	case to.Side == SideGateway && from.Side == SideGateway && to.Connection != from.Connection:
		return exportTransit // else the other gateway would see its own AS and drop it
	}
	return exportNothing
}

func (e exportAs) attrs(a *Attrs) *Attrs {
	if own := e.drained(); own != 0 {
		b := (e % exportKinds).attrs(a)
		b.ASPath = append(slices.Repeat([]uint32{own}, DrainPrepends), b.ASPath...)
		return b
	}
	switch e {
	case exportVNet:
		return &Attrs{Origin: a.Origin, Communities: vnetCommunities(a.Communities)}
	case exportMarked:
		return &Attrs{Origin: a.Origin, Communities: a.Communities}
	case exportPath:
		return &Attrs{Origin: a.Origin, ASPath: a.ASPath}
	case exportTransit:
		path := slices.Clone(a.ASPath)
		for i, as := range path {
			if as == ASGateway {
				path[i] = ASMSEE
			}
		}
		return &Attrs{Origin: a.Origin, ASPath: path}
	}
	return nil
}

// drained is the AS to prepend, 0 for none.
func (e exportAs) drained() uint32 {
	switch {
	case e >= drainedGateway:
		return ASGateway
	case e >= drainedMSEE:
		return ASMSEE
	}
	return 0
}

// vnetCommunities are those of a VNet's prefix that customers see: the value
// that was picked for it and, only if there is one, that of its region.
func vnetCommunities(all []uint32) []uint32 {
	var out []uint32
	custom := false
	for _, c := range all {
		switch community.Value(c).Class() {
		case community.VNetCustom:
			custom = true
			out = append(out, c)
		case community.VNetRegion:
			out = append(out, c)
		}
	}
	if !custom {
		return nil
	}
	return out
}
