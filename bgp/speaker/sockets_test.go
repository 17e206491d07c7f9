package speaker

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/bgp"
	"msee/netns"
)

// TestListenersHaveKeys wants no connection without TCP-MD5 of a peer that has a
// key, from the first moment that the kernel makes connections.
func TestListenersHaveKeys(t *testing.T) {
	ours, theirs := link(t)
	var l *net.TCPListener
	must(t, netns.Do(ours, func() (err error) {
		l, err = listen("tcp4", map[netip.Addr]string{netip.MustParseAddr(v4b): "abc", netip.MustParseAddr(v6b): "abc"})
		return err
	}))
	defer l.Close()
	must(t, netns.Do(theirs, func() error {
		c, err := net.DialTimeout("tcp4", v4a+":179", time.Second)
		if err == nil {
			c.Close()
			t.Error("connected without a key")
		} else if !os.IsTimeout(err) {
			t.Errorf("error %v, want no answer", err)
		}
		return nil
	}))
}

// TestFirstKeyRefusesOlderConnections holds a connection that was made without a
// key in the hands of who accepts, while its peer gets one.
func TestFirstKeyRefusesOlderConnections(t *testing.T) {
	ours, theirs := link(t)
	peer := newFakePeer(t, theirs)
	v := newVRF(ours, slog.New(slog.DiscardHandler))
	must(t, v.ensure())
	defer func() { v.mu.Lock(); defer v.mu.Unlock(); v.closeLocked() }()

	v.mu.Lock() // find waits
	conn := peer.dial()
	peer.write(conn, peerOpen(180, 1))
	time.Sleep(200 * time.Millisecond) // until it is accepted; else the backlog is tested
	s := &session{vrf: v, key: "abc", cfg: bgp.SessionConfig{Local: netip.MustParseAddr(v4a), Peer: netip.MustParseAddr(v4b)}}
	e := endpoints{s.cfg.Local, s.cfg.Peer}
	v.sessions[e] = s
	err := v.applyKeyLocked(e, s.keyNow())
	v.mu.Unlock()
	must(t, err)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a connection without key ends by %v, want a reset", err)
	}
}

// TestFirstKeyEndsSpare: nor does a connection that was made without a key, and
// waits for its turn, get it once there is one.
func TestFirstKeyEndsSpare(t *testing.T) {
	ours, theirs := link(t)
	peer := newFakePeer(t, theirs)
	v := newVRF(ours, slog.New(slog.DiscardHandler))
	must(t, v.ensure())
	defer func() { v.mu.Lock(); defer v.mu.Unlock(); v.closeLocked() }()
	cfg := bgp.SessionConfig{Local: netip.MustParseAddr(v4a), Peer: netip.MustParseAddr(v4b), Enabled: true}
	s := &session{vrf: v, cfg: cfg, wake: make(chan struct{}, 1), bgp: new(gobgp), log: slog.New(slog.DiscardHandler)}
	must(t, v.join(s))

	conn := peer.dial()
	defer conn.Close()
	inbox := func(until func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !until(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing happened")
			}
			for _, fn := range s.takeInbox() {
				fn()
			}
		}
	}
	inbox(func() bool { return s.spare != nil })
	s.setKey("abc")
	inbox(func() bool { return s.spare == nil })
}
