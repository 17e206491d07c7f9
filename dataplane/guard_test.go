package dataplane

import (
	"log/slog"
	"sync"
	"testing"
)

// TestGuardOnce: sessions come from any goroutine, and one guard is started.
func TestGuardOnce(t *testing.T) {
	e := NewEngine(slog.New(slog.DiscardHandler))
	e.GuardBy([]string{"cat"})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { e.SetBFD(0, []*BFDSession{{}}) }) // an error: there is no port
	}
	all.Wait()
	if e.guard == nil {
		t.Error("no guard")
	}
	e.Close()
}
