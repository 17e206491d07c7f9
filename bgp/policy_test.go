package bgp

import (
	"net/netip"
	"slices"
	"testing"

	"msee/community"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pfxs(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, pfx(s))
	}
	return out
}

var (
	customer4 = Peer{Name: "ce4", Side: SideCustomer, AS: 64512, Local: addr("192.168.15.18"), Addr: addr("192.168.15.17"), Subnet: pfx("192.168.15.16/30")}
	customer6 = Peer{Name: "ce6", Side: SideCustomer, AS: 64512, Local: addr("2001:db8:15::2"), Addr: addr("2001:db8:15::1"), Subnet: pfx("2001:db8:15::/126")}
	gatewayA0 = Peer{Name: "gwA0", Side: SideGateway, AS: ASGateway, Local: addr("10.255.0.4"), Addr: addr("10.255.0.12"), Subnet: pfx("10.255.0.0/24"), Connection: "A"}
	gatewayA1 = Peer{Name: "gwA1", Side: SideGateway, AS: ASGateway, Local: addr("10.255.0.4"), Addr: addr("10.255.0.13"), Subnet: pfx("10.255.0.0/24"), Connection: "A"}
	gatewayB0 = Peer{Name: "gwB0", Side: SideGateway, AS: ASGateway, Local: addr("10.255.1.4"), Addr: addr("10.255.1.12"), Subnet: pfx("10.255.1.0/24"), Connection: "B"}
	msee0     = Peer{Name: "msee0", Side: SideMSEE, AS: ASMSEE, Local: addr("10.255.0.12"), Addr: addr("10.255.0.4"), Subnet: pfx("10.255.0.0/24")}
	msee1     = Peer{Name: "msee1", Side: SideMSEE, AS: ASMSEE, Local: addr("10.255.0.12"), Addr: addr("10.255.0.5"), Subnet: pfx("10.255.0.0/24")}
	network4  = Peer{Name: "net4", Side: SideMicrosoft, AS: 8075, Local: addr("10.254.0.4"), Addr: addr("10.254.0.12"), Subnet: pfx("10.254.0.0/27")}
	local     = Peer{Side: SideLocal}
)

func path4(as ...uint32) Attrs { return Attrs{NextHop: customer4.Addr, ASPath: as} }

