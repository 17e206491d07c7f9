package port

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// PairOptions describes an in-memory cable. The zero value is usable.
type PairOptions struct {
	// Names of the ends, "pair-a" and "pair-b" if empty.
	Names [2]string
	// MACs of the ends, 02:00:00:00:00:0a and …:0b if zero.
	MACs [2]MAC
	// Slots is how many frames may wait in each direction; 0 means BatchSize.
	Slots int
	// MaxFrame is the longest frame that fits, in octets; 0 means the constant
	// MaxFrame. A small one keeps the slots on few pages.
	MaxFrame int
}

// NewPair returns the ends of a cable: what is sent on one is received on the
// other, copied; it is dropped if too many frames wait. The ends may belong to
// different goroutines. FD polls; it is -1 if the process is out of descriptors.
func NewPair(o PairOptions) (a, b Port) { return newPair(o, true) }

// NewPollPair is NewPair without descriptors: FD is -1 and nothing makes a
// system call.
func NewPollPair(o PairOptions) (a, b Port) { return newPair(o, false) }

func newPair(o PairOptions, wake bool) (a, b Port) {
	ends := [2]*pairEnd{
		{name: o.Names[0], mac: o.MACs[0], rx: newPairQueue(o, wake)},
		{name: o.Names[1], mac: o.MACs[1], rx: newPairQueue(o, wake)},
	}
	for i, e := range ends {
		e.tx = ends[1-i].rx
		if e.name == "" {
			e.name = "pair-" + string(rune('a'+i))
		}
		if e.mac == (MAC{}) {
			e.mac = MAC{0: 2, 5: 0xa + byte(i)}
		}
		e.closedErr = fmt.Errorf("send on %s: far end: %w", e.name, io.ErrClosedPipe)
		e.tooLong = fmt.Errorf("send on %s: %w", e.name, unix.EMSGSIZE)
	}
	return ends[0], ends[1]
}

// pairEnd is one end of a cable.
type pairEnd struct {
	name               string
	mac                MAC
	rx, tx             *pairQueue
	closedErr, tooLong error // made once: Send allocates nothing
}

// pairQueue is one direction of a cable: a ring of slots. The lock is taken
// once per batch.
type pairQueue struct {
	mu      sync.Mutex
	slots   []Frame // a frame in each, from pairFrameOff on
	longest int     // frame that fits, octets
	head    int     // the oldest frame
	len     int     // frames that wait or are held
	held    int     // frames that Recv gave out, from head on
	wake    int     // eventfd, -1 if none
	woken   bool
	count   [8]byte // what is read from and written to wake
	closed  bool
	dropped uint64
}

// slot returns the i-th from the oldest frame on.
func (q *pairQueue) slot(i int) *Frame {
	if i += q.head; i >= len(q.slots) {
		i -= len(q.slots)
	}
	return &q.slots[i]
}

// pairFrameOff is where a frame begins in its slot, on a cache line.
const pairFrameOff = (Headroom + VNetHdrLen + 63) &^ 63

func newPairQueue(o PairOptions, wake bool) *pairQueue {
	slots, longest := o.Slots, o.MaxFrame
	if slots <= 0 {
		slots = BatchSize
	}
	if longest <= 0 {
		longest = MaxFrame
	}
	// An odd number of cache lines, so that the slots' beginnings do not all
	// compete for the same few places in the cache.
	stride := (pairFrameOff+longest+63)&^63 | 64
	q := &pairQueue{slots: make([]Frame, slots), longest: longest, wake: -1}
	mem := make([]byte, slots*stride) // untouched pages cost nothing
	for i := range q.slots {
		q.slots[i] = Frame{Buf: mem[i*stride : (i+1)*stride : (i+1)*stride], Start: pairFrameOff}
	}
	if wake {
		if fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
			q.wake = fd
		}
	}
	return q
}

// put appends copies of frames. It returns how many there was room for, and
// whether one was too long.
func (q *pairQueue) put(frames []*Frame) (sent int, tooLong, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, false, true
	}
	for i, f := range frames {
		if q.len == len(q.slots) {
			q.dropped += uint64(len(frames) - i)
			break
		}
		if f.Len() > q.longest {
			tooLong = true
			continue
		}
		s := q.slot(q.len)
		s.End = pairFrameOff + copy(s.Buf[pairFrameOff:], f.Bytes())
		s.VNet = f.VNet
		q.len++
		sent++
	}
	if sent > 0 && !q.woken && q.wake >= 0 {
		q.woken = true
		q.signal()
	}
	return sent, tooLong, false
}

// take fills batch with the oldest frames.
func (q *pairQueue) take(batch []Frame) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(batch), q.len)
	for i := range n {
		batch[i] = *q.slot(i)
	}
	q.held = n
	if n == 0 && q.woken {
		q.woken = false
		q.unsignal()
	}
	return n
}

func (q *pairQueue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.head = (q.head + q.held) % len(q.slots)
	q.len -= q.held
	q.held = 0
}

// signal makes the eventfd readable. It cannot block or fail: the counter goes
// no higher than 1.
func (q *pairQueue) signal() {
	binary.NativeEndian.PutUint64(q.count[:], 1)
	unix.Write(q.wake, q.count[:])
}

// unsignal makes the eventfd unreadable.
func (q *pairQueue) unsignal() { unix.Read(q.wake, q.count[:]) }

func (q *pairQueue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	if q.wake < 0 {
		return nil
	}
	fd := q.wake
	q.wake = -1
	return unix.Close(fd)
}

// Name implements Port.
func (e *pairEnd) Name() string { return e.name }

// MAC implements Port.
func (e *pairEnd) MAC() MAC { return e.mac }

// FD implements Port.
func (e *pairEnd) FD() int { return e.rx.wake }

// Recv implements Port.
func (e *pairEnd) Recv(batch []Frame) (int, error) { return e.rx.take(batch), nil }

// Release implements Port.
func (e *pairEnd) Release() { e.rx.release() }

// NewSender implements Port.
func (e *pairEnd) NewSender() (Sender, error) { return pairSender{e}, nil }

// Stats implements Port. The senders count the same drops.
func (e *pairEnd) Stats() Stats {
	e.rx.mu.Lock()
	defer e.rx.mu.Unlock()
	return Stats{RxDropped: e.rx.dropped}
}

// Close implements Port. The far end's senders fail from now on.
func (e *pairEnd) Close() error {
	if err := e.rx.close(); err != nil {
		return fmt.Errorf("close pair port %s: %w", e.name, err)
	}
	return nil
}

type pairSender struct{ end *pairEnd }

// Send implements Sender.
func (s pairSender) Send(frames []*Frame) (sent int, err error) {
	sent, tooLong, closed := s.end.tx.put(frames)
	switch {
	case closed:
		err = s.end.closedErr
	case tooLong:
		err = s.end.tooLong
	}
	return sent, err
}

// Close implements Sender.
func (s pairSender) Close() error { return nil }
