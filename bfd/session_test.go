package bfd

import (
	"math/rand/v2"
	"testing"
	"time"
)

// wire is two sessions in virtual time, and what is between them.
type wire struct {
	t     *testing.T
	now   time.Duration
	ends  [2]*end
	delay time.Duration
	loss  float64
	rng   *rand.Rand
	cut   [2]bool // what the end sends is lost
}

type end struct {
	*Session
	inbox []letter
	sent  []letter // all that it has ever sent
	stuck bool     // its owner does not run
}

type letter struct {
	at time.Duration
	b  []byte
}

func newWire(t *testing.T, a, b Config, seed uint64) *wire {
	b.MyDiscriminator = 0x2002
	return &wire{t: t, delay: 100 * time.Microsecond, rng: rand.New(rand.NewPCG(seed, 0)),
		ends: [2]*end{{Session: New(a, seed, 0)}, {Session: New(b, seed+1, 0)}}}
}

// run lets the two live for d, each looked after when its deadline comes, and
// stops early when until says so. It returns how long it took.
func (w *wire) run(d time.Duration, until func() bool) time.Duration {
	began := w.now
	for {
		next := began + d
		for _, e := range w.ends {
			if e.stuck {
				continue
			}
			next = min(next, max(e.Deadline(), w.now))
			if len(e.inbox) > 0 {
				next = min(next, max(e.inbox[0].at, w.now))
			}
		}
		w.now = next
		for i, e := range w.ends {
			w.serve(i, e)
		}
		if w.now >= began+d || until != nil && until() {
			return w.now - began
		}
	}
}

// serve does for an end what a worker does.
func (w *wire) serve(i int, e *end) {
	if e.stuck {
		return
	}
	for len(e.inbox) > 0 && e.inbox[0].at <= w.now {
		p, r := Parse(e.inbox[0].b)
		if r != Accepted {
			w.t.Fatalf("a session's own packet is %v", r)
		}
		e.inbox = e.inbox[1:]
		if p.Your == 0 || p.Your == e.cfg.MyDiscriminator {
			e.Receive(w.now, &p)
		}
	}
	e.Expire(w.now)
	for {
		b := e.Transmit(w.now, nil)
		if len(b) == 0 {
			break
		}
		e.sent = append(e.sent, letter{w.now, b})
		if !w.cut[i] && w.rng.Float64() >= w.loss {
			other := w.ends[1-i]
			other.inbox = append(other.inbox, letter{w.now + w.delay, b})
		}
	}
}

func (w *wire) bothUp() bool { return w.ends[0].state == Up && w.ends[1].state == Up }

func intervals(tx, rx time.Duration, mult uint8) Config {
	return Config{MyDiscriminator: 0x1001, DesiredMinTx: tx, RequiredMinRx: rx, DetectMult: mult}
}

const ms = time.Millisecond

