package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"msee/bgp"
	"msee/netns"
)

const bgpPort = 179

// endpoints identify a session among the connections of a namespace.
type endpoints struct{ local, peer netip.Addr }

// vrf is one network namespace with BGP sessions in it: its listeners, the
// TCP-MD5 keys on them, its dialling, its count of TCP-MD5 rejections.
type vrf struct {
	name string
	log  *slog.Logger
	md5  md5Watch

	mu        sync.Mutex
	inode     uint64 // of the namespace the listeners are in
	listeners [2]*net.TCPListener
	sessions  map[endpoints]*session
	keyed     map[netip.Addr]bool // peers that the listeners have a key of
	refused   int                 // connections nobody is configured for
}

// newVRF opens nothing yet; ensure does.
func newVRF(name string, log *slog.Logger) *vrf {
	return &vrf{name: name, log: log.With("namespace", name), sessions: make(map[endpoints]*session)}
}

// ensure opens the listeners if they are not open or if the name stands for
// another namespace by now.
func (v *vrf) ensure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	ino, err := inode(v.name)
	if err != nil {
		v.closeLocked()
		return err
	}
	if v.listeners[0] != nil && v.inode == ino {
		return nil
	}
	v.closeLocked()
	if err := v.openLocked(); err != nil {
		return err
	}
	v.inode = ino
	return nil
}

// openLocked opens the listeners, anew if they are open. They have all keys
// before they listen: the kernel completes connections by itself from then on,
// and one of a peer with a key must not be among them without.
func (v *vrf) openLocked() error {
	v.closeListenersLocked()
	v.keyed = make(map[netip.Addr]bool)
	keys := make(map[netip.Addr]string)
	for e, s := range v.sessions {
		if key := s.keyNow(); key != "" {
			keys[e.peer], v.keyed[e.peer] = key, true
		}
	}
	err := netns.Do(v.name, func() (err error) {
		if err := v.md5.open(); err != nil {
			return err
		}
		for i, family := range [2]string{"tcp4", "tcp6"} {
			if v.listeners[i], err = listen(family, keys); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.closeLocked()
		return err
	}
	for i, l := range v.listeners {
		go v.acceptFrom(i, l)
	}
	return nil
}

func inode(name string) (uint64, error) {
	if name == "" {
		return 0, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(netns.Path(name), &st); err != nil {
		return 0, fmt.Errorf("find namespace %s: %w", name, err)
	}
	return st.Ino, nil
}

// listen must run on a thread inside the namespace. Of keys, by peer, it takes
// those of its family.
func listen(network string, keys map[netip.Addr]string) (*net.TCPListener, error) {
	v6 := network == "tcp6"
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// A peer with TTL security wants 255 in the SYN-ACK already; the
		// connection gets what its session has.
		return control(c, func(fd int) error {
			for peer, key := range keys {
				if peer.Is6() != v6 {
					continue
				}
				if err := setMD5(fd, peer, key); err != nil {
					return fmt.Errorf("set TCP-MD5 key of %s on the listener: %w", peer, err)
				}
			}
			return setTTL(fd, v6, ttlSecurity)
		})
	}}
	lc.SetMultipathTCP(false) // an MPTCP socket has no TCP-MD5
	address := "0.0.0.0:179"
	if v6 {
		address = "[::]:179"
	}
	l, err := lc.Listen(context.Background(), network, address) // tcp6 implies IPV6_V6ONLY
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen on port %d: another BGP daemon runs in this namespace: %w", bgpPort, err)
	}
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// control runs fn on the socket of c.
func control(c syscall.RawConn, fn func(fd int) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = fn(int(fd)) }); e != nil {
		return e
	}
	return err
}

// What a socket sends dies behind the link, as with any router and a directly
// connected eBGP peer; or, with TTL security (RFC 5082 §3), is sent with the most
// there is, and so must what is received have been.
const (
	ttlLink     = 1
	ttlMultihop = 64
	ttlSecurity = 255
)

func setTTL(fd int, v6 bool, ttl int) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, ttl)
}

// setHops sets the TTL of a session's connection and, with TTL security, the
// least it takes.
func setHops(fd int, c *bgp.SessionConfig) error {
	if c.Multihop {
		return setTTL(fd, c.Peer.Is6(), ttlMultihop)
	}
	if !c.TTLSecurity {
		return setTTL(fd, c.Peer.Is6(), ttlLink)
	}
	if err := setTTL(fd, c.Peer.Is6(), ttlSecurity); err != nil {
		return err
	}
	if c.Peer.Is6() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttlSecurity)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, ttlSecurity)
}

// join makes the listeners know s. It fails if another session has the same
// addresses in this namespace.
func (v *vrf) join(s *session) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := endpoints{s.cfg.Local, s.cfg.Peer}
	if other := v.sessions[e]; other != nil && other != s {
		return fmt.Errorf("session %s has the same addresses in this namespace", other.cfg.Name)
	}
	v.sessions[e] = s
	return v.applyKeyLocked(e, s.keyNow())
}

// rekey puts the key of s on the listener.
func (v *vrf) rekey(s *session) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := endpoints{s.cfg.Local, s.cfg.Peer}
	if v.sessions[e] != s {
		return nil // it will when it joins
	}
	return v.applyKeyLocked(e, s.keyNow())
}

