package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"msee/bfd"
	"msee/dataplane/gso"
	"msee/dataplane/port"
)

// BFD runs in the worker of the port that a session's neighbor is behind, so
// that a session is dead when forwarding is, and alive as long as it is:
//
//	control   SetBFD gives a port's worker its sessions
//	receive   localBFD takes control packets and echoes out of what is for us,
//	          loopEcho echoes that are for their own sender
//	clock     serveBFD, after each batch and when the timer wakes the worker:
//	          expire, then transmit, ahead of all that is forwarded
//	outcome   a session that goes down marks its adjacency before anything else;
//	          then control hears of it
//
// A session is never judged before what the port had received by then is
// read: the worker looks at detection times when the port is empty, or has
// given as many frames as it can hold.

// BFDSession is one BFD session as control knows it. Its fields do not change;
// a session with other ones takes its place in the next SetBFD.
type BFDSession struct {
	Name        string // for messages
	Interface   string // Subinterface.Name
	VRF         int    // Subinterface.VRF
	Local, Peer netip.Addr
	// Adjacency is marked down when the session goes down.
	Adjacency *Adjacency
	Config    bfd.Config
	// Strict keeps the neighbor unused until the session has been up.
	Strict bool

	*bfdReport // shared with the session that this one takes the place of
}

// bfdReport is what the worker last said of a session.
type bfdReport struct{ word atomic.Uint64 }

// BFDReport is what control hears of a session.
type BFDReport struct {
	State bfd.State
	Diag  bfd.Diag
	// PeerAdminDown says that the session is not up because the peer's operator
	// wants it so, which is no failure (RFC 5882 §4.2).
	PeerAdminDown bool
	// LeftByAdmin says that it was so when the session last left Up, which control
	// may hear of only when the peer is up to something else.
	LeftByAdmin bool
	// Peer is the state that the peer has told last, also to a session that is
	// disabled here, and Heard whether it has told any of late.
	Peer  bfd.State
	Heard bool
	Downs uint32 // how often it has left Up
	Ups   uint32
}

// NewBFDSession completes a session that is new.
func NewBFDSession(s BFDSession) *BFDSession {
	s.bfdReport = new(bfdReport)
	s.store(BFDReport{State: bfd.Down})
	return &s
}

// Change returns the session with another configuration; its state goes on.
func (s *BFDSession) Change(cfg bfd.Config, strict bool) *BFDSession {
	c := *s
	c.Config, c.Strict = cfg, strict
	return &c
}

// SourcePort is the one of the session's packets.
func (s *BFDSession) SourcePort() uint16 { return bfd.SourcePort(s.Config.MyDiscriminator) }

// Report returns the session's latest state. It is safe from any goroutine.
func (s *BFDSession) Report() BFDReport {
	w := s.word.Load()
	return BFDReport{State: bfd.State(w & 3), PeerAdminDown: w&4 != 0, Diag: bfd.Diag(w >> 3 & 31),
		Downs: uint32(w >> 8 & 0x7ffffff), LeftByAdmin: w>>35&1 != 0, Heard: w>>36&1 != 0, Peer: bfd.State(w >> 37 & 3), Ups: uint32(w >> 39)}
}

func (r *bfdReport) store(s BFDReport) {
	w := uint64(s.State) | uint64(s.Diag&31)<<3 | uint64(s.Downs&0x7ffffff)<<8 | uint64(s.Peer)<<37 | uint64(s.Ups&0x1ffffff)<<39
	if s.PeerAdminDown {
		w |= 4
	}
	if s.LeftByAdmin {
		w |= 1 << 35
	}
	if s.Heard {
		w |= 1 << 36
	}
	r.word.Store(w)
}

// BFDStatus is a session as it is now.
type BFDStatus struct {
	*BFDSession
	bfd.Status
	Resolved bool // the neighbor's MAC is known
	// Echoes of the peer's that were sent back, and their octets.
	Echoes, EchoBytes uint64
}

// SetBFD makes sessions those of a port's worker: those not listed say
// AdminDown and end, those that are the same go on undisturbed. It is safe
// from any goroutine.
func (e *Engine) SetBFD(port int, sessions []*BFDSession) error {
	if sessions = slices.Clone(sessions); len(sessions) > 0 {
		e.startGuard()
	}
	return e.post(port, func(w *Worker) { w.bfd.set(w, sessions) })
}

