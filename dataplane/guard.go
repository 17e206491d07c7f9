package dataplane

import (
	"time"

	"msee/bfd"
	"msee/dataplane/guard"
)

// GuardBy has the forwarding threads guarded once there is BFD, so that it is on time on
// a busy machine; see package guard. command runs guard.Main.
func (e *Engine) GuardBy(command []string) { e.guardCommand = command }

// startGuard is before the first worker gets sessions. Without a guard BFD works, too.
func (e *Engine) startGuard() {
	e.guardOnce.Do(func() {
		if e.guardCommand == nil {
			return
		}
		g, err := guard.Start(e.guardCommand, e.log)
		if err != nil {
			e.log.Warn("BFD on a machine that is too busy may be late", "err", err)
			return
		}
		e.guard, e.guardEpoch = g, guard.Now()-time.Since(e.epoch)
	})
}

// noteDue tells the guard when the thread has BFD to do next; the first time it has
// any, it is watched.
func (t *thread) noteDue() {
	first := bfd.Never
	for _, w := range t.workers {
		if len(w.bfd.sessions) > 0 {
			first = min(first, w.bfd.deadline)
		}
	}
	if first != t.dueWas {
		t.dueWas = first
		if t.watched == nil {
			t.watched = t.engine.guard.Watch()
		}
		if first == bfd.Never {
			t.watched.Due(guard.Never)
		} else {
			t.watched.Due(t.engine.guardEpoch + first)
		}
	}
	if t.watched != nil && t.watched.GiveBack() {
		t.ordinary()
	}
}

// endWatch is before the thread ends.
func (t *thread) endWatch() {
	if t.watched != nil {
		t.watched.Leave()
	}
}

// Loans is how often forwarding threads were lent precedence for BFD's sake, and how
// often the whole process was.
func (e *Engine) Loans() (threads, process uint64) {
	if e.guard == nil {
		return 0, 0
	}
	return e.guard.Loans()
}
