package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// vxlanEdge is an MSEE whose one connection is on a VXLAN network.
const vxlanEdge = `device: {name: msee1, role: primary}
ports: [{name: cust, device: eth1}, {name: core, device: eth2}]
underlay: {port: core, addressPrefixes: [172.16.0.1/24, "fd01::1/64"]}
circuits:
  - name: er1
    port: cust
    peerings:
      - {peeringType: AzurePrivatePeering, peerASN: 65001, vlanId: 100, primaryPeerAddressPrefix: 192.168.15.16/30, secondaryPeerAddressPrefix: 192.168.15.20/30}
connections:
  - name: vnet1
    circuit: er1
    virtualNetworkGateway: gw
    vxlan: {vni: 5001, remoteVteps: [172.16.0.12, 172.16.0.2]}
    gatewaySubnet: 10.100.255.0/27
`

// TestVXLAN: the connection's subinterface is on the network, and a VRF of its
// own has the underlay.
func TestVXLAN(t *testing.T) {
	d, err := Parse("f", []byte(vxlanEdge))
	if err != nil {
		t.Fatal(err)
	}
	over := d.VRFs[0].Subinterfaces[0]
	want := Subinterface{Name: "core.v5001", Port: "core", MTU: 1500, Side: SideCore,
		VXLAN: &VXLAN{VNI: 5001, Underlay: "core",
			Local:  []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd01::1")},
			Remote: []netip.Addr{netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.0.12")}},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.100.255.4/27")}}
	if !reflect.DeepEqual(over, want) {
		t.Errorf("overlay %+v, want %+v", over, want)
	}
	i := slices.IndexFunc(d.VRFs, func(v VRF) bool { return v.Name == UnderlayVRF })
	if i < 0 || !reflect.DeepEqual(d.VRFs[i].Subinterfaces, []Subinterface{{Name: "core", Port: "core", MTU: 1600, Side: SideUnderlay,
		Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.0.1/24"), netip.MustParsePrefix("fd01::1/64")}}}) {
		t.Errorf("underlay %+v", d.VRFs)
	}
	for edit, mtu := range map[string]int{
		"addressPrefixes: [172.16.0.1/24, \"fd01::1/64\"], mtu: 1549|172.16.0.12": 1499,
		"addressPrefixes: [172.16.0.1/24, \"fd01::1/64\"], mtu: 1569|\"fd01::2\"": 1499,
		"addressPrefixes: [172.16.0.1/24, \"fd01::1/64\"], mtu: 1570|\"fd01::2\"": 1500,
	} {
		underlay, remote, _ := strings.Cut(edit, "|")
		text := strings.Replace(vxlanEdge, "addressPrefixes: [172.16.0.1/24, \"fd01::1/64\"]", underlay, 1)
		d, err := Parse("f", []byte(strings.Replace(text, "172.16.0.12, 172.16.0.2", remote, 1)))
		if err != nil {
			t.Error(err)
		} else if got := d.VRFs[0].Subinterfaces[0].MTU; got != mtu {
			t.Errorf("%s: MTU %d, want %d", edit, got, mtu)
		}
	}
	moved, err := Parse("f", []byte(strings.Replace(vxlanEdge, "172.16.0.12, ", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c := Diff(d, moved); len(c) != 1 || !strings.Contains(c[0].String(), "RemoteVTEPs") {
		t.Errorf("a VTEP less: %v", c)
	}
}

func TestVXLANRefused(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"no underlay", "underlay: {port: core, addressPrefixes: [172.16.0.1/24, \"fd01::1/64\"]}\n", "", "there is no underlay"},
		{"VNI 0", "vni: 5001", "vni: 0", "1 to 16777215"},
		{"VNI too high", "vni: 5001", "vni: 16777216", "1 to 16777215"},
		{"nobody else", "[172.16.0.12, 172.16.0.2]", "[]", "nobody tells of the other ends"},
		{"elsewhere", "172.16.0.12", "172.16.1.12", "not on the underlay"},
		{"ourselves", "172.16.0.12", "172.16.0.1", "our own end"},
		{"VLAN as well", "    vxlan:", "    vlanId: 5\n    vxlan:", "no vlanId, or no vxlan"},
		{"two addresses", "\"fd01::1/64\"", "172.17.0.1/24", "a second address of its family"},
		{"no subnet", "172.16.0.1/24", "172.16.0.1/32", "a subnet without others"},
		{"no length", "172.16.0.1/24", "172.16.0.1", "not an address with a prefix length"},
		{"small", "port: core, addr", "port: core, mtu: 1349, addr", "1350 to 9216"},
		{"no such port", "underlay: {port: core", "underlay: {port: cor", "no such port"},
		{"the peering's tag", "underlay: {port: core", "underlay: {port: cust, vlanId: 100", "used twice"},
	} {
		text := strings.Replace(vxlanEdge, c.old, c.new, 1)
		if _, err := Parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestUnderlayRoutes: other ends may be beyond routers of the underlay.
func TestUnderlayRoutes(t *testing.T) {
	const from = `"fd01::1/64"]}`
	const to = `"fd01::1/64"], routes: [{addressPrefix: 172.16.0.0/12, nextHopIpAddress: 172.16.0.2}, {addressPrefix: 172.17.0.0/16, nextHopIpAddress: 172.16.0.3}]}`
	text := strings.Replace(vxlanEdge, from, to, 1)
	text = strings.Replace(text, "remoteVteps: [172.16.0.12,", "remoteVteps: [172.17.0.12,", 1)
	d, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(d.VRFs[0].Subinterfaces[0].VXLAN.Routes); got != "[172.17.0.0/16 via 172.16.0.3 172.16.0.0/12 via 172.16.0.2]" {
		t.Errorf("routes %s, want the longest first", got)
	}
	multihop, err := Parse("f", []byte(strings.Replace(text, "routes:", "evpn: {neighbors: [{address: 172.17.0.12, peerASN: 65020}, {address: 172.16.0.20, peerASN: 65020}]}, routes:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range multihop.VRFs[slices.IndexFunc(multihop.VRFs, func(v VRF) bool { return v.Name == UnderlayVRF })].Sessions {
		if beyond := s.Peer.String() == "172.17.0.12"; s.Multihop != beyond || (s.BFD.Interval == 0) != beyond || s.Local.String() != "172.16.0.1" {
			t.Errorf("%+v", s)
		}
	}
	other, err := Parse("f", []byte(strings.Replace(text, "172.16.0.3}", "172.16.0.2}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c := Diff(d, other); len(c) != 2 || !strings.Contains(fmt.Sprint(c), "UnderlayRoutes") || !strings.Contains(fmt.Sprint(c), " Routes") {
		t.Errorf("another next hop: %v", c)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"a neighbour elsewhere", "routes:", "evpn: {neighbors: [{address: 172.48.0.12, peerASN: 65020}]}, routes:", "not on the underlay"},
		{"BFD with one beyond", "routes:", "evpn: {neighbors: [{address: 172.17.0.12, peerASN: 65020, bfd: {multiplier: 5}}]}, routes:", "BFD goes no further than a link"},
		{"no router", "nextHopIpAddress: 172.16.0.3", "nextHopIpAddress: 172.18.0.3", "not on the underlay"},
		{"ourselves", "nextHopIpAddress: 172.16.0.3", "nextHopIpAddress: 172.16.0.1", "our own end"},
		{"another family", "nextHopIpAddress: 172.16.0.3", "nextHopIpAddress: fd01::3", "another family"},
		{"host bits", "172.17.0.0/16", "172.17.0.1/16", "host bits"},
		{"a subnet", "172.17.0.0/16", "172.16.0.128/25", "in a subnet of the underlay"},
		{"groups", "172.17.0.0/16", "224.0.0.0/4", "not a unicast prefix"},
		{"twice", "172.17.0.0/16", "172.16.0.0/12", "route"},
		{"elsewhere", "172.17.0.12", "172.48.0.12", "not on the underlay"},
	} {
		if _, err := Parse("f", []byte(strings.Replace(text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestRouteTargets: a network's EVPN routes may have targets of one's own choice.
func TestRouteTargets(t *testing.T) {
	text := strings.Replace(vxlanEdge, "vxlan: {vni: 5001,", `vxlan: {vni: 5001, routeTargets: {import: ["65000:2", "65000:1"], export: ["172.16.0.1:9"]},`, 1)
	d, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if x := d.VRFs[0].Subinterfaces[0].VXLAN; fmt.Sprint(x.Import, x.Export) != "[65000:1 65000:2] [172.16.0.1:9]" {
		t.Errorf("import %v, export %v", x.Import, x.Export)
	}
	derived, err := Parse("f", []byte(vxlanEdge))
	if err != nil {
		t.Fatal(err)
	}
	if x := derived.VRFs[0].Subinterfaces[0].VXLAN; x.Import != nil || x.Export != nil {
		t.Errorf("without: import %v, export %v", x.Import, x.Export)
	}
	if c := Diff(derived, d); len(c) != 1 || !strings.Contains(c[0].String(), "ImportTargets") || !strings.Contains(c[0].String(), "ExportTargets") {
		t.Errorf("changes: %v", c)
	}
	if _, err := Parse("f", []byte(strings.Replace(text, "172.16.0.1:9", "172.16.0.1:65536", 1))); err == nil || !strings.Contains(err.Error(), "routeTargets.export[0]: not a route target") {
		t.Errorf("too large: %v", err)
	}
}

// TestEVPN: sessions in the VRF of the underlay, with remoteVteps or without.
func TestEVPN(t *testing.T) {
	const from = `"fd01::1/64"]}`
	const to = `"fd01::1/64"], evpn: {neighbors: [{address: 172.16.0.20, peerASN: 65020, bfd: {multiplier: 5, strictMode: Enabled}}, {address: "fd01::20", peerASN: 65020}]}}
bfd: {intervalMilliseconds: 100}`
	text := strings.Replace(vxlanEdge, from, to, 1)
	d, err := Parse("f", []byte(strings.Replace(text, ", remoteVteps: [172.16.0.12, 172.16.0.2]", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(d.VRFs, func(v VRF) bool { return v.Name == UnderlayVRF })
	var got []string
	for _, s := range d.VRFs[i].Sessions {
		if s.BFD.Multiplier != map[string]int{"172.16.0.20": 5, "fd01::20": 3}[s.Peer.String()] || s.BFD.Interval != 100*time.Millisecond || s.BFD.Strict != (s.BFD.Multiplier == 5) {
			t.Errorf("%s: BFD %v, want its own over the device's", s.Name, s.BFD)
		}
		if !s.EVPN || !s.Enabled || !s.GracefulRestart || s.PeerAS != 65020 || s.Side != SideUnderlay || s.Subinterface != "core" || s.Hold == 0 {
			t.Errorf("%+v", s)
		}
		got = append(got, s.Name+" from "+s.Local.String())
	}
	if want := []string{"underlay/172.16.0.20 from 172.16.0.1", "underlay/fd01::20 from fd01::1"}; !slices.Equal(got, want) {
		t.Errorf("sessions %q, want %q", got, want)
	}
	if x := d.VRFs[0].Subinterfaces[0]; len(x.VXLAN.Remote) > 0 || x.MTU != 1500 {
		t.Errorf("overlay %+v", x)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"our own AS", "172.16.0.20, peerASN: 65020", "172.16.0.20, peerASN: 12076", "our own AS"},
		{"AS 0", "172.16.0.20, peerASN: 65020", "172.16.0.20, peerASN: 0", "an AS number"},
		{"elsewhere", "172.16.0.20, ", "172.17.0.20, ", "not on the underlay"},
		{"ourselves", "172.16.0.20, ", "172.16.0.1, ", "our own end"},
		{"twice", `"fd01::20"`, "172.16.0.20", "neighbor"},
		{"a multiplier", "multiplier: 5", "multiplier: 256", "evpn.neighbors[0].bfd.multiplier"},
	} {
		if _, err := Parse("f", []byte(strings.Replace(text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Parse("f", []byte(strings.Replace(vxlanEdge, ", remoteVteps: [172.16.0.12, 172.16.0.2]", "", 1))); err == nil || !strings.Contains(err.Error(), "nobody tells of the other ends") {
		t.Errorf("without both: %v", err)
	}
}

// TestPrefixRoutes: what stands for a session per neighbour and family, beside the sessions
// inside the VNet or in their place, at both ends.
func TestPrefixRoutes(t *testing.T) {
	const evpn = ", evpn: {neighbors: [{address: 172.16.0.12, peerASN: 65515}, {address: 172.16.0.20, peerASN: 65020}]}}"
	text := strings.Replace(vxlanEdge, `"fd01::1/64"]}`, `"fd01::1/64"]`+evpn, 1)
	text = strings.Replace(text, "remoteVteps: [172.16.0.12, 172.16.0.2]", "prefixRoutes: {neighbors: [172.16.0.12], tellOnly: [172.16.0.20]}", 1)
	text += `    gatewaySubnetIpv6: "fd00:100:0:ff::/64"` + "\n"
	beside, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	words := func(d *Device) (all []string) {
		for _, s := range d.VRFs[0].Sessions {
			if s.Side == SideCore {
				w := s.Name
				if s.Carrier != "" {
					w += " by " + s.Carrier
				}
				if s.TellOnly {
					w += ", told only"
				}
				all = append(all, w)
			}
			if s.Carrier != "" && (s.BFD.Interval != 0 || s.MaxPrefixes == 0 || s.Connection != "vnet1" || s.Subinterface != "core.v5001" || s.PeerAS == 0) {
				t.Errorf("%+v", s)
			}
		}
		return all
	}
	inside := []string{"er1-private/10.100.255.12", "er1-private/10.100.255.13"}
	inside6 := []string{"er1-private/fd00:100:0:ff::c", "er1-private/fd00:100:0:ff::d"}
	told := []string{"er1-private/v5001/172.16.0.12 by underlay/172.16.0.12", "er1-private/v5001/172.16.0.12/ipv6 by underlay/172.16.0.12",
		"er1-private/v5001/172.16.0.20 by underlay/172.16.0.20, told only", "er1-private/v5001/172.16.0.20/ipv6 by underlay/172.16.0.20, told only"}
	if got, want := words(beside), slices.Concat(inside, told, inside6); !slices.Equal(got, want) {
		t.Errorf("beside: %q, want %q", got, want)
	}
	alone, err := Parse("f", []byte(strings.Replace(text, "tellOnly:", "sessions: Disabled, tellOnly:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := words(alone); !slices.Equal(got, told) {
		t.Errorf("alone: %q, want %q", got, told)
	}
	if c := Diff(beside, alone); len(c) != 4 {
		t.Errorf("from one to the other: %v", c)
	}
	heard, err := Parse("f", []byte(strings.Replace(text, "neighbors: [172.16.0.12], tellOnly: [172.16.0.20]", "neighbors: [172.16.0.12, 172.16.0.20]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c := Diff(beside, heard); len(c) != 2 || !strings.Contains(c[0].String(), "TellOnly true → false") {
		t.Errorf("heard as well: %v", c)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"a stranger", "{neighbors: [172.16.0.12]", "{neighbors: [172.16.0.13]", "no EVPN neighbour"},
		{"a stranger told", "tellOnly: [172.16.0.20]", "tellOnly: [172.16.0.21]", "no EVPN neighbour"},
		{"both", "tellOnly: [172.16.0.20]", "tellOnly: [172.16.0.12]", "among the neighbors as well"},
		{"nobody", "{neighbors: [172.16.0.12], ", "{sessions: Disabled, ", "nobody tells of the other end's prefixes"},
		{"a word", "{neighbors: [172.16.0.12], ", "{neighbors: [172.16.0.12], sessions: None, ", "not a value of sessions"},
	} {
		if _, err := Parse("f", []byte(strings.Replace(text, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
