package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"msee/circuit"
	"msee/community"
)

// defaultMTU is the IP MTU of an interface whose configuration says nothing; Azure
// offers no other.
const defaultMTU = 1500

// compile makes the desired state of a checked file. All lists are sorted, so
// that the order of a file's items does not matter.
func (f *edgeFile) compile() *Device {
	d := &Device{
		Kind: KindEdge, Name: f.name, Role: string(f.role),
		ASN: circuit.ASNMSEE, RouterID: f.routerID, Ports: compilePorts(f.ports),
		PrefixRetry: f.limits.retry, BFDDaemonPort: f.bfdDaemonPort, Metrics: f.metrics,
	}
	for _, c := range f.circuits {
		d.Circuits = append(d.Circuits, Circuit{
			Name: c.Name, ServiceKey: c.ServiceKey, SKU: c.SKU.Name(),
			BandwidthInMbps: c.BandwidthInMbps, Port: c.port, STag: c.STag,
		})
		for i, p := range c.Peerings {
			v := f.compilePeering(&c, &p, c.bfd[i], c.mtu[i])
			if !d.RouterID.IsValid() {
				d.RouterID = v.Subinterfaces[0].Addresses[0].Addr()
			}
			d.VRFs = append(d.VRFs, v)
			if p.PeeringType == circuit.MicrosoftPeering {
				d.Services = f.services
			}
		}
	}
	if f.underlay != nil {
		d.VRFs = append(d.VRFs, f.underlay.compile(f.timers))
	}
	d.finish()
	return d
}

func compilePorts(specs []portSpec) []Port {
	ports := make([]Port, len(specs))
	for i, p := range specs {
		ports[i] = p.Port
	}
	return ports
}

