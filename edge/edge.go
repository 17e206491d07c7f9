// Package edge assembles a device, an MSEE or a gateway instance, from its
// desired state: ports and their workers, VRFs with their namespaces, TAPs,
// RIBs and FIBs, and the BGP speaker. It is the only package that sees both
// control and forwarding, and every goroutine of a device starts and ends
// here.
//
// All state belongs to one goroutine, the control loop; others hand it
// functions.
package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"msee/bgp"
	"msee/bgp/speaker"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

// Options are what a device needs besides its configuration.
type Options struct {
	// Instance names this process among those of the machine: namespaces of
	// VRFs are called INSTANCE.VRF.
	Instance string
	// Speaker is the command line of the BGP speaker process.
	Speaker []string
	// Guard is the command line of the process that sees to it that BFD is on
	// time; nil for none.
	Guard []string
	// MeterFile keeps the meters when the process ends; "" keeps nothing.
	MeterFile string
	// PacketNumberFile keeps the packet numbers of static MACsec keys; with ""
	// static keys are refused.
	PacketNumberFile string
	Log              *slog.Logger
}

// Edge is a running device.
type Edge struct {
	opts    Options
	log     *slog.Logger
	started time.Time

	engine     *dataplane.Engine
	speaker    *speaker.Speaker
	endSpeaker context.CancelFunc

	// The control loop's own.
	device          *config.Device
	ports           map[string]*portState
	vrfs            map[string]*vrf
	sessions        map[string]*session
	foreign         map[uint32]*foreign // BFD daemons' sessions, by discriminator
	accounts        accounting
	packetNumbers   packetNumbers
	fastPath        *dataplane.FastPath
	endpointPorts   map[string]*endpointPort // by port name
	overlay         *overlay
	nextPort        int
	nextVRF         int
	maintenance     Maintenance
	pair            pair
	speakerRestarts int
	incomplete      bool         // the last apply could not do all
	asking          map[hop]bool // neighbors to ask the kernel for
	neighbors       chan neighbor
	links           chan netlink.LinkUpdate
	calls           chan func()
	stop            chan struct{}
	done            sync.WaitGroup
	closing         sync.WaitGroup // of what was removed
}

// session is what the control loop keeps of a BGP session.
type session struct {
	cfg    config.Session
	vrf    *vrf
	status bgp.SessionStatus
	limit  limit
	// reached, of a session with Microsoft's network: it can be forwarded to.
	reached bool
	// sweepAt is when stale routes go, from before a restart of the speaker or
	// of the peer, if the session has not told its table anew by then; zero if
	// there are none.
	sweepAt time.Time
	bfd     *bfdWatch // nil: none
	since   time.Time // when it was last established
	told    bool      // all that the peer had to tell since then, or before a restart
}

const (
	// tickEvery is the pace of what is done by the clock: asking again for
	// neighbors, sweeping stale routes.
	tickEvery = time.Second
	// probeEvery is how often, in seconds, the kernel is asked whether a next
	// hop is still there. It confirms silently as long as they answer.
	probeEvery = 10
	// staleFor is how long routes outlive the speaker that heard them, and how
	// long a peer that is back may take to its End-of-RIB.
	staleFor = 60 * time.Second
	// retainAtMost bounds how long a peer's routes outlive its session, whatever
	// restart time it has asked for (up to 4095 s, RFC 4724 §3): without BFD, a
	// peer that is dead would swallow traffic all that time.
	retainAtMost = 3 * time.Minute
	// minHold is the shortest hold time that an MSEE agrees to.
	minHold = 10 * time.Second
	// eventBatch bounds how many speaker events go into one publication, and
	// eventTime how long the loop takes over them: others wait.
	eventBatch = 256
	eventTime  = 20 * time.Millisecond
)

// ErrStopped is returned by calls to a device that has stopped.
var ErrStopped = errors.New("the device has stopped")

