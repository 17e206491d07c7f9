package lab

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"msee/circuit"
	"msee/lab/internal/strict"
	"msee/lab/vlanshim"
)

var (
	// nameRE keeps out dots, which part lab, node and VRF in a namespace's
	// name, and slashes.
	nameRE   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	ifnameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)
	// passwordRE is what an MSEE takes, and nothing that could end FRR's line.
	passwordRE = regexp.MustCompile(`^[a-zA-Z0-9]{1,80}$`)
	sysctlRE   = regexp.MustCompile(`^net(\.[a-zA-Z0-9_-]+)+$`)
)

// CheckName refuses names of labs that could not be parts of others' names.
func CheckName(lab string) error {
	if !nameRE.MatchString(lab) {
		return fmt.Errorf("lab name %q: want lower-case letters, digits and '-', at most 31", lab)
	}
	return nil
}

// validator collects what is wrong between the parts of a topology.
type validator struct {
	t      *Topology
	faults []error
	linked map[Endpoint]*Link
}

func (v *validator) fault(at strict.Pos, format string, args ...any) {
	if at.Line == 0 {
		at = strict.Pos{Line: 1, Col: 1}
	}
	v.faults = append(v.faults, &strict.Fault{File: v.t.file, Pos: at, Message: fmt.Sprintf(format, args...)})
}

func (v *validator) topology() {
	if err := CheckName(v.t.Name); err != nil {
		v.fault(strict.Pos{}, "name: %v", err)
	}
	for kind, config := range v.t.Shared {
		if kind != string(KindMSEE) && kind != string(KindGateway) {
			v.fault(place(config), "shared.%s: only msee and gateway nodes have a configuration", kind)
		} else if config.Kind != yaml.MappingNode {
			v.fault(place(config), "shared.%s: want a mapping", kind)
		}
	}
	if len(v.t.Nodes) == 0 {
		v.fault(strict.Pos{}, "nodes: there are none")
	}
	seen := map[string]bool{}
	for i := range v.t.Nodes {
		n := &v.t.Nodes[i]
		if seen[n.Name] {
			v.fault(n.Pos, "node %s: given twice", n.Name)
		}
		seen[n.Name] = true
	}
	v.links()
	for i := range v.t.Nodes {
		v.node(&v.t.Nodes[i])
	}
	for i := range v.t.Checks {
		v.check(&v.t.Checks[i])
	}
	if v.t.Compare != nil {
		v.compare(v.t.Compare)
	}
}

func (v *validator) compare(c *Comparison) {
	for _, name := range []string{c.From, c.At} {
		if v.t.node(name) == nil {
			v.fault(c.Pos, "compare: no node is called %q", name)
		}
	}
	if !c.To.IsValid() {
		v.fault(c.Pos, "compare: to is missing")
	}
	if len(c.Ways) == 0 {
		v.fault(c.Pos, "compare: ways are missing")
	}
	for _, w := range c.Ways {
		if w.SKU == "" {
			v.fault(w.Pos, "compare: a way's sku is missing")
		}
	}
}

func place(n *yaml.Node) strict.Pos { return strict.Pos{Line: n.Line, Col: n.Column} }

func (v *validator) links() {
	v.linked = map[Endpoint]*Link{}
	for i := range v.t.Links {
		l := &v.t.Links[i]
		if len(l.Ends) != 2 {
			v.fault(l.Pos, "link: want two ends, got %d", len(l.Ends))
		}
		v.mtu(l.Pos, "link", l.MTU)
		for _, e := range l.Ends {
			v.ifname(l.Pos, e.Interface, unix.IFNAMSIZ-1)
			if v.t.node(e.Node) == nil {
				v.fault(l.Pos, "link end %s: no node is called %q", e, e.Node)
			}
			if v.linked[e] != nil {
				v.fault(l.Pos, "link end %s: already linked", e)
			}
			v.linked[e] = l
		}
	}
}

func (v *validator) mtu(at strict.Pos, what string, mtu int) {
	if mtu != 0 && (mtu < 1280 || mtu > 65535) {
		v.fault(at, "%s: MTU %d: want 1280 (IPv6's least) to 65535", what, mtu)
	}
}

func (v *validator) ifname(at strict.Pos, name string, longest int) {
	if len(name) > longest || !ifnameRE.MatchString(name) {
		v.fault(at, "interface %q: want letters, digits, '.', '_' and '-', at most %d", name, longest)
	}
}

