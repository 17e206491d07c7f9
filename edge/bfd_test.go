package edge

import (
	"testing"
	"time"
)

func TestHoldDownBacksOff(t *testing.T) {
	var delay time.Duration
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		delay = holdDown(delay, 2*time.Second, time.Second, i == 0)
		if delay != want*time.Second {
			t.Errorf("flap %d: held down for %v, want %v s", i+1, delay, want)
		}
	}
	if delay = holdDown(delay, calmAfter, time.Second, false); delay != 0 {
		t.Errorf("after a calm time: %v", delay)
	}
	if delay = holdDown(0, 0, 5*time.Minute, false); delay != 5*time.Minute {
		t.Errorf("with more configured than the back-off's end: %v", delay)
	}
	if delay = holdDown(time.Second, 0, 0, false); delay != 2*time.Second {
		t.Errorf("with none configured, after one second: %v", delay)
	}
}
