package config

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"msee/community"
)

const filters = `
routeFilters:
  - name: storage
    rules: [{access: Allow, routeFilterRuleType: Community, communities: ["12076:52015"]}]
  - name: global
    rules: [{name: r, communities: ["12076:5060", "12076:51015"]}]
`

// withFilters is edge.yaml with route filters attached to both halves of the
// Microsoft peering.
func withFilters(t testing.TB) string {
	return edited(t, readFile(t, "edge.yaml"), "        state: Disabled\n", "        routeFilter: storage\n",
		"          state: Enabled\n", "          routeFilter: global\n", "connections:", strings.TrimLeft(filters, "\n")+"connections:")
}

func TestRouteFilters(t *testing.T) {
	d := mustParse(t, withFilters(t))
	v := d.VRFs[0]
	if got := fmt.Sprintf("%s %v %s %v", v.RouteFilterName, v.RouteFilter, v.RouteFilterIPv6Name, v.RouteFilterIPv6); got != "storage [12076:52015] global [12076:5060 12076:51015]" {
		t.Error(got)
	}
	if v := mustParse(t, readFile(t, "edge.yaml")).VRFs[0]; v.RouteFilter != nil || v.RouteFilterName != "" {
		t.Errorf("without a filter: %v", v.RouteFilter)
	}
	diffSeesEveryField(t, withFilters(t))
}

// TestServicesOfACircuit checks which services each circuit can announce.
func TestServicesOfACircuit(t *testing.T) {
	has := func(file, value string) bool {
		v, err := community.Parse(value)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range mustParse(t, file).VRFs[0].Originate {
			for _, c := range o.Communities {
				if c == v {
					return true
				}
			}
		}
		return false
	}
	at := edited(t, readFile(t, "edge.yaml"), "    port: link1\n", "    peeringLocation: Sydney\n    port: link1\n")
	for _, c := range []struct {
		tier string
		want string // of Australia East, Australia Southeast, West Europe, Entra ID, Exchange
	}{
		{"Local", "+--+-"}, {"Standard", "++-+-"}, {"Premium", "+++++"},
	} {
		got := ""
		for _, value := range []string{"12076:52015", "12076:52016", "12076:52002", "12076:5060", "12076:5010"} {
			if has(edited(t, at, "tier: Premium", "tier: "+c.tier), value) {
				got += "+"
			} else {
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.tier, got, c.want)
		}
	}
}

// TestMicrosoftConnection checks the MSEE's end of a connection to Microsoft's
// network.
func TestMicrosoftConnection(t *testing.T) {
	const conn = "microsoftConnections: [{name: ms, circuit: er1, port: core, vlanId: 300, subnet: 10.254.0.0/27, subnetIpv6: \"fd00:254::/64\"}]\nconnections:"
	file := edited(t, readFile(t, "edge.yaml"), "connections:", conn)
	for i, f := range []string{file, secondary(file)} {
		v := mustParse(t, f).VRFs[0]
		var got []string
		for _, s := range v.Sessions {
			if s.Side == SideMicrosoft {
				got = append(got, fmt.Sprintf("%s %v %v AS%d %s %v", s.Subinterface, s.Local, s.Peer, s.PeerAS, s.Connection, s.Enabled))
			}
		}
		want := fmt.Sprintf("[core.300 10.254.0.%d 10.254.0.12 AS8075 ms true core.300 fd00:254::%d fd00:254::c AS8075 ms true]", 4+i, 4+i)
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	for _, c := range []struct{ old, new, want string }{
		{"circuit: er1, port: core, vlanId: 300", "circuit: er2, port: core, vlanId: 300", "the circuit has no MicrosoftPeering (got er2"},
		{"vlanId: 300", "vlanId: 200", "VLAN used twice on port core"},
		{"name: ms,", "name: vnet1,", "connection name used twice"},
		{"10.254.0.0/27", "203.0.113.0/27", "microsoftConnections[0].subnet: overlaps 203.0.113.0/30"},
	} {
		if _, err := Parse("f", []byte(edited(t, file, c.old, c.new))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.new, err, c.want)
		}
	}
}