func (v *validator) node(n *Node) {
	if !nameRE.MatchString(n.Name) {
		v.fault(n.Pos, "node %q: want lower-case letters, digits and '-', at most 31", n.Name)
	}
	if !slices.Contains(kinds, n.Kind) {
		v.fault(n.Pos, "node %s: kind %q: want one of %s", n.Name, n.Kind, list(kinds))
		return
	}
	hasDaemonConfig := n.Kind == KindMSEE || n.Kind == KindGateway
	switch {
	case hasDaemonConfig && n.Config == nil:
		v.fault(n.Pos, "node %s: config is missing", n.Name)
	case hasDaemonConfig && n.Config.Kind != yaml.MappingNode:
		v.fault(place(n.Config), "node %s: config: want a mapping", n.Name)
	case !hasDaemonConfig && n.Config != nil:
		v.fault(place(n.Config), "node %s: a %s has no config", n.Name, n.Kind)
	}
	if n.Kind != KindFRR && (n.BGP != nil || n.FRRConfig != "") {
		v.fault(n.Pos, "node %s: bgp and frrConfig are for kind frr only", n.Name)
	}
	if n.Kind != KindFRR && n.Kind != KindHost && (len(n.Interfaces) > 0 || len(n.Routes) > 0) {
		v.fault(n.Pos, "node %s: interfaces and routes are for kinds host and frr; a %s gets its own", n.Name, n.Kind)
		return
	}
	for key := range n.Sysctls {
		if !sysctlRE.MatchString(key) {
			v.fault(n.Pos, "node %s: sysctl %q: want one of the namespace's own, net.…", n.Name, key)
		}
	}
	v.interfaces(n)
	v.routes(n)
	if n.BGP != nil {
		v.bgp(n)
	}
}

func (v *validator) interfaces(n *Node) {
	names, vlans, addrs := map[string]bool{}, map[VLAN]bool{}, map[netip.Addr]bool{}
	for i := range n.Interfaces {
		f := &n.Interfaces[i]
		if names[f.Name] {
			v.fault(f.Pos, "node %s: interface %s: given twice", n.Name, f.Name)
		}
		names[f.Name] = true
		v.mtu(f.Pos, f.Name, f.MTU)
		link := v.linked[Endpoint{n.Name, f.Name}]
		switch {
		case f.VLAN != nil && f.VXLAN != nil:
			v.fault(f.Pos, "node %s: interface %s: a vlan or a vxlan, not both", n.Name, f.Name)
		case f.VLAN != nil:
			v.vlan(n, f, vlans)
		case f.VXLAN != nil:
			v.vxlan(n, f)
		case link == nil:
			v.fault(f.Pos, "node %s: interface %s is neither the end of a link nor a vlan or vxlan", n.Name, f.Name)
		case f.MTU > link.mtu():
			v.fault(f.Pos, "node %s: interface %s: MTU %d is more than its link's, %d", n.Name, f.Name, f.MTU, link.mtu())
		}
		for _, a := range f.Addresses {
			if addrs[a.Addr()] && !(f.VXLAN != nil && a.IsSingleIP()) { // that is one to be told of
				v.fault(f.Pos, "node %s: address %s: given twice", n.Name, a.Addr())
			}
			addrs[a.Addr()] = true
			if gateway := v.gatewayWith(n, f, a.Addr()); gateway != "" {
				v.fault(f.Pos, "node %s: address %s: the VNet's gateway has it, %s or its other instance", n.Name, a.Addr(), gateway)
			}
		}
	}
}

// gatewayWith names the gateway, on the same link or switch as the interface, one of
// whose two instances has an address in a subnet of its VNet; "" if none has.
func (v *validator) gatewayWith(n *Node, f *Interface, addr netip.Addr) string {
	name := f.Name
	if f.VLAN != nil {
		name = f.VLAN.Parent
	}
	link := v.linked[Endpoint{n.Name, name}]
	if link == nil {
		return ""
	}
	near := map[string]bool{} // nodes
	for _, e := range link.Ends {
		near[e.Node] = true
	}
	for _, e := range link.Ends {
		if node := v.t.node(e.Node); node == nil || node.Kind != KindSwitch {
			continue
		}
		for other, l := range v.linked {
			if other.Node == e.Node {
				for _, end := range l.Ends {
					near[end.Node] = true
				}
			}
		}
	}
	for i := range v.t.Nodes {
		g := &v.t.Nodes[i]
		if g.Kind != KindGateway || g.Config == nil || !near[g.Name] {
			continue
		}
		for _, s := range v.t.deviceConfig(g).Network.Subnets {
			for _, p := range s.Prefixes {
				if p.IsValid() && (addr == circuit.SubnetGatewayAddress(p, 0) || addr == circuit.SubnetGatewayAddress(p, 1)) {
					return g.Name
				}
			}
		}
	}
	return ""
}

