package edge

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"msee/bfd"
	"msee/bfd/bfddp"
	"msee/dataplane"
	"msee/netns"
)

// Distributed BFD: a BFD daemon that runs in a VRF's namespace, beside us, hands
// its sessions to our workers (FRR's bfdd --dplaneaddr ipv4:127.0.0.1:PORT). It
// could not run them itself, as BFD's packets never come to the kernel. They are
// like our own, except that the daemon says what they are and is told how they
// are; what goes with a session that is down is its business, but that traffic
// turns from the neighbor at once is ours.
//
//	dial     until the daemon is there, and again when it is gone: each second for as
//	         long as it may have sessions here, then ever more rarely
//	take     AddSession, DeleteSession → the control loop, which keeps e.foreign
//	tell     a state change of any of them → the daemon
//	lose     without its daemon a session goes on for foreignFor: the daemon is
//	         restarting, and the neighbor need not notice
//
// The daemon listens and we connect, though it could be the other way round as
// well (ipv4c): FRR before 10.1.2 hangs up at once where it has connected itself.

const (
	// foreignFor is how long sessions outlive the connection to their daemon.
	foreignFor = 30 * time.Second
	// maxForeign bounds the sessions of daemons.
	maxForeign = 1024
	// dialEvery is how often a daemon is looked for, to begin with, and dialAtMost
	// the longest pause where there seems to be none.
	dialEvery  = time.Second
	dialAtMost = 30 * time.Second
)

// bfdDaemon is the daemon of a VRF, or the search for it.
type bfdDaemon struct {
	edge *Edge
	vrf  *vrf
	port int
	stop chan struct{}

	mu   sync.Mutex
	conn *daemonConn // nil: none
}

// daemonConn is a connection to a daemon.
type daemonConn struct {
	net.Conn
	*bfdDaemon
	changed chan struct{} // wakes tell
	version uint8         // of the daemon's messages; of the reading goroutine until began
	began   chan struct{} // version is known
	writing sync.Mutex
}

// foreign is a daemon's session. It is the control loop's.
type foreign struct {
	vrf     *vrf
	conn    *daemonConn // that wants it
	lostAt  time.Time   // zero while conn lives
	wanted  bfddp.Session
	made    bfddp.Session         // what session was made of
	session *dataplane.BFDSession // nil: there is no such neighbor, or another session has it
	port    *portState
	hop     hop
	shadow  bool // another session of the daemon's has the neighbor
}

// lookForDaemons has all VRFs look for daemons at the device's port.
func (e *Edge) lookForDaemons() {
	for _, v := range e.vrfs {
		if v.daemon != nil && v.daemon.port != e.device.BFDDaemonPort {
			v.daemon.close()
			v.daemon = nil
			for _, f := range e.foreign {
				if f.vrf == v && f.lostAt.IsZero() {
					f.lostAt = time.Now()
				}
			}
		}
		if v.daemon == nil && e.device.BFDDaemonPort != 0 {
			v.daemon = &bfdDaemon{edge: e, vrf: v, port: e.device.BFDDaemonPort, stop: make(chan struct{})}
			v.watching.Go(v.daemon.run)
		}
	}
}

// close ends the search and the connection; its sessions are lost.
func (d *bfdDaemon) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.stop:
		return // closed before
	default:
	}
	close(d.stop)
	if d.conn != nil {
		d.conn.Close()
	}
}

// do runs f in the control loop and waits for it; not after close, as the loop
// may be waiting for this daemon's goroutines to end.
func (d *bfdDaemon) do(f func()) error {
	done := make(chan struct{})
	select {
	case d.edge.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-d.stop:
	case <-d.edge.stop:
	}
	return ErrStopped
}

// kick has the daemon told what has changed.
func (d *bfdDaemon) kick() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		select {
		case d.conn.changed <- struct{}{}:
		default: // it looks at all of them anyway
		}
	}
}

// run finds the daemon and serves it, again and again.
func (d *bfdDaemon) run() {
	pause, since := dialEvery, time.Now()
	for {
		if c := d.dial(); c != nil {
			c.serve()
			if c.version != 0 { // it was a daemon, not something else that listens
				pause, since = dialEvery, time.Now()
			}
		}
		pause = dialPause(pause, time.Since(since))
		select {
		case <-d.stop:
			return
		case <-time.After(pause):
		}
	}
}

// dialPause is how long to wait after a try to find the daemon, last before it, when
// it was there, or the search began, for so long ago. Every VRF looks for one, and
// most have none; but while one may come back to its sessions, it is found at once.
func dialPause(last, ago time.Duration) time.Duration {
	if ago < foreignFor {
		return dialEvery
	}
	return min(2*last, dialAtMost)
}

