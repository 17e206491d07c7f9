package edge

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"msee/bfd"
	"msee/bgp"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

// The two instances of a gateway stand in each subnet of their VNet, each with an
// address of its own that hosts have as next hop. They watch each other by BFD
// there, and while one is dead, drained, or without a way to any MSEE, the other
// answers for its address too. Where neither has a way to an MSEE both keep what they
// have: they are the routers between the VNet's subnets.
//
//	ready     an instance begins when it has heard what the MSEEs know. Before, it
//	          does not announce the VNet, and in it has no address that the other
//	          answers for, so as to attract nothing
//	watch     BFD between link-local addresses, which are nobody's next hop. An
//	          instance that wants its address taken over says AdminDown
//	decide    who has which address: pairView → pairDecision, pure
//	announce  what is taken each second, our own a few times when it comes back
//
// Neither keeps state of what it forwards. So where both answer for an address, for a
// moment or as BFD between them is lost while both live, hosts reach one or the
// other, and lose nothing; where neither did, they would lose all. In doubt it is taken.

const (
	// pairWait is how long an instance that begins waits for those MSEEs that it has
	// not heard all of, once it has heard all of one; how long for the end of what
	// a peer has to tell; and how long before it takes the other, never heard of,
	// for dead.
	pairWait = 5 * time.Second
	// ownAnnounced is how often, once a second, an instance announces its own
	// addresses when they come back to it.
	ownAnnounced = 4
)

// pairView is what an instance knows.
type pairView struct {
	maintenance Maintenance
	ready       bool // until now
	told, all   int  // sessions with MSEEs: whose routes are all known, and how many
	waited      bool // pairWait since the first of those
}

// pairDecision is what follows from it.
type pairDecision struct {
	// ready instances announce the VNet to the MSEEs.
	ready bool
	// own: the instance has its own addresses, whatever the other says.
	own bool
	// speaks: BFD says so to the other. Not while it should take over.
	speaks bool
}

func (v pairView) decide() (d pairDecision) {
	d.ready = v.told > 0 && (v.ready || v.told == v.all || v.waited)
	d.own = d.ready && v.maintenance != Drained
	d.speaks = d.ready && v.maintenance == InService
	return d
}

// takes reports whether an instance that speaks takes the other's addresses, as it
// sees its BFD with that: up now, ever up since it speaks, which it does for so long.
func takes(speaks, up, heard bool, spoken time.Duration) bool {
	return speaks && !up && (heard || spoken >= pairWait)
}

// keepsOwn reports whether an instance that is not ready, and so says AdminDown, has
// its own addresses in a subnet nevertheless, where it has had them or not. It does
// unless the other answers for them: without one that is ready, the VNet needs both.
func keepsOwn(m Maintenance, has bool, other dataplane.BFDReport, silent time.Duration) bool {
	switch {
	case m == Drained:
		return false
	case !other.Heard:
		return has || silent >= pairWait
	case other.Peer == bfd.AdminDown: // no more ready than we are, or drained
		return true
	case other.Peer == bfd.Up: // it has not heard yet that we say AdminDown
		return has
	default: // it has, and takes over
		return false
	}
}

// keepsTaken is the same of the other's addresses: those that it had taken, and those
// of one that is silent for so long.
func keepsTaken(m Maintenance, own, taken bool, other dataplane.BFDReport, silent time.Duration) bool {
	return m == InService && own && (taken || !other.Heard && silent >= pairWait)
}

// pair is a gateway instance's part in the pair.
type pair struct {
	pairDecision
	firstTold time.Time // zero while ready, or while no session has told
}

// pairLink is one subnet's. It stays with its subinterface.
type pairLink struct {
	hop       hop // the other instance
	port      *portState
	session   *dataplane.BFDSession
	made      config.BFD // what session was made of
	enabled   bool
	spoke     time.Time // since when we speak there
	heard     bool      // session was up since then
	up        bool
	silent    time.Time // since when nothing is heard; zero: something is
	taken     bool
	own       bool                    // the TAP has our addresses
	left      int                     // announcements of our own addresses to come
	hosts     map[netip.Addr]port.MAC // known when our addresses went
	announcer *announcer
	on        *tap // that announcer is on
}

// pairLinks are those of all subinterfaces that have one.
func (e *Edge) pairLinks() (links []*pairLink) {
	if e.device.Kind != config.KindGateway {
		return nil
	}
	for _, v := range e.vrfs {
		for _, name := range slices.Sorted(maps.Keys(v.subs)) {
			if s := v.subs[name]; s.pair != nil {
				links = append(links, s.pair)
			}
		}
	}
	return links
}

// onTap is what the kernel has of a subinterface.
func (s *subinterface) onTap(cfg config.Subinterface) config.Subinterface {
	if cfg.Pair == nil {
		return cfg
	}
	link := netip.PrefixFrom(cfg.Pair.Local, 64)
	if s.pair == nil || !s.pair.own {
		cfg.Addresses = nil
	}
	cfg.Addresses = append([]netip.Prefix{link}, cfg.Addresses...)
	return cfg
}

