package dataplane

import (
	"fmt"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"msee/bfd"
	"msee/dataplane/guard"
)

// thread is an operating system thread that runs the workers of one or more
// ports, in turn. It is busy while frames come, looks for more for a little
// while after the last, and sleeps then until a port, a TAP or the control side
// has something.
//
// Ports share a thread where there are fewer processors than it takes to give
// each its own and leave one to those who send and receive: what answers a
// frame soon after is then met by a thread that is still awake.
type thread struct {
	engine *Engine
	cpu    int  // the processor it is bound to, or AnyCPU
	ports  int  // how many were assigned to it; the engine's
	runs   bool // the engine's

	// epoll watches all but the ports: wake, an eventfd (orders, mail, a snapshot to
	// adopt), TAPs, BFD's timers.
	epoll, wake int
	orders      chan func()
	done        chan struct{}
	senders     senders
	punts       [verdictCount]budget // to the kernel; what is punted by verdict
	errors      budget               // ICMP's

	// The goroutine's.
	workers []*Worker
	quit    bool
	near    bool // frames came less than nearFor ago
	polled  []unix.PollFd

	dueWas  time.Duration  // when BFD is due
	watched *guard.Watched // by the guard; nil: never had BFD
}

// AnyCPU leaves the choice of the processor to the kernel.
const AnyCPU = -1

const (
	// restFor is how long a thread that has taken all that waited lets more
	// gather before it looks again. Under load that is what decides: a thread
	// that is woken for every superframe, or looks without a pause, takes the
	// processor from those who send and receive, 30,000 times a second.
	// It is what a frame under load waits at most, on top of its turn.
	restFor = 50 * time.Microsecond
	// rests is how often in a row it looks in vain before it sleeps: to be
	// woken is dearer than to look a little later.
	rests = 2
	// nearFor is how long after frames a thread sleeps without telling the scheduler of
	// goroutines, in milliseconds. Told, it takes the thread's P away after 10 ms; and
	// who comes back for another one wakes the scheduler's monitor first, which then
	// often takes the thread for one that runs without end and interrupts it before it
	// has sent. A lone packet 10 ms after the last was sent on 83 to 101 µs after it
	// came, nine in ten within 157 to 276; so it is 66 to 90, and 128 to 205. While the
	// thread sleeps so the monitor looks at it every 10 ms, which is why not always.
	nearFor = 20
)

func newThread(e *Engine, cpu int) (*thread, error) {
	t := &thread{engine: e, cpu: cpu, orders: make(chan func(), 4), done: make(chan struct{}), dueWas: bfd.Never}
	t.punts[PuntARP].init(puntNeighborsPerThread)
	t.punts[PuntLinkLocal].init(puntNeighborsPerThread)
	t.punts[PuntLocal].init(puntLocalPerThread)
	t.punts[PuntGlean].init(heldPerThread)
	t.errors.init(icmpPerThread)
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(t.epoll)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	if err := t.watch(t.wake, 0); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *thread) close() {
	unix.Close(t.epoll)
	unix.Close(t.wake)
}

// watch has the thread woken when fd is readable, on behalf of the worker of
// port index. The port itself is not watched so; see sleep.
func (t *thread) watch(fd, index int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(index)}
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	return nil
}

