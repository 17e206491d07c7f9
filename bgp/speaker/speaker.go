// Package speaker is the BGP speaker, a process of its own (`msee speaker`),
// and the edge's handle of it.
//
// GoBGP v3.37 runs the sessions' state machines: OPEN, timers, NOTIFICATIONs.
// Routes are the edge's business, and messages are read and written here: GoBGP
// has known crash shapes on malformed input, so it reads nothing that was not
// checked (relay.go), and no UPDATE at all. What may be left of them is the
// reason for the process: forwarding must not share them.
//
// There is one BgpServer per session, not one per VRF: two subinterfaces of a
// VRF may have peers with the same address (GoBGP finds a peer by its address
// alone), and a session whose socket is stuck stalls only its own server. The
// price is about 120 kB and ten goroutines per session.
//
// GoBGP opens no socket. Listening and dialling happen here, on threads inside
// the VRF's namespace, with TCP-MD5, and GoBGP is handed the far end of a
// loopback connection to the relay (loopback.go, accept.go). Because the sockets
// are ours, a session can be ended at once even if its peer reads nothing.
//
// The flow, top to bottom:
//
//  1. the edge calls Configure, Advertise, Reset   speaker.go
//  2. commands cross the socket                    wire.go
//  3. the process starts and stops sessions        process.go
//  4. a session finds a connection                 session.go, connection.go, sockets.go, md5.go
//  5. GoBGP speaks on it through a relay           relay.go, loopback.go, gobgp.go, accept.go
//  6. messages are decoded and encoded             message.go, update.go, encode.go, advertise.go
//     the same for EVPN                            evpn.go
//  7. what moves a session is put in words         status.go, loghook.go
//  8. reports cross the socket                     outbox.go
//  9. the edge reads Events                        speaker.go
package speaker

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
)

// Restarts of a speaker that dies are this far apart; one that lived for
// steadyAfter starts again at the lower end.
const (
	backoffMin  = 200 * time.Millisecond
	backoffMax  = 5 * time.Second
	steadyAfter = 30 * time.Second
)

// Speaker is the edge's handle of the speaker process. It starts the process
// again when it dies and tells the new one all that is wanted: the sessions and
// their Adj-RIB-Outs. No method blocks on the process.
type Speaker struct {
	log    *slog.Logger
	launch func() (*child, error)
	in     *outbox // what the process said and the edge has not read
	events chan bgp.Event
	wake   chan struct{}
	done   chan struct{}

	mu        sync.Mutex
	sessions  map[string]bgp.SessionConfig
	routes    map[string]map[netip.Prefix]*bgp.Attrs // Adj-RIB-Outs
	evpn      map[string]map[evpn.Key]evpn.Route     // those of EVPN sessions
	configure bool                                   // sessions changed
	resets    []reset
	holds     map[string][]bgp.Hold                     // by session
	held      map[string]struct{}                       // whose holds changed
	dirty     map[string]*queue[netip.Prefix, struct{}] // of routes
	evpnDirty map[string]*queue[evpn.Key, struct{}]     // of evpn
	reborn    bool                                      // the process follows one that died
	untold    bool                                      // it has not been told all of routes yet
	ping      uint64                                    // to be sent, 0 if none
	pinged    uint64                                    // the last that was
	silent    int                                       // pings since the last pong
	hung      string                                    // why the process is taken for hung
}

// A process that leaves so many pings unanswered, or is at one thing for
// hungAfter, hangs: it is killed, and another one started, before peers with the
// shortest hold time, 10 s and a keepalive of 3 s, notice. Pings are counted
// rather than timed, as a machine that stands still delays both sides.
const (
	pingEvery  = 500 * time.Millisecond
	maxSilence = 8
	hungAfter  = 30 * time.Second
)

// Start runs argv, a program that calls Inherited and Main, until ctx ends.
func Start(ctx context.Context, argv []string, log *slog.Logger) *Speaker {
	return start(ctx, log, func() (*child, error) { return launchProcess(argv) })
}

// StartInProcess is Start without a process, for tests: the speaker runs on
// goroutines of the caller, and GoBGP's panics are the caller's.
func StartInProcess(ctx context.Context, log *slog.Logger) *Speaker {
	return start(ctx, log, func() (*child, error) { return launchHere(log) })
}

func start(ctx context.Context, log *slog.Logger, launch func() (*child, error)) *Speaker {
	s := &Speaker{
		log: log, launch: launch, in: newOutbox(),
		events: make(chan bgp.Event), wake: make(chan struct{}, 1), done: make(chan struct{}),
		sessions: make(map[string]bgp.SessionConfig),
		routes:   make(map[string]map[netip.Prefix]*bgp.Attrs),
		dirty:    make(map[string]*queue[netip.Prefix, struct{}]),
		holds:    make(map[string][]bgp.Hold),
		held:     make(map[string]struct{}),
		evpn:     make(map[string]map[evpn.Key]evpn.Route), evpnDirty: make(map[string]*queue[evpn.Key, struct{}]),
	}
	var both sync.WaitGroup
	both.Go(func() { s.supervise(ctx) })
	both.Go(func() { s.tell(ctx) })
	go func() {
		both.Wait()
		close(s.events)
		close(s.done)
	}()
	return s
}

