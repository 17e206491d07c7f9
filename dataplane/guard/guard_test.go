package guard

import (
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is the guard where the tests start it.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "guard" {
		if err := Main(); err != nil {
			slog.Error("guard", "err", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// start starts a guard, where the machine grants real-time precedence.
func start(t *testing.T) *Guard {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	err = lendTo(0)
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: attr.Policy, Nice: attr.Nice}, 0)
	runtime.UnlockOSThread()
	if err != nil {
		t.Skipf("the machine grants no real-time precedence: %v", err)
	}
	g, err := Start([]string{"/proc/self/exe", "guard"}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// thread is one that a test has watched. It sleeps.
type thread struct {
	tid     int
	watched *Watched
	end     chan struct{}
}

func newThread(t *testing.T, g *Guard) *thread {
	th := &thread{end: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		th.tid = unix.Gettid()
		if g != nil {
			th.watched = g.Watch()
		}
		close(ready)
		<-th.end
	}()
	<-ready
	t.Cleanup(func() { close(th.end) })
	return th
}

// await waits until the thread has a policy.
func (th *thread) await(t *testing.T, what string, policy uint32) *unix.SchedAttr {
	t.Helper()
	var attr *unix.SchedAttr
	for range 10_000 {
		var err error
		if attr, err = unix.SchedGetAttr(th.tid, 0); err != nil {
			t.Fatal(err)
		}
		if attr.Policy == policy {
			return attr
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s: policy %d, want %d", what, attr.Policy, policy)
	return nil
}

// TestLend: a thread that has not done what was due is lent real-time precedence, and
// others of its process only if it goes on not to do it. They get back what they had;
// it gives its own back by itself.
func TestLend(t *testing.T) {
	g := start(t)
	late, other := newThread(t, g), newThread(t, nil)
	if err := unix.Setpriority(unix.PRIO_PROCESS, other.tid, 7); err != nil {
		t.Fatal(err)
	}
	late.await(t, "nothing is due", unix.SCHED_NORMAL)

	late.watched.Due(Now() - time.Second)
	late.await(t, "a second late", unix.SCHED_RR)
	other.await(t, "another thread, as one does not run in spite of it", unix.SCHED_RR)

	late.watched.Due(Never)
	if attr := other.await(t, "nobody is late", unix.SCHED_NORMAL); attr.Nice != 7 {
		t.Errorf("nice %d, want 7 as before", attr.Nice)
	}
	late.await(t, "it has not given it back", unix.SCHED_RR)
	if !late.watched.GiveBack() || late.watched.GiveBack() {
		t.Error("what it was lent is to be given back once")
	}
	if threads, process := g.Loans(); threads == 0 || process == 0 {
		t.Errorf("%d loans to threads, %d to the process, want some", threads, process)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// TestRescueEnds: if nothing helps, the others have precedence half of the time only.
func TestRescueEnds(t *testing.T) {
	g := start(t)
	defer g.Close()
	late, other := newThread(t, g), newThread(t, nil)
	late.watched.Due(Now() - time.Second)
	for range 2 {
		other.await(t, "it is late", unix.SCHED_RR)
		other.await(t, "it has been for long", unix.SCHED_NORMAL)
	}
}

// TestGuardKilled: what a guard had lent when it ended is left to nobody, and another one
// takes its place.
func TestGuardKilled(t *testing.T) {
	g := start(t)
	late, other := newThread(t, g), newThread(t, nil)
	if err := unix.Setpriority(unix.PRIO_PROCESS, other.tid, 7); err != nil {
		t.Fatal(err)
	}
	for _, th := range []*thread{late, other} { // as the guard does, which is killed before it says so
		if err := lendTo(th.tid); err != nil {
			t.Fatal(err)
		}
	}
	first := g.child.Load()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if attr := other.await(t, "the guard was killed", unix.SCHED_NORMAL); attr.Nice != 7 {
		t.Errorf("nice %d, want 7 as before", attr.Nice)
	}
	for g.child.Load() == first { // go test's own limit ends it
		time.Sleep(time.Millisecond)
	}
	if !late.watched.GiveBack() {
		t.Error("the thread watched is not told to give back what it was lent")
	}
	after := newThread(t, g)
	after.watched.Due(Now() - time.Second)
	after.await(t, "it is late, and there is a new guard", unix.SCHED_RR)
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// TestGuardStays: Ctrl-C in a terminal, and a supervisor's SIGTERM to all, are no end of
// the guard, for the router goes on for a while.
func TestGuardStays(t *testing.T) {
	g := start(t)
	defer g.Close()
	late := newThread(t, g)
	late.watched.Due(Now() - time.Second)
	late.await(t, "it is late", unix.SCHED_RR)
	late.watched.Due(Never)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if err := g.child.Load().Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	after := newThread(t, g)
	after.watched.Due(Now() - time.Second)
	after.await(t, "it is late, after the signals", unix.SCHED_RR)
}

// TestOrphan: a guard whose router has ended before it began goes, and does not take its
// new parent, process 1 perhaps, for the router.
func TestOrphan(t *testing.T) {
	start(t).Close() // or skip
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g, err := Start([]string{"sh", "-c", "\"$0\" guard; exit 7", exe}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	select {
	case <-g.exited:
		if code := g.child.Load().ProcessState.ExitCode(); code != 7 {
			t.Errorf("exit status %d, want that of its parent, 7", code)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on with a parent that is not the router")
	}
}

// TestWatchedMeanwhile: a thread that is watched only since the process was lent
// precedence does not keep it.
func TestWatchedMeanwhile(t *testing.T) {
	start(t).Close() // or skip
	late, other := newThread(t, nil), newThread(t, nil)
	r := rescue{pid: os.Getpid()}
	r.begin([]int{late.tid})
	other.await(t, "lent", unix.SCHED_RR)
	r.end([]int{late.tid, other.tid})
	other.await(t, "taken back", unix.SCHED_NORMAL)
}

// TestUnguarded: without a guard, or with no room in its page, all goes on.
func TestUnguarded(t *testing.T) {
	var none *Guard
	full := &Guard{page: new(page)}
	for i := range full.page.threads {
		full.page.threads[i].tid.Store(1)
	}
	for _, g := range []*Guard{none, full} {
		w := g.Watch()
		w.Due(1)
		if w.GiveBack() {
			t.Error("precedence out of nothing")
		}
		w.Leave()
	}
	free := &Guard{page: new(page)}
	if w := free.Watch(); w != &free.page.threads[0] || time.Duration(w.due.Load()) != Never {
		t.Errorf("the first thread watched has no place, or is due at %d", w.due.Load())
	}
}
