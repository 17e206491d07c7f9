package edge

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"msee/circuit"
	"msee/config"
	"msee/dataplane"
)

// FastPathStatus is what FastPath does for one VRF.
type FastPathStatus struct {
	VRF         string   `json:"vrf"`
	Connections []string `json:"connections"` // each with why FastPath is off for it
	Port        string   `json:"port"`
	Endpoints   int      `json:"endpoints"`  // known
	Programmed  int      `json:"programmed"` // FastPathRoutesCountForCircuit
	Hosts       int      `json:"hosts"`
	Hits        uint64   `json:"hits"` // frames
	Misses      uint64   `json:"misses"`
	PortCount   int      `json:"fastPathRoutesCountForPort"`
	Limit       int      `json:"limit"` // of the port
	// Waiting are the endpoints of all VRFs of the port that the limit keeps out.
	Waiting int `json:"waiting"`
	// Alert says that endpoints go by the gateway for want of room.
	Alert   string         `json:"alert,omitempty"`
	Refused map[string]int `json:"refused"` // endpoints by reason
}

// EndpointStatus is one endpoint.
type EndpointStatus struct {
	VRF        string               `json:"vrf"`
	Addr       netip.Addr           `json:"address"`
	Kind       circuit.EndpointKind `json:"kind"`
	Host       netip.Addr           `json:"host"`
	Interface  string               `json:"interface,omitempty"` // if programmed
	Resolved   bool                 `json:"resolved"`
	Refused    string               `json:"refused,omitempty"`
	Sessions   []string             `json:"sessions"`
	Programmed bool                 `json:"programmed"`
}