// TestNegotiation: what each side does follows from both (RFC 5880 §6.8.4,
// §6.8.7): the slower wins, and a peer can only lengthen.
func TestNegotiation(t *testing.T) {
	for _, c := range []struct {
		a, b           Config
		txA, txB       time.Duration
		detectA, deteB time.Duration
	}{
		{intervals(300*ms, 300*ms, 3), intervals(300*ms, 300*ms, 3), 300 * ms, 300 * ms, 900 * ms, 900 * ms},
		{intervals(300*ms, 300*ms, 3), intervals(750*ms, 750*ms, 3), 750 * ms, 750 * ms, 2250 * ms, 2250 * ms},
		{intervals(300*ms, 300*ms, 3), intervals(10*ms, 10*ms, 3), 300 * ms, 300 * ms, 900 * ms, 900 * ms},
		{intervals(50*ms, 300*ms, 3), intervals(100*ms, 20*ms, 5), 50 * ms, 300 * ms, 1500 * ms, 150 * ms},
		{intervals(10*ms, 10*ms, 3), intervals(10*ms, 10*ms, 4), 10 * ms, 10 * ms, 40 * ms, 30 * ms},
		{intervals(3*time.Second, 2*time.Second, 2), intervals(10*ms, 10*ms, 3), 3 * time.Second, 2 * time.Second, 6 * time.Second, 6 * time.Second},
	} {
		w := newWire(t, c.a, c.b, 1)
		w.run(30*time.Second, nil)
		if !w.bothUp() {
			t.Fatalf("%v and %v", w.ends[0].state, w.ends[1].state)
		}
		a, b := w.ends[0], w.ends[1]
		if a.TxInterval() != c.txA || b.TxInterval() != c.txB || a.detectionTime() != c.detectA || b.detectionTime() != c.deteB {
			t.Errorf("%+v with %+v: send every %v and %v, detect in %v and %v; want %v and %v, %v and %v", c.a, c.b,
				a.TxInterval(), b.TxInterval(), a.detectionTime(), b.detectionTime(), c.txA, c.txB, c.detectA, c.deteB)
		}
		for i, e := range w.ends {
			if e.poll != pollNone || e.counters.Downs != [diagCount]uint64{} {
				t.Errorf("end %d: poll sequence %v open, downs %v", i, e.poll, e.counters.Downs)
			}
			checkJitter(t, e, []time.Duration{c.txA, c.txB}[i], 20*time.Second)
		}
	}
}

// checkJitter looks at the distances of what was sent after since.
func checkJitter(t *testing.T, e *end, interval, since time.Duration) {
	t.Helper()
	var last, sum time.Duration
	n := 0
	for _, l := range e.sent {
		p, _ := Parse(l.b)
		if l.at < since || p.Final {
			continue
		}
		if last != 0 {
			d := l.at - last
			if d < interval*3/4 || d > interval {
				t.Errorf("packets are %v apart, want %v to %v (RFC 5880 §6.8.7)", d, interval*3/4, interval)
			}
			sum += d
			n++
		}
		last = l.at
	}
	if n > 100 && (sum/time.Duration(n) < interval*84/100 || sum/time.Duration(n) > interval*91/100) {
		t.Errorf("on average packets are %v apart, want about 7/8 of %v", sum/time.Duration(n), interval)
	}
}

func TestJitterWithMultiplierOne(t *testing.T) {
	w := newWire(t, intervals(100*ms, 100*ms, 1), intervals(100*ms, 100*ms, 1), 3)
	w.run(60*time.Second, nil)
	var last time.Duration
	for _, l := range w.ends[0].sent {
		if l.at > 10*time.Second {
			if d := l.at - last; d < 75*ms || d > 90*ms {
				t.Errorf("%v apart, want 75 to 90 ms", d)
			}
		}
		last = l.at
	}
}

// TestSlowUntilUp: nobody is sent more than one packet a second before the
// session is Up, but for those that tell a change (RFC 5880 §6.8.3).
func TestSlowUntilUp(t *testing.T) {
	w := newWire(t, intervals(10*ms, 10*ms, 3), intervals(10*ms, 10*ms, 3), 1)
	w.cut[1] = true
	w.run(60*time.Second, nil)
	if n := len(w.ends[0].sent); n < 60 || n > 82 {
		t.Errorf("%d packets in a minute to nobody, want about 68", n)
	}
	w.cut[1] = false
	if took := w.run(10*time.Second, w.bothUp); took > 1100*ms {
		t.Errorf("up %v after the first packet could arrive", took)
	}
	if took := w.run(10*time.Second, func() bool { return w.ends[0].TxInterval() == 10*ms && w.ends[1].TxInterval() == 10*ms }); took > 50*ms {
		t.Errorf("at full rate only %v after up", took)
	}
}

