package edge

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"msee/bfd/bfddp"
)

// TestDaemonLetsTheLoopGo: a closed daemon's goroutines do not wait for a control
// loop that may be waiting for them.
func TestDaemonLetsTheLoopGo(t *testing.T) {
	e := &Edge{calls: make(chan func()), stop: make(chan struct{})} // and nobody in the loop
	d := &bfdDaemon{edge: e, stop: make(chan struct{})}
	done := make(chan error)
	go func() { done <- d.do(func() {}) }()
	d.close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for the loop")
	}
}

// TestOneForeignSessionPerNeighbor: of two sessions of a daemon's for one neighbor
// the first has it, and the second when that is gone.
func TestOneForeignSessionPerNeighbor(t *testing.T) {
	b := newBench(t)
	b.foreign = map[uint32]*foreign{}
	c := &daemonConn{bfdDaemon: &bfdDaemon{vrf: b.v}}
	add := func(discr uint32, device string) {
		t.Helper()
		err := b.addForeign(c, bfddp.Session{Discr: discr, Interface: device, Local: netip.IPv4Unspecified(), Peer: b.peers[0].Addr,
			MinTx: time.Second, MinRx: time.Second, DetectMult: 3})
		if err != nil {
			t.Fatal(err)
		}
		b.setBFD()
	}
	a := func() *adjacency { return b.v.fwd.adjacencies[hop{sub: b.v.subs["cust.100"], addr: b.peers[0].Addr}] }
	add(1, "")
	add(2, "cust.100")
	for range 3 {
		if b.setBFD(); b.foreign[1].session == nil || b.foreign[2].session != nil || !a().watched {
			t.Fatalf("the first has %v, the second %v", b.foreign[1].session, b.foreign[2].session)
		}
	}
	b.removeForeign(b.v, 1)
	b.setBFD()
	if s := b.foreign[2].session; s == nil || s.Adjacency != a().Adjacency || !a().watched {
		t.Errorf("the second has %v without the first", s)
	}
}

// TestDialPause: a daemon is looked for each second while it may have sessions here,
// and then twice as rarely with each try, up to half a minute.
func TestDialPause(t *testing.T) {
	for _, c := range []struct{ last, ago, want time.Duration }{
		{dialEvery, 0, dialEvery},
		{dialAtMost, foreignFor - 1, dialEvery}, // it was back in between
		{dialEvery, foreignFor, 2 * dialEvery},
		{16 * time.Second, time.Minute, dialAtMost},
		{dialAtMost, time.Hour, dialAtMost},
	} {
		if got := dialPause(c.last, c.ago); got != c.want {
			t.Errorf("after %v, %v without it: %v, want %v", c.last, c.ago, got, c.want)
		}
	}
}
