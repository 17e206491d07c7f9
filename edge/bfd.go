package edge

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"msee/bfd"
	"msee/bgp"
	"msee/config"
	"msee/dataplane"
)

// BFD and what hangs on it. Every BGP session has a BFD session with its
// neighbor, run by the worker of the neighbor's port. When that goes down:
//
//  1. the worker marks the adjacency, and traffic takes the other ways;
//  2. the routes heard from the neighbor go, here and at those they were told;
//  3. the BGP session goes (Cease, BFD down), and stays down until BFD is up
//     again, for longer the more often this happens.
//
// A peer without BFD is let alone: its BFD session was never up, unless strict
// mode demands it.

// bfdWatch is the BFD of one BGP session.
type bfdWatch struct {
	session *dataplane.BFDSession
	port    *portState
	hop     hop
	seen    dataplane.BFDReport
	downAt  time.Time // when it last went down; zero if never
	upAt    time.Time // when it last came up; zero if it is not
	delay   time.Duration
	held    bool       // the BGP session
	cfg     config.BFD // what session was made of
	enabled bool
}

const (
	// holdBFD names our hold on a BGP session.
	holdBFD = "BFD"
	// maxHoldDown is where the back-off ends.
	maxHoldDown = time.Minute
	// calmAfter is how long a session must have been up for its flaps to be
	// forgotten.
	calmAfter = 5 * time.Minute
	// missedFor is how long BGP waits for a BFD session that does not come back:
	// the peer may have been told to speak no BFD any more. In strict mode it
	// waits for ever.
	missedFor = time.Minute
)

// holdDown is how long BFD must be up again, after a session has gone down that
// was up for upFor, before BGP may use it; delay is what it was the last time.
// The first time BGP's own start is delay enough.
func holdDown(delay, upFor, least time.Duration, first bool) time.Duration {
	if first || upFor >= calmAfter {
		return 0
	}
	return min(max(2*delay, least), max(maxHoldDown, least))
}

// setBFD brings the workers' BFD sessions to the BGP sessions and adjacencies
// there are.
func (e *Edge) setBFD() {
	for _, s := range e.sessions {
		e.watchBFD(s)
	}
	for _, f := range e.foreign { // behind: BGP's own come first
		e.watchForeign(f)
	}
	for _, p := range e.ports {
		var want []*dataplane.BFDSession
		for _, name := range slices.Sorted(maps.Keys(e.sessions)) {
			if w := e.sessions[name].bfd; w != nil && w.port == p {
				want = append(want, w.session)
			}
		}
		want = append(want, e.pairBFD(p)...)
		want = append(want, e.foreignBFD(p)...)
		if slices.Equal(want, p.bfd) && !e.engine.BFDRefused(p.index) {
			continue
		}
		if err := e.engine.SetBFD(p.index, want); err != nil {
			e.log.Error("set BFD sessions", "port", p.cfg.Name, "err", err)
			continue // the tick tries again
		}
		p.bfd = want
	}
}

// watchBFD gives a BGP session the BFD session that its configuration wants.
func (e *Edge) watchBFD(s *session) {
	w := s.bfd
	sub := s.vrf.subs[s.cfg.Subinterface]
	if s.cfg.BFD.Interval == 0 || sub == nil {
		e.unwatchBFD(s)
		return
	}
	h := hop{sub: sub, addr: s.cfg.Peer}
	a := s.vrf.fwd.adjacency(h)
	a.watched = true
	if a.Rewrite() == nil {
		e.asking[h] = true
	}
	if w == nil {
		w = &bfdWatch{}
		s.bfd = w
	}
	strict := s.cfg.BFD.Strict
	// A peering that is disabled says so by BGP first: to some peers AdminDown is a
	// failure, and they would never hear the reason.
	enabled := s.cfg.Enabled || s.status.State == bgp.StateEstablished
	cfg := bfdConfig(s.cfg.BFD, enabled)
	same := w.session != nil && w.session.Adjacency == a.Adjacency && w.session.Interface == sub.cfg.Name &&
		w.session.Local == s.cfg.Local && w.session.Peer == s.cfg.Peer && w.port == sub.port
	switch {
	case !same:
		cfg.MyDiscriminator = e.newDiscriminator()
		w.session = dataplane.NewBFDSession(dataplane.BFDSession{Name: s.cfg.Name, Interface: sub.cfg.Name, VRF: s.vrf.index,
			Local: s.cfg.Local, Peer: s.cfg.Peer, Adjacency: a.Adjacency, Config: cfg, Strict: strict})
		w.port, w.hop, w.seen = sub.port, h, w.session.Report()
		if strict && s.cfg.Enabled {
			e.holdByBFD(s, "strict mode waits for BFD to come up")
		}
	case w.cfg != s.cfg.BFD || w.enabled != enabled:
		cfg.MyDiscriminator = w.session.Config.MyDiscriminator
		w.session = w.session.Change(cfg, strict)
		became := strict && s.cfg.Enabled && !(w.cfg.Strict && w.enabled)
		if became && w.session.Report().State != bfd.Up && !w.held {
			e.holdByBFD(s, "strict mode waits for BFD to come up")
		}
	}
	w.cfg, w.enabled = s.cfg.BFD, enabled
}

