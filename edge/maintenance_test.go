package edge

import "testing"

// TestDrainAgain: to drain a device that is drained brings no session back.
func TestDrainAgain(t *testing.T) {
	b := newBench(t)
	b.maintenance = InService
	b.calls, b.stop = make(chan func()), make(chan struct{})
	defer close(b.stop)
	go func() {
		for {
			select {
			case call := <-b.calls:
				call()
			case <-b.stop:
				return
			}
		}
	}()
	if err := b.SetMaintenance(Drained, false); err == nil {
		t.Error("drained at one step")
	}
	for _, step := range []struct{ to, is Maintenance }{
		{Draining, Draining}, {Drained, Drained}, {Draining, Drained}, {Drained, Drained}, {InService, InService}, {Draining, Draining}, {InService, InService}} {
		if err := b.SetMaintenance(step.to, false); err != nil || b.maintenance != step.is {
			t.Errorf("to %s: is %s, %v; want %s", step.to, b.maintenance, err, step.is)
		}
	}
}
