package edge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"msee/bgp"
	"msee/circuit"
	"msee/community"
	"msee/config"
)

// Azure's diagnostics of a peering, in its shapes and with its field names:
// expressRouteCircuits/{circuit}/peerings/{peering}/routeTables/{devicePath} and
// its neighbours. What Azure never shows stands under "msee".

// RouteTableRow is ExpressRouteCircuitRoutesTable.
type RouteTableRow struct {
	Network string       `json:"network"`
	NextHop string       `json:"nextHop"` // the best one with a * glued to it
	LocPrf  string       `json:"locPrf"`
	Weight  int          `json:"weight"`
	Path    string       `json:"path"` // AS numbers and the origin's letter: 65515 I
	Detail  *RouteDetail `json:"msee,omitempty"`
}

// RouteDetail is what Azure never shows of a route.
type RouteDetail struct {
	State       bgp.PathState     `json:"state"`
	Why         string            `json:"why"`    // the tie-break that decided, or why it was refused
	Behind      string            `json:"behind"` // who is behind the next hop
	Communities []community.Value `json:"communities,omitempty"`
	Weight      int               `json:"routingWeight"` // of the connection
	Resolved    bool              `json:"resolved"`
}

// SummaryRow is ExpressRouteCircuitRoutesTableSummary.
type SummaryRow struct {
	Neighbor    string         `json:"neighbor"`
	V           int            `json:"v"`
	AS          uint32         `json:"as"`
	UpDown      string         `json:"upDown"`
	StatePfxRcd string         `json:"statePfxRcd"` // prefixes if Established, else the state
	Detail      *SummaryDetail `json:"msee,omitempty"`
}

// SummaryDetail is what Azure never shows of a session.
type SummaryDetail struct {
	Behind     string      `json:"behind"`
	Received   int         `json:"received"`
	Refused    int         `json:"refused"`
	Advertised int         `json:"advertised"`
	Prefixes   LimitStatus `json:"prefixes"`
	Reason     string      `json:"reason,omitempty"` // why it is down
}

// ARPTableRow is ExpressRouteCircuitArpTable.
type ARPTableRow struct {
	Age        int    `json:"age"`       // minutes, as routers count
	Interface  string `json:"interface"` // On-Prem or Microsoft
	IPAddress  string `json:"ipAddress"`
	MACAddress string `json:"macAddress"`
}

// PeeringStats is ExpressRouteCircuitStats: octets of the IP packets carried from
// (In) and to (Out) the customer, as the meters have them. One device knows its own path; the sum of both is the whole.
type PeeringStats struct {
	PrimaryBytesIn    uint64 `json:"primarybytesIn"`
	PrimaryBytesOut   uint64 `json:"primarybytesOut"`
	SecondaryBytesIn  uint64 `json:"secondarybytesIn"`
	SecondaryBytesOut uint64 `json:"secondarybytesOut"`
}

// ErrNoPeering is returned for a peering or a path that the device has not.
var ErrNoPeering = errors.New("no such peering here")

// peering runs f in the control loop with the VRF of a peering.
func (e *Edge) peering(circuit, peering, path string, f func(*vrf)) error {
	var err error
	stopped := e.do(func() {
		if path != "" && path != e.device.Role {
			err = fmt.Errorf("%w: this is the %s path, not the %s", ErrNoPeering, e.device.Role, path)
			return
		}
		var others []string
		for _, c := range e.device.VRFs {
			if c.Circuit != circuit || circuit == "" {
				continue
			}
			if c.PeeringType == peering {
				f(e.vrfs[c.Name])
				return
			}
			others = append(others, c.PeeringType)
		}
		err = fmt.Errorf("%w: circuit %q has no %s", ErrNoPeering, circuit, peering)
		if len(others) > 0 {
			err = fmt.Errorf("%w; it has %s", err, strings.Join(others, " and "))
		}
	})
	return errors.Join(stopped, err)
}

// originLetters are as routers of this kind print RFC 4271's codes.
var originLetters = [...]string{"I", "E", "?"}

func pathText(a *bgp.Attrs) string {
	var b strings.Builder
	for _, as := range a.ASPath {
		b.WriteString(strconv.FormatUint(uint64(as), 10) + " ")
	}
	if int(a.Origin) < len(originLetters) {
		b.WriteString(originLetters[a.Origin])
	}
	return strings.TrimSuffix(b.String(), " ")
}

