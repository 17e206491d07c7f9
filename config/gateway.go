package config

import (
	"cmp"
	"net/netip"
	"time"

	"msee/circuit"
	"msee/community"
)

// gatewayFile is the content of a file that describes a gateway instance.
type gatewayFile struct {
	gateway       circuit.VirtualNetworkGateway
	scaleUnits    int                   // of an ErGwScale
	limits        circuit.GatewayLimits // of both instances together
	routerID      netip.Addr            // zero if not given
	timers        timers
	bfd           bfdKeys // where a connection says nothing else
	takeover      bool    // of the other instance's addresses
	bfdDaemonPort int     // Device.BFDDaemonPort
	metrics       netip.AddrPort
	ports         []portSpec
	underlay      *underlaySpec // nil: none
	vnet          circuit.VirtualNetwork
	subnets       []subnetSpec // of vnet.Subnets, in their order
	endpoints     []endpointSpec
	connections   []connectionSpec
}

// subnetSpec is where the hosts of a subnet are; VLANID 0 is untagged.
type subnetSpec struct {
	attachment
	path string
	mtu  int
}

func (r *reader) gateway(o *object) *gatewayFile {
	f := &gatewayFile{}
	if g, ok := o.section("virtualNetworkGateway", required, "name and instance"); ok {
		f.gateway.Name = value(g, "name", required, text, checkName)
		f.gateway.Instance = int(value(g, "instance", required, number, checkInstance))
		f.gateway.SKU = defaultGatewaySKU
		if s, ok := g.section("sku", optional, "name"); ok {
			f.gateway.SKU, f.scaleUnits = r.gatewaySKU(s)
		}
		f.limits = r.gatewayLimits(g, f.gateway.SKU.Limits(f.scaleUnits))
		f.gateway.AllowRemoteVnetTraffic = toggle(g, "allowRemoteVnetTraffic", false)
		f.takeover = toggle(g, "takeover", true)
		f.routerID = routerID(g)
		g.done()
	}
	f.timers, _ = r.bgp(o, false)
	f.bfd, f.bfdDaemonPort = r.deviceBFD(o)
	f.metrics = r.metrics(o)
	f.ports = r.ports(o)
	f.underlay = r.underlay(o, f.bfd)
	if v, ok := o.section("virtualNetwork", required, "name, addressSpace and subnets"); ok {
		r.virtualNetwork(v, f)
	}
	f.connections = r.connections(o, required, false, f.bfd)
	return f
}

// gatewayLimits reads what takes the place of the SKU's limits.
func (r *reader) gatewayLimits(o *object, l circuit.GatewayLimits) circuit.GatewayLimits {
	s, ok := o.section("limits", optional, "bandwidthInMbps, packetsPerSecond, flows or flowIdleSeconds")
	if !ok {
		return l
	}
	defer s.done()
	l.BandwidthInMbps = cmp.Or(int(value(s, "bandwidthInMbps", optional, number, circuit.CheckGatewayBandwidth)), l.BandwidthInMbps)
	l.PacketsPerSecond = cmp.Or(int(value(s, "packetsPerSecond", optional, number, circuit.CheckGatewayPackets)), l.PacketsPerSecond)
	l.Flows = cmp.Or(int(value(s, "flows", optional, number, circuit.CheckGatewayFlows)), l.Flows)
	idle := value(s, "flowIdleSeconds", optional, number, circuit.CheckFlowIdle)
	l.FlowIdle = cmp.Or(time.Duration(idle)*time.Second, l.FlowIdle)
	return l
}

func (r *reader) virtualNetwork(o *object, f *gatewayFile) {
	f.vnet.Name = value(o, "name", required, text, checkName)
	if s, ok := o.section("addressSpace", required, "addressPrefixes"); ok {
		f.vnet.AddressSpace = values(s, "addressPrefixes", required, prefix, circuit.CheckAddressSpace)
		s.done()
	}
	r.vnetCommunities(o, &f.vnet)
	o.objects("subnets", required, func(o *object) {
		spec := subnetSpec{path: o.path}
		s := circuit.Subnet{Name: value(o, "name", required, text, checkSubnetName)}
		s.AddressPrefixes = values(o, "addressPrefixes", required, prefix, circuit.CheckSubnet)
		spec.Port = value(o, "port", required, text, anyText)
		spec.VLANID = uint16(value(o, "vlanId", optional, number, circuit.CheckVLANID))
		spec.mtu = r.mtu(o)
		f.vnet.Subnets = append(f.vnet.Subnets, s)
		f.subnets = append(f.subnets, spec)
	})
	o.objects("endpoints", optional, func(o *object) {
		f.endpoints = append(f.endpoints, r.endpoint(o))
	})
	o.done()
}

// vnetCommunities reads where a VNet is and what it is marked with.
func (r *reader) vnetCommunities(o *object, v *circuit.VirtualNetwork) {
	if region := community.ByName(value(o, "location", optional, text, circuit.CheckLocation)); region != nil {
		v.RegionalCommunity = community.VNetRegion.InRegion(region.Suffix)
	}
	b, ok := o.section("bgpCommunities", optional, "virtualNetworkCommunity")
	if !ok {
		return
	}
	v.VirtualNetworkCommunity = communityValue(b, "virtualNetworkCommunity", required, circuit.CheckVirtualNetworkCommunity)
	regional := communityValue(b, "regionalCommunity", optional, circuit.CheckRegionalCommunity)
	b.done()
	switch {
	case regional == 0:
	case v.RegionalCommunity != 0 && v.RegionalCommunity != regional:
		r.fault(b.child("regionalCommunity"), regional.String(), "not that of the location", v.RegionalCommunity.String()+", or no location")
	default:
		v.RegionalCommunity = regional
	}
}

// communityValue reads a community; 0 if it is absent or refused.
func communityValue(o *object, key string, need bool, check func(string) *circuit.Violation) community.Value {
	v, _ := community.Parse(value(o, key, need, text, check)) // what is no community was refused
	return v
}

func checkInstance(n int64) *circuit.Violation {
	if n != 0 && n != 1 {
		return &circuit.Violation{Problem: "a gateway has two instances", Want: "0 or 1"}
	}
	return nil
}

func checkSubnetName(s string) *circuit.Violation {
	if s == "GatewaySubnet" {
		return &circuit.Violation{Problem: "the GatewaySubnet belongs to the connections", Want: "connections[].gatewaySubnet instead"}
	}
	return checkName(s)
}
