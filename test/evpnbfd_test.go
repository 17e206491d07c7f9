package test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bfd"
	"msee/bgp"
	"msee/edge"
)

// downByBFD waits until a device's EVPN session with a peer is down, with BFD as the
// reason: the hold time, 10 s in the lab, would be told as another.
func (l *testLab) downByBFD(node, peer string) {
	l.t.Helper()
	eventually(l.t, 20*time.Second, node+" hears by BFD that "+peer+" is gone", func() error {
		s, err := l.session(node, "underlay", peer)
		if err == nil && (s.State == bgp.StateEstablished || !strings.Contains(s.Reason, "BFD")) {
			err = fmt.Errorf("session is %s: %s", s.State, s.Reason)
		}
		if err != nil {
			return err
		}
		rows, err := tryShow[edge.EVPNStatus](l, node, "evpn")
		for _, r := range rows {
			if r.Session == "underlay/"+peer {
				return fmt.Errorf("%+v is left", r)
			}
		}
		return err
	})
}

// TestEVPNBFD: BFD watches EVPN neighbours on the underlay, FRR of a VM's host and the
// gateways alike. What falls silent is noticed before BGP would, and what it told is gone:
// FastPath's endpoints, whose packets then go by the gateways, and a gateway's prefixes,
// of which the other one's are left.
func TestEVPNBFD(t *testing.T) {
	l := startLab(t, topology(t, "vxlan"), "gw0", "gw1")
	host := evpnHosts[0]
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	all := map[string][]string{"msee1": {host, "172.16.0.12", "172.16.0.13"}, "gw1": {"172.16.0.4", "172.16.0.5"}}
	for node, peers := range all {
		eventually(t, 20*time.Second, "BFD of "+node, func() error {
			now := l.bfdTo(node)
			for _, p := range peers {
				if s := now[p]; s.State != bfd.Up || s.VRF != "underlay" || s.Session != "underlay/"+p {
					return fmt.Errorf("with %s: %+v", p, s)
				}
			}
			return nil
		})
	}
	l.awaitLookup("msee1", "hit: host "+host)

	bfdd := l.frrDaemon("vm", "bfdd")
	if err := syscall.Kill(bfdd, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(bfdd, syscall.SIGCONT) // for a test that fails before it
	for _, node := range msees {
		l.downByBFD(node, host)
		l.awaitLookup(node, "miss: not an endpoint")
	}
	if err := syscall.Kill(bfdd, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, node := range msees {
		l.awaitState(node, "underlay", host, bgp.StateEstablished, 60*time.Second)
		l.awaitLookup(node, "hit: host "+host)
	}

	l.reload(msees, func(cfg map[string]any) {
		cfg["connections"].([]any)[0].(map[string]any)["expressRouteGatewayBypass"] = false
	})
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	l.kill("gw0", syscall.SIGKILL)
	for _, node := range msees {
		l.downByBFD(node, "172.16.0.12")
		eventually(t, 20*time.Second, node+" has ways by the other instance alone", func() error {
			var uses []string // the customer's reflection of the other MSEE's route is no way in use
			for _, x := range l.route(node, "10.100.0.0/16").Paths {
				if x.State == bgp.PathBest || x.State == bgp.PathECMP {
					uses = append(uses, x.NextHop.String())
				}
			}
			if !slices.Equal(uses, []string{"172.16.0.13"}) {
				return fmt.Errorf("it has %q", uses)
			}
			return nil
		})
	}
	p.healthy(t, 20*time.Second) // by the other instance
	t.Logf("a gateway killed: %v", p.since(t, begin))
}
