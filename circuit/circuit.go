// Package circuit is the ExpressRoute model: circuits, their peerings, the
// connections that join them to virtual network gateways, and the rules Azure
// puts on each value. Names of types and fields are those of the Azure resource
// model (Microsoft.Network/expressRouteCircuits and its neighbours).
//
// The package is pure: no I/O, no file format, no state. A rule is a function
// named Check… that takes one value and returns nil, or a Violation that says
// what is wrong and what would be right. Everything here is safe for concurrent
// use.
package circuit

import (
	"net/netip"

	"msee/community"
)

// ASNs of Azure's own routers, the same on every circuit.
const (
	ASNMSEE    = 12076 // azureASN of every peering
	ASNGateway = 65515 // every virtual network gateway
	// ASNMicrosoft is that of Microsoft's network behind Microsoft peerings.
	ASNMicrosoft = 8075
)

// Violation says why a value is refused.
type Violation struct {
	Problem string // what is wrong, without the value
	Want    string // what would be right
}

// Circuit is an ExpressRoute circuit.
type Circuit struct {
	Name            string
	ServiceKey      string // GUID that customer and provider exchange; "" if not given
	SKU             SKU
	BandwidthInMbps int    // 0 if not given
	PeeringLocation string // where its MSEEs stand; "" if not given
	STag            uint16 // outer VLAN on a QinQ port, 0 on a Dot1Q port
	Peerings        []Peering
}

// Peering returns the circuit's peering of type t, nil if it has none.
func (c *Circuit) Peering(t PeeringType) *Peering {
	for i := range c.Peerings {
		if c.Peerings[i].PeeringType == t {
			return &c.Peerings[i]
		}
	}
	return nil
}

// SKU is what a circuit is sold as.
type SKU struct {
	Tier   SKUTier
	Family SKUFamily
}

// Name is the SKU's name in the Azure model, e.g. "Standard_MeteredData".
func (s SKU) Name() string { return string(s.Tier) + "_" + string(s.Family) }

// SKUTier is how far a circuit reaches.
type SKUTier string

const (
	TierBasic    SKUTier = "Basic" // legacy: accepted, not sold any more
	TierLocal    SKUTier = "Local"
	TierStandard SKUTier = "Standard"
	TierPremium  SKUTier = "Premium"
)

// SKUFamily is how egress is billed.
type SKUFamily string

const (
	FamilyMeteredData   SKUFamily = "MeteredData"
	FamilyUnlimitedData SKUFamily = "UnlimitedData"
)

// PeeringType names a routing domain of a circuit.
type PeeringType string

const (
	AzurePrivatePeering PeeringType = "AzurePrivatePeering"
	MicrosoftPeering    PeeringType = "MicrosoftPeering"
	AzurePublicPeering  PeeringType = "AzurePublicPeering" // retired on 2024-03-31
)

// State switches a peering, or its IPv6 half, on and off; the configuration
// stays.
type State string

const (
	StateEnabled  State = "Enabled"
	StateDisabled State = "Disabled"
)

// Role tells the two MSEEs of a pair apart. Each has one link of every circuit.
type Role string

const (
	RolePrimary   Role = "primary"
	RoleSecondary Role = "secondary"
)

// Peering is one routing domain of a circuit: on each of the two links a
// subnet and a BGP session per address family.
type Peering struct {
	PeeringType                PeeringType
	State                      State // IPv4 sessions
	PeerASN                    uint32
	VLANID                     uint16       // C-tag; the same on both links
	PrimaryPeerAddressPrefix   netip.Prefix // /30
	SecondaryPeerAddressPrefix netip.Prefix // /30
	SharedKey                  string       // TCP-MD5 key of all sessions; secret; "" for none
	GracefulRestart            bool         // of BGP, RFC 4724; not a field of Azure's
	TTLSecurity                bool         // RFC 5082; not a field of Azure's
	IPv6PeeringConfig          *IPv6PeeringConfig
	MicrosoftPeeringConfig     *MicrosoftPeeringConfig // on a Microsoft peering only
	RouteFilter                string                  // the name of one, on a Microsoft peering; "": nothing is announced
	// AllowOwnAS accepts routes with the MSEE's own AS in their path. Not in
	// Azure's model: a knob for what is not documented.
	AllowOwnAS bool
	// SourceCheck is what the source of a customer's packet must be. Not in
	// Azure's model either.
	SourceCheck SourceCheck
}

