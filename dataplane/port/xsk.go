package port

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// chunk is the piece of memory that one frame gets, or a part of a longer
	// one: behind the headroom there is room for an MTU of 1500 and tags.
	chunk = 2048
	// rxChunks is how many frames of a queue may wait; txChunks how many may be
	// with the device on their way out. Rings have a power of two.
	rxChunks = 2048
	txChunks = 2 * BatchSize
	// xskFront is what the kernel leaves free in front of a received frame.
	xskFront = unix.XDP_PACKET_HEADROOM
	xskFrame = chunk - xskFront // the longest frame or part
	// maxLong bounds the frames in a batch that are of several parts.
	maxLong = 32
)

// xskMode is how a socket is bound.
type xskMode struct {
	zeroCopy bool
	parts    bool // longer frames come in parts (Linux 6.6)
}

func (m xskMode) String() string {
	if m.zeroCopy {
		return "zero-copy"
	}
	return "copy"
}

// xskQueue is an AF_XDP socket on one queue of a device, which receives. It has
// memory of its own: the first rxChunks of it for frames in, the others for
// frames out.
type xskQueue struct {
	fd       int
	mem      []byte
	rx       xskRing[unix.XDPDesc]
	fill     xskRing[uint64] // chunks for the kernel to receive into
	complete xskRing[uint64] // chunks that it has sent

	held    uint32   // entries of rx that the last take gave out
	more    bool     // the last take has left frames that it had room for
	touched byte     // of each frame; see take
	long    [][]byte // buffers for frames of several parts
}

// xskRing is one of the rings that we share with the kernel. One side writes
// entries and moves the producer, the other reads them and moves the consumer;
// both count on without end.
type xskRing[T any] struct {
	mem                []byte
	producer, consumer *uint32
	flags              *uint32
	entries            []T
	mask               uint32
}

// openQueue opens the socket in the best way that there is for frames of mtu
// octets and two tags. The error is EINVAL if the device does not have the
// queue, EBUSY if somebody else has it.
func openQueue(ifindex, queue, mtu int) (q *xskQueue, m xskMode, err error) {
	for deadline := time.Now().Add(letGo); ; time.Sleep(letGo / 100) {
		if q, m, err = tryQueue(ifindex, queue, mtu); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return q, m, err
		}
	}
}

// letGo is how long the kernel may take to let go of a queue whose socket was
// closed.
const letGo = 2 * time.Second

func tryQueue(ifindex, queue, mtu int) (q *xskQueue, m xskMode, err error) {
	fits := mtu+14+8 <= xskFrame
	for _, m = range []xskMode{{true, true}, {true, false}, {false, true}, {false, false}} {
		if !m.parts && !fits {
			continue
		}
		if q, err = openXSK(ifindex, queue, m); err == nil {
			return q, m, nil
		}
		if errors.Is(err, unix.EBUSY) {
			break
		}
	}
	err = fmt.Errorf("open AF_XDP socket on queue %d: %w", queue, err)
	if !fits {
		err = fmt.Errorf("%w (an MTU of more than %d needs Linux 6.6)", err, xskFrame-14-8)
	}
	return nil, m, err
}

func openXSK(ifindex, queue int, m xskMode) (_ *xskQueue, err error) {
	q := &xskQueue{fd: -1}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	if q.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	q.mem, err = unix.Mmap(-1, 0, (rxChunks+txChunks)*chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&q.mem[0]))), Len: uint64(len(q.mem)), Size: chunk}
	if err := setsockopt(q.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return nil, fmt.Errorf("register memory: %w", err)
	}
	if err := q.mapRings(); err != nil {
		return nil, err
	}
	for i := range uint32(rxChunks) {
		q.fill.entries[i] = uint64(i) * chunk
	}
	atomic.StoreUint32(q.fill.producer, rxChunks)
	sa := unix.SockaddrXDP{Flags: unix.XDP_USE_NEED_WAKEUP, Ifindex: uint32(ifindex), QueueID: uint32(queue)}
	if m.zeroCopy {
		sa.Flags |= unix.XDP_ZEROCOPY
	} else {
		sa.Flags |= unix.XDP_COPY
	}
	if m.parts {
		sa.Flags |= unix.XDP_USE_SG
	}
	if err := unix.Bind(q.fd, &sa); err != nil {
		return nil, err
	}
	return q, nil
}

func (q *xskQueue) mapRings() error {
	return errors.Join(
		q.fill.open(q.fd, unix.XDP_UMEM_FILL_RING, rxChunks),
		q.complete.open(q.fd, unix.XDP_UMEM_COMPLETION_RING, txChunks),
		q.rx.open(q.fd, unix.XDP_RX_RING, rxChunks))
}

// open makes and maps the ring of a socket that an option names.
func (r *xskRing[T]) open(fd, option, entries int) (err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, option, entries); err != nil {
		return fmt.Errorf("set size of ring %d: %w", option, err)
	}
	var offsets unix.XDPMmapOffsets
	if err := getsockopt(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&offsets), unsafe.Sizeof(offsets)); err != nil {
		return fmt.Errorf("get XDP_MMAP_OFFSETS: %w", err)
	}
	var at int64
	var off unix.XDPRingOffset
	switch option {
	case unix.XDP_RX_RING:
		at, off = unix.XDP_PGOFF_RX_RING, offsets.Rx
	case unix.XDP_TX_RING:
		at, off = unix.XDP_PGOFF_TX_RING, offsets.Tx
	case unix.XDP_UMEM_FILL_RING:
		at, off = unix.XDP_UMEM_PGOFF_FILL_RING, offsets.Fr
	case unix.XDP_UMEM_COMPLETION_RING:
		at, off = unix.XDP_UMEM_PGOFF_COMPLETION_RING, offsets.Cr
	}
	var entry T
	r.mem, err = unix.Mmap(fd, at, int(off.Desc)+entries*int(unsafe.Sizeof(entry)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	word := func(off uint64) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[off])) }
	r.producer, r.consumer, r.flags = word(off.Producer), word(off.Consumer), word(off.Flags)
	r.entries = unsafe.Slice((*T)(unsafe.Pointer(&r.mem[off.Desc])), entries)
	r.mask = uint32(entries - 1)
	return nil
}

