package circuit

import (
	"fmt"
	"net/netip"
	"slices"
)

func checkBaseUnicast(p netip.Prefix) *Violation {
	if v := checkBase(p); v != nil {
		return v
	}
	return CheckUnicast(p)
}

// checkBase wants the base address exactly: host bits are more often a slip in
// the address than noise.
func checkBase(p netip.Prefix) *Violation {
	if p != p.Masked() {
		return &Violation{"not the base address of the subnet", p.Masked().String()}
	}
	return nil
}

func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// Ranges no router may have an address in: this network, loopback, multicast,
// reserved (RFC 6890).
var notUnicast = prefixes("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")

// Ranges that are unicast but not globally routed (RFC 1918, RFC 6598,
// RFC 3927, RFC 2544). The documentation ranges count as public: they are what
// a lab announces instead of somebody's network.
var notPublic = append(prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
	"100.64.0.0/10", "169.254.0.0/16", "198.18.0.0/15"), notUnicast...)

var (
	globalIPv6 = netip.MustParsePrefix("2000::/3") // RFC 4291 §2.4
	uniqueIPv6 = netip.MustParsePrefix("fc00::/7") // RFC 4193
)

// CheckUnicast checks that addresses of p can be given to routers and hosts:
// private or public, in IPv4 link-local too.
func CheckUnicast(p netip.Prefix) *Violation {
	if p.Addr().Is4() {
		if overlapsAny(p, notUnicast) {
			return &Violation{"not a unicast prefix", "private (RFC 1918) or public address space"}
		}
	} else if !within(p, globalIPv6) && !within(p, uniqueIPv6) {
		return &Violation{"not a unicast prefix", "within fc00::/7 (private) or 2000::/3 (public)"}
	}
	return nil
}

// CheckUnderlayRoute checks that p, of any length, holds nothing but what a tunnel may lead to,
// or is a default route.
func CheckUnderlayRoute(p netip.Prefix) *Violation {
	if p != p.Masked() {
		return &Violation{"host bits set", "the base address, " + p.Masked().String()}
	}
	if p.Bits() == 0 {
		return nil
	}
	return CheckUnicast(p)
}

// CheckPublic checks that p is public address space, as Microsoft peering
// demands.
func CheckPublic(p netip.Prefix) *Violation {
	if p.Addr().Is4() {
		if overlapsAny(p, notPublic) {
			return &Violation{"not public address space", "a prefix that you own, not private, shared, link-local, loopback or multicast"}
		}
	} else if !within(p, globalIPv6) {
		return &Violation{"not public address space", "a prefix that you own, within 2000::/3"}
	}
	return nil
}

// CheckWithin checks that subnet lies inside the address space of its VNet.
func CheckWithin(subnet netip.Prefix, addressSpace []netip.Prefix) *Violation {
	for _, p := range addressSpace {
		if within(subnet, p) {
			return nil
		}
	}
	return &Violation{"outside the virtual network", fmt.Sprintf("a prefix within %s", brief(addressSpace))}
}

// brief prints some prefixes.
func brief(ps []netip.Prefix) string {
	const most = 4
	if len(ps) > most {
		return fmt.Sprintf("%v and %d more", ps[:most], len(ps)-most)
	}
	return fmt.Sprint(ps)
}

// within reports whether all of p is in q.
func within(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }

func overlapsAny(p netip.Prefix, set []netip.Prefix) bool {
	return slices.ContainsFunc(set, p.Overlaps)
}

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i := range s {
		out[i] = netip.MustParsePrefix(s[i])
	}
	return out
}

// Overlap is a pair of prefixes, by their indices, that share addresses.
type Overlap struct{ A, B int } // A < B

// Overlaps finds the overlapping prefixes of ps, which must be base addresses:
// for every prefix that lies in others, one pair with the smallest of those.
// The pairs are sorted by B, then A. It takes n log n time.
func Overlaps(ps []netip.Prefix) []Overlap {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	// Sorted by base address, shorter first, a prefix follows all that contain
	// it, and prefixes are either nested or apart.
	slices.SortStableFunc(order, func(i, j int) int {
		if c := ps[i].Addr().Compare(ps[j].Addr()); c != 0 {
			return c
		}
		return ps[i].Bits() - ps[j].Bits()
	})
	var found []Overlap
	var open []int // prefixes that contain the current one, innermost last
	for _, i := range order {
		for len(open) > 0 && !ps[open[len(open)-1]].Overlaps(ps[i]) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			j := open[len(open)-1]
			found = append(found, Overlap{min(i, j), max(i, j)})
		}
		open = append(open, i)
	}
	slices.SortFunc(found, func(a, b Overlap) int {
		if a.B != b.B {
			return a.B - b.B
		}
		return a.A - b.A
	})
	return found
}
