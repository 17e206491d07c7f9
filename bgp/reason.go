package bgp

import "net/netip"

// Reason says why a route of an Adj-RIB-In was refused; "" is accepted.
type Reason string

const (
	ReasonFamily        Reason = "not of the session's address family"
	ReasonMartian       Reason = "martian prefix"
	ReasonNextHop       Reason = "next hop not on the peering subnet"
	ReasonNextHopOurs   Reason = "next hop is our own address"
	ReasonVTEP          Reason = "tunnel's end not on the underlay's subnet"
	ReasonFirstAS       Reason = "first AS is not the peer's"
	ReasonASZero        Reason = "AS 0 in path"
	ReasonLongPath      Reason = "more than 255 AS numbers in path"
	ReasonOwnAS         Reason = "own AS in path"
	ReasonDefaultRoute  Reason = "default route not allowed"
	ReasonPrivatePrefix Reason = "private prefix not allowed"
	ReasonNotAdvertised Reason = "not in advertisedPublicPrefixes"
	ReasonNotValidated  Reason = "advertisedPublicPrefixes: not validated"
	ReasonOwnSpace      Reason = "inside own address space"
	ReasonRemoteVnet    Reason = "remote VNet traffic not allowed"
	ReasonRegion        Reason = "VNet's region is beyond the circuit's SKU"
	ReasonNotDefault    Reason = "only a default route is taken from Microsoft's network"
)

// martians are the blocks no route may lie in: they never name a host beyond
// the link (RFC 6890). IPv4's link-local block is not among them, as peerings
// may be numbered from it.
var martians = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("::1/128"),
	netip.PrefixFrom(netip.MustParseAddr("::ffff:0:0"), 96), // IPv4-mapped, never on a wire
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// privates are the blocks that are nobody's on the Internet: RFC 1918, RFC
// 6598, RFC 3927 and RFC 4193.
var privates = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
}

// inside reports whether p equals one of the blocks or lies in one. The default
// route lies in none but a default route; 0.0.0.0/1 not in 0.0.0.0/8.
func inside(blocks []netip.Prefix, p netip.Prefix) bool {
	for _, b := range blocks {
		if b.Bits() <= p.Bits() && b.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// isPrivateAS reports whether as is for private use (RFC 6996) or the last of
// its size, which is nobody's either (RFC 7300).
func isPrivateAS(as uint32) bool {
	return as >= 64512 && as <= 65535 || as >= 4200000000
}