// needsWakeup reports whether the kernel wants to be told of new entries.
func (r *xskRing[T]) needsWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// take fills batch with frames that wait.
func (q *xskQueue) take(batch []Frame) (n int) {
	at := atomic.LoadUint32(q.rx.consumer)         // ours
	ready := atomic.LoadUint32(q.rx.producer) - at // acquires what the kernel wrote before it
	ready = min(ready, uint32(len(q.rx.entries)))  // it is the kernel's word, but memory others could write
	used, long := uint32(0), 0
	q.more = false
	for n < len(batch) && used < ready {
		d := q.rx.entries[(at+used)&q.rx.mask]
		if d.Options&unix.XDP_PKT_CONTD == 0 {
			used++
			if q.describe(&batch[n], d) {
				n++
			}
			continue
		}
		parts := q.parts(at+used, ready-used)
		if parts == 0 || long == maxLong {
			q.more = parts > 0
			break
		}
		q.join(&batch[n], at+used, parts, long)
		used += parts
		n++
		long++
	}
	q.held = used
	// Another processor wrote the frames. Read here, where nothing waits for it, all of them
	// are on their way at the same time.
	for i := range batch[:n] {
		q.touched += batch[i].Buf[batch[i].Start]
	}
	return n
}

// describe describes a frame of one part; false if it is not in our memory.
func (q *xskQueue) describe(f *Frame, d unix.XDPDesc) bool {
	base := d.Addr &^ (chunk - 1)
	start := int(d.Addr - base)
	if base > (rxChunks-1)*chunk || d.Len > uint32(chunk-start) {
		return false
	}
	*f = Frame{Buf: q.mem[base : base+chunk : base+chunk], Start: start, End: start + int(d.Len)}
	return true
}

// parts returns of how many parts the frame is that begins at entry at; 0 if
// not all of them are among the next ready ones.
func (q *xskQueue) parts(at, ready uint32) uint32 {
	for i := range ready {
		if q.rx.entries[(at+i)&q.rx.mask].Options&unix.XDP_PKT_CONTD == 0 {
			return i + 1
		}
	}
	return 0
}

// join copies a frame's parts into a buffer.
func (q *xskQueue) join(f *Frame, at, parts uint32, long int) {
	if len(q.long) <= long {
		q.long = append(q.long, make([]byte, xskFront+16<<10))
	}
	buf := q.long[long]
	*f = Frame{Start: xskFront, End: xskFront}
	for i := range parts {
		var part Frame
		if !q.describe(&part, q.rx.entries[(at+i)&q.rx.mask]) {
			f.Truncated = true
			break
		}
		if f.End+part.Len() > len(buf) && len(buf) < xskFront+MaxFrame {
			buf = append(make([]byte, 0, xskFront+MaxFrame), buf...)[:xskFront+MaxFrame]
			q.long[long] = buf
		}
		n := copy(buf[f.End:], part.Bytes())
		f.End += n
		f.Truncated = f.Truncated || n < part.Len()
	}
	f.Buf = buf
}

// release returns the chunks of the last take to the kernel.
func (q *xskQueue) release() {
	if q.held == 0 {
		return
	}
	at, to := atomic.LoadUint32(q.rx.consumer), atomic.LoadUint32(q.fill.producer)
	for i := range q.held {
		q.fill.entries[(to+i)&q.fill.mask] = q.rx.entries[(at+i)&q.rx.mask].Addr &^ (chunk - 1)
	}
	atomic.StoreUint32(q.rx.consumer, at+q.held)
	atomic.StoreUint32(q.fill.producer, to+q.held)
	q.held = 0
	if q.fill.needsWakeup() {
		unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
}

// drops returns how many frames the kernel had no room for.
func (q *xskQueue) drops() uint64 {
	var s unix.XDPStatistics
	if getsockopt(q.fd, unix.XDP_STATISTICS, unsafe.Pointer(&s), unsafe.Sizeof(s)) != nil {
		return 0
	}
	return s.Rx_dropped + s.Rx_ring_full
}

// close gives the memory back; frames still pointing into it are invalid.
func (q *xskQueue) close() error {
	var errs []error
	if q.fd >= 0 {
		errs = append(errs, unix.Close(q.fd))
		q.fd = -1
	}
	for _, mem := range []*[]byte{&q.fill.mem, &q.complete.mem, &q.rx.mem, &q.mem} {
		if *mem != nil {
			errs = append(errs, unix.Munmap(*mem))
			*mem = nil
		}
	}
	return errors.Join(errs...)
}

func setsockopt(fd, opt int, value unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt), uintptr(value), size, 0); errno != 0 {
		return errno
	}
	return nil
}

func getsockopt(fd, opt int, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt), uintptr(value), uintptr(unsafe.Pointer(&length)), 0); errno != 0 {
		return errno
	}
	return nil
}