// BFDRefused reports that a port's worker could not take the sessions it was given
// last, as its device gave it no queue to send by: SetBFD may have more luck. It is
// safe from any goroutine.
func (e *Engine) BFDRefused(port int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.workers[port]
	return w != nil && w.bfd.refused.Load()
}

// BFDPathDown says that a port's link is gone, or there again.
func (e *Engine) BFDPathDown(port int, gone bool) error {
	return e.post(port, func(w *Worker) { w.bfd.pathDown(w, gone) })
}

// BFDChanged wakes when some session's Report has changed.
func (e *Engine) BFDChanged() <-chan struct{} { return e.bfdChanged }

// bfdStatusWait is how long a worker may take to say how its sessions are.
const bfdStatusWait = time.Second

// BFDStatus describes the sessions of a port.
func (e *Engine) BFDStatus(port int) []BFDStatus {
	answer := make(chan []BFDStatus, 1)
	if e.post(port, func(w *Worker) { answer <- w.bfd.status(w) }) != nil {
		return nil
	}
	select {
	case rows := <-answer:
		return rows
	case <-time.After(bfdStatusWait): // it is not started yet, or has just ended
		return nil
	}
}

// NewDiscriminator returns a number that is not zero and that nobody guesses:
// who is not on the link cannot name a session.
func NewDiscriminator() uint32 {
	for {
		if d := rand.Uint32(); d != 0 {
			return d
		}
	}
}

// bfdTable is a worker's sessions.
type bfdTable struct {
	byDiscr  map[uint32]*bfdSession
	byPeer   map[bfdPeer]*bfdSession
	sessions []*bfdSession // ending ones included
	deadline time.Duration // of the first
	backlog  int           // frames read since a detection time was over
	timer    int           // timerfd that wakes the worker at armed
	armed    time.Duration
	queue    egressQueue // of our own, so that no bulk traffic waits in front
	frame    port.Frame
	frames   [1]*port.Frame
	refused  atomic.Bool // the last list, for want of a queue
}

// bfdPeer finds a session before the peer knows our discriminator (RFC 5881 §3).
type bfdPeer struct {
	vrf  int
	name string
	addr netip.Addr
}

// bfdSession is a session in its worker.
type bfdSession struct {
	*BFDSession
	machine *bfd.Session
	report  BFDReport
	told    bool          // report is what control has
	rewrite *Rewrite      // the last one known: a neighbor that the kernel asks for anew is still there
	ends    time.Duration // when an ending session is forgotten; 0: it is not ending
	limit   tokenBucket   // of what the neighbor sends

	echoes, echoBytes uint64 // sent back
}

// bfdPerSecond bounds the control packets and echoes that a session takes: each
// its own, so that a neighbor that floods does not silence another.
const bfdPerSecond = 2000

// A session that is removed goes on saying AdminDown for a detection time of
// the peer's (RFC 5880 §6.8.16), within these bounds.
const (
	lingerAtLeast = time.Second
	lingerAtMost  = 30 * time.Second
)

func (t *bfdTable) open() (err error) {
	t.byDiscr, t.byPeer = map[uint32]*bfdSession{}, map[bfdPeer]*bfdSession{}
	t.deadline, t.armed = bfd.Never, bfd.Never
	t.frame.Buf = make([]byte, port.Headroom+ipUDPMax+bfd.MaxLen)
	t.frames[0] = &t.frame
	t.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	return err
}

func (t *bfdTable) close() {
	unix.Close(t.timer)
	if t.queue.sender != nil {
		t.queue.sender.Close()
	}
}

