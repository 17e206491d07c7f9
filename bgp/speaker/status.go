package speaker

import (
	"fmt"
	"net"
	"time"

	"msee/bgp"
)

// watch receives what GoBGP logs about one life of a neighbour, from AddPeer to
// DeletePeer. What comes later than that is dropped.
type watch struct{ s *session }

// received takes what an UPDATE on c said. A session's routes must not arrive
// after it went down.
func (s *session) received(c *conn, r *received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != c || s.status.State != bgp.StateEstablished {
		return
	}
	if r.malformed != "" {
		s.malformed++
		if s.malformed&(s.malformed-1) == 0 { // at powers of two: a peer fills no log
			s.log.Warn("malformed UPDATE, its routes are taken as withdrawn (RFC 7606)", "why", r.malformed, "so far", s.malformed)
		}
	}
	if r.endOfRIB {
		s.out.endOfRIB(s.cfg.Name)
		return
	}
	if s.cfg.EVPN {
		s.out.updateEVPN(r.updateEVPN(s.cfg.Name))
		return
	}
	s.out.update(r.update(s.cfg.Name))
}

// heard notes that the connection carries what the peer says.
func (s *session) heard(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == c {
		s.rekeyed = false
	}
}

// note keeps why the session is about to move. The first cause counts: a peer
// may send more than one NOTIFICATION while its socket closes.
func (w *watch) note(text string) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.noteLocked(w, text)
}

func (s *session) noteLocked(w *watch, text string) {
	if s.watch == w && s.note == "" {
		s.note = text
	}
}

// noteSent is note for a NOTIFICATION of ours.
func (w *watch) noteSent(n notification, detail string) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	s := w.s
	if n.code == 2 && n.subcode == 2 && s.cur != nil && s.cur.open != nil {
		detail = fmt.Sprintf("peer says AS %d, configured peerASN %d", s.cur.open.as, s.cfg.PeerAS)
	}
	text := "sent " + n.String()
	if detail != "" {
		text += ": " + detail
	}
	s.noteLocked(w, text)
}

// advice says what an operator can do about a NOTIFICATION of the peer's, where
// its name does not.
var advice = map[[2]uint8]string{
	{1, 0}: "it could not read a message of ours", {1, 1}: "it could not read a message of ours",
	{1, 2}: "it could not read a message of ours", {1, 3}: "it could not read a message of ours",
	{2, 3}:  "our router ID does not suit it: is it its own?",
	{2, 5}:  "it wants other authentication than TCP-MD5",
	{2, 6}:  "our hold time does not suit it",
	{2, 7}:  "it demands a capability that is not offered here, or the address family is not activated for this neighbor there",
	{4, 0}:  "it has heard nothing from here for its hold time: is the link loaded, or lossy one way?",
	{6, 1}:  "it was told more prefixes than its maximum-prefix for this neighbor; it may stay down there until it is cleared",
	{6, 3}:  "the neighbor was removed there",
	{6, 5}:  "it has no neighbor of this address, or takes no connections now",
	{6, 7}:  "both sides had dialled; the other connection stays",
	{6, 8}:  "it is out of memory or at a limit of its own",
	{6, 10}: "its BFD for this neighbor went down: look at the link",
}

// explainReceived puts a NOTIFICATION of the peer in words.
func (s *session) explainReceived(n notification) string {
	text := "peer sent " + n.String()
	if n.code == 2 && n.subcode == 2 {
		return text + fmt.Sprintf(": it expects another AS here than ours, %d", s.cfg.LocalAS)
	}
	if n.code == 3 {
		return text + ": it found an UPDATE of ours malformed"
	}
	if why := advice[[2]uint8{n.code, n.subcode}]; why != "" {
		text += ": " + why
	}
	return text
}

var fsmStates = map[string]bgp.State{
	"BGP_FSM_IDLE":        bgp.StateIdle,
	"BGP_FSM_CONNECT":     bgp.StateConnect,
	"BGP_FSM_ACTIVE":      bgp.StateActive,
	"BGP_FSM_OPENSENT":    bgp.StateOpenSent,
	"BGP_FSM_OPENCONFIRM": bgp.StateOpenConfirm,
	"BGP_FSM_ESTABLISHED": bgp.StateEstablished,
}

// fsmReasons explain GoBGP's words for a move that no note explains.
var fsmReasons = map[string]string{
	"read-failed":        "the peer closed the TCP connection without a NOTIFICATION",
	"write-failed":       "sending to the peer failed",
	"hold-timer-expired": "hold timer expired: nothing heard from the peer",
	"invalid-msg":        "the peer sent a message that does not belong there",
}

// stateChanged is called by GoBGP's loop between two states.
func (w *watch) stateChanged(to, reason string) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	state, known := fsmStates[to]
	if s.watch != w || !known {
		return
	}
	switch state {
	case bgp.StateEstablished:
		s.establishedLocked()
	case bgp.StateIdle:
		retain := s.status.Retain
		if s.status.State == bgp.StateEstablished {
			retain = s.retainLocked(reason)
		}
		s.downLocked(s.whyLocked(reason))
		s.status.Retain = retain
		s.inbox = append(s.inbox, func() {
			s.mu.Lock()
			same := s.watch == w
			s.mu.Unlock()
			if same {
				// A peer that closes one of two colliding connections has
				// the other one ready.
				hold := idleHold
				if s.spare != nil {
					hold = 0
				}
				s.restart(ceaseShutdown, "", hold)
			}
		})
	default:
		s.enterLocked(state)
	}
	s.publishLocked()
	s.wakeUp()
	if state == bgp.StateEstablished && s.cur != nil {
		close(s.cur.established) // and what it received is taken, see received
	}
}

