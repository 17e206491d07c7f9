package edge

import (
	"errors"
	"testing"
	"time"
)

// TestDaemonLetsTheLoopGo: a closed daemon's goroutines do not wait for a control
// loop that may be waiting for them.
func TestDaemonLetsTheLoopGo(t *testing.T) {
	e := &Edge{calls: make(chan func()), stop: make(chan struct{})} // and nobody in the loop
	d := &bfdDaemon{edge: e, stop: make(chan struct{})}
	done := make(chan error)
	go func() { done <- d.do(func() {}) }()
	d.close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for the loop")
	}
}