// RouteTable lists a peering's routes as Azure does. With why each has its
// Detail, and refused ones are among them.
func (e *Edge) RouteTable(circuit, peering, path string, why bool) (rows []RouteTableRow, err error) {
	err = e.peering(circuit, peering, path, func(v *vrf) {
		for prefix, candidates := range v.rib.Routes() {
			for _, c := range candidates {
				if c.State == bgp.PathRefused && !why {
					continue
				}
				row := RouteTableRow{Network: prefix.String(), NextHop: nextHopText(c), LocPrf: "100", Path: pathText(c.Attrs)}
				if c.State == bgp.PathBest {
					row.NextHop += "*"
				}
				if why {
					p := v.path(c)
					row.Detail = &RouteDetail{State: c.State, Why: c.Why, Behind: v.behind(&c.Peer), Communities: p.Communities,
						Weight: c.Peer.Weight, Resolved: p.Resolved}
				}
				rows = append(rows, row)
			}
		}
	})
	slices.SortStableFunc(rows, func(a, b RouteTableRow) int { return boolCompare(isIPv6(a.Network), isIPv6(b.Network)) })
	return rows, err
}

func isIPv6(network string) bool { return strings.Contains(network, ":") }

// nextHopText is 0.0.0.0 for what the device originates, as on any router.
func nextHopText(c bgp.Candidate) string {
	if c.Peer.Side == bgp.SideLocal {
		return "0.0.0.0"
	}
	return c.Attrs.NextHop.String()
}

// behind says who is behind a peer.
func (v *vrf) behind(p *bgp.Peer) string {
	switch p.Side {
	case bgp.SideCustomer:
		return fmt.Sprintf("customer, AS %d", p.AS)
	case bgp.SideGateway:
		if p.Underlay.IsValid() {
			return fmt.Sprintf("VTEP %v by EVPN, connection %s", p.Addr, p.Connection)
		}
		for instance := range 2 {
			if circuit.GatewayAddress(p.Subnet.Masked(), instance) == p.Addr {
				return fmt.Sprintf("gateway instance %d, connection %s", instance, p.Connection)
			}
		}
		return "gateway, connection " + p.Connection
	case bgp.SideMicrosoft:
		return fmt.Sprintf("Microsoft's network, AS %d", p.AS)
	case bgp.SideLocal:
		return "Microsoft's services"
	}
	return string(p.Side)
}

