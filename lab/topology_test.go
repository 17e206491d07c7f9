package lab

import (
	"errors"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"msee/lab/internal/strict"
)

func TestBuiltinTopologies(t *testing.T) {
	names := Topologies()
	if len(names) < 3 {
		t.Errorf("built in are %v, want at least default, overlap and qinq", names)
	}
	for _, name := range names {
		topo, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if topo.Name != name {
			t.Errorf("%s.yaml: its name is %s", name, topo.Name)
		}
	}
	if topo, err := Load(""); err != nil || topo.Name != DefaultTopology {
		t.Errorf("Load of nothing: got %v, %v, want the default", topo, err)
	}
	if _, err := Load("nosuch"); err == nil || !strings.Contains(err.Error(), strings.Join(names, ", ")) {
		t.Errorf("Load of an unknown name: got %v, want the names there are", err)
	}
	if _, err := Load("./nosuch.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of a missing file: got %v", err)
	}
}

// TestDaemonConfig wants a node's own keys beside those it shares, and no
// alias left that the daemon could not resolve.
func TestDaemonConfig(t *testing.T) {
	topo, err := Load("overlap")
	if err != nil {
		t.Fatal(err)
	}
	for node, keys := range map[string]string{
		"msee2": "device bgp ports circuits connections",
		"gw-a1": "virtualNetworkGateway virtualNetwork connections bgp ports",
	} {
		text, err := topo.DaemonConfig(topo.node(node))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "*") || strings.Contains(string(text), "&") {
			t.Errorf("%s: an alias is left:\n%s", node, text)
		}
		var got yaml.Node
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		var names []string
		for i := 0; i < len(got.Content[0].Content); i += 2 {
			names = append(names, got.Content[0].Content[i].Value)
		}
		if s := strings.Join(names, " "); s != keys {
			t.Errorf("%s: keys are %s, want %s", node, s, keys)
		}
	}
}