func TestImportPrefixes(t *testing.T) {
	private, microsoft, gateway := PrivatePeering(), MicrosoftPeering(pfxs("203.0.113.0/24", "2001:db8:100::/40", "10.9.0.0/16")), Gateway()
	gateway.AddressSpace = pfxs("10.1.0.0/16", "2001:db8:1::/48")
	for _, tc := range []struct {
		policy *Policy
		from   *Peer
		prefix string
		want   Reason
	}{
		{&private, &customer4, "10.0.0.0/8", ""},
		{&private, &customer4, "10.0.0.1/32", ""},
		{&private, &customer4, "0.0.0.0/0", ""},
		{&private, &customer4, "0.0.0.0/1", ""},
		{&private, &customer4, "126.0.0.0/7", ""},
		{&private, &customer4, "203.0.113.0/24", ""},
		{&private, &customer4, "192.168.15.16/30", ""},
		{&private, &customer4, "169.254.194.40/30", ""},
		{&private, &customer6, "::/0", ""},
		{&private, &customer6, "2001:db8::1/128", ""},
		{&private, &customer6, "fd00::/8", ""},
		{&private, &customer4, "2001:db8::/32", ReasonFamily},
		{&private, &customer6, "10.0.0.0/8", ReasonFamily},
		{&private, &customer4, "0.0.0.0/32", ReasonMartian},
		{&private, &customer4, "127.0.0.0/8", ReasonMartian},
		{&private, &customer4, "127.0.0.1/32", ReasonMartian},
		{&private, &customer4, "224.0.0.0/4", ReasonMartian},
		{&private, &customer4, "239.1.0.0/16", ReasonMartian},
		{&private, &customer4, "255.255.255.255/32", ReasonMartian},
		{&private, &customer6, "::/128", ReasonMartian},
		{&private, &customer6, "::1/128", ReasonMartian},
		{&private, &customer6, "fe80::/10", ReasonMartian},
		{&private, &customer6, "fe80::/64", ReasonMartian},
		{&private, &customer6, "ff02::/16", ReasonMartian},
		{&private, &gatewayA0, "10.1.0.0/16", ""},
		{&private, &gatewayA0, "127.0.0.0/8", ReasonMartian},
		{&private, &gatewayA0, "0.0.0.0/0", ReasonDefaultRoute},

		{&microsoft, &customer4, "203.0.113.0/24", ""},
		{&microsoft, &customer4, "203.0.113.7/32", ""},
		{&microsoft, &customer6, "2001:db8:180::/48", ""},
		{&microsoft, &customer4, "203.0.112.0/23", ReasonNotAdvertised},
		{&microsoft, &customer4, "198.51.100.0/24", ReasonNotAdvertised},
		{&microsoft, &customer4, "0.0.0.0/0", ReasonDefaultRoute},
		{&microsoft, &customer6, "::/0", ReasonDefaultRoute},
		{&microsoft, &customer4, "10.9.1.0/24", ReasonPrivatePrefix},
		{&microsoft, &customer4, "172.31.0.0/16", ReasonPrivatePrefix},
		{&microsoft, &customer4, "192.168.15.16/30", ReasonPrivatePrefix},
		{&microsoft, &customer4, "100.64.0.0/10", ReasonPrivatePrefix},
		{&microsoft, &customer6, "fd00::/8", ReasonPrivatePrefix},
		{&microsoft, &customer4, "127.0.0.0/8", ReasonMartian},

		{&gateway, &msee0, "10.0.0.0/8", ""},
		{&gateway, &msee0, "0.0.0.0/0", ""},
		{&gateway, &msee0, "10.1.0.0/16", ReasonOwnSpace},
		{&gateway, &msee0, "10.1.2.0/24", ReasonOwnSpace},
		{&gateway, &msee0, "224.0.0.0/24", ReasonMartian},
	} {
		a := Attrs{NextHop: tc.from.Addr, ASPath: []uint32{tc.from.AS, 64999}}
		got, why := tc.policy.Import(tc.from, Route{Prefix: pfx(tc.prefix), Attrs: &a})
		if why != tc.want || got == nil {
			t.Errorf("%s: %s from %s: %q, want %q", tc.policy.Kind, tc.prefix, tc.from.Name, why, tc.want)
		}
	}
	mapped := netip.PrefixFrom(addr("::ffff:10.0.0.0"), 104)
	if _, why := private.Import(&customer6, Route{Prefix: mapped, Attrs: &Attrs{NextHop: customer6.Addr, ASPath: []uint32{64512}}}); why != ReasonMartian {
		t.Errorf("an IPv4-mapped prefix: %q", why)
	}
}

