package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
	"msee/edge"
	"msee/netns"
)

// reloadLab is the lab of two customers, while A's traffic is watched.
type reloadLab struct {
	*testLab
	probe *probe
}

// TestReload changes what belongs to others while customer A's traffic runs:
// not one packet of it may be lost, and no session of it may notice.
func TestReload(t *testing.T) {
	l := startLab(t, topology(t, "overlap"), "gw-a0", "gw-a1", "gw-b0", "gw-b1")
	for _, node := range []string{"ce-a", "vm-a"} {
		l.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	}
	r := &reloadLab{l, l.startProbe("onprem-a", "vm-a", "10.100.1.10", probeFlows, 250)}
	r.probe.healthy(t, 20*time.Second)
	before := r.customerA(t)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *reloadLab)
	}{
		{"nothing", reloadNothing},
		{"add and remove a circuit", reloadCircuit},
		{"add and remove a peering of A's circuit", reloadPeering},
		{"change B's key", reloadKey},
		{"change B's VLAN", reloadVLAN},
		{"add and remove a prefix of A's VNet", reloadGateway},
		{"metrics", reloadMetrics},
		{"bad file", reloadBadFile},
		{"SIGHUP", reloadSignal},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			r := &reloadLab{l.in(t), r.probe}
			begin := r.probe.now()
			step.do(t, r)
			if x := r.probe.since(t, begin); x.lost > 0 {
				t.Errorf("customer A: %v", x)
			}
			if now := r.customerA(t); now != before {
				t.Errorf("customer A's sessions were\n%s\nand are\n%s", before, now)
			}
		})
		if !ok {
			return // the next step could not be told apart
		}
	}
}

// customerA describes A's sessions of both MSEEs, with their ages.
func (r *reloadLab) customerA(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, node := range []string{"msee1", "msee2"} {
		for _, s := range show[edge.SessionStatus](r.in(t), node, "bgp") {
			if s.VRF == "er-a-private" {
				fmt.Fprintf(&b, "%s %s %s since %s, %d flaps\n", node, s.Session, s.State, s.Since, s.Flaps)
			}
		}
	}
	return b.String()
}

// reload changes the files of devices and has them read again. Each must report
// a change of an object.
func (r *reloadLab) reload(change func(map[string]any), object string, nodes ...string) {
	r.t.Helper()
	for _, node := range nodes {
		r.editConfig(node, change)
		out, err := r.msee("reload", "-d", r.ns(node))
		if err != nil || object != "" && !strings.Contains(out, object) {
			r.t.Fatalf("reload of %s: %v, want a change of %s:\n%s", node, err, object, out)
		}
	}
}

// circuit finds a circuit in a configuration.
func circuit(cfg map[string]any, name string) map[string]any {
	for _, c := range cfg["circuits"].([]any) {
		if m := c.(map[string]any); m["name"] == name {
			return m
		}
	}
	return nil
}

// peering returns the private peering of a circuit.
func peeringOf(cfg map[string]any, name string) map[string]any {
	return circuit(cfg, name)["peerings"].([]any)[0].(map[string]any)
}

func reloadNothing(t *testing.T, r *reloadLab) {
	r.reload(func(map[string]any) {}, "0 changes", msees...)
}

func reloadCircuit(t *testing.T, r *reloadLab) {
	r.reload(func(cfg map[string]any) {
		cfg["circuits"] = append(cfg["circuits"].([]any), map[string]any{
			"name": "er-c", "port": "custa", "peerings": []any{map[string]any{
				"peeringType": "AzurePrivatePeering", "peerASN": 65003, "vlanId": 300,
				"primaryPeerAddressPrefix": "192.168.30.0/30", "secondaryPeerAddressPrefix": "192.168.30.4/30",
			}},
		})
	}, "add circuit er-c", msees...)
	for _, node := range msees {
		if !r.hasInterface(t, node, "er-c-private", "custa.300") {
			t.Errorf("%s has no subinterface of the new circuit", node)
		}
	}
	r.exec("msee1.er-c-private", "ip", "link", "show", "custa.300")
	r.reload(func(cfg map[string]any) {
		all := cfg["circuits"].([]any)
		cfg["circuits"] = all[:len(all)-1]
	}, "remove circuit er-c", msees...)
	for _, node := range msees {
		if r.hasInterface(t, node, "er-c-private", "custa.300") {
			t.Errorf("%s still has the subinterface of a circuit that was removed", node)
		}
	}
	if out, err := r.try("msee1.er-c-private", "true"); err == nil {
		t.Errorf("the namespace of a VRF that was removed is still there:\n%s", out)
	}
}

