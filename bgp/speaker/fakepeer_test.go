package speaker

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/bgp"
	"msee/netns"
)

// fakePeer is a BGP router of few words at v4b, for what bgpd never does.
type fakePeer struct {
	t *testing.T
	l net.Listener
	d net.Dialer
	n string
}

func newFakePeer(t *testing.T, ns string) *fakePeer {
	t.Helper()
	return newFakePeerAt(t, ns, v4b)
}

func newFakePeerAt(t *testing.T, ns, addr string) *fakePeer {
	t.Helper()
	small := func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}
	p := &fakePeer{t: t, n: ns, d: net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(v4b)}, Timeout: 10 * time.Second}} // a lost SYN is sent again after one
	must(t, netns.Do(ns, func() (err error) {
		lc := net.ListenConfig{Control: small}
		p.l, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(addr, "179"))
		return err
	}))
	t.Cleanup(func() { p.l.Close() })
	return p
}

func (p *fakePeer) accept() net.Conn {
	p.t.Helper()
	p.l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := p.l.Accept()
	must(p.t, err)
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func (p *fakePeer) dial() (c net.Conn) {
	p.t.Helper()
	must(p.t, netns.Do(p.n, func() (err error) {
		c, err = p.d.Dial("tcp4", v4a+":179")
		return err
	}))
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// read returns the next message.
func (p *fakePeer) read(c net.Conn) []byte {
	p.t.Helper()
	b := make([]byte, maxMessage)
	_, err := io.ReadFull(c, b[:headerLen])
	must(p.t, err)
	n := binary.BigEndian.Uint16(b[16:])
	_, err = io.ReadFull(c, b[headerLen:n])
	must(p.t, err)
	return b[:n]
}

func (p *fakePeer) write(c net.Conn, m []byte) {
	p.t.Helper()
	_, err := c.Write(m)
	must(p.t, err)
}

// peerOpen is an OPEN whose identifier ends in id.
func peerOpen(hold uint16, id byte) []byte {
	o := openMessage(hold, 2, 6, 1, 4, 0, 1, 0, 1)
	copy(o[24:28], []byte{10, 255, 0, id})
	return o
}

func keepalive() []byte {
	k := ceaseShutdown.marshal()[:headerLen]
	k[17], k[18] = headerLen, 4
	return k
}

func (p *fakePeer) establish(c net.Conn) {
	p.t.Helper()
	if m := p.read(c); m[18] != typeOpen {
		p.t.Fatalf("no OPEN but % x", m)
	}
	p.write(c, keepalive())
}

// TestCollision has both connections open before any OPEN is answered: the one
// dialled by the higher identifier stays (RFC 4271 §6.8). Ours is 10.255.0.2.
func TestCollision(t *testing.T) {
	for name, peerID := range map[string]byte{"peer higher": 9, "peer lower": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nsA, nsB := link(t)
			p, e := newFakePeer(t, nsB), newEdge(t)
			c := ourSession(nsA, v4a, v4b)
			e.Configure([]bgp.SessionConfig{c})
			ours := p.accept()
			theirs := p.dial()
			p.write(theirs, peerOpen(180, peerID)) // first on the one that waits
			p.write(ours, peerOpen(180, peerID))
			winner, loser := ours, theirs
			if peerID > 2 {
				winner, loser = theirs, ours
			}
			m := p.read(loser)
			for m[18] != typeNotification {
				m = p.read(loser)
			}
			if n, _ := parseNotification(m); n.code != 6 || n.subcode != 7 {
				t.Errorf("the loser got %v", n)
			}
			p.establish(winner)
			e.untilState(c.Name, bgp.StateEstablished, 10*time.Second)
		})
	}
}

func TestHoldTimeZero(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	p, e := newFakePeer(t, nsB), newEdge(t)
	c := ourSession(nsA, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	p.write(p.accept(), peerOpen(0, 9))
	e.untilReason(c.Name, "sent OPEN error / unacceptable hold time (2/6): the peer wants hold time 0", 5*time.Second)
}

// TestNotificationInOpenConfirm is the one GoBGP reads and forgets.
func TestNotificationInOpenConfirm(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	p, e := newFakePeer(t, nsB), newEdge(t)
	c := ourSession(nsA, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	conn := p.accept()
	p.write(conn, peerOpen(180, 9))
	p.establish(conn) // after our OPEN and before the next message
	e.untilState(c.Name, bgp.StateEstablished, 5*time.Second)
	p.write(conn, notification{code: 6, subcode: 5}.marshal())
	e.untilReason(c.Name, "peer sent Cease / connection rejected (6/5)", 5*time.Second)

	conn = p.accept()
	p.write(conn, append(peerOpen(180, 9), notification{code: 2, subcode: 7}.marshal()...))
	e.untilReason(c.Name, "peer sent OPEN error / unsupported capability (2/7)", 5*time.Second)
}

// TestStuckPeer: a peer that reads nothing is left at once when told to, and
// the session recovers.
func TestStuckPeer(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	p, e := newFakePeer(t, nsB), newEdge(t)
	c := ourSession(nsA, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	conn := p.accept()
	p.write(conn, peerOpen(180, 9))
	p.establish(conn)
	e.untilState(c.Name, bgp.StateEstablished, 5*time.Second)
	u := bgp.Update{Session: c.Name}
	for i, prefix := range prefixes("30.0.0.0", 4000) {
		long := make([]uint32, 200)
		long[0] = uint32(i)
		u.Announce = append(u.Announce, bgp.Route{Prefix: prefix, Attrs: &bgp.Attrs{ASPath: long}})
	}
	e.Advertise(u)
	time.Sleep(1500 * time.Millisecond) // for the socket to fill up
	began := time.Now()
	e.Reset(c.Name, "reset by the test")
	e.until("session down", 10*time.Second, func() bool { return e.status[c.Name].Flaps == 1 }) // of a hold time of 180 s
	t.Logf("down after %v", time.Since(began))
	conn = p.accept()
	p.write(conn, peerOpen(180, 9))
	p.establish(conn)
	e.untilState(c.Name, bgp.StateEstablished, 5*time.Second)
}
