package bgp

import "slices"

// exportAs is what export policy makes of a route's attributes.
type exportAs uint8

const (
	exportNothing exportAs = iota // the route is not announced
	exportOwn                     // with an empty AS path, as if it were ours
	exportPath                    // with its AS path
	exportTransit                 // with 65515 replaced by 12076
	exportKinds   = iota
)

// Export returns the attributes with which the best route, heard from one peer,
// is announced to another, or nil if it is not. NextHop is left zero, for the
// speaker to put the session's own address in; the AS path is without our AS,
// which the speaker prepends. MED is not passed on (RFC 4271 §5.1.4).
func (p *Policy) Export(to, from *Peer, r Route) *Attrs {
	if !to.carries(r.Prefix) {
		return nil
	}
	return p.exportAs(to, from).attrs(r.Attrs)
}

// exportAs decides by where a route comes from and where it would go.
//
// A Microsoft peering announces nothing yet: that is for route filters.
func (p *Policy) exportAs(to, from *Peer) exportAs {
	switch p.Kind {
	case KindPrivate:
		return exportPrivate(to, from)
	case KindGateway:
		// A gateway is no transit: what one MSEE says is not told the other.
		if from.Side == SideLocal && to.Side == SideMSEE {
			return exportOwn
		}
	}
	return exportNothing
}

func exportPrivate(to, from *Peer) exportAs {
	switch {
	case to.Side == SideCustomer && from.Side == SideGateway:
		return exportOwn // customers see VNets as of 12076 alone
	case to.Side == SideGateway && from.Side == SideCustomer:
		return exportPath
	case to.Side == SideGateway && from.Side == SideGateway && to.Connection != from.Connection:
		return exportTransit // else the other gateway would see its own AS and drop it
	}
	return exportNothing
}

func (e exportAs) attrs(a *Attrs) *Attrs {
	switch e {
	case exportOwn:
		return &Attrs{Origin: a.Origin}
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
