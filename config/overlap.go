package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"msee/circuit"
)

// located is a prefix with the path it stands at.
type located struct {
	netip.Prefix
	path string
}

// subnetsOf returns the subnets of both links of a peering.
func subnetsOf(p circuit.Peering, path string) []located {
	all := []located{
		{p.PrimaryPeerAddressPrefix, path + ".primaryPeerAddressPrefix"},
		{p.SecondaryPeerAddressPrefix, path + ".secondaryPeerAddressPrefix"},
	}
	if v6 := p.IPv6PeeringConfig; v6 != nil {
		path += ".ipv6PeeringConfig"
		all = append(all,
			located{v6.PrimaryPeerAddressPrefix, path + ".primaryPeerAddressPrefix"},
			located{v6.SecondaryPeerAddressPrefix, path + ".secondaryPeerAddressPrefix"})
	}
	return all
}

// checkPeeringSubnets checks that the subnets of a circuit's peerings are
// apart, and those of a Microsoft peering from all others. The private peerings
// of different circuits may be alike: they are different VRFs. All subnets have
// the same length and are base addresses, so that those that overlap are equal.
func (r *reader) checkPeeringSubnets(circuits []circuitSpec) {
	microsoft, all := map[netip.Prefix]string{}, map[netip.Prefix]string{}
	for _, c := range circuits {
		own := map[netip.Prefix]string{}
		for i, p := range c.Peerings {
			for _, s := range subnetsOf(p, c.peeringPaths[i]) {
				if !s.IsValid() {
					continue
				}
				first, dup := own[s.Prefix]
				if !dup {
					first, dup = microsoft[s.Prefix]
				}
				if !dup && p.PeeringType == circuit.MicrosoftPeering {
					first, dup = all[s.Prefix]
				}
				if dup {
					r.fault(s.path, s.String(), "subnet used twice", "another one: "+r.where(first)+" has it")
					continue
				}
				own[s.Prefix], all[s.Prefix] = s.path, s.path
				if p.PeeringType == circuit.MicrosoftPeering {
					microsoft[s.Prefix] = s.path
				}
			}
		}
	}
}

// vrfKey names the VRF of a circuit's private or Microsoft peering.
type vrfKey struct {
	circuit string
	public  bool
}

// peeringType is that of the peering which a connection is for.
func (c *connectionSpec) peeringType() circuit.PeeringType {
	if c.public {
		return circuit.MicrosoftPeering
	}
	return circuit.AzurePrivatePeering
}

// gatewaySubnetsOf returns the one or two subnets of a connection.
func gatewaySubnetsOf(c connectionSpec) []located {
	if c.public {
		return []located{{c.GatewaySubnet, c.path + ".subnet"}, {c.GatewaySubnetIPv6, c.path + ".subnetIpv6"}}
	}
	return []located{
		{c.GatewaySubnet, c.path + ".gatewaySubnet"},
		{c.GatewaySubnetIPv6, c.path + ".gatewaySubnetIpv6"},
	}
}

// checkCircuitsOf checks that every connection of an MSEE has a circuit with the
// peering it is for, in whose VRF all subnets are apart.
func (r *reader) checkCircuitsOf(f *edgeFile) {
	names := make([]string, 0, len(f.circuits))
	vrf := make(map[vrfKey][]located)
	found := make(map[string]*circuitSpec)
	for i, c := range f.circuits {
		names = append(names, c.Name)
		found[c.Name] = &f.circuits[i]
		for i, p := range c.Peerings {
			key := vrfKey{c.Name, p.PeeringType == circuit.MicrosoftPeering}
			vrf[key] = append(vrf[key], subnetsOf(p, c.peeringPaths[i])...)
		}
	}
	for _, c := range f.connections {
		switch spec := found[c.Circuit]; {
		case c.Circuit == "":
		case spec == nil:
			r.noSuch(c.path+".circuit", c.Circuit, "circuit", names)
		case spec.Peering("") != nil: // a refused type, which may have been meant
		case spec.Peering(c.peeringType()) == nil:
			r.fault(c.path+".circuit", quote(c.Circuit), "the circuit has no "+string(c.peeringType()), "one on "+r.where(spec.path))
		default:
			key := vrfKey{c.Circuit, c.public}
			vrf[key] = append(vrf[key], gatewaySubnetsOf(c)...)
		}
	}
	for _, name := range names {
		for _, key := range []vrfKey{{name, false}, {name, true}} {
			r.checkApart(vrf[key])
			delete(vrf, key) // a duplicate name's turn has been
		}
	}
}

// checkApart refuses prefixes that overlap an earlier one. Those of peerings
// are already known to be apart.
func (r *reader) checkApart(all []located) {
	var valid []located
	var prefixes []netip.Prefix
	for _, l := range all {
		if l.IsValid() {
			valid = append(valid, l)
			prefixes = append(prefixes, l.Prefix)
		}
	}
	last := -1
	for _, o := range circuit.Overlaps(prefixes) {
		a, b := valid[o.A], valid[o.B]
		if o.B == last || strings.HasSuffix(b.path, "PeerAddressPrefix") {
			continue
		}
		last = o.B
		r.fault(b.path, b.String(), "overlaps "+a.String(), "address space of its own: "+r.where(a.path)+" has that")
	}
}

// locate gives the values of the list at path their paths.
func locate(prefixes []netip.Prefix, path string) []located {
	all := make([]located, len(prefixes))
	for i, p := range prefixes {
		all[i] = located{p, index(path, i)}
	}
	return all
}

// checkFamilies checks that a VNet subnet has one IPv4 prefix and at most one
// IPv6 prefix, as Azure demands.
func (r *reader) checkFamilies(prefixes []netip.Prefix, path string) {
	v4, v6 := 0, 0
	for _, p := range prefixes {
		switch {
		case !p.IsValid():
			return
		case p.Addr().Is4():
			v4++
		default:
			v6++
		}
	}
	if len(prefixes) > 0 && (v4 != 1 || v6 > 1) {
		r.fault(path, fmt.Sprintf("%d IPv4 and %d IPv6", v4, v6), "wrong number of prefixes", "one IPv4 prefix and at most one IPv6 prefix")
	}
}

// checkAddressSpace checks that the subnets of a VNet, and its GatewaySubnets,
// are within its address space, and all prefixes apart from each other.
func (r *reader) checkAddressSpace(f *gatewayFile) {
	const base = "virtualNetwork.addressSpace.addressPrefixes"
	r.checkApart(locate(f.vnet.AddressSpace, base))
	var subnets []located
	for i, s := range f.subnets {
		subnets = append(subnets, locate(f.vnet.Subnets[i].AddressPrefixes, s.path+".addressPrefixes")...)
	}
	for _, c := range f.connections {
		subnets = append(subnets, gatewaySubnetsOf(c)...)
	}
	r.checkApart(subnets)
	if len(f.vnet.AddressSpace) == 0 || slices.Contains(f.vnet.AddressSpace, netip.Prefix{}) {
		return
	}
	for _, s := range subnets {
		if !s.IsValid() {
			continue
		}
		if v := circuit.CheckWithin(s.Prefix, f.vnet.AddressSpace); v != nil {
			r.fault(s.path, s.String(), v.Problem, v.Want)
		}
	}
}