// SourceCheck is unicast reverse path forwarding (RFC 3704).
type SourceCheck string

const (
	SourceAny    SourceCheck = "None"
	SourceLoose  SourceCheck = "Loose"  // there is a route to it
	SourceStrict SourceCheck = "Strict" // the route to it leads back to the customer on this link
)

// Subnet returns the IPv4 subnet of the link that the MSEE in role r has.
func (p *Peering) Subnet(r Role) netip.Prefix {
	if r == RoleSecondary {
		return p.SecondaryPeerAddressPrefix
	}
	return p.PrimaryPeerAddressPrefix
}

// IPv6PeeringConfig is the IPv6 half of a peering. It shares the VLAN, the
// peer's ASN and the key with the IPv4 half.
type IPv6PeeringConfig struct {
	State                      State
	PrimaryPeerAddressPrefix   netip.Prefix // /126
	SecondaryPeerAddressPrefix netip.Prefix // /126
	RouteFilter                string       // as the peering's, for IPv6
	MicrosoftPeeringConfig     *MicrosoftPeeringConfig
}

// Subnet returns the IPv6 subnet of the link that the MSEE in role r has.
func (p *IPv6PeeringConfig) Subnet(r Role) netip.Prefix {
	if r == RoleSecondary {
		return p.SecondaryPeerAddressPrefix
	}
	return p.PrimaryPeerAddressPrefix
}

// MicrosoftPeeringConfig is what only a Microsoft peering has.
type MicrosoftPeeringConfig struct {
	// AdvertisedPublicPrefixes are the only prefixes that the customer may
	// announce and send from.
	AdvertisedPublicPrefixes []netip.Prefix
	CustomerASN              uint32 // who originates them, if not the peer; 0
	RoutingRegistryName      string // where they are registered; NONE is anywhere
	// ManuallyValidated says that somebody has looked into it.
	ManuallyValidated bool
}

// Connection joins a circuit's private peering to a virtual network gateway.
type Connection struct {
	Name                  string
	Circuit               string
	VirtualNetworkGateway string // "" where it is understood: at the gateway itself
	RoutingWeight         int    // 0–32000; the gateway prefers the higher
	GatewaySubnet         netip.Prefix
	GatewaySubnetIPv6     netip.Prefix // zero if the connection has no IPv6
}

// VirtualNetwork is a VNet as its gateway sees it.
type VirtualNetwork struct {
	Name         string
	AddressSpace []netip.Prefix
	Subnets      []Subnet
	// RegionalCommunity is that of the VNet's region, VirtualNetworkCommunity
	// what the customer picked for the VNet; 0 if it has none.
	RegionalCommunity, VirtualNetworkCommunity community.Value
}

// Subnet is one subnet of a VNet: an IPv4 prefix and at most one IPv6 prefix.
type Subnet struct {
	Name            string
	AddressPrefixes []netip.Prefix
}

// VirtualNetworkGateway is one of the two instances of an ExpressRoute gateway.
type VirtualNetworkGateway struct {
	Name     string
	Instance int // 0 or 1
	SKU      GatewaySKU
	// AllowRemoteVnetTraffic takes the routes of other VNets on the circuit.
	AllowRemoteVnetTraffic bool
}

// GatewaySKU is the name of an ExpressRoute gateway's SKU.
type GatewaySKU string

// GatewaySKUs are the SKUs an ExpressRoute gateway may have.
var GatewaySKUs = []GatewaySKU{
	"Standard", "HighPerformance", "UltraPerformance", "ErGw1AZ", "ErGw2AZ", "ErGw3AZ", "ErGwScale",
}
