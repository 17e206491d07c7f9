package edge

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"msee/bgp/evpn"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
	"msee/vlan"
)

// Subinterfaces on VXLAN networks. Their neighbors are the kernel's business as
// on any link; that tells the MAC, and what has come from that MAC tells behind
// which end of a tunnel it is. The other ends are neighbors on the underlay, whose
// adjacencies stay the same objects as long as the tunnels do.

// tunnel is what the control loop keeps of a subinterface on a VXLAN network.
type tunnel struct {
	told     *evpn.Table             // by EVPN
	via      []hop                   // the other ends, on the underlay
	stations map[port.MAC]netip.Addr // behind which of them each station is
	known    map[netip.Addr]port.MAC // the kernel's neighbors
}

// maxStations is of how many stations per network is remembered where they are: of
// more than a kernel has neighbors, as a rule (gc_thresh3). All are told to the
// workers with each that is new.
const maxStations = 4096

// setTunnels gives subinterfaces on VXLAN networks their tunnels, those that are
// new or have changed.
func (e *Edge) setTunnels() {
	for _, v := range e.vrfs {
		for _, s := range v.subs {
			if s.cfg.VXLAN == nil || s.dp.Tunnel != nil {
				continue
			}
			if s.tunnel == nil {
				s.tunnel = &tunnel{told: e.overlay.table, stations: map[port.MAC]netip.Addr{}, known: map[netip.Addr]port.MAC{}}
			}
			s.dp.Tunnel = dataplane.NewTunnel(s.cfg.VXLAN.VNI, nil)
			e.setVTEPs(s)
		}
	}
}

// setVTEPs gives a tunnel the other ends that are configured, and those that EVPN tells
// of. Those that it has stay the same objects.
func (e *Edge) setVTEPs(s *subinterface) {
	underlay := e.vrfs[config.UnderlayVRF]
	on := underlay.subs[s.cfg.VXLAN.Underlay]
	all, flood := s.tunnel.told.VTEPs(s.cfg.VXLAN.VNI)
	var vteps, flooded []*dataplane.VTEP
	was := s.tunnel.via
	s.tunnel.via = nil
	for _, addr := range union(s.cfg.VXLAN.Remote, all) {
		h, ok := s.via(on, addr)
		if !ok {
			continue // told
		}
		a := underlay.fwd.adjacency(h)
		a.users++
		s.tunnel.via = append(s.tunnel.via, h)
		if !underlay.fwd.resolved(h) {
			e.asking[h] = true
		}
		v := s.dp.Tunnel.VTEP(addr)
		if v == nil || v.Via != a.Adjacency {
			v = dataplane.NewVTEP(s.localVTEP(addr), addr, s.cfg.VXLAN.VNI, a.Adjacency)
		}
		vteps = append(vteps, v)
		if _, told := slices.BinarySearchFunc(flood, addr, netip.Addr.Compare); told || slices.Contains(s.cfg.VXLAN.Remote, addr) {
			flooded = append(flooded, v)
		}
	}
	leave(was)
	s.dp.Tunnel.SetVTEPs(vteps, flooded)
	s.place()
}

// via is the neighbor on the underlay that leads to another end of the tunnels: that end,
// or the router that it is beyond.
func (s *subinterface) via(on *subinterface, a netip.Addr) (h hop, ok bool) {
	if subnetOf(on.cfg.Addresses, a) {
		return hop{sub: on, addr: a}, remoteEnd(on.cfg.Addresses, a)
	}
	i := slices.IndexFunc(s.cfg.VXLAN.Routes, func(r config.UnderlayRoute) bool { return r.Prefix.Contains(a) })
	if i < 0 {
		return hop{}, false
	}
	return hop{sub: on, addr: s.cfg.VXLAN.Routes[i].NextHop}, true
}