func TestImportPaths(t *testing.T) {
	private, microsoft, gateway := PrivatePeering(), MicrosoftPeering(pfxs("203.0.113.0/24")), Gateway()
	strict, remote := private, gateway
	strict.AllowOwnAS, remote.AllowRemoteVnetTraffic = false, true
	for _, tc := range []struct {
		name   string
		policy *Policy
		from   *Peer
		path   []uint32
		want   Reason
	}{
		{"plain", &private, &customer4, []uint32{64512}, ""},
		{"prepended", &private, &customer4, []uint32{64512, 64512, 64512, 65001}, ""},
		{"32 bit", &private, &customer4, []uint32{64512, 4200000001}, ""},
		{"empty", &private, &customer4, nil, ReasonFirstAS},
		{"another's", &private, &customer4, []uint32{64513, 64512}, ReasonFirstAS},
		{"AS 0", &private, &customer4, []uint32{64512, 0}, ReasonASZero},
		{"as long as may be", &private, &customer4, slices.Repeat([]uint32{64512}, 255), ""},
		{"too long", &private, &customer4, slices.Repeat([]uint32{64512}, 256), ReasonLongPath},
		{"as long as may be, at the gateway", &gateway, &msee0, append([]uint32{ASMSEE}, slices.Repeat([]uint32{64512}, 255)...), ""},
		{"reflected", &private, &customer4, []uint32{64512, ASMSEE}, ""},
		{"reflected, refused", &strict, &customer4, []uint32{64512, ASMSEE}, ReasonOwnAS},
		{"gateway", &private, &gatewayA0, []uint32{ASGateway}, ""},
		{"gateway of another AS", &private, &gatewayA0, []uint32{65001, ASGateway}, ReasonFirstAS},
		{"loop through a gateway", &private, &gatewayA0, []uint32{ASGateway, ASMSEE, 64512}, ReasonOwnAS},
		{"Microsoft peering, another's", &microsoft, &customer4, []uint32{64513}, ReasonFirstAS},
		{"Microsoft peering, reflected", &microsoft, &customer4, []uint32{64512, ASMSEE}, ReasonOwnAS},
		{"customer at gateway", &gateway, &msee0, []uint32{ASMSEE, 64512}, ""},
		{"loop at gateway", &gateway, &msee0, []uint32{ASMSEE, 64512, ASGateway}, ReasonOwnAS},
		{"other VNet", &gateway, &msee0, []uint32{ASMSEE, ASMSEE}, ReasonRemoteVnet},
		{"other VNet, allowed", &remote, &msee0, []uint32{ASMSEE, ASMSEE}, ""},
		{"MSEE's own", &gateway, &msee0, []uint32{ASMSEE}, ReasonRemoteVnet},
		{"customer by way of 12076", &gateway, &msee0, []uint32{ASMSEE, 64512, ASMSEE}, ""},
		{"not from the MSEE", &gateway, &msee0, []uint32{64512}, ReasonFirstAS},
	} {
		a := Attrs{NextHop: tc.from.Addr, ASPath: tc.path}
		if _, why := tc.policy.Import(tc.from, Route{Prefix: pfx("203.0.113.0/24"), Attrs: &a}); why != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, why, tc.want)
		}
	}
}

func TestImportNextHops(t *testing.T) {
	bare := customer4
	bare.Subnet = netip.Prefix{}
	private, gateway := PrivatePeering(), Gateway()
	for _, tc := range []struct {
		policy *Policy
		from   *Peer
		hop    netip.Addr
		want   Reason
	}{
		{&private, &customer4, addr("192.168.15.17"), ""},
		{&private, &customer4, addr("192.168.15.18"), ReasonNextHopOurs},
		{&private, &customer4, addr("192.168.15.16"), ReasonNextHop},
		{&private, &customer4, addr("192.168.15.19"), ReasonNextHop},
		{&private, &customer4, addr("192.168.15.21"), ReasonNextHop},
		{&private, &customer4, addr("::ffff:192.168.15.17"), ReasonNextHop},
		{&private, &customer4, netip.Addr{}, ReasonNextHop},
		{&private, &customer4, addr("0.0.0.0"), ReasonNextHop},
		{&private, &customer6, addr("2001:db8:15::1"), ""},
		{&private, &customer6, addr("2001:db8:15::3"), ""},
		{&private, &customer6, addr("fe80::1"), ReasonNextHop},
		{&private, &bare, addr("192.168.15.17"), ""},
		{&private, &bare, addr("192.168.15.16"), ReasonNextHop},
		{&private, &gatewayA0, addr("10.255.0.13"), ""},
		{&private, &gatewayA0, addr("10.255.0.255"), ReasonNextHop},
		{&private, &gatewayA0, addr("10.255.1.12"), ReasonNextHop},
		{&gateway, &msee0, addr("10.255.0.5"), ""},
		{&gateway, &msee0, addr("192.168.15.17"), ReasonNextHop},
	} {
		prefix := pfx("10.7.0.0/16")
		if tc.from.Addr.Is6() {
			prefix = pfx("2001:db8:7::/48")
		}
		a := Attrs{NextHop: tc.hop, ASPath: []uint32{tc.from.AS, 64999}}
		if _, why := tc.policy.Import(tc.from, Route{Prefix: prefix, Attrs: &a}); why != tc.want {
			t.Errorf("next hop %v from %s: %q, want %q", tc.hop, tc.from.Name, why, tc.want)
		}
	}
}

