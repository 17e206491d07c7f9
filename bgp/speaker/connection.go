package speaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"msee/bgp"
)

// dial makes one attempt and posts what came of it.
func (s *session) dial(ctx context.Context) {
	c, err := s.vrf.dial(ctx, s)
	posted := s.post(func() {
		s.dialling = false
		s.nextDial = time.Now().Add(jitter(redialMin, redialMax))
		if err == nil {
			s.take(newConn(s, c, true))
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
		c.farewell(ceaseOf(s.held[0]))
		return
	}
	if s.bgp == nil || s.up.Load() && !s.yields() { // RFC 4271 §6.8: an established session stays
		c.farewell(ceaseCollision)
		return
	}
	if s.spare != nil { // its sender has given it up, or is dialling wildly
		s.spare.farewell(ceaseCollision)
	}
	s.spare = c
	go c.fromPeer()
	s.wakeUp()
}

// yields reports whether an established session gives way to a new connection:
// the peer has restarted without our noticing (RFC 4724 §5), or has a new
// TCP-MD5 key and dials with it, while it cannot end the old connection.
func (s *session) yields() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.status.Since) > collisionTime && (s.status.RestartTime > 0 || s.rekeyed)
}

// collisionTime is how long after Established a second connection is taken for
// one that was on its way when the first was made.
const collisionTime = 3 * time.Second

// succeed puts the spare connection, whose OPEN has come, in the place of that
// of an established session.
func (s *session) succeed() {
	if s.spare == nil || !s.up.Load() || !s.yields() {
		return
	}
	s.mu.Lock()
	s.note = ""
	retain := s.status.RestartTime
	s.downLocked("the peer opened a new connection: it has restarted")
	s.status.Retain = retain
	s.publishLocked()
	s.mu.Unlock()
	s.restart(notification{}, "", 0)
}

// hand gives c to GoBGP.
func (s *session) hand(c *conn) {
	inner, gobgps, err := local.pair(s.cfg.Local, s.cfg.Peer)
	if err != nil {
		s.log.Error("hand a connection to GoBGP", "err", err)
		s.explain(err.Error())
		c.farewell(notification{code: codeCease, subcode: bgp.CeaseOutOfResources})
		return
	}
	s.mu.Lock()
	s.cur = c
	key := s.key // setKey changes that of cur
	s.mu.Unlock()
	if key != "" { // it may be newer than the connection
		if err := c.setKey(key); err != nil {
			s.mu.Lock()
			s.cur = nil
			s.mu.Unlock()
			inner.Close()
			gobgps.Close()
			c.close()
			return
		}
	}
	s.curSince = time.Now()
	c.hand(inner)
	go s.tell(c)
	select {
	case s.bgp.accept <- gobgps:
	default: // its loop is stuck; advance will time out
		gobgps.Close()
	}
}

// heardOpen is called with the peer's OPEN, before GoBGP reads it.
func (s *session) heardOpen(c *conn, o *open) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.open = o
	s.inbox = append(s.inbox, s.resolveCollision, s.succeed)
	s.wakeUp()
}

// heardNotification is called with the peer's last word.
func (s *session) heardNotification(c *conn, n notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == c {
		s.noteLocked(s.watch, s.explainReceived(n))
	}
}

// lost forgets a connection that its sender closed. That of GoBGP ends by its
// state machine.
func (s *session) lost(c *conn) {
	if s.spare == c {
		s.spare = nil
	}
}

// fail ends the session, or only c if it is not the session's, for what came
// on c.
func (s *session) fail(c *conn, n notification, detail string) {
	posted := s.post(func() {
		s.mu.Lock()
		current := s.cur == c
		s.mu.Unlock()
		if !current {
			c.farewell(n)
			s.lost(c)
			return
		}
		s.restart(n, "sent "+n.String()+": "+detail, idleHold)
	})
	if !posted {
		c.close()
	}
}

// sendFailed says why GoBGP will find the connection closed.
func (s *session) sendFailed(c *conn, err error) {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		s.mu.Lock()
		if s.cur == c {
			s.noteLocked(s.watch, fmt.Sprintf("the peer has read nothing for %v (RFC 9687)", s.cfg.Hold))
		}
		s.mu.Unlock()
	}
	c.close()
}

// acceptable says why a peer's OPEN is not, although RFC 4271 has nothing
// against it.
func (s *session) acceptable(o *open) error {
	switch {
	case o.hold == 0: // §6.2 allows it; without keepalives nobody notices a death
		return &refusal{badHoldTime, "the peer wants hold time 0, that is no keepalives"}
	case o.hold < s.cfg.MinHold:
		return &refusal{badHoldTime, fmt.Sprintf("the peer wants a hold time of %v; at least %v is accepted here", o.hold, s.cfg.MinHold)}
	}
	return nil
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
		spare.farewell(ceaseCollision)
		return
	}
	s.restart(ceaseCollision, "", 0)
}
