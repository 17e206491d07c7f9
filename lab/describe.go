package lab

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// nodeCard is what a diagram tells of a node.
type nodeCard struct {
	title string
	lines []string
}

func describe(t *Topology, n *Node) nodeCard {
	card := nodeCard{title: n.Name}
	switch n.Kind {
	case KindHost:
		card.title += " · host"
	case KindSwitch:
		card.title += " · switch"
	case KindFRR:
		card.title += " · FRR"
		if n.BGP != nil {
			card.title += fmt.Sprintf(" · AS %d", n.BGP.ASN)
		}
	case KindMSEE, KindGateway:
		return describeDevice(t, n)
	}
	for i := range n.Interfaces {
		card.lines = append(card.lines, describeInterface(&n.Interfaces[i])...)
	}
	if n.BGP != nil && len(n.BGP.Networks) > 0 {
		card.lines = append(card.lines, "announces")
		for _, p := range n.BGP.Networks {
			card.lines = append(card.lines, "  "+p.String())
		}
	}
	return card
}

func describeInterface(f *Interface) (lines []string) {
	name := f.Name
	if f.VLAN != nil {
		lines = append(lines, fmt.Sprintf("%s (%s)", f.Name, f.VLAN))
		name = " "
	}
	if f.VXLAN != nil {
		lines = append(lines, fmt.Sprintf("%s (VNI %d)", f.Name, f.VXLAN.VNI))
		name = " "
	}
	for _, a := range f.Addresses {
		lines = append(lines, name+" "+a.String())
		name = strings.Repeat(" ", len(name))
	}
	return lines
}

// deviceConfig is the part of a daemon's configuration that a diagram shows.
// Its faults are the daemon's to tell.
type deviceConfig struct {
	Device  struct{ Role string }
	Gateway struct {
		Name     string
		Instance int
	} `yaml:"virtualNetworkGateway"`
	Network struct {
		Name         string
		AddressSpace struct {
			Prefixes []string `yaml:"addressPrefixes"`
		} `yaml:"addressSpace"`
		Subnets []struct {
			Prefixes []netip.Prefix `yaml:"addressPrefixes"`
		}
	} `yaml:"virtualNetwork"`
	Circuits []struct {
		Name     string
		STag     int `yaml:"stag"`
		Peerings []struct {
			Type     string `yaml:"peeringType"`
			VLAN     int    `yaml:"vlanId"`
			prefixes `yaml:",inline"`
			IPv6     prefixes `yaml:"ipv6PeeringConfig"`
		}
	}
	Connections []struct {
		Name   string
		VLAN   int `yaml:"vlanId"`
		VXLAN  struct{ VNI int }
		Subnet netip.Prefix `yaml:"gatewaySubnet"`
	}
}

type prefixes struct {
	Primary   netip.Prefix `yaml:"primaryPeerAddressPrefix"`
	Secondary netip.Prefix `yaml:"secondaryPeerAddressPrefix"`
}

func (p prefixes) of(role string) netip.Prefix {
	if role == "secondary" {
		return p.Secondary
	}
	return p.Primary
}

// deviceConfig reads the configuration of an msee or gateway node; what cannot
// be read is left out.
func (t *Topology) deviceConfig(n *Node) (c deviceConfig) {
	if text, err := t.DaemonConfig(n); err == nil {
		_ = yaml.Unmarshal(text, &c)
	}
	return c
}

// isRouter reports whether a node's daemon has BGP sessions: one with
// cross-connected ports alone has none.
func (t *Topology) isRouter(n *Node) bool {
	c := t.deviceConfig(n)
	return len(c.Circuits) > 0 || len(c.Connections) > 0
}

func describeDevice(t *Topology, n *Node) nodeCard {
	c := t.deviceConfig(n)
	var card nodeCard
	inSubnet := 4 + map[string]int{"secondary": 1}[c.Device.Role]
	if n.Kind == KindGateway {
		card.title = fmt.Sprintf("%s · %s instance %d", n.Name, c.Gateway.Name, c.Gateway.Instance)
		inSubnet = 12 + c.Gateway.Instance
	} else if !t.isRouter(n) {
		card.title = n.Name + " · cross-connect"
	} else {
		card.title = n.Name + " · MSEE " + c.Device.Role
	}
	add := func(format string, args ...any) { card.lines = append(card.lines, fmt.Sprintf(format, args...)) }
	for _, circuit := range c.Circuits {
		for _, p := range circuit.Peerings {
			tags := VLAN{STag: uint16(circuit.STag), CTag: uint16(p.VLAN)}
			add("%s (%s)", circuit.Name, &tags)
			for _, prefix := range []netip.Prefix{p.of(c.Device.Role), p.IPv6.of(c.Device.Role)} {
				if prefix.IsValid() {
					add("  %s/%d", nth(prefix, 2), prefix.Bits())
				}
			}
		}
	}
	for _, x := range c.Connections {
		on := fmt.Sprintf("VLAN %d", x.VLAN)
		if x.VXLAN.VNI != 0 {
			on = fmt.Sprintf("VNI %d", x.VXLAN.VNI)
		}
		add("%s (%s) %s", x.Name, on, nth(x.Subnet, inSubnet))
	}
	for _, s := range c.Network.Subnets {
		for _, p := range s.Prefixes {
			add("%s %s", c.Network.Name, nth(p, 4+c.Gateway.Instance))
		}
	}
	if prefixes := c.Network.AddressSpace.Prefixes; len(prefixes) > 0 {
		add("announces")
		for _, p := range prefixes {
			add("  %s", p)
		}
	}
	return card
}

// nth returns the address n above the prefix's first one.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Masked().Addr()
	for range min(n, 256) {
		addr = addr.Next()
	}
	return addr
}

// Mermaid writes the topology as a Mermaid flow chart.
func Mermaid(w io.Writer, t *Topology) error {
	var b strings.Builder
	b.WriteString("flowchart TB\n")
	id := func(name string) string { return strings.ReplaceAll(name, "-", "_") }
	for i := range t.Nodes {
		card := describe(t, &t.Nodes[i])
		text := "<b>" + card.title + "</b>"
		for _, line := range card.lines {
			text += "<br/>" + strings.TrimSpace(line)
		}
		fmt.Fprintf(&b, "  %s[\"%s\"]\n", id(t.Nodes[i].Name), strings.ReplaceAll(text, `"`, "#quot;"))
	}
	for _, l := range t.Links {
		fmt.Fprintf(&b, "  %s ---|\"%s ─ %s\"| %s\n", id(l.Ends[0].Node), l.Ends[0].Interface, l.Ends[1].Interface, id(l.Ends[1].Node))
	}
	if _, err := w.Write([]byte(b.String())); err != nil {
		return fmt.Errorf("write diagram: %w", err)
	}
	return nil
}