// pairBFD lists the sessions of a port's worker with the other instance.
func (e *Edge) pairBFD(p *portState) (list []*dataplane.BFDSession) {
	for _, l := range e.pairLinks() {
		if l.session != nil && l.port == p {
			list = append(list, l.session)
		}
	}
	return list
}

// tellsAll reports whether all routes of a session with an MSEE are known.
func (s *session) tellsAll(now time.Time) bool {
	switch s.status.State {
	case bgp.StateEstablished:
		return s.told || now.Sub(s.since) >= pairWait
	case bgp.StateDown: // the speaker's restart: what was heard stays in use
		return s.told
	default:
		return s.told && !s.sweepAt.IsZero() // the peer's
	}
}

// reviewPair decides anew, and brings about what follows. Without links too it is
// known whether we are ready: a reload may bring some.
func (e *Edge) reviewPair(now time.Time) {
	if e.device.Kind != config.KindGateway {
		return
	}
	was := e.pair.pairDecision
	e.pair.pairDecision = e.pairView(now).decide()
	d, links := e.pair.pairDecision, e.pairLinks()
	if len(links) == 0 {
		return
	}
	if d != was {
		e.log.Info("gateway pair", "ready", d.ready, "own", d.own, "speaks", d.speaks)
	}
	changed := d != was
	for _, l := range links {
		e.watchPair(l, d.speaks, now)
		own := d.own || !d.ready && keepsOwn(e.maintenance, l.own, l.session.Report(), l.silence(now))
		changed = changed || own != l.own
		e.setOwn(l, own)
	}
	if changed {
		e.publish() // before anybody hears of it, and sends
	}
	for _, l := range links {
		if l.left == ownAnnounced {
			e.announceOwn(l)
		}
		e.setTaken(l, takes(d.speaks, l.up, l.heard, now.Sub(l.spoke)) ||
			!d.ready && keepsTaken(e.maintenance, l.own, l.taken, l.session.Report(), l.silence(now)))
	}
	if d.ready != was.ready {
		for _, v := range e.vrfs {
			e.ribChanged(v, v.rib.Originate(e.originated(v.cfg)))
		}
	}
	if d.speaks != was.speaks {
		e.setBFD() // the other is to know at once
	}
}

// silence is how long nothing is heard of the other.
func (l *pairLink) silence(now time.Time) time.Duration {
	if l.silent.IsZero() {
		return 0
	}
	return now.Sub(l.silent)
}

func (e *Edge) pairView(now time.Time) pairView {
	v := pairView{maintenance: e.maintenance, ready: e.pair.ready}
	for _, s := range e.sessions {
		if s.cfg.Side != config.SideCore || !s.cfg.Enabled || s.cfg.TellOnly {
			continue
		}
		if v.all++; e.carrier(s).tellsAll(now) {
			v.told++
		}
	}
	switch {
	case v.told == 0 || v.ready:
		e.pair.firstTold = time.Time{}
	case e.pair.firstTold.IsZero():
		e.pair.firstTold = now
	}
	v.waited = !e.pair.firstTold.IsZero() && now.Sub(e.pair.firstTold) >= pairWait
	return v
}

// watchPair gives a link the BFD session that its configuration wants, and notes
// how that is.
func (e *Edge) watchPair(l *pairLink, speaks bool, now time.Time) {
	s := l.hop.sub
	cfg, want := bfdConfig(s.cfg.Pair.BFD, speaks), s.cfg.Pair
	a := s.vrf.fwd.adjacency(l.hop)
	a.watched = true
	if a.Rewrite() == nil {
		e.asking[l.hop] = true
	}
	switch {
	case l.session == nil || l.session.Adjacency != a.Adjacency || l.session.Local != want.Local || l.port != s.port:
		cfg.MyDiscriminator = e.newDiscriminator()
		l.session = dataplane.NewBFDSession(dataplane.BFDSession{Name: s.vrf.cfg.Name + "/" + s.cfg.Name + "/" + want.Peer.String(),
			Interface: s.cfg.Name, VRF: s.vrf.index, Local: want.Local, Peer: want.Peer, Adjacency: a.Adjacency, Config: cfg})
		l.port = s.port
	case l.made != want.BFD || l.enabled != speaks:
		cfg.MyDiscriminator = l.session.Config.MyDiscriminator
		l.session = l.session.Change(cfg, false)
	}
	if !speaks {
		l.heard = false
	} else if !l.enabled {
		l.spoke = now
	}
	l.made, l.enabled = want.BFD, speaks
	was, r := l.up, l.session.Report()
	l.up = r.State == bfd.Up
	if r.Heard {
		l.silent = time.Time{}
	} else if l.silent.IsZero() {
		l.silent = now
	}
	l.heard = l.heard || speaks && l.up
	if l.up != was {
		e.log.Info("BFD with the gateway's other instance", "interface", s.cfg.Name, "up", l.up, "diagnostic", r.Diag)
	}
	if l.up && !was { // it has answered for our addresses until now
		l.left = ownAnnounced
	}
}

