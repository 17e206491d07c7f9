package edge

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"msee/bgp"
	"msee/community"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

// What show prints. Rows are in a stable order; JSON names are the API's.

// DeviceStatus is the device as a whole.
type DeviceStatus struct {
	Instance string      `json:"instance"`
	Name     string      `json:"name"`
	Kind     config.Kind `json:"kind"`
	Role     string      `json:"role"`
	ASN      uint32      `json:"asn"`
	RouterID netip.Addr  `json:"routerId"`
	PID      int         `json:"pid"`
	Started  time.Time   `json:"started"`
	// Goroutines is how many the process has: it must not grow.
	Goroutines int `json:"goroutines"`
	// SpeakerRestarts is how often the BGP speaker had to be started again.
	SpeakerRestarts int         `json:"speakerRestarts"`
	Maintenance     Maintenance `json:"maintenance"`
	// TakesOver are the addresses of the gateway's other instance that this one has.
	TakesOver []netip.Addr `json:"takesOver,omitempty"`
}

// CircuitStatus is one circuit.
type CircuitStatus struct {
	Name            string   `json:"name"`
	ServiceKey      string   `json:"serviceKey,omitempty"`
	SKU             string   `json:"sku"`
	BandwidthInMbps int      `json:"bandwidthInMbps,omitempty"`
	Port            string   `json:"port"`
	STag            uint16   `json:"stag,omitempty"`
	VRFs            []string `json:"vrfs"`
}

// PeeringStatus is one subinterface of a VRF: the customer's side of a peering,
// the core's side of a connection, or a VNet's.
type PeeringStatus struct {
	VRF         string         `json:"vrf"`
	Namespace   string         `json:"namespace"`
	Circuit     string         `json:"circuit,omitempty"`
	PeeringType string         `json:"peeringType,omitempty"`
	Side        config.Side    `json:"side"`
	Interface   string         `json:"interface"`
	STag        uint16         `json:"stag,omitempty"`
	VNI         uint32         `json:"vni,omitempty"`
	VLAN        uint16         `json:"vlanId,omitempty"`
	Addresses   []netip.Prefix `json:"addresses"`
	MTU         int            `json:"mtu"`
	RxFrames    uint64         `json:"rxFrames"`
	RxBytes     uint64         `json:"rxBytes"`
	TxFrames    uint64         `json:"txFrames"`
	TxBytes     uint64         `json:"txBytes"`
	RxDrops     uint64         `json:"rxDrops"`
	Injected    uint64         `json:"injected"`
	ICMPErrors  uint64         `json:"icmpErrors"`
}

// SessionStatus is one BGP session.
type SessionStatus struct {
	VRF        string      `json:"vrf"`
	Peer       netip.Addr  `json:"peer"`
	Local      netip.Addr  `json:"local"`
	AS         uint32      `json:"as"`
	Side       config.Side `json:"side"`
	Connection string      `json:"connection,omitempty"`
	// Carrier names the EVPN session that carries this one's routes; "" for a session
	// with a connection of its own.
	Carrier    string      `json:"carrier,omitempty"`
	MD5        bool        `json:"md5"`
	Received   int         `json:"received"`
	Accepted   int         `json:"accepted"`
	Refused    int         `json:"refused"`
	Advertised int         `json:"advertised"`
	Prefixes   LimitStatus `json:"prefixes"`
	bgp.SessionStatus
}

// RouteStatus is one route of a VRF: how to get to a prefix and why so.
type RouteStatus struct {
	VRF    string       `json:"vrf"`
	Prefix netip.Prefix `json:"prefix"`
	Source string       `json:"source"` // bgp, connected, neighbor, local, static, originated
	Paths  []PathStatus `json:"paths"`
}

// PathStatus is one way to a prefix.
type PathStatus struct {
	NextHop   netip.Addr `json:"nextHop"`
	MAC       string     `json:"macAddress,omitempty"` // of the router behind NextHop, the end of a tunnel
	Interface string     `json:"interface,omitempty"`
	Session   string     `json:"session,omitempty"`
	ASPath    []uint32   `json:"asPath"`
	Origin    uint8      `json:"origin"`
	Weight    int        `json:"weight"`
	MED       uint32     `json:"med,omitempty"` // as received; nobody looks at it
	// Communities as received, also where policy drops them.
	Communities []community.Value `json:"communities,omitempty"`
	State       bgp.PathState     `json:"state,omitempty"` // best, ecmp, lost, refused
	Why         string            `json:"why,omitempty"`
	Stale       bool              `json:"stale,omitempty"`
	Resolved    bool              `json:"resolved"` // the next hop's MAC is known
}