func (v *validator) vlan(n *Node, f *Interface, seen map[VLAN]bool) {
	at, tags := f.VLAN.Pos, *f.VLAN
	v.ifname(f.Pos, f.Name, vlanshim.MaxNameLen)
	parent := v.linked[Endpoint{n.Name, tags.Parent}]
	if parent == nil {
		v.fault(at, "node %s: vlan %s: parent %q is not the end of a link", n.Name, f.Name, tags.Parent)
	} else if need := f.vlanMTU() + 4*len(f.VLAN.tags()); parent.mtu() < need {
		v.fault(at, "node %s: vlan %s: its tags and MTU %d need %d on link %s, which has %d",
			n.Name, f.Name, f.vlanMTU(), need, tags.Parent, parent.mtu())
	}
	if v.linked[Endpoint{n.Name, f.Name}] != nil {
		v.fault(f.Pos, "node %s: vlan %s: a link has that name", n.Name, f.Name)
	}
	if tags.CTag < 1 || tags.CTag > 4094 || tags.STag > 4094 {
		v.fault(at, "node %s: vlan %s: want a ctag of 1 to 4094, and a stag of 1 to 4094 on QinQ", n.Name, f.Name)
	}
	if e := tags.EtherType; e != 0 && e != vlanshim.TPIDCustomer && e != vlanshim.TPIDService {
		v.fault(at, "node %s: vlan %s: etherType %#x: want 0x8100 or 0x88a8", n.Name, f.Name, e)
	}
	tags.Pos, tags.EtherType = strict.Pos{}, 0
	if seen[tags] {
		v.fault(at, "node %s: vlan %s: %s is taken on %s", n.Name, f.Name, f.VLAN, tags.Parent)
	}
	seen[tags] = true
}

func (v *validator) vxlan(n *Node, f *Interface) {
	x := f.VXLAN
	v.ifname(f.Pos, f.Name, unix.IFNAMSIZ-1)
	if v.linked[Endpoint{n.Name, f.Name}] != nil {
		v.fault(f.Pos, "node %s: vxlan %s: a link has that name", n.Name, f.Name)
	}
	if x.VNI < 1 || x.VNI > 1<<24-1 {
		v.fault(x.Pos, "node %s: vxlan %s: want a vni of 1 to %d", n.Name, f.Name, 1<<24-1)
	}
	if !slices.ContainsFunc(n.Interfaces, func(i Interface) bool {
		return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == x.Local })
	}) {
		v.fault(x.Pos, "node %s: vxlan %s: local %s is no address of the node", n.Name, f.Name, x.Local)
	}
	if len(x.Remotes) == 0 && (n.BGP == nil || !slices.ContainsFunc(n.BGP.Neighbors, func(p Neighbor) bool { return p.EVPN })) {
		v.fault(x.Pos, "node %s: vxlan %s: remotes are missing, or a neighbor with evpn that tells of them", n.Name, f.Name)
	}
	for _, a := range x.Remotes {
		if !a.IsValid() || a.Is4() != x.Local.Is4() {
			v.fault(x.Pos, "node %s: vxlan %s: remote %s: want an address of the family of local", n.Name, f.Name, a)
		}
	}
}

// tags returns them outermost first.
func (v *VLAN) tags() []vlanshim.Tag {
	outer := v.EtherType
	if outer == 0 {
		outer = vlanshim.TPIDCustomer
	}
	if v.STag == 0 {
		return []vlanshim.Tag{{TPID: outer, VID: v.CTag}}
	}
	return []vlanshim.Tag{{TPID: outer, VID: v.STag}, {TPID: vlanshim.TPIDCustomer, VID: v.CTag}}
}

func (v *validator) routes(n *Node) {
	for i := range n.Routes {
		r := &n.Routes[i]
		if !r.To.IsValid() || r.To != r.To.Masked() {
			v.fault(r.Pos, "node %s: route to %s: want a prefix without host bits", n.Name, r.To)
		}
		if len(r.Via) == 0 {
			v.fault(r.Pos, "node %s: route to %s: via is missing", n.Name, r.To)
		}
		if r.Src.IsValid() && (!n.has(r.Src) || r.Src.Is4() != r.To.Addr().Is4()) {
			v.fault(r.Pos, "node %s: route to %s: src %s is no address of the node and its family", n.Name, r.To, r.Src)
		}
		for _, via := range r.Via {
			if !n.onLink(via) || via.Is4() != r.To.Addr().Is4() {
				v.fault(r.Pos, "node %s: route to %s via %s: no interface has a subnet with it", n.Name, r.To, via)
			}
		}
	}
}