// retainLocked says how long the routes are to be kept of a session that GoBGP
// has just ended. A NOTIFICATION, either way, means that the session is over;
// the mere end of the connection that the peer may be restarting (RFC 4724 §4.2).
func (s *session) retainLocked(reason string) time.Duration {
	if !s.cfg.GracefulRestart || s.cur == nil || s.note != "" || reason != "read-failed" && reason != "write-failed" {
		return 0
	}
	family, _ := s.family()
	wait, _ := s.cur.open.preserves(family)
	return wait
}

// void ends what was retained.
func (s *session) void() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Retain = 0
}

func (s *session) whyLocked(reason string) string {
	why := s.note
	if why == "" {
		why = fsmReasons[reason]
	}
	if why == "" {
		why = reason
	}
	s.note = ""
	return why
}

func (s *session) enterLocked(state bgp.State) {
	if s.status.State != state {
		s.status.State, s.status.Since = state, time.Now()
	}
}

func (s *session) establishedLocked() {
	s.enterLocked(bgp.StateEstablished)
	s.up.Store(true)
	s.note = ""
	s.last, s.md5 = s.lastDown, ""
	s.inbox = append(s.inbox, s.dropSpare)
	s.lived, s.rekeyed = true, false
	st := &s.status
	st.Hold, st.Keepalive = s.cfg.Hold, s.cfg.Keepalive
	st.Retain, st.RestartTime, st.Preserved = 0, 0, false
	if s.cur == nil {
		return
	}
	if o := s.cur.open; o != nil {
		if family, _ := s.family(); s.cfg.GracefulRestart {
			st.RestartTime, st.Preserved = o.preserves(family)
		}
		st.Hold, st.Keepalive = negotiate(s.cfg.Hold, s.cfg.Keepalive, o.hold)
		st.RemoteID = o.id
		if f, name := s.family(); !o.carries(f) {
			s.last = fmt.Sprintf("the peer did not offer %s (RFC 4760): no routes can be exchanged; activate the neighbor for that family", name)
		}
	}
	st.LocalPort, st.PeerPort = portOf(s.cur.LocalAddr()), portOf(s.cur.RemoteAddr())
}

func (s *session) family() (code uint32, name string) {
	switch {
	case s.cfg.EVPN:
		return l2vpnEVPN, "L2VPN EVPN"
	case s.cfg.Peer.Is4():
		return ipv4Unicast, "IPv4 unicast"
	}
	return ipv6Unicast, "IPv6 unicast"
}

func (s *session) dropSpare() {
	if s.spare != nil && s.up.Load() {
		s.spare.farewell(ceaseCollision)
		s.spare = nil
	}
}

func portOf(a net.Addr) uint16 {
	if t, ok := a.(*net.TCPAddr); ok {
		return uint16(t.Port)
	}
	return 0
}

// downLocked enters Idle.
func (s *session) downLocked(why string) {
	if s.status.State == bgp.StateEstablished {
		s.status.Flaps++
		s.lastDown, s.rebase = why, true
		s.log.Info("BGP session went down", "peer", s.cfg.Peer, "reason", why)
	}
	s.up.Store(false)
	s.enterLocked(bgp.StateIdle)
	st := &s.status
	st.Hold, st.Keepalive, st.LocalPort, st.PeerPort = 0, 0, 0, 0
	st.RestartTime, st.Preserved = 0, false
	if why != "" {
		s.last, st.Retain = why, 0
	}
}

// leftEstablished is downLocked for ends of our own making.
func (s *session) leftEstablished(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downLocked(why)
	s.publishLocked()
}

// setState is for states that GoBGP knows nothing of.
func (s *session) setState(state bgp.State, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enterLocked(state)
	s.last = why
	s.publishLocked()
}

// explain says why the session does not come up.
func (s *session) explain(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State != bgp.StateEstablished {
		s.last = why
		s.publishLocked()
	}
}

// publishLocked tells the status if it is news.
func (s *session) publishLocked() {
	s.status.Reason = s.last
	if s.md5 != "" {
		s.status.Reason = s.md5
		if s.last != "" {
			s.status.Reason += "; " + s.last
		}
	}
	if s.status != s.sent {
		s.sent = s.status
		s.out.status(s.status)
	}
}

// publishMD5 looks whether TCP-MD5 keeps the session down.
func (s *session) publishMD5(now time.Time) {
	counts, before, fresh := s.vrf.md5.sample(now)
	others := s.vrf.othersDown(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rebase {
		s.base, s.rebase = counts, false
	}
	s.md5 = ""
	if fresh {
		s.md5 = explainMD5(s.base, before, counts, s.key != "", s.cfg.TTLSecurity, others)
	}
	s.publishLocked()
}
