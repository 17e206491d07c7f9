package speaker

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
)

const gracefulFRR = ` bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 bgp graceful-restart restart-time 25
`

// TestPeerRestarts kills bgpd: its routes are to be kept, and their End-of-RIB
// comes when it is back.
func TestPeerRestarts(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, gracefulFRR+neighbour(v4a)+neighbour(v6a)+
		" address-family ipv4 unicast\n  network 192.0.2.0/24\n exit-address-family\n"+
		" address-family ipv6 unicast\n  network fd77::/48\n exit-address-family\n")
	e := newEdge(t)
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.until("End-of-RIB of both families", 20*time.Second, func() bool { return e.eors == 2 })
	if st := e.of(c4.Name); st.RestartTime != 25*time.Second {
		t.Errorf("negotiated %+v, want a restart time of 25 s", st)
	}
	f.kill()
	for _, c := range []bgp.SessionConfig{c4, c6} {
		e.until("routes retained", 10*time.Second, func() bool {
			st := e.status[c.Name]
			return st.State != bgp.StateEstablished && st.Retain == 25*time.Second
		})
	}
	f.start()
	e.until("End-of-RIB again", 20*time.Second, func() bool { return e.eors == 4 })
	if st := e.of(c4.Name); !st.Preserved || st.Retain != 0 {
		t.Errorf("back with %+v, want its forwarding preserved", st)
	}

	// A NOTIFICATION, of either side, is no restart.
	f.run("clear bgp *")
	e.until("flap", 5*time.Second, func() bool { return e.status[c4.Name].Flaps == 2 })
	e.untilState(c4.Name, bgp.StateEstablished, 20*time.Second)
	e.Reset(c6.Name, "reset by the test")
	e.untilState(c6.Name, bgp.StateEstablished, 20*time.Second)
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, kept := range e.retained {
		if kept != 1 {
			t.Errorf("%s was retained %d times", name, kept)
		}
	}
}

// TestSpeakerRestarts kills the speaker: bgpd keeps our routes, and what it is
// not told again goes.
func TestSpeakerRestarts(t *testing.T) {
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a)+neighbour(v6a)) // helper by default
	e := newEdge(t, "/proc/self/exe", "speaker")
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.Advertise(announce(c4.Name, &bgp.Attrs{}, "10.0.0.0/8", "10.1.0.0/16"))
	e.Advertise(announce(c6.Name, &bgp.Attrs{}, "fd01::/48"))
	eventually(t, "our routes in bgpd", 20*time.Second, func() bool { return f.count("ipv4", v4a) == 2 && f.count("ipv6", v6a) == 1 })
	for _, how := range []struct {
		name string
		sig  os.Signal
	}{{"dies", syscall.SIGKILL}, {"hangs", syscall.SIGSTOP}} {
		stop, watched := make(chan struct{}), make(chan int)
		go func() { // how often a route was missing
			missing := 0
			for {
				select {
				case <-stop:
					watched <- missing
					return
				default:
				}
				for _, p := range []string{"10.0.0.0/8", "fd01::/48"} {
					if _, ok := f.route(p); !ok {
						missing++
					}
				}
			}
		}()
		before := e.restartsNow()
		p, err := os.FindProcess(childPID(t))
		must(t, err)
		began := time.Now()
		must(t, p.Signal(how.sig))
		e.until("restart", 15*time.Second, func() bool { return e.restarts == before+1 })
		t.Logf("it %s: another one after %v", how.name, time.Since(began))
		// Told to the new one only after it is up: bgpd may keep it till then.
		e.Advertise(bgp.Update{Session: c4.Name, Withdraw: prefixesOf("10.1.0.0/16")})
		e.untilState(c4.Name, bgp.StateEstablished, 20*time.Second)
		e.untilState(c6.Name, bgp.StateEstablished, 20*time.Second)
		eventually(t, "no stale routes in bgpd", 20*time.Second, func() bool {
			r, ok := f.route("10.0.0.0/8")
			s, ok6 := f.route("fd01::/48")
			return ok && ok6 && !r.Stale && !s.Stale && f.count("ipv4", v4a) == 1
		})
		close(stop)
		if n := <-watched; n > 0 {
			t.Errorf("it %s: a route was missing in bgpd %d times", how.name, n)
		}
		e.Advertise(announce(c4.Name, &bgp.Attrs{}, "10.1.0.0/16"))
		eventually(t, "the second route in bgpd", 10*time.Second, func() bool { return f.count("ipv4", v4a) == 2 })
	}
}