// Start brings up the device that dev describes. If anything of it cannot be
// made, nothing remains and the error says what.
func Start(dev *config.Device, opts Options) (*Edge, error) {
	e := &Edge{
		opts: opts, log: opts.Log, started: time.Now(),
		engine:      dataplane.NewEngine(opts.Log),
		device:      &config.Device{},
		maintenance: InService,
		ports:       map[string]*portState{},
		vrfs:        map[string]*vrf{},
		sessions:    map[string]*session{},
		foreign:     map[uint32]*foreign{},
		fastPath:    &dataplane.FastPath{}, endpointPorts: map[string]*endpointPort{},
		overlay:   newOverlay(dev.ASN),
		asking:    map[hop]bool{},
		neighbors: make(chan neighbor, 256),
		links:     make(chan netlink.LinkUpdate, 16),
		calls:     make(chan func()),
		stop:      make(chan struct{}),
	}
	e.engine.GuardBy(opts.Guard)
	if err := e.accounts.load(opts.MeterFile); err != nil {
		e.log.Error("meters", "err", err)
	}
	e.packetNumbers.load(opts.PacketNumberFile)
	ctx, cancel := context.WithCancel(context.Background())
	e.speaker, e.endSpeaker = speaker.Start(ctx, opts.Speaker, opts.Log), cancel
	err := e.apply(e.withoutPairs(dev))
	if err == nil {
		err = e.watchLinks()
	}
	if err != nil {
		e.Stop()
		return nil, err
	}
	e.done.Go(e.control)
	return e, nil
}

// Stop ends the sessions with a Cease, then the workers, and removes
// everything that Start made.
func (e *Edge) Stop() {
	close(e.stop)
	e.done.Wait()
	e.leavePair()
	e.stopSpeaker() // while packets still flow, so that the Cease gets out
	e.endBFD()
	e.engine.Close()
	e.saveMeters()
	for _, v := range e.vrfs {
		e.removeVRF(v)
	}
	for _, p := range e.ports {
		p.dark = p.dark && !p.cfg.Disabled // such a link stays off until we start again
		e.closePort(p)
	}
	e.closing.Wait()
}

func (e *Edge) stopSpeaker() {
	if len(e.sessions) > 0 {
		e.speaker.Configure(nil)
		time.Sleep(ceaseTime)
	}
	e.endSpeaker()
	e.speaker.Wait()
}

// control is the control loop.
func (e *Edge) control() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case call := <-e.calls:
			call()
		case ev := <-e.speaker.Events():
			e.speakerEvents(ev)
		case n := <-e.neighbors:
			e.neighborChanged(n)
		case neighbor := <-e.engine.Unresolved():
			e.resolve(neighbor)
		case l := <-e.engine.Learned():
			e.stationLearned(l)
		case s := <-e.engine.LostTaps():
			e.remakeTap(s)
		case <-e.engine.BFDChanged():
			e.bfdChanged()
		case _, ok := <-e.links:
			if !ok {
				e.links = nil // the clock looks as well
			}
			e.checkLinks()
		case now := <-tick.C:
			e.tick(now)
		}
		e.reviewPair(time.Now())
		e.reviewAnnounced()
		e.ask()
		e.publish()
	}
}

// do runs f in the control loop and waits for it.
func (e *Edge) do(f func()) error {
	done := make(chan struct{})
	select {
	case e.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-e.stop:
		return ErrStopped
	}
}

// Apply makes dev, which is the Edge's from then on, the desired state. What did
// not change is not touched. If something new cannot be made, nothing changes.
func (e *Edge) Apply(dev *config.Device) (changes []config.Change, err error) {
	stopped := e.do(func() {
		if err = sameInstance(e.device, dev); err != nil {
			dev.Wipe()
			return
		}
		was, dev := e.device, e.withoutPairs(e.keepRouterID(dev))
		changes = config.Diff(was, dev)
		if err = e.apply(dev); e.device == dev {
			was.Wipe()
		} else {
			dev.Wipe()
		}
	})
	return changes, errors.Join(stopped, err)
}

// publish commits the changed tables of all VRFs and puts them in force.
func (e *Edge) publish() {
	changed := false
	for _, v := range e.vrfs {
		changed = v.fwd.commit() || changed
	}
	if changed {
		e.publishSnapshot(e.engine.Snapshot().Ports)
	}
}

// publishSnapshot puts the current tables in force with these ports.
func (e *Edge) publishSnapshot(ports []*dataplane.Port) {
	s := &dataplane.Snapshot{Ports: ports, VRFs: make([]dataplane.VRF, e.nextVRF)}
	for _, v := range e.vrfs {
		s.VRFs[v.index] = dataplane.VRF{Name: v.cfg.Name, FIB: v.fwd.table}
	}
	e.engine.Publish(s)
}

// speakerEvents handles ev and what waits behind it, so that a full table
// becomes few publications.
func (e *Edge) speakerEvents(ev bgp.Event) {
	began := time.Now()
	for range eventBatch {
		if e.speakerEvent(ev); time.Since(began) > eventTime {
			return
		}
		select {
		case ev = <-e.speaker.Events():
		default:
			return
		}
	}
}