// dial connects to the daemon, nil if there is none. On the loopback of the
// VRF's namespace nobody answers but who may enter it, and so do to the VRF what
// he likes.
func (d *bfdDaemon) dial() *daemonConn {
	var conn net.Conn
	err := netns.Do(d.vrf.kernel.namespace, func() (err error) {
		conn, err = net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)), dialEvery)
		return err
	})
	if err != nil {
		return nil
	}
	// Where nobody listens, a socket that the kernel gave that very port meets itself.
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		conn.Close()
		return nil
	}
	c := &daemonConn{Conn: conn, bfdDaemon: d, changed: make(chan struct{}, 1), began: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.stop:
		conn.Close()
		return nil
	default:
	}
	d.conn = c
	return c
}

// serve reads what a daemon says until it is gone.
func (c *daemonConn) serve() {
	c.edge.log.Info("BFD daemon found", "vrf", c.vrf.cfg.Name)
	gone := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() { c.tell(gone) })
	err := c.read()
	close(gone)
	c.Close()
	telling.Wait()
	c.mu.Lock()
	c.bfdDaemon.conn = nil
	c.mu.Unlock()
	c.edge.log.Info("BFD daemon gone", "vrf", c.vrf.cfg.Name, "err", err)
	_ = c.do(func() { // else all ends
		for _, f := range c.edge.foreign {
			if f.conn == c {
				f.lostAt = time.Now()
			}
		}
	})
}

func (c *daemonConn) read() error {
	var buf [8 * bfddp.MaxLen]byte
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		have += n
		for {
			m, n, err := bfddp.Parse(buf[:have])
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			have = copy(buf[:], buf[n:have])
			if c.version == 0 {
				c.version = m.Version
				close(c.began)
			}
			if err := c.take(&m); err != nil {
				return err
			}
		}
	}
}

// take does what a message asks for. An error ends the connection.
func (c *daemonConn) take(m *bfddp.Message) error {
	switch m.Type {
	case bfddp.EchoRequest:
		return c.write(&bfddp.Message{Type: bfddp.EchoReply, ID: m.ID,
			Echo: bfddp.Echo{DataPlane: uint64(time.Now().UnixMicro()), Daemon: m.Echo.Daemon}})
	case bfddp.AddSession, bfddp.DeleteSession:
		var refused error
		stopped := c.do(func() {
			if m.Type == bfddp.DeleteSession {
				c.edge.removeForeign(c.vrf, m.Session.Discr)
			} else {
				refused = c.edge.addForeign(c, m.Session)
			}
			c.edge.setBFD()
		})
		if refused != nil { // the protocol has no word for it: to the daemon the session stays down
			c.edge.log.Warn("BFD daemon's session refused", "vrf", c.vrf.cfg.Name, "neighbor", m.Session.Peer, "err", refused)
		}
		c.kick()
		return stopped
	case bfddp.RequestCounters:
		// bfdd does nothing else before it has this answer.
		return c.write(&bfddp.Message{Type: bfddp.SessionCounters, ID: m.ID, Counters: c.counters(m.Discr)})
	}
	return nil // an echo's answer; the rest is ours to say
}

const daemonTimeout = 10 * time.Second

func (c *daemonConn) write(m *bfddp.Message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	m.Version = c.version
	c.SetWriteDeadline(time.Now().Add(daemonTimeout))
	_, err := c.Write(m.Append(nil))
	return err
}

// tellEvery is how often tell looks at what no change of state tells: the peer's
// intervals.
const tellEvery = time.Second

// tell tells the daemon how its sessions are, whenever that has changed.
func (c *daemonConn) tell(gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-c.began: // and so the version to speak
	}
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	told := map[uint32]bfddp.Change{}
	for {
		select {
		case <-gone:
			return
		case <-c.changed:
		case <-tick.C:
		}
		now := c.changes()
		for discr := range told {
			if _, there := now[discr]; !there {
				delete(told, discr)
			}
		}
		for discr, change := range now {
			// To begin with the daemon has all of them down.
			was, known := told[discr]
			if change == was || !known && change == (bfddp.Change{Discr: discr, State: bfd.Down}) {
				continue
			}
			if c.write(&bfddp.Message{Type: bfddp.StateChange, Change: change}) != nil {
				c.Close() // read sees it
				return
			}
			told[discr] = change
		}
	}
}

// rows are the daemon's sessions, and how those are that are run.
func (c *daemonConn) rows() map[uint32]dataplane.BFDStatus {
	rows := map[uint32]dataplane.BFDStatus{}
	var ports []int
	_ = c.do(func() {
		for discr, f := range c.edge.foreign {
			if f.conn != c {
				continue
			}
			rows[discr] = dataplane.BFDStatus{BFDSession: f.session}
			if f.session != nil && !slices.Contains(ports, f.port.index) {
				ports = append(ports, f.port.index)
			}
		}
	})
	for _, p := range ports {
		for _, st := range c.edge.engine.BFDStatus(p) {
			if r, ours := rows[st.MyDiscriminator]; ours && r.BFDSession == st.BFDSession {
				rows[st.MyDiscriminator] = st
			}
		}
	}
	return rows
}

