package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"msee/bgp"
)

// TestPeeringState disables a peering on both MSEEs and enables it again, as a
// customer does for a test of recovery: both links' sessions go, with a Cease that
// says so; the configuration is kept, and the state of IPv6 is its
// own.
func TestPeeringState(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	set := func(state, ipv6 string) {
		t.Helper()
		for _, node := range msees {
			l.editConfig(node, func(cfg map[string]any) {
				p := peeringOf(cfg, "er1")
				p["state"] = state
				p["ipv6PeeringConfig"].(map[string]any)["state"] = ipv6
			})
			if out, err := l.msee("reload", "-d", l.ns(node)); err != nil {
				t.Fatalf("reload of %s: %v\n%s", node, err, out)
			}
		}
	}
	peers := map[string][2]string{"msee1": {"192.168.15.17", "2001:db8:0:10::1"}, "msee2": {"192.168.15.21", "2001:db8:0:14::1"}}
	await := func(four, six bgp.State) {
		t.Helper()
		for node, p := range peers {
			l.awaitState(node, "er1-private", p[0], four, 30*time.Second)
			l.awaitState(node, "er1-private", p[1], six, 30*time.Second)
		}
	}
	set("Disabled", "Enabled")
	await(bgp.StateDisabled, bgp.StateEstablished)
	eventually(t, 20*time.Second, "the CE knows why", func() error {
		for _, n := range []string{"192.168.15.18", "192.168.15.22"} {
			// BFD's AdminDown comes behind: bgpd takes it for a failure.
			if !l.notified("ce", n, "6/2") {
				return fmt.Errorf("no administrative shutdown of %s in its log", n)
			}
		}
		return nil
	})
	eventually(t, 20*time.Second, "the CE has no route to the VNet any more", func() error { // bgpd clears them in the background
		if out := l.vtysh("ce", "show bgp ipv4 unicast 10.100.0.0/16"); strings.Contains(out, "192.168.15.18") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	set("Disabled", "Disabled")
	await(bgp.StateDisabled, bgp.StateDisabled)
	set("Enabled", "Enabled")
	await(bgp.StateEstablished, bgp.StateEstablished)
	l.awaitRoutes("gw0", "gw1")
}