// ARPStatus is one row of the ARP and neighbor table.
type ARPStatus struct {
	VRF       string     `json:"vrf"`
	Interface string     `json:"interface"`
	Property  string     `json:"interfaceProperty"` // On-Prem, Microsoft, Gateway, VNet
	Addr      netip.Addr `json:"ipAddress"`
	MAC       string     `json:"macAddress"` // Cisco's dotted form, or Incomplete
	Age       int        `json:"age"`        // seconds since it was last confirmed; 0 for our own
}

// PortStatus is one port.
type PortStatus struct {
	Name      string            `json:"name"`
	Device    string            `json:"device"`
	Type      string            `json:"type"`
	Mode      string            `json:"mode,omitempty"` // of an xdp port: copy or zero-copy
	Link      string            `json:"link"`           // up, down or gone
	MAC       string            `json:"macAddress"`
	TPID      uint16            `json:"etherType"`
	RxFrames  uint64            `json:"rxFrames"`
	RxBytes   uint64            `json:"rxBytes"`
	TxFrames  uint64            `json:"txFrames"`
	TxBytes   uint64            `json:"txBytes"`
	TxDrops   uint64            `json:"txDrops"`
	RxDropped uint64            `json:"rxDropped"` // by the kernel: the ring was full
	Errors    uint64            `json:"errors"`
	Verdicts  map[string]uint64 `json:"verdicts"` // of received frames; they add up to rxFrames
	// OwnDrops are frames of the device's own, the kernel's among them, that did not
	// leave, by why.
	OwnDrops map[string]uint64 `json:"ownDrops"`
}

// Device returns the device's identity.
func (e *Edge) Device() (s DeviceStatus, err error) {
	err = e.do(func() {
		d := e.device
		s = DeviceStatus{Instance: e.opts.Instance, Name: d.Name, Kind: d.Kind, Role: d.Role, ASN: d.ASN,
			RouterID: d.RouterID, PID: os.Getpid(), Started: e.started, Goroutines: runtime.NumGoroutine(),
			SpeakerRestarts: e.speakerRestarts, Maintenance: e.maintenance, TakesOver: e.takesOver()}
	})
	return s, err
}

// FIBStatus is how many routes a VRF forwards by.
type FIBStatus struct {
	VRF  string `json:"vrf"`
	IPv4 int    `json:"ipv4"`
	IPv6 int    `json:"ipv6"`
}

// FIBs lists the VRFs' FIBs.
func (e *Edge) FIBs() (rows []FIBStatus, err error) {
	err = e.do(func() {
		for _, v := range e.sortedVRFs() {
			rows = append(rows, FIBStatus{v.cfg.Name, v.fwd.table.Len4(), v.fwd.table.Len6()})
		}
	})
	return rows, err
}

