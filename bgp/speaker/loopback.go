package speaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// loopback makes the connections between our relays and GoBGP. GoBGP takes
// TCP connections only, and tells neighbours by their address; so these have
// the addresses of the session, in a namespace without a name or a link in
// which every address is local.
type loopback struct {
	mu        sync.Mutex
	ns        *netns.Anonymous
	listeners [2]*net.TCPListener // IPv4, IPv6
}

// local is one for the process; it opens nothing until the first pair.
var local loopback

// pair returns the two ends of a connection that GoBGP takes for one of peer
// with us.
func (l *loopback) pair(us, peer netip.Addr) (relays, gobgps *net.TCPConn, err error) {
	l.mu.Lock() // one at a time: what is accepted next is what was dialled
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return nil, nil, fmt.Errorf("open a loopback for GoBGP: %w", err)
	}
	listener := l.listeners[0]
	if us.Is6() {
		listener = l.listeners[1]
	}
	port := listener.Addr().(*net.TCPAddr).Port
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(peer, 0)), Timeout: time.Second,
		Control: func(_, _ string, c syscall.RawConn) error { return control(c, freebind) },
	}
	d.SetMultipathTCP(false)
	var dialled net.Conn
	err = l.ns.Do(func() (err error) {
		dialled, err = d.DialContext(context.Background(), "tcp", netip.AddrPortFrom(us, uint16(port)).String())
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to GoBGP: %w", err)
	}
	listener.SetDeadline(time.Now().Add(time.Second))
	for {
		c, err := listener.AcceptTCP()
		if err != nil {
			dialled.Close()
			return nil, nil, fmt.Errorf("connect to GoBGP: %w", err)
		}
		if c.RemoteAddr().String() == dialled.LocalAddr().String() {
			return dialled.(*net.TCPConn), c, nil
		}
		c.Close() // left by an attempt that timed out
	}
}

// freebind allows an IPv6 address that no interface has.
func freebind(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1) }

func (l *loopback) openLocked() error {
	if l.ns != nil {
		return nil
	}
	ns, err := netns.NewAnonymous()
	if err != nil {
		return err
	}
	err = ns.Do(func() error {
		if err := makeAllLocal(); err != nil {
			return err
		}
		for i, network := range [2]string{"tcp4", "tcp6"} {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false)
			x, err := lc.Listen(context.Background(), network, ":0")
			if err != nil {
				return err
			}
			l.listeners[i] = x.(*net.TCPListener)
		}
		return nil
	})
	if err != nil {
		for _, x := range l.listeners {
			if x != nil {
				x.Close()
			}
		}
		return errors.Join(err, ns.Close())
	}
	l.ns = ns
	return nil
}

// makeAllLocal gives the namespace of the thread a route that makes every
// address its own.
func makeAllLocal() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, err := net.ParseCIDR(all)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("make %s local: %w", all, err)
		}
	}
	return nil
}