// newDiscriminator returns one of which no other session has the source port
// (RFC 5881 §4), unless these are next to exhausted.
func (e *Edge) newDiscriminator() (discr uint32) {
	taken := map[uint16]bool{}
	for _, s := range e.sessions {
		if s.bfd != nil && s.bfd.session != nil {
			taken[s.bfd.session.SourcePort()] = true
		}
	}
	for _, l := range e.pairLinks() {
		if l.session != nil {
			taken[l.session.SourcePort()] = true
		}
	}
	for _, f := range e.foreign {
		if f.session != nil {
			taken[f.session.SourcePort()] = true
		}
	}
	for range 1000 {
		discr = dataplane.NewDiscriminator()
		if !taken[bfd.SourcePort(discr)] {
			break
		}
	}
	return discr
}

// unwatchBFD ends a session's BFD.
func (e *Edge) unwatchBFD(s *session) {
	w := s.bfd
	if w == nil {
		return
	}
	if w.held {
		e.speaker.Release(s.cfg.Name, holdBFD)
	}
	if a := s.vrf.fwd.adjacencies[w.hop]; a != nil {
		a.watched = false
		a.SetDown(dataplane.DownBFD, false)
		s.vrf.fwd.forget(a)
	}
	s.bfd = nil
}

// bfdConfig is the local side of a BFD session.
func bfdConfig(b config.BFD, enabled bool) bfd.Config {
	cfg := bfd.Config{
		DesiredMinTx: b.Interval, RequiredMinRx: b.Interval, DetectMult: uint8(b.Multiplier),
		RequiredMinEcho: echoInterval, ControlIndependent: true, Disabled: !enabled,
	}
	if t, ok := bfd.ParseAuthType(b.AuthType); ok && t != bfd.AuthNone {
		cfg.Auth = bfd.Auth{Type: t, Keys: []bfd.Key{{ID: b.AuthKeyID, Secret: []byte(b.AuthKey)}}}
	}
	return cfg
}

// echoInterval is how often a peer may send us echoes.
const echoInterval = 50 * time.Millisecond

// bfdChanged acts on what the BFD sessions say now.
func (e *Edge) bfdChanged() {
	for _, v := range e.vrfs {
		v.daemon.kick()
	}
	for _, s := range e.sessions {
		w := s.bfd
		if w == nil {
			continue
		}
		r, was := w.session.Report(), w.seen
		if r == was {
			continue
		}
		w.seen = r
		if r.State != was.State || r.Downs != was.Downs {
			e.log.Info("BFD session", "session", s.cfg.Name, "state", r.State, "was", was.State, "diagnostic", r.Diag)
		}
		if was.State == bfd.Up && r.State != bfd.Up || r.Downs > was.Downs {
			e.bfdDown(s, r)
		}
		if r.State == bfd.Up && (was.State != bfd.Up || r.Ups > was.Ups) {
			w.upAt = time.Now()
			e.releaseBFD(s, w.upAt)
		}
	}
}

// bfdDown takes down what hangs on a BFD session. The worker has turned the
// traffic already.
func (e *Edge) bfdDown(s *session, r dataplane.BFDReport) {
	w, now := s.bfd, time.Now()
	var upFor time.Duration // not at all, if it came up and went down between two looks
	if !w.upAt.IsZero() {
		upFor = now.Sub(w.upAt)
	}
	w.upAt = time.Time{}
	if (r.PeerAdminDown || r.LeftByAdmin) && !s.cfg.BFD.Strict || !s.cfg.Enabled {
		return // RFC 5882 §4.2: no failure
	}
	w.delay = holdDown(w.delay, upFor, s.cfg.BFD.HoldDown, w.downAt.IsZero())
	w.downAt = now
	e.down(s)
	e.holdByBFD(s, r.Diag.String())
}

