package edge

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"msee/bgp"
	"msee/circuit"
	"msee/config"
	"msee/dataplane"
)

// From one desired state to the next: first everything new is made, which may
// fail and is then undone; then it takes the old one's place, which must not
// fail half way; then what nobody needs any more is closed. What is equal in
// both is not touched.

// vrf is a running VRF.
type vrf struct {
	cfg       config.VRF
	index     int
	kernel    *kernelVRF
	subs      map[string]*subinterface
	origin    *tap                    // what the kernel says to stations beyond our subnets
	fromTap   *dataplane.Subinterface // origin, to the dataplane
	rib       *bgp.RIB
	fwd       *forwarding
	endpoints *endpoints
	gateway   *gateway                // nil on an MSEE
	announced []config.Endpoint       // to the MSEEs, by a gateway
	heardOf   map[netip.Addr]struct{} // of a gateway: what hosts tell by EVPN, for stations
	audit     AuditStatus
	repair    repair
	daemon    *bfdDaemon    // nil: no BFD daemon is looked for
	stop      chan struct{} // ends the neighbor watch
	watching  sync.WaitGroup
}

// subinterface is a running subinterface. cfg and dp are replaced when the
// configuration changes; the TAP stays.
type subinterface struct {
	cfg  config.Subinterface
	vrf  *vrf
	port *portState
	tap  *tap
	punt *dataplane.Punt
	dp   *dataplane.Subinterface
	tpid uint16 // in the headers of its adjacencies
	// tunnel is that of one on a VXLAN network; nil on a link, or before setTunnels.
	tunnel *tunnel
	pair   *pairLink // nil: not of a gateway's pair
}

// made is what a change has opened so far.
type made struct {
	ports map[string]*portState
	vrfs  map[string]*vrf
	subs  []*subinterface
}

// keepRouterID returns dev with the router ID in force: a new one would reset
// every session, where a reload touches only what has changed.
func (e *Edge) keepRouterID(dev *config.Device) *config.Device {
	id := e.device.RouterID
	if !id.IsValid() || id == dev.RouterID {
		return dev
	}
	e.log.Warn("the router ID stays until a restart", "is", id, "configured", dev.RouterID)
	kept := *dev
	kept.RouterID = id
	return &kept
}

func (e *Edge) apply(dev *config.Device) error {
	if reflect.DeepEqual(e.device, dev) && !e.incomplete {
		return nil
	}
	m, err := e.make(dev)
	if err != nil {
		e.unmake(m)
		return err
	}
	err = e.commit(dev, m)
	e.incomplete = err != nil
	return err
}

// make opens what dev has and e.device has not.
func (e *Edge) make(dev *config.Device) (m made, err error) {
	m = made{ports: map[string]*portState{}, vrfs: map[string]*vrf{}}
	for _, p := range dev.Ports {
		ps := e.openedPort(p)
		if ps == nil {
			if ps, err = e.openPort(p); err != nil {
				return m, fmt.Errorf("port %s: %w", p.Name, err)
			}
			m.ports[p.Name] = ps
		}
		if p.MACsec != nil {
			if err := checkMACsec(dev, p, ps.port.Name()); err != nil {
				return m, fmt.Errorf("port %s: %w", p.Name, err)
			}
		}
		if err := checkUnderlay(dev, p, ps.port.Name()); err != nil {
			return m, fmt.Errorf("port %s: %w", p.Name, err)
		}
	}
	for _, c := range dev.VRFs {
		v := e.vrfs[c.Name]
		if v == nil {
			e.closing.Wait() // a namespace of that name may be on its way out
			if v, err = e.newVRF(c); err != nil {
				return m, fmt.Errorf("make VRF %s: %w", c.Name, err)
			}
			m.vrfs[c.Name] = v
		}
		for _, s := range c.Subinterfaces {
			if v.subs[s.Name] != nil {
				continue
			}
			p := m.ports[s.Port]
			if p == nil {
				i := slices.IndexFunc(dev.Ports, func(p config.Port) bool { return p.Name == s.Port })
				p = e.openedPort(dev.Ports[i])
			}
			sub, err := e.newSubinterface(v, p, s)
			if err != nil {
				return m, err
			}
			m.subs = append(m.subs, sub)
		}
	}
	return m, nil
}

func (e *Edge) unmake(m made) {
	for _, s := range m.subs {
		s.closeTap()
	}
	for _, v := range m.vrfs {
		e.removeVRF(v)
	}
	for _, p := range m.ports {
		e.engine.RemovePort(p.index)
		p.dark = false // its link is as it was found
		e.closePort(p)
	}
}