// Events is where the speaker's news come out; it closes when the speaker has
// ended. A slow reader delays nobody: news on the same prefix or session
// replace each other until read. That a session left Established is never left
// out, and voids its routes: no withdrawals follow it. StateDown says only that
// the process died: its routes may be kept, as stale, until Restarted and what
// comes then.
func (s *Speaker) Events() <-chan bgp.Event { return s.events }

// Wait returns when the speaker has ended, after the ctx of Start.
func (s *Speaker) Wait() { <-s.done }

// Configure sets the whole list of wanted sessions. Sessions whose entry is as
// before are not disturbed, nor are those that have only another Key: it is
// changed in place. One whose entry changed in any other way is reset. The
// Adj-RIB-Outs and holds of sessions no longer listed are forgotten.
func (s *Speaker) Configure(sessions []bgp.SessionConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.sessions
	s.sessions = make(map[string]bgp.SessionConfig, len(sessions))
	for _, c := range sessions {
		s.sessions[c.Name] = c
		if _, ok := was[c.Name]; !ok && len(s.routes[c.Name]) > 0 {
			// Advertised before: the process may have been told already, when
			// it did not know the session.
			s.dirty[c.Name] = keys(s.routes[c.Name])
		}
		if _, ok := was[c.Name]; !ok && len(s.evpn[c.Name]) > 0 {
			s.evpnDirty[c.Name] = keysEVPN(s.evpn[c.Name])
		}
	}
	for name, routes := range s.routes {
		if _, ok := s.sessions[name]; ok {
			continue
		}
		// Withdrawn, not only forgotten: the process will not have noticed
		// that the session was gone if it is back in the next list.
		s.dirty[name] = keys(routes)
		delete(s.routes, name)
	}
	for name, routes := range s.evpn {
		if _, ok := s.sessions[name]; !ok {
			s.evpnDirty[name] = keysEVPN(routes)
			delete(s.evpn, name)
		}
	}
	for name := range s.holds {
		if _, ok := s.sessions[name]; !ok {
			delete(s.holds, name)
			s.held[name] = struct{}{}
		}
	}
	s.configure = true
	s.wakeUp()
}

// Reset ends a session with a Cease (administrative reset), for the reason that
// why tells an operator; it comes up again by itself.
func (s *Speaker) Reset(session, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := slices.ContainsFunc(s.resets, func(r reset) bool { return r.Session == session })
	if _, ok := s.sessions[session]; ok && !waits {
		s.resets = append(s.resets, reset{session, why})
		s.wakeUp()
	}
}

// Hold takes a session down and keeps it down until Release, also across a
// restart of the speaker. Several may hold one session, each under its own name;
// it is down as long as anybody does, and what its peer is told is the word of
// the first. Holding again replaces one's Why.
func (s *Speaker) Hold(session string, h bgp.Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[session]; !ok {
		return
	}
	hs := slices.Clone(s.holds[session]) // what was handed out stays as it is
	if i := slices.IndexFunc(hs, func(x bgp.Hold) bool { return x.By == h.By }); i < 0 {
		hs = append(hs, h)
	} else if hs[i] == h {
		return
	} else {
		hs[i] = h
	}
	s.setHoldsLocked(session, hs)
}

// Release ends the hold that by has on a session, if it has one.
func (s *Speaker) Release(session, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.holds[session]
	hs := slices.DeleteFunc(slices.Clone(was), func(h bgp.Hold) bool { return h.By == by })
	if len(hs) != len(was) {
		s.setHoldsLocked(session, hs)
	}
}

func (s *Speaker) setHoldsLocked(session string, hs []bgp.Hold) {
	if s.holds[session] = hs; len(hs) == 0 {
		delete(s.holds, session)
	}
	s.held[session] = struct{}{}
	s.wakeUp()
}

func (s *Speaker) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell moves news to Events.
func (s *Speaker) tell(ctx context.Context) {
	for {
		e, ok := s.in.pop()
		if !ok {
			select {
			case <-s.in.ready:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case s.events <- e:
		case <-ctx.Done():
			return
		}
	}
}

// supervise keeps a speaker running.
func (s *Speaker) supervise(ctx context.Context) {
	// The kernel kills the process when the thread that started it ends, so
	// this one must last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	backoff := backoffMin
	for first := true; ctx.Err() == nil; first = false {
		began := time.Now()
		c, err := s.launch()
		if err == nil {
			if !first {
				s.in.restart()
			}
			err = s.attend(ctx, c, !first)
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steadyAfter {
			backoff = backoffMin
		}
		s.log.Error("the BGP speaker ended; starting it again", "err", err, "in", backoff)
		s.allDown("the BGP speaker process ended (" + err.Error() + ") and is started again")
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func (s *Speaker) allDown(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.sessions {
		s.in.status(bgp.SessionStatus{Session: name, State: bgp.StateDown, Since: time.Now(), Reason: why})
	}
}

// attend serves one process until it ends or ctx does, and says why it ended.
func (s *Speaker) attend(ctx context.Context, c *child, reborn bool) error {
	s.markAll(reborn)
	gone := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		if s.command(c.conn, gone) != nil {
			c.conn.Close()
		}
	})
	writing.Go(func() { s.watchOver(c, gone) })
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	readErr := s.listen(c.conn)
	stop()
	close(gone)
	err := c.end()
	writing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.hung != "":
		return errors.New(s.hung)
	case err == nil:
		return readErr
	}
	return err
}

// watchOver kills a process that hangs.
func (s *Speaker) watchOver(c *child, gone <-chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		s.pinged++
		s.ping = s.pinged
		s.silent++
		if s.silent > maxSilence && s.hung == "" {
			s.hung = fmt.Sprintf("it hangs: %d pings unanswered", maxSilence)
		}
		hung := s.hung != ""
		s.wakeUp()
		s.mu.Unlock()
		if hung {
			c.kill()
			return
		}
	}
}

