package port

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// xskSender sends small frames through the ring of a queue. The ring is the
// port's: workers take turns, as on the device itself, whose queue it is.
type xskSender struct {
	mu       sync.Mutex
	q        *xskQueue
	zeroCopy bool
	free     []uint64 // chunks that are not with the kernel
}

func (s *xskSender) init(q *xskQueue, zeroCopy bool) {
	s.q, s.zeroCopy = q, zeroCopy
	s.free = make([]uint64, 0, txChunks)
	for i := range uint64(txChunks) {
		s.free = append(s.free, (rxChunks+txChunks-1-i)*chunk)
	}
}

// close is before the queue's: a sender that lives on sends nothing.
func (s *xskSender) close() {
	s.mu.Lock()
	s.q = nil
	s.mu.Unlock()
}

// takes reports whether a frame may go this way: the kernel sends it as it is.
func (s *xskSender) takes(f *Frame) bool {
	return f.VNet.GSOType == GSONone && f.VNet.Flags&VNetNeedsCsum == 0 && f.Len() <= chunk
}

// send sends frames that it takes, in order, and returns how many left. errno
// is the first that kept one from leaving; more says whether it makes sense to
// go on with others.
func (s *xskSender) send(frames []*Frame) (sent int, more bool, errno unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
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
	at := atomic.LoadUint32(s.q.tx.producer)
	for i, f := range frames[:n] {
		addr := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		copy(s.q.mem[addr:addr+chunk], f.Bytes())
		s.q.tx.entries[(at+uint32(i))&s.q.tx.mask] = unix.XDPDesc{Addr: addr, Len: uint32(f.Len())}
	}
	atomic.StoreUint32(s.q.tx.producer, at+uint32(n)) // releases what we wrote before it
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
	for s.q.tx.needsWakeup() {
		before := atomic.LoadUint32(s.q.tx.consumer)
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		after := atomic.LoadUint32(s.q.tx.consumer)
		if e == unix.EBUSY && after != before { // its queue had no room for this one
			lost++
		}
		left := int(atomic.LoadUint32(s.q.tx.producer) - after)
		if s.zeroCopy && e == 0 || left == 0 {
			break
		}
		if e != unix.EINTR && after == before { // otherwise: the kernel sends so many in a call
			return lost + left, e
		}
	}
	return lost, 0
}
