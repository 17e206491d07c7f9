package port

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// longFrames are those that no slot of a receive ring holds. The kernel puts their
// beginning into the slot, says so (TP_STATUS_COPY), and keeps the frame itself
// in the socket's queue, as it is: not copied until we read it, in the ring's order.
//
// So slots are small and many, and superframes are read into few buffers, those used last
// first, which are still in the cache when they are sent on. In slots of 64 KiB they went
// through 34 MB in turn.
type longFrames struct {
	fd    int
	free  [][]byte // the last is taken next
	out   [longBuffers][]byte
	first int // in out: the oldest
	count int // in out

	msgs [longReads]unix.Mmsghdr
	iovs [longReads]unix.Iovec
	of   [longReads]*Frame // whose they are
	used int               // of those, in this Recv
	err  unix.Errno        // of the socket, met when reading
}

const (
	// longBuffers is how many may be out.
	longBuffers = 64
	// longReads is how many a Recv reads: what is short behind them waits so long.
	longReads = 8
	// longFront is where a frame begins in its buffer, on a cache line.
	longFront = (Headroom + VNetHdrLen + 63) &^ 63
	// longWaiting is how many octets of them wait at most, half of what is
	// asked for (the kernel doubles it): memory of the sender's, which is not copied.
	longWaiting = 16 << 20
)

// openLong has the kernel keep the long frames of a socket.
func openLong(fd int) (*longFrames, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1); err != nil {
		return nil, fmt.Errorf("set PACKET_COPY_THRESH: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, longWaiting); err != nil {
		return nil, fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	l := &longFrames{fd: fd, free: make([][]byte, longBuffers)}
	for i := range l.msgs {
		l.msgs[i].Hdr.Iov = &l.iovs[i]
		l.msgs[i].Hdr.SetIovlen(1)
	}
	return l, nil
}

// add has read read one more frame, whose beginning f describes. It reports false if
// the frame has to wait for the next Recv.
func (l *longFrames) add(f *Frame) bool {
	if l.used == longReads || len(l.free) == 0 {
		return false
	}
	buf := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	if buf == nil {
		buf = make([]byte, longFront+MaxFrame+64)
	}
	l.out[(l.first+l.count)%longBuffers] = buf
	l.count++
	l.of[l.used] = f
	l.iovs[l.used].Base = &buf[longFront-VNetHdrLen]
	l.iovs[l.used].SetLen(VNetHdrLen + MaxFrame)
	f.Buf = buf
	l.used++
	return true
}

// read reads the frames that were added.
func (l *longFrames) read() {
	done := 0
	for tries := 0; done < l.used && tries < 4; {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&l.msgs[done])),
			uintptr(l.used-done), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			done += int(n)
			continue
		}
		if errno != unix.EINTR { // ENETDOWN stands before what waits
			l.err = errno
		}
		tries++
	}
	for i, f := range l.of[:l.used] {
		whole := f.End // what the ring said
		f.Start, f.End = longFront, longFront
		if i < done {
			f.End += int(l.msgs[i].Len) - VNetHdrLen
		}
		f.Truncated = f.End-f.Start != whole
		f.VNet = DecodeVNetHdr(f.Buf[longFront-VNetHdrLen:])
		l.of[i] = nil
	}
	l.used = 0
}

// giveBack takes the oldest buffer back.
func (l *longFrames) giveBack() {
	l.free = append(l.free, l.out[l.first])
	l.first = (l.first + 1) % longBuffers
	l.count--
}