func (e *Edge) speakerEvent(ev bgp.Event) {
	switch {
	case ev.Update != nil:
		if s := e.sessions[ev.Update.Session]; s != nil {
			e.ribChanged(s.vrf, s.vrf.rib.Apply(e.endpointUpdate(s, *ev.Update)))
			e.watchLimit(s)
		}
	case ev.EVPN != nil:
		if e.sessions[ev.EVPN.Session] != nil {
			e.overlayChanged(e.overlay.table.Update(*ev.EVPN))
		}
	case ev.Status != nil:
		e.sessionStatus(*ev.Status)
	case ev.EndOfRIB != "":
		if s := e.sessions[ev.EndOfRIB]; s != nil {
			s.told = true
			e.sweep(s)
		}
	case ev.Restarted:
		e.speakerRestarted()
	}
}

func (e *Edge) sessionStatus(st bgp.SessionStatus) {
	s := e.sessions[st.Session]
	if s == nil {
		return // removed meanwhile
	}
	before := s.status
	was := before.State
	s.status = st
	if st.State != was && (st.State == bgp.StateEstablished || was == bgp.StateEstablished) {
		attrs := []any{"session", st.Session, "state", st.State}
		if st.State != bgp.StateEstablished {
			attrs = append(attrs, "reason", st.Reason)
		}
		e.log.Info("BGP session", attrs...)
	}
	if st.State == bgp.StateEstablished && was != st.State {
		s.since, s.told = time.Now(), s.told && !s.sweepAt.IsZero()
	}
	if !s.cfg.Enabled && was == bgp.StateEstablished {
		e.setBFD() // which has waited for this
	}
	switch {
	case st.State == bgp.StateDown:
		// The speaker died: what it heard stays in use until the next one has
		// heard it again (see speakerRestarted).
	case st.State == bgp.StateEstablished:
		if before.Retain > 0 && !st.Preserved { // RFC 4724 §4.2
			e.sweep(s)
		} else if !s.sweepAt.IsZero() {
			s.sweepAt = time.Now().Add(staleFor) // for its End-of-RIB
		}
	case was == bgp.StateEstablished && st.Retain > 0:
		retain := min(st.Retain, retainAtMost)
		e.log.Warn("the peer may be restarting; its routes stay in use", "session", st.Session, "for", retain)
		e.retain(s)
		s.sweepAt = time.Now().Add(retain)
	case (was == bgp.StateEstablished || before.Retain > 0) && st.Retain == 0:
		e.down(s)
	}
	e.networkChanged(s)
}

// retain keeps the routes of a session whose peer may be restarting, but those from
// before its restart before.
func (e *Edge) retain(s *session) {
	if s.cfg.EVPN {
		e.overlayChanged(e.overlay.table.Sweep(s.cfg.Name))
		e.overlay.table.Stale(s.cfg.Name)
		return
	}
	e.ribChanged(s.vrf, s.vrf.rib.Retain(s.cfg.Name))
	e.endpointsGone(s.vrf, s.cfg.Name, true)
	s.vrf.endpointsStale(s.cfg.Name)
}

// down drops the routes of a session that has ended for good.
func (e *Edge) down(s *session) {
	s.sweepAt, s.told = time.Time{}, false
	if s.cfg.EVPN {
		e.overlayChanged(e.overlay.table.Drop(s.cfg.Name))
		return
	}
	c := s.vrf.rib.Down(s.cfg.Name)
	if s.cfg.Carrier != "" { // its limit is over
		e.ribChanged(s.vrf, c)
		e.toldAgain()
		return
	}
	s.vrf.keepForRepair(&c, time.Now())
	e.ribChanged(s.vrf, c)
	e.endpointsGone(s.vrf, s.cfg.Name, false)
}

// sweep drops a session's stale routes.
func (e *Edge) sweep(s *session) {
	s.sweepAt = time.Time{}
	if s.cfg.EVPN {
		e.overlayChanged(e.overlay.table.Sweep(s.cfg.Name))
		return
	}
	e.ribChanged(s.vrf, s.vrf.rib.Sweep(s.cfg.Name))
	s.vrf.reviewAll()
	e.endpointsGone(s.vrf, s.cfg.Name, true)
	e.networkChanged(s)
}

// speakerRestarted keeps forwarding on the routes there are: a new speaker
// will hear them again or not.
func (e *Edge) speakerRestarted() {
	e.speakerRestarts++
	e.log.Warn("BGP speaker restarted; forwarding goes on with the routes known", "for", staleFor)
	for _, v := range e.vrfs {
		v.rib.MarkStale()
		v.endpointsStale("")
	}
	e.overlay.table.Stale("")
	for _, s := range e.sessions {
		if s.cfg.Carrier == "" {
			s.sweepAt = time.Now().Add(staleFor)
		}
	}
}

