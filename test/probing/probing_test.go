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
