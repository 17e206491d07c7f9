package config

import (
	"net/netip"
	"time"

	"msee/circuit"
	"msee/community"
)

// Device is the desired state of one forwarding engine, an MSEE or a gateway
// instance: plain values, compiled from a checked file, equal if and only if
// nothing is to be done. The edge package makes it real.
type Device struct {
	Kind     Kind
	Name     string
	Role     string     // "primary" or "secondary" for an MSEE; "0" or "1" for a gateway instance
	ASN      uint32     // 12076 for an MSEE, 65515 for a gateway
	RouterID netip.Addr // IPv4
	Ports    []Port
	VRFs     []VRF
	Circuits []Circuit // for show only
	// Services is what Microsoft peerings can announce; nil without any.
	// For show only: a VRF's Originate has what counts.
	Services []community.Service
	// PrefixRetry is how long a session stays down that announced too many
	// prefixes.
	PrefixRetry time.Duration
	// BFDDaemonPort is the TCP port on 127.0.0.1 of each VRF's namespace at which
	// a BFD daemon (FRR's) may hand over its sessions; 0: none is looked for.
	BFDDaemonPort int `json:",omitempty"`
	// Metrics is where Prometheus may read the metrics by TCP; the zero value is
	// nowhere.
	Metrics netip.AddrPort `json:",omitzero"`
}

// Kind tells an MSEE from a gateway instance.
type Kind string

const (
	KindEdge    Kind = "edge"
	KindGateway Kind = "gateway"
)

// Port is a device that frames come from and go to.
type Port struct {
	Name   string  // at most 5 characters, so that NAME.STAG.CTAG is an interface name
	Device string  // the Linux interface
	Type   string  // "packet", "xdp" or "tap"
	TPID   uint16  // EtherType of the outer tag: 0x8100 or 0x88a8
	CPU    *int    `json:",omitempty"` // the processor that forwards what it receives; nil: any
	MACsec *MACsec `json:",omitempty"` // nil: frames are in clear
	// CrossConnect is the port that all frames of this one leave by, unread,
	// and whose leave by this one; "" on a port of the router.
	CrossConnect string
	// DirectGbps is the bandwidth of an ExpressRoute Direct port, 0 on a
	// provider's port and on a gateway.
	DirectGbps int
	// Disabled switches the link off (adminState).
	Disabled bool `json:",omitempty"`
}

// Circuit is what show prints of an ExpressRoute circuit.
type Circuit struct {
	Name            string
	ServiceKey      string
	SKU             string // e.g. Standard_MeteredData
	BandwidthInMbps int
	Port            string
	STag            uint16 // 0 on a Dot1Q port
}

// VRF is one routing table with its subinterfaces and sessions: one peering of
// a circuit on an MSEE, or the whole of a gateway instance.
type VRF struct {
	Name          string // e.g. "er1-private", "er1-microsoft", "vnet1"
	Circuit       string // "" on a gateway
	PeeringType   string // "AzurePrivatePeering", "MicrosoftPeering", "" on a gateway
	Subinterfaces []Subinterface
	Sessions      []Session
	// Originate is what this device announces itself (a gateway: the VNet's
	// address space).
	Originate []Originated
	// AllowOwnAS accepts customers' routes with 12076 in their path.
	AllowOwnAS bool
	// Regions are those that a private peering's circuit reaches, by the
	// suffixes of their communities. Nil is all.
	Regions []uint16
	// AllowRemoteVnetTraffic, on a gateway, takes the routes of other VNets.
	AllowRemoteVnetTraffic bool
	// AllowedPrefixes are, on a Microsoft peering, the only prefixes the
	// customer may announce and send from: those of Advertised that are
	// validated. Nil on others.
	AllowedPrefixes []netip.Prefix
	Advertised      []Advertised // advertisedPublicPrefixes
	// RouteFilter and RouteFilterIPv6 are the communities of the services that a
	// Microsoft peering announces. Their names are "" if none is attached.
	RouteFilter, RouteFilterIPv6         []community.Value
	RouteFilterName, RouteFilterIPv6Name string
	// Gateway is what an instance of a gateway passes; nil on an MSEE, and on a
	// gateway's underlay.
	Gateway *Gateway `json:",omitempty"`
	// Endpoints are, on a gateway, the addresses it tells the MSEEs the hosts of.
	Endpoints []Endpoint
}