// has reports whether addr is one of an interface's.
func (n *Node) has(addr netip.Addr) bool {
	return slices.ContainsFunc(n.Interfaces, func(f Interface) bool {
		return slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })
	})
}

// onLink reports whether addr is in the subnet of one of the interfaces.
func (n *Node) onLink(addr netip.Addr) bool {
	return slices.ContainsFunc(n.Interfaces, func(f Interface) bool {
		return slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Contains(addr) })
	})
}

// routed reports whether one of the node's routes leads to addr.
func (n *Node) routed(addr netip.Addr) bool {
	return slices.ContainsFunc(n.Routes, func(r Route) bool { return r.To.Contains(addr) })
}

func (v *validator) bgp(n *Node) {
	b := n.BGP
	if b.ASN == 0 {
		v.fault(b.Pos, "node %s: bgp: asn is missing", n.Name)
	}
	if !b.RouterID.Is4() {
		v.fault(b.Pos, "node %s: bgp: routerId: want an IPv4 address", n.Name)
	}
	if (b.KeepaliveSeconds == 0) != (b.HoldSeconds == 0) || b.KeepaliveSeconds < 0 || b.HoldSeconds < 0 ||
		b.HoldSeconds > 65535 || b.KeepaliveSeconds > b.HoldSeconds {
		v.fault(b.Pos, "node %s: bgp: want keepaliveSeconds and holdSeconds, or neither, hold the greater", n.Name)
	}
	if b.MaximumPaths < 0 || b.MaximumPaths > 64 {
		v.fault(b.Pos, "node %s: bgp: maximumPaths %d: want 1 to 64", n.Name, b.MaximumPaths)
	}
	if f := b.BFD; f != nil && (f.IntervalMilliseconds != 0 && (f.IntervalMilliseconds < 10 || f.IntervalMilliseconds > 60000) ||
		f.Multiplier != 0 && (f.Multiplier < 2 || f.Multiplier > 255)) {
		v.fault(f.Pos, "node %s: bgp: bfd: want intervalMilliseconds 10 to 60000 and multiplier 2 to 255, or 0 for FRR's own", n.Name)
	}
	for i := range b.Neighbors {
		p := &b.Neighbors[i]
		if p.RemoteAS == 0 || !p.Address.IsValid() || !n.onLink(p.Address) && !(p.EVPN && n.routed(p.Address)) {
			v.fault(p.Pos, "node %s: neighbor %s: want an address in the subnet of an interface, and a remoteAS", n.Name, p.Address)
		}
		if p.Password != "" && !passwordRE.MatchString(p.Password) {
			v.fault(p.Pos, "node %s: neighbor %s: password: want letters and digits", n.Name, p.Address)
		}
	}
	for _, p := range append(slices.Clone(b.Networks), expectedPrefixes(b)...) {
		if !p.IsValid() || p != p.Masked() {
			v.fault(b.Pos, "node %s: bgp: %s: want a prefix without host bits", n.Name, p)
		}
	}
}

func expectedPrefixes(b *BGP) (out []netip.Prefix) {
	for _, e := range b.Expect {
		out = append(out, e.Prefix)
	}
	return out
}

func (v *validator) check(c *Probe) {
	if !slices.Contains(checkTypes, c.Type) {
		v.fault(c.Pos, "check: type %q: want one of %s", c.Type, list(checkTypes))
		return
	}
	if !c.To.IsValid() {
		v.fault(c.Pos, "check %s: to is missing", c.Type)
	}
	nodes := append([]string{c.From}, c.Not...)
	needsAt := c.Type == CheckIperf3 || c.Type == CheckIsolation
	if needsAt {
		nodes = append(nodes, c.At)
	} else if c.At != "" {
		v.fault(c.Pos, "check %s: at is for iperf3 and isolation", c.Type)
	}
	for _, name := range nodes {
		if v.t.node(name) == nil {
			v.fault(c.Pos, "check %s: no node is called %q", c.Type, name)
		}
	}
	if (len(c.Via) > 0) != (c.Type == CheckTraceroute) {
		v.fault(c.Pos, "check %s: via is for traceroute, which needs it", c.Type)
	}
	if (len(c.Not) > 0) != (c.Type == CheckIsolation) {
		v.fault(c.Pos, "check %s: never is for isolation, which needs it", c.Type)
	}
	if c.Seconds < 0 || c.Seconds > 60 {
		v.fault(c.Pos, "check %s: seconds %d: want 1 to 60", c.Type, c.Seconds)
	}
}

func list[T ~string](values []T) string {
	names := make([]string, len(values))
	for i, s := range values {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}
