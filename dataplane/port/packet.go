package port

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultRingFrames is the number of frames a packet port's ring holds if the
// configuration does not say: 8 MiB.
const DefaultRingFrames = 4096

// PacketConfig describes a packet port.
type PacketConfig struct {
	// Device is the link in the caller's network namespace. It must be an
	// Ethernet device; the caller sets it up.
	Device string
	// RingFrames is how many frames may wait; 0 means DefaultRingFrames.
	RingFrames int
	// MaxFrame is the longest frame to receive, octets, Ethernet header and
	// tags included; 0 is MaxFrame, the longest there is. Longer ones are
	// truncated, and so are superframes of which too many wait.
	MaxFrame int
	// Silent silences the host from the beginning; see SilenceHost. Silence that a
	// process which crashed has left goes on without a gap.
	Silent bool
}

// withDefaults fills in what is 0.
func (c PacketConfig) withDefaults() (PacketConfig, error) {
	if c.RingFrames == 0 {
		c.RingFrames = DefaultRingFrames
	}
	if c.MaxFrame == 0 {
		c.MaxFrame = MaxFrame
	}
	if c.RingFrames < 1 || c.RingFrames > 1<<15 { // 2 GiB
		return c, fmt.Errorf("ring of %d frames: must be 1 to %d", c.RingFrames, 1<<15)
	}
	if c.MaxFrame < MinFrame || c.MaxFrame > MaxFrame {
		return c, fmt.Errorf("ring for frames of %d octets: must be %d to %d", c.MaxFrame, MinFrame, MaxFrame)
	}
	return c, nil
}

// MinFrame is the shortest that a frame's maximum can be: an IPv6 packet of the
// minimum MTU with tags and SecTAG.
const MinFrame = 1280 + 64

// Packet is a port on a Linux network device by AF_PACKET. It takes every frame
// that enters the device, whoever it is addressed to, and keeps the host's own
// stack from seeing any. The outer VLAN tag is out of band.
type Packet struct {
	name    string
	mac     MAC
	ifindex int
	fd      int
	ring    rxRing
	empty   bool // the last Recv found nothing
	netlink *netlink.Handle
	drop    *hostDrop
	silence hostSilence
	others  others

	mu      sync.Mutex // guards fd against Close and Resize during Stats and NewSender, and:
	dropped uint64
	closed  bool
}

// OpenPacket opens a packet port. It needs CAP_NET_ADMIN, CAP_NET_RAW and
// CAP_BPF, and Linux 4.20 or later. The device may be down: frames come once it
// is up.
func OpenPacket(cfg PacketConfig) (*Packet, error) {
	p := &Packet{name: cfg.Device, fd: -1}
	if err := p.open(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open packet port %s: %w", cfg.Device, err), p.Close())
	}
	return p, nil
}

func (p *Packet) open(cfg PacketConfig) (err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return err
	}
	if p.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	link, err := p.netlink.LinkByName(cfg.Device)
	if err != nil {
		return err
	}
	attrs := link.Attrs()
	if attrs.EncapType != "ether" || len(attrs.HardwareAddr) != len(p.mac) {
		return fmt.Errorf("device is %q, not an Ethernet", attrs.EncapType)
	}
	p.ifindex, p.mac = attrs.Index, MAC(attrs.HardwareAddr)
	if p.fd, p.ring, err = openRing(p.ifindex, cfg); err != nil {
		return err
	}
	// The host is deaf before we hear: no frame is processed twice.
	if p.drop, err = attachHostDrop(p.netlink, p.ifindex, netlink.HANDLE_MIN_INGRESS); err != nil {
		return err
	}
	if cfg.Silent {
		err = p.SilenceHost(true)
	} else {
		err = endSilence(p.netlink, p.ifindex)
	}
	if err != nil {
		return err
	}
	return bindPacket(p.fd, unix.ETH_P_ALL, p.ifindex)
}

// LookForQueues looks whether the device has a queueing discipline now, which our frames
// are not to wait in. The caller is in the device's namespace.
func (p *Packet) LookForQueues() error { return p.others.look(p.ifindex) }

// SilenceHost keeps the host, and whoever sends through its queueing discipline,
// from sending on the device, or lets them again. The caller is in the device's
// namespace. What our senders send one by
// one passes, superframes that the device cannot cut do not.
func (p *Packet) SilenceHost(on bool) error {
	p.others.silent.Store(true)
	if err := p.silence.set(p.ifindex, on); err != nil {
		return fmt.Errorf("silence the host on %s: %w", p.name, err)
	}
	p.others.silent.Store(on)
	return nil
}