// Gateway is an instance of a gateway's SKU, and what that makes of it.
type Gateway struct {
	SKU        circuit.GatewaySKU
	ScaleUnits int                   `json:",omitempty"` // of ErGwScale
	Limits     circuit.GatewayLimits // of this instance
}

// Advertised is one of a Microsoft peering's advertisedPublicPrefixes.
type Advertised struct {
	Prefix netip.Prefix
	State  circuit.ValidationState
}

// Endpoint is an address in a VNet and the host that has it.
type Endpoint struct {
	Addr netip.Addr
	Host netip.Addr // on a GatewaySubnet, of the same family
	Kind circuit.EndpointKind
}

// Originated is a prefix with the communities that it is announced with.
type Originated struct {
	Prefix      netip.Prefix
	Communities []community.Value
}

// Subinterface is an L3 interface on a port, told from others by its tags.
type Subinterface struct {
	Name      string         // PORT, PORT.CTAG, PORT.STAG.CTAG or PORT.vVNI
	Port      string         // Port.Name
	STag      uint16         // outer VLAN of QinQ, 0 if none
	CTag      uint16         // VLAN of Dot1Q, inner VLAN of QinQ, 0 if untagged
	Addresses []netip.Prefix // our address with the subnet's length; at most one per family
	VXLAN     *VXLAN         `json:",omitempty"` // instead of tags; nil: on a link
	Pair      *Pair          `json:",omitempty"` // on a gateway's side of a VNet; nil: no takeover
	MTU       int            // IP MTU, octets
	Side      Side
	// Routes, of an underlay, lead beyond its routers, the longest first.
	Routes []UnderlayRoute `json:",omitempty"`
	Limit  RateLimit       // of a customer's circuit
	// Sources are all that a Microsoft peering's customer may send from; nil is
	// any. SourceCheck is what else a customer's source must be.
	Sources     []netip.Prefix
	SourceCheck circuit.SourceCheck
}

// Pair is what the two instances of a gateway are to each other in a subnet of
// their VNet: one answers for the other's addresses while that is dead or drained.
type Pair struct {
	Local, Peer netip.Addr   // IPv6 link-local; BFD runs between them
	Addresses   []netip.Addr // the other's in this subnet, at most one per family
	BFD         BFD
}

// RateLimit holds a circuit to its bandwidth, on this link and in each direction.
type RateLimit struct {
	Circuit string
	Mbps    int  // 0: no limit
	Direct  bool // acts only when traffic is more than 20 % above (ExpressRoute Direct)
}

// Side says what a subinterface or a session faces.
type Side string

const (
	SideCustomer Side = "customer" // a CE
	SideCore     Side = "core"     // MSEE ⇄ gateway
	SideVNet     Side = "vnet"     // the hosts of a VNet
	// SideMicrosoft is Microsoft's network, behind a Microsoft peering.
	SideMicrosoft Side = "microsoft"
	// SideUnderlay is the network that tunnels run over.
	SideUnderlay Side = "underlay"
)

// Session is one BGP session.
type Session struct {
	Name         string // unique in the device, e.g. "er1-private/192.168.15.17"
	Subinterface string
	Local, Peer  netip.Addr
	PeerAS       uint32
	Side         Side   // SideCustomer or SideCore
	Connection   string // on an MSEE's core sessions: the connection it belongs to
	Weight       int    // routingWeight of that connection
	Key          string // TCP-MD5 key, "" for none; never printed
	Keepalive    time.Duration
	Hold         time.Duration
	Enabled      bool // false: peering state Disabled, configuration kept
	MaxPrefixes  int  // the peer may announce so many, 0 for any number
	BFD          BFD
	FastPath     circuit.FastPath // on an MSEE's core sessions
	// GracefulRestart: routes stay in use while the other end restarts.
	GracefulRestart bool
	// TTLSecurity: the peer must be directly connected (RFC 5082).
	TTLSecurity bool
	// EVPN: the session is with a VTEP on the underlay, and carries EVPN routes.
	EVPN bool `json:",omitempty"`
	// Multihop: the peer is beyond a router.
	Multihop bool `json:",omitempty"`
	// Carrier names the EVPN session that carries this one's routes, as IP prefix
	// routes (type 5) of the subinterface's VXLAN network; "": it has a connection of
	// its own. Peer is then the VTEP that session is with, and no timers count. With
	// TellOnly nothing that the peer says is taken.
	Carrier  string `json:",omitempty"`
	TellOnly bool   `json:",omitempty"`
}
