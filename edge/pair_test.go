package edge

import (
	"testing"
	"time"
)

// TestPairDecides has every kind of view of an instance, and what follows.
func TestPairDecides(t *testing.T) {
	const none, full = false, true
	for _, c := range []struct {
		name string
		view pairView
		want pairDecision
	}{
		{"no MSEE heard", pairView{InService, none, 0, 4, false}, pairDecision{}},
		{"no MSEE configured", pairView{InService, none, 0, 0, true}, pairDecision{}},
		{"one MSEE heard, the other awaited", pairView{InService, none, 2, 4, false}, pairDecision{}},
		{"the other awaited in vain", pairView{InService, none, 2, 4, true}, pairDecision{true, true, true}},
		{"all heard", pairView{InService, none, 4, 4, false}, pairDecision{true, true, true}},
		{"one lost again", pairView{InService, full, 1, 4, false}, pairDecision{true, true, true}},
		{"all lost", pairView{InService, full, 0, 4, false}, pairDecision{}},
		{"draining: forwards, and wants to be taken over", pairView{Draining, full, 4, 4, false}, pairDecision{true, true, false}},
		{"drained, its sessions still there", pairView{Drained, full, 4, 4, false}, pairDecision{true, false, false}},
		{"drained", pairView{Drained, full, 0, 4, false}, pairDecision{}},
		{"back in service, sessions coming", pairView{InService, none, 3, 4, false}, pairDecision{}},
		{"started anew to be drained", pairView{Draining, none, 4, 4, false}, pairDecision{true, true, false}},
	} {
		if got := c.view.decide(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestPairTakes has all inputs to taking the other's addresses.
func TestPairTakes(t *testing.T) {
	for _, speaks := range []bool{false, true} {
		for _, up := range []bool{false, true} {
			for _, heard := range []bool{false, true} {
				for _, spoken := range []time.Duration{0, pairWait - 1, pairWait} {
					// Not while we are not in service, nor from one that is there; one that was
					// there is gone, one never heard of gets its time.
					want := speaks && !up && (heard || spoken == pairWait)
					if got := takes(speaks, up, heard, spoken); got != want {
						t.Errorf("speaks %v, up %v, heard %v, %v: %v", speaks, up, heard, spoken, got)
					}
				}
			}
		}
	}
}

// TestPairNeverLeavesAnAddressAlone: in every pair of views of two live instances,
// of which one is in service and ready, each address is answered for, whether
// BFD between them works or not. It is what makes a lost BFD harmless.
func TestPairNeverLeavesAnAddressAlone(t *testing.T) {
	us := pairView{maintenance: InService, ready: true, told: 4, all: 4}.decide()
	for _, m := range []Maintenance{InService, Draining, Drained} {
		for _, told := range []int{0, 4} {
			other := pairView{maintenance: m, ready: told > 0, told: told, all: 4}.decide()
			for _, bfdWorks := range []bool{false, true} {
				up := bfdWorks && other.speaks && us.speaks
				theirs := other.own || takes(us.speaks, up, true, 0)
				ours := us.own
				if !theirs || !ours {
					t.Errorf("other %v with %d told, BFD works %v: own address %v, the other's %v", m, told, bfdWorks, ours, theirs)
				}
			}
		}
	}
}
