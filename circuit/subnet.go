package circuit

import "net/netip"

// CheckPeerSubnet checks the IPv4 subnet of one link of a peering.
func CheckPeerSubnet(t PeeringType, p netip.Prefix) *Violation {
	return checkPeerSubnet(t, p, netip.Addr.Is4, 30, "an IPv4 /30, e.g. 192.168.15.16/30")
}

// CheckIPv6PeerSubnet checks the IPv6 subnet of one link of a peering.
func CheckIPv6PeerSubnet(t PeeringType, p netip.Prefix) *Violation {
	return checkPeerSubnet(t, p, isIPv6, 126, "an IPv6 /126, e.g. 2001:db8:0:10::/126")
}

func checkPeerSubnet(t PeeringType, p netip.Prefix, family func(netip.Addr) bool, bits int, want string) *Violation {
	switch {
	case !family(p.Addr()):
		return &Violation{"wrong address family", want}
	case p.Bits() != bits:
		return &Violation{"wrong prefix length", want}
	}
	if v := checkBase(p); v != nil {
		return v
	}
	if t == MicrosoftPeering {
		return CheckPublic(p)
	}
	return CheckUnicast(p)
}

// CheckGatewaySubnet checks the IPv4 GatewaySubnet of a connection. It must
// hold the address of gateway instance 1, base + 13; Azure advises /27 or
// larger.
func CheckGatewaySubnet(p netip.Prefix) *Violation {
	const want = "an IPv4 prefix from /8 to /28 (Azure advises /27), e.g. 10.100.255.0/27"
	switch {
	case !p.Addr().Is4():
		return &Violation{"wrong address family", want}
	case p.Bits() < 8 || p.Bits() > 28:
		return &Violation{"wrong prefix length", want}
	}
	return checkBaseUnicast(p)
}

// CheckSubnetIPv6 checks an IPv6 GatewaySubnet or subnet of a VNet: Azure's
// have exactly 64 bits.
func CheckSubnetIPv6(p netip.Prefix) *Violation {
	const want = "an IPv6 /64, e.g. fd00:100:0:ff::/64"
	switch {
	case !isIPv6(p.Addr()):
		return &Violation{"wrong address family", want}
	case p.Bits() != 64:
		return &Violation{"wrong prefix length", want}
	}
	return checkBaseUnicast(p)
}

// CheckSubnet checks a prefix of a VNet subnet: an IPv4 one must hold Azure's
// reserved addresses and a host, so /29 is the smallest; an IPv6 one is a /64.
func CheckSubnet(p netip.Prefix) *Violation {
	if !p.Addr().Is4() {
		return CheckSubnetIPv6(p)
	}
	if p.Bits() < 8 || p.Bits() > 29 {
		return &Violation{"wrong prefix length", "an IPv4 prefix from /8 to /29, or an IPv6 /64"}
	}
	return checkBaseUnicast(p)
}

// CheckAddressSpace checks one prefix of a VNet's address space.
func CheckAddressSpace(p netip.Prefix) *Violation {
	lo, hi := 8, 29
	if !p.Addr().Is4() {
		lo, hi = 16, 64
	}
	if p.Bits() < lo || p.Bits() > hi {
		return &Violation{"wrong prefix length", "IPv4 /8 to /29, IPv6 /16 to /64"}
	}
	return checkBaseUnicast(p)
}

// CheckAdvertisedPrefix checks one of a Microsoft peering's
// advertisedPublicPrefixes, IPv4.
func CheckAdvertisedPrefix(p netip.Prefix) *Violation {
	const want = "a public IPv4 prefix of /8 or longer, e.g. 203.0.113.0/24"
	switch {
	case !p.Addr().Is4():
		return &Violation{"wrong address family", want + " (IPv6 ones belong in ipv6PeeringConfig.microsoftPeeringConfig)"}
	case p.Bits() < 8:
		return &Violation{"wrong prefix length", want}
	}
	if v := checkBase(p); v != nil {
		return v
	}
	return CheckPublic(p)
}

// CheckAdvertisedPrefixIPv6 is CheckAdvertisedPrefix for IPv6.
func CheckAdvertisedPrefixIPv6(p netip.Prefix) *Violation {
	const want = "a public IPv6 prefix of /16 to /64, e.g. 2001:db8:100::/48"
	switch {
	case !isIPv6(p.Addr()):
		return &Violation{"wrong address family", want}
	case p.Bits() < 16 || p.Bits() > 64:
		return &Violation{"wrong prefix length", want}
	}
	if v := checkBase(p); v != nil {
		return v
	}
	return CheckPublic(p)
}
