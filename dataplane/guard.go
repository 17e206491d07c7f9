package dataplane

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"msee/bfd"
)

// A guard sees to it that a forwarding thread which has BFD to do gets a
// processor when that is due, however many others want one. The thread itself
// stays an ordinary one: always first, it would take from iperf3, ssh and whoever
// else is here what nobody would give back. So the guard, which does next to
// nothing, has real-time precedence, and lends it to the thread when the time of
// a packet, or of a look at a neighbor, has passed and the thread has not run. It
// gives it back by itself as soon as it has done what was due.
//
// Nice values do not do that: they count within a session only where the kernel
// groups processes by session (sched(7), autogroup), and a thread that has used up
// its share waits all the same.
const (
	// guardGrace is how late a thread may be before it is lent precedence.
	guardGrace = 3 * time.Millisecond
	// guardLook is how often a guard looks at least: a deadline may come nearer.
	guardLook = 50 * time.Millisecond
)

// noteDue tells the guard when the thread has BFD to do next; the first time it has
// any, it gets one.
func (t *thread) noteDue() {
	first := bfd.Never
	for _, w := range t.workers {
		if len(w.bfd.sessions) > 0 {
			first = min(first, w.bfd.deadline)
		}
	}
	if first != t.dueWas {
		t.dueWas = first
		t.due.Store(int64(first))
		if t.guardDone == nil {
			t.guardStop, t.guardDone = make(chan struct{}), make(chan struct{})
			go t.guard(unix.Gettid())
		}
	}
	if t.lent.Load() && t.lent.CompareAndSwap(true, false) {
		t.ordinary()
	}
}

// Loans is how often forwarding threads were lent precedence for BFD's sake.
func (e *Engine) Loans() (n uint64) {
	for _, t := range e.threads {
		n += t.loans.Load()
	}
	return n
}

// endGuard is before the thread ends.
func (t *thread) endGuard() {
	if t.guardDone != nil {
		close(t.guardStop)
		<-t.guardDone
	}
}

// guard watches over the thread with that ID.
func (t *thread) guard(tid int) {
	defer close(t.guardDone)
	runtime.LockOSThread() // never unlocked: the thread ends with its precedence
	if err := setScheduler(0, unix.SCHED_FIFO, 0); err != nil {
		t.engine.log.Warn("BFD on a machine that is too busy may be late", "err", err)
		return
	}
	for {
		select {
		case <-t.guardStop:
			return
		default:
		}
		wait := guardLook
		if due := time.Duration(t.due.Load()); due != bfd.Never {
			wait = due + guardGrace - time.Since(t.engine.epoch)
			if wait <= 0 {
				if !t.lent.Load() && setScheduler(tid, unix.SCHED_RR, 0) == nil {
					t.lent.Store(true) // behind, so that it is given back after it was lent
					t.loans.Add(1)
				}
				wait = guardGrace
			}
		}
		pause := unix.NsecToTimespec(int64(min(wait, guardLook)))
		unix.Nanosleep(&pause, nil) // not time.Sleep, whose timers wait for ordinary threads
	}
}

// ordinary gives precedence back.
func (t *thread) ordinary() {
	if err := setScheduler(0, unix.SCHED_NORMAL, priority); err != nil {
		t.engine.log.Warn("lower priority of forwarding thread", "err", err)
	}
}

// setScheduler sets a thread's scheduling class, with the lowest real-time
// priority or a nice value. 0 is the calling one.
func setScheduler(tid int, policy uint32, nice int32) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: nice, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if policy != unix.SCHED_NORMAL {
		attr.Priority = 1
	}
	return unix.SchedSetAttr(tid, &attr, 0)
}