func (e *Edge) newVRF(c config.VRF) (*vrf, error) {
	kernel, err := newKernelVRF(e.namespace(c.Name), e.log)
	if err != nil {
		return nil, err
	}
	origin, err := kernel.newOrigin()
	if err != nil {
		kernel.close()
		return nil, err
	}
	v := &vrf{cfg: config.VRF{Name: c.Name}, index: e.nextVRF, kernel: kernel, subs: map[string]*subinterface{},
		origin: origin, rib: bgp.NewRIB(e.policy(c), nil), fwd: newForwarding(), stop: make(chan struct{})}
	v.endpoints = newEndpoints(e.fastPath)
	e.setGateway(v, c.Gateway)
	v.fromTap = &dataplane.Subinterface{Name: originName, VRF: v.index, Origin: true,
		Punt: dataplane.NewPunt(origin.fd), Counters: new(dataplane.Counters)}
	e.nextVRF++
	emit := func(n neighbor) {
		select {
		case e.neighbors <- n:
		case <-v.stop:
		case <-e.stop:
		}
	}
	if err := kernel.watchNeighbors(v, emit, v.stop, &v.watching); err != nil {
		origin.device.Close()
		kernel.close()
		return nil, err
	}
	return v, nil
}

// namespace names the namespace of a VRF.
func (e *Edge) namespace(vrf string) string { return e.opts.Instance + "." + vrf }

func (e *Edge) removeVRF(v *vrf) {
	close(v.stop)
	v.daemon.close()
	v.watching.Wait()
	for _, s := range v.subs {
		s.closeTap()
	}
	v.origin.device.Close()
	v.kernel.close()
}

func (e *Edge) newSubinterface(v *vrf, p *portState, cfg config.Subinterface) (*subinterface, error) {
	s := &subinterface{vrf: v}
	t, err := v.kernel.newTap(s.onTap(cfg), p.port.MAC())
	if err != nil {
		return nil, err
	}
	s.tap, s.punt = t, dataplane.NewPunt(t.fd)
	s.configure(cfg, p, new(dataplane.Counters))
	s.dp.Ingress, s.dp.Egress = e.accounts.ways(v.cfg.Name, cfg)
	return s, nil
}

// closeTap closes the TAP, with what hangs on it.
func (s *subinterface) closeTap() {
	s.pair.release()
	s.tap.device.Close()
}

var sourceChecks = map[circuit.SourceCheck]dataplane.SourceCheck{
	circuit.SourceAny: dataplane.SourceAny, circuit.SourceLoose: dataplane.SourceLoose, circuit.SourceStrict: dataplane.SourceStrict,
}

// configure gives the subinterface a new dataplane object for cfg.
func (s *subinterface) configure(cfg config.Subinterface, p *portState, counters *dataplane.Counters) {
	s.cfg, s.port, s.tpid = cfg, p, p.cfg.TPID
	s.dp = &dataplane.Subinterface{Name: cfg.Name, Port: p.index, VRF: s.vrf.index,
		Outer: cfg.CTag, MTU: cfg.MTU, Punt: s.punt, Counters: counters}
	if cfg.STag != 0 {
		s.dp.Outer, s.dp.Inner = cfg.STag, cfg.CTag
	}
	s.dp.SourceCheck = sourceChecks[cfg.SourceCheck]
	if cfg.Sources != nil {
		s.dp.Sources = dataplane.NewSources(cfg.Sources...)
	}
	if cfg.Pair == nil {
		s.pair.release()
		s.pair = nil
	} else {
		if s.pair == nil {
			s.pair = &pairLink{}
		}
		s.pair.hop, s.dp.Link = hop{sub: s, addr: cfg.Pair.Peer}, cfg.Pair.Local
	}
	s.dp.Underlay = cfg.Side == config.SideUnderlay
	s.dp.Gateway = s.vrf.gatewayOf(cfg)
	if cfg.Side == config.SideCustomer {
		s.dp.Endpoints = s.vrf.endpoints.dp
	}
	for _, a := range cfg.Addresses {
		if a.Addr().Is4() {
			s.dp.Addr4, s.dp.Subnet4 = a.Addr(), a.Masked()
		} else {
			s.dp.Addr6, s.dp.Subnet6 = a.Addr(), a.Masked()
		}
	}
}

