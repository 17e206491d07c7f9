package speaker

import (
	"context"
	"net"
	"time"

	"msee/bgp"
)

// conn is a connection with the peer, not yet or already in GoBGP's hands.
type conn struct {
	*net.TCPConn
	dialled bool
	open    *open // the peer's, once seen; guarded by session.mu
}

func newConn(c *net.TCPConn, dialled bool) *conn { return &conn{TCPConn: c, dialled: dialled} }

// dial makes one attempt and posts what came of it.
func (s *session) dial(ctx context.Context) {
	c, err := s.vrf.dial(ctx, s)
	posted := s.post(func() {
		s.dialling = false
		s.nextDial = time.Now().Add(jitter(redialMin, redialMax))
		if err == nil {
			s.take(newConn(c, true))
			return
		}
		s.explain(explainDial(err, s.cfg.Peer))
	})
	if !posted && err == nil {
		c.Close()
	}
}

// take decides what becomes of a new connection.
func (s *session) take(c *conn) {
	if len(s.held) > 0 {
		farewell(c, ceaseOf(s.held[0]))
		return
	}
	if s.bgp == nil || s.up.Load() { // RFC 4271 §6.8: an established session stays
		farewell(c, ceaseCollision)
		return
	}
	peek(c.TCPConn, func(m []byte, err error) { s.heard(c, m, err) })
	if s.spare != nil { // its sender has given it up, or is dialling wildly
		farewell(s.spare, ceaseCollision)
	}
	s.spare = c
	s.resolveCollision()
	s.wakeUp()
}

// hand gives c to GoBGP.
func (s *session) hand(c *conn) {
	s.mu.Lock()
	s.cur = c
	s.mu.Unlock()
	s.curSince = time.Now()
	select {
	case s.bgp.accept <- c.TCPConn:
	default: // its loop is stuck; advance will time out
	}
}

// heard is called with each message of the OPEN phase, before GoBGP reads it.
func (s *session) heard(c *conn, m []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.inbox = append(s.inbox, func() { s.lost(c) })
	case m[18] == typeNotification:
		if n, err := parseNotification(m); err == nil && s.cur == c {
			s.noteLocked(s.watch, s.explainReceived(n))
		}
	case m[18] == typeOpen:
		c.open, _ = parseOpen(m) // what is wrong with it GoBGP says
		s.inbox = append(s.inbox, func() { s.opened(c) })
	}
	s.wakeUp()
}

// lost forgets a spare connection that its sender closed.
func (s *session) lost(c *conn) {
	if s.spare == c {
		c.Close()
		s.spare = nil
	}
}

// opened acts on the peer's OPEN.
func (s *session) opened(c *conn) {
	s.mu.Lock()
	refuse := s.cur == c && c.open != nil && c.open.hold == 0
	s.mu.Unlock()
	if refuse { // RFC 4271 §6.2 allows it; without keepalives nobody notices a death
		s.restart(badHoldTime, "sent "+badHoldTime.String()+": the peer wants hold time 0, that is no keepalives", idleHold)
		return
	}
	s.resolveCollision()
}

// resolveCollision keeps one of two connections, as RFC 4271 §6.8 has it: the
// one dialled by the side with the higher identifier (RFC 6286 §2.3: by the
// higher AS if they are equal). Until the peer's OPEN is there, or if one side
// dialled both, the later one waits.
func (s *session) resolveCollision() {
	s.mu.Lock()
	cur, spare := s.cur, s.spare
	if cur == nil || spare == nil || cur.dialled == spare.dialled || s.status.State == bgp.StateEstablished {
		s.mu.Unlock()
		return
	}
	o := spare.open
	if o == nil {
		o = cur.open
	}
	s.mu.Unlock()
	if o == nil {
		return
	}
	ours := s.cfg.RouterID.Compare(o.id) > 0 || s.cfg.RouterID == o.id && s.cfg.LocalAS > o.as
	if cur.dialled == ours {
		s.spare = nil
		farewell(spare, ceaseCollision)
		return
	}
	s.restart(ceaseCollision, "", 0)
}

// farewell writes n if there is room and closes c.
func farewell(c *conn, n notification) {
	c.SetWriteDeadline(time.Now().Add(noticeWait))
	if _, err := c.Write(n.marshal()); err != nil {
		c.SetLinger(0) // stuck: do not wait for what was queued before
	}
	c.Close()
}
