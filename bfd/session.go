package bfd

import (
	"math/rand/v2"
	"time"
)

// Config is what the local side wants of a session.
type Config struct {
	MyDiscriminator uint32        // not zero; nobody else's here
	DesiredMinTx    time.Duration // whole microseconds, at least one
	RequiredMinRx   time.Duration // the same
	DetectMult      uint8         // at least 1
	RequiredMinEcho time.Duration // how fast we answer echoes; 0: not at all
	Auth            Auth
	// ControlIndependent says that the session survives a restart of the
	// control plane (the C bit).
	ControlIndependent bool
	// Passive sessions say nothing before they have heard (RFC 5880 §6.1).
	Passive bool
	// Disabled sessions are AdminDown.
	Disabled bool
}

// slowInterval is the least interval of a session that is not Up (RFC 5880
// §6.8.3): whoever does not answer shall not be flooded.
const slowInterval = time.Second

// Never is the deadline of what is not to happen.
const Never = time.Duration(1<<63 - 1)

// Session is one side of a session. What its owner does:
//
//	Receive   for each packet that is the session's
//	Expire    when Deadline has come, after all that has been received by then
//	          was given to Receive
//	Transmit  when Deadline has come and after each of the others, until it
//	          has nothing to send
//
// Fields are named as the variables of RFC 5880 §6.8.1.
type Session struct {
	cfg Config
	rng *rand.Rand

	state       State
	diag        Diag
	remoteState State
	remoteDiag  Diag

	remoteDiscr        uint32
	remoteMinRx        time.Duration
	remoteMinTx        time.Duration
	remoteMinEchoRx    time.Duration
	remoteDetectMult   uint8
	remoteDemand       bool
	remoteControlIndep bool

	// Intervals as advertised, and as agreed; see changeTimers.
	desiredMinTx, requiredMinRx time.Duration
	txInUse, rxInUse            time.Duration
	poll                        pollState
	pollAgain                   bool

	finalDue       bool // an answer to the peer's poll
	urgent         bool // something changed that need not wait for txDue
	xmitSeq        uint32
	rcvSeq         sequenceWindow
	lastTx, lastRx time.Duration
	sentUp         bool          // the last packet sent said Up
	txDue          time.Duration // of the next periodic packet
	expiry         time.Duration // of the detection time
	excused        bool          // a late look has extended the detection time
	pathIsDown     bool
	changedAt      time.Duration
	counters       Counters
	lateness       Lateness // of periodic packets
}

// pollState is where a Poll Sequence is (RFC 5880 §6.5).
type pollState uint8

const (
	pollNone  pollState = iota
	pollSent            // P is set in what we send, until F comes
	pollPause           // one packet without P, so that the next F is the next poll's
)

// Counters are a session's since it was made.
type Counters struct {
	Rx        uint64            `json:"rxPackets"`
	Tx        uint64            `json:"txPackets"`
	RxBytes   uint64            `json:"rxBytes"` // of the packets alone, without UDP
	TxBytes   uint64            `json:"txBytes"`
	Discarded [Reasons]uint64   `json:"-"` // Accepted's place is not used
	Ups       uint64            `json:"ups"`
	Downs     [diagCount]uint64 `json:"-"` // from Up, by our diagnostic
	LastDown  Diag              `json:"lastDown"`
	LateLooks uint64            `json:"lateLooks"` // detection times extended, as we had looked late
	// LongestSilence is the longest time between two packets of ours while Up: a
	// peer that is told to wait no longer than that has been right to give us up.
	LongestSilence Millis `json:"longestSilence"`
}

// New returns a session in state Down, or AdminDown. Seed makes its jitter and
// its first sequence number.
func New(cfg Config, seed uint64, now time.Duration) *Session {
	s := &Session{cfg: cfg, rng: rand.New(rand.NewPCG(seed, uint64(cfg.MyDiscriminator))),
		state: Down, remoteState: Down,
		remoteMinRx: time.Microsecond, // RFC 5880 §6.8.1
		expiry:      Never, changedAt: now}
	if cfg.Disabled {
		s.state, s.diag = AdminDown, DiagAdminDown
	}
	s.xmitSeq = s.rng.Uint32()
	s.desiredMinTx = s.wantedMinTx()
	s.requiredMinRx = cfg.RequiredMinRx
	s.txInUse, s.rxInUse = s.desiredMinTx, s.requiredMinRx
	s.txDue = now
	return s
}

