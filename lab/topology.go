package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"

	"msee/lab/internal/strict"
)

// Topology is what a lab is made of. It is read-only once parsed.
type Topology struct {
	Name        string `yaml:"name"` // the lab's name unless another is given
	Description string `yaml:"description"`
	// Shared holds, per kind of node (msee, gateway), configuration keys that
	// every node of that kind gets; what the node has itself goes first.
	Shared map[string]*yaml.Node `yaml:"shared"`
	// Environment is that of all msee daemons, for secrets that their
	// configurations name as env:NAME. In a lab they are secret to nobody.
	Environment map[string]string `yaml:"environment"`
	Nodes       []Node            `yaml:"nodes"`
	Links       []Link            `yaml:"links"`
	Checks      []Probe           `yaml:"checks"`
	Compare     *Comparison       `yaml:"compare"` // nil: nothing

	file   string
	source []byte
}

// Kind says what runs in a node.
type Kind string

// The kinds of nodes.
const (
	KindHost    Kind = "host"    // an end system: addresses and routes, no daemon
	KindFRR     Kind = "frr"     // a router with FRR's zebra and bgpd
	KindMSEE    Kind = "msee"    // msee edge
	KindGateway Kind = "gateway" // msee gateway
	KindSwitch  Kind = "switch"  // a Linux bridge over all its links; passes tags
)

var kinds = []Kind{KindHost, KindFRR, KindMSEE, KindGateway, KindSwitch}

// Node is a network namespace and what is in it.
type Node struct {
	strict.Pos
	Name       string            `yaml:"name"`
	Kind       Kind              `yaml:"kind"`
	Interfaces []Interface       `yaml:"interfaces"` // those that need more than a link gives them
	Routes     []Route           `yaml:"routes"`
	Sysctls    map[string]string `yaml:"sysctls"`
	BGP        *BGP              `yaml:"bgp"`       // frr
	FRRConfig  string            `yaml:"frrConfig"` // frr: lines put behind the generated configuration
	Config     *yaml.Node        `yaml:"config"`    // msee, gateway: the daemon's configuration file
}

// Interface is an L3 interface: the end of a link, a VLAN on one, or on a VXLAN
// network.
type Interface struct {
	strict.Pos
	Name      string         `yaml:"name"`
	MTU       int            `yaml:"mtu"` // IP MTU in octets; 0 is the link's, or 1500 on a VLAN
	Addresses []netip.Prefix `yaml:"addresses"`
	VLAN      *VLAN          `yaml:"vlan"`
	VXLAN     *VXLAN         `yaml:"vxlan"`
}

// VLAN makes an interface a subinterface: Dot1Q with a C-tag, QinQ with both.
type VLAN struct {
	strict.Pos
	Parent    string `yaml:"parent"`
	STag      uint16 `yaml:"stag"` // 0 for Dot1Q
	CTag      uint16 `yaml:"ctag"`
	EtherType uint16 `yaml:"etherType"` // TPID of the outer tag; 0 is 0x8100
}

// VXLAN makes an interface one of a VXLAN network, which the kernel's device ends.
type VXLAN struct {
	strict.Pos
	VNI     uint32       `yaml:"vni"`
	Local   netip.Addr   `yaml:"local"`   // of another interface: our end of the tunnels
	Remotes []netip.Addr `yaml:"remotes"` // the other ends; none: EVPN tells of them, and of what is here
}

// Route is a static route of the kernel; several next hops share the load.
type Route struct {
	strict.Pos
	To  netip.Prefix `yaml:"to"`
	Via []netip.Addr `yaml:"via"`
	Src netip.Addr   `yaml:"src"` // which address of the node is the source then, if an application leaves it open
}

// BGP is bgpd's configuration.
type BGP struct {
	strict.Pos
	ASN              uint32         `yaml:"asn"`
	RouterID         netip.Addr     `yaml:"routerId"`
	KeepaliveSeconds int            `yaml:"keepaliveSeconds"` // 0: FRR's default
	HoldSeconds      int            `yaml:"holdSeconds"`      // 0: FRR's default
	MaximumPaths     int            `yaml:"maximumPaths"`     // 0: FRR's default
	Networks         []netip.Prefix `yaml:"networks"`         // announced whether or not there is a route
	Neighbors        []Neighbor     `yaml:"neighbors"`
	BFD              *BFD           `yaml:"bfd"` // of all neighbours; nil: none
	// Expect lists what must have been learnt before the lab counts as up.
	Expect []Expected `yaml:"expect"`
}