// changes are what the daemon should know of its sessions. What a worker does
// not say is left out.
func (c *daemonConn) changes() map[uint32]bfddp.Change {
	all := map[uint32]bfddp.Change{}
	for discr, st := range c.rows() {
		switch {
		case st.BFDSession == nil:
			all[discr] = bfddp.Change{Discr: discr, State: bfd.Down}
		case st.MyDiscriminator != 0:
			all[discr] = bfddp.Change{Discr: discr, RemoteDiscr: st.RemoteDiscr,
				RemoteControlIndependent: st.RemoteControlIndep,
				RemoteMinTx:              time.Duration(st.RemoteMinTx), RemoteMinRx: time.Duration(st.RemoteMinRx),
				RemoteMinEchoRx: time.Duration(st.RemoteMinEchoRx),
				State:           st.State, RemoteDiag: st.RemoteDiag, RemoteDetectMult: st.RemoteDetectMult}
		}
	}
	return all
}

// counters are those of one session, all zero if there is no such.
func (c *daemonConn) counters(discr uint32) bfddp.Counters {
	st := c.rows()[discr]
	echoes := bfddp.Count{Bytes: st.EchoBytes, Packets: st.Echoes}
	return bfddp.Counters{Discr: discr,
		In:     bfddp.Count{Bytes: st.Counters.RxBytes, Packets: st.Counters.Rx},
		Out:    bfddp.Count{Bytes: st.Counters.TxBytes, Packets: st.Counters.Tx},
		EchoIn: echoes, EchoOut: echoes}
}

// minForeignInterval is the shortest that a daemon may ask for, as in the
// configuration.
const minForeignInterval = 10 * time.Millisecond

// addForeign takes a session of a daemon's, or a change of one.
func (e *Edge) addForeign(c *daemonConn, s bfddp.Session) error {
	switch {
	case s.Discr == 0:
		return fmt.Errorf("discriminator 0; want another")
	case s.Flags&bfddp.Multihop != 0:
		return fmt.Errorf("multihop; want a neighbor on the link")
	case s.Flags&bfddp.Demand != 0:
		return fmt.Errorf("demand mode; want asynchronous mode")
	case s.Mode != 0 || s.Encap != 0:
		return fmt.Errorf("mode %d, encapsulation %d; want plain BFD (0, 0)", s.Mode, s.Encap)
	case s.DetectMult == 0:
		return fmt.Errorf("detect multiplier 0; want 1 to 255")
	case s.MinTx < minForeignInterval || s.MinRx < minForeignInterval:
		return fmt.Errorf("intervals of %v and %v; want %v at least", s.MinTx, s.MinRx, minForeignInterval)
	}
	f := e.foreign[s.Discr]
	if f != nil && f.vrf != c.vrf || f == nil && e.isDiscriminator(s.Discr) {
		return fmt.Errorf("discriminator %d is another session's; want one that is not used on this device", s.Discr)
	}
	if f != nil && (f.wanted.Local != s.Local || f.wanted.Peer != s.Peer || f.wanted.Interface != s.Interface) {
		e.removeForeign(c.vrf, s.Discr)
		e.setBFD() // its worker must forget the other neighbor first
		f = nil
	}
	for discr, other := range e.foreign {
		// A daemon that was restarted numbers its sessions anew.
		if discr != s.Discr && other.vrf == c.vrf && other.wanted.Peer == s.Peer && other.wanted.Interface == s.Interface {
			e.removeForeign(c.vrf, discr)
		}
	}
	if f == nil {
		if len(e.foreign) >= maxForeign {
			return fmt.Errorf("%d sessions of daemons are there already, the most that can be", maxForeign)
		}
		f = &foreign{vrf: c.vrf}
		e.foreign[s.Discr] = f
	}
	f.conn, f.lostAt, f.wanted = c, time.Time{}, s
	return nil
}

// isDiscriminator says whether a BGP session's BFD has that number.
func (e *Edge) isDiscriminator(n uint32) bool {
	for _, s := range e.sessions {
		if s.bfd != nil && s.bfd.session.Config.MyDiscriminator == n {
			return true
		}
	}
	return false
}

func (e *Edge) removeForeign(v *vrf, discr uint32) {
	if f := e.foreign[discr]; f != nil && f.vrf == v {
		e.releaseForeign(f)
		delete(e.foreign, discr)
	}
}

