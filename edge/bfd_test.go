package edge

import (
	"fmt"
	"testing"
	"time"

	"msee/bfd"
	"msee/config"
	"msee/dataplane"
)

func TestHoldDownBacksOff(t *testing.T) {
	var delay time.Duration
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		delay = holdDown(delay, 2*time.Second, time.Second, i == 0)
		if delay != want*time.Second {
			t.Errorf("flap %d: held down for %v, want %v s", i+1, delay, want)
		}
	}
	if delay = holdDown(delay, calmAfter, time.Second, false); delay != 0 {
		t.Errorf("after a calm time: %v", delay)
	}
	if delay = holdDown(0, 0, 5*time.Minute, false); delay != 5*time.Minute {
		t.Errorf("with more configured than the back-off's end: %v", delay)
	}
	if delay = holdDown(time.Second, 0, 0, false); delay != 2*time.Second {
		t.Errorf("with none configured, after one second: %v", delay)
	}
}

// TestStrictModeSwitchedOn: a BGP session whose BFD is not up is held from the
// moment that strict mode demands it, by a reload or with the peering.
func TestStrictModeSwitchedOn(t *testing.T) {
	b := newBench(t)
	s := b.sessions["ce"]
	s.cfg.Name, s.cfg.Peer, s.cfg.Local = "ce", b.peers[0].Addr, b.peers[0].Local
	s.cfg.BFD = config.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}
	check := func(what string, held bool) {
		t.Helper()
		b.watchBFD(s)
		b.releaseBFD(s, time.Now())
		if s.bfd.held != held || s.bfd.session.Strict != s.cfg.BFD.Strict {
			t.Errorf("%s: held %v, want %v; strict %v", what, s.bfd.held, held, s.bfd.session.Strict)
		}
	}
	s.cfg.BFD.Strict = true
	check("strict, but disabled", false)
	s.cfg.Enabled = true
	check("enabled", true)
	s.cfg.BFD.Strict = false
	check("not strict any more", false)
	s.cfg.BFD.Strict = true
	check("strict again", true)
	if a := s.bfd.session.Adjacency; a.Down() != 0 { // the worker's to mark, and none is there
		t.Errorf("down for %v", a.Down())
	}
}

// TestFlapBetweenLooks: a session that comes up and goes down while control does not
// look is one that flaps, and not one that was up for long.
func TestFlapBetweenLooks(t *testing.T) {
	b := newBench(t)
	b.v.endpoints = &endpoints{}
	s := b.sessions["ce"]
	s.cfg.Enabled, s.cfg.BFD.HoldDown, s.bfd = true, time.Second, &bfdWatch{upAt: time.Now().Add(-time.Hour)}
	for flap, want := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		b.bfdDown(s, dataplane.BFDReport{State: bfd.Down, Ups: uint32(flap) + 1, Downs: uint32(flap) + 1, Diag: bfd.DiagTimeExpired})
		if s.bfd.delay != want {
			t.Errorf("down for the %d. time: held down for %v, want %v", flap+1, s.bfd.delay, want)
		}
	}
}

// TestAdminDownIsNoFailure: a peer's AdminDown takes nothing down, even if the peer
// says something else already when control hears of it; silence does.
func TestAdminDownIsNoFailure(t *testing.T) {
	for _, c := range []struct {
		report dataplane.BFDReport
		held   bool
	}{
		{dataplane.BFDReport{State: bfd.Down, Downs: 1, PeerAdminDown: true, LeftByAdmin: true}, false},
		{dataplane.BFDReport{State: bfd.Init, Downs: 1, LeftByAdmin: true}, false},
		{dataplane.BFDReport{State: bfd.Up, Downs: 1, Ups: 2, LeftByAdmin: true}, false},
		{dataplane.BFDReport{State: bfd.Down, Downs: 1, Diag: bfd.DiagTimeExpired}, true},
	} {
		b := newBench(t)
		b.v.endpoints = &endpoints{}
		s := b.sessions["ce"]
		s.cfg.Enabled, s.bfd = true, &bfdWatch{}
		b.bfdDown(s, c.report)
		if s.bfd.held != c.held {
			t.Errorf("%+v: held %v, want %v", c.report, s.bfd.held, c.held)
		}
	}
}

// TestSourcePorts: with hundreds of sessions no two have the same source port, and all
// are in the range of RFC 5881 §4.
func TestSourcePorts(t *testing.T) {
	b := newBench(t)
	seen := map[uint16]bool{}
	for i := range 1000 {
		cfg := bfd.Config{MyDiscriminator: b.newDiscriminator()}
		s := dataplane.NewBFDSession(dataplane.BFDSession{Config: cfg})
		if p := s.SourcePort(); p < bfd.MinSourcePort || seen[p] {
			t.Fatalf("session %d has source port %d; another has it already %v", i, p, seen[p])
		}
		seen[s.SourcePort()] = true
		b.sessions[fmt.Sprint(i)] = &session{bfd: &bfdWatch{session: s}}
	}
}