// openRing opens the receive socket. Its protocol is 0, and so it receives
// nothing, until it is bound: a frame of another device, or one without a
// virtio-net header, must not get into the ring.
func openRing(ifindex int, cfg PacketConfig) (fd int, ring rxRing, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, ring, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ring.unmap(), unix.Close(fd))
			fd = -1
		}
	}()
	for _, o := range []struct {
		name       string
		opt, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, ringReserve},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.opt, o.value); err != nil {
			return fd, ring, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	if ring, err = mapRing(fd, cfg.RingFrames, cfg.MaxFrame); err != nil {
		return fd, ring, err
	}
	promisc := unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC}
	err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promisc)
	if err != nil {
		return fd, ring, fmt.Errorf("set promiscuous: %w", err)
	}
	return fd, ring, nil
}

// Resize gives the port a receive ring of other slots; its FD is another one from
// then on. What waits in the old ring is lost. It is the worker's to call, between
// Release and Recv. On an error all is as before.
func (p *Packet) Resize(cfg PacketConfig) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return fmt.Errorf("resize ring of %s: %w", p.name, err)
	}
	var fd int
	var ring rxRing
	err = inNamespaceOf(p.fd, func() (err error) {
		fd, ring, err = openRing(p.ifindex, cfg)
		return err
	})
	if err != nil {
		return fmt.Errorf("resize ring of %s: %w", p.name, err)
	}
	// Not both at once: a frame would be taken twice. A packet socket cannot be
	// bound to nothing; of this protocol there is nothing.
	if err = bindPacket(p.fd, unix.ETH_P_LOOPBACK, p.ifindex); err == nil {
		err = bindPacket(fd, unix.ETH_P_ALL, p.ifindex)
	}
	if err != nil {
		err = errors.Join(err, ring.unmap(), unix.Close(fd), bindPacket(p.fd, unix.ETH_P_ALL, p.ifindex))
		return fmt.Errorf("resize ring of %s: %w", p.name, err)
	}
	p.Stats() // what the old one has lost
	p.mu.Lock()
	defer p.mu.Unlock()
	oldFD, oldRing := p.fd, p.ring
	p.fd, p.ring, p.empty = fd, ring, false
	return errors.Join(oldRing.unmap(), unix.Close(oldFD))
}

// bindPacket binds a packet socket to a device and an EtherType (host order).
func bindPacket(fd int, proto uint16, ifindex int) error {
	sa := unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8, Ifindex: ifindex}
	if err := unix.Bind(fd, &sa); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// Name implements Port.
func (p *Packet) Name() string { return p.name }

// MAC implements Port.
func (p *Packet) MAC() MAC { return p.mac }

// FD implements Port. Poll it level-triggered: a device that goes down shows as
// EPOLLERR until Recv has reported it.
func (p *Packet) FD() int { return p.fd }

// Recv implements Port. The error wraps ENETDOWN if the device went down, which
// is told once and heals by itself, and ENODEV if it was removed, which is final.
func (p *Packet) Recv(batch []Frame) (int, error) {
	if n := p.ring.take(batch); n > 0 || len(batch) == 0 || p.ring.more {
		p.empty = false
		return n, p.metError()
	}
	// Woken for nothing twice may be an error on the socket. Asking is a
	// system call, so not after every batch.
	if !p.empty {
		p.empty = true
		return 0, nil
	}
	return 0, p.pendingError()
}

// pendingError takes the error that waits on the socket, if any.
func (p *Packet) pendingError() error {
	errno, err := unix.GetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("receive on %s: %w", p.name, err)
	}
	if errno == 0 {
		return nil
	}
	return p.socketError(unix.Errno(errno))
}

// metError returns the error that reading a long frame has met instead, if any.
func (p *Packet) metError() error {
	if p.ring.long == nil || p.ring.long.err == 0 {
		return nil
	}
	errno := p.ring.long.err
	p.ring.long.err = 0
	return p.socketError(errno)
}

func (p *Packet) socketError(err error) error {
	// The kernel unbinds the socket of a device that is no more.
	sa, saErr := unix.Getsockname(p.fd)
	if ll, ok := sa.(*unix.SockaddrLinklayer); saErr == nil && ok && ll.Ifindex != p.ifindex {
		err = unix.ENODEV
	}
	return fmt.Errorf("receive on %s: %w", p.name, err)
}

// Release implements Port.
func (p *Packet) Release() { p.ring.release(p.ring.held) }

// ReleaseOldest implements Keeper.
func (p *Packet) ReleaseOldest(n int) { p.ring.release(n) }

// More implements Leaver.
func (p *Packet) More() bool { return p.ring.more }

// Stats implements Port.
func (p *Packet) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		// Reading resets the kernel's counters.
		if s, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			p.dropped += uint64(s.Drops)
		}
	}
	return Stats{RxDropped: p.dropped}
}

// Close implements Port. The host's stack sees the device's frames again.
func (p *Packet) Close() error {
	p.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	errs := []error{p.ring.unmap()}
	if p.fd >= 0 {
		errs = append(errs, unix.Close(p.fd))
		p.fd = -1
	}
	errs = append(errs, p.silence.set(p.ifindex, false))
	if p.drop != nil {
		errs = append(errs, p.drop.detach())
	}
	if p.netlink != nil {
		p.netlink.Close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close packet port %s: %w", p.name, err)
	}
	return nil
}