// RouteTableSummary lists a peering's sessions as Azure does.
func (e *Edge) RouteTableSummary(circuit, peering, path string, why bool) (rows []SummaryRow, err error) {
	err = e.peering(circuit, peering, path, func(v *vrf) {
		peers := e.peers(v.cfg)
		for i, c := range v.cfg.Sessions {
			s := e.sessions[c.Name]
			status := e.carrier(s).status
			counts := v.rib.Counts(c.Name)
			row := SummaryRow{Neighbor: c.Peer.String(), V: 4, AS: c.PeerAS, UpDown: upDown(time.Since(status.Since)), StatePfxRcd: string(status.State)}
			if status.Since.IsZero() {
				row.UpDown = "never"
			}
			if status.State == bgp.StateEstablished {
				row.StatePfxRcd = strconv.Itoa(counts.Received)
			}
			if why {
				row.Detail = &SummaryDetail{Behind: v.behind(&peers[i]), Received: counts.Received, Refused: counts.Refused,
					Prefixes: s.limitStatus(counts.Received)}
				if status.State == bgp.StateEstablished {
					row.Detail.Advertised = counts.Advertised
				} else {
					row.Detail.Reason = status.Reason
				}
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}

// upDown is a time as this kind of router prints it: 00:01:15, 1d02h, 3w2d.
func upDown(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	const day = 86400
	switch {
	case s < day:
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	case s < 7*day:
		return fmt.Sprintf("%dd%02dh", s/day, s%day/3600)
	}
	return fmt.Sprintf("%dw%dd", s/(7*day), s%(7*day)/day)
}

// ARPTable lists the two ends of a peering's link as Azure does. A customer who
// was never heard is there too, as Incomplete.
func (e *Edge) ARPTable(circuit, peering, path string) (rows []ARPTableRow, err error) {
	err = e.peering(circuit, peering, path, func(v *vrf) {
		var microsoft []ARPTableRow
		for _, s := range v.subs {
			if s.cfg.Side != config.SideCustomer {
				continue
			}
			all, err := s.arp()
			if err != nil {
				e.log.Warn("read neighbor table", "interface", s.cfg.Name, "err", err)
			}
			for _, a := range all {
				row := ARPTableRow{Age: a.Age / 60, Interface: a.Property, IPAddress: a.Addr.String(), MACAddress: a.MAC}
				switch {
				case !a.Addr.Is4(): // what is not ARP Azure does not show
				case a.Property == "Microsoft":
					microsoft = append(microsoft, row)
				default:
					rows = append(rows, row)
				}
			}
		}
		for _, s := range v.cfg.Sessions {
			known := func(r ARPTableRow) bool { return r.IPAddress == s.Peer.String() }
			if s.Side == config.SideCustomer && s.Peer.Is4() && !slices.ContainsFunc(rows, known) {
				rows = append(rows, ARPTableRow{0, "On-Prem", s.Peer.String(), "Incomplete"})
			}
		}
		rows = append(rows, microsoft...)
	})
	return rows, err
}

// Stats counts a peering's octets on this device's path.
func (e *Edge) Stats(circuit, peering string) (stats PeeringStats, err error) {
	err = e.peering(circuit, peering, "", func(v *vrf) {
		m := e.accounts.meters[v.cfg.Name]
		if m == nil {
			return
		}
		r := m.reading()
		if e.device.Role == "secondary" {
			stats.SecondaryBytesIn, stats.SecondaryBytesOut = r.InBytes, r.OutBytes
		} else {
			stats.PrimaryBytesIn, stats.PrimaryBytesOut = r.InBytes, r.OutBytes
		}
	})
	return stats, err
}

// ServiceStatus is one community of Microsoft's services at a Microsoft
// peering, and whether it is announced there.
type ServiceStatus struct {
	VRF        string          `json:"vrf"`
	Community  community.Value `json:"communityValue"`
	Name       string          `json:"communityName"`
	Service    string          `json:"serviceName"`
	Region     string          `json:"serviceSupportedRegion"`
	Prefixes   int             `json:"prefixes"` // of both families
	Advertised int             `json:"advertised"`
	Why        string          `json:"why"`
}

// Services lists the services for each Microsoft peering.
func (e *Edge) Services() (rows []ServiceStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.VRFs {
			if c.PeeringType != string(circuit.MicrosoftPeering) {
				continue
			}
			told := e.vrfs[c.Name].advertised()
			for _, s := range e.device.Services {
				for _, sc := range s.Communities {
					rows = append(rows, serviceStatus(&c, s.Name, &sc, told))
				}
			}
		}
	})
	return rows, err
}

// advertised is the set of prefixes that a VRF's customer sessions are told.
func (v *vrf) advertised() map[netip.Prefix]bool {
	told := map[netip.Prefix]bool{}
	for _, s := range v.cfg.Sessions {
		if s.Side == config.SideCustomer {
			for _, r := range v.rib.AdjRIBOut(s.Name) {
				told[r.Prefix] = true
			}
		}
	}
	return told
}

func serviceStatus(c *config.VRF, service string, sc *community.ServiceCommunity, told map[netip.Prefix]bool) ServiceStatus {
	row := ServiceStatus{VRF: c.Name, Community: sc.Value, Name: sc.Name, Service: service, Region: sc.Region, Prefixes: len(sc.Prefixes)}
	for _, p := range sc.Prefixes {
		row.Advertised += boolToInt(told[p])
	}
	reached := slices.ContainsFunc(c.Originate, func(o config.Originated) bool { return slices.Contains(o.Communities, sc.Value) })
	filtered := slices.Contains(c.RouteFilter, sc.Value) || slices.Contains(c.RouteFilterIPv6, sc.Value)
	switch {
	case !sc.Authorized:
		row.Why = "not authorised"
	case !reached && len(sc.Prefixes) > 0:
		row.Why = "not reached by the circuit's SKU"
	case filtered && row.Advertised == 0:
		row.Why = "in the route filter, but no way to Microsoft's network, or no session of that family"
	case filtered:
		row.Why = "in the route filter"
	case c.RouteFilterName == "" && c.RouteFilterIPv6Name == "":
		row.Why = "no route filter"
	case row.Advertised > 0:
		row.Why = "by other communities of the same prefixes"
	default:
		row.Why = "not in the route filter"
	}
	return row
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// PublicPrefixes is what a Microsoft peering's customer wants to announce.
type PublicPrefixes struct {
	VRF      string                  `json:"vrf"`
	State    circuit.ValidationState `json:"advertisedPublicPrefixesState"`
	Prefixes []PublicPrefix          `json:"advertisedPublicPrefixInfo"`
}

// PublicPrefix is one of them.
type PublicPrefix struct {
	Prefix netip.Prefix            `json:"prefix"`
	State  circuit.ValidationState `json:"validationState"`
}

// PublicPrefixes lists the Microsoft peerings' advertisedPublicPrefixes.
func (e *Edge) PublicPrefixes() (rows []PublicPrefixes, err error) {
	err = e.do(func() {
		for _, c := range e.device.VRFs {
			if c.PeeringType != string(circuit.MicrosoftPeering) {
				continue
			}
			row := PublicPrefixes{VRF: c.Name, Prefixes: []PublicPrefix{}}
			var states []circuit.ValidationState
			for _, a := range c.Advertised {
				row.Prefixes = append(row.Prefixes, PublicPrefix(a))
				states = append(states, a.State)
			}
			row.State = circuit.Overall(states)
			rows = append(rows, row)
		}
	})
	return rows, err
}