func (r *reloadLab) hasInterface(t *testing.T, node, vrf, name string) bool {
	t.Helper()
	for _, p := range show[edge.PeeringStatus](r.testLab, node, "peerings") {
		if p.VRF == vrf && p.Interface == name {
			return true
		}
	}
	return false
}

func reloadPeering(t *testing.T, r *reloadLab) {
	r.reload(func(cfg map[string]any) {
		c := circuit(cfg, "er-a")
		c["peerings"] = append(c["peerings"].([]any), map[string]any{
			"peeringType": "MicrosoftPeering", "peerASN": 65001, "vlanId": 101,
			"primaryPeerAddressPrefix": "203.0.113.0/30", "secondaryPeerAddressPrefix": "203.0.113.4/30",
			"microsoftPeeringConfig": map[string]any{"advertisedPublicPrefixes": []any{"198.51.100.0/24"}},
		})
	}, "er-a-microsoft", msees...)
	if !r.hasInterface(t, "msee1", "er-a-microsoft", "custa.101") {
		t.Error("msee1 has no subinterface of the new peering")
	}
	r.reload(func(cfg map[string]any) {
		c := circuit(cfg, "er-a")
		c["peerings"] = c["peerings"].([]any)[:1]
	}, "er-a-microsoft", msees...)
}

func reloadKey(t *testing.T, r *reloadLab) {
	key := func(key string) {
		r.reload(func(cfg map[string]any) { peeringOf(cfg, "er-b")["sharedKey"] = key }, "er-b-private", msees...)
	}
	before, err := r.session("msee1", "er-b-private", "192.168.15.17")
	if err != nil {
		t.Fatal(err)
	}
	key("another")
	// Nothing happens until the hold time is over, which the peer may use.
	if s, err := r.session("msee1", "er-b-private", "192.168.15.17"); err != nil || s.State != bgp.StateEstablished || s.Since != before.Since {
		t.Errorf("the session with another key: %v, %s since %s; it was up since %s", err, s.State, s.Since, before.Since)
	}
	r.vtysh("ce-b", "configure terminal", "router bgp 65001",
		"neighbor 192.168.15.18 password another", "neighbor 192.168.15.22 password another",
		"neighbor 2001:db8:0:10::2 password another", "neighbor 2001:db8:0:14::2 password another")
	eventually(t, 30*time.Second, "sessions with the new key", func() error {
		// bgpd ends its own when told another password.
		for _, n := range []string{"192.168.15.18", "192.168.15.22"} {
			if out := r.vtysh("ce-b", "show bgp neighbors "+n); !strings.Contains(out, "BGP state = Established") {
				return fmt.Errorf("no session with %s", n)
			}
		}
		return nil
	})
	r.awaitSessions(30*time.Second, msees...)
	r.awaitB(t)
}

// awaitB waits until customer B's traffic runs again.
func (r *reloadLab) awaitB(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "customer B works again", func() error {
		_, err := r.try("onprem-b", "ping", "-n", "-c", "1", "-W", "1", "10.100.1.10")
		return err
	})
}

func reloadVLAN(t *testing.T, r *reloadLab) {
	vlan := func(id int) {
		r.reload(func(cfg map[string]any) { peeringOf(cfg, "er-b")["vlanId"] = id }, "er-b-private", msees...)
	}
	vlan(111)
	if out, err := r.try("ce-b", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "192.168.15.18"); err == nil {
		t.Errorf("the MSEE still answers in the old VLAN:\n%s", out)
	}
	vlan(100)
	r.awaitSessions(40*time.Second, msees...)
	r.awaitB(t)
}

