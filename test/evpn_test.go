package test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/bgp/speaker"
	"msee/edge"
)

// evpnHosts are the VTEPs of the two hosts that the VM can be on, both in the lab's
// node vm, whose kernel ends the tunnels of either.
var evpnHosts = []string{"172.16.0.20", "172.16.0.21"}

const evpnAS, evpnVNI = 65020, 5001

// evpnSpeaker tells both MSEEs, in a session for each host, what the hosts have.
type evpnSpeaker struct {
	*speaker.Speaker
	mac   evpn.MAC
	mu    sync.Mutex
	heard map[string]map[evpn.Key]evpn.Route // by session
}

// note keeps what an update says.
func (e *evpnSpeaker) note(u *evpn.Update) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard[u.Session] == nil {
		e.heard[u.Session] = map[evpn.Key]evpn.Route{}
	}
	for _, k := range u.Withdraw {
		delete(e.heard[u.Session], k)
	}
	for _, r := range u.Announce {
		e.heard[u.Session][r.Key] = r
	}
}

// prefix returns what a session tells of a prefix.
func (e *evpnSpeaker) prefix(session, prefix string) (evpn.Route, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, r := range e.heard[session] {
		if k.Type == evpn.TypePrefix && k.Prefix.String() == prefix {
			return r, true
		}
	}
	return evpn.Route{}, false
}

func startEVPN(t *testing.T, l *testLab) *evpnSpeaker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &evpnSpeaker{heard: map[string]map[evpn.Key]evpn.Route{}, Speaker: speaker.Start(ctx, []string{msee(t), "speaker"}, slog.New(slog.NewTextHandler(t.Output(), nil)))}
	drained := make(chan struct{})
	go func() {
		for ev := range e.Events() {
			if ev.EVPN != nil {
				e.note(ev.EVPN)
			}
		}
		close(drained)
	}()
	t.Cleanup(func() { cancel(); e.Wait(); <-drained })
	e.mac = l.portMAC("vm", "vnet1")
	var sessions []bgp.SessionConfig
	for _, host := range evpnHosts {
		for _, peer := range []string{"172.16.0.4", "172.16.0.5"} {
			sessions = append(sessions, bgp.SessionConfig{Name: host + " " + peer, Namespace: l.ns("vm"),
				Local: netip.MustParseAddr(host), Peer: netip.MustParseAddr(peer), LocalAS: evpnAS, PeerAS: bgp.ASMSEE,
				RouterID: netip.MustParseAddr(host), Keepalive: 3 * time.Second, Hold: 10 * time.Second, MinHold: 10 * time.Second,
				GracefulRestart: true, EVPN: true, Enabled: true})
		}
	}
	e.Configure(sessions)
	return e
}

// has makes what a host has: itself as an end of tunnels, and endpoints with that
// mobility sequence.
func (e *evpnSpeaker) has(host string, sequence uint32, endpoints ...netip.Addr) {
	vtep := netip.MustParseAddr(host)
	attrs := evpn.Attrs{NextHop: vtep, Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(evpnAS, evpnVNI)}, Sequence: sequence}}
	flood := attrs
	flood.Flood = evpnVNI
	rd := evpn.NewRD(vtep, 1)
	routes := []evpn.Route{{Key: evpn.Key{Type: evpn.TypeMulticast, RD: rd, Prefix: netip.PrefixFrom(vtep, 32)}, Attrs: &flood}}
	for _, a := range endpoints {
		routes = append(routes, evpn.Route{Key: evpn.Key{Type: evpn.TypeMACIP, RD: rd, MAC: e.mac, Prefix: netip.PrefixFrom(a, 32)}, VNI: evpnVNI, Attrs: &attrs})
	}
	for _, peer := range []string{"172.16.0.4", "172.16.0.5"} {
		e.ReplaceEVPN(host+" "+peer, routes)
	}
}

