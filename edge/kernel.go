package edge

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"msee/config"
	"msee/dataplane/port"
	"msee/netns"
)

// The kernel's half of a VRF: a network namespace of its own, so that
// customers with the same addresses are apart by construction (sockets, ARP,
// ICMP, fragments), and in it one TAP per subinterface with our address.

// kernelVRF is a VRF's namespace.
type kernelVRF struct {
	namespace string
	handle    *netlink.Handle // speaks to that namespace
	log       *slog.Logger
}

// sysctls of a VRF's namespace. Addresses are usable at once, and nothing is
// configured by what a customer sends, whatever the host's defaults are, which a
// new namespace may inherit (net.core.devconf_inherit_init_net). The kernel forwards what the dataplane
// hands it for a neighbor not known yet, and does not ask which way a packet
// came: the dataplane has the routes.
var sysctls = map[string]string{
	"net/ipv4/ip_forward":                       "1",
	"net/ipv4/conf/all/send_redirects":          "0",
	"net/ipv4/conf/default/send_redirects":      "0",
	"net/ipv4/conf/all/rp_filter":               "0",
	"net/ipv4/conf/default/rp_filter":           "0",
	"net/ipv4/conf/all/accept_redirects":        "0",
	"net/ipv4/conf/all/accept_source_route":     "0",
	"net/ipv4/conf/default/accept_source_route": "0",
	"net/ipv4/conf/all/proxy_arp":               "0",
	"net/ipv4/conf/default/proxy_arp":           "0",
	"net/ipv4/conf/all/arp_accept":              "0",
	"net/ipv4/conf/default/arp_accept":          "0",
	"net/ipv4/conf/all/arp_ignore":              "2", // answer only for the TAP's own address, and only its subnet
	"net/ipv4/conf/all/promote_secondaries":     "1", // an address outlives another of its subnet
	"net/ipv4/conf/default/promote_secondaries": "1",
	"net/ipv6/conf/all/forwarding":              "1",
	"net/ipv6/conf/default/forwarding":          "1",
	"net/ipv6/conf/all/accept_redirects":        "0",
	"net/ipv6/conf/all/accept_dad":              "0",
	"net/ipv6/conf/default/accept_dad":          "0",
	"net/ipv6/conf/all/accept_ra":               "0",
	"net/ipv6/conf/default/accept_ra":           "0",
	"net/ipv6/conf/default/autoconf":            "0",
}

// newKernelVRF makes the namespace. One of that name is a crashed
// predecessor's: the instance name is ours alone, so it is replaced.
func newKernelVRF(namespace string, log *slog.Logger) (_ *kernelVRF, err error) {
	if err := netns.Delete(namespace); err != nil {
		return nil, err
	}
	if err := netns.Create(namespace); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			netns.Delete(namespace)
		}
	}()
	k := &kernelVRF{namespace: namespace, log: log}
	err = netns.Do(namespace, func() error {
		for name, value := range sysctls {
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err // a kernel without IPv6 has no such files
			}
		}
		if k.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		lo, err := k.handle.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		return k.handle.LinkSetUp(lo)
	})
	if err != nil {
		return nil, fmt.Errorf("set up namespace %s: %w", namespace, err)
	}
	return k, nil
}

// close removes the namespace. Its TAPs end with their descriptors.
func (k *kernelVRF) close() {
	k.handle.Close()
	if err := netns.Delete(k.namespace); err != nil {
		k.log.Error("remove namespace", "err", err)
	}
}

// tap is the kernel's end of a subinterface.
type tap struct {
	device *water.Interface
	fd     int
	link   netlink.Link
	mac    port.MAC
	mtu    int
}

// newTap makes the TAP of a subinterface with its addresses, up.
func (k *kernelVRF) newTap(s config.Subinterface, mac port.MAC) (*tap, error) {
	t, err := k.openTap(s.Name)
	if err != nil {
		return nil, err
	}
	if err := k.setUp(t, s, mac); err != nil {
		t.device.Close()
		return nil, fmt.Errorf("set up TAP %s in namespace %s: %w", s.Name, k.namespace, err)
	}
	return t, nil
}

// originName is the TAP by which the kernel reaches all that is on no subnet
// of a VRF's: its default route. No subinterface is called so.
const originName = "to.fib"

