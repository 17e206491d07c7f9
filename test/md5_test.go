package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"msee/bgp"
)

// TestMD5 has one session whose ends agree on the key, and three that must stay
// down and say why, until the customer mends them.
func TestMD5(t *testing.T) {
	l := newLab(t)
	out, err := l.msee("lab", "up", "--name", l.name, "--timeout", "8s", "testdata/md5.yaml")
	if err == nil || !strings.Contains(out, "TCP-MD5") {
		t.Errorf("lab up with wrong keys: %v; want a failure that names TCP-MD5:\n%s", err, out)
	}
	l.awaitState("msee1", "right-private", "192.168.1.1", bgp.StateEstablished, 20*time.Second)
	wrong := []struct{ vrf, peer, reason, mend string }{
		{"wrong-private", "192.168.2.1", "keys differ", "neighbor 192.168.2.2 password Key0other"},
		{"ours-private", "192.168.3.1", "the peer sends no TCP-MD5", "neighbor 192.168.3.2 password Key0ours"},
		{"theirs-private", "192.168.4.1", "no sharedKey is set here", "no neighbor 192.168.4.2 password"},
	}
	for _, c := range wrong {
		eventually(t, 20*time.Second, c.vrf, func() error {
			s, err := l.session("msee1", c.vrf, c.peer)
			if err != nil {
				return err
			}
			if s.State == bgp.StateEstablished || s.Flaps > 0 {
				t.Fatalf("%s: the session came up with keys that do not match", c.vrf)
			}
			if !strings.Contains(s.Reason, "TCP-MD5") || !strings.Contains(s.Reason, c.reason) {
				return fmt.Errorf("the reason is %q, want TCP-MD5 and %q", s.Reason, c.reason)
			}
			return nil
		})
	}
	table, err := l.msee("show", "bgp", "-d", l.ns("msee1"))
	if err != nil || strings.Count(table, "TCP-MD5: ") != len(wrong) {
		t.Errorf("show bgp: %v; want the reasons of %d sessions:\n%s", err, len(wrong), table)
	}
	for _, c := range wrong {
		l.vtysh("ce", "configure terminal", "router bgp 65001", c.mend)
	}
	for _, c := range wrong {
		l.awaitState("msee1", c.vrf, c.peer, bgp.StateEstablished, 30*time.Second)
	}
	if s, err := l.session("msee1", "right-private", "192.168.1.1"); err != nil || s.Flaps > 0 {
		t.Errorf("the session with the right key went down: %v, %+v", err, s)
	}
	keysStaySecret(t, l, table)
}

// keysStaySecret looks for the MSEE's keys in what it says.
func keysStaySecret(t *testing.T, l *testLab, said ...string) {
	for name, text := range l.logs() {
		if strings.HasPrefix(name, "msee1") {
			said = append(said, text)
		}
	}
	said = append(said, l.processes()...)
	for _, what := range []string{"circuits", "peerings", "bgp", "routes"} {
		out, err := l.msee("show", what, "--json", "-d", l.ns("msee1"))
		if err != nil {
			t.Errorf("show %s: %v", what, err)
		}
		said = append(said, out)
	}
	for _, s := range said {
		if at := strings.Index(s, "Key0"); at >= 0 {
			t.Errorf("a key is shown: …%s…", s[max(0, at-60):min(len(s), at+20)])
		}
	}
}
