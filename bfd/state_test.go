package bfd

import (
	"testing"
	"time"
)

// TestEveryCell takes a session into each state and gives it each input by the
// way it really comes: packets, the clock, the link, the administrator. What
// is wanted is written down from RFC 5880 §6.2 and §6.8.6, apart from the
// table that it tests.
func TestEveryCell(t *testing.T) {
	type want struct {
		state State
		diag  Diag
	}
	stay := func(s State, d Diag) want { return want{s, d} }
	inputs := []string{"recv admin-down", "recv down", "recv init", "recv up", "expired", "path down", "disable", "enable"}
	wants := map[State][]want{
		AdminDown: {stay(AdminDown, DiagAdminDown), stay(AdminDown, DiagAdminDown), stay(AdminDown, DiagAdminDown),
			stay(AdminDown, DiagAdminDown), stay(AdminDown, DiagAdminDown), stay(AdminDown, DiagAdminDown),
			stay(AdminDown, DiagAdminDown), {Down, DiagNone}},
		Down: {stay(Down, DiagNone), {Init, DiagNone}, {Up, DiagNone}, stay(Down, DiagNone), stay(Down, DiagNone),
			stay(Down, DiagNone), {AdminDown, DiagAdminDown}, stay(Down, DiagNone)},
		Init: {{Down, DiagNeighborDown}, stay(Init, DiagNone), {Up, DiagNone}, {Up, DiagNone}, {Down, DiagTimeExpired},
			{Down, DiagPathDown}, {AdminDown, DiagAdminDown}, stay(Init, DiagNone)},
		Up: {{Down, DiagNeighborDown}, {Down, DiagNeighborDown}, stay(Up, DiagNone), stay(Up, DiagNone),
			{Down, DiagTimeExpired}, {Down, DiagPathDown}, {AdminDown, DiagAdminDown}, stay(Up, DiagNone)},
	}
	for from := AdminDown; from <= Up; from++ {
		for i, name := range inputs {
			s := sessionIn(t, from)
			now := 10 * time.Second
			switch name {
			case "expired":
				s.Expire(s.expiry) // in AdminDown and Down it is what forgets the peer
			case "path down":
				s.PathDown(now, true)
			case "disable", "enable":
				cfg := s.Config()
				cfg.Disabled = name == "disable"
				s.Configure(cfg, now)
			default:
				p := hello(State(i))
				s.Receive(now, &p)
			}
			state, diag := s.State()
			if w := wants[from][i]; state != w.state || diag != w.diag {
				t.Errorf("%v, %s: %v (%v), want %v (%v)", from, name, state, diag, w.state, w.diag)
			}
		}
	}
}

var testConfig = Config{MyDiscriminator: 0x1001, DesiredMinTx: 300 * time.Millisecond,
	RequiredMinRx: 300 * time.Millisecond, DetectMult: 3}

// hello is a peer's packet in that state.
func hello(state State) Packet {
	p := Packet{State: state, DetectMult: 3, My: 0x2002, Your: 0x1001,
		DesiredMinTx: 300 * time.Millisecond, RequiredMinRx: 300 * time.Millisecond}
	p.Raw = p.appendHeader(nil, headerLen)
	return p
}

// sessionIn returns a session in that state that has heard from its peer.
func sessionIn(t *testing.T, state State) *Session {
	t.Helper()
	cfg := testConfig
	cfg.Disabled = state == AdminDown
	s := New(cfg, 1, 0)
	path := map[State][]State{AdminDown: {Down}, Down: {AdminDown}, Init: {Down}, Up: {Down, Up}}[state]
	for _, recv := range path {
		p := hello(recv)
		s.Receive(9*time.Second, &p)
	}
	if got, _ := s.State(); got != state {
		t.Fatalf("cannot bring a session to %v: it is %v", state, got)
	}
	s.changedAt = 0
	return s
}

func TestStateIsKeptOneDetectionTimeAfterDown(t *testing.T) {
	s := sessionIn(t, Up)
	detection := s.detectionTime()
	expired := s.expiry
	s.Expire(expired)
	if state, diag := s.State(); state != Down || diag != DiagTimeExpired {
		t.Fatalf("after the detection time: %v (%v)", state, diag)
	}
	p, _ := Parse(s.Transmit(expired, nil))
	if p.State != Down || p.Diag != DiagTimeExpired || p.Your != 0x2002 {
		t.Errorf("told the peer %+v, want down, time expired, by its discriminator", p)
	}
	s.Expire(expired + detection - 1)
	if s.remoteDiscr != 0x2002 {
		t.Error("forgot the peer before another detection time had passed")
	}
	s.Expire(expired + detection)
	if s.remoteDiscr != 0 {
		t.Error("remembers the peer's discriminator after a detection time in Down (RFC 5880 §6.8.1)")
	}
}

func TestPathDownHoldsUntilThePathIsBack(t *testing.T) {
	s := sessionIn(t, Up)
	s.PathDown(10*time.Second, true)
	p := hello(Down)
	s.Receive(10*time.Second, &p)
	if state, diag := s.State(); state != Down || diag != DiagPathDown {
		t.Errorf("with the link gone: %v (%v)", state, diag)
	}
	s.PathDown(11*time.Second, false)
	s.Receive(11*time.Second, &p)
	if state, _ := s.State(); state != Init {
		t.Errorf("with the link back: %v, want init", state)
	}
}