func (e *Edge) holdByBFD(s *session, why string) {
	s.bfd.held = true
	s.sweepAt = time.Time{}
	e.speaker.Hold(s.cfg.Name, bgp.Hold{By: holdBFD, Cease: bgp.CeaseBFDDown, Why: "BFD: " + why})
}

// releaseBFD lets a BGP session come up again if it is time.
func (e *Edge) releaseBFD(s *session, now time.Time) {
	w := s.bfd
	if w == nil || !w.held {
		return
	}
	missed := !s.cfg.BFD.Strict && w.seen.State != bfd.Up && (w.seen.PeerAdminDown || now.Sub(w.downAt) >= missedFor)
	switch {
	case w.seen.State == bfd.Up && now.Sub(w.upAt) >= w.delay:
	case missed:
		w.session.Adjacency.SetDown(dataplane.DownBFD, false)
	case !s.cfg.BFD.Strict && w.downAt.IsZero(): // strict mode was switched off
	default:
		return
	}
	w.held = false
	e.speaker.Release(s.cfg.Name, holdBFD)
}

// tickBFD does what BFD has to do by the clock.
func (e *Edge) tickBFD(now time.Time) {
	e.tickForeign(now)
	e.setBFD()
	for _, s := range e.sessions {
		e.releaseBFD(s, now)
	}
}

// endBFD has all sessions say AdminDown, as the device stops.
func (e *Edge) endBFD() {
	for _, p := range e.ports {
		if len(p.bfd) > 0 && e.engine.SetBFD(p.index, nil) == nil {
			e.engine.BFDStatus(p.index) // answered after that
		}
	}
}

// BFDStatus is one BFD session.
type BFDStatus struct {
	VRF       string     `json:"vrf"`
	Peer      netip.Addr `json:"peer"`
	Local     netip.Addr `json:"local"`
	Interface string     `json:"interface"`
	Session   string     `json:"session"` // the BGP session that hangs on it; "" if there is none
	Pair      bool       `json:"pair"`    // the other end is the gateway's other instance
	Strict    bool       `json:"strict"`
	Resolved  bool       `json:"resolved"` // the neighbor's MAC is known
	InUse     bool       `json:"inUse"`    // BFD lets traffic go there
	HoldsBGP  bool       `json:"holdsBGP"`
	HoldDown  bfd.Millis `json:"holdDown"` // how long it must be up before BGP may come
	Echoes    uint64     `json:"echoes"`   // of the peer's, that were sent back
	bfd.Status
}

// BFD lists the BFD sessions.
func (e *Edge) BFD() (rows []BFDStatus, err error) {
	sessions := map[*dataplane.BFDSession]BFDStatus{}
	var ports []int
	err = e.do(func() {
		for _, p := range e.ports {
			ports = append(ports, p.index)
		}
		for _, s := range e.sessions {
			if w := s.bfd; w != nil {
				sessions[w.session] = BFDStatus{VRF: s.vrf.cfg.Name, Peer: s.cfg.Peer, Local: s.cfg.Local,
					Interface: w.session.Interface, Session: s.cfg.Name, Strict: s.cfg.BFD.Strict,
					HoldsBGP: w.held, HoldDown: bfd.Millis(w.delay)}
			}
		}
		for _, l := range e.pairLinks() {
			if s := l.session; s != nil {
				sessions[s] = BFDStatus{VRF: l.hop.sub.vrf.cfg.Name, Peer: s.Peer, Local: s.Local, Interface: s.Interface, Pair: true}
			}
		}
		for _, f := range e.foreign {
			if s := f.session; s != nil {
				sessions[s] = BFDStatus{VRF: f.vrf.cfg.Name, Peer: s.Peer, Local: s.Local, Interface: s.Interface}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, p := range ports { // not in the control loop, which need not wait for the workers
		for _, st := range e.engine.BFDStatus(p) {
			if row, ok := sessions[st.BFDSession]; ok {
				row.Status, row.Resolved, row.Echoes = st.Status, st.Resolved, st.Echoes
				row.InUse = st.Adjacency.Down()&dataplane.DownBFD == 0
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b BFDStatus) int {
		return cmp.Or(cmp.Compare(a.VRF, b.VRF), a.Peer.Compare(b.Peer))
	})
	return rows, nil
}

// whyBFD says that BFD keeps a BGP session down; "" if it does not.
func (s *session) whyBFD() string {
	w := s.bfd
	if w == nil || !w.held {
		return ""
	}
	if w.seen.State == bfd.Up {
		return fmt.Sprintf("BFD is up again, and must stay so for %v", w.delay)
	}
	return fmt.Sprintf("BFD is %v: %v", w.seen.State, w.seen.Diag)
}
