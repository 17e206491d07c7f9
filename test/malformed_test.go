package test

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
	"msee/test/injector"
)

var malformedUpdates = flag.Int("malformed", 40_000, "how many malformed UPDATEs TestMalformedUpdates sends beside traffic")

// TestMalformedUpdates has a customer send malformed UPDATEs, IPv4 and IPv6, for
// all it is worth, while another VRF's traffic passes at 1 kpps: not one packet is
// lost, no session ends, the speaker lives, and routes still come through.
func TestMalformedUpdates(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	l.addCustomer("Standard")
	for _, node := range []string{"ce", "vm"} {
		l.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	}
	p := l.startProbe("onprem", "vm", "10.100.1.10", probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	before := othersOf(l)
	begin := p.now()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for _, c := range []struct {
		ce, msee string
		prefixes []netip.Prefix
		good     netip.Prefix
	}{
		{"192.168.90.1", "192.168.90.2", injector.Slash24s(1000), netip.MustParsePrefix("203.0.113.0/24")},
		{"2001:db8:90::1", "2001:db8:90::2", injector.Slash64s(50), netip.MustParsePrefix("2001:db8:1:2::/64")},
	} {
		i := injector.Injector{AS: 65009, Local: netip.MustParseAddr(c.ce), Peer: netip.MustParseAddr(c.msee)}
		if err := i.Connect(t.Context(), l.ns("ce")); err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		began := time.Now()
		var batch []byte
		for n := range *malformedUpdates / 2 {
			m := i.Mutate(r, c.prefixes[r.IntN(len(c.prefixes))])
			if batch = append(batch, m...); len(batch) > 1<<16 {
				if err := i.Send(batch); err != nil {
					s, _ := l.session("msee1", "er9-private", c.ce)
					t.Fatalf("%s: after %d UPDATEs: %v; %s: %s", c.ce, n, err, s.State, s.Reason)
				}
				batch = batch[:0]
			}
		}
		if err := i.Send(batch); err != nil {
			t.Fatal(err)
		}
		if err := i.Announce([]netip.Prefix{c.good}); err != nil {
			t.Fatal(err)
		}
		l.awaitRoute("msee1", c.good.String(), 1, func(edge.PathStatus) error { return nil })
		t.Logf("%s: %d malformed UPDATEs in %v", c.ce, *malformedUpdates/2, time.Since(began).Round(time.Millisecond))
		if s, err := l.session("msee1", "er9-private", c.ce); err != nil || s.State != bgp.StateEstablished || s.Flaps > 0 {
			t.Errorf("%s: %s, %d flaps: %s %v", c.ce, s.State, s.Flaps, s.Reason, err)
		}
	}
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("the other VRF: %v", x)
	} else {
		t.Logf("the other VRF: %v", x)
	}
	if after := othersOf(l); after != before {
		t.Errorf("the other sessions were\n%s\nand are\n%s", before, after)
	}
	l.awaitMetric("msee_bgp_speaker_restarts_total 0")
}
