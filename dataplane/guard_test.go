package dataplane

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/bfd"
)

// TestGuardLendsPrecedence: a thread that has not done what was due is lent
// real-time precedence, and gives it back once it runs.
func TestGuardLendsPrecedence(t *testing.T) {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil || unix.Geteuid() != 0 {
		t.Skip("only root may raise priorities")
	}
	th := &thread{engine: NewEngine(testLog), dueWas: bfd.Never}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		tid := unix.Gettid()
		policy := func() uint32 {
			attr, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				t.Error(err)
				return 0
			}
			return attr.Policy
		}
		if err := setScheduler(0, unix.SCHED_RR, 0); err != nil {
			t.Logf("nothing is shown: the machine grants no real-time scheduling: %v", err)
			return
		}
		th.ordinary()
		if p := policy(); p != unix.SCHED_NORMAL {
			t.Errorf("to begin with its policy is %d", p)
		}
		th.due.Store(int64(time.Since(th.engine.epoch) - time.Second))
		th.guardStop, th.guardDone = make(chan struct{}), make(chan struct{})
		go th.guard(tid)
		for began := time.Now(); !th.lent.Load() && time.Since(began) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
		if p := policy(); p != unix.SCHED_RR {
			t.Errorf("a second late its policy is %d, want %d", p, unix.SCHED_RR)
		}
		th.due.Store(int64(bfd.Never))
		time.Sleep(2 * guardLook)
		th.noteDue()
		if p := policy(); p != unix.SCHED_NORMAL || th.lent.Load() {
			t.Errorf("having run, its policy is %d, lent %v", p, th.lent.Load())
		}
		th.endGuard()
	}()
	<-done
}
