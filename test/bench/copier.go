package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The copier is the bound of what a userspace router can do by AF_PACKET: it has
// nothing but what the mechanism forces on everybody, a copy in and a copy out.
// The kernel copies a frame into a ring, we set its addresses and TTL, and the
// kernel copies it out again. There is no lookup, no tag, no check, no counter,
// one thread, and the wait that was best of those tried.
//
// It is this command again, in the router's namespace:
//
//	bench copier DEVICE=MAC DEVICE=MAC
//
// with the address of the station beyond each device.

// copierCommand is the first argument that has main run the copier.
const copierCommand = "copier"

const (
	copierVNet  = 10                                        // octets of the virtio-net header
	copierSlots = 512                                       // of the ring
	copierFront = 256                                       // where a frame begins in its slot
	copierSlot  = (copierFront + 65535 + 22 + 63) &^ 63     // octets
	copierBlock = 2 << 20                                   // contiguous memory
	copierPer   = copierBlock / copierSlot                  // slots in it
	copierRing  = (copierSlots + copierPer - 1) / copierPer // blocks
	copierBatch = 256
)

// copierPort is one of its two devices.
type copierPort struct {
	mac, beyond [6]byte
	rx, tx      int
	slots       []*unix.Tpacket2Hdr
	next        int
}

// copier is the command.
func copier(args []string) error {
	if len(args) != 2 {
		return flag.ErrHelp
	}
	runtime.LockOSThread()
	var ports [2]*copierPort
	for i, arg := range args {
		var err error
		if ports[i], err = openCopierPort(arg); err != nil {
			return fmt.Errorf("open %s: %w", arg, err)
		}
	}
	epoll, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, p.rx, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			return err
		}
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	var out copierOut
	for i := range out.messages {
		out.messages[i].Hdr.Iov = &out.pieces[i]
		out.messages[i].Hdr.SetIovlen(1)
	}
	var events [2]unix.EpollEvent
	for {
		if out.copy(ports[0], ports[1])+out.copy(ports[1], ports[0]) > 0 || out.look(ports) {
			continue
		}
		if _, err := unix.EpollWait(epoll, events[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openCopierPort opens DEVICE=MAC.
func openCopierPort(arg string) (*copierPort, error) {
	name, station, _ := strings.Cut(arg, "=")
	beyond, err := net.ParseMAC(station)
	if err != nil {
		return nil, err
	}
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	p := &copierPort{mac: [6]byte(dev.HardwareAddr), beyond: [6]byte(beyond)}
	var set []error
	open := func() int {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, 0)
		set = append(set, err, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
		return fd
	}
	p.rx, p.tx = open(), open()
	req := unix.TpacketReq{Block_size: copierBlock, Block_nr: copierRing, Frame_size: copierSlot, Frame_nr: copierRing * copierPer}
	set = append(set,
		unix.SetsockoptInt(p.tx, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(p.tx, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		unix.Bind(p.tx, &unix.SockaddrLinklayer{Ifindex: dev.Index}),
		unix.SetsockoptInt(p.rx, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
		// Without reserve a frame begins at TPACKET_ALIGN(TPACKET2_HDRLEN + 16),
		// and the virtio-net header pushes it on.
		unix.SetsockoptInt(p.rx, unix.SOL_PACKET, unix.PACKET_RESERVE, copierFront-(80+copierVNet-14)),
		unix.SetsockoptInt(p.rx, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTpacketReq(p.rx, unix.SOL_PACKET, unix.PACKET_RX_RING, &req))
	if err := errors.Join(set...); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(p.rx, 0, copierRing*copierBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	for i := range copierRing * copierPer {
		p.slots = append(p.slots, (*unix.Tpacket2Hdr)(unsafe.Pointer(&mem[i/copierPer*copierBlock+i%copierPer*copierSlot])))
	}
	all := uint16(unix.ETH_P_ALL)
	return p, unix.Bind(p.rx, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: dev.Index})
}

// copierOut is a batch on its way out, for sendmmsg.
type copierOut struct {
	messages [copierBatch]unix.Mmsghdr
	pieces   [copierBatch]unix.Iovec
}

// The copier looks so often again, after a rest each, before it sleeps.
const (
	copierLooks = 2
	copierRest  = 50 * time.Microsecond
)

// look reports whether frames came.
func (o *copierOut) look(ports [2]*copierPort) bool {
	for range copierLooks {
		ts := unix.NsecToTimespec(int64(copierRest))
		unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if o.copy(ports[0], ports[1])+o.copy(ports[1], ports[0]) > 0 {
			return true
		}
	}
	return false
}

// copy sends what waits at one port out of the other, and returns how many
// frames that were.
func (o *copierOut) copy(from, to *copierPort) (n int) {
	for ; n < copierBatch; n++ {
		h := from.slots[(from.next+n)%len(from.slots)]
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			break
		}
		slot := unsafe.Slice((*byte)(unsafe.Pointer(h)), copierSlot)
		end := int(h.Mac) + int(h.Snaplen)
		to.address(slot[int(h.Mac)-copierVNet : end])
		o.pieces[n].Base = &slot[int(h.Mac)-copierVNet]
		o.pieces[n].SetLen(copierVNet + int(h.Snaplen))
	}
	for at := 0; at < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(to.tx), uintptr(unsafe.Pointer(&o.messages[at])),
			uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			sent = 1 // this one is lost
		}
		at += int(sent)
	}
	for range n {
		atomic.StoreUint32(&from.slots[from.next].Status, unix.TP_STATUS_KERNEL)
		from.next = (from.next + 1) % len(from.slots)
	}
	return n
}

// address sets what a frame, its virtio-net header in front, has to have to be
// taken by the station beyond p.
func (p *copierPort) address(b []byte) {
	f := b[copierVNet:]
	if len(f) < 14 {
		return
	}
	copy(f, p.beyond[:])
	copy(f[6:], p.mac[:])
	b[0] &= 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	if b[1] == 0 {
		clear(b[2:6]) // hdr_len and gso_size
	} else if l4 := int(binary.NativeEndian.Uint16(b[6:])); l4+13 <= len(f) {
		binary.NativeEndian.PutUint16(b[2:], uint16(l4+int(f[l4+12]>>4)*4))
	}
	if f[12] == 8 && f[13] == 0 && len(f) >= 14+20 {
		f[14+8]-- // TTL, and its checksum (RFC 1624)
		sum := uint32(binary.BigEndian.Uint16(f[14+10:])) + 0x100
		binary.BigEndian.PutUint16(f[14+10:], uint16(sum+sum>>16))
	}
}