// newOrigin makes that TAP.
func (k *kernelVRF) newOrigin() (*tap, error) {
	t, err := k.openTap(originName)
	if err != nil {
		return nil, err
	}
	err = errors.Join(k.handle.LinkSetARPOff(t.link), k.handle.LinkSetUp(t.link))
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		e := k.handle.RouteAdd(&netlink.Route{LinkIndex: t.link.Attrs().Index, Dst: ipNet(all), Scope: netlink.SCOPE_LINK})
		if all.Addr().Is6() && (errors.Is(e, unix.EOPNOTSUPP) || errors.Is(e, unix.EAFNOSUPPORT)) {
			continue // a kernel without IPv6
		}
		err = errors.Join(err, e)
	}
	if err != nil {
		t.device.Close()
		return nil, fmt.Errorf("set up TAP %s in namespace %s: %w", originName, k.namespace, err)
	}
	return t, nil
}

// openTap makes a TAP, down and bare.
func (k *kernelVRF) openTap(name string) (_ *tap, err error) {
	t := &tap{}
	err = netns.Do(k.namespace, func() (err error) {
		// water opens without O_CLOEXEC; the speaker, started at any time, must
		// not inherit the descriptor, which would keep the TAP alive.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		t.device, err = water.New(water.Config{
			DeviceType:             water.TAP,
			PlatformSpecificParams: water.PlatformSpecificParams{Name: name},
		})
		if err == nil {
			t.fd, err = descriptor(t.device)
		}
		if err == nil {
			unix.CloseOnExec(t.fd)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make TAP %s in namespace %s: %w", name, k.namespace, err)
	}
	defer func() {
		if err != nil {
			t.device.Close()
			err = fmt.Errorf("open TAP %s in namespace %s: %w", name, k.namespace, err)
		}
	}()
	if err := unix.SetNonblock(t.fd, true); err != nil {
		return nil, err
	}
	t.link, err = k.handle.LinkByName(name)
	return t, err
}

// descriptor returns the descriptor of a TAP, which the worker reads and
// writes itself, within its epoll loop; the water interface keeps it open.
func descriptor(device *water.Interface) (fd int, err error) {
	conn, ok := device.ReadWriteCloser.(syscall.Conn)
	if !ok {
		return -1, errors.New("the TAP has no descriptor")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	return fd, raw.Control(func(f uintptr) { fd = int(f) })
}

const (
	// heldOctets is what the kernel holds for a neighbor that it looks for, in octets of
	// memory, of which a packet of 1,500 takes 2,304. Its default of 208 KiB are 90: a few
	// superframes of one flow, and each further packet would push out another.
	heldOctets = 4 << 20
	// tapQueue is how many frames of the kernel's may wait for us: all that it has held
	// come at once when the neighbor answers. The default is 500.
	tapQueue = 4096
)

func (k *kernelVRF) setUp(t *tap, s config.Subinterface, mac port.MAC) error {
	if err := k.change(t, config.Subinterface{}, s, mac); err != nil {
		return err
	}
	if err := k.handle.LinkSetTxQLen(t.link, tapQueue); err != nil {
		return fmt.Errorf("set queue length %d: %w", tapQueue, err)
	}
	if err := k.setHeld(s.Name); err != nil {
		return err
	}
	return k.handle.LinkSetUp(t.link)
}

// setHeld has the kernel hold so much for each neighbor on a TAP.
func (k *kernelVRF) setHeld(tap string) error {
	return netns.Do(k.namespace, func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			file := filepath.Join("/proc/sys/net", family, "neigh", tap, "unres_qlen_bytes")
			if err := os.WriteFile(file, []byte(strconv.Itoa(heldOctets)), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err // a kernel without IPv6 has no such file
			}
		}
		return nil
	})
}