// releaseForeign gives the session's neighbor back.
func (e *Edge) releaseForeign(f *foreign) {
	if f.session == nil {
		return
	}
	f.session = nil
	if e.watchedByBGP(f.hop) {
		return // it has passed to that
	}
	if a := f.vrf.fwd.adjacencies[f.hop]; a != nil {
		a.watched = false
		a.SetDown(dataplane.DownBFD, false)
		f.vrf.fwd.forget(a)
	}
}

// foreignBFD lists the daemons' sessions of a port's worker.
func (e *Edge) foreignBFD(p *portState) (list []*dataplane.BFDSession) {
	for _, discr := range slices.Sorted(maps.Keys(e.foreign)) {
		if f := e.foreign[discr]; f.session != nil && f.port == p {
			list = append(list, f.session)
		}
	}
	return list
}

// watchForeign gives a daemon's session the neighbor it is for, if there is
// one that no other session watches: FRR may have "peer X" and "peer X interface Y",
// which are the same neighbor, and two of us must not speak to it.
func (e *Edge) watchForeign(f *foreign) {
	if e.vrfs[f.vrf.cfg.Name] != f.vrf { // the VRF is gone, with all that it had
		delete(e.foreign, f.wanted.Discr)
		return
	}
	sub, local := f.subinterface()
	h := hop{sub: sub, addr: f.wanted.Peer}
	if sub == nil || e.watchedByBGP(h) {
		e.releaseForeign(f)
		return
	}
	if other := e.foreignOf(h); other != nil && other != f {
		if e.releaseForeign(f); !f.shadow {
			e.log.Warn("BFD daemon's session stays down: another one is for the same neighbor", "vrf", f.vrf.cfg.Name, "neighbor", h.addr,
				"discriminator", f.wanted.Discr, "other", other.wanted.Discr)
		}
		f.shadow = true
		return
	}
	f.shadow = false
	a := f.vrf.fwd.adjacency(h)
	if s := f.session; s != nil && (s.Adjacency != a.Adjacency || s.Local != local || f.port != sub.port) {
		e.releaseForeign(f) // and anew with the next tick: its worker must forget the other neighbor first
		return
	}
	a.watched = true
	if a.Rewrite() == nil {
		e.asking[h] = true
	}
	switch cfg := f.config(); {
	case f.session == nil:
		f.session = dataplane.NewBFDSession(dataplane.BFDSession{Name: f.vrf.cfg.Name + "/" + h.addr.String(), Interface: sub.cfg.Name,
			VRF: f.vrf.index, Local: local, Peer: h.addr, Adjacency: a.Adjacency, Config: cfg})
		f.port, f.hop = sub.port, h
	case f.made != f.wanted:
		f.session = f.session.Change(cfg, false)
	}
	f.made = f.wanted
}

// subinterface is the one that the session's neighbor is on: that which the
// daemon names, by the name of its TAP, or whose subnet has the neighbor.
func (f *foreign) subinterface() (*subinterface, netip.Addr) {
	for _, name := range slices.Sorted(maps.Keys(f.vrf.subs)) {
		s := f.vrf.subs[name]
		if f.wanted.Interface != "" && f.wanted.Interface != name {
			continue
		}
		for _, p := range s.cfg.Addresses {
			if l := f.wanted.Local; p.Contains(f.wanted.Peer) && p.Addr() != f.wanted.Peer && (l.IsUnspecified() || l == p.Addr()) {
				return s, p.Addr()
			}
		}
	}
	return nil, netip.Addr{}
}

func (e *Edge) watchedByBGP(h hop) bool {
	for _, s := range e.sessions {
		if s.bfd != nil && s.bfd.hop == h {
			return true
		}
	}
	return false
}

// foreignOf is the daemons' session that a neighbor has; nil if it has none.
func (e *Edge) foreignOf(h hop) *foreign {
	for _, f := range e.foreign {
		if f.session != nil && f.hop == h {
			return f
		}
	}
	return nil
}

func (f *foreign) config() bfd.Config {
	s := &f.wanted
	return bfd.Config{MyDiscriminator: s.Discr, DesiredMinTx: s.MinTx, RequiredMinRx: s.MinRx, DetectMult: s.DetectMult,
		RequiredMinEcho: s.EchoRx, ControlIndependent: s.Flags&bfddp.ControlIndependent != 0,
		Passive: s.Flags&bfddp.Passive != 0, Disabled: s.Flags&bfddp.Shutdown != 0}
}

// tickForeign ends the sessions whose daemon has not come back.
func (e *Edge) tickForeign(now time.Time) {
	for discr, f := range e.foreign {
		if !f.lostAt.IsZero() && now.Sub(f.lostAt) > foreignFor {
			e.removeForeign(f.vrf, discr)
		}
	}
}