// Circuits lists the circuits.
func (e *Edge) Circuits() (rows []CircuitStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.Circuits {
			row := CircuitStatus{Name: c.Name, ServiceKey: c.ServiceKey, SKU: c.SKU,
				BandwidthInMbps: c.BandwidthInMbps, Port: c.Port, STag: c.STag}
			for _, v := range e.device.VRFs {
				if v.Circuit == c.Name {
					row.VRFs = append(row.VRFs, v.Name)
				}
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}

// Peerings lists the subinterfaces with their counters.
func (e *Edge) Peerings() (rows []PeeringStatus, err error) {
	err = e.do(func() {
		for _, v := range e.device.VRFs {
			for _, c := range v.Subinterfaces {
				s := e.vrfs[v.Name].subs[c.Name]
				if s == nil {
					continue
				}
				n := s.dp.Counters
				rows = append(rows, PeeringStatus{VRF: v.Name, Namespace: s.vrf.kernel.namespace,
					Circuit: v.Circuit, PeeringType: v.PeeringType, Side: c.Side, Interface: c.Name,
					STag: c.STag, VLAN: c.CTag, Addresses: c.Addresses, MTU: c.MTU,
					RxFrames: n.RxFrames.Load(), RxBytes: n.RxBytes.Load(),
					TxFrames: n.TxFrames.Load(), TxBytes: n.TxBytes.Load(), RxDrops: n.RxDrops.Load(),
					Injected: n.Injected.Load(), ICMPErrors: n.Generated.Load()})
				if c.VXLAN != nil {
					rows[len(rows)-1].VNI = c.VXLAN.VNI
				}
			}
		}
	})
	return rows, err
}

// Sessions lists the BGP sessions.
func (e *Edge) Sessions() (rows []SessionStatus, err error) {
	err = e.do(func() {
		for _, v := range e.device.VRFs {
			for _, c := range v.Sessions {
				s := e.sessions[c.Name]
				by := e.carrier(s)
				counts := s.vrf.rib.Counts(c.Name)
				if c.EVPN {
					counts.Received, counts.Refused = e.overlay.table.Told(c.Name)
					counts.Accepted = counts.Received
				}
				row := SessionStatus{VRF: v.Name, Peer: c.Peer, Local: c.Local, AS: c.PeerAS, Side: c.Side,
					Connection: c.Connection, Carrier: c.Carrier, MD5: c.Key != "", Received: counts.Received,
					Accepted: counts.Accepted, Refused: counts.Refused, Prefixes: s.limitStatus(counts.Received), SessionStatus: by.status}
				row.Session = c.Name
				if row.State == bgp.StateEstablished {
					row.Advertised = counts.Advertised
				} else if sub := by.vrf.subs[by.cfg.Subinterface]; sub != nil && sub.port.whyDown() != "" {
					row.Reason = sub.port.whyDown() // nearer to the cause than what the speaker sees
				} else if why := by.whyBFD(); why != "" {
					row.Reason = why
				}
				if left := time.Until(by.sweepAt); left > 0 && row.State != bgp.StateEstablished && counts.Received > 0 {
					row.Reason += fmt.Sprintf("; graceful restart: its routes stay in use for %v more", left.Round(time.Second))
				}
				rows = append(rows, row)
			}
		}
	})
	return rows, err
}

// ErrNoVRF is returned for a VRF that the device has not.
var ErrNoVRF = errors.New("no such VRF")

// Routes lists the routes of a VRF, or of all if vrf is "". Refused ones are
// among them, with the reason.
func (e *Edge) Routes(vrf string) (rows []RouteStatus, err error) {
	known := vrf == ""
	err = e.do(func() {
		for _, c := range e.device.VRFs {
			if vrf == "" || vrf == c.Name {
				known = true
				rows = append(rows, e.vrfs[c.Name].routes()...)
			}
		}
	})
	if err == nil && !known {
		err = fmt.Errorf("%w: %s", ErrNoVRF, vrf)
	}
	return rows, err
}

func (v *vrf) routes() []RouteStatus {
	var rows []RouteStatus
	for prefix, g := range v.fwd.connected {
		row := RouteStatus{VRF: v.cfg.Name, Prefix: prefix, Source: sourceOf(g)}
		for _, h := range g.hops {
			row.Paths = append(row.Paths, PathStatus{NextHop: h.addr, Interface: h.sub.cfg.Name,
				State: bgp.PathBest, Resolved: v.fwd.resolved(h)})
		}
		rows = append(rows, row)
	}
	for prefix, candidates := range v.rib.Routes() {
		row := RouteStatus{VRF: v.cfg.Name, Prefix: prefix, Source: "bgp"}
		for _, c := range candidates {
			if c.Peer.Side == bgp.SideLocal {
				row.Source = "originated"
				continue
			}
			row.Paths = append(row.Paths, v.path(c))
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b RouteStatus) int {
		return cmp.Or(boolCompare(a.Prefix.Addr().Is6(), b.Prefix.Addr().Is6()),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return rows
}

func (v *vrf) path(c bgp.Candidate) PathStatus {
	p := PathStatus{NextHop: c.Attrs.NextHop, Interface: v.interfaceOf(c.Peer.Name), Session: c.Peer.Name,
		ASPath: c.Attrs.ASPath, Origin: c.Attrs.Origin, MED: c.Received.MED, Weight: c.Peer.Weight, State: c.State, Why: c.Why, Stale: c.Stale}
	for _, value := range c.Received.Communities {
		p.Communities = append(p.Communities, community.Value(value))
	}
	if s := v.subs[p.Interface]; s != nil {
		h := hopOf(s, bgp.NextHop{Addr: p.NextHop, MAC: c.Attrs.MAC})
		if p.Resolved = v.fwd.resolved(h); h.mac != (port.MAC{}) {
			p.MAC = c.Attrs.MAC.String()
		}
	}
	return p
}

// interfaceOf returns the subinterface of a session.
func (v *vrf) interfaceOf(session string) string {
	for _, s := range v.cfg.Sessions {
		if s.Name == session {
			return s.Subinterface
		}
	}
	return ""
}

func sourceOf(g *group) string {
	switch {
	case g.Kind == dataplane.Local:
		return "local"
	case g.Kind == dataplane.Blackhole:
		return "discard"
	case g.Kind == dataplane.Glean:
		return "connected"
	case g.Kind == dataplane.Forward:
		return "static"
	default:
		return "neighbor"
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// ARP lists the neighbor tables as Azure shows them: our own address of each
// subinterface, and who was heard on it or is waited for.
func (e *Edge) ARP() (rows []ARPStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.VRFs {
			v := e.vrfs[c.Name]
			for _, name := range slices.Sorted(maps.Keys(v.subs)) {
				r, err := v.subs[name].arp()
				if err != nil { // a namespace that somebody removed; the others are to be seen
					e.log.Warn("read neighbor table", "interface", name, "err", err)
				}
				rows = append(rows, r...)
			}
		}
	})
	return rows, err
}

func (s *subinterface) arp() ([]ARPStatus, error) {
	row := ARPStatus{VRF: s.vrf.cfg.Name, Interface: s.cfg.Name}
	var rows []ARPStatus
	row.Property = map[config.Side]string{
		config.SideCustomer: "On-Prem", config.SideCore: "Gateway", config.SideVNet: "VNet"}[s.cfg.Side]
	neighbors, err := s.vrf.kernel.handle.NeighList(s.tap.link.Attrs().Index, 0)
	if err != nil {
		return rows, err
	}
	for _, n := range neighbors {
		addr, ok := netip.AddrFromSlice(n.IP)
		if addr = addr.Unmap(); !ok || !subnetOf(s.cfg.Addresses, addr) || n.State == netlink.NUD_NONE {
			continue
		}
		row.Addr, row.MAC, row.Age = addr, "Incomplete", 0
		if n.State&usableStates != 0 {
			row.MAC, row.Age = dotted(n.HardwareAddr), int(n.Confirmed)/clockTick
		}
		rows = append(rows, row)
	}
	mac := s.port.port.MAC()
	for _, a := range s.cfg.Addresses {
		row.Property, row.Addr, row.MAC, row.Age = "Microsoft", a.Addr(), dotted(mac[:]), 0
		rows = append(rows, row)
	}
	return rows, nil
}

// clockTick is USER_HZ, the unit of the kernel's neighbor times: a constant of
// the Linux ABI.
const clockTick = 100

// dotted writes a MAC address as Azure does: aabb.ccdd.eeff.
func dotted(mac []byte) string {
	h := hex.EncodeToString(mac)
	if len(h) != 12 {
		return h
	}
	return h[:4] + "." + h[4:8] + "." + h[8:]
}

// Ports lists the ports with their counters.
func (e *Edge) Ports() (rows []PortStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.Ports {
			p := e.ports[c.Name]
			n, mac := p.counters, p.port.MAC()
			row := PortStatus{Name: c.Name, Device: c.Device, Type: c.Type, Link: p.linkState(), MAC: dotted(mac[:]), TPID: c.TPID,
				RxFrames: n.RxFrames.Load(), RxBytes: n.RxBytes.Load(), TxFrames: n.TxFrames.Load(),
				TxBytes: n.TxBytes.Load(), TxDrops: n.TxDrops.Load(), Errors: n.Errors.Load(),
				RxDropped: p.port.Stats().RxDropped, Verdicts: map[string]uint64{}, OwnDrops: map[string]uint64{}}
			if x, ok := p.port.(*port.XDP); ok {
				row.Mode = x.Mode()
			}
			for _, v := range dataplane.Verdicts() {
				row.Verdicts[v.String()] = n.Verdicts[v].Load()
				if drops := n.OwnDrops[v].Load(); drops > 0 {
					row.OwnDrops[v.String()] = drops
				}
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}
