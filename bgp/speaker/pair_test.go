package speaker

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"msee/bgp"
	"msee/netns"
)

// TestPair runs two speakers against each other, both of which dial.
func TestPair(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	a, b := newEdge(t), newEdge(t)
	var ca, cb []bgp.SessionConfig
	for _, x := range [][2]string{{v4a, v4b}, {v6a, v6b}} {
		c := ourSession(nsA, x[0], x[1])
		ca, cb = append(ca, c), append(cb, theirSession(c, nsB))
	}
	attrs := &bgp.Attrs{ASPath: []uint32{65515, 4200000000}, MED: 7, HasMED: true, Communities: []uint32{12076<<16 | 5}}
	a.Advertise(announce(ca[0].Name, attrs, "10.1.0.0/16", "0.0.0.0/0"))
	a.Advertise(announce(ca[1].Name, attrs, "fd01::/48"))
	a.Configure(ca)
	b.Configure(cb)
	for i := range ca {
		a.untilState(ca[i].Name, bgp.StateEstablished, 10*time.Second)
		b.untilState(cb[i].Name, bgp.StateEstablished, 10*time.Second)
	}
	b.until("routes", 5*time.Second, func() bool { return len(b.rib[cb[0].Name]) == 2 && len(b.rib[cb[1].Name]) == 1 })
	for name, p := range map[string]string{cb[0].Name: "10.1.0.0/16", cb[1].Name: "fd01::/48"} {
		want := *attrs
		want.ASPath = []uint32{ourAS, 65515, 4200000000}
		want.NextHop = netip.MustParseAddr(v4a)
		if netip.MustParsePrefix(p).Addr().Is6() {
			want.NextHop = netip.MustParseAddr(v6a)
		}
		if got := b.routesOf(name)[netip.MustParsePrefix(p)]; got == nil || !equal(got, &want) {
			t.Errorf("%s arrived with %+v, want %+v", p, got, want)
		}
	}
	if st := a.of(ca[0].Name); st.Hold != 180*time.Second || st.Keepalive != 60*time.Second || st.RemoteID != cb[0].RouterID ||
		st.LocalPort != bgpPort && st.PeerPort != bgpPort || st.Reason != "" || st.Flaps != 0 {
		t.Errorf("status %+v", st)
	}

	a.Advertise(bgp.Update{Session: ca[0].Name, Withdraw: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}})
	b.until("withdrawal", 5*time.Second, func() bool { return len(b.rib[cb[0].Name]) == 1 })

	a.Reset(ca[0].Name, "reset by the test")
	b.until("flap", 5*time.Second, func() bool { return b.status[cb[0].Name].Flaps == 1 })
	a.untilState(ca[0].Name, bgp.StateEstablished, 10*time.Second)
	b.untilState(cb[0].Name, bgp.StateEstablished, 10*time.Second)
	b.until("route after reset", 5*time.Second, func() bool { return len(b.rib[cb[0].Name]) == 1 })
	if r := b.of(cb[0].Name).Reason; r != "peer sent Cease / administrative reset (6/4)" {
		t.Errorf("reason at the other end: %q", r)
	}
	if st := a.of(ca[1].Name); st.Flaps != 0 {
		t.Errorf("the other session flapped: %+v", st)
	}

	// A list with one more entry disturbs nobody; one less ends a session.
	off := ourSession(nsA, v4a, "192.0.2.9")
	off.Enabled = false
	before := len(a.statesOf(ca[1].Name))
	a.Configure(append(ca, off))
	a.untilState(off.Name, bgp.StateDisabled, 5*time.Second)
	a.Configure(ca[1:])
	b.untilReason(cb[0].Name, "peer sent Cease / peer de-configured (6/3)", 5*time.Second)
	if n := len(a.statesOf(ca[1].Name)); n != before {
		t.Errorf("the untouched session moved: %v", a.statesOf(ca[1].Name)[before:])
	}
}

// TestNamespaceComesLate: the speaker waits for a namespace and follows it when
// it is made anew.
func TestNamespaceComesLate(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	ns := fmt.Sprintf("speaker%d-late", os.Getpid())
	t.Cleanup(func() { netns.Delete(ns) })
	e := newEdge(t)
	c := ourSession(ns, v4a, v4b)
	e.Configure([]bgp.SessionConfig{c})
	e.untilReason(c.Name, "find namespace "+ns, 5*time.Second)
	for range 2 {
		must(t, netns.Create(ns))
		e.untilState(c.Name, bgp.StateActive, 5*time.Second)
		e.untilReason(c.Name, "unreachable: is the interface up and addressed?", 10*time.Second)
		must(t, netns.Delete(ns))
		e.untilReason(c.Name, "find namespace "+ns, 5*time.Second)
	}
}