// setOwn gives the kernel our own addresses, or takes them away.
func (e *Edge) setOwn(l *pairLink, own bool) {
	s := l.hop.sub
	if l.own == own {
		return
	}
	was := s.onTap(s.cfg)
	if l.own = own; !own {
		l.hosts = s.vrf.fwd.hosts(s)
	}
	if err := s.vrf.kernel.change(s.tap, was, s.onTap(s.cfg), s.tap.mac); err != nil {
		e.log.Error("set the gateway's own addresses", "interface", s.cfg.Name, "own", own, "err", err)
	}
	s.vrf.fwd.connectOwn(s)
	l.left = ownAnnounced
	e.openAnnouncer(l)
	if own { // those we knew need not be asked for, while the first packets wait
		for addr, mac := range l.hosts {
			if err := s.vrf.kernel.remember(s.tap, addr, mac); err != nil {
				e.log.Warn("remember neighbor", "interface", s.cfg.Name, "addr", addr, "err", err)
				continue
			}
			s.vrf.fwd.neighborChanged(hop{sub: s, addr: addr}, mac, true)
		}
		l.hosts = nil
		e.askStations(s.vrf, func(netip.Addr) bool { return true })
	}
}

// setTaken answers for the other's addresses, or not any more.
func (e *Edge) setTaken(l *pairLink, taken bool) {
	if l.taken == taken {
		return
	}
	s := l.hop.sub
	e.log.Warn("addresses of the gateway's other instance", "interface", s.cfg.Name, "taken", taken, "addresses", s.cfg.Pair.Addresses)
	l.taken = taken
	s.vrf.fwd.connectOther(s)
	e.announceTaken(l)
}

// openAnnouncer makes sure that there is one on the TAP as it is now.
func (e *Edge) openAnnouncer(l *pairLink) bool {
	s := l.hop.sub
	if l.announcer != nil && l.on == s.tap && l.announcer.mac == s.tap.mac {
		return true
	}
	l.announcer.close()
	var err error
	if l.announcer, err = newAnnouncer(s.vrf.kernel.namespace, s.tap); err != nil {
		l.announcer = nil
		e.log.Error("announce the gateway's addresses", "interface", s.cfg.Name, "err", err)
		return false
	}
	l.on = s.tap
	return true
}

func (e *Edge) announceOwn(l *pairLink) {
	if l.left == 0 || !l.own || !e.openAnnouncer(l) {
		return
	}
	l.left--
	var own []netip.Addr
	for _, p := range l.hop.sub.cfg.Addresses {
		own = append(own, p.Addr())
	}
	if err := l.announcer.announce(own); err != nil {
		e.log.Error("announce the gateway's own addresses", "interface", l.hop.sub.cfg.Name, "err", err)
	}
}

func (e *Edge) announceTaken(l *pairLink) {
	if !l.taken {
		if l.announcer != nil {
			l.announcer.take(nil)
		}
		return
	}
	if !e.openAnnouncer(l) {
		return
	}
	addrs := l.hop.sub.cfg.Pair.Addresses
	l.announcer.take(addrs)
	if err := l.announcer.announce(addrs); err != nil {
		e.log.Error("announce the other instance's addresses", "interface", l.hop.sub.cfg.Name, "err", err)
	}
}

// release ends what the link has.
func (l *pairLink) release() {
	if l == nil {
		return
	}
	l.announcer.close()
	f := l.hop.sub.vrf.fwd
	if a := f.adjacencies[l.hop]; a != nil {
		a.watched = false
		a.SetDown(dataplane.DownBFD, false)
		f.forget(a)
	}
}

// silent says that a host of the VNet is not to be asked for: whoever asks tells his
// own address with it, and that shall not be ours now.
func (h hop) silent(m Maintenance) bool {
	l := h.sub.pair
	return l != nil && h != l.hop && (!l.own || m != InService)
}

// serves reports whether the other instance, by what BFD tells, would forward without us.
func serves(weSpeak bool, r dataplane.BFDReport) bool {
	if weSpeak {
		return r.State == bfd.Up
	}
	return r.Heard && r.Peer != bfd.AdminDown
}

// otherServes reports whether the other instance is in service in all subnets, as
// far as anybody watches it.
func (e *Edge) otherServes() bool {
	return !slices.ContainsFunc(e.pairLinks(), func(l *pairLink) bool {
		return l.session == nil || !serves(l.enabled, l.session.Report())
	})
}

// tickPair announces again what some host may have missed.
func (e *Edge) tickPair() {
	for _, l := range e.pairLinks() {
		e.announceOwn(l)
		if l.taken {
			e.announceTaken(l)
		}
	}
}

// leavePair has the other take over, as the device stops; it forwards for a while yet.
func (e *Edge) leavePair() {
	for _, l := range e.pairLinks() {
		e.watchPair(l, false, time.Now())
	}
	e.setBFD()
}

// takesOver lists the addresses that the instance has of the other.
func (e *Edge) takesOver() (addrs []netip.Addr) {
	for _, l := range e.pairLinks() {
		if l.taken {
			addrs = append(addrs, l.hop.sub.cfg.Pair.Addresses...)
		}
	}
	return addrs
}
