package speaker

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
)

// Pacing of a session that is down. The first dial waits a moment, so that both
// sides of a link that starts do not always collide.
const (
	tick         = 250 * time.Millisecond
	idleHold     = time.Second      // after a failure, before the next try
	openTimeout  = 20 * time.Second // from a connection to Established
	retryListen  = 2 * time.Second
	maxInbox     = 64
	firstDialMin = 200 * time.Millisecond
	firstDialMax = time.Second
	redialMin    = 2 * time.Second
	redialMax    = 4 * time.Second
)

func jitter(lo, hi time.Duration) time.Duration { return lo + rand.N(hi-lo) }

// session runs one configured session: it finds connections for GoBGP's FSM,
// advertises the Adj-RIB-Out and reports to out.
//
// One goroutine, run, makes every call into GoBGP and owns the fields after
// "run's own". What other goroutines want of it they post. No call into GoBGP
// is made with mu held: GoBGP logs with its own locks held, and what it logs
// takes mu.
type session struct {
	cfg bgp.SessionConfig // but for its Key, which is key
	vrf *vrf
	out *outbox
	log *slog.Logger
	// told is closed when the edge has told this process all that there was to
	// advertise.
	told <-chan struct{}
	// reborn says that this process follows one that died, while forwarding
	// went on.
	reborn bool

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
	up     atomic.Bool
	busy   busy // run, at one turn

	mu        sync.Mutex
	inbox     []func()
	cease     notification // what run says to the peer when it ends
	watch     *watch       // the one whose news count; nil between two neighbours
	cur       *conn        // what GoBGP has
	status    bgp.SessionStatus
	sent      bgp.SessionStatus              // last told
	note      string                         // why the session is about to move
	last      string                         // why it is not up, or why it last went down
	lastDown  string                         // why it last left Established
	md5       string                         // what TCP-MD5 has to do with it
	base      md5Counts                      // when it went down
	rebase    bool                           // base is to be taken
	malformed int                            // UPDATEs treated as withdrawals
	routes    map[netip.Prefix]*bgp.Attrs    // Adj-RIB-Out
	dirty     *queue[netip.Prefix, struct{}] // what of it cur has not been told
	evpnOut   map[evpn.Key]evpn.Route        // of an EVPN session, instead of routes
	evpnDirty *queue[evpn.Key, struct{}]     // and dirty
	holds     []bgp.Hold                     // as the edge wants them
	lived     bool                           // it was Established, in this process
	key       string                         // TCP-MD5, may change any time
	rekeyed   bool                           // it did while Established, and nothing was heard since

	// run's own
	held       []bgp.Hold // as they are obeyed; while there are any, there is no neighbour
	bgp        *gobgp
	spare      *conn // waits for cur to fail
	curSince   time.Time
	idleUntil  time.Time
	nextDial   time.Time
	nextListen time.Time
	dialling   bool
	running    sync.WaitGroup // the dial
}

// newSession makes a session of p; start runs it. old is the one it takes the
// place of, already stopped, or nil.
func newSession(cfg bgp.SessionConfig, v *vrf, p *process, old *session) *session {
	s := &session{
		cfg: cfg, vrf: v, out: p.out, log: p.log.With("session", cfg.Name), told: p.told, reborn: p.reborn,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		routes: make(map[netip.Prefix]*bgp.Attrs), dirty: new(queue[netip.Prefix, struct{}]),
		evpnOut: make(map[evpn.Key]evpn.Route), evpnDirty: new(queue[evpn.Key, struct{}]),
		cease: ceaseShutdown, rebase: true, key: cfg.Key,
	}
	s.status = bgp.SessionStatus{Session: cfg.Name, State: bgp.StateIdle, Since: time.Now()}
	if old != nil {
		s.routes, s.status.Flaps, s.lastDown, s.last = old.routes, old.status.Flaps, old.lastDown, old.last
		s.lived, s.evpnOut = old.lived, old.evpnOut
	}
	return s
}

func (s *session) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
}

