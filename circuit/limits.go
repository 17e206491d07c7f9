package circuit

import (
	"slices"

	"msee/community"
)

// How many prefixes one BGP session may announce to an MSEE.
const (
	maxPrivate        = 4000  // from a customer on a private peering
	maxPrivatePremium = 10000 // the same, on a Premium circuit
	maxPrivateIPv6    = 100
	maxMicrosoft      = 200 // from a customer on a Microsoft peering, either family
	maxGateway        = 1000
	maxGatewayIPv6    = 100
)

// MaxCustomerPrefixes is how many prefixes a customer may announce in each
// session of a peering.
func MaxCustomerPrefixes(t PeeringType, tier SKUTier, ipv6 bool) int {
	switch {
	case t == MicrosoftPeering:
		return maxMicrosoft
	case ipv6:
		return maxPrivateIPv6
	case tier == TierPremium:
		return maxPrivatePremium
	}
	return maxPrivate
}

// MaxGatewayPrefixes is how many prefixes a virtual network gateway may
// announce in each session.
func MaxGatewayPrefixes(ipv6 bool) int {
	if ipv6 {
		return maxGatewayIPv6
	}
	return maxGateway
}

// Regions lists the regions that the circuit reaches, by the suffixes of their
// communities: those next to its peering location if it is Local, those of the
// geopolitical area if it is Standard. Nil is all: the circuit is Premium, or
// does not say where it is.
func (c *Circuit) Regions() []uint16 {
	at := community.Location(c.PeeringLocation)
	switch {
	case at == nil || c.SKU.Tier == TierPremium:
		return nil
	case c.SKU.Tier == TierLocal:
		return append([]uint16{}, at.Local...)
	}
	return append([]uint16{}, community.Within(at.Geopolitical)...)
}

// CheckPeeringLocation checks the name of a peering location.
func CheckPeeringLocation(name string) *Violation {
	if community.Location(name) == nil {
		return &Violation{"no such peering location", "one of Azure's, e.g. Sydney, Silicon Valley or Newport(Wales)"}
	}
	return nil
}

// CheckLocation checks the name of a region.
func CheckLocation(name string) *Violation {
	if community.ByName(name) == nil {
		return &Violation{"no such region, or none with a known community", "one of Azure's, e.g. australiaeast or Australia East"}
	}
	return nil
}

// CheckVirtualNetworkCommunity checks the community that a customer picked for
// a VNet.
func CheckVirtualNetworkCommunity(s string) *Violation {
	return checkCommunity(s, "12076:20000 to 12076:20999", community.VNetCustom)
}

// CheckRegionalCommunity checks the community of a VNet's region.
func CheckRegionalCommunity(s string) *Violation {
	return checkCommunity(s, "12076:50000 to 12076:50999, e.g. 12076:50015", community.VNetRegion)
}

// CheckServiceCommunity checks a community of a route filter.
func CheckServiceCommunity(s string) *Violation {
	return checkCommunity(s, "a Microsoft service's, e.g. 12076:52015 or 12076:5060",
		community.Region, community.Storage, community.SQL, community.CosmosDB, community.Backup, community.Other)
}

func checkCommunity(s, want string, classes ...community.Class) *Violation {
	v, err := community.Parse(s)
	switch {
	case err != nil:
		return &Violation{"not a community", "AS:VALUE, two decimal numbers below 65536 with a colon: " + want}
	case v>>16 != community.AS:
		return &Violation{"not one of Azure's communities", want}
	case !slices.Contains(classes, v.Class()):
		return &Violation{"a community of another kind", want}
	}
	return nil
}

// WhyNotReached says why the circuit does not carry a service's prefixes, ""
// if it does.
func (c *Circuit) WhyNotReached(v community.Value) string {
	regions := c.Regions()
	switch {
	case v.Microsoft365() && c.SKU.Tier != TierPremium:
		return "Microsoft 365 needs a Premium circuit"
	case regions != nil && v.Region() != 0 && !slices.Contains(regions, v.Region()):
		return "region beyond the circuit's SKU"
	}
	return ""
}
