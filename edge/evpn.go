package edge

import (
	"maps"
	"net/netip"
	"slices"

	"msee/bgp/evpn"
	"msee/circuit"
	"msee/config"
	"msee/dataplane/port"
)

// EVPN: what other VTEPs tell of a VXLAN network over sessions on the underlay: which ends
// the tunnels have, behind which of them a station is, and, on an MSEE, where an endpoint
// is, which FastPath then leads to. None of that is for a RIB; prefixes are, see
// prefixroutes.go. We tell of ourselves alike.

// overlay is what the control loop keeps of EVPN.
type overlay struct {
	table    *evpn.Table
	networks map[uint32]*subinterface // by VNI
	numbers  map[uint32]uint16        // of our route distinguishers, by VNI
}

// evpnRoutesPerSession bounds what is kept of a session: a host tells of an endpoint
// twice, with its address and without.
const evpnRoutesPerSession = 2 * endpointsPerSession

func newOverlay(as uint32) *overlay {
	return &overlay{table: evpn.NewTable(as, evpnRoutesPerSession), networks: map[uint32]*subinterface{}, numbers: map[uint32]uint16{}}
}

// number is that of a network's route distinguisher, unique in this device.
func (o *overlay) number(vni uint32) uint16 {
	n, ok := o.numbers[vni]
	if !ok {
		taken := func(n uint16) bool { return slices.Contains(slices.Collect(maps.Values(o.numbers)), n) }
		for n = uint16(vni); taken(n); n++ {
		}
		o.numbers[vni] = n
	}
	return n
}

// setNetworks has the table import for the networks that there are now.
func (e *Edge) setNetworks() evpn.Changes {
	clear(e.overlay.networks)
	var all []evpn.Network
	for _, v := range e.vrfs {
		for _, s := range v.subs {
			if s.cfg.VXLAN != nil {
				e.overlay.networks[s.cfg.VXLAN.VNI] = s
				all = append(all, evpn.Network{VNI: s.cfg.VXLAN.VNI, Import: s.cfg.VXLAN.Import})
			}
		}
	}
	return e.overlay.table.SetNetworks(all)
}

// targets are the route targets of what we tell of a network.
func (e *Edge) targets(s *subinterface) []evpn.RT {
	x := s.cfg.VXLAN
	if len(x.Export) > 0 {
		return x.Export
	}
	return []evpn.RT{evpn.NewRT(e.device.ASN, x.VNI)}
}

// overlayChanged acts on what has changed in the table: first on ends of tunnels, which
// the rest leads to.
func (e *Edge) overlayChanged(c evpn.Changes) {
	slices.Sort(c.VTEPs)
	for _, vni := range slices.Compact(c.VTEPs) {
		if s := e.overlay.networks[vni]; s != nil && s.tunnel != nil && s.dp.Tunnel != nil {
			e.setVTEPs(s)
			s.replace(nil)
		}
	}
	moved := map[*subinterface]map[port.MAC]bool{}
	for _, st := range c.Stations {
		s := e.overlay.networks[st.VNI]
		if s == nil || s.tunnel == nil || s.dp.Tunnel == nil {
			continue
		}
		if moved[s] == nil {
			moved[s] = map[port.MAC]bool{}
		}
		moved[s][port.MAC(st.MAC)] = true
	}
	for s, macs := range moved {
		s.place()
		s.replace(macs)
	}
	for _, h := range c.Hosts {
		e.hostTold(h)
	}
	e.prefixesTold(c.Prefixes)
}

// replace turns those neighbors, all if macs is nil, to where they are now.
func (s *subinterface) replace(macs map[port.MAC]bool) {
	for addr, mac := range s.tunnel.known {
		if macs == nil || macs[mac] {
			s.vrf.fwd.neighborChanged(hop{sub: s, addr: addr}, mac, true)
		}
	}
	if macs != nil {
		return
	}
	for h := range s.vrf.fwd.adjacencies {
		if h.sub == s && h.mac != (port.MAC{}) {
			s.vrf.fwd.neighborChanged(h, h.mac, true)
		}
	}
}

// hostTold takes what the table says of an address: an endpoint, unless it is on the
// network's own subnet, where the kernel's neighbors are, or a link's own, which nobody
// forwards to (RFC 4291 §2.5.6). To a gateway it is one that FastPath may go past it to.
func (e *Edge) hostTold(h evpn.Host) {
	s := e.overlay.networks[h.VNI]
	if s == nil || h.Addr.IsLinkLocalUnicast() || subnetOf(s.cfg.Addresses, h.Addr) {
		return
	}
	r := e.overlay.table.Host(h)
	if e.device.Kind != config.KindEdge {
		e.stationTold(s.vrf, h.Addr, r != nil)
		return
	}
	var w *way
	if r != nil {
		w = &way{session: s.cfg.Name, host: r.Attrs.NextHop, mac: port.MAC(r.Destination(h.VNI)), kind: circuit.EndpointVirtualMachine}
		if kind, ok := kindOf(r.Attrs.Communities); ok {
			w.kind = kind
		}
	}
	e.setWay(s.vrf, h.Addr, s.cfg.Name, w)
}