func TestOwnKeysGoFirst(t *testing.T) {
	topo := parse(t, `
name: x
shared: {msee: {bgp: shared, ports: shared}}
nodes: [{name: m, kind: msee, config: {bgp: own}}]
`)
	text, err := topo.DaemonConfig(topo.node("m"))
	if err != nil || string(text) != "bgp: own\nports: shared\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

func parse(t *testing.T, text string) *Topology {
	t.Helper()
	topo, err := Parse("t.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// TestBadTopologies breaks a good file in one place each.
func TestBadTopologies(t *testing.T) {
	good, err := os.ReadFile("testdata/pair.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"lab name", "name: pair", "name: a.b", `f:1:1: name: lab name "a.b"`},
		{"unknown key", "description:", "descripton:", `f:4:1: descripton: unknown key`},
		{"node name", "name: h3", "name: H3", `node "H3": want lower-case`},
		{"node twice", "name: h3", "name: h2", `node h2: given twice`},
		{"kind", "kind: switch", "kind: hub", `kind "hub": want one of host, frr, msee, gateway, switch`},
		{"config", "kind: switch}", "kind: switch, config: {}}", `node lan: a switch has no config`},
		{"no config", "kind: switch}", "kind: msee}", `node lan: config is missing`},
		{"config list", "kind: switch}", "kind: msee, config: []}", `node lan: config: want a mapping`},
		{"switch address", "kind: switch}", "kind: switch, interfaces: [{name: h1}]}", `a switch gets its own`},
		{"sysctl", "kind: switch}", "kind: switch, sysctls: {kernel.x: 1}}", `sysctl "kernel.x"`},
		{"sysctl path", "kind: switch}", "kind: switch, sysctls: {net/../kernel: 1}}", `sysctl "net/../kernel"`},
		{"bgp on host", "name: h3\n    kind: host", "name: h3\n    kind: host\n    frrConfig: x", `frrConfig are for kind frr`},
		{"one end", "[h3:eth0, lan:h3]", "[h3:eth0]", `link: want two ends, got 1`},
		{"end", "[h3:eth0, lan:h3]", "[h3, lan:h3]", `ends[0]: "h3": want NODE:INTERFACE`},
		{"end node", "[h3:eth0, lan:h3]", "[h9:eth0, lan:h3]", `no node is called "h9"`},
		{"end twice", "lan:h3]", "lan:h1]", `link end lan:h1: already linked`},
		{"long name", "lan:h3]", "lan:interface-of-h-3]", `interface "interface-of-h-3"`},
		{"mtu", "mtu: 9000", "mtu: 900", `MTU 900: want 1280`},
		{"tags need room", "mtu: 9000", "mtu: 1500", `its tags and MTU 1500 need 1508 on link wan, which has 1500`},
		{"parent", "vlan: {parent: wan,", "vlan: {parent: wam,", `parent "wam" is not the end of a link`},
		{"ctag", "ctag: 10}", "ctag: 4095}", `want a ctag of 1 to 4094`},
		{"etherType", "ctag: 10}", "ctag: 10, etherType: 0x9100}", `etherType 0x9100`},
		{"vlan name", "name: wan.100.10\n        vlan: {parent: wan, stag: 100, ctag: 10}\n        addresses: [192.0.2.2",
			"name: wan.100.10-long\n        vlan: {parent: wan, stag: 100, ctag: 10}\n        addresses: [192.0.2.2", `interface "wan.100.10-long"`},
		{"interface", "{name: eth0, addresses: [10.3.0.10/24]}", "{name: eth1, addresses: [10.3.0.10/24]}", `neither the end of a link nor a vlan`},
		{"prefix", "10.3.0.10/24", "10.3.0.10/33", `addresses[0]: "10.3.0.10/33"`},
		{"address twice", "[10.3.0.10/24]", "[10.3.0.10/24, 10.3.0.10/16]", `address 10.3.0.10: given twice`},
		{"route bits", "to: 0.0.0.0/0, via: [10.1.0.1]", "to: 1.0.0.0/0, via: [10.1.0.1]", `want a prefix without host bits`},
		{"route via", "via: [10.1.0.1]", "via: [10.9.0.1]", `route to 0.0.0.0/0 via 10.9.0.1: no interface has a subnet`},
		{"route src", "via: [10.1.0.1]", "via: [10.1.0.1], src: 10.1.0.99", `src 10.1.0.99 is no address of the node`},
		{"route family", "via: [10.1.0.1]", `via: ["2001:db8:1::1"]`, `no interface has a subnet`},
		{"asn", "asn: 65001", "asn: 0", `bgp: asn is missing`},
		{"router id", "routerId: 10.1.0.1", `routerId: "::1"`, `routerId: want an IPv4 address`},
		{"timers", "holdSeconds: 10\n      maximum", "holdSeconds: 1\n      maximum", `want keepaliveSeconds and holdSeconds`},
		{"neighbour", "address: 192.0.2.2,", "address: 192.0.9.2,", `neighbor 192.0.9.2: want an address in the subnet`},
		{"password", "abc123}\n        - {address: \"2001:db8::2\"", "\"a b\\n!\"}\n        - {address: \"2001:db8::2\"", `password: want letters and digits`},
		{"expect", "expect: [{prefix: 10.2.0.0/16}", "expect: [{prefix: 10.2.0.1/16}", `10.2.0.1/16: want a prefix without host bits`},
		{"check type", "type: ping, from: h1, to: 10", "type: pong, from: h1, to: 10", `type "pong"`},
		{"check from", "type: ping, from: h1, to: 10", "type: ping, from: h9, to: 10", `no node is called "h9"`},
		{"check at", "at: h2, seconds", "seconds", `check iperf3: no node is called ""`},
		{"check via", ", via: [192.0.2.2]", "", `via is for traceroute, which needs it`},
		{"check never", ", never: [h3]", "", `never is for isolation, which needs it`},
		{"check to", ", to: 10.2.0.10, at: h2, seconds", ", at: h2, seconds", `to is missing`},
		{"compare node", "checks:", "compare: {from: h9, to: 10.2.0.10, at: h2, ways: [{sku: x}]}\nchecks:", `compare: no node is called "h9"`},
		{"compare to", "checks:", "compare: {from: h1, at: h2, ways: [{sku: x}]}\nchecks:", `compare: to is missing`},
		{"compare ways", "checks:", "compare: {from: h1, to: 10.2.0.10, at: h2}\nchecks:", `compare: ways are missing`},
		{"compare SKU", "checks:", "compare: {from: h1, to: 10.2.0.10, at: h2, ways: [{expressRouteGatewayBypass: true}]}\nchecks:", `sku is missing`},
		{"shared", "nodes:", "shared: {frr: {}}\nnodes:", `shared.frr: only msee and gateway`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(good), c.old) {
				t.Fatalf("the good file has no %q", c.old)
			}
			_, err := Parse("f", []byte(strings.Replace(string(good), c.old, c.new, 1)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			var fault *strict.Fault
			if !errors.As(err, &fault) {
				t.Errorf("%v has no place in the file", err)
			}
		})
	}
}

// TestGatewayAddressIsNoHosts: what both instances of a gateway have in a subnet is no
// host's there, be it on the same link or behind a switch; elsewhere it is.
func TestGatewayAddressIsNoHosts(t *testing.T) {
	const text = `
name: g
nodes:
  - {name: gw, kind: gateway, config: {virtualNetwork: {subnets: [{addressPrefixes: [10.1.0.0/24, "fd00::/64"]}]}}}
  - {name: lan, kind: switch}
  - {name: vm, kind: host, interfaces: [{name: eth0, addresses: [ADDRESS]}]}
links:
  - {ends: [gw:eth0, lan:gw]}
  - {ends: [LINK]}
`
	for _, c := range []struct {
		address, link string
		refused       bool
	}{
		{"10.1.0.4/24", "vm:eth0, lan:vm", true},
		{"10.1.0.5/24", "vm:eth0, gw:eth1", true},
		{"'fd00::5/64'", "vm:eth0, lan:vm", true},
		{"10.1.0.6/24", "vm:eth0, lan:vm", false},
		{"10.1.0.4/24", "vm:eth0, vm:eth1", false},
	} {
		_, err := Parse("g", []byte(strings.NewReplacer("ADDRESS", c.address, "LINK", c.link).Replace(text)))
		if refused := err != nil && strings.Contains(err.Error(), "the VNet's gateway has it"); refused != c.refused {
			t.Errorf("%s on %s: %v", c.address, c.link, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	// Small, or the fuzzer spends its time on making it smaller.
	f.Add([]byte(`{name: x, shared: {msee: &s {circuits: [{stag: 1, peerings: [{vlanId: 9,
 primaryPeerAddressPrefix: 1.0.0.0/30}]}], connections: [{gatewaySubnet: 1.1.0.0/27}]}, gateway: *s},
nodes: [{name: m, kind: msee, config: {device: {role: primary}}}, {name: s, kind: switch},
 {name: g, kind: gateway, config: {virtualNetwork: {subnets: [{addressPrefixes: [1.2.0.0/24]}]}}},
 {name: c, kind: frr, interfaces: [{name: v, vlan: {parent: l, ctag: 9}, addresses: [1.0.0.1/30]}],
  routes: [{to: 2.0.0.0/8, via: [1.0.0.2]}],
  bgp: {asn: 1, routerId: 1.1.1.1, networks: [1.0.0.0/8], neighbors: [{address: 1.0.0.2, remoteAS: 2}]}}],
links: [{ends: [c:l, m:e], mtu: 9000}, {ends: [m:f, s:m]}, {ends: [s:g, g:e]}],
checks: [{type: ping, from: c, to: 1.1.1.1}]}`))
	f.Add([]byte("name: x\nnodes: [{name: a, kind: host}]\nlinks: [{ends: [a:b, a:c]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		topo, err := Parse("f", data)
		if err != nil {
			return
		}
		// Whatever is accepted can be drawn and given to daemons.
		var out strings.Builder
		if err := errors.Join(Diagram(&out, topo), Mermaid(&out, topo)); err != nil {
			t.Error(err)
		}
		for i := range topo.Nodes {
			if _, err := topo.DaemonConfig(&topo.Nodes[i]); err != nil {
				t.Error(err)
			}
			frrConfig(&topo.Nodes[i]).BGPD()
		}
	})
}