// change brings a TAP from one configuration to another. It sets only what
// differs: a new MAC makes the kernel forget the neighbors. It goes on after an
// error, so as to come as near as it can.
func (k *kernelVRF) change(t *tap, old, new config.Subinterface, mac port.MAC) (err error) {
	if t.mac != mac {
		if e := k.handle.LinkSetHardwareAddr(t.link, net.HardwareAddr(mac[:])); e != nil {
			err = errors.Join(err, fmt.Errorf("set address %x: %w", mac, e))
		} else {
			t.mac = mac
		}
	}
	if t.mtu != new.MTU {
		if e := k.handle.LinkSetMTU(t.link, new.MTU); e != nil {
			err = errors.Join(err, fmt.Errorf("set MTU %d: %w", new.MTU, e))
		} else {
			t.mtu = new.MTU
		}
	}
	for _, p := range new.Addresses {
		if e := k.handle.AddrReplace(t.link, address(p)); e != nil {
			err = errors.Join(err, fmt.Errorf("add address %s: %w", p, e))
		}
	}
	for _, p := range old.Addresses {
		if slices.Contains(new.Addresses, p) {
			continue // untouched, and so are the sockets bound to it
		}
		if e := k.handle.AddrDel(t.link, address(p)); e != nil && !errors.Is(e, unix.EADDRNOTAVAIL) {
			err = errors.Join(err, fmt.Errorf("remove address %s: %w", p, e))
		}
	}
	return err
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// resolve asks the kernel to find a neighbor, or to find out whether one that
// has not been heard of lately is still there.
func (k *kernelVRF) resolve(t *tap, addr netip.Addr) error {
	return k.handle.NeighSet(&netlink.Neigh{
		LinkIndex: t.link.Attrs().Index,
		IP:        addr.AsSlice(),
		Family:    family(addr),
		Flags:     netlink.NTF_USE,
	})
}

// remember tells the kernel of a neighbor that was there a while ago: it may be
// sent to, and is asked whether it is still there.
func (k *kernelVRF) remember(t *tap, addr netip.Addr, mac port.MAC) error {
	return k.handle.NeighSet(&netlink.Neigh{
		LinkIndex:    t.link.Attrs().Index,
		IP:           addr.AsSlice(),
		Family:       family(addr),
		State:        netlink.NUD_STALE,
		HardwareAddr: net.HardwareAddr(mac[:]),
	})
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// neighbor is an entry of the kernel's neighbor table.
type neighbor struct {
	vrf       *vrf
	linkIndex int
	addr      netip.Addr
	mac       port.MAC
	usable    bool // resolved, even if not confirmed lately
}

// usableStates are those in which the kernel itself would send to a neighbor.
const usableStates = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY |
	netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

// watchNeighbors tells emit of every entry of the namespace's neighbor table,
// those there now first, until stop is closed. A lost notification (the
// kernel's queue ran over) begins again with the whole table.
func (k *kernelVRF) watchNeighbors(v *vrf, emit func(neighbor), stop <-chan struct{}, done *sync.WaitGroup) error {
	ns, err := vnetns.GetFromPath(netns.Path(k.namespace))
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", k.namespace, err)
	}
	w, err := subscribe(&ns)
	if err != nil {
		ns.Close()
		return fmt.Errorf("watch neighbors in namespace %s: %w", k.namespace, err)
	}
	done.Go(func() {
		defer ns.Close()
		for w != nil {
			err := w.follow(v, emit, stop)
			w.close()
			if w = nil; err == nil {
				return // stopped
			}
			for w == nil {
				k.log.Warn("neighbor notifications lost; reading the table again", "namespace", k.namespace, "err", err)
				select {
				case <-stop:
					return
				case <-time.After(watchAgain):
				}
				w, err = subscribe(&ns)
			}
		}
	})
	return nil
}

// watchAgain is the pause before a lost watch is taken up again.
const watchAgain = 100 * time.Millisecond

// neighborWatch is one subscription to a namespace's neighbor table.
type neighborWatch struct {
	updates chan netlink.NeighUpdate
	end     chan struct{}
	lost    chan error
}

func subscribe(ns *vnetns.NsHandle) (*neighborWatch, error) {
	w := &neighborWatch{make(chan netlink.NeighUpdate, 64), make(chan struct{}), make(chan error, 1)}
	err := netlink.NeighSubscribeWithOptions(w.updates, w.end, netlink.NeighSubscribeOptions{
		Namespace: ns, ListExisting: true,
		ErrorCallback: func(err error) {
			select {
			case w.lost <- err:
			default:
			}
		},
	})
	if err != nil {
		close(w.end)
		return nil, err
	}
	return w, nil
}

// follow reports entries until stop is closed, which is no error, or the
// subscription fails.
func (w *neighborWatch) follow(v *vrf, emit func(neighbor), stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case err := <-w.lost:
			return err
		case u, ok := <-w.updates:
			if !ok {
				return errors.New("the subscription ended")
			}
			if n, ok := neighborOf(v, u); ok {
				emit(n)
			}
		}
	}
}

// close ends the subscription. The library's goroutine may be about to send.
func (w *neighborWatch) close() {
	close(w.end)
	go func() {
		for range w.updates { // until it closes the channel
		}
	}()
}

func neighborOf(v *vrf, u netlink.NeighUpdate) (neighbor, bool) {
	addr, ok := netip.AddrFromSlice(u.IP)
	if !ok {
		return neighbor{}, false
	}
	n := neighbor{vrf: v, linkIndex: u.LinkIndex, addr: addr.Unmap()}
	if len(u.HardwareAddr) == len(n.mac) {
		copy(n.mac[:], u.HardwareAddr)
		n.usable = u.Type == unix.RTM_NEWNEIGH && u.State&usableStates != 0
	}
	return n, true
}