// TestDetection: silence is noticed after the detection time, counted from the
// last packet, so between (mult−1) intervals and mult intervals after the cut.
func TestDetection(t *testing.T) {
	for _, interval := range []time.Duration{10 * ms, 50 * ms, 300 * ms} {
		for seed := range uint64(50) {
			w := newWire(t, intervals(interval, interval, 3), intervals(interval, interval, 3), seed)
			w.run(10*time.Second+time.Duration(seed)*7*ms, nil)
			w.cut[1] = true
			took := w.run(10*time.Second, func() bool { return w.ends[0].state == Down })
			if took < 2*interval || took > 3*interval+w.delay {
				t.Errorf("%v × 3: down %v after the cut", interval, took)
			}
			if _, diag := w.ends[0].State(); diag != DiagTimeExpired {
				t.Errorf("diagnostic %v", diag)
			}
			// The other one hears of it at once, in a packet that names it.
			if took := w.run(time.Second, func() bool { return w.ends[1].state == Down }); took > 2*w.delay {
				t.Errorf("the peer noticed %v later", took)
			}
			if _, diag := w.ends[1].State(); diag != DiagNeighborDown {
				t.Errorf("the peer's diagnostic is %v", diag)
			}
		}
	}
}

// TestLoss: of scattered packets lost, three in a row take the session down,
// and only they; it always comes back.
func TestLoss(t *testing.T) {
	w := newWire(t, intervals(50*ms, 50*ms, 3), intervals(50*ms, 50*ms, 3), 9)
	w.run(10*time.Second, w.bothUp)
	w.loss = 0.1
	w.run(30*time.Minute, nil)
	downs := w.ends[0].counters.Downs[DiagTimeExpired] + w.ends[1].counters.Downs[DiagTimeExpired]
	// About 41,000 packets each way; three in a row lost: 0.1 % of them, and
	// some come in time after all thanks to jitter.
	if downs < 10 || downs > 120 {
		t.Errorf("%d times down in half an hour with a tenth of the packets lost", downs)
	}
	w.loss = 0
	if took := w.run(10*time.Second, w.bothUp); took >= 10*time.Second {
		t.Errorf("did not come back: %v and %v", w.ends[0].state, w.ends[1].state)
	}
}

// TestChangeOfIntervals: in both directions, on a session that is Up, with
// loss: it never goes down, and ends where it should.
func TestChangeOfIntervals(t *testing.T) {
	for seed := range uint64(20) {
		w := newWire(t, intervals(50*ms, 50*ms, 5), intervals(50*ms, 50*ms, 5), seed)
		w.run(20*time.Second, w.bothUp)
		w.run(time.Second, nil)
		w.loss = 0.02
		for _, interval := range []time.Duration{750 * ms, 20 * ms, 300 * ms, 2 * time.Second, 10 * ms, 50 * ms} {
			cfg := w.ends[0].Config()
			cfg.DesiredMinTx, cfg.RequiredMinRx = interval, interval
			w.ends[0].Configure(cfg, w.now)
			w.run(30*time.Second, nil)
			want := max(interval, 50*ms)
			if a, b := w.ends[0].TxInterval(), w.ends[1].TxInterval(); a != want || b != want {
				t.Errorf("seed %d: %v configured on one side: they send every %v and %v, want %v", seed, interval, a, b, want)
			}
		}
		for i, e := range w.ends {
			if e.counters.Ups != 1 {
				t.Errorf("seed %d: end %d has been up %d times", seed, i, e.counters.Ups)
			}
		}
	}
}

// TestSlowerOnlyWhenThePeerKnows: who lengthens its interval keeps sending as
// before until the peer has answered the poll (RFC 5880 §6.8.3).
func TestSlowerOnlyWhenThePeerKnows(t *testing.T) {
	w := newWire(t, intervals(50*ms, 50*ms, 3), intervals(50*ms, 50*ms, 3), 1)
	w.run(20*time.Second, nil)
	w.ends[1].stuck = true
	cfg := w.ends[0].Config()
	cfg.DesiredMinTx = time.Second
	w.ends[0].Configure(cfg, w.now)
	w.run(100*ms, nil)
	if got := w.ends[0].TxInterval(); got != 50*ms {
		t.Errorf("sends every %v before the peer knows of it", got)
	}
	w.ends[1].stuck = false
	w.run(200*ms, nil)
	if got := w.ends[0].TxInterval(); got != time.Second {
		t.Errorf("sends every %v after the peer has answered", got)
	}
}

