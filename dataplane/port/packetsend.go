package port

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendBuffer is a packet sender's socket buffer in octets (the kernel doubles
// it). A frame counts against it until the far stack has taken it, so it must
// hold a burst of superframes: the usual 208 KiB hold three.
const sendBuffer = 8 << 20

// packetSender transmits on one device for one worker.
type packetSender struct {
	name    string
	ifindex int
	// direct bypasses the queueing discipline: each frame goes straight to
	// the driver. queued does not, and is for superframes the driver refuses.
	direct, queued int
	ring           *txRing      // for small frames
	tunnels        *tunnelTap   // for superframes in tunnels; nil before OpenTunnels
	xsk            *xskSender   // for small frames of an xdp port; nil on others
	bursts         *burstSender // for bursts of small frames; nil where there is none
	noBursts       error        // why, if there should be one
	others         *others
	msgs           [BatchSize]unix.Mmsghdr
	iovs           [BatchSize]unix.Iovec
	errno          unix.Errno // of err
	err            error
}

// NewSender implements Port. The caller may be in any network namespace; it
// needs CAP_SYS_ADMIN to enter the port's.
func (p *Packet) NewSender() (Sender, error) {
	var s *packetSender
	p.mu.Lock()
	defer p.mu.Unlock()
	err := inNamespaceOf(p.fd, func() (err error) {
		s, err = newPacketSender(p.name, p.ifindex, &p.others)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sender on %s: %w", p.name, err)
	}
	return s, nil
}

// inNamespaceOf runs fn in the network namespace of a socket, on a thread that
// is not used again.
func inNamespaceOf(socket int, fn func() error) error {
	ns, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("find namespace of socket: %w", err)
	}
	defer unix.Close(ns)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace of socket: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// newPacketSender opens the sockets in the caller's network namespace.
func newPacketSender(name string, ifindex int, others *others) (_ *packetSender, err error) {
	s := &packetSender{name: name, ifindex: ifindex, direct: -1, queued: -1, others: others}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.direct, err = sendSocket(ifindex, true); err != nil {
		return nil, err
	}
	if s.queued, err = sendSocket(ifindex, false); err != nil {
		return nil, err
	}
	if s.ring, err = openTxRing(ifindex); err != nil {
		return nil, err
	}
	if err = others.look(ifindex); err != nil {
		return nil, err
	}
	s.bursts, s.noBursts = openBurst(ifindex) // without it frames leave by the ring
	for i := range s.msgs {
		s.msgs[i].Hdr.Iov = &s.iovs[i]
		s.msgs[i].Hdr.SetIovlen(1)
	}
	return s, nil
}

// sendSocket opens a socket that transmits on one device and, its protocol
// being 0, receives nothing.
func sendSocket(ifindex int, bypass bool) (int, error) {
	fd, err := openSendSocket(bypass)
	if err == nil {
		err = bindPacket(fd, 0, ifindex)
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// openSendSocket opens the socket, on no device yet.
func openSendSocket(bypass bool) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if err == nil && bypass {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set up packet socket: %w", err)
	}
	return fd, nil
}

// Send implements Sender. A frame that the device's queue has no room for, or
// that the kernel refuses, does not keep those behind it from leaving; a full
// socket buffer and a device that is down drop the rest of the batch. Nothing
// is kept for later: a router's queue is short, and TCP copes.
func (s *packetSender) Send(frames []*Frame) (sent int, err error) {
	for len(frames) > 0 {
		way := s.wayOf(frames[0])
		n := 1
		for n < len(frames) && n < BatchSize && s.wayOf(frames[n]) == way {
			n++
		}
		if way == wayBurst {
			if n = min(n, burstSlots); n < burstLeast {
				way = s.singly(frames[0])
			}
		}
		var left int
		var more bool
		var e error
		switch way {
		case wayBurst:
			var errno unix.Errno
			var ok bool
			if left, errno, ok = s.bursts.send(frames[:n], s.others.silent.Load()); !ok {
				e = s.endBursts()
				n, more = 0, true // by the ring then
				break
			}
			left, more, e = s.small(left, errno == 0, errno)
		case wayXSK:
			left, more, e = s.small(s.xsk.send(frames[:n]))
		case wayRing:
			left, more, e = s.small(s.ring.send(frames[:n]))
		case wayTunnel:
			left, more, e = s.small(s.tunnels.send(frames[:n]))
		default:
			left, more, e = s.sendBatch(frames[:n])
		}
		sent += left
		if err == nil {
			err = e
		}
		if !more {
			break
		}
		frames = frames[n:]
	}
	return sent, err
}

// way is how a frame leaves.
type way uint8

const (
	wayMessage way = iota // of its own, in sendmmsg
	wayBurst              // with others, in a BPF program
	wayRing               // AF_PACKET's
	wayXSK                // AF_XDP's ring
	wayTunnel             // a TAP
)

func (s *packetSender) wayOf(f *Frame) way {
	switch {
	case s.TakesTunnelled(f):
		return wayTunnel
	case s.bursts != nil && !s.others.queues.Load() && s.bursts.takes(f):
		return wayBurst
	}
	return s.singly(f)
}

// singly is the way of a frame that is not of a burst.
func (s *packetSender) singly(f *Frame) way {
	switch {
	case s.xsk != nil && s.xsk.takes(f):
		return wayXSK
	case s.ring.takes(f):
		return wayRing
	}
	return wayMessage
}

// endBursts has all frames leave singly from now on.
func (s *packetSender) endBursts() (err error) {
	if s.bursts != nil {
		err = s.bursts.close()
		s.bursts = nil
	}
	return err
}

// WhySingly implements Burster.
func (s *packetSender) WhySingly() error { return s.noBursts }

// OpenTunnels implements Tunneler.
func (s *packetSender) OpenTunnels() error {
	if s.tunnels != nil {
		return nil
	}
	err := inNamespaceOf(s.direct, func() (err error) {
		s.tunnels, err = openTunnelTap(s.ifindex)
		return err
	})
	if err != nil {
		return fmt.Errorf("open tunnels' way out by %s: %w", s.name, err)
	}
	return nil
}

// TakesTunnelled implements Tunneler.
func (s *packetSender) TakesTunnelled(f *Frame) bool { return s.tunnels != nil && takesTunnelled(f) }

// small is how a ring's sending went; more says whether it makes sense to go on
// with others.
func (s *packetSender) small(sent int, more bool, errno unix.Errno) (int, bool, error) {
	switch errno {
	case 0, unix.EINTR, unix.EAGAIN, unix.ENOBUFS: // a full queue is no error
		return sent, more, nil
	}
	return sent, more, s.wrap(errno)
}

// sendBatch sends up to BatchSize frames; more says whether it makes sense to
// go on with others.
func (s *packetSender) sendBatch(frames []*Frame) (sent int, more bool, err error) {
	for i, f := range frames {
		b := f.withHeader()
		s.iovs[i].Base = &b[0]
		s.iovs[i].SetLen(len(b))
	}
	// The pointers must not outlive the call: the ring they point into may be
	// unmapped, and the Go heap grow into its place.
	defer clear(s.iovs[:len(frames)])
	for at := 0; at < len(frames); {
		n, errno := sendmmsg(s.direct, s.msgs[at:len(frames)])
		sent, at = sent+n, at+n
		// A short count says nothing of why: the next call, which begins
		// with the frame refused, does, and is that frame's second chance.
		switch errno {
		case 0, unix.EINTR:
			continue
		case unix.EAGAIN:
			return sent, false, err
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
			if err == nil {
				err = s.wrap(errno)
			}
			return sent, false, err
		case unix.ENOBUFS:
			if frames[at].VNet.GSOType != GSONone {
				sent += s.sendQueued(at)
			}
		default:
			if err == nil {
				err = s.wrap(errno)
			}
		}
		at++
	}
	return sent, true, err
}

// sendQueued sends message at through the queueing layer and returns how many
// (0 or 1) left. The direct path drops a superframe that the device cannot
// segment (offload switched off, or two tags on most NICs) with the same
// ENOBUFS as a full queue; this path segments it.
func (s *packetSender) sendQueued(at int) int {
	n, _ := sendmmsg(s.queued, s.msgs[at:at+1])
	return n
}

// wrap returns errno as an error, the same one for as long as it lasts: a
// device that is down fails every batch.
func (s *packetSender) wrap(errno unix.Errno) error {
	if s.errno != errno {
		s.errno, s.err = errno, fmt.Errorf("send on %s: %w", s.name, errno)
	}
	return s.err
}

// Close implements Sender.
func (s *packetSender) Close() error {
	errs := []error{s.endBursts()}
	if s.ring != nil {
		errs = append(errs, s.ring.close())
		s.ring = nil
	}
	if s.tunnels != nil {
		errs = append(errs, s.tunnels.close())
		s.tunnels = nil
	}
	for _, fd := range []*int{&s.direct, &s.queued} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// sendmmsg sends msgs in order and returns how many left. The call does not
// block, so the scheduler need not know of it: told, it takes the processor
// away from calls of more than 20 µs, which those with superframes are, and its
// watcher never sleeps.
func sendmmsg(fd int, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
