package port

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TapConfig describes a TAP port.
type TapConfig struct {
	// Name is the device's name in the caller's network namespace. It is
	// created if it does not exist; "" lets the kernel choose.
	Name string
}

// Tap is a port whose far end is the host's stack: what the host sends through
// the TAP device is received here. Tags are inline.
type Tap struct {
	name    string
	mac     MAC
	ifindex int
	fd      int
	bufs    [][]byte
	more    bool // the last Recv has read as many frames as it may

	mu       sync.Mutex // guards netlink against Close during Stats, and:
	netlink  *netlink.Handle
	baseline uint64 // the device's drops before we opened it
	dropped  uint64
}

const (
	// tapBatch is the most frames a Recv reads: each is a system call, so
	// more at once wins nothing.
	tapBatch = 64
	// tapFrameOff is where a frame begins in its buffer, after the headroom
	// and on a cache line.
	tapFrameOff = (Headroom + VNetHdrLen + 63) &^ 63
	// tapBufLen has an octet to spare, by which a frame too long is known.
	tapBufLen = tapFrameOff + MaxFrame + 1
)

// OpenTap opens a TAP port and sets the device up. It needs CAP_NET_ADMIN. The
// device goes with Close, unless someone made it persistent.
func OpenTap(cfg TapConfig) (*Tap, error) {
	t := &Tap{name: cfg.Name, fd: -1}
	if err := t.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open tap port %s: %w", cfg.Name, err), t.Close())
	}
	t.bufs = make([][]byte, tapBatch)
	for i := range t.bufs {
		t.bufs[i] = make([]byte, tapBufLen)
	}
	return t, nil
}

func (t *Tap) open() (err error) {
	if err := t.openDevice(); err != nil {
		return err
	}
	if t.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	link, err := t.netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	t.ifindex = link.Attrs().Index
	copy(t.mac[:], link.Attrs().HardwareAddr)
	t.mac[0] = t.mac[0]&^1 | 2 // a station's, locally administered
	t.mac[5] ^= 1
	if s := link.Attrs().Statistics; s != nil {
		t.baseline = s.TxDropped
	}
	if err := t.netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// openDevice attaches to the TAP device, with the offloads that let the host
// send superframes and unfinished checksums.
func (t *Tap) openDevice() (err error) {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("name %q: %w", t.name, err)
	}
	if t.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("attach to device: %w", err)
	}
	t.name = ifr.Name()
	if err := unix.IoctlSetPointerInt(t.fd, unix.TUNSETVNETHDRSZ, VNetHdrLen); err != nil {
		return fmt.Errorf("set virtio-net header length: %w", err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	err = unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6)
	if err == unix.EINVAL { // before Linux 6.2
		err = unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tcp)
	}
	if err != nil {
		return fmt.Errorf("set offloads: %w", err)
	}
	return nil
}

// Name implements Port.
func (t *Tap) Name() string { return t.name }

// MAC implements Port. It is the port's own address, next to the one of the
// host's end: whoever bridges the device expects ours beyond it.
func (t *Tap) MAC() MAC { return t.mac }

// FD implements Port.
func (t *Tap) FD() int { return t.fd }

// Recv implements Port.
func (t *Tap) Recv(batch []Frame) (int, error) {
	t.more = false
	for i := range min(len(batch), len(t.bufs)) {
		buf := t.bufs[i]
		n, err := unix.Read(t.fd, buf[tapFrameOff-VNetHdrLen:])
		switch {
		case err == unix.EAGAIN || err == unix.EINTR || i > 0 && err != nil: // if it lasts, the next call meets it first
			return i, nil
		case err != nil:
			return 0, fmt.Errorf("receive on %s: %w", t.name, err)
		case n < VNetHdrLen:
			return i, nil
		}
		n -= VNetHdrLen
		batch[i] = Frame{
			Buf:       buf,
			Start:     tapFrameOff,
			End:       tapFrameOff + min(n, MaxFrame),
			VNet:      DecodeVNetHdr(buf[tapFrameOff-VNetHdrLen:]),
			Truncated: n > MaxFrame,
		}
	}
	t.more = true
	return min(len(batch), len(t.bufs)), nil
}

// More implements Leaver.
func (t *Tap) More() bool { return t.more }

// Release implements Port. The buffers are our own, and the next Recv fills
// them again.
func (t *Tap) Release() {}

// Stats implements Port.
func (t *Tap) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.netlink != nil {
		// What the device could not transmit is what we did not read in time.
		if link, err := t.netlink.LinkByIndex(t.ifindex); err == nil && link.Attrs().Statistics != nil {
			t.dropped = link.Attrs().Statistics.TxDropped - t.baseline
		}
	}
	return Stats{RxDropped: t.dropped}
}

// Close implements Port.
func (t *Tap) Close() error {
	t.Stats()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.netlink != nil {
		t.netlink.Close()
		t.netlink = nil
	}
	if t.fd < 0 {
		return nil
	}
	err := unix.Close(t.fd)
	t.fd = -1
	if err != nil {
		return fmt.Errorf("close tap port %s: %w", t.name, err)
	}
	return nil
}

// tapSender transmits on a TAP port. The descriptor is the port's: the kernel
// takes writes from several threads.
type tapSender struct{ *Tap }

// NewSender implements Port. The sender ends with the port.
func (t *Tap) NewSender() (Sender, error) { return tapSender{t}, nil }

// Send implements Sender.
func (s tapSender) Send(frames []*Frame) (sent int, err error) {
	for _, f := range frames {
		_, e := unix.Write(s.fd, f.withHeader())
		if e == nil {
			sent++
			continue
		}
		if e != unix.EAGAIN && e != unix.ENOBUFS && err == nil {
			err = fmt.Errorf("send on %s: %w", s.name, e)
		}
		if e != unix.EINVAL { // not this frame's fault: those behind fare no better
			break
		}
	}
	return sent, err
}

// Close implements Sender.
func (s tapSender) Close() error { return nil }