// State returns the session's state and why it is not Up.
func (s *Session) State() (State, Diag) { return s.state, s.diag }

// RemoteState returns the state that the peer has told last.
func (s *Session) RemoteState() State { return s.remoteState }

// Heard reports whether it has told any within the detection time.
func (s *Session) Heard() bool { return s.remoteDiscr != 0 }

// Config returns what the session was told last.
func (s *Session) Config() Config { return s.cfg }

// Receive takes a packet that demultiplexing has found to be the session's.
func (s *Session) Receive(now time.Duration, p *Packet) Reason {
	r := s.receive(now, p)
	if r == Accepted {
		s.counters.Rx++
		s.counters.RxBytes += uint64(len(p.Raw))
	} else {
		s.counters.Discarded[r]++
	}
	return r
}

// receive is the reception of RFC 5880 §6.8.6 from authentication on.
func (s *Session) receive(now time.Duration, p *Packet) Reason {
	if r := s.cfg.Auth.verify(p, &s.rcvSeq); r != Accepted {
		return r
	}
	s.remoteDiscr = p.My
	s.remoteState, s.remoteDiag = p.State, p.Diag
	s.remoteDemand, s.remoteControlIndep = p.Demand, p.ControlIndependent
	s.remoteMinEchoRx = p.RequiredMinEchoRx
	fasterRx := p.RequiredMinRx < s.remoteMinRx || s.remoteMinRx == 0
	s.remoteMinRx = p.RequiredMinRx
	s.remoteMinTx, s.remoteDetectMult = p.DesiredMinTx, p.DetectMult
	if p.Final {
		s.pollAnswered(now)
	}
	if fasterRx || s.txDue == Never {
		s.hasten(now)
	}
	s.lastRx, s.excused = now, false
	s.expiry = now + s.detectionTime()
	if s.state == AdminDown {
		return AdminDownDiscards
	}
	if !s.pathIsDown {
		s.input(now, input(p.State))
	}
	if p.Poll {
		s.finalDue = true
	}
	return Accepted
}

// input takes the session to its next state. It is the one place where the
// state changes.
func (s *Session) input(now time.Duration, in input) {
	c := transitions[s.state][in]
	if c.next == s.state {
		return
	}
	if s.state == Up {
		s.counters.Downs[c.diag]++
		s.counters.LastDown = c.diag
	}
	if c.next == Up {
		s.counters.Ups++
	}
	s.state, s.changedAt = c.next, now
	if c.next != Init { // where what brought the session down is still worth telling
		s.diag = c.diag
	}
	s.urgent = true // RFC 5880 §6.8.7: a change of state need not wait
	s.changeTimers(now)
}

// wantedMinTx is the interval to advertise in the present state.
func (s *Session) wantedMinTx() time.Duration {
	if s.state == Up {
		return s.cfg.DesiredMinTx
	}
	return max(s.cfg.DesiredMinTx, slowInterval)
}

// changeTimers brings the intervals to the present state and configuration
// (RFC 5880 §6.8.3). The peer hears of it by a Poll Sequence; while Up, what it
// does not know yet must not hurt: we go on sending as fast as it expects, and
// waiting as long as it may take, until it has answered.
func (s *Session) changeTimers(now time.Duration) {
	tx, rx := s.wantedMinTx(), s.cfg.RequiredMinRx
	if tx == s.desiredMinTx && rx == s.requiredMinRx {
		return
	}
	s.desiredMinTx, s.requiredMinRx = tx, rx
	if s.state != Up || tx < s.txInUse {
		s.txInUse = tx
	}
	if s.state != Up || rx > s.rxInUse {
		s.rxInUse = rx
		s.extend()
	}
	if s.poll == pollNone {
		s.poll = pollSent
	} else {
		s.pollAgain = true
	}
	s.hasten(now)
	s.urgent = true
}