func TestAdminDown(t *testing.T) {
	w := newWire(t, testConfig, testConfig, 1)
	w.run(20*time.Second, nil)
	cfg := w.ends[0].Config()
	cfg.Disabled = true
	w.ends[0].Configure(cfg, w.now)
	w.run(5*time.Second, nil)
	if s, d := w.ends[1].State(); s != Down || d != DiagNeighborDown || w.ends[1].remoteDiag != DiagAdminDown {
		t.Errorf("the peer is %v (%v) and has heard %v", s, d, w.ends[1].remoteDiag)
	}
	cfg.Disabled = false
	w.ends[0].Configure(cfg, w.now)
	if took := w.run(10*time.Second, w.bothUp); took > 1100*ms {
		t.Errorf("up again after %v", took)
	}
}

// TestLateLook: who was not running for longer than the detection time finds
// the peer's packets in its inbox, or gives it one interval to show itself.
func TestLateLook(t *testing.T) {
	w := newWire(t, intervals(10*ms, 10*ms, 3), intervals(10*ms, 10*ms, 3), 1)
	w.run(20*time.Second, nil)
	for i := range w.ends { // both, as on a machine that was suspended
		w.ends[i].stuck = true
	}
	w.now += time.Second
	for i := range w.ends {
		w.ends[i].stuck = false
	}
	w.run(time.Second, nil)
	if w.ends[0].counters.Ups != 1 || w.ends[1].counters.Ups != 1 {
		t.Error("a pause of both was taken for a dead peer")
	}
	// But a peer that is dead is noticed nevertheless, and not much later.
	w.ends[0].stuck, w.cut[1] = true, true
	w.run(500*ms, nil)
	w.ends[0].stuck = false
	if took := w.run(time.Second, func() bool { return w.ends[0].state == Down }); took > 11*ms {
		t.Errorf("a dead peer was noticed %v after the pause", took)
	}
}

// TestLateLooks: on a machine where each look is late the detection time doubles,
// and no more.
func TestLateLooks(t *testing.T) {
	s := sessionIn(t, Up)
	heard, interval := s.lastRx, s.rxInterval()
	now := s.expiry
	for s.state == Up {
		now += interval*6/10 + s.expiry - now // late again
		s.Expire(now)
	}
	if d := s.detectionTime(); now < heard+d+interval || now > heard+2*d+interval {
		t.Errorf("a silent peer was noticed after %v, with a detection time of %v", now-heard, d)
	}
	if s.counters.LateLooks == 0 {
		t.Error("no look was counted as late")
	}
}

// TestAbsoluteSchedule: an owner that is always a little late does not make
// the session slower.
func TestAbsoluteSchedule(t *testing.T) {
	s := sessionIn(t, Up)
	const interval = 300 * ms
	now, sent := 10*time.Second, 0
	for end := now + 300*time.Second; now < end; {
		p := hello(Up)
		p.Final = s.poll == pollSent
		s.Receive(now, &p)
		now = max(now, s.Deadline()) + 5*ms
		for len(s.Transmit(now, nil)) > 0 {
			sent++
		}
	}
	if want := 300 * time.Second / (interval * 7 / 8); sent < int(want)*98/100 {
		t.Errorf("%d packets in 300 s, want about %d", sent, want)
	}
	if p99 := s.Status(now).LatenessP99; p99 < Millis(5*ms) || p99 > Millis(17*ms) {
		t.Errorf("99 %% of the packets are said to be less than %v late, want 5 ms in a class below 17 ms", time.Duration(p99))
	}
}

// TestLateSendersGap: however late a packet is, the next one leaves at least 75 %
// of the interval between them, and at most all of it (RFC 5880 §6.8.7).
func TestLateSendersGap(t *testing.T) {
	s := sessionIn(t, Up)
	const interval = 300 * ms
	now, last := 10*time.Second, time.Duration(0)
	for i := range 1000 {
		p := hello(Up)
		p.Final = s.poll == pollSent
		s.Receive(now, &p)
		for now = max(now, s.Deadline()); now < s.txDue; now = max(now, s.Deadline()) {
			s.Transmit(now, nil) // an answer, which is not periodic
		}
		if gap := s.txDue - last; i > 10 && (gap < interval*3/4 || gap > interval) {
			t.Fatalf("the next packet is due %v after the last", gap)
		}
		if i%3 == 0 {
			now += 100 * ms // late
		}
		s.Transmit(now, nil)
		last = now
	}
}