// remoteEnd reports whether an address can be another's end of a tunnel on an underlay of
// these: not one beyond a router, nor our own, nor one that means all of an IPv4 subnet.
func remoteEnd(addresses []netip.Prefix, a netip.Addr) bool {
	i := slices.IndexFunc(addresses, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 || addresses[i].Addr() == a {
		return false
	}
	p := addresses[i]
	return a.Is6() || p.Bits() >= 31 || a != p.Masked().Addr() && p.Contains(a.Next())
}

// union returns what is in a or b, sorted.
func union(a, b []netip.Addr) []netip.Addr {
	all := slices.Concat(a, b)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// localVTEP is our end of a tunnel to addr.
func (s *subinterface) localVTEP(addr netip.Addr) (local netip.Addr) {
	for _, a := range s.cfg.VXLAN.Local {
		if a.Is4() == addr.Is4() {
			local = a
		}
	}
	return local
}

// leave lets go of the other ends of tunnels.
func leave(via []hop) {
	for _, h := range via {
		if a := h.sub.vrf.fwd.adjacencies[h]; a != nil {
			a.users--
			h.sub.vrf.fwd.forget(a)
		}
	}
}

// leaveTunnels lets go of those of a subinterface that goes.
func (s *subinterface) leaveTunnels() {
	if s.tunnel != nil {
		leave(s.tunnel.via)
		s.tunnel.via = nil
	}
}

// retunnel takes the other ends of tunnels over into the underlay's forwarding
// state made anew, which has inherited their adjacencies.
func (e *Edge) retunnel(underlay *vrf) {
	for _, v := range e.vrfs {
		for _, s := range v.subs {
			if s.tunnel == nil {
				continue
			}
			for _, h := range s.tunnel.via {
				if h.sub.vrf == underlay {
					underlay.fwd.adjacency(h).users++
				}
			}
		}
	}
}

// place tells the workers where the stations are.
func (s *subinterface) place() {
	places := make(map[port.MAC]*dataplane.VTEP, len(s.tunnel.stations)+len(s.tunnel.known))
	place := func(mac port.MAC) {
		if v := s.vtep(mac); v != nil {
			places[mac] = v
		}
	}
	for mac := range s.tunnel.stations {
		place(mac)
	}
	for _, mac := range s.tunnel.known { // and may be told of, not learned
		place(mac)
	}
	s.dp.Tunnel.Place(places)
}

// vtep is the end of a tunnel that a station is behind; nil if nobody knows. What EVPN
// tells counts before what was learned.
func (s *subinterface) vtep(mac port.MAC) *dataplane.VTEP {
	if r := s.tunnel.told.Station(evpn.Station{VNI: s.cfg.VXLAN.VNI, MAC: evpn.MAC(mac)}); r != nil && s.dp.Tunnel != nil {
		return s.dp.Tunnel.VTEP(r.Attrs.NextHop)
	}
	if addr, ok := s.tunnel.stations[mac]; ok && s.dp.Tunnel != nil {
		return s.dp.Tunnel.VTEP(addr)
	}
	return nil
}

// stationLearned notes where a station is, and with that where the neighbors are
// that it is.
func (e *Edge) stationLearned(l dataplane.Learned) {
	for _, v := range e.vrfs {
		for _, s := range v.subs {
			if s.dp != l.In {
				continue
			}
			if len(s.tunnel.stations) >= maxStations {
				s.forgetStrangers()
			}
			s.tunnel.stations[l.MAC] = l.VTEP.Addr
			s.place()
			for addr, mac := range s.tunnel.known {
				if mac == l.MAC {
					v.fwd.neighborChanged(hop{sub: s, addr: addr}, mac, true)
				}
			}
		}
	}
}

// forgetStrangers forgets where stations are that are no neighbors.
func (s *subinterface) forgetStrangers() {
	kept := map[port.MAC]netip.Addr{}
	for _, mac := range s.tunnel.known {
		if addr, ok := s.tunnel.stations[mac]; ok {
			kept[mac] = addr
		}
	}
	s.tunnel.stations = kept
}

// kernelKnows notes what the kernel says of a neighbor, for when it is learned
// where it is.
func (t *tunnel) kernelKnows(n neighbor) {
	if n.usable {
		t.known[n.addr] = n.mac
	} else {
		delete(t.known, n.addr)
	}
}

// checkUnderlay refuses a device that does not hold the packets of the tunnels.
func checkUnderlay(dev *config.Device, p config.Port, device string) error {
	for _, v := range dev.VRFs {
		for _, s := range v.Subinterfaces {
			if s.Side != config.SideUnderlay || s.Port != p.Name {
				continue
			}
			link, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			need := s.MTU
			if s.CTag != 0 {
				need += vlan.TagLen
			}
			if link.MTU < need {
				return fmt.Errorf("device %s has MTU %d, too small for the underlay: want at least %d, or a smaller underlay.mtu", device, link.MTU, need)
			}
		}
	}
	return nil
}