// TestEVPN: hosts tell the MSEEs by EVPN where the VM is, and FastPath leads there; the
// VM moving to another host, and either side's sessions lost and back, lose nothing
// (one probe at most for the move) of 1,000 packets a second.
func TestEVPN(t *testing.T) {
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	l.exec("vm", "ip", "addr", "add", evpnHosts[1]+"/24", "dev", "eth1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	var neighbors []any
	for _, host := range evpnHosts {
		neighbors = append(neighbors, map[string]any{"address": host, "peerASN": evpnAS})
	}
	l.reload(gateways, func(cfg map[string]any) { delete(cfg["virtualNetwork"].(map[string]any), "endpoints") })
	l.reload(msees, func(cfg map[string]any) {
		cfg["underlay"].(map[string]any)["evpn"] = map[string]any{"neighbors": neighbors}
	})
	for _, node := range msees {
		l.awaitLookup(node, "miss: not an endpoint")
	}
	vm := netip.MustParseAddr(fastPathVM)
	e := startEVPN(t, l)
	e.has(evpnHosts[0], 0, vm)
	e.has(evpnHosts[1], 0)
	lost := func(what string, most int) {
		t.Helper()
		for _, node := range msees {
			for _, s := range show[edge.SessionStatus](l, node, "bgp") {
				if s.State != bgp.StateEstablished {
					t.Errorf("%s: session %s of %s is %s: %s", what, s.Session, node, s.State, s.Reason)
				}
			}
		}
		if n := l.atGateways(300 * time.Millisecond); n != 0 {
			t.Errorf("%s: the gateways saw %d packets to the VM", what, n)
		}
		x := p.since(t, begin)
		t.Logf("%s: %v", what, x)
		if x.lost > most {
			t.Errorf("%s: %v, want at most %d lost", what, x, most)
		}
		begin = p.now()
	}
	for _, node := range msees {
		l.awaitLookup(node, "hit: host "+evpnHosts[0])
	}
	l.awaitSessions(20*time.Second, msees...) // the hosts dial, and try again after a while
	lost("endpoints by EVPN instead of host routes", 0)

	// The hosts' ends are now told by EVPN alone.
	l.reload(msees, func(cfg map[string]any) {
		cfg["connections"].([]any)[0].(map[string]any)["vxlan"].(map[string]any)["remoteVteps"] = []any{"172.16.0.12", "172.16.0.13"}
	})
	time.Sleep(time.Second)
	lost("without configured hosts", 0)

	e.has(evpnHosts[1], 1, vm) // the new host tells, then the old one withdraws
	for _, node := range msees {
		l.awaitLookup(node, "hit: host "+evpnHosts[1])
	}
	e.has(evpnHosts[0], 0)
	for _, node := range msees {
		eventually(t, 20*time.Second, "the withdrawal", func() error {
			for _, r := range show[edge.EVPNStatus](l, node, "evpn") {
				if r.Type == evpn.TypeMACIP && (r.VTEP.String() != evpnHosts[1] || r.Sequence != 1 || !r.Best) {
					return fmt.Errorf("%s has %+v", node, r)
				}
			}
			return nil
		})
		l.awaitLookup(node, "hit: host "+evpnHosts[1])
	}
	lost("moved to another host", 1)

	for _, side := range []struct {
		name  string
		pid   int
		nodes []string // whose sessions on the underlay end
	}{{"the hosts' BGP process ended", os.Getpid(), msees}, {"msee1's BGP process ended", l.pid("msee1"), msees[:1]}} {
		began := time.Now()
		old := speakerOf(t, side.pid)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, node := range side.nodes {
			eventually(t, 30*time.Second, "sessions and routes are back at "+node, func() error {
				for _, s := range show[edge.SessionStatus](l, node, "bgp") {
					if strings.HasPrefix(s.Session, "underlay/") && (s.State != bgp.StateEstablished || s.Since.Before(began)) {
						return fmt.Errorf("session %s: %s since %v", s.Session, s.State, s.Since)
					}
				}
				for _, r := range show[edge.EVPNStatus](l, node, "evpn") {
					if r.Stale {
						return fmt.Errorf("stale: %+v", r)
					}
				}
				return nil
			})
			l.awaitLookup(node, "hit: host "+evpnHosts[1])
		}
		l.awaitSessions(30*time.Second, msees...) // those with other neighbours ended with the process too
		lost(side.name, 0)
	}
}
