package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bfd"
	"msee/bgp"
	"msee/edge"
)

// TestLinkAdminState switches a link off and on by its adminState: the customer
// hears an administrative shutdown, and then has no carrier; traffic takes the other
// link meanwhile, and a device that is killed in between finds its way back.
func TestLinkAdminState(t *testing.T) {
	l := startLab(t, "default")
	p := startProbes(l)
	set := func(state string) {
		t.Helper()
		l.editConfig("msee1", func(cfg map[string]any) {
			cfg["ports"].([]any)[0].(map[string]any)["adminState"] = state
		})
		if out, err := l.msee("reload", "-d", l.ns("msee1")); err != nil {
			t.Fatalf("reload: %v\n%s", err, out)
		}
	}
	carrier := func(want bool) {
		t.Helper()
		eventually(t, 20*time.Second, fmt.Sprintf("the customer's carrier is %v", want), func() error {
			out := l.exec("ce", "ip", "link", "show", "link1")
			if has := strings.Contains(out, "LOWER_UP"); has != want {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	link := func() string {
		for _, port := range show[edge.PortStatus](l, "msee1", "ports") {
			if port.Name == "cust" {
				return port.Link
			}
		}
		return ""
	}
	begin := p.now()
	set("Disabled")
	carrier(false)
	p.healthy(t, 20*time.Second)
	x := p.since(t, begin)
	t.Logf("switched off: %v", x)
	if x.outage() > told {
		t.Errorf("switched off: %v; want its traffic on the other link", x)
	}
	if !l.notified("ce", "192.168.15.18", "6/2") {
		t.Error("the CE has not received an administrative shutdown")
	}
	eventually(t, 20*time.Second, "the MSEE says so", func() error {
		s, err := l.session("msee1", "er1-private", "192.168.15.17")
		if err == nil && (s.State == bgp.StateEstablished || !strings.Contains(s.Reason, "adminState") || link() != "down") {
			err = fmt.Errorf("the session is %s (%s), the link %s", s.State, s.Reason, link())
		}
		return err
	})

	command := l.end("msee1", syscall.SIGKILL)
	l.editConfig("msee1", func(cfg map[string]any) { delete(cfg["ports"].([]any)[0].(map[string]any), "adminState") })
	l.start("msee1", command...)
	carrier(true)
	l.awaitSessions(60*time.Second, "msee1")
	set("Disabled")
	carrier(false)
	command = l.end("msee1", syscall.SIGTERM)
	time.Sleep(time.Second) // for a light that should not be
	carrier(false)
	l.start("msee1", command...)
	eventually(t, 20*time.Second, "the MSEE is back, with the link down", func() error {
		if s, err := l.session("msee1", "er1-private", "192.168.15.17"); err != nil || !strings.Contains(s.Reason, "adminState") {
			return fmt.Errorf("the session is down for %q (%v)", s.Reason, err)
		}
		return nil
	})
	carrier(false)
	set("Enabled")
	carrier(true)
	l.awaitSessions(60*time.Second, "msee1")
	l.awaitBFD(bfd.Up, 20*time.Second, "192.168.15.17", "2001:db8:0:10::1")
}

// end ends a device with a signal, and returns its command line when it has ended.
func (l *testLab) end(node string, sig syscall.Signal) []string {
	l.t.Helper()
	pid := l.pid(node)
	command := l.kill(node, sig)
	eventually(l.t, 20*time.Second, node+" has ended", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err == nil && (!strings.Contains(string(stat), ") Z ") || len(threads) > 1) {
			return fmt.Errorf("%d threads, %s", len(threads), stat)
		}
		return nil
	})
	return command
}
