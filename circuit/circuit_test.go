package circuit

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// verdict is what a rule says, for comparison: "" for nothing.
func verdict(v *Violation) string {
	if v == nil {
		return ""
	}
	return v.Problem
}

func TestPeerASN(t *testing.T) {
	for asn, want := range map[int64]string{
		-1: "not an AS number", 0: "not an AS number", 1: "", 12075: "", 12077: "",
		12076: "the ASN of the MSEE itself",
		65514: "", 65515: "reserved by Azure", 65516: "reserved by Azure", 65520: "reserved by Azure", 65521: "",
		65535: "", 65536: "", 4294967295: "", 4294967296: "not an AS number",
	} {
		if got := verdict(CheckPeerASN(asn)); got != want {
			t.Errorf("%d: %q, want %q", asn, got, want)
		}
	}
}

func TestSharedKey(t *testing.T) {
	for key, want := range map[string]string{
		"":                       "empty",
		"a":                      "",
		"abcXYZ0189":             "",
		strings.Repeat("k", 25):  "",
		strings.Repeat("k", 26):  "too long: 26 characters",
		"a b":                    "contains white space",
		"a\tb":                   "contains white space",
		"a\nb":                   "contains a control character",
		"a-b":                    "contains a special character",
		"a@[`{/:":                "contains a special character",
		"é":                      "contains a character that is not ASCII",
		"\xff":                   "contains a character that is not ASCII",
		strings.Repeat("é", 100): "contains a character that is not ASCII",
	} {
		v := CheckSharedKey(key)
		if got := verdict(v); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
		if v != nil && len(key) > 3 && strings.Contains(v.Problem+v.Want, key) {
			t.Errorf("%q: the violation tells the key", key)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func(int64) *Violation
		good  []int64
		bad   []int64
	}{
		{"VLAN", CheckVLANID, []int64{1, 4094}, []int64{-1, 0, 4095, 1 << 40}},
		{"bandwidth", CheckBandwidth, []int64{50, 100, 200, 500, 1000, 2000, 5000, 10000},
			[]int64{-50, 0, 51, 300, 40000, 1<<32 + 50, 1<<63 - 1}},
		{"weight", CheckRoutingWeight, []int64{0, 32000}, []int64{-1, 32001}},
	} {
		for _, n := range c.good {
			if v := c.check(n); v != nil {
				t.Errorf("%s %d refused: %s", c.name, n, v.Problem)
			}
		}
		for _, n := range c.bad {
			if v := c.check(n); v == nil || v.Want == "" {
				t.Errorf("%s %d accepted", c.name, n)
			}
		}
	}
}

func TestServiceKey(t *testing.T) {
	for _, key := range []string{"11111111-2222-3333-4444-555555555555", "abcdefAB-CDEF-0123-4567-89abcdefABCD"} {
		if v := CheckServiceKey(key); v != nil {
			t.Errorf("%s refused: %s", key, v.Problem)
		}
	}
	for _, key := range []string{"", "11111111222233334444555555555555", "{1111111-2222-3333-4444-555555555555",
		"11111111-2222-3333-4444-55555555555g", "11111111-2222-3333-44445-55555555555", "éééééééé-2222-3333-4444-5555"} {
		if CheckServiceKey(key) == nil {
			t.Errorf("%q accepted", key)
		}
	}
}

func TestSKU(t *testing.T) {
	for _, tier := range []SKUTier{TierBasic, TierLocal, TierStandard, TierPremium} {
		for _, family := range []SKUFamily{FamilyMeteredData, FamilyUnlimitedData} {
			want := tier != TierLocal || family == FamilyUnlimitedData
			if got := CheckSKU(SKU{tier, family}) == nil; got != want {
				t.Errorf("%s: accepted is %v", SKU{tier, family}.Name(), got)
			}
		}
		if v := CheckSKU(SKU{tier, DefaultFamily(tier)}); v != nil {
			t.Errorf("the default family of %s: %s", tier, v.Problem)
		}
	}
}

func TestSubnets(t *testing.T) {
	private := func(p netip.Prefix) *Violation { return CheckPeerSubnet(AzurePrivatePeering, p) }
	public := func(p netip.Prefix) *Violation { return CheckPeerSubnet(MicrosoftPeering, p) }
	private6 := func(p netip.Prefix) *Violation { return CheckIPv6PeerSubnet(AzurePrivatePeering, p) }
	public6 := func(p netip.Prefix) *Violation { return CheckIPv6PeerSubnet(MicrosoftPeering, p) }
	const family, length, base = "wrong address family", "wrong prefix length", "not the base address of the subnet"
	const unicast, notPublic = "not a unicast prefix", "not public address space"
	for _, c := range []struct {
		rule   string
		check  func(netip.Prefix) *Violation
		prefix string
		want   string
	}{
		{"private", private, "192.168.15.16/30", ""},
		{"private", private, "8.8.8.8/30", ""},
		{"private", private, "169.254.194.40/30", ""}, // seen in use on Azure
		{"private", private, "192.168.15.16/29", length},
		{"private", private, "192.168.15.16/31", length},
		{"private", private, "192.168.15.18/30", base},
		{"private", private, "127.0.0.0/30", unicast},
		{"private", private, "224.0.0.0/30", unicast},
		{"private", private, "255.255.255.252/30", unicast},
		{"private", private, "0.0.0.0/30", unicast},
		{"private", private, "2001:db8::/126", family},
		{"private IPv6", private6, "fd00::/126", ""},
		{"private IPv6", private6, "2001:db8::/126", ""},
		{"private IPv6", private6, "2001:db8::/127", length},
		{"private IPv6", private6, "2001:db8::1/126", base},
		{"private IPv6", private6, "fe80::/126", unicast},
		{"private IPv6", private6, "ff02::/126", unicast},
		{"private IPv6", private6, "::/126", unicast},
		{"private IPv6", private6, "::ffff:10.0.0.0/126", family},
		{"private IPv6", private6, "10.0.0.0/30", family},
		{"Microsoft", public, "203.0.113.0/30", ""},
		{"Microsoft", public, "10.0.0.0/30", notPublic},
		{"Microsoft", public, "172.31.0.0/30", notPublic},
		{"Microsoft", public, "172.32.0.0/30", ""},
		{"Microsoft", public, "100.64.0.0/30", notPublic},
		{"Microsoft", public, "169.254.0.0/30", notPublic},
		{"Microsoft", public, "127.0.0.0/30", notPublic},
		{"Microsoft IPv6", public6, "2001:db8::/126", ""},
		{"Microsoft IPv6", public6, "fd00::/126", notPublic},
		{"gateway subnet", CheckGatewaySubnet, "10.100.255.0/27", ""},
		{"gateway subnet", CheckGatewaySubnet, "10.100.255.0/28", ""},
		{"gateway subnet", CheckGatewaySubnet, "10.100.255.0/29", length},
		{"gateway subnet", CheckGatewaySubnet, "10.100.255.1/28", base},
		{"gateway subnet", CheckGatewaySubnet, "10.0.0.0/7", length},
		{"gateway subnet", CheckGatewaySubnet, "fd00::/64", family},
		{"subnet", CheckSubnet, "10.100.1.0/29", ""},
		{"subnet", CheckSubnet, "10.100.1.0/30", length},
		{"subnet", CheckSubnet, "fd00::/64", ""},
		{"subnet", CheckSubnet, "fd00::/63", length},
		{"subnet", CheckSubnet, "fd00::1/64", base},
		{"address space", CheckAddressSpace, "10.0.0.0/8", ""},
		{"address space", CheckAddressSpace, "0.0.0.0/0", length},
		{"address space", CheckAddressSpace, "fd00::/48", ""},
		{"address space", CheckAddressSpace, "fd00::/65", length},
		{"advertised", CheckAdvertisedPrefix, "203.0.113.0/24", ""},
		{"advertised", CheckAdvertisedPrefix, "203.0.113.7/32", ""},
		{"advertised", CheckAdvertisedPrefix, "0.0.0.0/0", length},
		{"advertised", CheckAdvertisedPrefix, "192.0.0.0/8", notPublic}, // holds 192.168.0.0/16
		{"advertised", CheckAdvertisedPrefix, "203.0.113.1/24", base},
		{"advertised IPv6", CheckAdvertisedPrefixIPv6, "2001:db8::/32", ""},
		{"advertised IPv6", CheckAdvertisedPrefixIPv6, "::/0", length},
		{"advertised IPv6", CheckAdvertisedPrefixIPv6, "fd00::/48", notPublic},
		{"advertised IPv6", CheckAdvertisedPrefixIPv6, "203.0.113.0/24", family},
	} {
		if got := verdict(c.check(netip.MustParsePrefix(c.prefix))); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.rule, c.prefix, got, c.want)
		}
	}
	// Rules are asked about absent values too.
	for _, check := range []func(netip.Prefix) *Violation{private, public, private6, public6,
		CheckGatewaySubnet, CheckSubnet, CheckSubnetIPv6, CheckAddressSpace, CheckAdvertisedPrefix, CheckAdvertisedPrefixIPv6} {
		if v := check(netip.Prefix{}); v == nil || v.Want == "" {
			t.Error("the zero prefix is accepted")
		}
	}
}