// finish sorts d and gives a device without addresses a harmless BGP
// identifier: it has no sessions either.
func (d *Device) finish() {
	if !d.RouterID.IsValid() {
		d.RouterID = netip.IPv4Unspecified()
	}
	slices.SortFunc(d.Ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Circuits, func(a, b Circuit) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.VRFs, func(a, b VRF) int { return cmp.Compare(a.Name, b.Name) })
	for _, v := range d.VRFs {
		if v.PeeringType == string(circuit.MicrosoftPeering) {
			v.filterSources()
		}
		slices.SortFunc(v.Subinterfaces, func(a, b Subinterface) int {
			return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.STag, b.STag), cmp.Compare(a.CTag, b.CTag), cmp.Compare(a.Name, b.Name))
		})
		slices.SortFunc(v.Sessions, func(a, b Session) int { return cmp.Or(a.Peer.Compare(b.Peer), cmp.Compare(a.Name, b.Name)) })
		slices.SortFunc(v.Originate, func(a, b Originated) int { return comparePrefixes(a.Prefix, b.Prefix) })
		slices.SortFunc(v.AllowedPrefixes, comparePrefixes)
		slices.SortFunc(v.Endpoints, func(a, b Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
}

// filterSources lets a Microsoft peering's customer send from what it may announce.
func (v *VRF) filterSources() {
	for i := range v.Subinterfaces {
		if s := &v.Subinterfaces[i]; s.Side == SideCustomer {
			s.Sources = append([]netip.Prefix{}, v.AllowedPrefixes...) // not nil: no prefix is none
			slices.SortFunc(s.Sources, comparePrefixes)
		}
	}
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// vrfSuffix tells the VRFs of a circuit apart.
var vrfSuffix = map[circuit.PeeringType]string{
	circuit.AzurePrivatePeering: "-private",
	circuit.MicrosoftPeering:    "-microsoft",
}

// compilePeering makes the VRF of a peering on the link of this MSEE, with the
// connections of the circuit if the peering is private.
func (f *edgeFile) compilePeering(c *circuitSpec, p *circuit.Peering, bfd BFD, mtu int) VRF {
	v := VRF{Name: c.Name + vrfSuffix[p.PeeringType], Circuit: c.Name, PeeringType: string(p.PeeringType), AllowOwnAS: p.AllowOwnAS}
	if p.PeeringType == circuit.AzurePrivatePeering {
		v.Regions = c.Regions()
	}
	customer := Subinterface{
		Name: subinterfaceName(c.port, c.STag, p.VLANID),
		Port: c.port, STag: c.STag, CTag: p.VLANID, MTU: mtu, Side: SideCustomer,
		Limit: c.limit, SourceCheck: p.SourceCheck,
	}
	add := func(subnet netip.Prefix, state circuit.State) {
		local := circuit.MSEEAddress(subnet)
		customer.Addresses = append(customer.Addresses, netip.PrefixFrom(local, subnet.Bits()))
		v.addSession(Session{
			Subinterface: customer.Name, Local: local, Peer: circuit.CustomerAddress(subnet),
			PeerAS: p.PeerASN, Side: SideCustomer, Key: p.SharedKey, Enabled: state == circuit.StateEnabled, BFD: bfd,
			MaxPrefixes:     f.limits.of(circuit.MaxCustomerPrefixes(p.PeeringType, c.SKU.Tier, local.Is6())),
			GracefulRestart: p.GracefulRestart, TTLSecurity: p.TTLSecurity,
		}, f.timers)
	}
	add(p.Subnet(f.role), p.State)
	if v6 := p.IPv6PeeringConfig; v6 != nil {
		add(v6.Subnet(f.role), v6.State)
	}
	v.Subinterfaces = append(v.Subinterfaces, customer)
	if p.PeeringType == circuit.AzurePrivatePeering {
		for _, conn := range f.connections {
			if conn.Circuit == c.Name && !conn.public {
				f.compileConnection(&v, conn, findPort(f.ports, c.port).DirectGbps)
			}
		}
	} else {
		f.compileMicrosoft(&v, c, p)
	}
	return v
}

// compileConnection adds the MSEE's end of a connection: an address in the
// GatewaySubnet, and a session to each of the two gateway instances, or what
// [vxlanSpec] has instead.
func (f *edgeFile) compileConnection(v *VRF, c connectionSpec, directGbps int) {
	s := c.subinterface(f.underlay)
	fast := c.fastPath
	fast.DirectGbps = directGbps
	for _, subnet := range c.gatewaySubnets() {
		local := circuit.MSEECoreAddress(subnet, f.role)
		s.Addresses = append(s.Addresses, netip.PrefixFrom(local, subnet.Bits()))
		session := Session{Subinterface: s.Name, Local: local, PeerAS: circuit.ASNGateway, Side: SideCore, Connection: c.Name,
			Weight: c.RoutingWeight, Enabled: true, GracefulRestart: true,
			MaxPrefixes: f.limits.of(circuit.MaxGatewayPrefixes(local.Is6())), FastPath: fast}
		c.addPrefixRoutes(v, session, f.underlay)
		for instance := range 2 {
			session.Peer, session.BFD = circuit.GatewayAddress(subnet, instance), c.bfd
			if !c.evpnAlone() {
				v.addSession(session, f.timers)
			}
		}
	}
	v.Subinterfaces = append(v.Subinterfaces, s)
}

// gatewaySubnets returns the connection's subnets, IPv4 first.
func (c *connectionSpec) gatewaySubnets() []netip.Prefix {
	if c.GatewaySubnetIPv6.IsValid() {
		return []netip.Prefix{c.GatewaySubnet, c.GatewaySubnetIPv6}
	}
	return []netip.Prefix{c.GatewaySubnet}
}

// compile makes the desired state of a checked file.
func (f *gatewayFile) compile() *Device {
	instance := f.gateway.Instance
	d := &Device{
		Kind: KindGateway, Name: f.gateway.Name, Role: strconv.Itoa(instance),
		ASN: circuit.ASNGateway, RouterID: f.routerID, Ports: compilePorts(f.ports),
		BFDDaemonPort: f.bfdDaemonPort, Metrics: f.metrics,
	}
	v := VRF{Name: f.vnet.Name, AllowRemoteVnetTraffic: f.gateway.AllowRemoteVnetTraffic,
		Gateway: &Gateway{SKU: f.gateway.SKU, ScaleUnits: f.scaleUnits, Limits: f.limits.PerInstance()}}
	for _, p := range f.vnet.AddressSpace {
		v.Originate = append(v.Originate, Originated{p, communitiesOf(&f.vnet)})
	}
	for i, at := range f.subnets {
		s := Subinterface{
			Name: subinterfaceName(at.Port, 0, at.VLANID),
			Port: at.Port, CTag: at.VLANID, MTU: at.mtu, Side: SideVNet,
		}
		for _, subnet := range f.vnet.Subnets[i].AddressPrefixes {
			s.Addresses = append(s.Addresses, netip.PrefixFrom(circuit.SubnetGatewayAddress(subnet, instance), subnet.Bits()))
		}
		slices.SortFunc(s.Addresses, comparePrefixes) // IPv4 first
		if f.takeover && !f.bfd.off {
			s.Pair = &Pair{Local: circuit.PairAddress(instance), Peer: circuit.PairAddress(1 - instance), BFD: f.bfd.session()}
			for _, a := range s.Addresses {
				s.Pair.Addresses = append(s.Pair.Addresses, circuit.SubnetGatewayAddress(a.Masked(), 1-instance))
			}
		}
		v.Subinterfaces = append(v.Subinterfaces, s)
	}
	for _, c := range f.connections {
		f.compileConnection(&v, c)
		if !d.RouterID.IsValid() {
			d.RouterID = circuit.GatewayAddress(c.GatewaySubnet, instance)
		}
	}
	for _, e := range f.endpoints {
		v.Endpoints = append(v.Endpoints, e.Endpoint)
	}
	d.VRFs = []VRF{v}
	if f.underlay != nil {
		d.VRFs = append(d.VRFs, f.underlay.compile(f.timers))
	}
	d.finish()
	return d
}

// communitiesOf returns what a VNet's prefixes are marked with: its region
// always, for the MSEE to know how far it is.
func communitiesOf(v *circuit.VirtualNetwork) []community.Value {
	var out []community.Value
	for _, c := range []community.Value{v.VirtualNetworkCommunity, v.RegionalCommunity} {
		if c != 0 {
			out = append(out, c)
		}
	}
	return out
}

// compileConnection adds the gateway's end of a connection: an address in the
// GatewaySubnet, and a session to each of the two MSEEs.
func (f *gatewayFile) compileConnection(v *VRF, c connectionSpec) {
	s := c.subinterface(f.underlay)
	for _, subnet := range c.gatewaySubnets() {
		local := circuit.GatewayAddress(subnet, f.gateway.Instance)
		s.Addresses = append(s.Addresses, netip.PrefixFrom(local, subnet.Bits()))
		session := Session{Subinterface: s.Name, Local: local, PeerAS: circuit.ASNMSEE, Side: SideCore, Connection: c.Name,
			Weight: c.RoutingWeight, Enabled: true, GracefulRestart: true}
		c.addPrefixRoutes(v, session, f.underlay)
		for _, role := range []circuit.Role{circuit.RolePrimary, circuit.RoleSecondary} {
			session.Peer, session.BFD = circuit.MSEECoreAddress(subnet, role), c.bfd
			if !c.evpnAlone() {
				v.addSession(session, f.timers)
			}
		}
	}
	v.Subinterfaces = append(v.Subinterfaces, s)
}

// addSession completes a session with its name and timers.
func (v *VRF) addSession(s Session, t timers) {
	s.Name = v.Name + "/" + s.Peer.String()
	s.Keepalive, s.Hold = t.keepalive, t.hold
	v.Sessions = append(v.Sessions, s)
}

// subinterfaceName is PORT, PORT.CTAG or PORT.STAG.CTAG.
func subinterfaceName(port string, stag, ctag uint16) string {
	var b strings.Builder
	b.WriteString(port)
	for _, tag := range []uint16{stag, ctag} {
		if tag != 0 {
			b.WriteString("." + strconv.Itoa(int(tag)))
		}
	}
	return b.String()
}
