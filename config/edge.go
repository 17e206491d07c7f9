package config

import (
	"net/netip"

	"msee/circuit"
	"msee/community"
)

// edgeFile is the content of a file that describes an MSEE.
type edgeFile struct {
	name          string
	role          circuit.Role
	routerID      netip.Addr // zero if not given
	timers        timers
	limits        limits
	bfd           bfdKeys // where a peering or connection says nothing else
	bfdDaemonPort int     // Device.BFDDaemonPort
	metrics       netip.AddrPort
	ports         []portSpec
	underlay      *underlaySpec // nil: none
	circuits      []circuitSpec
	connections   []connectionSpec // private ones, then public ones
	filters       []routeFilter
	services      []community.Service
	registries    []item
	states        map[stateKey]circuit.ValidationState // nil: all Configured
}

// circuitSpec is a circuit as configured.
type circuitSpec struct {
	circuit.Circuit
	limit RateLimit
	port  string
	path  string
	// peeringPaths are the paths of the circuit's Peerings, in their order.
	peeringPaths []string
	bfd          []BFD // of the Peerings
	mtu          []int // the same
}

func (r *reader) edge(o *object) *edgeFile {
	f := &edgeFile{}
	if d, ok := o.section("device", required, "name and role"); ok {
		f.name = value(d, "name", required, text, checkName)
		f.role = word(d, "role", required, circuit.RolePrimary, circuit.RoleSecondary)
		f.routerID = routerID(d)
		d.done()
	}
	f.timers, f.limits = r.bgp(o, true)
	f.bfd, f.bfdDaemonPort = r.deviceBFD(o)
	f.metrics = r.metrics(o)
	f.ports = r.ports(o)
	f.underlay = r.underlay(o, f.bfd)
	o.objects("circuits", optional, func(o *object) {
		f.circuits = append(f.circuits, r.circuit(o, f.bfd))
	})
	f.connections = append(r.connections(o, optional, true, f.bfd), r.publicConnections(o, f.bfd)...)
	f.filters = r.routeFilters(o)
	f.services = r.services(o)
	f.registries = o.list("routingRegistries", optional)
	return f
}

func (r *reader) circuit(o *object, base bfdKeys) circuitSpec {
	c := circuitSpec{path: o.path}
	c.Name = value(o, "name", required, text, checkName)
	c.ServiceKey = value(o, "serviceKey", optional, text, circuit.CheckServiceKey)
	c.SKU = r.sku(o)
	c.BandwidthInMbps = int(value(o, "bandwidthInMbps", optional, number, circuit.CheckBandwidth))
	c.limit = r.rateLimit(o, &c.Circuit)
	c.PeeringLocation = value(o, "peeringLocation", optional, text, circuit.CheckPeeringLocation)
	c.port = value(o, "port", required, text, anyText)
	c.STag = uint16(value(o, "stag", optional, number, circuit.CheckVLANID))
	o.objects("peerings", optional, func(o *object) {
		c.Peerings = append(c.Peerings, r.peering(o))
		c.bfd = append(c.bfd, r.bfd(o, base))
		c.mtu = append(c.mtu, r.mtu(o))
		c.peeringPaths = append(c.peeringPaths, o.path)
	})
	return c
}

// rateLimit reads how a circuit is held to its bandwidth: a provider's circuit
// always, an ExpressRoute Direct one, which says so by having the key, if it is
// true.
func (r *reader) rateLimit(o *object, c *circuit.Circuit) RateLimit {
	const key = "enableDirectPortRateLimit"
	l := RateLimit{Circuit: c.Name, Mbps: c.BandwidthInMbps, Direct: o.has(key)}
	enabled := toggle(o, key, true)
	if l.Direct && !o.has("bandwidthInMbps") {
		r.fault(o.child(key), "", "there is no bandwidth to hold the circuit to", "bandwidthInMbps beside it")
	}
	if !enabled {
		l.Mbps, l.Direct = 0, false
	}
	return l
}

func (r *reader) sku(o *object) circuit.SKU {
	sku := circuit.SKU{Tier: circuit.TierStandard, Family: circuit.FamilyMeteredData}
	s, ok := o.section("sku", optional, "tier")
	if !ok {
		return sku
	}
	// The first word is the default; Basic is legacy and comes last.
	sku.Tier = word(s, "tier", optional, circuit.TierStandard, circuit.TierLocal, circuit.TierPremium, circuit.TierBasic)
	family := word(s, "family", optional, circuit.FamilyMeteredData, circuit.FamilyUnlimitedData)
	if sku.Family = family; !s.has("family") {
		sku.Family = circuit.DefaultFamily(sku.Tier)
	}
	s.done()
	if v := circuit.CheckSKU(sku); v != nil {
		r.fault(s.child("family"), string(sku.Family), v.Problem, v.Want)
	}
	return sku
}