// applyKeyLocked brings the key of a session to the listeners, if they are open.
// A first key of that peer opens them anew: connections may wait to be accepted
// that were made without.
func (v *vrf) applyKeyLocked(e endpoints, key string) error {
	switch {
	case v.listeners[0] == nil:
		return nil // they will have it from the start
	case key != "" && !v.keyed[e.peer]:
		return v.openLocked()
	}
	return v.setKeyLocked(e, key)
}

// leave forgets s and its key; the last one closes the listeners.
func (v *vrf) leave(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := endpoints{s.cfg.Local, s.cfg.Peer}
	if v.sessions[e] == s {
		delete(v.sessions, e)
		if v.listeners[0] != nil && !v.keyInUseLocked(e.peer) {
			v.setKeyLocked(e, "") //nolint:errcheck // worst case: a key too many
		}
	}
	if len(v.sessions) == 0 {
		v.closeLocked()
	}
}

// othersDown counts the sessions that a TCP-MD5 rejection could as well be of.
func (v *vrf) othersDown(s *session) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, o := range v.sessions {
		if o != s && !o.up.Load() && (o.keyNow() == "") == (s.keyNow() == "") {
			n++
		}
	}
	return n
}

// keyInUseLocked: the kernel has one key per peer address, whatever our own.
func (v *vrf) keyInUseLocked(peer netip.Addr) bool {
	for e, s := range v.sessions {
		if e.peer == peer && s.keyNow() != "" {
			return true
		}
	}
	return false
}

func (v *vrf) setKeyLocked(e endpoints, key string) error {
	l := v.listeners[0]
	if e.peer.Is6() {
		l = v.listeners[1]
	}
	raw, err := l.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error { return setMD5(fd, e.peer, key) })
	}
	if err != nil {
		return fmt.Errorf("set TCP-MD5 key of %s on the listener: %w", e.peer, err)
	}
	v.keyed[e.peer] = key != ""
	return nil
}

func (v *vrf) closeLocked() {
	v.closeListenersLocked()
	v.md5.close()
}

func (v *vrf) closeListenersLocked() {
	for i, l := range v.listeners {
		if l != nil {
			// At once: Close alone waits for who is just accepting.
			if raw, err := l.SyscallConn(); err == nil {
				control(raw, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) }) //nolint:errcheck // closed next
			}
			l.Close()
			v.listeners[i] = nil
		}
	}
}

// acceptFrom hands out connections until the listener, number i, closes.
func (v *vrf) acceptFrom(i int, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory, or about to be closed
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if s := v.find(i, l, c); s != nil && s.admit(c) {
			s.offer(newConn(s, c, false))
		} else {
			c.SetLinger(0)
			c.Close()
		}
	}
}

// admit prepares a connection that was accepted for s.
func (s *session) admit(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			if key := s.keyNow(); key != "" { // it may be newer than the connection
				if err := setMD5(fd, s.cfg.Peer, key); err != nil {
					return err
				}
			}
			return setHops(fd, &s.cfg)
		})
	}
	return err == nil
}

// find returns the session that c, accepted from l, belongs to, or nil: also if
// l, number i, has been replaced meanwhile, as c may lack a key then. Refusals are logged at
// powers of two: a stranger who knocks all night fills no log.
func (v *vrf) find(i int, l *net.TCPListener, c *net.TCPConn) *session {
	e := endpoints{addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listeners[i] != l {
		return nil
	}
	if s := v.sessions[e]; s != nil {
		return s
	}
	v.refused++
	if v.refused&(v.refused-1) == 0 {
		v.log.Warn("refused a BGP connection: no enabled peering has these addresses", "from", e.peer, "to", e.local, "refused", v.refused)
	}
	return nil
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// dialTimeout is how long a peer may take to answer our SYN.
const dialTimeout = 5 * time.Second

// dial connects to the peer of s from inside the namespace.
func (v *vrf) dial(ctx context.Context, s *session) (*net.TCPConn, error) {
	c := &s.cfg
	var conn net.Conn
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Local, 0)),
		Timeout:   dialTimeout,
		Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error { return prepareDial(fd, c, s.keyNow()) })
		},
	}
	d.SetMultipathTCP(false)
	err := netns.Do(v.name, func() error {
		var err error
		conn, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(c.Peer, bgpPort).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// prepareDial sets what must be set before the SYN leaves. Unacknowledged data
// fails the connection after the hold time, when the peer has given it up too.
func prepareDial(fd int, c *bgp.SessionConfig, key string) error {
	if err := setHops(fd, c); err != nil {
		return err
	}
	if c.Hold > 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(c.Hold.Milliseconds())); err != nil {
			return err
		}
	}
	if key == "" {
		return nil
	}
	return setMD5(fd, c.Peer, key)
}

// explainDial says what a failed dial means to the operator.
func explainDial(err error, peer netip.Addr) string {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Sprintf("connection refused by %s: is bgpd running there, with a neighbor for this address?", peer)
	case errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Sprintf("no route to %s: nobody answers ARP/ND for it; check VLAN tags and addresses", peer)
	case errors.Is(err, unix.ENETUNREACH):
		return fmt.Sprintf("network of %s is unreachable: is the interface up and addressed?", peer)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "our own address is not on any interface of the namespace yet"
	case errors.Is(err, unix.ECONNRESET):
		return fmt.Sprintf("connection reset by %s", peer)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer from %s to our TCP SYN: the peer is down, filters port %d, or its TCP-MD5 key is not ours", peer, bgpPort)
	}
	return "dial " + strings.TrimPrefix(err.Error(), "dial ")
}
