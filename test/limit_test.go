package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/test/injector"
)

// TestPrefixLimits has sessions at their limits, one below and one above: those
// that no FRR is asked to fill (see prefixLimit for the others). The warning
// at 80 % is looked for in the metrics too.
func TestPrefixLimits(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	l.editConfig("msee1", func(cfg map[string]any) { cfg["bgp"].(map[string]any)["maximumPrefixesRetrySeconds"] = 3 })
	l.addCustomer("Premium")
	t.Run("private IPv6", func(t *testing.T) {
		l.in(t).injectedLimit("2001:db8:90::1", "2001:db8:90::2", 100, injector.Slash64s)
	})
	t.Run("private Premium", func(t *testing.T) {
		l.in(t).injectedLimit("192.168.90.1", "192.168.90.2", 10_000, injector.Slash24s)
	})
	t.Run("gateway", func(t *testing.T) { gatewayLimit(t, l.in(t)) })
}

// atLimit waits until a session of msee1 is up with so many prefixes, and wants
// the metrics to warn, or not.
func (l *testLab) atLimit(vrf, peer string, n, limit int, state bgp.LimitState) {
	l.t.Helper()
	eventually(l.t, time.Minute, fmt.Sprintf("%d prefixes", n), func() error {
		s, err := l.session("msee1", vrf, peer)
		if err == nil && (s.State != bgp.StateEstablished || s.Received != n || s.Prefixes.Limit != limit || s.Prefixes.State != state) {
			err = fmt.Errorf("%s (%s), %d received, %+v", s.State, s.Reason, s.Received, s.Prefixes)
		}
		return err
	})
	warning := 0
	if state != bgp.LimitOK {
		warning = 1
	}
	l.awaitMetric(fmt.Sprintf("msee_bgp_prefixes_received{neighbor=%q,side=SIDE,vrf=%q} %d", peer, vrf, n))
	l.awaitMetric(fmt.Sprintf("msee_bgp_prefix_limit_warning{neighbor=%q,side=SIDE,vrf=%q} %d", peer, vrf, warning))
}

// exceeded waits until a session of msee1 is down for its limit.
func (l *testLab) exceeded(vrf, peer string, limit int) {
	l.t.Helper()
	eventually(l.t, time.Minute, "one prefix too many", func() error {
		s, err := l.session("msee1", vrf, peer)
		why := fmt.Sprintf("more than %d prefixes", limit)
		if err == nil && (s.State == bgp.StateEstablished || s.Accepted != 0 || s.Prefixes.Exceeded == 0 || !strings.Contains(s.Reason, why)) {
			err = fmt.Errorf("%s (%s), %d accepted, %+v", s.State, s.Reason, s.Accepted, s.Prefixes)
		}
		return err
	})
}

// awaitMetric waits for a line of msee1's metrics; SIDE stands for any.
func (l *testLab) awaitMetric(line string) {
	l.t.Helper()
	begin, end, _ := strings.Cut(line, "SIDE")
	eventually(l.t, 20*time.Second, line, func() error {
		out, err := l.msee("show", "metrics", "-d", l.ns("msee1"))
		if err != nil {
			return err
		}
		for _, s := range strings.Split(out, "\n") {
			if strings.HasPrefix(s, begin) && strings.HasSuffix(s, end) {
				return nil
			}
		}
		return fmt.Errorf("there is no such line")
	})
}

// injectedLimit fills the customer's session of er9.
func (l *testLab) injectedLimit(ce, msee string, limit int, prefixes func(int) []netip.Prefix) {
	const vrf = "er9-private"
	t := l.t
	t.Helper()
	all := prefixes(limit + 1)
	i := injector.Injector{AS: 65009, Local: netip.MustParseAddr(ce), Peer: netip.MustParseAddr(msee)}
	connect := func() {
		t.Helper()
		if err := i.Connect(t.Context(), l.ns("ce")); err != nil {
			t.Fatal(err)
		}
	}
	announce := func(p []netip.Prefix) {
		t.Helper()
		if err := i.Announce(p); err != nil {
			t.Fatal(err)
		}
	}
	connect()
	defer func() { i.Close() }()
	near := limit * 8 / 10
	announce(all[:near-1])
	l.atLimit(vrf, ce, near-1, limit, bgp.LimitOK)
	announce(all[near-1 : limit-1])
	l.atLimit(vrf, ce, limit-1, limit, bgp.LimitNear)
	announce(all[limit-1 : limit])
	l.atLimit(vrf, ce, limit, limit, bgp.LimitNear)
	announce(all[limit:])
	l.exceeded(vrf, ce, limit)
	i.Close()
	connect() // as soon as it may
	announce(all[:limit])
	l.atLimit(vrf, ce, limit, limit, bgp.LimitNear)
}

// gatewayLimit gives the VNet of gw0 ever more prefixes: the connection's
// session with msee1 takes 1,000.
func gatewayLimit(t *testing.T, l *testLab) {
	const vrf, gw, limit = "er1-private", "10.100.255.12", 1000
	vnet := func(n int) {
		t.Helper()
		l.editConfig("gw0", func(cfg map[string]any) {
			space := cfg["virtualNetwork"].(map[string]any)["addressSpace"].(map[string]any)
			own := space["addressPrefixes"].([]any)[:2] // one of each family
			prefixes := slices.Clone(own)
			for _, p := range injector.Slash24s(n - 1) {
				prefixes = append(prefixes, p.String())
			}
			space["addressPrefixes"] = prefixes
		})
		if out, err := l.msee("reload", "-d", l.ns("gw0")); err != nil {
			t.Fatalf("reload: %v\n%s", err, out)
		}
	}
	vnet(limit - 1)
	l.atLimit(vrf, gw, limit-1, limit, bgp.LimitNear)
	vnet(limit)
	l.atLimit(vrf, gw, limit, limit, bgp.LimitNear)
	vnet(limit + 1)
	l.exceeded(vrf, gw, limit)
	vnet(limit)
	l.atLimit(vrf, gw, limit, limit, bgp.LimitNear)
	vnet(1)
	l.atLimit(vrf, gw, 1, limit, bgp.LimitOK)
}