// ribChanged brings a change of a VRF's RIB to the FIB and to the peers.
func (e *Edge) ribChanged(v *vrf, c bgp.Changes) {
	var last []bgp.NextHop // changes with equal sets often share one slice
	var g *group
	for _, r := range c.Routes {
		if len(last) == 0 || len(r.NextHops) != len(last) || &r.NextHops[0] != &last[0] {
			last, g = r.NextHops, e.routeTo(v, r.NextHops)
		}
		v.fwd.set(v.fwd.routed, r.Prefix, g)
		delete(v.repair.kept, r.Prefix)
	}
	for _, u := range c.Updates {
		e.advertise(v, u)
	}
	for _, name := range c.Exceeded {
		e.limitExceeded(name)
	}
}

// routeTo returns the group of these next hops; nil if there are none.
func (e *Edge) routeTo(v *vrf, nextHops []bgp.NextHop) *group {
	hops := make([]hop, 0, len(nextHops))
	for _, nh := range nextHops {
		s := e.sessions[nh.Session]
		if s == nil || v.subs[s.cfg.Subinterface] == nil {
			continue
		}
		h := hopOf(v.subs[s.cfg.Subinterface], nh)
		hops = append(hops, h)
		if !v.fwd.resolved(h) {
			e.asking[h] = true
		}
	}
	if len(hops) == 0 {
		return nil
	}
	var backup []hop
	if s := e.sessions[nextHops[0].Session]; s != nil && s.cfg.Side == config.SideCustomer {
		backup = e.partners(v, hops[0].addr)
	}
	return v.fwd.group(dataplane.Forward, nil, hops, backup)
}

func (e *Edge) neighborChanged(n neighbor) {
	if e.vrfs[n.vrf.cfg.Name] != n.vrf {
		return // removed meanwhile
	}
	for _, s := range n.vrf.subs {
		if s.tap.link.Attrs().Index == n.linkIndex {
			if s.tunnel != nil {
				s.tunnel.kernelKnows(n)
			}
			n.vrf.fwd.neighborChanged(hop{sub: s, addr: n.addr}, n.mac, n.usable)
		}
	}
}

// resolve asks for a neighbor that packets wait for.
func (e *Edge) resolve(neighbor *dataplane.Adjacency) {
	for _, v := range e.vrfs {
		for h, a := range v.fwd.adjacencies {
			if a.Adjacency == neighbor {
				e.asking[h] = true
			}
		}
	}
}

// ask has the kernel find the neighbors that were asked for, each once.
func (e *Edge) ask() {
	for h := range e.asking {
		delete(e.asking, h)
		if h.mac != (port.MAC{}) {
			continue // EVPN tells
		}
		if h.sub.vrf.subs[h.sub.cfg.Name] != h.sub {
			continue // removed meanwhile
		}
		if err := h.sub.vrf.kernel.resolve(h.sub.tap, h.addr); err != nil {
			e.log.Warn("ask for neighbor", "interface", h.sub.cfg.Name, "addr", h.addr, "err", err)
		}
	}
}

// saveMeters writes the meters down, and says so in the log if it cannot.
func (e *Edge) saveMeters() {
	if err := e.accounts.save(); err != nil {
		e.log.Error("meters", "err", err)
	}
}

func (e *Edge) tick(now time.Time) {
	e.checkLinks()
	e.extendNumbers()
	if now.Unix()%saveEvery == 0 {
		e.saveMeters()
	}
	e.setAdminStates(now)
	e.tickBFD(now)
	e.tickPair()
	e.endRepair(now)
	e.releaseLimits(now)
	e.auditDue(now)
	for _, v := range e.vrfs {
		v.gateway.tick(e.engine.Now())
	}
	// A tenth of the next hops each second, told by their last octet, is
	// asked whether it is still there; those not resolved are asked for
	// every second. A gateway's endpoints are not: many may be switched off.
	turn := byte(now.Unix() % probeEvery)
	due := func(a netip.Addr) bool { b := a.As16(); return b[15]%probeEvery == turn }
	for _, v := range e.vrfs {
		e.askStations(v, due)
		for h := range v.fwd.nextHops {
			if h.silent(e.maintenance) {
				continue
			}
			if due(h.addr) || !v.fwd.resolved(h) {
				e.asking[h] = true
			}
		}
	}
	for _, s := range e.sessions {
		if !s.sweepAt.IsZero() && now.After(s.sweepAt) {
			e.sweep(s)
		}
	}
}
