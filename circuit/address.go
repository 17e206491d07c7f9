package circuit

import (
	"encoding/binary"
	"net/netip"
)

// Offsets of hosts from the base address of a GatewaySubnet, and of the
// gateway's instances in the subnets of a VNet. Azure keeps the first four
// addresses of every subnet to itself.
const (
	offsetFirst   = 4  // primary MSEE; in a VNet subnet gateway instance 0
	offsetGateway = 12 // gateway instance 0 in the GatewaySubnet
)

// CustomerAddress is the customer edge's address in a peering subnet: the first
// usable one.
func CustomerAddress(subnet netip.Prefix) netip.Addr { return add(subnet, 1) }

// MSEEAddress is the MSEE's address in a peering subnet: the second usable one.
func MSEEAddress(subnet netip.Prefix) netip.Addr { return add(subnet, 2) }

// MSEECoreAddress is the address of the MSEE in role r inside a GatewaySubnet.
func MSEECoreAddress(gatewaySubnet netip.Prefix, r Role) netip.Addr {
	if r == RoleSecondary {
		return add(gatewaySubnet, offsetFirst+1)
	}
	return add(gatewaySubnet, offsetFirst)
}

// GatewayAddress is the address of a gateway instance (0 or 1) inside a
// GatewaySubnet.
func GatewayAddress(gatewaySubnet netip.Prefix, instance int) netip.Addr {
	return add(gatewaySubnet, offsetGateway+uint32(instance))
}

// SubnetGatewayAddress is the address of a gateway instance (0 or 1) inside a
// subnet of a VNet: the next hop of its hosts.
func SubnetGatewayAddress(subnet netip.Prefix, instance int) netip.Addr {
	return add(subnet, offsetFirst+uint32(instance))
}

// PairAddress is the IPv6 link-local address by which a gateway instance (0 or 1)
// is watched by the other in a subnet of the VNet. It is no next hop of hosts, and
// so stays with its instance whatever becomes of those.
func PairAddress(instance int) netip.Addr {
	return add(netip.MustParsePrefix("fe80::/64"), offsetFirst+uint32(instance))
}

// add returns the n-th address of p, which the callers' rules keep inside p.
func add(p netip.Prefix, n uint32) netip.Addr {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+n)
		return netip.AddrFrom4(a)
	}
	// A base address of /126 or shorter with n < 16: no carry beyond 32 bits
	// as long as the low bits are those of a base address.
	a := p.Addr().As16()
	binary.BigEndian.PutUint32(a[12:], binary.BigEndian.Uint32(a[12:])+n)
	return netip.AddrFrom16(a)
}
