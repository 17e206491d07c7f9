package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// edited returns a file with strings replaced (old, new, …), each of which must
// be there.
func edited(t testing.TB, file string, replace ...string) string {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(file, replace[i]) {
			t.Fatalf("the file has no %q", replace[i])
		}
		file = strings.Replace(file, replace[i], replace[i+1], 1)
	}
	return file
}

// TestLimits checks how many prefixes each session may announce.
func TestLimits(t *testing.T) {
	file := readFile(t, "edge.yaml")
	for _, c := range []struct{ name, file, want string }{
		{"Azure's", file, "er1-microsoft 200 200 er1-private 1000 1000 10000 100 100 100 er2-private 1000 1000 4000"},
		{"other knob", edited(t, file, "bgp:\n", "bgp:\n  maximumPrefixes: 7\n"), "er1-microsoft 7 7 er1-private 7 7 7 7 7 7 er2-private 7 7 7"},
		{"lifted", edited(t, file, "bgp:\n", "bgp:\n  maximumPrefixes: 0\n"), "er1-microsoft 0 0 er1-private 0 0 0 0 0 0 er2-private 0 0 0"},
		{"Local", edited(t, file, "tier: Premium", "tier: Local"), "er1-microsoft 200 200 er1-private 1000 1000 4000 100 100 100 er2-private 1000 1000 4000"},
	} {
		var got []string
		for _, v := range mustParse(t, c.file).VRFs {
			got = append(got, v.Name)
			for _, s := range v.Sessions {
				got = append(got, fmt.Sprint(s.MaxPrefixes))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.name, strings.Join(got, " "), c.want)
		}
	}
	if d := mustParse(t, file); d.PrefixRetry != time.Minute {
		t.Errorf("retry after %v", d.PrefixRetry)
	}
	if d := mustParse(t, edited(t, file, "bgp:\n", "bgp:\n  maximumPrefixesRetrySeconds: 5\n")); d.PrefixRetry != 5*time.Second {
		t.Errorf("retry after %v, want 5s", d.PrefixRetry)
	}
}

// TestRegions checks what a circuit reaches from where it is.
func TestRegions(t *testing.T) {
	file := edited(t, readFile(t, "edge.yaml"), "    port: link1\n", "    peeringLocation: Canberra2\n    port: link1\n")
	for tier, want := range map[string][]uint16{"Local": {33}, "Standard": {32, 33}, "Basic": {32, 33}, "Premium": nil} {
		d := mustParse(t, edited(t, file, "tier: Premium", "tier: "+tier))
		if v := d.VRFs[1]; v.Name != "er1-private" || !reflect.DeepEqual(v.Regions, want) {
			t.Errorf("%s: %s reaches %v, want %v", tier, v.Name, v.Regions, want)
		}
		if v := d.VRFs[2]; v.Regions != nil {
			t.Errorf("a circuit of no known place reaches %v", v.Regions)
		}
	}
	nowhere := edited(t, file, "tier: Premium", "tier: Local", "Canberra2", "Perth") // no region next to it
	if v := mustParse(t, nowhere).VRFs[1]; v.Regions == nil || len(v.Regions) != 0 {
		t.Errorf("Local at Perth reaches %v, want nothing", v.Regions)
	}
}

const vnetAt = "virtualNetwork:\n"

// TestVNetCommunities checks what a gateway announces its prefixes with.
func TestVNetCommunities(t *testing.T) {
	for _, c := range []struct{ keys, want string }{
		{"", "[]"},
		{"  location: Australia East\n", "[12076:50015]"},
		{"  location: australiaeast\n  bgpCommunities: {virtualNetworkCommunity: \"12076:20031\"}\n", "[12076:20031 12076:50015]"},
		{"  bgpCommunities: {virtualNetworkCommunity: \"12076:20031\", regionalCommunity: \"12076:50777\"}\n", "[12076:20031 12076:50777]"},
		{"  bgpCommunities: {virtualNetworkCommunity: \"12076:20031\"}\n", "[12076:20031]"},
	} {
		d := mustParse(t, edited(t, readFile(t, "gateway.yaml"), vnetAt, vnetAt+c.keys))
		for _, o := range d.VRFs[0].Originate {
			if got := fmt.Sprint(o.Communities); got != c.want {
				t.Errorf("%s: %v with %s, want %s", c.keys, o.Prefix, got, c.want)
			}
		}
	}
	if d := mustParse(t, edited(t, readFile(t, "gateway.yaml"), "virtualNetworkGateway: {", "virtualNetworkGateway: {allowRemoteVnetTraffic: true, ")); !d.VRFs[0].AllowRemoteVnetTraffic {
		t.Error("allowRemoteVnetTraffic is not heeded")
	}
}