// pollAnswered ends a Poll Sequence (RFC 5880 §6.8.6).
func (s *Session) pollAnswered(now time.Duration) {
	if s.poll != pollSent {
		return
	}
	s.poll = pollNone
	if s.pollAgain {
		s.poll, s.pollAgain = pollPause, false
		s.urgent = true // a peer in demand mode is sent nothing by the clock
		return
	}
	s.txInUse, s.rxInUse = s.desiredMinTx, s.requiredMinRx
	s.hasten(now)
}

// TxInterval is how far apart periodic packets are sent, before jitter; Never
// if the peer wants none (RFC 5880 §6.8.7).
func (s *Session) TxInterval() time.Duration {
	switch {
	case s.remoteMinRx == 0,
		s.cfg.Passive && s.remoteDiscr == 0,
		s.remoteDemand && s.remoteState == Up && s.state == Up && s.poll != pollSent:
		return Never
	}
	return max(s.txInUse, s.remoteMinRx)
}

// Overdue reports that the detection time is over at now.
func (s *Session) Overdue(now time.Duration) bool { return now >= s.expiry }

// detectionTime is how long the peer may be silent (RFC 5880 §6.8.4).
func (s *Session) detectionTime() time.Duration {
	return time.Duration(s.remoteDetectMult) * s.rxInterval()
}

// rxInterval is how far apart the peer's packets are at most.
func (s *Session) rxInterval() time.Duration { return max(s.rxInUse, s.remoteMinTx) }

// jittered shortens an interval at random (RFC 5880 §6.8.7): by up to a
// quarter, and by a tenth at least where one lost packet is all it takes.
func (s *Session) jittered(d time.Duration) time.Duration {
	if d == Never {
		return Never
	}
	if s.cfg.DetectMult == 1 {
		return d*3/4 + time.Duration(s.rng.Int64N(int64(d*15/100)+1))
	}
	return d - time.Duration(s.rng.Int64N(int64(d/4)+1))
}

// hasten applies a shorter interval at once: the next packet goes no later
// than that after the last (RFC 5880 §6.8.3).
func (s *Session) hasten(now time.Duration) {
	d := s.jittered(s.TxInterval())
	if d == Never {
		s.txDue = Never
		return
	}
	s.txDue = min(s.txDue, max(s.lastTx+d, now))
}

// extend applies a longer detection time at once.
func (s *Session) extend() {
	if s.expiry != Never {
		s.expiry = max(s.expiry, s.lastRx+s.detectionTime())
	}
}

// Deadline is when the session wants to be looked after: for Transmit or
// Expire.
func (s *Session) Deadline() time.Duration {
	if s.finalDue || s.urgent && s.maySend() {
		return 0
	}
	return min(s.txDue, s.expiry)
}

func (s *Session) maySend() bool {
	return s.remoteMinRx != 0 && !(s.cfg.Passive && s.remoteDiscr == 0)
}

// Expire looks at the detection time. Its caller has given to Receive all that
// had been received by now.
//
// Whoever looks late was not running, and perhaps neither was the peer, on a
// machine that both share: a look later than half an interval extends the
// detection time by one interval; again and again if the next looks are late as
// well, until it has doubled.
func (s *Session) Expire(now time.Duration) {
	if !s.Overdue(now) {
		return
	}
	if late := now - s.expiry; s.state >= Init && late > s.rxInterval()/2 &&
		(!s.excused || now+s.rxInterval() <= s.lastRx+2*s.detectionTime()) {
		s.excused = true
		s.counters.LateLooks++
		s.expiry = now + s.rxInterval()
		return
	}
	if s.state < Init {
		s.forget(now)
		return
	}
	// The peer is told for one detection time more that it is down, by its own
	// discriminator.
	s.expiry = now + s.detectionTime()
	s.input(now, detectionExpired)
}