func TestImportAttributes(t *testing.T) {
	private, microsoft := PrivatePeering(), MicrosoftPeering(pfxs("203.0.113.0/24"))
	with := func(a Attrs, communities ...uint32) Attrs { a.Communities = communities; return a }
	for _, tc := range []struct {
		name     string
		policy   *Policy
		in, want Attrs
	}{
		{"private peering keeps the path", &private, path4(64512, 64512, 4200000000), path4(64512, 64512, 4200000000)},
		{"communities dropped", &private, with(path4(64512), 1, 2), path4(64512)},
		{"Microsoft peering strips private ASNs", &microsoft, path4(64512, 64512, 4200000000, 3, 65535), path4(3)},
		{"nothing left of the path", &microsoft, path4(64512), path4()},
		{"communities dropped there too", &microsoft, with(path4(64512, 3), 1), path4(3)},
	} {
		in := tc.in
		got, why := tc.policy.Import(&customer4, Route{Prefix: pfx("203.0.113.0/24"), Attrs: &in})
		if why != "" || !got.Equal(&tc.want) {
			t.Errorf("%s: %+v, %q, want %+v", tc.name, *got, why, tc.want)
		}
		if !in.Equal(&tc.in) {
			t.Errorf("%s: the received attributes were changed to %+v", tc.name, in)
		}
	}
	gw := Attrs{NextHop: gatewayA0.Addr, ASPath: []uint32{ASGateway}, Communities: []uint32{ASMSEE<<16 | 20001}}
	if got, why := private.Import(&gatewayA0, Route{Prefix: pfx("10.1.0.0/16"), Attrs: &gw}); why != "" || !got.Equal(&gw) {
		t.Errorf("a gateway's route: %+v, %q", *got, why)
	}
}

func TestExport(t *testing.T) {
	private, microsoft, gateway := PrivatePeering(), MicrosoftPeering(nil), Gateway()
	unnamed := gatewayA0
	unnamed.Connection = ""
	for _, tc := range []struct {
		name     string
		policy   *Policy
		to, from *Peer
		path     []uint32
		want     []uint32
		nothing  bool
	}{
		{"VNet to customer", &private, &customer4, &gatewayA0, []uint32{ASGateway}, nil, false},
		{"customer to customer", &private, &customer4, &customer4, []uint32{64512}, nil, true},
		{"customer to gateway", &private, &gatewayA0, &customer4, []uint32{64512, 64512, 65001}, []uint32{64512, 64512, 65001}, false},
		{"other connection's", &private, &gatewayB0, &gatewayA0, []uint32{ASGateway, ASGateway}, []uint32{ASMSEE, ASMSEE}, false},
		{"own connection's other instance", &private, &gatewayA1, &gatewayA0, []uint32{ASGateway}, nil, true},
		{"back to the instance", &private, &gatewayA0, &gatewayA0, []uint32{ASGateway}, nil, true},
		{"other family", &private, &customer6, &gatewayA0, []uint32{ASGateway}, nil, true},
		{"Microsoft peering", &microsoft, &customer4, &customer4, []uint32{64512}, nil, true},
		{"Microsoft peering, to Microsoft's network", &microsoft, &network4, &customer4, []uint32{3}, []uint32{3}, false},
		{"from Microsoft's network", &microsoft, &customer4, &network4, []uint32{8075}, nil, true},
		{"a service, without a route filter", &microsoft, &customer4, &local, nil, nil, true},
		{"a service, to Microsoft's network", &microsoft, &network4, &local, nil, nil, true},
		{"MSEE to MSEE", &gateway, &msee1, &msee0, []uint32{ASMSEE, 64512}, nil, true},
	} {
		a := Attrs{NextHop: tc.from.Addr, Origin: OriginEGP, ASPath: tc.path, MED: 5, HasMED: true, Communities: []uint32{7}}
		before := a
		got := tc.policy.Export(tc.to, tc.from, Route{Prefix: pfx("10.1.0.0/16"), Attrs: &a})
		want := &Attrs{Origin: OriginEGP, ASPath: tc.want}
		if tc.nothing != (got == nil) || got != nil && !got.Equal(want) {
			t.Errorf("%s: %+v, want %+v (nothing: %v)", tc.name, got, want, tc.nothing)
		}
		if !a.Equal(&before) {
			t.Errorf("%s: the route's attributes were changed to %+v", tc.name, a)
		}
	}
}

