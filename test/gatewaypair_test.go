package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/api"
)

// TestGatewayPair: an instance of a gateway that is drained, stopped or killed is
// taken over by the other in the VNet as well, and gets its address back.
func TestGatewayPair(t *testing.T) {
	l := startLab(t, "default", "gw0", "gw1")
	own := map[string]string{"gw0": l.macOf("gw0"), "gw1": l.macOf("gw1")}
	p := startProbes(l)
	l.awaitVNet(t, own["gw0"])

	t.Run("drain", func(t *testing.T) {
		l := l.in(t)
		begin := p.now()
		if out, err := l.msee("drain", "-d", l.ns("gw0")); err != nil {
			t.Fatalf("drain: %v\n%s", err, out)
		}
		l.awaitVNet(t, own["gw1"])
		l.awaitTakeover("gw1", "[10.100.1.4 fd00:100:0:1::4]")
		if out, err := l.msee("undrain", "-d", l.ns("gw0")); err != nil {
			t.Fatalf("undrain: %v\n%s", err, out)
		}
		l.awaitSessions(30*time.Second, "gw0")
		l.awaitVNet(t, own["gw0"])
		p.healthy(t, 20*time.Second)
		// None, as a rule (test/losses -faults gateway-drained); the kernel of a host alone
		// would lose some 200.
		x := p.since(t, begin)
		t.Logf("drain and undrain: %v", x)
		if x.lost > probeRate/2 {
			t.Errorf("drain and undrain: %v", x)
		}
		l.awaitTakeover("gw1", "[]")
	})
	// Where only one knows of the pair, both answer for the other's address.
	t.Run("reload", func(t *testing.T) {
		l := l.in(t)
		begin := p.now()
		for _, takeover := range []bool{false, true} {
			l.editConfig("gw0", func(cfg map[string]any) {
				cfg["virtualNetworkGateway"].(map[string]any)["takeover"] = takeover
			})
			if out, err := l.msee("reload", "-d", l.ns("gw0")); err != nil {
				t.Fatalf("reload: %v\n%s", err, out)
			}
			eventually(t, 20*time.Second, "gw1 takes over or gives back", func() error {
				d, err := api.NewClient(l.ns("gw1")).Device()
				if err == nil && (d.TakesOver == nil) != takeover {
					err = fmt.Errorf("it has %v", d.TakesOver)
				}
				return err
			})
			time.Sleep(2 * time.Second) // what both announce each second has come by then
		}
		l.awaitVNet(t, own["gw0"])
		x := p.since(t, begin)
		t.Logf("takeover off and on again: %v", x)
		if x.lost > probeRate/2 {
			t.Errorf("takeover off and on again: %v", x)
		}
	})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		ok := t.Run(sig.String(), func(t *testing.T) {
			l := l.in(t)
			// The kernel of a host alone takes four seconds and more. Detection takes 0.9 s
			// of a killed one; of one that is stopped nothing needs to be detected.
			x, command := killAndRecover(l, p, "gw0", sig, 20*time.Second)
			if x.outage() > told {
				t.Errorf("%v; want less than %v", x, told)
			}
			l.awaitVNet(t, own["gw1"])
			comesBack(t, l, p, "gw0", command)
			l.awaitVNet(t, own["gw0"])
		})
		if !ok {
			return
		}
	}
}

// awaitTakeover waits until a gateway says that it has taken over just these addresses.
func (l *testLab) awaitTakeover(gateway, addrs string) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, gateway+" takes "+addrs+" over", func() error {
		d, err := api.NewClient(l.ns(gateway)).Device()
		if err == nil && fmt.Sprint(d.TakesOver) != addrs {
			err = fmt.Errorf("it takes %v", d.TakesOver)
		}
		return err
	})
}

// macOf is the MAC of a gateway's port in the VNet.
func (l *testLab) macOf(gateway string) string {
	return strings.TrimSpace(l.exec(gateway, "cat", "/sys/class/net/eth2/address"))
}

// awaitVNet waits until the VM has gateway instance 0's addresses at mac.
func (l *testLab) awaitVNet(t *testing.T, mac string) {
	t.Helper()
	for _, addr := range []string{"10.100.1.4", "fd00:100:0:1::4"} {
		eventually(t, 20*time.Second, addr+" is at "+mac, func() error {
			out := l.exec("vm", "sh", "-c", "ping -c 1 -W 1 "+addr+" >/dev/null; ip neigh show "+addr)
			if !strings.Contains(out, mac) {
				return fmt.Errorf("%q", out)
			}
			return nil
		})
	}
}