// unwatch takes watch back. An error means that the descriptor is closed, and
// so not watched.
func (t *thread) unwatch(fd int) { unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// order has the thread run f between two batches.
func (t *thread) order(f func()) {
	t.orders <- f
	t.kick()
}

// kick wakes the thread if it sleeps.
func (t *thread) kick() { unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// start adds a worker; the first one starts the goroutine.
func (t *thread) start(w *Worker) {
	if !t.runs {
		t.runs = true
		t.workers = append(t.workers, w)
		go t.run()
		return
	}
	t.order(func() { t.workers = append(t.workers, w) })
}

// stop removes a worker and returns when the thread does not use it any more.
// The last one ends the goroutine.
func (t *thread) stop(w *Worker) {
	last := t.ports == 1
	stopped := make(chan struct{})
	t.order(func() {
		w.drain() // or no verdict would tell of what waits
		t.workers = slices.DeleteFunc(t.workers, func(other *Worker) bool { return other == w })
		t.quit = last
		close(stopped)
	})
	<-stopped
	if last {
		<-t.done
	}
}

// run is the goroutine.
func (t *thread) run() {
	runtime.LockOSThread() // never unlocked: a bound thread ends with the goroutine
	defer close(t.done)
	defer t.endWatch()
	t.bind()
	t.ordinary()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // ns: it rests as long as it means to
	rounds := 0                                    // since the TAPs had their turn
	looks := 0                                     // in vain, in a row
	for {
		for len(t.orders) > 0 {
			(<-t.orders)()
		}
		if t.quit {
			return
		}
		if t.step() > 0 {
			t.near = true
			if rounds++; rounds >= tapCheckEvery {
				t.wait(0)
				rounds = 0
			}
			looks = 0
			continue
		}
		if looks++; looks <= rests {
			t.rest()
			continue
		}
		t.wait(t.timeout())
		rounds, looks = 0, 0
	}
}

// bind binds the thread to its processor. If there is none such, any will do.
func (t *thread) bind() {
	if t.cpu == AnyCPU {
		return
	}
	var set unix.CPUSet
	set.Set(t.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.engine.log.Warn("bind forwarding thread to processor", "cpu", t.cpu, "err", err)
	}
}

const (
	// priority is the nice value of forwarding threads. Where processors are fewer
	// than who wants them, frames that wait for the router cost everybody: beside
	// one TCP flow on two busy processors a ping took 0.5 ms, with it 0.1; and BFD
	// that is late is a router taken for dead. The rest of the device follows a
	// little behind; see edge.Hasten.
	priority = -20
	// slice is how long they run before the scheduler looks for others, as short as it may
	// be (Linux 6.12; older ones have one for all). A thread that wakes takes the processor at once from one
	// whose slice is longer, which otherwise keeps it for up to 3 ms.
	slice = 100 * time.Microsecond
)

// ordinary makes the thread an ordinary one with precedence.
func (t *thread) ordinary() {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: priority, Runtime: uint64(slice),
		Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil { // 0: this thread
		t.engine.log.Warn("set precedence of forwarding thread", "err", err)
	}
}

// step takes one batch of each port through the pipeline and returns how many
// frames there were.
func (t *thread) step() (frames int) {
	for _, w := range t.workers {
		n := w.step()
		w.serveBFD(n, w.more)
		frames += n
	}
	t.noteDue()
	return frames
}

// rest gives the processor up for restFor. The scheduler of goroutines is not told:
// it would take its P away, for less than it takes to give it back.
func (t *thread) rest() {
	ts := unix.NsecToTimespec(int64(restFor))
	unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}

// timeout is how long the thread may sleep: until the first worker has to do
// something by itself, in milliseconds rounded up, -1 for ever.
func (t *thread) timeout() int {
	var now, first time.Duration
	for _, w := range t.workers {
		if d := w.deadline(); d > 0 && (first == 0 || d < first) {
			first = d
		}
	}
	if first == 0 {
		return -1
	}
	now = time.Since(t.engine.epoch)
	return int((max(0, first-now) + time.Millisecond - 1) / time.Millisecond)
}

// wait sleeps until a port, a TAP or the control side has something, at most
// timeout milliseconds (-1: for ever), and serves the TAPs.
func (t *thread) wait(timeout int) {
	if timeout != 0 && !t.sleep(timeout) {
		return
	}
	var events [16]unix.EpollEvent
	n, err := unix.EpollWait(t.epoll, events[:], 0)
	if err != nil {
		return // EINTR
	}
	for _, ev := range events[:n] {
		if int(ev.Fd) == t.wake {
			var buf [8]byte
			unix.Read(t.wake, buf[:])
			continue
		}
		for _, w := range t.workers {
			if w.index == int(ev.Pad) {
				w.serve(int(ev.Fd))
			}
		}
	}
}

// sleep sleeps until a port has frames or epoll has something, at most timeout
// milliseconds (-1: for ever), and reports the latter. The ports are polled rather than
// watched by epoll: that would be told of each frame that comes, asleep or not, which
// is a tenth of what it costs the kernel to receive a small one.
func (t *thread) sleep(timeout int) bool {
	t.polled = append(t.polled[:0], unix.PollFd{Fd: int32(t.epoll), Events: unix.POLLIN})
	for _, w := range t.workers {
		if fd := w.device.FD(); fd >= 0 && w.mutedUntil == 0 {
			t.polled = append(t.polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if t.near {
		if 0 < timeout && timeout <= nearFor {
			untoldPoll(t.polled, timeout)
			return t.polled[0].Revents != 0
		}
		if n, err := untoldPoll(t.polled, nearFor); n > 0 || err != nil {
			return t.polled[0].Revents != 0
		}
		t.near = false
		timeout = max(timeout-nearFor, -1)
	}
	unix.Poll(t.polled, timeout) // an error is EINTR
	return t.polled[0].Revents != 0
}

// untoldPoll is Poll of which the scheduler of goroutines is not told. If it
// needs the thread to stop, for a garbage collection say, it interrupts with a signal,
// and again until that helps: the error is EINTR then.
func untoldPoll(fds []unix.PollFd, timeout int) (int, error) {
	ts := unix.NsecToTimespec(int64(timeout) * int64(time.Millisecond))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