// TestCommunities: what of a route's communities is told whom.
func TestCommunities(t *testing.T) {
	private, gateway := PrivatePeering(), Gateway()
	microsoft := MicrosoftPeering(nil)
	microsoft.RouteFilter, microsoft.RouteFilterIPv6 = []uint32{storage}, []uint32{sql}
	const region15 = community.AS<<16 | 51015
	for _, tc := range []struct {
		name     string
		policy   *Policy
		to, from *Peer
		have     []uint32
		want     []uint32
		nothing  bool
	}{
		{"VNet without a community of its own", &private, &customer4, &gatewayA0, []uint32{vnet15}, nil, false},
		{"VNet with one", &private, &customer4, &gatewayA0, []uint32{vnet15, custom}, []uint32{vnet15, custom}, false},
		{"VNet with one, no region", &private, &customer4, &gatewayA0, []uint32{custom}, []uint32{custom}, false},
		{"others are dropped", &private, &customer4, &gatewayA0, []uint32{7, custom, storage}, []uint32{custom}, false},
		{"to another VNet", &private, &gatewayB0, &gatewayA0, []uint32{vnet15, custom}, nil, false},
		{"gateway to MSEE", &gateway, &msee0, &local, []uint32{vnet15, custom}, []uint32{vnet15, custom}, false},
		{"service in the filter", &microsoft, &customer4, &local, []uint32{storage}, []uint32{storage}, false},
		{"service with one of its communities in the filter", &microsoft, &customer4, &local, []uint32{region15, storage}, []uint32{region15, storage}, false},
		{"service not in the filter", &microsoft, &customer4, &local, []uint32{sql}, nil, true},
		{"service without communities", &microsoft, &customer4, &local, nil, nil, true},
		{"the IPv6 filter is another", &microsoft, &customer6, &local, []uint32{sql}, []uint32{sql}, false},
		{"and so is what it lets pass", &microsoft, &customer6, &local, []uint32{storage}, nil, true},
	} {
		prefix := pfx("20.150.66.0/24")
		if tc.to.Addr.Is6() {
			prefix = pfx("2603:1010::/32")
		}
		got := tc.policy.Export(tc.to, tc.from, Route{prefix, &Attrs{Communities: tc.have}})
		if (got == nil) != tc.nothing || got != nil && !slices.Equal(got.Communities, tc.want) {
			t.Errorf("%s: %+v, want %v (nothing: %v)", tc.name, got, tc.want, tc.nothing)
		}
	}
}

// TestRegions: a circuit refuses VNets that its SKU does not reach.
func TestRegions(t *testing.T) {
	for _, tc := range []struct {
		regions     []uint16
		from        *Peer
		communities []uint32
		want        Reason
	}{
		{nil, &gatewayA0, []uint32{vnet15}, ""},
		{[]uint16{15}, &gatewayA0, []uint32{vnet15}, ""},
		{[]uint16{15}, &gatewayA0, nil, ""},
		{[]uint16{15}, &gatewayA0, []uint32{storage, custom}, ""},
		{[]uint16{16}, &gatewayA0, []uint32{vnet15}, ReasonRegion},
		{[]uint16{}, &gatewayA0, []uint32{custom, vnet15}, ReasonRegion},
		{[]uint16{16}, &customer4, []uint32{vnet15}, ""}, // a customer's communities mean nothing
	} {
		p := PrivatePeering()
		p.Regions = tc.regions
		a := &Attrs{NextHop: tc.from.Addr, ASPath: []uint32{tc.from.AS}, Communities: tc.communities}
		if _, why := p.Import(tc.from, Route{pfx("10.1.0.0/16"), a}); why != tc.want {
			t.Errorf("%v of %s with %v: %q, want %q", tc.communities, tc.from.Name, tc.regions, why, tc.want)
		}
	}
}

func TestImportFromMicrosoft(t *testing.T) {
	p := MicrosoftPeering(nil)
	for prefix, want := range map[string]Reason{"0.0.0.0/0": "", "20.150.66.0/24": ReasonNotDefault, "127.0.0.0/8": ReasonMartian} {
		a := &Attrs{NextHop: network4.Addr, ASPath: []uint32{8075}}
		if _, why := p.Import(&network4, Route{pfx(prefix), a}); why != want {
			t.Errorf("%s: %q, want %q", prefix, why, want)
		}
	}
}
