package bgp

import (
	"net/netip"
	"slices"

	"msee/community"
)

// Kind is what a VRF is for. It decides which routes go where.
type Kind string

const (
	KindPrivate   Kind = "AzurePrivatePeering"
	KindMicrosoft Kind = "MicrosoftPeering"
	KindGateway   Kind = "gateway" // a VNet gateway instance
)

// Policy is the import and export policy of a VRF (RFC 4271 §9.1.1, §9.1.3).
// Its methods are pure.
type Policy struct {
	Kind Kind
	// Drained makes all that is announced longer by DrainPrepends.
	Drained bool
	// AllowOwnAS accepts a customer's route with 12076 in its path. MSEEs have
	// been seen to; its longer path keeps it from being best.
	AllowOwnAS bool
	// Regions are those (by the suffix of their communities) whose VNets a
	// circuit reaches; nil is all.
	Regions []uint16
	// RouteFilter and RouteFilterIPv6 are the communities of which a prefix
	// must have one to be announced on a Microsoft peering. Without any,
	// nothing is.
	RouteFilter, RouteFilterIPv6 []uint32
	// AdvertisedPublicPrefixes is all that a customer may announce on a
	// Microsoft peering.
	AdvertisedPublicPrefixes []netip.Prefix
	// Unvalidated are prefixes that a customer wants to announce and may not
	// yet.
	Unvalidated []netip.Prefix
	// AddressSpace is what a device originates. [RIB.Originate] sets it.
	AddressSpace []netip.Prefix
	// AllowRemoteVnetTraffic lets a gateway accept the routes of other VNets,
	// which reach it through the MSEEs.
	AllowRemoteVnetTraffic bool
}

// PrivatePeering returns the policy of a private peering.
func PrivatePeering() Policy { return Policy{Kind: KindPrivate, AllowOwnAS: true} }

// MicrosoftPeering returns the policy of a Microsoft peering.
func MicrosoftPeering(advertisedPublicPrefixes []netip.Prefix) Policy {
	return Policy{Kind: KindMicrosoft, AdvertisedPublicPrefixes: advertisedPublicPrefixes}
}

// Gateway returns the policy of a VNet gateway instance.
func Gateway() Policy { return Policy{Kind: KindGateway} }

// Import returns the attributes with which a route heard from that peer takes
// part in the decision, or its own and why it takes none. MED is never looked
// at, and communities only where a gateway says which region it is of; those of
// customers are dropped.
func (p *Policy) Import(from *Peer, r Route) (*Attrs, Reason) {
	if why := p.refusesPrefix(from, r.Prefix); why != "" {
		return r.Attrs, why
	}
	return p.importAttrs(from, r.Attrs)
}

func (p *Policy) refusesPrefix(from *Peer, prefix netip.Prefix) Reason {
	switch {
	case !from.carries(prefix):
		return ReasonFamily
	case inside(martians, prefix):
		return ReasonMartian
	case from.Side == SideMicrosoft:
		return oneDefault(prefix)
	case prefix.Bits() == 0 && !p.allowsDefault(from):
		return ReasonDefaultRoute
	case p.Kind == KindMicrosoft && inside(privates, prefix):
		return ReasonPrivatePrefix
	case p.Kind == KindMicrosoft && !inside(p.AdvertisedPublicPrefixes, prefix) && inside(p.Unvalidated, prefix):
		return ReasonNotValidated
	case p.Kind == KindMicrosoft && !inside(p.AdvertisedPublicPrefixes, prefix):
		return ReasonNotAdvertised
	case p.Kind == KindGateway && inside(p.AddressSpace, prefix):
		return ReasonOwnSpace
	}
	return ""
}

// allowsDefault: on a private peering a customer's default route draws the
// VNets' Internet traffic, so it is passed on to the gateways; the Internet
// itself is not a customer's, and a gateway has nothing but its VNet.
func (p *Policy) allowsDefault(from *Peer) bool {
	return p.Kind != KindMicrosoft && from.Side != SideGateway
}

// oneDefault: what Microsoft's services have is known from their list, with
// communities; their network only has to be reached.
func oneDefault(prefix netip.Prefix) Reason {
	if prefix.Bits() != 0 {
		return ReasonNotDefault
	}
	return ""
}

func (p *Policy) importAttrs(from *Peer, a *Attrs) (*Attrs, Reason) {
	if why := p.refusesPath(from, a.ASPath); why != "" {
		return a, why
	}
	if from.Side == SideGateway && !p.reaches(a.Communities) {
		return a, ReasonRegion
	}
	if why := from.refusesNextHop(a.NextHop, a.MAC); why != "" {
		return a, why
	}
	if from.Side != SideCustomer {
		return a, ""
	}
	return p.fromCustomer(a), ""
}

// maxPath is the longest AS path that a customer may announce, a full segment. Where Azure draws
// the line is not published; there must be one, as a path that fills a message
// cannot be passed on with our own AS in front.
const maxPath = 255

func (p *Policy) refusesPath(from *Peer, path []uint32) Reason {
	switch {
	case len(path) == 0 || path[0] != from.AS: // RFC 4271 §6.3
		return ReasonFirstAS
	case slices.Contains(path, 0): // RFC 7607
		return ReasonASZero
	case from.Side == SideCustomer && len(path) > maxPath:
		return ReasonLongPath
	case slices.Contains(path, p.ownAS()) && !(p.AllowOwnAS && from.Side == SideCustomer):
		return ReasonOwnAS
	case p.Kind == KindGateway && !p.AllowRemoteVnetTraffic && isRemoteVnet(path):
		return ReasonRemoteVnet
	}
	return ""
}

// reaches reports whether the circuit reaches the VNet of a route with these
// communities. One that does not say where it is may be anywhere.
func (p *Policy) reaches(communities []uint32) bool {
	if p.Regions == nil {
		return true
	}
	for _, c := range communities {
		if v := community.Value(c); v.Class() == community.VNetRegion && !slices.Contains(p.Regions, v.Region()) {
			return false
		}
	}
	return true
}

func (p *Policy) ownAS() uint32 {
	if p.Kind == KindGateway {
		return ASGateway
	}
	return ASMSEE
}

// isRemoteVnet tells another VNet's route from a customer's: MSEEs write 12076
// in place of the other gateway's 65515, and add their own.
func isRemoteVnet(path []uint32) bool {
	return !slices.ContainsFunc(path, func(as uint32) bool { return as != ASMSEE })
}

// fromCustomer drops the communities, which mean nothing here, and on a
// Microsoft peering the private ASNs, so that prepending with them is in vain.
func (p *Policy) fromCustomer(a *Attrs) *Attrs {
	strip := p.Kind == KindMicrosoft && slices.ContainsFunc(a.ASPath, isPrivateAS)
	if !strip && len(a.Communities) == 0 {
		return a
	}
	b := *a
	b.Communities = nil
	if strip {
		b.ASPath = slices.DeleteFunc(slices.Clone(a.ASPath), isPrivateAS)
	}
	return &b
}