// set takes over a list of sessions.
func (t *bfdTable) set(w *Worker, list []*BFDSession) {
	now := w.clock()
	if t.queue.sender == nil && len(list) > 0 {
		sender, err := w.device.NewSender()
		if err != nil {
			if !t.refused.Swap(true) { // said once, though control tries again
				w.log.Error("open BFD's transmit queue", "err", err)
			}
			return
		}
		t.queue.sender = sender
	}
	t.refused.Store(false)
	wanted := map[uint32]*BFDSession{}
	for _, b := range list {
		wanted[b.Config.MyDiscriminator] = b
	}
	for _, s := range t.sessions { // first, as another may be for the same neighbor
		if s.ends == 0 && wanted[s.Config.MyDiscriminator] == nil {
			t.end(s, now)
		}
	}
	for _, b := range list {
		s := t.byDiscr[b.Config.MyDiscriminator]
		if s == nil {
			s = &bfdSession{machine: bfd.New(b.Config, rand.Uint64(), now), limit: newTokenBucket(bfdPerSecond, bfdPerSecond/4)}
			t.sessions = append(t.sessions, s)
			t.byDiscr[b.Config.MyDiscriminator] = s
		} else if s.BFDSession != b {
			s.machine.Configure(b.Config, now)
			delete(t.byPeer, s.key())
		}
		s.BFDSession = b
		t.byPeer[s.key()] = s
		s.told = false
		t.outcome(w, s)
	}
	// Two of us must not speak to one peer: what was to end there ends now.
	t.sessions = slices.DeleteFunc(t.sessions, func(s *bfdSession) bool { return s.ends != 0 && t.byPeer[s.key()] != nil })
	t.serve(w, w.clock(), false)
}

func (s *bfdSession) key() bfdPeer { return bfdPeer{s.VRF, s.Interface, s.Peer} }

// end has a session say AdminDown until the peer must have heard it.
func (t *bfdTable) end(s *bfdSession, now time.Duration) {
	cfg := s.Config
	cfg.Disabled = true
	s.ends = now + lingerAtLeast
	if tx := s.machine.TxInterval(); tx != bfd.Never {
		s.ends = now + min(max(lingerAtLeast, time.Duration(cfg.DetectMult)*tx), lingerAtMost)
	}
	s.machine.Configure(cfg, now)
	delete(t.byPeer, s.key())
	delete(t.byDiscr, cfg.MyDiscriminator)
	s.Adjacency.SetDown(DownBFD, false)
}

func (t *bfdTable) pathDown(w *Worker, gone bool) {
	for _, s := range t.sessions {
		s.machine.PathDown(w.clock(), gone)
		t.outcome(w, s)
	}
	t.serve(w, w.clock(), false)
}

func (t *bfdTable) status(w *Worker) []BFDStatus {
	now := w.clock()
	var rows []BFDStatus
	for _, s := range t.sessions {
		if s.ends == 0 {
			rows = append(rows, BFDStatus{s.BFDSession, s.machine.Status(now), s.Adjacency.Rewrite() != nil, s.echoes, s.echoBytes})
		}
	}
	return rows
}

// clock is the time now; w.now is when the batch began.
func (w *Worker) clock() time.Duration { return time.Since(w.engine.epoch) }

// serveBFD does what is due, after a batch of n frames; more says that the port may
// have more.
func (w *Worker) serveBFD(n int, more bool) {
	t := &w.bfd
	if len(t.sessions) == 0 {
		return
	}
	if t.backlog += n; !more {
		t.backlog = 0
	}
	now := w.clock()
	if now >= t.deadline {
		t.serve(w, now, t.backlog == 0 || t.backlog >= port.DefaultRingFrames)
	}
	t.arm(now)
}

// serve does for all sessions what is due at now; only if judge is set it looks
// at detection times.
func (t *bfdTable) serve(w *Worker, now time.Duration, judge bool) {
	overdue := false
	t.deadline = bfd.Never
	for _, s := range t.sessions {
		if s.machine.Overdue(now) {
			if judge {
				s.machine.Expire(now)
				t.outcome(w, s)
			} else {
				overdue = true
			}
		}
		t.transmit(w, s, now)
		t.deadline = min(t.deadline, s.machine.Deadline())
	}
	if !overdue {
		t.backlog = 0
	}
	t.forget(now)
}

// forget drops the sessions that have ended.
func (t *bfdTable) forget(now time.Duration) {
	t.sessions = slices.DeleteFunc(t.sessions, func(s *bfdSession) bool { return s.ends != 0 && now >= s.ends })
}

// arm has the timer wake the worker at the deadline.
func (t *bfdTable) arm(now time.Duration) {
	if t.armed == t.deadline {
		return
	}
	t.armed = t.deadline
	var spec unix.ItimerSpec // all zero: disarmed
	if t.deadline != bfd.Never {
		spec.Value = unix.NsecToTimespec(int64(max(t.deadline-now, time.Nanosecond)))
	}
	unix.TimerfdSettime(t.timer, 0, &spec, nil)
}

