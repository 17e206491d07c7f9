package guard

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// grace is how late a thread may be before it is lent precedence, and how long
	// it may take then before all others are too.
	grace = 3 * time.Millisecond
	// look is how often the guard looks at least: a deadline may come nearer.
	look = 50 * time.Millisecond
	// rescueFor is how long the whole router may have precedence at a time, and how
	// long it has none then: a collector is no reason to keep others from running.
	rescueFor = 50 * time.Millisecond

	// lentPriority is below the guard's own, so that a thread which does not give
	// back what it was lent does not keep it from taking it.
	lentPriority, ownPriority = 1, 2
)

// inheritedPage is the descriptor of the page in the guard.
const inheritedPage = 3

// Main is the guard's process. It ends with the router's, and not before: what asks a
// whole group of processes to end leaves the router something to do still.
func Main() error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	p, err := mapPage(inheritedPage)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	own := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: ownPriority}
	for _, tid := range threads(os.Getpid()) {
		if err := unix.SchedSetAttr(tid, &own, 0); err != nil {
			return fmt.Errorf("take real-time precedence, for which it needs CAP_SYS_NICE: %w", err)
		}
	}
	// Not its parent of now: that is another one if the router has ended already.
	for r := (rescue{pid: int(p.router.Load())}); os.Getppid() == r.pid; {
		wait := p.lend(&r)
		pause := unix.NsecToTimespec(int64(wait))
		unix.Nanosleep(&pause, nil) // not time.Sleep: timers want another thread
	}
	return nil
}

// lend looks at all threads once and returns when to look again.
func (p *page) lend(r *rescue) (wait time.Duration) {
	now := Now()
	wait = look
	stuck := false // one that has precedence, and does not run
	var watched [len(p.threads)]int
	for i := range p.threads {
		w := &p.threads[i]
		watched[i] = int(w.tid.Load())
		due := time.Duration(w.due.Load())
		if watched[i] == 0 || due == Never {
			continue
		}
		switch late := now - due; {
		case late < grace:
			wait = min(wait, grace-late)
		case !w.lent.Load():
			if lendTo(watched[i]) == nil {
				w.lent.Store(true) // behind, so that it is given back after it was lent
				w.loans.Add(1)
			}
			wait = min(wait, grace)
		default:
			stuck = stuck || late >= 2*grace
			wait = min(wait, grace)
		}
	}
	switch {
	case r.was == nil && stuck && now >= r.until:
		r.begin(watched[:])
		r.until = now + rescueFor
		p.rescues.Add(1)
	case r.was != nil && (!stuck || now >= r.until):
		r.end(watched[:])
		r.until = now + rescueFor
	}
	if r.was != nil {
		wait = min(wait, grace)
	}
	return wait
}

// rescue is precedence for a whole process.
type rescue struct {
	pid   int
	was   map[int]*unix.SchedAttr // what its threads were before; nil: there is none
	until time.Duration           // when it ends, or another one may begin
}

// begin gives it to all threads but the watched, who are lent it by themselves.
func (r *rescue) begin(watched []int) {
	r.was = map[int]*unix.SchedAttr{}
	for _, tid := range r.others(watched) {
		attr, err := unix.SchedGetAttr(tid, 0)
		if err == nil && attr.Policy == unix.SCHED_NORMAL && lendTo(tid) == nil {
			r.was[tid] = &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: attr.Policy, Nice: attr.Nice, Flags: attr.Flags}
		}
	}
}

// end takes it back, of those too that are watched only since. Threads that began
// meanwhile are made what the process's first one is: nothing was left to them by their
// parents (SCHED_FLAG_RESET_ON_FORK), nor to processes.
func (r *rescue) end(watched []int) {
	first := r.was[r.pid]
	for tid, was := range r.was {
		unix.SchedSetAttr(tid, was, 0) // an error: it has ended
	}
	for _, tid := range r.others(watched) {
		if r.was[tid] == nil && first != nil {
			unix.SchedSetAttr(tid, first, 0)
		}
	}
	r.was = nil
}

func (r *rescue) others(watched []int) []int {
	return slices.DeleteFunc(threads(r.pid), func(tid int) bool { return slices.Contains(watched, tid) })
}

// threads lists a process's; none if it has ended.
func threads(pid int) []int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	var all []int
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, tid)
		}
	}
	return all
}

func lendTo(tid int) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr,
		Policy: unix.SCHED_RR, Priority: lentPriority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
}