// forget ends what we know of a peer that is silent for a detection time after
// the session went down (RFC 5880 §6.8.1), its sequence number after two.
func (s *Session) forget(now time.Duration) {
	s.remoteDiscr, s.remoteState, s.remoteDemand = 0, Down, false
	s.remoteMinRx = time.Microsecond
	s.poll, s.pollAgain = pollNone, false
	s.txInUse, s.rxInUse = s.desiredMinTx, s.requiredMinRx // nobody is left to agree with
	s.hasten(now)                                          // it may have asked for few packets, or none
	if until := s.lastRx + 2*s.detectionTime(); s.rcvSeq.known && now < until {
		s.expiry = until
		return
	}
	s.rcvSeq.known = false
	s.expiry = Never
}

// PathDown says that the link is gone, or there again: nobody need wait for
// the detection time.
func (s *Session) PathDown(now time.Duration, gone bool) {
	if s.pathIsDown = gone; gone {
		s.input(now, pathDown)
	}
}

// Configure gives the session another configuration; its discriminator stays.
func (s *Session) Configure(cfg Config, now time.Duration) {
	cfg.MyDiscriminator = s.cfg.MyDiscriminator
	if cfg.DetectMult != s.cfg.DetectMult || cfg.RequiredMinEcho != s.cfg.RequiredMinEcho {
		s.urgent = true
	}
	if cfg.Auth.Type != s.cfg.Auth.Type {
		s.rcvSeq = sequenceWindow{}
	}
	was := s.cfg.Disabled
	s.cfg = cfg
	switch {
	case cfg.Disabled && !was:
		s.input(now, disable)
	case !cfg.Disabled && was:
		s.input(now, enable)
	}
	s.changeTimers(now)
}

// Transmit appends the packet that is due to b; it is to be sent at once. It
// returns b as it is if there is none.
func (s *Session) Transmit(now time.Duration, b []byte) []byte {
	final := s.finalDue
	periodic := now >= s.txDue
	if !final && !periodic && !(s.urgent && s.maySend()) {
		return b
	}
	if !final && s.TxInterval() == Never && !(s.urgent && s.maySend()) {
		s.txDue = Never
		return b
	}
	s.finalDue, s.urgent = false, false
	if periodic && !final {
		s.scheduleNext(now)
	}
	s.counters.Tx++
	p := Packet{
		Diag: s.diag, State: s.state,
		Poll:               s.poll == pollSent && !final, // §6.5: never both
		Final:              final,
		ControlIndependent: s.cfg.ControlIndependent,
		AuthPresent:        s.cfg.Auth.Type != AuthNone,
		DetectMult:         s.cfg.DetectMult,
		My:                 s.cfg.MyDiscriminator, Your: s.remoteDiscr,
		DesiredMinTx: s.desiredMinTx, RequiredMinRx: s.requiredMinRx,
		RequiredMinEchoRx: s.cfg.RequiredMinEcho,
	}
	if s.poll == pollPause {
		s.poll = pollSent
	}
	if s.sentUp {
		s.counters.LongestSilence = max(s.counters.LongestSilence, Millis(now-s.lastTx))
	}
	s.lastTx, s.sentUp = now, s.state == Up
	at := len(b)
	length := headerLen + s.cfg.Auth.sectionLen()
	s.counters.TxBytes += uint64(length)
	b = p.appendHeader(b, length)
	// Every packet has a number of its own; the keyed types allow it too.
	s.xmitSeq++
	return s.cfg.Auth.appendSection(b, at, s.xmitSeq)
}

// scheduleNext sets when the next periodic packet goes: counted from when this
// one should have gone, so that lateness does not add up, unless less than the
// 75 % of the interval would be between them that there must be (RFC 5880 §6.8.7).
func (s *Session) scheduleNext(now time.Duration) {
	interval := s.TxInterval()
	if interval == Never {
		s.txDue = Never
		return
	}
	s.lateness.add(now - s.txDue)
	s.txDue = max(s.txDue+s.jittered(interval), now+interval*3/4)
}
