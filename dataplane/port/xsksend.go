package port

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// xskSender sends small frames through the ring of a queue. The ring is the
// port's: workers take turns, as on the device itself, whose queue it is.
//
// It has a socket of its own, which nobody watches: with each frame that has
// left, the kernel wakes those who watch its socket, a tenth of the work.
type xskSender struct {
	mu       sync.Mutex
	q        *xskQueue // whose memory it shares
	fd       int
	tx       xskRing[unix.XDPDesc]
	zeroCopy bool
	free     []uint64 // chunks that are not with the kernel
}

func openXSKSender(ifindex, queue int, q *xskQueue, zeroCopy bool) (_ *xskSender, err error) {
	s := &xskSender{q: q, fd: -1, zeroCopy: zeroCopy, free: make([]uint64, 0, txChunks)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open AF_XDP socket to send: %w", err), s.close())
		}
	}()
	for i := range uint64(txChunks) {
		s.free = append(s.free, (rxChunks+txChunks-1-i)*chunk)
	}
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if err := s.tx.open(s.fd, unix.XDP_TX_RING, txChunks); err != nil {
		return nil, err
	}
	// A batch in one call, where the kernel allows more than 32 frames (6.17).
	_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, BatchSize)
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		return nil, fmt.Errorf("set SO_SNDBUFFORCE: %w", err)
	}
	return s, unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(ifindex),
		QueueID: uint32(queue), SharedUmemFD: uint32(q.fd)})
}

// close is before the queue's. A worker may still call send, in vain.
func (s *xskSender) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
		s.fd = -1
	}
	if s.tx.mem != nil {
		errs = append(errs, unix.Munmap(s.tx.mem))
		s.tx.mem = nil
	}
	return errors.Join(errs...)
}

// finishMax is the longest frame whose open checksum is worth finishing here:
// both we and the far end have to go through it then.
const finishMax = 256

// takes reports whether a frame may go this way: the kernel sends it as it is.
func (s *xskSender) takes(f *Frame) bool {
	if f.VNet.Flags&VNetNeedsCsum != 0 {
		return f.VNet.GSOType == GSONone && f.Len() <= finishMax && f.VNet.canFinish(f.Len())
	}
	return f.VNet.GSOType == GSONone && f.Len() <= chunk
}

// send sends frames that it takes, in order, and returns how many left. errno
// is the first that kept one from leaving; more says whether it makes sense to
// go on with others.
func (s *xskSender) send(frames []*Frame) (sent int, more bool, errno unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return 0, false, unix.EBADF
	}
	for len(frames) > 0 {
		n := s.put(frames)
		if n == 0 {
			return sent, false, unix.EAGAIN
		}
		lost, e := s.kick()
		sent += n - min(lost, n)
		if e != 0 {
			return sent, false, e
		}
		frames = frames[n:]
	}
	return sent, true, 0
}

// put fills entries of the ring, as far as there are chunks.
func (s *xskSender) put(frames []*Frame) int {
	s.reclaim()
	n := min(len(frames), len(s.free))
	at := atomic.LoadUint32(s.tx.producer)
	for i, f := range frames[:n] {
		addr := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		n := copy(s.q.mem[addr:addr+chunk], f.Bytes())
		if f.VNet.Flags&VNetNeedsCsum != 0 {
			finishChecksum(s.q.mem[addr:int(addr)+n], &f.VNet)
		}
		s.tx.entries[(at+uint32(i))&s.tx.mask] = unix.XDPDesc{Addr: addr, Len: uint32(f.Len())}
	}
	atomic.StoreUint32(s.tx.producer, at+uint32(n)) // releases what we wrote before it
	return n
}

// reclaim takes back the chunks that were sent.
func (s *xskSender) reclaim() {
	r := &s.q.complete
	at := atomic.LoadUint32(r.consumer)
	done := min(atomic.LoadUint32(r.producer)-at, uint32(cap(s.free)-len(s.free)))
	for i := range done {
		s.free = append(s.free, r.entries[(at+i)&r.mask]&^(chunk-1))
	}
	atomic.StoreUint32(r.consumer, at+done)
}

// kick has the kernel send what is in the ring, and returns how many did not
// leave. Those that the device does not take now stay in the ring, which cannot
// be told to forget them, and leave with the next.
func (s *xskSender) kick() (lost int, errno unix.Errno) {
	for s.tx.needsWakeup() {
		before := atomic.LoadUint32(s.tx.consumer)
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		after := atomic.LoadUint32(s.tx.consumer)
		if e == unix.EBUSY && after != before { // its queue had no room for this one
			lost++
		}
		left := int(atomic.LoadUint32(s.tx.producer) - after)
		if s.zeroCopy && e == 0 || left == 0 {
			break
		}
		if e != unix.EINTR && after == before { // otherwise: the kernel sends so many in a call
			return lost + left, e
		}
	}
	return lost, 0
}