// speaks reports whether what a way says still stands, as far as configuration goes.
func (e *Edge) speaks(v *vrf, addr netip.Addr, w way) bool {
	if w.mac == (port.MAC{}) {
		return e.sessions[w.session] != nil
	}
	s := v.subs[w.session]
	return s != nil && s.cfg.VXLAN != nil && !subnetOf(s.cfg.Addresses, addr) &&
		e.overlay.table.Host(evpn.Host{VNI: s.cfg.VXLAN.VNI, Addr: addr}) != nil
}

// toldPlace is placeOf for what EVPN tells: the network is a connection's, whose
// sessions to the gateway say what is allowed and which prefixes are the VNet's.
func (e *Edge) toldPlace(v *vrf, addr netip.Addr, w way) (_ hop, refused circuit.Refusal) {
	s := v.subs[w.session]
	if s == nil || s.cfg.VXLAN == nil {
		return hop{}, "its VXLAN network is gone"
	}
	refused = "the address is in no prefix that its gateway announces"
	for i := range v.cfg.Sessions {
		c := &v.cfg.Sessions[i]
		if c.Subinterface != s.cfg.Name || c.Side != config.SideCore || c.Local.Is4() != addr.Is4() {
			continue
		}
		if why := c.FastPath.Refuses(w.kind); why != "" {
			return hop{}, why
		}
		if v.rib.Covers(c.Name, addr) {
			return hop{sub: s, addr: w.host, mac: w.mac}, ""
		}
	}
	return hop{}, refused
}

// advertiseOverlay tells EVPN sessions of our networks: that we are an end of their
// tunnels (type 3), our addresses in them (type 2), and to whom it is for the routes that
// lead by us (type 5).
func (e *Edge) advertiseOverlay() {
	vnis := slices.Sorted(maps.Keys(e.overlay.networks))
	for name, session := range e.sessions {
		if !session.cfg.EVPN {
			continue
		}
		var routes []evpn.Route
		for _, vni := range vnis {
			s := e.overlay.networks[vni]
			local := s.localVTEP(session.cfg.Local)
			if !local.IsValid() {
				continue
			}
			attrs := evpn.Attrs{NextHop: local, Extended: evpn.Extended{Targets: e.targets(s)}}
			flood := attrs
			attrs.Extended.RouterMAC = evpn.MAC(s.port.port.MAC()) // to an L3VNI of FRR's our address is a route by us
			flood.Flood = vni
			rd := evpn.NewRD(e.device.RouterID, e.overlay.number(vni))
			routes = append(routes, evpn.Route{Key: evpn.Key{Type: evpn.TypeMulticast, RD: rd, Prefix: host(local)}, Attrs: &flood})
			for _, a := range s.cfg.Addresses {
				routes = append(routes, evpn.Route{Key: evpn.Key{Type: evpn.TypeMACIP, RD: rd, MAC: evpn.MAC(s.port.port.MAC()),
					Prefix: host(a.Addr())}, VNI: vni, Attrs: &attrs})
			}
		}
		e.speaker.ReplaceEVPN(name, append(routes, e.prefixesFor(name)...))
	}
}

// EVPNStatus is an EVPN route.
type EVPNStatus struct {
	VNI         uint32     `json:"vni"`
	Type        uint8      `json:"type"`
	MAC         string     `json:"mac,omitempty"`
	Prefix      string     `json:"prefix,omitempty"`
	VTEP        netip.Addr `json:"vtep"`
	Destination string     `json:"destination,omitempty"` // the MAC that packets are sent to
	Sequence    uint32     `json:"sequence"`              // MAC mobility
	Sticky      bool       `json:"sticky,omitempty"`
	RD          string     `json:"routeDistinguisher"`
	Targets     []string   `json:"routeTargets"`
	Session     string     `json:"session"`
	Best        bool       `json:"best"`
	Stale       bool       `json:"stale,omitempty"`
}

// EVPN lists the EVPN routes received.
func (e *Edge) EVPN() (rows []EVPNStatus, err error) {
	err = e.do(func() {
		for _, r := range e.overlay.table.Entries() {
			row := EVPNStatus{VNI: r.Network(), Type: r.Type, VTEP: r.Attrs.NextHop, Sequence: r.Attrs.Extended.Sequence,
				Sticky: r.Attrs.Extended.Sticky, RD: r.RD.String(), Targets: []string{}, Session: r.Session, Stale: r.Stale}
			if r.Prefix.IsValid() {
				row.Prefix = r.Prefix.String()
			}
			if d := r.Destination(row.VNI); d != (evpn.MAC{}) {
				row.Destination = d.String()
			}
			for _, rt := range r.Attrs.Extended.Targets {
				row.Targets = append(row.Targets, rt.String())
			}
			if r.Type == evpn.TypeMACIP {
				row.MAC = r.MAC.String()
				best := e.overlay.table.Station(evpn.Station{VNI: row.VNI, MAC: r.MAC})
				if r.Prefix.IsValid() {
					best = e.overlay.table.Host(evpn.Host{VNI: row.VNI, Addr: r.Prefix.Addr()})
				}
				row.Best = best == r
			} else {
				row.Best = e.overlay.table.Imported(r)
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}

// kindOf returns the kind of endpoint that communities tell of.
func kindOf(communities []uint32) (circuit.EndpointKind, bool) {
	for _, c := range communities {
		if n := c - endpointCommunity; n < uint32(len(circuit.EndpointKinds)) {
			return circuit.EndpointKinds[n], true
		}
	}
	return "", false
}