// outcome acts on a session's state if it has changed: the adjacency first.
func (t *bfdTable) outcome(w *Worker, s *bfdSession) {
	state, diag := s.machine.State()
	byAdmin := state == bfd.AdminDown || state != bfd.Up && s.machine.RemoteState() == bfd.AdminDown
	peer, heard := s.machine.RemoteState(), s.machine.Heard()
	was := s.report
	if s.told && was.State == state && was.Diag == diag && was.PeerAdminDown == byAdmin && was.Peer == peer && was.Heard == heard || s.ends != 0 {
		return
	}
	switch {
	case state == bfd.Up:
		s.Adjacency.SetDown(DownBFD, false)
	case s.Strict && !s.Config.Disabled:
		s.Adjacency.SetDown(DownBFD, true)
	case byAdmin:
		s.Adjacency.SetDown(DownBFD, false)
	case was.State == bfd.Up:
		s.Adjacency.SetDown(DownBFD, true)
	}
	s.report.State, s.report.Diag, s.report.PeerAdminDown, s.told = state, diag, byAdmin, true
	s.report.Peer, s.report.Heard = peer, heard
	if was.State == bfd.Up && state != bfd.Up {
		s.report.Downs++
		s.report.LeftByAdmin = byAdmin
	}
	if state == bfd.Up && was.State != bfd.Up {
		s.report.Ups++
	}
	s.store(s.report)
	select {
	case w.engine.bfdChanged <- struct{}{}:
	default: // it will look at all of them anyway
	}
}

// transmit sends what a session has to send.
func (t *bfdTable) transmit(w *Worker, s *bfdSession, now time.Duration) {
	if r := s.Adjacency.Rewrite(); r != nil {
		s.rewrite = r
	}
	const payload = port.Headroom + ipUDPMax
	for {
		b := s.machine.Transmit(now, t.frame.Buf[:payload])
		if len(b) == payload {
			return
		}
		if s.rewrite == nil {
			w.resolve(s.Adjacency)
			continue
		}
		t.send(w, s.rewrite, s.Local, s.Peer, s.SourcePort(), bfd.ControlPort, bfd.HopLimit, len(b)-payload)
	}
}

// ipUDPMax is the length of the longest headers in front of a datagram.
const ipUDPMax = minIPv6 + udpLen

const udpLen = 8

// send puts headers in front of the n octets at Headroom + ipUDPMax, and sends
// the frame at once.
func (t *bfdTable) send(w *Worker, r *Rewrite, from, to netip.Addr, source, dest uint16, hops uint8, n int) {
	f := &t.frame
	udp := f.Buf[port.Headroom+minIPv6:]
	binary.BigEndian.PutUint16(udp[0:], source)
	binary.BigEndian.PutUint16(udp[2:], dest)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+n))
	binary.BigEndian.PutUint16(udp[6:], 0)
	udp = udp[:udpLen+n]
	pseudo := uint64(protoUDP) + uint64(len(udp))
	var l3 int
	etherType := uint16(etherTypeIPv4)
	if from.Is4() {
		l3 = port.Headroom + minIPv6 - minIPv4
		putIPv4(f.Buf[l3:], from.As4(), to.As4(), hops, minIPv4+len(udp))
		pseudo = gso.Sum(f.Buf[l3+12:l3+20], pseudo)
	} else {
		l3, etherType = port.Headroom, etherTypeIPv6
		putIPv6(f.Buf[l3:], from.As16(), to.As16(), hops, len(udp))
		pseudo = gso.Sum(f.Buf[l3+8:l3+40], pseudo)
	}
	checksum := ^gso.Fold(gso.Sum(udp, pseudo))
	if checksum == 0 {
		checksum = 0xffff // RFC 768: zero means none
	}
	binary.BigEndian.PutUint16(udp[6:], checksum)
	f.End = l3 + int(ipLen(f.Buf[l3:], from.Is4()))
	t.emit(w, r, l3, etherType)
}

// emit sends the frame, an IP packet at l3 as yet, at once.
func (t *bfdTable) emit(w *Worker, r *Rewrite, l3 int, etherType uint16) {
	t.frame.VNet, t.frame.Inner = port.VNetHdr{}, 0
	if !r.put(&t.frame, l3, etherType) {
		return // the tunnel's other end is not resolved
	}
	t.queue.port = w.port
	t.queue.send(t.frames[:])
}

// classCS6 is the traffic class of network control (RFC 4594 §3.1).
const classCS6 = 0xc0

