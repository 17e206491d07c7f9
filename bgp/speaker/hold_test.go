package speaker

import (
	"os"
	"strings"
	"testing"
	"time"

	"msee/bgp"
)

// TestHold: a held session is down with the holder's words at both ends, also
// for a new speaker, until the last holder lets go.
func TestHold(t *testing.T) {
	nsA, nsB := link(t)
	a, b := newEdge(t, "/proc/self/exe", "speaker"), newEdge(t)
	ca := ourSession(nsA, v4a, v4b)
	cb := theirSession(ca, nsB)
	a.Configure([]bgp.SessionConfig{ca})
	b.Configure([]bgp.SessionConfig{cb})
	a.untilState(ca.Name, bgp.StateEstablished, 10*time.Second)

	began := time.Now()
	a.Hold(ca.Name, bgp.Hold{By: "maintenance", Cease: bgp.CeaseShutdown, Message: "back at six", Why: "drained by the operator"})
	a.Hold(ca.Name, bgp.Hold{By: "limits", Cease: bgp.CeaseMaxPrefixes, Why: "too many"})
	a.until("held", 10*time.Second, func() bool {
		s := a.status[ca.Name]
		return s.State == bgp.StateIdle && s.Reason == "drained by the operator" && s.Flaps == 1
	})
	t.Logf("down after %v", time.Since(began))
	b.untilReason(cb.Name, `peer sent Cease / administrative shutdown (6/2): "back at six"`, 10*time.Second)

	a.Release(ca.Name, "maintenance")
	a.Release(ca.Name, "nobody")
	a.untilReason(ca.Name, "too many", 10*time.Second)
	p, err := os.FindProcess(childPID(t))
	must(t, err)
	must(t, p.Kill())
	a.until("a new speaker", 10*time.Second, func() bool { return a.restarts == 1 })
	time.Sleep(4 * time.Second) // b dials every 2 to 4 s
	up := 0
	for _, s := range a.statesOf(ca.Name) {
		if s == bgp.StateEstablished {
			up++
		}
	}
	if up != 1 {
		t.Errorf("came up while it was held: %v", a.statesOf(ca.Name))
	}
	if s := a.of(ca.Name); s.State != bgp.StateIdle || s.Reason != "too many" {
		t.Errorf("held in a new speaker: %+v", s)
	}
	a.Release(ca.Name, "limits")
	a.untilState(ca.Name, bgp.StateEstablished, 10*time.Second)
	b.untilState(cb.Name, bgp.StateEstablished, 10*time.Second)
}

func TestCeaseOf(t *testing.T) {
	long := strings.Repeat("ä", 200)
	for _, c := range []struct {
		hold bgp.Hold
		want string
	}{
		{bgp.Hold{Cease: bgp.CeaseBFDDown, Message: "not for this subcode"}, "Cease / BFD down (6/10)"},
		{bgp.Hold{Cease: bgp.CeaseShutdown}, "Cease / administrative shutdown (6/2)"},
		{bgp.Hold{Cease: bgp.CeaseReset, Message: "soon"}, `Cease / administrative reset (6/4): "soon"`},
		{bgp.Hold{Cease: bgp.CeaseShutdown, Message: long}, `Cease / administrative shutdown (6/2): "` + long[:254] + `"`},
	} {
		n, err := parseNotification(ceaseOf(c.hold).marshal())
		if err != nil || n.String() != c.want {
			t.Errorf("%+v: %v %v, want %s", c.hold, n, err, c.want)
		}
	}
}