func prefixesOf(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// TestKeyRotation changes the key at one end, then at the other: nothing is
// lost and nobody notices.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	a, b := newEdge(t), newEdge(t)
	ca := ourSession(nsA, v4a, v4b)
	cb := theirSession(ca, nsB)
	ca.Key, cb.Key = "old", "old"
	a.Configure([]bgp.SessionConfig{ca})
	b.Configure([]bgp.SessionConfig{cb})
	a.untilState(ca.Name, bgp.StateEstablished, 10*time.Second)
	b.untilState(cb.Name, bgp.StateEstablished, 10*time.Second)
	ca.Key = "new"
	a.Configure([]bgp.SessionConfig{ca})
	a.Advertise(announce(ca.Name, &bgp.Attrs{}, "10.0.0.0/8")) // lost until the keys agree
	time.Sleep(500 * time.Millisecond)
	b.mu.Lock()
	early := b.hasLocked(cb.Name, "10.0.0.0/8")
	b.mu.Unlock()
	if early {
		t.Error("a segment with the new key was taken with the old one")
	}
	cb.Key = "new"
	b.Configure([]bgp.SessionConfig{cb})
	b.until("the route", 10*time.Second, func() bool { return b.hasLocked(cb.Name, "10.0.0.0/8") })
	for _, st := range []bgp.SessionStatus{a.of(ca.Name), b.of(cb.Name)} {
		if st.State != bgp.StateEstablished || st.Flaps != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// TestTTLSecurity: with bgpd's ttl-security the session comes up, without it
// not, and the reason says why.
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a, "timers connect 1")+neighbour(v6a, "timers connect 1"))
	e := newEdge(t)
	c4, c6 := ourSession(nsA, v4a, v4b), ourSession(nsA, v6a, v6b)
	c4.TTLSecurity, c6.TTLSecurity = true, true
	e.Configure([]bgp.SessionConfig{c4, c6})
	e.untilReason(c4.Name, "TTL security: the peer's segments arrive with a TTL below 255", 20*time.Second)
	e.untilReason(c6.Name, "TTL security: the peer's segments arrive with a TTL below 255", 20*time.Second)
	if s := e.of(c4.Name).State; s == bgp.StateEstablished {
		t.Error("up without TTL security at the peer")
	}
	f.run("configure terminal", "router bgp 65001", "neighbor "+v4a+" ttl-security hops 1", "neighbor "+v6a+" ttl-security hops 1")
	e.untilState(c4.Name, bgp.StateEstablished, 30*time.Second)
	e.untilState(c6.Name, bgp.StateEstablished, 30*time.Second)
}

// TestShortHold refuses a hold time below the floor.
func TestShortHold(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a, "timers 1 9", "timers connect 1"))
	e := newEdge(t)
	c := ourSession(nsA, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	e.untilReason(c.Name, "sent OPEN error / unacceptable hold time (2/6): the peer wants a hold time of 9s; at least 10s is accepted here", 20*time.Second)
	f.run("configure terminal", "router bgp 65001", "neighbor "+v4a+" timers 3 10")
	e.untilState(c.Name, bgp.StateEstablished, 20*time.Second)
}

// TestRefresh: bgpd asks for all of it again.
func TestRefresh(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	f := newFRR(t, nsB, neighbour(v4a)+` address-family ipv4 unicast
  neighbor 192.168.15.18 route-map IN in
 exit-address-family
route-map IN deny 10
`)
	e := newEdge(t)
	c := ourSession(nsA, v4a, v4b)
	e.Advertise(announce(c.Name, &bgp.Attrs{}, "10.0.0.0/8"))
	e.Configure([]bgp.SessionConfig{c})
	e.until("End-of-RIB", 20*time.Second, func() bool { return e.eors == 1 })
	if _, ok := f.route("10.0.0.0/8"); ok {
		t.Fatal("the route-map lets it pass")
	}
	// Without soft-reconfiguration bgpd has kept nothing: it must ask.
	f.run("configure terminal", "route-map IN permit 10", "end", "clear bgp ipv4 unicast * soft in")
	eventually(t, "the route in bgpd", 10*time.Second, func() bool { _, ok := f.route("10.0.0.0/8"); return ok })
	if n := e.of(c.Name).Flaps; n != 0 {
		t.Errorf("%d flaps", n)
	}
}
