package port

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// txRing is a TPACKET_V2 transmit ring for small frames: one system call sends
// all that were put into it, at two thirds of what a message each costs in
// sendmmsg.
//
// The kernel sends the pages of a slot themselves, and gives a slot back when
// the device lets go of its frame, which a virtual one does at once: the frame
// is still on its way then. So we have the kernel copy: it copies as much of a
// frame as its virtio-net header calls headers, which here is all.
type txRing struct {
	fd   int
	mem  []byte
	next int // the slot that is filled next; the kernel has sent those before it
	used int // slots from next on that are filled
}

const (
	// txSlot holds a frame of a usual MTU with tags. Beyond that copying twice
	// costs more than the call.
	txSlot = 2048
	// txSlots is a batch, and what a device that sends later may still hold.
	txSlots = 2 * BatchSize
	// txHeaderOff is where the virtio-net header stands in its slot:
	// TPACKET2_HDRLEN less the sockaddr_ll, as tpacket_snd reads it.
	txHeaderOff = 32
	// txFrameMax is the longest frame that a slot takes.
	txFrameMax = txSlot - txHeaderOff - VNetHdrLen
)

// openTxRing opens a ring on a device.
func openTxRing(ifindex int) (_ *txRing, err error) {
	r := &txRing{fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open transmit ring: %w", err), r.close())
		}
	}()
	if r.fd, err = openSendSocket(true); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, fmt.Errorf("set PACKET_VERSION: %w", err)
	}
	// The kernel passes over a frame that it finds malformed, and so one that
	// we want it to: see flush.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_LOSS, 1); err != nil {
		return nil, fmt.Errorf("set PACKET_LOSS: %w", err)
	}
	const block = 64 << 10
	req := unix.TpacketReq{Block_size: block, Block_nr: txSlots * txSlot / block, Frame_size: txSlot, Frame_nr: txSlots}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
		return nil, fmt.Errorf("set PACKET_TX_RING: %w", err)
	}
	if r.mem, err = unix.Mmap(r.fd, 0, txSlots*txSlot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	return r, bindPacket(r.fd, 0, ifindex)
}

// takes reports whether a frame may go this way.
func (r *txRing) takes(f *Frame) bool {
	return f.VNet.GSOType == GSONone && f.Len() <= txFrameMax
}

func (r *txRing) slot(i int) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[i%txSlots*txSlot]))
}

// put fills a slot, and reports whether there was one: a device that sends
// later may have all.
func (r *txRing) put(f *Frame) bool {
	if r.used == txSlots {
		return false
	}
	h := r.slot(r.next + r.used)
	if atomic.LoadUint32(&h.Status) != unix.TP_STATUS_AVAILABLE {
		return false
	}
	at := (r.next + r.used) % txSlots * txSlot
	b := r.mem[at+txHeaderOff : at+txSlot]
	vnet := f.VNet
	vnet.Flags &= VNetNeedsCsum
	vnet.HdrLen, vnet.GSOSize = uint16(f.Len()), 0
	vnet.Encode(b)
	h.Len = uint32(VNetHdrLen + copy(b[VNetHdrLen:], f.Bytes()))
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_SEND_REQUEST) // releases what we wrote before it
	r.used++
	return true
}

// send sends frames that it takes, in order, and returns how many left. errno
// is the first that kept one from leaving; more says whether it makes sense to
// go on with others.
func (r *txRing) send(frames []*Frame) (sent int, more bool, errno unix.Errno) {
	for len(frames) > 0 {
		n := 0
		for n < len(frames) && r.put(frames[n]) {
			n++
		}
		if n == 0 {
			return sent, false, unix.EAGAIN
		}
		left, more, e := r.flush()
		sent += left
		if errno == 0 {
			errno = e
		}
		if !more {
			return sent, false, errno
		}
		frames = frames[n:]
	}
	return sent, true, errno
}

// flush sends what was put.
func (r *txRing) flush() (sent int, more bool, errno unix.Errno) {
	refused := 0 // frames among those to be passed over next
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(r.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		n := r.taken()
		if n > 0 {
			sent += n - refused
			refused = 0
		}
		if r.used == 0 {
			return sent, true, errno
		}
		if errno == 0 {
			errno = e
		}
		switch {
		case (e == 0 || e == unix.EINTR) && n > 0:
		case e == unix.ENOBUFS && refused == 0:
			// The device's queue has no room for this one. The kernel looks
			// at the slots in turn, and would wait at one that it finds
			// empty; one with a length that cannot be it passes over.
			r.slot(r.next).Len = txSlot
			refused = 1
		default: // EAGAIN: the socket buffer is full; or the device is down
			r.drop()
			return sent, false, errno
		}
	}
}

// taken moves next past the frames that the kernel has taken.
func (r *txRing) taken() (n int) {
	for r.used > 0 && atomic.LoadUint32(&r.slot(r.next).Status)&unix.TP_STATUS_SEND_REQUEST == 0 {
		n++
		r.used--
		if r.next++; r.next == txSlots {
			r.next = 0
		}
	}
	return n
}

// drop takes back all that the kernel has not taken.
func (r *txRing) drop() {
	for ; r.used > 0; r.used-- {
		atomic.StoreUint32(&r.slot(r.next+r.used-1).Status, unix.TP_STATUS_AVAILABLE)
	}
}

func (r *txRing) close() error {
	var errs []error
	if r.mem != nil {
		errs = append(errs, unix.Munmap(r.mem))
		r.mem = nil
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
		r.fd = -1
	}
	return errors.Join(errs...)
}