func reloadGateway(t *testing.T, r *reloadLab) {
	gateways := []string{"gw-a0", "gw-a1"}
	space := func(cfg map[string]any) map[string]any {
		return cfg["virtualNetwork"].(map[string]any)["addressSpace"].(map[string]any)
	}
	paths := func(want int) {
		t.Helper()
		eventually(t, 20*time.Second, "the CE hears of it", func() error {
			out := r.vtysh("ce-a", "show bgp ipv4 unicast")
			if got := strings.Count(out, " 10.101.0.0/16"); (got > 0) != (want > 0) {
				return fmt.Errorf("want %d paths to 10.101.0.0/16:\n%s", want, out)
			}
			return nil
		})
	}
	r.reload(func(cfg map[string]any) {
		s := space(cfg)
		s["addressPrefixes"] = append(s["addressPrefixes"].([]any), "10.101.0.0/16")
	}, "", gateways...)
	paths(2)
	r.reload(func(cfg map[string]any) {
		s := space(cfg)
		s["addressPrefixes"] = s["addressPrefixes"].([]any)[:2]
	}, "", gateways...)
	paths(0)
}

// reloadBadFile wants a file with faults to change nothing, and to be told where
// they are.
// reloadMetrics has the metrics served by TCP, elsewhere, and no more.
func reloadMetrics(t *testing.T, r *reloadLab) {
	scrape := func(port int) error {
		var conn net.Conn
		err := netns.Do(r.ns("msee1"), func() (err error) {
			conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			return err
		})
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n")
		out, err := io.ReadAll(conn)
		if err == nil && !strings.Contains(string(out), `msee_bgp_prefix_limit_warning{neighbor=`) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	}
	for _, port := range []int{9100, 9101} {
		r.reload(func(cfg map[string]any) {
			cfg["metrics"] = map[string]any{"listenAddress": fmt.Sprintf("127.0.0.1:%d", port)}
		}, "device msee1", "msee1")
		if err := scrape(port); err != nil {
			t.Errorf("metrics at port %d: %v", port, err)
		}
	}
	if scrape(9100) == nil {
		t.Error("metrics are still served where they were first")
	}
	r.reload(func(cfg map[string]any) { delete(cfg, "metrics") }, "device msee1", "msee1")
	if scrape(9101) == nil {
		t.Error("metrics are still served, although the file has none")
	}
}

func reloadBadFile(t *testing.T, r *reloadLab) {
	good, err := os.ReadFile(r.configFile("msee1"))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		t.Helper()
		out, err := r.msee("show", "circuits", "-d", r.ns("msee1"))
		if err != nil {
			t.Error(err)
		}
		return out
	}
	before := shown()
	bad := strings.ReplaceAll(strings.Replace(string(good), "vlanId: 100", "vlanId: 5000", 1), "name: er-b", "name: er-new")
	r.writeConfig("msee1", []byte(bad))
	out, err := r.msee("reload", "-d", r.ns("msee1"))
	at := regexp.MustCompile(regexp.QuoteMeta(r.configFile("msee1")) + `:\d+:\d+: .*5000`)
	if exitCode(err) != 1 || !at.MatchString(out) {
		t.Errorf("reload of a bad file: %v, want exit status 1 and %s:\n%s", err, at, out)
	}
	if err := syscall.Kill(r.pid("msee1"), syscall.SIGHUP); err != nil {
		t.Error(err)
	}
	eventually(t, 20*time.Second, "SIGHUP with a bad file", func() error {
		if !strings.Contains(r.logs()["msee1.edge.log"], "reload refused") {
			return fmt.Errorf("the log does not say that it was refused")
		}
		return nil
	})
	if after := shown(); after != before {
		t.Errorf("a bad file has changed circuits from\n%s\nto\n%s", before, after)
	}
	r.writeConfig("msee1", good)
	r.reload(func(map[string]any) {}, "0 changes", "msee1")
}

func reloadSignal(t *testing.T, r *reloadLab) {
	r.editConfig("msee1", func(cfg map[string]any) {
		circuit(cfg, "er-b")["bandwidthInMbps"] = 2000
	})
	if err := syscall.Kill(r.pid("msee1"), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "SIGHUP", func() error {
		for _, c := range show[edge.CircuitStatus](r.testLab, "msee1", "circuits") {
			if c.Name == "er-b" && c.BandwidthInMbps == 2000 {
				return nil
			}
		}
		return fmt.Errorf("circuit er-b has not changed")
	})
}