func TestBadMicrosoft(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"routeFilter: storage", "routeFilter: storages", "circuits[0].peerings[1].routeFilter: no such route filter (got storages; want global or storage)"},
		{"routeFilter: global", "routeFilter: other", "circuits[0].peerings[1].ipv6PeeringConfig.routeFilter: no such route filter (got other; want global or storage)"},
		{"sharedKey: abc123", "routeFilter: storage", "circuits[0].peerings[0].routeFilter: for a MicrosoftPeering only (want no such key on an AzurePrivatePeering)"},
		{"access: Allow", "access: Deny", "routeFilters[0].rules[0].access: not offered by Azure (got Deny; want Allow: what no rule allows is not announced)"},
		{"\"12076:52015\"", "\"52015\"", "routeFilters[0].rules[0].communities[0]: not a community (got 52015; want AS:VALUE, two decimal numbers below 65536 with a colon: a Microsoft service's, e.g. 12076:52015 or 12076:5060)"},
		{"\"12076:52015\"", "\"12076:50015\"", "a community of another kind"},
		{"\"12076:52015\"", "\"12076:5010\"", "routeFilters[0].rules[0].communities[0]: not authorised: Exchange Online (got 12076:5010; want a community that bgpServiceCommunities has isAuthorizedToUse for)"},
		{"name: global", "name: storage", "routeFilters[1].name: route filter name used twice"},
		{"[{name: r, ", "[{communities: [\"12076:5050\"]}, {name: r, ", "routeFilters[1].rules[1]: a second rule (want one rule per route filter)"},
		{"advertisedPublicPrefixes: [198", "customerASN: 65001\n          advertisedPublicPrefixes: [198", "customerASN: a private AS number (got 65001; want a public AS number)"},
		{"advertisedPublicPrefixes: [198", "routingRegistryName: RIPE\n          advertisedPublicPrefixes: [198", "routingRegistryName: not a value of routingRegistryName (got RIPE; want NONE, ARIN, APNIC, AFRINIC, LACNIC, RIPENCC, RADB or ALTDB)"},
		{"connections:", "bgpServiceCommunities: services.json\nconnections:", "bgpServiceCommunities: no file can be read here (got services.json)"},
		{"connections:", "routingRegistries: [ripe.db]\nconnections:", "routingRegistries[0]: no file can be read here (got ripe.db)"},
	} {
		_, err := Parse("f", []byte(edited(t, withFilters(t), c.old, c.new)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.new, err, c.want)
		}
	}
}

const registered = `route: 198.51.100.0/24
origin: AS64496
source: RADB

route: 203.0.112.0/23
origin: AS3
source: RIPE

route6: 2001:db8:100::/48
origin: AS64496
source: RADB
`

// TestRegistries checks what becomes of prefixes by the registries' word.
func TestRegistries(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprint(z, registered)
	z.Close()
	write("radb.db", []byte(registered))
	write("radb.db.gz", packed.Bytes())
	write("broken.gz", packed.Bytes()[:packed.Len()/2])
	write("empty.db", []byte("% nothing\n"))
	write("services.json", []byte(`[{"serviceName": "S", "bgpCommunities": [{"communityValue": "12076:52015", "communityPrefixes": ["20.1.0.0/16"]}]}]`))
	load := func(registry, as string) (*Device, error) {
		file := edited(t, withFilters(t), "connections:", "routingRegistries: ["+registry+"]\nbgpServiceCommunities: services.json\nconnections:",
			"          advertisedPublicPrefixes: [198", as+"          advertisedPublicPrefixes: [198")
		write("edge.yaml", []byte(file))
		return Load(filepath.Join(dir, "edge.yaml"))
	}
	for _, c := range []struct{ registry, as, want, allowed string }{
		{"radb.db", "          customerASN: 64496\n", "[{198.51.100.0/24 Configured} {203.0.113.0/24 AsnValidationFailed} {2001:db8:100::/48 ManualValidationNeeded}]", "[198.51.100.0/24]"},
		{"radb.db.gz", "          customerASN: 64497\n", "[{198.51.100.0/24 AsnValidationFailed} {203.0.113.0/24 AsnValidationFailed} {2001:db8:100::/48 ManualValidationNeeded}]", "[]"},
		{"radb.db", "          manuallyValidated: true\n", "[{198.51.100.0/24 Configured} {203.0.113.0/24 Configured} {2001:db8:100::/48 ManualValidationNeeded}]", "[198.51.100.0/24 203.0.113.0/24]"},
		{"radb.db", "          customerASN: 64496\n          routingRegistryName: RADB\n", "[{198.51.100.0/24 Configured} {203.0.113.0/24 ValidationNeeded} {2001:db8:100::/48 ManualValidationNeeded}]", "[198.51.100.0/24]"},
	} {
		d, err := load(c.registry, c.as)
		if err != nil {
			t.Fatal(err)
		}
		v := d.VRFs[0]
		if fmt.Sprint(v.Advertised) != c.want || fmt.Sprint(v.AllowedPrefixes) != c.allowed {
			t.Errorf("%s%s: %v, allowed %v", c.registry, c.as, v.Advertised, v.AllowedPrefixes)
		}
		if len(v.Originate) != 1 || len(d.Services) != 1 {
			t.Errorf("services %v", v.Originate)
		}
	}
	for registry, want := range map[string]string{
		"broken.gz":    "routingRegistries[0]: cannot be read: unexpected EOF (got broken.gz)",
		"empty.db":     "routingRegistries[0]: no route or route6 object in it (got empty.db; want a routing registry's database in RPSL, plain or gzip)",
		"missing.db":   "routingRegistries[0]: cannot be opened: ",
		".":            "routingRegistries[0]: cannot be opened: " + dir + " is not a regular file",
		"/dev/zero":    "routingRegistries[0]: cannot be opened: /dev/zero is not a regular file",
		"edge.yaml, 7": "routingRegistries[1]: wrong type",
	} {
		if _, err := load(registry, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", registry, err, want)
		}
	}
}