// Neighbor is a BGP neighbour; its address says which family it carries, unless that is EVPN.
type Neighbor struct {
	strict.Pos
	Address  netip.Addr `yaml:"address"`
	RemoteAS uint32     `yaml:"remoteAS"`
	Password string     `yaml:"password"` // TCP-MD5 key, "" for none
	EVPN     bool       `yaml:"evpn"`     // it is told of the node's VXLAN networks, and nothing else
}

// BFD has bfdd watch the neighbours, with the same interval both ways.
type BFD struct {
	strict.Pos
	IntervalMilliseconds int `yaml:"intervalMilliseconds"` // 0: FRR's default, 300
	Multiplier           int `yaml:"multiplier"`           // 0: FRR's default, 3
}

// Expected is a prefix with the number of paths that must be known for it.
type Expected struct {
	Prefix netip.Prefix `yaml:"prefix"`
	Paths  int          `yaml:"paths"` // 0 is 1
}

// Link is a cable (a veth pair) between two nodes.
type Link struct {
	strict.Pos
	Ends []Endpoint `yaml:"ends"` // exactly two
	MTU  int        `yaml:"mtu"`  // of both ends, octets; 0 is 1500
}

// Endpoint is NODE:INTERFACE.
type Endpoint struct {
	Node, Interface string
}

// UnmarshalText reads NODE:INTERFACE.
func (e *Endpoint) UnmarshalText(text []byte) error {
	var ok bool
	if e.Node, e.Interface, ok = strings.Cut(string(text), ":"); !ok {
		return errors.New("want NODE:INTERFACE")
	}
	return nil
}

func (e Endpoint) String() string { return e.Node + ":" + e.Interface }

// Probe is something that must work once the lab is up.
type Probe struct {
	strict.Pos
	Type CheckType    `yaml:"type"`
	From string       `yaml:"from"` // node
	To   netip.Addr   `yaml:"to"`
	At   string       `yaml:"at"`    // iperf3, isolation: the node that has To
	Via  []netip.Addr `yaml:"via"`   // traceroute: one of them must be on the way
	Not  []string     `yaml:"never"` // isolation: nodes where none of it may be seen
	// Seconds is how long iperf3 sends in each direction; 0 is 2.
	Seconds int `yaml:"seconds"`
}

// CheckType is the kind of a Probe.
type CheckType string

// The kinds of checks.
const (
	CheckPing       CheckType = "ping"
	CheckTraceroute CheckType = "traceroute"
	CheckIperf3     CheckType = "iperf3"    // TCP, both ways
	CheckIsolation  CheckType = "isolation" // arrives at one node and never shows at others
)

var checkTypes = []CheckType{CheckPing, CheckTraceroute, CheckIperf3, CheckIsolation}

const defaultMTU = 1500

// node returns the node called name, nil if there is none.
func (t *Topology) node(name string) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].Name == name {
			return &t.Nodes[i]
		}
	}
	return nil
}

// instance is what the daemon of a node is called, and its namespace.
func instance(lab, node string) string { return lab + "." + node }

func (l *Link) mtu() int {
	if l.MTU == 0 {
		return defaultMTU
	}
	return l.MTU
}

func (i *Interface) vlanMTU() int {
	if i.MTU == 0 {
		return defaultMTU
	}
	return i.MTU
}

// String shows the tags as an operator writes them.
func (v *VLAN) String() string {
	if v.STag == 0 {
		return fmt.Sprintf("VLAN %d", v.CTag)
	}
	return fmt.Sprintf("S-tag %d C-tag %d", v.STag, v.CTag)
}

// DaemonConfig returns the configuration file of an msee or gateway node: its
// own keys, then those that it shares with the others of its kind.
func (t *Topology) DaemonConfig(n *Node) ([]byte, error) {
	merged := &yaml.Node{Kind: yaml.MappingNode}
	have := map[string]bool{}
	for _, part := range []*yaml.Node{n.Config, t.Shared[string(n.Kind)]} {
		if part == nil {
			continue
		}
		for i := 0; i+1 < len(part.Content); i += 2 {
			if key := part.Content[i]; !have[key.Value] {
				have[key.Value] = true
				merged.Content = append(merged.Content, key, part.Content[i+1])
			}
		}
	}
	out, err := yaml.Marshal(merged)
	if err != nil {
		return nil, fmt.Errorf("write configuration of %s: %w", n.Name, err)
	}
	return out, nil
}