func TestPassiveAndDemand(t *testing.T) {
	a, b := testConfig, testConfig
	a.Passive = true
	w := newWire(t, a, b, 1)
	w.cut[1] = true
	w.run(20*time.Second, nil)
	if n := len(w.ends[0].sent); n != 0 {
		t.Errorf("a passive session has said %d things to a peer never heard", n)
	}
	w.cut[1] = false
	if took := w.run(10*time.Second, w.bothUp); took > 1100*ms {
		t.Errorf("up after %v", took)
	}
	s := sessionIn(t, Up)
	p := hello(Up)
	p.Final, p.Demand = true, true
	for len(s.Transmit(10*time.Second, nil)) > 0 {
	}
	s.Receive(10*time.Second, &p)
	for now := 10 * time.Second; now < 20*time.Second; now += 10 * ms {
		if len(s.Transmit(now, nil)) > 0 {
			t.Fatalf("sent at %v to a peer in demand mode (RFC 5880 §6.8.7)", now)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	cfg := authConfig(AuthMeticulousSHA1)
	sender, receiver := New(cfg, 1, 0), New(cfg, 2, 0)
	var buf [MaxLen]byte
	now := time.Duration(0)
	if n := testing.AllocsPerRun(100, func() {
		now += time.Second
		b := sender.Transmit(now, buf[:0])
		p, _ := Parse(b)
		if r := receiver.Receive(now, &p); r != Accepted {
			t.Fatal(r)
		}
		receiver.Expire(now)
	}); n != 0 {
		t.Errorf("%v allocations for a packet sent and received", n)
	}
}

// TestForgottenPeerIsGreetedAgain: a peer that wants no packets, or one an hour,
// and dies, is sent some again when it is forgotten: it may come back passive.
func TestForgottenPeerIsGreetedAgain(t *testing.T) {
	for _, minRx := range []time.Duration{0, time.Hour} {
		s := sessionIn(t, Up)
		p := hello(Up)
		p.RequiredMinRx = minRx
		s.Receive(10*time.Second, &p)
		n := 0
		for now := 10 * time.Second; now < 40*time.Second; now += 10 * ms {
			s.Expire(now)
			for len(s.Transmit(now, nil)) > 0 {
				if now >= 30*time.Second {
					n++
				}
			}
		}
		if state, _ := s.State(); state != Down || n < 10 || n > 14 {
			t.Errorf("after a peer that wanted a packet every %v: %v, and %d packets in ten seconds", minRx, state, n)
		}
	}
}

// TestTwoChangesInDemandMode: the second of two changes at once is told to a
// peer that nothing is sent to by the clock, too.
func TestTwoChangesInDemandMode(t *testing.T) {
	s := sessionIn(t, Up)
	now := 10 * time.Second
	var said Packet
	speak := func() {
		for b := s.Transmit(now, nil); len(b) > 0; b = s.Transmit(now, nil) {
			said, _ = Parse(b)
		}
	}
	p := hello(Up)
	p.Demand = true
	answer := func() {
		p.Final = said.Poll
		s.Receive(now, &p)
		now += 100 * ms
	}
	speak()
	answer()
	for _, rx := range []time.Duration{2 * time.Second, 3 * time.Second} {
		cfg := s.Config()
		cfg.RequiredMinRx = rx
		s.Configure(cfg, now)
		speak()
	}
	for range 20 {
		answer()
		speak()
	}
	if got := s.rxInUse; got != 3*time.Second || s.poll != pollNone {
		t.Errorf("%v is agreed, want 3s; poll sequence %d", got, s.poll)
	}
}
