// Package guard sees to it that a forwarding thread which has BFD to do gets a
// processor when that is due, however many others want one. The thread itself stays
// an ordinary one: always first, it would take from iperf3, ssh and whoever else is
// here what nobody would give back. So the guard, which does next to nothing, has
// real-time precedence, and lends it:
//
//   - to the thread, when the time of a packet, or of a look at a neighbor, has passed
//     and the thread has not run. It gives it back by itself as soon as it has done
//     what was due;
//   - to all threads of the router for a moment, when that has not helped. Then the
//     thread does not want for a processor, but waits for the garbage collector, which
//     stops every thread for as long as the one that collects is kept waiting. That
//     was 140 ms once, beside compilers.
//
// Nice values do not do that: they count within a session only where the kernel
// groups processes by session (sched(7), autogroup), and a thread that has used up
// its share waits all the same.
//
// The guard is a process, since whatever runs within the router's waits for its
// collector too. They share a page of memory.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Never is when a thread is due that has nothing to do.
const Never = time.Duration(math.MaxInt64)

// Watched is what a thread and the guard have in common of it. The zero value is
// watched by nobody. Its methods are for the thread.
type Watched struct {
	tid   atomic.Int32 // 0: free
	lent  atomic.Bool
	due   atomic.Int64 // time.Duration on CLOCK_MONOTONIC
	loans atomic.Uint64
	_     [40]byte // a cache line each
}

// page is what router and guard share.
type page struct {
	router  atomic.Int32 // its process
	rescues atomic.Uint64
	_       [48]byte
	threads [63]Watched
}

// Guard is the process, seen from the router.
type Guard struct {
	page    *page
	memory  *os.File // of the page
	command []string
	log     *slog.Logger
	child   atomic.Pointer[exec.Cmd]
	close   context.CancelFunc
	exited  chan struct{} // the process has, and there will be no other one
}

// Start starts the guard of this process by a command that runs Main. That the
// machine grants no precedence is logged, and no error. Who kills it gets another one.
func Start(command []string, log *slog.Logger) (*Guard, error) {
	fd, err := unix.MemfdCreate("guard", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory of the guard: %w", err)
	}
	g := &Guard{memory: os.NewFile(uintptr(fd), "guard"), command: command, log: log, exited: make(chan struct{})}
	if err := g.memory.Truncate(int64(unsafe.Sizeof(page{}))); err != nil {
		return nil, errors.Join(fmt.Errorf("make memory of the guard: %w", err), g.memory.Close())
	}
	if g.page, err = mapPage(fd); err != nil {
		return nil, errors.Join(err, g.memory.Close())
	}
	g.page.router.Store(int32(os.Getpid()))
	ctx, cancel := context.WithCancel(context.Background())
	if err := g.start(ctx); err != nil {
		cancel()
		return nil, errors.Join(err, g.page.unmap(), g.memory.Close())
	}
	g.close = cancel
	go g.attend(ctx)
	return g, nil
}

// start starts the process, which ends with ctx.
func (g *Guard) start(ctx context.Context) error {
	child := exec.CommandContext(ctx, g.command[0], g.command[1:]...)
	child.ExtraFiles = []*os.File{g.memory}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	g.child.Store(child)
	return nil
}

// A guard that was killed is started again after a pause, which doubles from the first of
// these to the second, and is the first again for one that has lived for longer.
const restartMin, restartMax = 100 * time.Millisecond, time.Minute

// attend waits for the process's end, and starts another one if it was killed. One that
// ends by itself has been refused what it needs.
func (g *Guard) attend(ctx context.Context) {
	defer close(g.exited)
	for pause := restartMin; ; pause = min(2*pause, restartMax) {
		began, child := time.Now(), g.child.Load()
		err := child.Wait()
		g.page.takeBack()
		if time.Since(began) > restartMax {
			pause = restartMin
		}
		if status, _ := child.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() && ctx.Err() == nil {
			g.log.Warn("the guard ended; starting it again", "err", err, "in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			if err = g.start(ctx); err == nil {
				continue
			}
		}
		if ctx.Err() == nil {
			g.log.Warn("no guard: BFD on a machine that is too busy may be late", "err", err)
		}
		return
	}
}

// Watch has the calling thread watched, which must not change its goroutine any more.
// More than the page has room for are not.
func (g *Guard) Watch() *Watched {
	if g != nil {
		for i := range g.page.threads {
			w := &g.page.threads[i]
			w.due.CompareAndSwap(0, int64(Never)) // once: 0 of new memory would be late
			if w.tid.CompareAndSwap(0, int32(unix.Gettid())) {
				return w
			}
		}
	}
	return new(Watched)
}

// Close ends the guard. All that it watched must have left it, or nobody uses it any
// more.
func (g *Guard) Close() error {
	g.close()
	<-g.exited
	return errors.Join(g.page.unmap(), g.memory.Close())
}

// Loans is how often a thread, and how often the whole process, was lent precedence.
func (g *Guard) Loans() (threads, process uint64) {
	for i := range g.page.threads {
		threads += g.page.threads[i].loans.Load()
	}
	return threads, g.page.rescues.Load()
}

// takeBack is for the router, whose guard has ended: nobody else takes back what it had
// lent. A watched thread gives it back by itself.
func (p *page) takeBack() {
	for _, tid := range threads(os.Getpid()) {
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil || attr.Policy != unix.SCHED_RR || attr.Priority != lentPriority {
			continue
		}
		watched := false
		for i := range p.threads {
			if w := &p.threads[i]; int(w.tid.Load()) == tid {
				w.lent.Store(true)
				watched = true
			}
		}
		if left, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err == nil && !watched { // 20 - nice, which it still has
			unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(20 - left)}, 0)
		}
	}
}

// Due says when the thread has something to do next.
func (w *Watched) Due(t time.Duration) { w.due.Store(int64(t)) }

// GiveBack reports whether the thread has been lent precedence that it has not given
// back; from then on it is to be an ordinary one.
func (w *Watched) GiveBack() bool { return w.lent.Load() && w.lent.CompareAndSwap(true, false) }

// Leave is when the thread ends.
func (w *Watched) Leave() {
	w.due.Store(int64(Never))
	w.lent.Store(false)
	w.tid.Store(0)
}

// Now is the time on the clock that Due counts on.
func Now() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it has no error with this clock
	return time.Duration(now.Nano())
}

func mapPage(fd int) (*page, error) {
	mem, err := unix.MmapPtr(fd, 0, nil, unsafe.Sizeof(page{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory of the guard: %w", err)
	}
	return (*page)(mem), nil
}

func (p *page) unmap() error { return unix.MunmapPtr(unsafe.Pointer(p), unsafe.Sizeof(*p)) }
