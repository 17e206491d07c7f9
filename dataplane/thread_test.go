package dataplane

import (
	"testing"

	"msee/dataplane/port"
)

// testWorker returns a worker of a thread that does not run: tests call step.
func testWorker(t testing.TB, e *Engine, index int, p port.Port) *Worker {
	t.Helper()
	thread, err := newThread(e, AnyCPU)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorker(e, thread, index, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.release(); thread.close() })
	return w
}