// commit makes dev the running state, with what make has opened.
func (e *Edge) commit(dev *config.Device, m made) error {
	e.dropSessions(dev)
	changed := map[*vrf]bool{} // of whose subinterfaces something is new
	var gone []*subinterface
	var failed error
	for _, s := range m.subs {
		s.vrf.subs[s.cfg.Name] = s
		changed[s.vrf] = true
	}
	for name, v := range m.vrfs {
		e.vrfs[name] = v
	}
	closedPorts := e.setPorts(dev, m)
	for _, p := range e.ports {
		if err := errors.Join(e.setMACsec(p), e.setKaY(p)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("port %s: MACsec: %w", p.cfg.Name, err))
		}
	}
	for _, c := range dev.VRFs {
		v := e.vrfs[c.Name]
		removed, touched, err := e.reconfigure(v, c)
		failed = errors.Join(failed, err)
		gone = append(gone, removed...)
		if touched {
			changed[v] = true
		}
	}
	var removedVRFs []*vrf
	for name, v := range e.vrfs {
		if !slices.ContainsFunc(dev.VRFs, func(c config.VRF) bool { return c.Name == name }) {
			e.forgetEndpoints(v)
			v.daemon.close()
			for _, s := range v.subs {
				s.leaveTunnels()
			}
			removedVRFs = append(removedVRFs, v)
			delete(e.vrfs, name)
		}
	}
	e.device = dev
	told := e.setNetworks()
	e.setSessions(dev)
	e.setTunnels()
	for v := range changed {
		e.rebuild(v)
	}
	e.overlayChanged(told)
	e.toldAgain()
	e.advertiseOverlay()
	for _, v := range e.vrfs {
		v.fwd.commit()
	}
	e.publishSnapshot(e.portTables())
	e.engine.Sync()
	e.lookForDaemons()
	e.setAdminStates(time.Now())
	failed = errors.Join(failed, e.setRings())
	e.setBFD()
	for _, s := range gone {
		s.closeTap()
	}
	for _, p := range closedPorts {
		e.closePort(p)
	}
	// Removing a namespace takes the kernel a while; nobody waits for it.
	e.closing.Go(func() {
		for _, v := range removedVRFs {
			e.removeVRF(v)
		}
	})
	if failed != nil {
		return fmt.Errorf("applied, except for what follows, which the next reload tries again: %w", failed)
	}
	return nil
}

// setPorts makes dev's ports the ones there are, and returns those to close.
func (e *Edge) setPorts(dev *config.Device, m made) []*portState {
	ports := map[string]*portState{}
	kept := map[*portState]bool{}
	for _, p := range dev.Ports {
		ps := m.ports[p.Name]
		if ps == nil {
			ps = e.openedPort(p)
		}
		ports[p.Name], kept[ps] = ps, true
	}
	var closed []*portState
	for _, ps := range e.ports {
		if !kept[ps] {
			closed = append(closed, ps)
		}
	}
	for _, p := range dev.Ports {
		ports[p.Name].cfg = p
	}
	e.ports = ports
	return closed
}

// ceaseTime lets a removed session's Cease reach the peer before its
// subinterface goes.
const ceaseTime = 200 * time.Millisecond

// dropSessions ends the sessions that dev has not, while they can still say so.
func (e *Edge) dropSessions(dev *config.Device) {
	wanted := map[string]bool{}
	for _, v := range dev.VRFs {
		for _, s := range v.Sessions {
			wanted[s.Name] = true
		}
	}
	dropped := false
	for name := range e.sessions {
		if !wanted[name] {
			e.unwatchBFD(e.sessions[name])
			e.overlayChanged(e.overlay.table.Drop(name))
			delete(e.sessions, name)
			dropped = true
		}
	}
	if dropped {
		e.speaker.Configure(e.sessionConfigs())
		time.Sleep(ceaseTime) // the control loop's; forwarding goes on
	}
}

// reconfigure brings a VRF's subinterfaces and policy to c. It returns the
// subinterfaces that are gone, and whether those left have changed.
func (e *Edge) reconfigure(v *vrf, c config.VRF) (gone []*subinterface, changed bool, err error) {
	limited := e.setGateway(v, c.Gateway)
	for name, s := range v.subs {
		i := slices.IndexFunc(c.Subinterfaces, func(x config.Subinterface) bool { return x.Name == name })
		if i < 0 {
			gone = append(gone, s)
			s.leaveTunnels()
			delete(v.subs, name)
			changed = true
			continue
		}
		cfg := c.Subinterfaces[i]
		p := e.ports[cfg.Port]
		if reflect.DeepEqual(s.cfg, cfg) && s.port == p && s.tpid == p.cfg.TPID && s.tap.mac == p.port.MAC() && !limited {
			continue
		}
		changed = true
		was, alone := s.onTap(s.cfg), s.pair == nil
		s.configure(cfg, p, s.dp.Counters)
		if alone && s.pair != nil {
			s.pair.own, e.pair.ready = true, true // until reviewPair says otherwise
		}
		if e := v.kernel.change(s.tap, was, s.onTap(cfg), p.port.MAC()); e != nil {
			err = errors.Join(err, fmt.Errorf("subinterface %s: %w", name, e))
		}
		s.dp.Ingress, s.dp.Egress = e.accounts.ways(v.cfg.Name, cfg)
	}
	if p := e.policy(c); !reflect.DeepEqual(e.policy(v.cfg), p) {
		e.ribChanged(v, v.rib.SetPolicy(p))
	}
	v.cfg = c
	return gone, changed, err
}