// answered takes a pong.
func (s *Speaker) answered(p *pong) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = 0
	if p.Busy > hungAfter && s.hung == "" {
		s.hung = fmt.Sprintf("it hangs: busy with %s for %v", p.With, p.Busy.Round(time.Second))
	}
}

// markAll makes everything wanted news for a new process.
func (s *Speaker) markAll(reborn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configure, s.resets = true, nil
	s.reborn, s.untold, s.ping, s.silent, s.hung = reborn, true, 0, 0, ""
	for name, routes := range s.routes {
		s.dirty[name] = keys(routes)
	}
	for name, routes := range s.evpn {
		s.evpnDirty[name] = keysEVPN(routes)
	}
	for name := range s.holds {
		s.held[name] = struct{}{}
	}
	s.wakeUp()
}

// command writes what is wanted to the process until it is gone.
func (s *Speaker) command(conn net.Conn, gone <-chan struct{}) error {
	enc := gob.NewEncoder(conn)
	for {
		c, ok := s.nextCommand()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-gone:
				return nil
			}
		}
		if err := enc.Encode(c); err != nil {
			return err
		}
	}
}

// nextCommand takes holds before sessions, so that none comes up that is held,
// then resets, then routes.
func (s *Speaker) nextCommand() (*command, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping != 0 {
		c := &command{Ping: s.ping}
		s.ping = 0
		return c, true
	}
	for name := range s.held {
		delete(s.held, name)
		return &command{Holds: &holds{name, s.holds[name]}}, true
	}
	if s.configure {
		s.configure = false
		c := &command{Configure: true, Reborn: s.reborn}
		for _, cfg := range s.sessions {
			c.Sessions = append(c.Sessions, cfg)
		}
		return c, true
	}
	if len(s.resets) > 0 {
		c := &command{Reset: &s.resets[0]}
		s.resets = s.resets[1:]
		return c, true
	}
	for name, dirty := range s.dirty {
		u := &bgp.Update{Session: name}
		dirty.take(maxRoutes, func(p netip.Prefix, _ struct{}) int {
			a := s.routes[name][p]
			if a != nil {
				u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: a})
			} else {
				u.Withdraw = append(u.Withdraw, p)
			}
			return weight(a)
		})
		if dirty.len() == 0 {
			delete(s.dirty, name)
		}
		if len(u.Announce)+len(u.Withdraw) > 0 {
			return &command{Routes: pack(u)}, true
		}
	}
	for name, dirty := range s.evpnDirty {
		u := &evpn.Update{Session: name}
		dirty.take(maxRoutes, func(k evpn.Key, _ struct{}) int {
			r, ok := s.evpn[name][k]
			if !ok {
				u.Withdraw = append(u.Withdraw, k)
				return 1
			}
			u.Announce = append(u.Announce, r)
			return weightEVPN(r.Attrs)
		})
		if dirty.len() == 0 {
			delete(s.evpnDirty, name)
		}
		if len(u.Announce)+len(u.Withdraw) > 0 {
			return &command{EVPN: packEVPN(u)}, true
		}
	}
	if s.untold {
		s.untold = false
		return &command{Told: true}, true
	}
	return nil, false
}

// listen takes reports until the socket ends or what comes cannot be a report.
func (s *Speaker) listen(conn net.Conn) error {
	dec := newDecoder(conn)
	for {
		var r report
		if err := dec.decode(&r); err != nil {
			return err
		}
		switch {
		case r.Routes != nil:
			if s.knows(r.Routes.Session) {
				s.in.update(r.Routes.unpack())
			}
		case r.EVPN != nil:
			if s.knows(r.EVPN.Session) {
				u, err := r.EVPN.unpack()
				if err != nil {
					return err
				}
				s.in.updateEVPN(u)
			}
		case r.Status != nil && s.knows(r.Status.Session):
			s.in.status(*r.Status)
		case r.Pong != nil:
			s.answered(r.Pong)
		case r.EndOfRIB != "" && s.knows(r.EndOfRIB):
			s.in.endOfRIB(r.EndOfRIB)
		}
	}
}

func (s *Speaker) knows(session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sessions[session]
	return ok
}
