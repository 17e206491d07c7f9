package probing

import (
	"net"
	"testing"
	"time"
)

// TestLost: lost is what has not come in its time, from the number given on.
func TestLost(t *testing.T) {
	now := time.Now()
	p := &Probe{every: time.Second, flows: make([]*net.UDPConn, 2)}
	for i, got := range []bool{false, true, false, true, false, true, false} {
		p.sent = append(p.sent, now.Add(time.Duration(i-6)*time.Second)) // the last one now
		p.got = append(p.got, got)
	}
	x := p.Lost(1)
	if x.Sent != 5 || x.Lost != 2 || x.Outage() != 2*time.Second || !x.First.Equal(p.sent[2]) || len(x.Flows) != 1 || !x.Flows[0] {
		t.Errorf("%+v: %v", x, x)
	}
	if x := p.Missing(5, 7); x.Sent != 2 || x.Lost != 1 || !x.First.Equal(now) {
		t.Errorf("%+v of the last two, want the last one", x)
	}
	if n := p.RecentLosses(2 * time.Second); n != 1 {
		t.Errorf("%d lost in the last 2 s, want 1: the last may still come", n)
	}
}

// TestOvertaken: what was sent before a number counts as lost when later datagrams of all
// flows have come, and not while one flow is silent.
func TestOvertaken(t *testing.T) {
	now := time.Now()
	p := &Probe{flows: make([]*net.UDPConn, 2)}
	add := func(after time.Duration, got bool) {
		p.sent, p.got = append(p.sent, now.Add(after)), append(p.got, got)
	}
	want := func(when string, want bool) {
		t.Helper()
		if got := p.Overtaken(1); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	add(0, false)
	want("number 1 is not sent yet", false)
	add(0, true)
	add(Straggler/2, true)
	add(Straggler-1, true)
	want("nothing late enough", false)
	add(Straggler, true)
	add(Straggler, false)
	want("one flow is silent", false)
	p.got[5] = true
	want("both are heard", true)
}
