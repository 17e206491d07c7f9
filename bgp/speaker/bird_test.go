package speaker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/netns"
)

// bird is a BIRD 2 of the customer's: a second opinion beside bgpd's.
type bird struct {
	t       *testing.T
	ns, dir string
	cmd     *exec.Cmd
}

// newBird runs BIRD in a namespace. Channel is put into its session over IPv4,
// and global before the sessions.
func newBird(t *testing.T, ns, global, session string) *bird {
	t.Helper()
	path, err := exec.LookPath("bird")
	if err != nil {
		t.Skip("needs BIRD 2: ", err)
	}
	b := &bird{t: t, ns: ns, dir: t.TempDir()}
	must(t, os.WriteFile(filepath.Join(b.dir, "bird.conf"), fmt.Appendf(nil, `
router id 10.255.0.1;
protocol device {}
%s
template bgp msee {
  local as %d;
  graceful restart on;
  graceful restart time 30;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  %s
}
protocol bgp four from msee { neighbor %s as %d; local %s; ipv4 { import all; export all; next hop self; }; }
protocol bgp six from msee { neighbor %s as %d; local %s; ipv6 { import all; export all; next hop self; }; }
`, global, theirAS, session, v4a, ourAS, v4b, v6a, ourAS, v6b), 0o644))
	b.start(path)
	t.Cleanup(b.kill)
	return b
}

// start runs it in the foreground, with recovery (-R) after a crash.
func (b *bird) start(path string, flags ...string) {
	b.t.Helper()
	b.cmd = exec.Command(path, append([]string{"-f", "-c", filepath.Join(b.dir, "bird.conf"), "-s", filepath.Join(b.dir, "ctl"), "-P", filepath.Join(b.dir, "pid")}, flags...)...)
	b.cmd.Stderr = b.t.Output()
	must(b.t, netns.Do(b.ns, b.cmd.Start))
}

func (b *bird) kill() { end(&b.cmd) }

// birdc returns what BIRD says to a command.
func (b *bird) birdc(command string) string {
	out, _ := exec.Command("birdc", "-s", filepath.Join(b.dir, "ctl"), command).CombinedOutput()
	return string(out)
}

// TestBIRD exchanges routes with BIRD 2 in both families, with TCP-MD5, TTL
// security and the hold time at the floor, and goes through a restart of each
// side.
func TestBIRD(t *testing.T) {
	nsA, nsB := link(t)
	b := newBird(t, nsB, `
protocol static s4 { ipv4; route 192.0.2.0/24 unreachable { bgp_community.add((65001,7)); }; route 198.51.100.0/24 unreachable; }
protocol static s6 { ipv6; route fd77::/48 unreachable; }
`, `password "rightkey"; ttl security on; hold time 10; keepalive time 3;`)
	e := newEdge(t, "/proc/self/exe", "speaker")
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	for _, c := range []*bgp.SessionConfig{&c4, &c6} {
		c.Key, c.TTLSecurity = "rightkey", true
	}
	e.Advertise(announce(c4.Name, &bgp.Attrs{ASPath: []uint32{65515, 4200000000}, Communities: []uint32{12076<<16 | 51006}}, "10.1.0.0/16"))
	e.Advertise(announce(c6.Name, &bgp.Attrs{}, "fd01::/48"))
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.until("routes of both families", 20*time.Second, func() bool {
		return e.hasLocked(c4.Name, "192.0.2.0/24") && e.hasLocked(c4.Name, "198.51.100.0/24") && e.hasLocked(c6.Name, "fd77::/48")
	})
	if st := e.of(c4.Name); st.Hold != 10*time.Second || st.RestartTime != 30*time.Second {
		t.Errorf("negotiated %+v", st)
	}
	got := e.routesOf(c4.Name)[prefixesOf("192.0.2.0/24")[0]]
	if !slices.Equal(got.ASPath, []uint32{theirAS}) || !slices.Equal(got.Communities, []uint32{65001<<16 | 7}) || got.NextHop.String() != v4b {
		t.Errorf("route in: %+v", got)
	}
	eventually(t, "our route in BIRD", 10*time.Second, func() bool {
		r := b.birdc("show route for 10.1.0.0/16 all")
		return strings.Contains(r, "BGP.as_path: 12076 65515 4200000000") && strings.Contains(r, "BGP.community: (12076,51006)") && strings.Contains(r, "BGP.next_hop: "+v4a) &&
			strings.Contains(b.birdc("show route for fd01::/48 all"), "BGP.as_path: 12076")
	})

	// Our restart: BIRD keeps the routes.
	before := e.restartsNow()
	p, err := os.FindProcess(childPID(t))
	must(t, err)
	must(t, p.Kill())
	e.until("restart", 10*time.Second, func() bool { return e.restarts == before+1 })
	for e.of(c4.Name).State != bgp.StateEstablished || e.of(c6.Name).State != bgp.StateEstablished {
		if !strings.Contains(b.birdc("show route for 10.1.0.0/16"), v4a) || !strings.Contains(b.birdc("show route for fd01::/48"), v6a) {
			t.Fatalf("BIRD lost our routes when the speaker died:\n%s", b.birdc("show route"))
		}
	}
	e.until("routes again", 20*time.Second, func() bool {
		return e.hasLocked(c4.Name, "192.0.2.0/24") && e.hasLocked(c6.Name, "fd77::/48")
	})

	// Theirs: we keep them until its End-of-RIB.
	eors := e.eorsNow()
	path, _ := exec.LookPath("bird")
	b.kill()
	e.until("routes retained", 5*time.Second, func() bool { return e.status[c4.Name].Retain == 30*time.Second })
	b.start(path, "-R")
	e.until("End-of-RIB", 30*time.Second, func() bool { return e.eors >= eors+2 })
	if st := e.of(c4.Name); !st.Preserved {
		t.Errorf("back with %+v, want its forwarding preserved", st)
	}
	b.birdc("disable four")
	e.untilReason(c4.Name, "peer sent Cease / administrative shutdown (6/2)", 10*time.Second)
}
