package test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"msee/test/probing"
)

// probe sends numbered UDP datagrams to an echo server and notes which come back.
type probe struct{ *probing.Probe }

const probePort = 7 // echo, RFC 862

// startProbe sends perSecond datagrams per second from node from to the address
// to of node at, spread over flows. It ends with the test.
func (l *testLab) startProbe(from, at, to string, flows, perSecond int) *probe {
	l.t.Helper()
	p, err := probing.Start(probing.Config{From: l.ns(from), At: l.ns(at), To: netip.MustParseAddr(to), Port: probePort,
		Flows: flows, PerSecond: perSecond, Echo: true})
	l.t.Cleanup(p.End)
	if err != nil {
		l.t.Fatal(err)
	}
	return &probe{p}
}

// straggler is how long an answer may take before its probe counts as lost.
const straggler = probing.Straggler

// now returns the number of the next probe, to count from.
func (p *probe) now() int { return p.Next() }

// healthy waits until nothing was lost for a second that begins now or later.
func (p *probe) healthy(t testing.TB, within time.Duration) {
	t.Helper()
	began := time.Now()
	eventually(t, within, "all probes answered", func() error {
		if time.Since(began) < time.Second+straggler {
			return fmt.Errorf("it began %v ago", time.Since(began))
		}
		if n := p.RecentLosses(time.Second); n > 0 {
			return fmt.Errorf("%d lost in the last second", n)
		}
		return nil
	})
}

// losses are probes that were not answered.
type losses struct {
	probing.Losses
	sent, lost int
}

func (x losses) outage() time.Duration { return x.Outage() }

// answered waits until all probes from number begin to now are answered, however slow
// the machine is, and returns what is not after ten seconds.
func (p *probe) answered(begin int) losses {
	for began, end := time.Now(), p.now(); ; time.Sleep(20 * time.Millisecond) {
		if x := p.Missing(begin, end); x.Lost == 0 || time.Since(began) > 10*time.Second {
			return losses{x, x.Sent, x.Lost}
		}
	}
}

// since counts the losses among probes from number begin to now: such as are not answered
// when later ones of their flows are. A machine that is late is late with all of them.
func (p *probe) since(t testing.TB, begin int) losses {
	t.Helper()
	end := p.now()
	time.Sleep(straggler)
	x := p.Missing(begin, end)
	for began := time.Now(); x.Lost > 0 && !p.Overtaken(end) && time.Since(began) < 10*time.Second; {
		time.Sleep(20 * time.Millisecond)
		x = p.Missing(begin, end)
	}
	if n := p.Strays(); n > 0 {
		t.Errorf("%d answers to probes that were never sent", n)
	}
	return losses{x, x.Sent, x.Lost}
}