func (r *reader) peering(o *object) circuit.Peering {
	var p circuit.Peering
	p.PeeringType = word(o, "peeringType", required,
		circuit.AzurePrivatePeering, circuit.MicrosoftPeering, circuit.AzurePublicPeering)
	if v := circuit.CheckPeeringType(p.PeeringType); v != nil {
		r.fault(o.child("peeringType"), string(p.PeeringType), v.Problem, v.Want)
	}
	p.State = word(o, "state", optional, circuit.StateEnabled, circuit.StateDisabled)
	p.PeerASN = uint32(value(o, "peerASN", required, number, circuit.CheckPeerASN))
	p.VLANID = uint16(value(o, "vlanId", required, number, circuit.CheckVLANID))
	check := func(s netip.Prefix) *circuit.Violation { return circuit.CheckPeerSubnet(p.PeeringType, s) }
	p.PrimaryPeerAddressPrefix = value(o, "primaryPeerAddressPrefix", required, prefix, check)
	p.SecondaryPeerAddressPrefix = value(o, "secondaryPeerAddressPrefix", required, prefix, check)
	p.RouteFilter = r.routeFilterOf(o, p.PeeringType)
	p.SharedKey = secret(o, "sharedKey", circuit.CheckSharedKey)
	p.SourceCheck = word(o, "sourceCheck", optional, circuit.SourceAny, circuit.SourceLoose, circuit.SourceStrict)
	p.AllowOwnAS = toggle(o, "allowOwnAS", p.PeeringType == circuit.AzurePrivatePeering)
	p.GracefulRestart = toggle(o, "gracefulRestart", true)
	p.TTLSecurity = toggle(o, "ttlSecurity", false)
	p.MicrosoftPeeringConfig = r.microsoftConfig(o, p.PeeringType, circuit.CheckAdvertisedPrefix)
	if v6, ok := o.section("ipv6PeeringConfig", optional, "prefixes"); ok {
		p.IPv6PeeringConfig = r.ipv6Config(v6, &p)
	}
	return p
}

// ipv6Config reads the IPv6 half of peering p. Its state is the peering's if
// not given, so that Disabled on the peering alone shuts all of it.
func (r *reader) ipv6Config(o *object, p *circuit.Peering) *circuit.IPv6PeeringConfig {
	c := &circuit.IPv6PeeringConfig{State: p.State}
	check := func(s netip.Prefix) *circuit.Violation { return circuit.CheckIPv6PeerSubnet(p.PeeringType, s) }
	c.PrimaryPeerAddressPrefix = value(o, "primaryPeerAddressPrefix", required, prefix, check)
	c.SecondaryPeerAddressPrefix = value(o, "secondaryPeerAddressPrefix", required, prefix, check)
	if state := word(o, "state", optional, circuit.StateEnabled, circuit.StateDisabled); o.has("state") {
		c.State = state
	}
	c.RouteFilter = r.routeFilterOf(o, p.PeeringType)
	c.MicrosoftPeeringConfig = r.microsoftConfig(o, p.PeeringType, circuit.CheckAdvertisedPrefixIPv6)
	o.done()
	return c
}

// routeFilterOf reads the name of the route filter of a peering's half.
func (r *reader) routeFilterOf(o *object, t circuit.PeeringType) string {
	if t == circuit.AzurePrivatePeering && o.has("routeFilter") {
		o.get("routeFilter", optional, "")
		r.fault(o.child("routeFilter"), "", "for a MicrosoftPeering only", "no such key on an AzurePrivatePeering")
		return ""
	}
	return value(o, "routeFilter", optional, text, checkName)
}

// microsoftConfig reads what a Microsoft peering must have and no other may.
func (r *reader) microsoftConfig(o *object, t circuit.PeeringType, check func(netip.Prefix) *circuit.Violation) *circuit.MicrosoftPeeringConfig {
	const key = "microsoftPeeringConfig"
	m, ok := o.section(key, t == circuit.MicrosoftPeering, "advertisedPublicPrefixes")
	if ok && t == circuit.AzurePrivatePeering {
		r.fault(o.child(key), "", "for a MicrosoftPeering only", "no such key on an AzurePrivatePeering")
	}
	if !ok {
		return nil
	}
	c := &circuit.MicrosoftPeeringConfig{
		AdvertisedPublicPrefixes: values(m, "advertisedPublicPrefixes", required, prefix, check),
		RoutingRegistryName:      word(m, "routingRegistryName", optional, circuit.RoutingRegistryNames...),
		ManuallyValidated:        toggle(m, "manuallyValidated", false),
	}
	c.CustomerASN = uint32(value(m, "customerASN", optional, number, circuit.CheckCustomerASN))
	m.done()
	return c
}