// stop says n to the peer, ends the session and waits for it.
func (s *session) stop(n notification) {
	s.mu.Lock()
	s.cease = n
	s.mu.Unlock()
	s.cancel()
	<-s.done
}

// post has run call fn. It reports false if run is too far behind.
func (s *session) post(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inbox) >= maxInbox {
		return false
	}
	s.inbox = append(s.inbox, fn)
	s.wakeUp()
	return true
}

func (s *session) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// offer gives the session a new connection.
func (s *session) offer(c *conn) {
	if !s.cfg.Enabled || !s.post(func() { s.take(c) }) {
		c.SetLinger(0)
		c.close()
	}
}

func (s *session) reset(why string) {
	s.post(func() {
		if len(s.held) == 0 {
			s.restart(ceaseReset, why, 0)
		}
	})
}

// setHolds takes the session down, or lets it come up again if there are none.
func (s *session) setHolds(hs []bgp.Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = hs
	s.wakeUp()
}

// obeyHolds acts on what setHolds said.
func (s *session) obeyHolds() {
	s.mu.Lock()
	hs := s.holds
	s.mu.Unlock()
	if slices.Equal(hs, s.held) {
		return
	}
	was := s.held
	s.held = hs
	switch {
	case len(hs) == 0:
		s.explain(s.lastDown) // nothing holds it now
		s.idleUntil, s.nextDial = time.Time{}, time.Now().Add(jitter(0, firstDialMin))
	case len(was) == 0:
		s.restart(ceaseOf(hs[0]), hs[0].Why, 0)
		s.void()
		s.setState(bgp.StateIdle, hs[0].Why)
	default:
		s.explain(hs[0].Why)
	}
}

func (s *session) run(ctx context.Context) {
	defer close(s.done)
	if !s.cfg.Enabled {
		s.setState(bgp.StateDisabled, "")
		<-ctx.Done()
		return
	}
	s.setState(bgp.StateIdle, s.last)
	s.nextDial = time.Now().Add(jitter(firstDialMin, firstDialMax))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.end()
			return
		case <-s.wake:
		case <-timer.C:
		}
		s.busy.begin()
		s.obeyHolds()
		for _, fn := range s.takeInbox() {
			fn()
		}
		if !s.up.Load() {
			s.advance(ctx, time.Now())
			timer.Reset(tick)
		}
		s.busy.end()
	}
}

// same reports whether c differs from what the session runs by at most its key.
func (s *session) same(c *bgp.SessionConfig) bool {
	x := *c
	x.Key = s.cfg.Key
	return x == s.cfg
}

func (s *session) takeInbox() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.inbox
	s.inbox = nil
	return in
}

// advance brings a session that is down one step nearer to being up.
func (s *session) advance(ctx context.Context, now time.Time) {
	if !s.prepare(now) {
		return
	}
	s.publishMD5(now)
	s.mu.Lock()
	active, cur := s.status.State == bgp.StateActive, s.cur
	s.mu.Unlock()
	switch {
	case cur != nil:
		if now.Sub(s.curSince) > openTimeout {
			s.restart(notification{code: 4}, fmt.Sprintf("the peer accepted a TCP connection, but no session came of it in %v", openTimeout), idleHold)
		}
	case !active || now.Before(s.idleUntil):
	case s.spare != nil:
		c := s.spare
		s.spare = nil
		s.hand(c)
	case !s.dialling && !now.Before(s.nextDial):
		s.dialling = true
		s.running.Go(func() { s.dial(ctx) })
	}
}

// prepare makes sure of listeners and a neighbour in GoBGP.
func (s *session) prepare(now time.Time) bool {
	if now.Before(s.nextListen) || len(s.held) > 0 {
		return false
	}
	err := s.vrf.ensure()
	if err == nil && s.bgp == nil {
		if err = s.vrf.join(s); err == nil {
			s.bgp, err = servers.get(s.cfg.LocalAS, s.cfg.RouterID)
		}
	}
	if err == nil && !s.hasNeighbour() {
		s.addNeighbour()
	}
	if err != nil {
		s.nextListen = now.Add(retryListen)
		s.explain(err.Error())
		return false
	}
	return true
}