// TestBadPolicy checks what is said of wrong values.
func TestBadPolicy(t *testing.T) {
	edge, gateway := readFile(t, "edge.yaml"), readFile(t, "gateway.yaml")
	for _, c := range []struct{ file, old, new, want string }{
		{edge, "    port: link1\n", "    port: link1\n    peeringLocation: Sidney\n",
			"15:22: circuits[0].peeringLocation: no such peering location (got Sidney; want one of Azure's, e.g. Sydney, Silicon Valley or Newport(Wales))"},
		{edge, "sharedKey: abc123", "allowOwnAS: yes",
			"21:21: circuits[0].peerings[0].allowOwnAS: wrong type (got yes; want true or false)"},
		{edge, "bgp:", "bgp:\n  maximumPrefixes: -1",
			"3:20: bgp.maximumPrefixes: not a number of prefixes (got -1; want 0 (no limit) to 10000000)"},
		{edge, "bgp:", "bgp:\n  maximumPrefixesRetrySeconds: 0",
			"3:32: bgp.maximumPrefixesRetrySeconds: retry time out of range (got 0; want 1 to 86400 seconds)"},
		{gateway, vnetAt, vnetAt + "  location: mars\n",
			"location: no such region, or none with a known community (got mars; want one of Azure's, e.g. australiaeast or Australia East)"},
		{gateway, vnetAt, vnetAt + "  bgpCommunities: {virtualNetworkCommunity: \"20031\"}\n",
			"virtualNetwork.bgpCommunities.virtualNetworkCommunity: not a community (got 20031; want AS:VALUE, two decimal numbers below 65536 with a colon: 12076:20000 to 12076:20999)"},
		{gateway, vnetAt, vnetAt + "  bgpCommunities: {virtualNetworkCommunity: \"12076:50015\"}\n",
			"a community of another kind (got 12076:50015; want 12076:20000 to 12076:20999)"},
		{gateway, vnetAt, vnetAt + "  bgpCommunities: {virtualNetworkCommunity: \"65001:20015\"}\n",
			"not one of Azure's communities (got 65001:20015; want 12076:20000 to 12076:20999)"},
		{gateway, vnetAt, vnetAt + "  bgpCommunities: {}\n", "virtualNetworkCommunity: missing (want "},
		{gateway, vnetAt, vnetAt + "  location: japaneast\n  bgpCommunities: {virtualNetworkCommunity: \"12076:20001\", regionalCommunity: \"12076:50015\"}\n",
			"regionalCommunity: not that of the location (got 12076:50015; want 12076:50012, or no location)"},
	} {
		_, err := Parse("f", []byte(edited(t, c.file, c.old, c.new)))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got %v\nwant %s", c.new, err, c.want)
		}
	}
}

// TestDiffSeesPolicy is TestDiffSeesEveryField for what the files there lack.
func TestDiffSeesPolicy(t *testing.T) {
	diffSeesEveryField(t, edited(t, readFile(t, "edge.yaml"), "    port: link1\n", "    peeringLocation: Sydney\n    port: link1\n", "tier: Premium", "tier: Standard"))
	diffSeesEveryField(t, edited(t, readFile(t, "gateway.yaml"), vnetAt, vnetAt+"  location: australiaeast\n"))
}

// TestDiffOfLongLists: a list of thousands is not printed, but seen to differ.
func TestDiffOfLongLists(t *testing.T) {
	a, b := mustParse(t, readFile(t, "gateway.yaml")), mustParse(t, readFile(t, "gateway.yaml"))
	for range 100 {
		a.VRFs[0].Originate = append(a.VRFs[0].Originate, a.VRFs[0].Originate[0])
		b.VRFs[0].Originate = append(b.VRFs[0].Originate, b.VRFs[0].Originate[1])
	}
	changes := Diff(a, b)
	if len(changes) != 1 || len(changes[0].Detail) > 100 {
		t.Errorf("got %v", changes)
	}
}