// setSessions brings the speaker and the RIBs to the sessions of dev; the
// speaker first, which knows no routes of sessions that it does not know.
func (e *Edge) setSessions(dev *config.Device) {
	var released []*session
	for _, c := range dev.VRFs {
		v := e.vrfs[c.Name]
		for _, s := range c.Sessions {
			if old := e.sessions[s.Name]; old != nil {
				if old.cfg.MaxPrefixes != s.MaxPrefixes && !old.limit.until.IsZero() {
					released = append(released, old) // there may be room now
				}
				old.cfg = s
				continue
			}
			e.sessions[s.Name] = &session{cfg: s, vrf: v,
				status: bgp.SessionStatus{Session: s.Name, State: bgp.StateIdle}}
		}
	}
	e.speaker.Configure(e.sessionConfigs())
	e.holdDrained()
	for _, c := range dev.VRFs {
		v := e.vrfs[c.Name]
		e.ribChanged(v, v.rib.SetPeers(e.peers(c)))
	}
	for _, s := range released {
		s.releaseLimit(e) // what EVPN's table has is heard at once, so the RIB knows the limit
	}
	for _, c := range dev.VRFs {
		v := e.vrfs[c.Name]
		e.ribChanged(v, v.rib.Originate(e.originated(c)))
		e.announceEndpoints(v, v.announced, c.Endpoints)
		v.announced = c.Endpoints
		e.askStations(v, func(netip.Addr) bool { return true })
	}
	e.reviewEndpoints()
}

// peers describes a VRF's sessions to its RIB.
func (e *Edge) peers(c config.VRF) []bgp.Peer {
	var peers []bgp.Peer
	for _, s := range c.Sessions {
		if s.EVPN {
			continue // its routes are none of the RIB's
		}
		p := bgp.Peer{Name: s.Name, AS: s.PeerAS, Local: s.Local, Addr: s.Peer, RouterID: e.device.RouterID,
			Connection: s.Connection, Weight: s.Weight, Side: bgp.SideCustomer, Subnet: subnet(c, s), MaxPrefixes: s.MaxPrefixes}
		p.Underlay, p.Beyond = e.underlayOf(c, s)
		if s.Side == config.SideMicrosoft {
			p.Side = bgp.SideMicrosoft
		}
		if s.Side == config.SideCore {
			p.Side = bgp.SideGateway
			if e.device.Kind == config.KindGateway {
				p.Side = bgp.SideMSEE
			}
		}
		peers = append(peers, p)
	}
	return peers
}

// subnet returns the subnet that a session's peer is on.
func subnet(c config.VRF, s config.Session) (p netip.Prefix) {
	for _, sub := range c.Subinterfaces {
		for _, a := range sub.Addresses {
			if sub.Name == s.Subinterface && a.Addr() == s.Local {
				p = a.Masked()
			}
		}
	}
	return p
}

// sessionConfigs describes all sessions to the speaker.
func (e *Edge) sessionConfigs() []bgp.SessionConfig {
	var all []bgp.SessionConfig
	for _, s := range e.sessions {
		if s.cfg.Carrier != "" {
			continue
		}
		all = append(all, bgp.SessionConfig{
			Name: s.cfg.Name, Namespace: s.vrf.kernel.namespace, Local: s.cfg.Local, Peer: s.cfg.Peer,
			LocalAS: e.device.ASN, PeerAS: s.cfg.PeerAS, RouterID: e.device.RouterID, Key: s.cfg.Key,
			Keepalive: s.cfg.Keepalive, Hold: s.cfg.Hold, MinHold: min(minHold, s.cfg.Hold),
			GracefulRestart: s.cfg.GracefulRestart, TTLSecurity: s.cfg.TTLSecurity, Multihop: s.cfg.Multihop, EVPN: s.cfg.EVPN, Enabled: s.cfg.Enabled,
		})
	}
	return all
}

// rebuild makes a VRF's forwarding state anew: its subinterfaces have changed,
// and with them what routes and adjacencies point at. Packets see the old
// table until the new one is published.
func (e *Edge) rebuild(v *vrf) {
	old := v.fwd
	v.fwd = newForwarding()
	v.fwd.inherit(old)
	for _, s := range v.subs {
		v.fwd.connect(s)
	}
	for prefix, nextHops := range v.rib.NextHops() {
		v.fwd.set(v.fwd.routed, prefix, e.routeTo(v, nextHops))
	}
	v.keepRepairing(old)
	v.rehost()
	e.retunnel(v)
	v.fwd.settle()
}