func TestAddresses(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		what string
		got  netip.Addr
		want string
	}{
		{"customer, primary", CustomerAddress(p("192.0.2.128/30")), "192.0.2.129"},
		{"MSEE, primary", MSEEAddress(p("192.0.2.128/30")), "192.0.2.130"},
		{"customer, secondary", CustomerAddress(p("192.0.2.132/30")), "192.0.2.133"},
		{"MSEE, secondary", MSEEAddress(p("192.0.2.132/30")), "192.0.2.134"},
		{"customer, IPv6", CustomerAddress(p("2001:db8::4/126")), "2001:db8::5"},
		{"MSEE, IPv6", MSEEAddress(p("2001:db8::4/126")), "2001:db8::6"},
		{"MSEE, the highest", MSEEAddress(p("2001:db8::ffff:ffff:ffff:fffc/126")), "2001:db8::ffff:ffff:ffff:fffe"},
		{"core, primary", MSEECoreAddress(p("10.100.255.0/27"), RolePrimary), "10.100.255.4"},
		{"core, secondary", MSEECoreAddress(p("10.100.255.32/27"), RoleSecondary), "10.100.255.37"},
		{"core, IPv6", MSEECoreAddress(p("fd00:100:0:ff::/64"), RoleSecondary), "fd00:100:0:ff::5"},
		{"gateway 0", GatewayAddress(p("10.100.255.0/27"), 0), "10.100.255.12"},
		{"gateway 1", GatewayAddress(p("10.100.255.0/27"), 1), "10.100.255.13"},
		{"gateway 1, IPv6", GatewayAddress(p("fd00:100:0:ff::/64"), 1), "fd00:100:0:ff::d"},
		{"subnet, instance 0", SubnetGatewayAddress(p("10.100.1.0/24"), 0), "10.100.1.4"},
		{"subnet, instance 1", SubnetGatewayAddress(p("10.100.1.0/29"), 1), "10.100.1.5"},
	} {
		if c.got != netip.MustParseAddr(c.want) {
			t.Errorf("%s: %v, want %s", c.what, c.got, c.want)
		}
	}
}