// FastPath lists the VRFs that can have endpoints.
func (e *Edge) FastPath() (rows []FastPathStatus, err error) {
	err = e.do(func() {
		for _, v := range e.sortedVRFs() {
			if e.device.Kind != config.KindEdge || v.cfg.PeeringType != string(circuit.AzurePrivatePeering) {
				continue
			}
			port := e.endpointPort(v)
			row := FastPathStatus{VRF: v.cfg.Name, Connections: []string{}, Port: v.customerPort(),
				Endpoints: len(v.endpoints.all), Programmed: v.endpoints.programmed, Hosts: len(v.endpoints.hosts),
				Hits: v.endpoints.dp.Hits.Load(), Misses: v.endpoints.dp.Misses.Load(),
				PortCount: port.used, Limit: e.endpointLimit(v), Refused: map[string]int{}}
			for _, s := range v.cfg.Sessions {
				if s.Connection != "" && s.Local.Is4() {
					row.Connections = append(row.Connections, connectionState(s))
				}
			}
			slices.Sort(row.Connections)
			row.Connections = slices.Compact(row.Connections)
			for why, n := range v.endpoints.refused {
				row.Refused[string(why)] = n
			}
			for session, t := range v.endpoints.told {
				if t.refused > 0 {
					row.Refused["announced by "+session+" above "+strconv.Itoa(v.endpoints.most)] = t.refused
				}
			}
			if n := len(port.waiting); n > 0 {
				row.Waiting = n
				row.Alert = fmt.Sprintf("limit of port %s reached: %d endpoints go by the gateway", row.Port, n)
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}

// connectionState says whether a connection has FastPath for a virtual machine.
func connectionState(s config.Session) string {
	if why := s.FastPath.Refuses(circuit.EndpointVirtualMachine); why != "" {
		return s.Connection + ": " + string(why)
	}
	return s.Connection + ": on"
}

// Endpoints lists the endpoints of a VRF, of all if vrf is "", in order of VRF and
// address.
func (e *Edge) Endpoints(vrf string) (rows []EndpointStatus, err error) {
	known := vrf == ""
	stopped := e.do(func() {
		for _, v := range e.sortedVRFs() {
			if vrf != "" && v.cfg.Name != vrf {
				continue
			}
			known = true
			rows = slices.Grow(rows, len(v.endpoints.all))
			for addr, ep := range v.endpoints.all {
				rows = append(rows, v.endpointStatus(addr, ep))
			}
		}
	})
	if stopped == nil && !known {
		return nil, fmt.Errorf("%w %s", ErrNoVRF, vrf)
	}
	slices.SortFunc(rows, func(a, b EndpointStatus) int { return cmp.Or(cmp.Compare(a.VRF, b.VRF), a.Addr.Compare(b.Addr)) })
	return rows, stopped
}

func (v *vrf) endpointStatus(addr netip.Addr, ep *endpoint) EndpointStatus {
	row := EndpointStatus{VRF: v.cfg.Name, Addr: addr, Kind: ep.ways[0].kind, Host: ep.ways[0].host, Refused: string(ep.refused)}
	for _, w := range ep.ways {
		row.Sessions = append(row.Sessions, w.session)
	}
	slices.Sort(row.Sessions)
	if ep.hop.sub != nil {
		row.Programmed, row.Host, row.Interface = true, ep.hop.addr, ep.hop.sub.cfg.Name
		row.Resolved = v.fwd.resolved(ep.hop)
	}
	return row
}

// RouteLookup is how a packet to an address is forwarded, and why so.
type RouteLookup struct {
	VRF      string     `json:"vrf"`
	Addr     netip.Addr `json:"address"`
	FastPath string     `json:"fastPath"` // hit or miss, and why
	// Prefix is the longest match, "" if there is none. It is what counts on a
	// miss, and where the gateway is on a hit.
	Prefix string   `json:"prefix,omitempty"`
	Kind   string   `json:"kind,omitempty"`
	Hops   []string `json:"nextHops"`
}

// Lookup explains how an address is reached in a VRF, in all if vrf is "".
func (e *Edge) Lookup(vrf string, addr netip.Addr) (rows []RouteLookup, err error) {
	known := vrf == ""
	stopped := e.do(func() {
		for _, v := range e.sortedVRFs() {
			if vrf == "" || v.cfg.Name == vrf {
				known = true
				rows = append(rows, e.lookup(v, addr))
			}
		}
	})
	if stopped == nil && !known {
		return nil, fmt.Errorf("%w %s", ErrNoVRF, vrf)
	}
	return rows, stopped
}

func (e *Edge) lookup(v *vrf, addr netip.Addr) RouteLookup {
	row := RouteLookup{VRF: v.cfg.Name, Addr: addr, FastPath: e.explainFastPath(v, addr), Hops: []string{}}
	for bits := addr.BitLen(); bits >= 0; bits-- {
		prefix := netip.PrefixFrom(addr, bits).Masked()
		g := v.fwd.connected[prefix]
		if g == nil {
			g = v.fwd.routed[prefix]
		}
		if g == nil {
			continue
		}
		row.Prefix, row.Kind = prefix.String(), g.Kind.String()
		for _, h := range g.hops {
			row.Hops = append(row.Hops, h.String())
		}
		break
	}
	return row
}

// explainFastPath asks the table that the workers ask.
func (e *Edge) explainFastPath(v *vrf, addr netip.Addr) string {
	ep := v.endpoints.all[addr]
	hit := v.endpoints.dp.Lookup(addr) != 0
	switch {
	case e.device.Kind != config.KindEdge:
		return "none: a gateway has no FastPath"
	case ep == nil:
		return "miss: not an endpoint that anybody has told of"
	case !hit:
		return "miss: " + string(ep.refused)
	}
	a := v.endpoints.hosts[ep.hop]
	why := ""
	switch {
	case a.Rewrite() == nil:
		why = "is not resolved"
	case a.Down() != 0:
		why = "is down" + reasons(a.Down())
	default:
		return fmt.Sprintf("hit: host %s on %s", ep.hop.addr, ep.hop.sub.cfg.Name)
	}
	return fmt.Sprintf("miss: host %s %s", ep.hop.addr, why)
}

func reasons(d dataplane.DownReason) string {
	var all []string
	if d&dataplane.DownBFD != 0 {
		all = append(all, "BFD")
	}
	if d&dataplane.DownLink != 0 {
		all = append(all, "link")
	}
	return " (" + strings.Join(all, ", ") + ")"
}

func (e *Edge) sortedVRFs() []*vrf {
	var all []*vrf
	for _, v := range e.vrfs {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *vrf) int { return cmp.Compare(a.cfg.Name, b.cfg.Name) })
	return all
}
