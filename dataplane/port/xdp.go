package port

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// XDPConfig describes an xdp port.
type XDPConfig struct {
	// Device is the link in the caller's network namespace. Its driver must
	// have XDP; the caller sets it up.
	Device string
}

// XDP is a port on a Linux network device by AF_XDP, for small frames: an XDP
// program hands all that the device receives to our sockets, one for each of
// its queues, before the kernel has made more of it than octets. All tags are
// inline.
//
// It receives no superframes: the kernel makes a veth's far end cut them, and a
// NIC must not join any. It sends them as a packet port does, by sockets of
// AF_PACKET, and small frames through the ring of its first queue.
type XDP struct {
	name    string
	mac     MAC
	ifindex int
	mode    string
	// open says that the far end's stack may leave checksums to us; see
	// openChecksum.
	open bool

	queues []*xskQueue
	next   int // the queue that Recv asks first
	epoll  int // of the queues' sockets, if there are several; else -1
	sender *xskSender

	program  *ebpf.Program
	sockets  *ebpf.Map // by queue
	attached link.Link // goes with its descriptor, and so with this process

	mu      sync.Mutex // guards the sockets against Close during Stats, and:
	silence link.Link  // nil: the host may send
	others  others
	dropped uint64
	closed  bool
}

// maxQueues bounds the queues of a device, which cost 4 MiB each.
const maxQueues = 64

// OpenXDP opens an xdp port. It needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and
// CAP_IPC_LOCK. The device may be down: frames come once it is up.
func OpenXDP(cfg XDPConfig) (*XDP, error) {
	p := &XDP{name: cfg.Device, epoll: -1}
	if err := p.openDevice(cfg.Device); err != nil {
		return nil, errors.Join(fmt.Errorf("open xdp port %s: %w", cfg.Device, err), p.Close())
	}
	return p, nil
}

func (p *XDP) openDevice(device string) (err error) {
	dev, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	attrs := dev.Attrs()
	if attrs.EncapType != "ether" || len(attrs.HardwareAddr) != len(p.mac) {
		return fmt.Errorf("device is %q, not an Ethernet", attrs.EncapType)
	}
	queues := max(attrs.NumRxQueues, 1)
	p.ifindex, p.mac = attrs.Index, MAC(attrs.HardwareAddr)
	p.open = dev.Type() == "veth" || dev.Type() == "tuntap"
	if err := p.openQueues(queues, attrs.MTU); err != nil {
		return err
	}
	p.sockets, err = ebpf.NewMap(&ebpf.MapSpec{Name: "msee_sockets", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4,
		MaxEntries: uint32(len(p.queues))})
	if err != nil {
		return fmt.Errorf("make map of sockets: %w", err)
	}
	for i, q := range p.queues {
		if err := p.sockets.Put(uint32(i), uint32(q.fd)); err != nil {
			return fmt.Errorf("put socket of queue %d: %w", i, err)
		}
	}
	return p.attach()
}

// openQueues opens a socket for each of the device's queues, of which no more
// than most may be in use.
func (p *XDP) openQueues(most, mtu int) error {
	var mode xskMode
	for i := range min(most, maxQueues) {
		q, m, err := openQueue(p.ifindex, i, mtu)
		if errors.Is(err, unix.EINVAL) && i > 0 { // not in use
			break
		}
		if err != nil {
			return err
		}
		p.queues, mode = append(p.queues, q), m
	}
	p.mode = mode.String()
	var err error
	if p.sender, err = openXSKSender(p.ifindex, 0, p.queues[0], mode.zeroCopy); err != nil || len(p.queues) == 1 {
		return err
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	for _, q := range p.queues {
		ev := unix.EpollEvent{Events: unix.EPOLLIN}
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, q.fd, &ev); err != nil {
			return fmt.Errorf("watch socket: %w", err)
		}
	}
	return nil
}

// LookForQueues is as Packet's.
func (p *XDP) LookForQueues() error { return p.others.look(p.ifindex) }

// SilenceHost keeps the host, and whoever sends through its queueing discipline,
// from sending on the device, or lets them again. What our senders send one by
// one passes, superframes that the device cannot cut do not. It needs Linux 6.6.
func (p *XDP) SilenceHost(on bool) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || on == (p.silence != nil):
		return nil
	case on:
		p.others.silent.Store(true)
		err = inNamespaceOf(p.queues[0].fd, func() (err error) {
			p.silence, err = attachSilence(p.ifindex)
			return err
		})
	default:
		err = p.silence.Close()
		p.silence = nil
		p.others.silent.Store(false)
	}
	if err != nil {
		return fmt.Errorf("silence the host on %s: %w", p.name, err)
	}
	return nil
}

// Name implements Port.
func (p *XDP) Name() string { return p.name }

// MAC implements Port.
func (p *XDP) MAC() MAC { return p.mac }

// Mode says how frames get from the driver to us: "copy", "zero-copy".
func (p *XDP) Mode() string { return p.mode }

// FD implements Port.
func (p *XDP) FD() int {
	if p.epoll >= 0 {
		return p.epoll
	}
	return p.queues[0].fd
}

// Recv implements Port.
func (p *XDP) Recv(batch []Frame) (n int, err error) {
	for range p.queues {
		n += p.queues[p.next].take(batch[n:])
		if p.next++; p.next == len(p.queues) {
			p.next = 0
		}
	}
	if p.open {
		for i := range batch[:n] {
			batch[i].VNet = openChecksum(batch[i].Bytes())
		}
	}
	return n, nil
}

// More implements Leaver.
func (p *XDP) More() bool {
	return slices.ContainsFunc(p.queues, func(q *xskQueue) bool { return q.more })
}

// Release implements Port.
func (p *XDP) Release() {
	for _, q := range p.queues {
		q.release()
	}
}

// NewSender implements Port. The sender ends with the port. The caller may be
// in any network namespace; it needs CAP_SYS_ADMIN to enter the port's.
func (p *XDP) NewSender() (Sender, error) {
	var s *packetSender
	err := inNamespaceOf(p.queues[0].fd, func() (err error) {
		s, err = newPacketSender(p.name, p.ifindex, &p.others)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sender on %s: %w", p.name, err)
	}
	s.xsk = p.sender
	return s, nil
}

// Stats implements Port.
func (p *XDP) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.dropped = 0
		for _, q := range p.queues {
			p.dropped += q.drops()
		}
	}
	return Stats{RxDropped: p.dropped}
}

// Close implements Port. The host's stack sees the device's frames again.
func (p *XDP) Close() error {
	p.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for _, l := range []link.Link{p.attached, p.silence} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	if p.sender != nil {
		errs = append(errs, p.sender.close())
	}
	for _, q := range p.queues {
		errs = append(errs, q.close())
	}
	if p.sockets != nil {
		errs = append(errs, p.sockets.Close())
	}
	if p.program != nil {
		errs = append(errs, p.program.Close())
	}
	if p.epoll >= 0 {
		errs = append(errs, unix.Close(p.epoll))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close xdp port %s: %w", p.name, err)
	}
	return nil
}
