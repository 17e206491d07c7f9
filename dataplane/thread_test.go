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
	thread.near = true
	for thread.near { // interrupted, it is
		if thread.sleep(2 * nearFor) {
			t.Fatal("woken without an event")
		}
	}
	for _, near := range []bool{true, false} {
		thread.near = near
		thread.kick()
		for !thread.sleep(-1) { // interrupted
		}
		if thread.near != near {
			t.Errorf("kicked, near %v: near %v", near, thread.near)
		}
	}
}

// TestUntoldPollLetsTheWorldStop: the garbage collector does not wait for a thread that
// sleeps without its scheduler's knowledge.
func TestUntoldPollLetsTheWorldStop(t *testing.T) {
	thread, err := newThread(NewEngine(slog.Default()), AnyCPU)
	if err != nil {
		t.Fatal(err)
	}
	defer thread.close()
	begins, slept := make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fds := []unix.PollFd{{Fd: int32(thread.epoll), Events: unix.POLLIN}}
		close(begins)
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = untoldPoll(fds, 20_000)
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
