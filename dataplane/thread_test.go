package dataplane

import (
	"log/slog"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

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

// TestSleepNear: a thread that sleeps near frames wakes for an event, and without one
// sleeps on as any other.
func TestSleepNear(t *testing.T) {
	thread, err := newThread(NewEngine(slog.Default()), AnyCPU)
	if err != nil {
		t.Fatal(err)
	}
	defer thread.close()
	var events [4]unix.EpollEvent
	thread.near = true
	if n, err := thread.sleep(events[:], 2*nearFor); n != 0 || err != nil && err != unix.EINTR || err == nil && thread.near {
		t.Errorf("without an event: %d events, %v, near %v", n, err, thread.near)
	}
	for _, near := range []bool{true, false} {
		thread.near = near
		thread.kick()
		n, err := thread.sleep(events[:], -1)
		for err == unix.EINTR {
			n, err = thread.sleep(events[:], -1)
		}
		if n != 1 || err != nil || thread.near != near {
			t.Errorf("kicked, near %v: %d events, %v, near %v", near, n, err, thread.near)
		}
	}
}

// TestUntoldWaitLetsTheWorldStop: the garbage collector does not wait for a thread that
// sleeps without its scheduler's knowledge.
func TestUntoldWaitLetsTheWorldStop(t *testing.T) {
	thread, err := newThread(NewEngine(slog.Default()), AnyCPU)
	if err != nil {
		t.Fatal(err)
	}
	defer thread.close()
	begins, slept := make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var events [1]unix.EpollEvent
		close(begins)
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = untoldWait(thread.epoll, events[:], 20_000)
		}
		slept <- n
	}()
	<-begins
	for range 20 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m) // stops the world
	}
	thread.kick()
	if n := <-slept; n != 1 {
		t.Error("the world stood still until the thread had slept enough")
	}
}