func putIPv4(b []byte, from, to [4]byte, ttl uint8, length int) {
	b = b[:minIPv4]
	clear(b)
	b[0], b[1] = 0x45, classCS6
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	b[6] = 0x40 // DF: never cut, so no identification is needed (RFC 6864 §4)
	b[8], b[9] = ttl, protoUDP
	copy(b[12:], from[:])
	copy(b[16:], to[:])
	binary.BigEndian.PutUint16(b[10:], ^gso.Fold(gso.Sum(b, 0)))
}

func putIPv6(b []byte, from, to [16]byte, hops uint8, length int) {
	binary.BigEndian.PutUint32(b, 6<<28|classCS6<<20)
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = protoUDP, hops
	copy(b[8:], from[:])
	copy(b[24:], to[:])
}

func ipLen(b []byte, v4 bool) int {
	if v4 {
		return int(binary.BigEndian.Uint16(b[2:]))
	}
	return minIPv6 + int(binary.BigEndian.Uint16(b[4:]))
}

// localBFD takes a packet that is for us if it is BFD's: proceed otherwise.
func (w *Worker) localBFD(p *packet) Verdict {
	b := p.ip()
	proto, hops := b[9], b[8]
	if p.v6 {
		proto, hops = b[6], b[7]
	}
	if proto != protoUDP || len(b) < int(p.headerLen)+udpLen {
		return proceed
	}
	udp := b[p.headerLen:]
	dest := binary.BigEndian.Uint16(udp[2:])
	if dest != bfd.ControlPort && dest != bfd.EchoPort {
		return proceed
	}
	reason := w.receiveBFD(p, udp, dest, hops)
	if reason == bfd.Accepted {
		return LocalBFD
	}
	w.port.Counters.BFDDiscards[reason].Add(1)
	return DropBFD
}

// receiveBFD gives a datagram to its session, or sends an echo back.
func (w *Worker) receiveBFD(p *packet, udp []byte, dest uint16, hops uint8) bfd.Reason {
	t := &w.bfd
	length := int(binary.BigEndian.Uint16(udp[4:]))
	switch {
	case hops != bfd.HopLimit:
		return bfd.BadHopLimit
	case p.isFragment(), length < udpLen, length > len(udp), p.VNet.GSOType != port.GSONone:
		return bfd.BadLength
	}
	udp = udp[:length]
	var source, ours netip.Addr
	if b := p.ip(); p.v6 {
		source, ours = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	} else {
		source, ours = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	}
	s := t.byPeer[bfdPeer{p.in.VRF, p.in.Name, source}]
	if s == nil || s.Local != ours { // whoever is no neighbor of ours names no session of ours
		return bfd.UnknownSession
	}
	switch {
	case !s.limit.take(w.now):
		return bfd.RateLimited
	case !p.udpChecksumOK(udp):
		return bfd.BadChecksum
	case dest == bfd.EchoPort:
		return t.reflect(w, s, udp)
	}
	packet, reason := bfd.Parse(udp[udpLen:])
	if reason != bfd.Accepted {
		return reason
	}
	if packet.Your != 0 && packet.Your != s.Config.MyDiscriminator {
		return bfd.UnknownSession
	}
	now := w.clock()
	reason = s.machine.Receive(now, &packet)
	t.outcome(w, s)
	t.transmit(w, s, now) // an answer to a poll, or news of a state, waits for nothing
	t.deadline = min(t.deadline, s.machine.Deadline())
	return reason
}

// isFragment reports that an IP packet is not whole.
func (p *packet) isFragment() bool {
	b := p.ip()
	return !p.v6 && binary.BigEndian.Uint16(b[6:])&0x3fff != 0 // more fragments, or an offset
}

// udpChecksumOK verifies a datagram, unless the sender's kernel has left its
// checksum to a device or a device has verified it.
func (p *packet) udpChecksumOK(udp []byte) bool {
	field := binary.BigEndian.Uint16(udp[6:])
	if p.VNet.Flags&(port.VNetNeedsCsum|port.VNetDataValid) != 0 || field == 0 && !p.v6 {
		return true
	}
	b := p.ip()
	addrs := b[12:20]
	if p.v6 {
		addrs = b[8:40]
	}
	return field != 0 && gso.Fold(gso.Sum(udp, gso.Sum(addrs, uint64(protoUDP)+uint64(len(udp))))) == 0xffff
}
