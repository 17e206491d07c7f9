package speaker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// conn is a connection with the peer. Between it and GoBGP stands a relay, so
// that GoBGP reads nothing but what this package has written or checked: its
// parsers crash on some malformed messages, and one crash would be that of all
// sessions. OPENs are passed on anew, with the capabilities known here;
// KEEPALIVEs and NOTIFICATIONs are simple enough; UPDATEs are decoded here, and
// GoBGP hears a KEEPALIVE instead, which restarts its hold timer.
//
// What we advertise does not pass through GoBGP either, see advertise.go.
type conn struct {
	*net.TCPConn
	s       *session
	dialled bool
	open    *open // the peer's, once seen; guarded by session.mu

	handed      chan struct{} // closed by hand, after inner is set
	inner       *net.TCPConn  // to GoBGP
	established chan struct{} // closed when GoBGP is
	confirmed   chan struct{} // closed when our first KEEPALIVE is out
	wake        chan struct{} // there may be something to advertise
	gone        chan struct{} // closed when the peer's side has ended
	end         sync.Once

	writing sync.Mutex // one message, or several, at a time
	silent  bool       // the last word is said
}

func newConn(s *session, c *net.TCPConn, dialled bool) *conn {
	return &conn{
		TCPConn: c, s: s, dialled: dialled,
		handed: make(chan struct{}), established: make(chan struct{}), confirmed: make(chan struct{}),
		wake: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

// Timing of a connection.
const (
	noticeWait = 50 * time.Millisecond // for a last NOTIFICATION to be written
	// refreshHold is how often GoBGP hears of UPDATEs; the shortest hold time
	// there is (RFC 4271 §4.2) is 3 s.
	refreshHold = time.Second
)

var errSilent = errors.New("the connection has had its last message")

// send writes whole messages. A peer that takes nothing for the hold time is
// gone (RFC 9687).
func (c *conn) send(b []byte, within time.Duration) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.silent {
		return errSilent
	}
	c.SetWriteDeadline(time.Now().Add(within))
	if _, err := c.Write(b); err != nil {
		c.silent = true // part of a message may be out
		return err
	}
	return nil
}

// farewell writes n if there is room, and closes. Without a code it says
// nothing.
func (c *conn) farewell(n notification) {
	if n.code == 0 {
		c.close()
		return
	}
	c.SetWriteDeadline(time.Now().Add(noticeWait)) // also of a write that is stuck
	if c.send(n.marshal(), noticeWait) != nil {
		c.SetLinger(0) // do not wait for what was queued before
	}
	c.writing.Lock()
	c.silent = true
	c.writing.Unlock()
	c.close()
}

// close ends the connection at both sides.
func (c *conn) close() {
	c.end.Do(func() {
		close(c.gone)
		c.TCPConn.Close()
		select {
		case <-c.handed:
			c.inner.Close()
		default:
		}
	})
}

// hand gives the relay its connection to GoBGP.
func (c *conn) hand(inner *net.TCPConn) {
	c.inner = inner
	close(c.handed)
	select {
	case <-c.gone: // close did not see it
		inner.Close()
	default:
	}
	go c.fromGoBGP()
}

// fromPeer relays what the peer says until the connection ends.
func (c *conn) fromPeer() {
	err := c.listen()
	var header *errHeader
	var update *updateError
	var refused *refusal
	switch {
	case errors.As(err, &header):
		c.s.fail(c, notification{code: 1, subcode: header.subcode}, header.detail)
	case errors.As(err, &update):
		c.s.fail(c, update.notification(), update.detail)
	case errors.As(err, &refused):
		c.s.fail(c, refused.notification, refused.detail)
	default:
		c.s.post(func() { c.s.lost(c) })
		c.close()
	}
}

// refusal ends a session for what the peer said.
type refusal struct {
	notification
	detail string
}

func (r *refusal) Error() string { return r.detail }

// FSM errors (RFC 6608).
func unexpected(kind, subcode uint8) error {
	return &refusal{notification{code: 5, subcode: subcode}, fmt.Sprintf("message of type %d", kind)}
}

// listen reads one message after the other: OPEN, KEEPALIVE, then any.
func (c *conn) listen() error {
	r := bufio.NewReaderSize(c.TCPConn, 64<<10)
	b := make([]byte, maxMessage)
	m, err := readMessage(r, b)
	if err != nil {
		return err
	}
	if m[18] == typeNotification {
		return c.notified(m)
	}
	if m[18] != typeOpen {
		return unexpected(m[18], 1)
	}
	o, err := parseOpen(m)
	if err != nil {
		return &refusal{notification{code: 2}, err.Error()}
	}
	c.s.heardOpen(c, o)
	if err := c.s.acceptable(o); err != nil {
		return err
	}
	select {
	case <-c.handed:
	case <-c.gone:
		return net.ErrClosed
	}
	passed := *o
	passed.restart = nil // GoBGP has no part in it
	if _, err := c.inner.Write(passed.marshal()); err != nil {
		return err
	}
	if m, err = readMessage(r, b); err != nil {
		return err
	}
	switch m[18] {
	case typeNotification:
		return c.notified(m)
	case typeKeepalive:
	default:
		return unexpected(m[18], 2)
	}
	if _, err := c.inner.Write(keepaliveMessage()); err != nil {
		return err
	}
	select {
	case <-c.established:
	case <-c.gone:
		return net.ErrClosed
	}
	return c.listenEstablished(r, b, o)
}

func (c *conn) listenEstablished(r io.Reader, b []byte, o *open) error {
	family, _ := c.s.family()
	var told time.Time // when GoBGP heard last
	for {
		m, err := readMessage(r, b)
		if err != nil {
			return err
		}
		switch m[18] {
		case typeOpen:
			return unexpected(m[18], 3)
		case typeNotification:
			return c.notified(m)
		case typeUpdate:
			u, err := parseUpdate(m, family, o.fourOctets)
			if err != nil {
				return err
			}
			c.s.received(c, u)
		case typeRefresh: // RFC 2918: AFI, reserved, SAFI
			if len(m) == headerLen+4 && uint32(m[19])<<24|uint32(m[20])<<16|uint32(m[22]) == family {
				c.s.refresh(c)
			}
		}
		if now := time.Now(); now.Sub(told) > refreshHold {
			told = now
			c.s.heard(c)
			if _, err := c.inner.Write(keepaliveMessage()); err != nil {
				return err
			}
		}
	}
}

// notified takes the peer's last word.
func (c *conn) notified(m []byte) error {
	n, err := parseNotification(m)
	if err != nil {
		return &errHeader{2, err.Error()}
	}
	c.s.heardNotification(c, n)
	select {
	case <-c.handed:
		c.inner.Write(n.marshal())
	default:
	}
	return io.EOF
}

func keepaliveMessage() []byte { return appendHeader(make([]byte, 0, headerLen), typeKeepalive) }

// fromGoBGP relays what GoBGP says until it closes.
func (c *conn) fromGoBGP() {
	defer c.close()
	b := make([]byte, maxMessage)
	confirmed := false
	for {
		m, err := readMessage(c.inner, b)
		if err != nil {
			return
		}
		switch m[18] {
		case typeOpen:
			o, err := parseOpen(m)
			if err != nil {
				return
			}
			m = c.s.ourOpen(o).marshal()
		case typeUpdate, typeRefresh:
			continue // its table is empty: an End-of-RIB at most
		}
		if c.send(m, c.s.cfg.Hold) != nil {
			return
		}
		if m[18] == typeKeepalive && !confirmed {
			confirmed = true
			close(c.confirmed)
		}
	}
}