func TestPeeringSubnet(t *testing.T) {
	a, b := netip.MustParsePrefix("10.0.0.0/30"), netip.MustParsePrefix("10.0.0.4/30")
	p := Peering{PeeringType: AzurePrivatePeering, PrimaryPeerAddressPrefix: a, SecondaryPeerAddressPrefix: b}
	if p.Subnet(RolePrimary) != a || p.Subnet(RoleSecondary) != b {
		t.Error("IPv4 subnets are exchanged")
	}
	v6 := IPv6PeeringConfig{PrimaryPeerAddressPrefix: a, SecondaryPeerAddressPrefix: b}
	if v6.Subnet(RolePrimary) != a || v6.Subnet(RoleSecondary) != b {
		t.Error("IPv6 subnets are exchanged")
	}
	c := Circuit{Peerings: []Peering{p}}
	if c.Peering(AzurePrivatePeering) != &c.Peerings[0] || c.Peering(MicrosoftPeering) != nil {
		t.Error("Peering finds the wrong one")
	}
	if CheckPeeringType(AzurePublicPeering) == nil || CheckPeeringType(AzurePrivatePeering) != nil {
		t.Error("only public peering is retired")
	}
}

func TestWithin(t *testing.T) {
	p := netip.MustParsePrefix
	space := []netip.Prefix{p("10.100.0.0/16"), p("fd00:100::/48")}
	for prefix, want := range map[string]bool{
		"10.100.0.0/16": true, "10.100.255.0/27": true, "10.101.0.0/24": false, "10.0.0.0/8": false,
		"fd00:100:0:1::/64": true, "fd00:101::/64": false,
	} {
		if got := CheckWithin(p(prefix), space) == nil; got != want {
			t.Errorf("%s within %v: %v", prefix, space, got)
		}
	}
	many := slices.Repeat(space, 10)
	if v := CheckWithin(p("10.0.0.0/8"), many); len(v.Want) > 150 {
		t.Errorf("long: %s", v.Want)
	}
}

// TestOverlaps compares Overlaps with the comparison of all pairs, on random
// prefixes that overlap often.
func TestOverlaps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		ps := make([]netip.Prefix, random.IntN(12))
		for i := range ps {
			if random.IntN(4) == 0 {
				ps[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(random.IntN(8))}), 8+random.IntN(9)).Masked()
			} else {
				ps[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(64)), 0, 0}), 8+random.IntN(9)).Masked()
			}
		}
		got := Overlaps(ps)
		inSome := map[int]bool{} // prefixes for which a pair is due
		for i := range ps {
			for j := range i {
				if ps[i].Overlaps(ps[j]) {
					inSome[i], inSome[j] = true, true
				}
			}
		}
		seen := map[int]bool{}
		for _, o := range got {
			if o.A >= o.B || !ps[o.A].Overlaps(ps[o.B]) {
				t.Fatalf("%v: %v is no overlap", ps, o)
			}
			seen[o.A], seen[o.B] = true, true
		}
		if len(seen) != len(inSome) {
			t.Fatalf("%v: found %v, but %d prefixes overlap another", ps, got, len(inSome))
		}
		if !slices.IsSortedFunc(got, func(a, b Overlap) int { return a.B - b.B }) {
			t.Fatalf("%v is not sorted", got)
		}
	}
}