func (s *session) hasNeighbour() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch != nil
}

// addNeighbour starts a fresh FSM and a fresh watch for it.
func (s *session) addNeighbour() {
	w := &watch{s: s}
	s.mu.Lock()
	s.watch, s.note = w, ""
	s.mu.Unlock()
	s.bgp.watch.Store(w)
	if err := s.bgp.addNeighbour(&s.cfg); err != nil {
		s.log.Error("start BGP session", "err", err)
		s.setState(bgp.StateIdle, err.Error())
	}
}

// deleteNeighbour says n to the peer and ends the FSM now.
func (s *session) deleteNeighbour(n notification) {
	s.mu.Lock()
	w, c := s.watch, s.cur
	s.watch, s.cur = nil, nil
	s.mu.Unlock()
	if w == nil {
		return
	}
	s.bgp.watch.Store(nil)
	if c != nil {
		c.farewell(n)
	}
	if err := s.bgp.deleteNeighbour(&s.cfg); err != nil {
		s.log.Warn("end BGP session", "err", err)
	}
}

// restart ends what there is and begins anew after hold, unless it is held. why replaces the
// reason unless it is empty.
func (s *session) restart(n notification, why string, hold time.Duration) {
	if s.bgp == nil {
		return
	}
	s.deleteNeighbour(n)
	s.leftEstablished(why)
	now := time.Now()
	s.idleUntil = now.Add(hold)
	if s.nextDial.Before(s.idleUntil) {
		s.nextDial = s.idleUntil.Add(jitter(0, firstDialMax))
	}
	if len(s.held) == 0 {
		s.addNeighbour()
	}
	s.wakeUp()
}

// end is run's last act.
func (s *session) end() {
	s.mu.Lock()
	n := s.cease
	s.mu.Unlock()
	if g := s.bgp; g != nil {
		s.vrf.leave(s)
		s.deleteNeighbour(n)
		s.running.Go(func() { servers.put(g) })
		s.bgp = nil
	}
	s.leftEstablished("ended here with " + n.String())
	if s.spare != nil {
		s.spare.farewell(n)
		s.spare = nil
	}
	s.running.Wait()
	for _, fn := range s.takeInbox() { // without bgp they only close connections
		fn()
	}
}

// restartTime is how long peers are asked to keep our routes.
const restartTime = 120 * time.Second

// ourOpen adds to GoBGP's OPEN what it is not told of. Forwarding outlives the
// speaker and every session, so it is always preserved, but not from before the
// device started.
func (s *session) ourOpen(o *open) *open {
	if !s.cfg.GracefulRestart {
		return o
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	family, _ := s.family()
	o.restart = &restart{
		restarting: s.reborn && !s.lived, time: restartTime,
		families: []restartFamily{{family, s.reborn || s.lived}},
	}
	return o
}

// setKey changes the TCP-MD5 key without ending the session: if the peer does
// the same before either's hold time is over, TCP repeats what was lost between.
func (s *session) setKey(key string) {
	s.mu.Lock()
	s.key = key
	cur := s.cur
	s.rekeyed = s.status.State == bgp.StateEstablished
	s.mu.Unlock()
	if err := s.vrf.rekey(s); err != nil {
		s.log.Warn("change the TCP-MD5 key", "err", err)
	}
	s.post(s.refuseSpare) // it was made with the key before, or without one
	if cur == nil {
		return
	}
	if err := cur.setKey(key); err != nil { // it is closed, or cannot change
		cur.close()
	}
}

// refuseSpare ends the connection that waits for the current one to fail.
func (s *session) refuseSpare() {
	if c := s.spare; c != nil {
		s.spare = nil
		c.farewell(ceaseReset)
	}
}

// setKey changes the connection's TCP-MD5 key.
func (c *conn) setKey(key string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return setMD5(fd, c.s.cfg.Peer, key) })
}

func (s *session) keyNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key
}
