package edge

import (
	"testing"
	"time"

	"msee/bfd"
	"msee/config"
	"msee/dataplane"
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

// TestPairWithoutMSEEs: an instance that is not ready has its own addresses unless
// the other, which is, has told that it answers for them.
func TestPairWithoutMSEEs(t *testing.T) {
	quiet, ready := dataplane.BFDReport{Heard: true, Peer: bfd.AdminDown}, dataplane.BFDReport{Heard: true, Peer: bfd.Down}
	unaware, dead := dataplane.BFDReport{Heard: true, Peer: bfd.Up}, dataplane.BFDReport{Peer: bfd.Down}
	for _, c := range []struct {
		name       string
		m          Maintenance
		has, taken bool
		other      dataplane.BFDReport
		silent     time.Duration
		own, takes bool
	}{
		{"neither has an MSEE left", InService, true, false, quiet, 0, true, false},
		{"the same, the other's taken before", InService, true, true, quiet, 0, true, true},
		{"both begin", InService, false, false, quiet, 0, true, false},
		{"the other takes over", InService, true, false, ready, 0, false, false},
		{"the other took us over, and comes up", InService, false, false, dataplane.BFDReport{Heard: true, Peer: bfd.Init}, 0, false, false},
		{"the other has not heard yet", InService, true, false, unaware, 0, true, false},
		{"begins, the other takes us for what we were", InService, false, false, unaware, 0, false, false},
		{"the other died just now", InService, true, false, dead, pairWait - 1, true, false},
		{"the other died just now, which has our addresses", InService, false, false, dead, pairWait - 1, false, false},
		{"the other is dead", InService, false, false, dead, pairWait, true, true},
		{"the other is drained", InService, true, true, quiet, 0, true, true},
		{"draining", Draining, true, false, quiet, 0, true, false},
		{"draining, the other dead", Draining, true, false, dead, pairWait, true, false},
		{"drained", Drained, false, false, dead, pairWait, false, false},
	} {
		own := keepsOwn(c.m, c.has, c.other, c.silent)
		if takes := keepsTaken(c.m, own, c.taken, c.other, c.silent); own != c.own || takes != c.takes {
			t.Errorf("%s: own %v, takes %v; want %v, %v", c.name, own, takes, c.own, c.takes)
		}
	}
}

// TestPairReadyWithoutLinks: what an instance has heard of its MSEEs counts also
// while there is no pair, and those of its sessions that are disabled never do.
func TestPairReadyWithoutLinks(t *testing.T) {
	b := newBench(t)
	b.device.Kind, b.maintenance = config.KindGateway, InService
	now := time.Now()
	for name, s := range b.sessions {
		s.cfg.Side, s.cfg.Enabled = config.SideCore, name != "ce"
		s.told, s.sweepAt = name != "ce" && name != "gw0", now.Add(staleFor)
	}
	for _, step := range []struct {
		after time.Duration // gw0 is configured, and is not there
		ready bool
	}{{0, false}, {pairWait - 1, false}, {pairWait, true}, {2 * pairWait, true}} {
		if b.reviewPair(now.Add(step.after)); b.pair.ready != step.ready {
			t.Errorf("after %v: ready %v", step.after, b.pair.ready)
		}
	}
	b.pair = pair{}
	b.sessions["gw0"].cfg.Enabled = false
	if b.reviewPair(now); !b.pair.ready {
		t.Error("not ready though all sessions that are enabled have told")
	}
	b.pair = pair{}
	b.sessions["gw0"].cfg.Enabled, b.sessions["gw0"].cfg.TellOnly = true, true
	if b.reviewPair(now); !b.pair.ready {
		t.Error("not ready though who has not told is never listened to")
	}
}

// TestPairServes: the last instance of a gateway is not drained by mistake.
func TestPairServes(t *testing.T) {
	for _, c := range []struct {
		speaks bool
		r      dataplane.BFDReport
		want   bool
	}{
		{true, dataplane.BFDReport{State: bfd.Up, Peer: bfd.Up, Heard: true}, true},
		{true, dataplane.BFDReport{State: bfd.Down, Peer: bfd.AdminDown, Heard: true}, false}, // drained
		{true, dataplane.BFDReport{State: bfd.Down, Peer: bfd.Down}, false},                   // dead
		{false, dataplane.BFDReport{State: bfd.AdminDown, Peer: bfd.Down, Heard: true}, true}, // has taken over
		{false, dataplane.BFDReport{State: bfd.AdminDown, Peer: bfd.AdminDown, Heard: true}, false},
		{false, dataplane.BFDReport{State: bfd.AdminDown, Peer: bfd.Down}, false},
	} {
		if got := serves(c.speaks, c.r); got != c.want {
			t.Errorf("we speak %v, %+v: serves %v", c.speaks, c.r, got)
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
				// Not ready, it has heard from us, if at all, that we take over.
				otherOwn := other.own || !other.ready && keepsOwn(m, true, dataplane.BFDReport{Heard: bfdWorks, Peer: bfd.Down}, 0)
				theirs := otherOwn || takes(us.speaks, up, true, 0)
				ours := us.own
				if !theirs || !ours {
					t.Errorf("other %v with %d told, BFD works %v: own address %v, the other's %v", m, told, bfdWorks, ours, theirs)
				}
			}
		}
	}
}

// TestPairNeedsIPv6: without it there is no pair, and nothing else is missing.
func TestPairNeedsIPv6(t *testing.T) {
	dev := &config.Device{Kind: config.KindGateway, VRFs: []config.VRF{{Name: "vnet1", Subinterfaces: []config.Subinterface{
		{Name: "core.200"}, {Name: "vnet.10", Pair: &config.Pair{}}}}}}
	got := noPairs(dev)
	if s := got.VRFs[0].Subinterfaces; len(s) != 2 || s[1].Name != "vnet.10" || s[1].Pair != nil {
		t.Errorf("%+v", s)
	}
	if dev.VRFs[0].Subinterfaces[1].Pair == nil {
		t.Error("the configuration itself was changed")
	}
	if noPairs(got) != got {
		t.Error("changed though there is no pair")
	}
}

// TestReloadKeepsInstance: a reload makes no instance of a gateway the other one.
func TestReloadKeepsInstance(t *testing.T) {
	device := func(kind config.Kind, role string) *config.Device { return &config.Device{Kind: kind, Role: role} }
	for _, c := range []struct {
		was, dev *config.Device
		refused  bool
	}{
		{device("", ""), device(config.KindGateway, "1"), false}, // the start
		{device(config.KindGateway, "0"), device(config.KindGateway, "0"), false},
		{device(config.KindGateway, "0"), device(config.KindGateway, "1"), true},
		{device(config.KindEdge, "primary"), device(config.KindEdge, "secondary"), false},
	} {
		if err := sameInstance(c.was, c.dev); (err != nil) != c.refused {
			t.Errorf("%+v to %+v: %v", c.was, c.dev, err)
		}
	}
}

// TestInstanceState: what is shown of an instance is what it was told first, and
// whether it is ready next.
func TestInstanceState(t *testing.T) {
	for _, c := range []struct {
		m     Maintenance
		ready bool
		want  string
	}{{InService, true, "in service"}, {InService, false, "waits for MSEEs"}, {Draining, true, "draining"},
		{Draining, false, "draining"}, {Drained, true, "drained"}, {Drained, false, "drained"}} {
		if got := instanceState(c.m, c.ready); got != c.want {
			t.Errorf("%s, ready %v: %q", c.m, c.ready, got)
		}
	}
}
