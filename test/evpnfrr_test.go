package test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
	"msee/edge"
	"msee/netns"
)

// startEVPNDaemons runs FRR's zebra and bgpd in a node, which tell by EVPN what its
// kernel has, and end with the test.
func startEVPNDaemons(t *testing.T, l *testLab, node, zebra, bgpd string) {
	t.Helper()
	const bin = "/usr/lib/frr"
	if _, err := os.Stat(bin + "/bgpd"); err != nil {
		t.Skip("needs FRR's bgpd: ", err)
	}
	dir, err := os.MkdirTemp("", "frr") // short: it holds a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := user.Lookup("frr") // the daemons drop to it
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	zserv := filepath.Join(dir, "zserv")
	for _, d := range []struct{ name, config string }{{"zebra", zebra}, {"bgpd", bgpd}} {
		file := filepath.Join(dir, d.name+".conf")
		if err := os.WriteFile(file, []byte(d.config), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(bin, d.name), "-f", file, "-z", zserv, "-i", filepath.Join(dir, d.name+".pid"),
			"--vty_socket", dir, "-P", "0", "--log", "file:"+filepath.Join(dir, d.name+".log"))
		if err := netns.Do(l.ns(node), cmd.Start); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		eventually(t, 10*time.Second, "zebra's socket", func() error { _, err := os.Stat(zserv); return err })
	}
}

// TestEVPNWithFRR: in the lab the VM's host is a kernel with VXLAN and a bridge, whose FRR
// announces what is there (advertise-all-vni). No end of a tunnel and no endpoint is
// configured anywhere, and what is told is there once the lab is up.
func TestEVPNWithFRR(t *testing.T) {
	l := startLab(t, topology(t, "vxlan"), "gw0", "gw1")
	host, mac := evpnHosts[0], l.portMAC("vm", "vnet1").String()
	for _, node := range msees {
		eventually(t, 20*time.Second, node+" hears of the VM's two addresses", func() error {
			rows, err := tryShow[edge.EVPNStatus](l, node, "evpn")
			if err != nil {
				return err
			}
			for _, addr := range []string{fastPathVM + "/32", "fd00:100:0:1::10/128"} {
				if !slices.ContainsFunc(rows, func(r edge.EVPNStatus) bool {
					return r.Type == evpn.TypeMACIP && r.Prefix == addr && r.MAC == mac && r.VTEP.String() == host && r.VNI == evpnVNI && r.Best
				}) {
					return fmt.Errorf("not of %s: %+v", addr, rows)
				}
			}
			if i := slices.IndexFunc(rows, func(r edge.EVPNStatus) bool { return !r.Best }); i >= 0 {
				return fmt.Errorf("%+v, want all of it taken", rows[i])
			}
			fast, err := tryShow[edge.FastPathStatus](l, node, "fastpath")
			if err != nil || len(fast) != 1 || fast[0].Programmed != 2 || len(fast[0].Refused) > 0 || fast[0].Hosts != 1 {
				return fmt.Errorf("show fastpath: %+v, %v", fast, err)
			}
			return nil
		})
		l.awaitLookup(node, "hit: host "+host)
	}
	// FRR has put us into the kernel's tables: what floods goes to all of us.
	eventually(t, 20*time.Second, "the host's ends of tunnels", func() error {
		out := l.exec("vm", "bridge", "fdb", "show", "dev", "vx5001")
		for _, vtep := range []string{"172.16.0.4", "172.16.0.5", "172.16.0.12", "172.16.0.13"} {
			if !strings.Contains(out, "00:00:00:00:00:00 dst "+vtep) {
				return fmt.Errorf("%s is not among\n%s", vtep, out)
			}
		}
		return nil
	})
	eventually(t, 20*time.Second, "on-premises reaches the VM", func() error {
		_, err := l.try("onprem", "ping", "-c", "2", "-i", "0.2", "-W", "1", fastPathVM)
		return err
	})
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	if n := l.atGateways(time.Second); n != 0 {
		t.Errorf("the gateways saw %d packets to the VM", n)
	}
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("%v", x)
	}
}

// TestRouteTargets: with targets of their own choice MSEEs, gateways and FRR hear each other,
// and not those who derive theirs from the VNI.
func TestRouteTargets(t *testing.T) {
	const target = "4200000000:7"
	own := fmt.Sprintf("{vni: 5001, routeTargets: {import: [%q], export: [%q]}, prefixRoutes", target, target)
	l := startLab(t, topology(t, "vxlan", "{vni: 5001, prefixRoutes", own, tellsItsOwn, tellsItsOwn+
		"        vni 5001\n         route-target import "+target+"\n         route-target export "+target+"\n        exit-vni\n"), "gw0", "gw1")
	for _, node := range msees {
		l.awaitLookup(node, "hit: host "+evpnHosts[0])
		eventually(t, 20*time.Second, node+" takes all, by that target", func() error {
			for _, r := range show[edge.EVPNStatus](l, node, "evpn") {
				if !slices.Equal(r.Targets, []string{target}) || !r.Best {
					return fmt.Errorf("%+v", r)
				}
			}
			return nil
		})
	}
	eventually(t, 20*time.Second, "on-premises reaches the VM", func() error {
		_, err := l.try("onprem", "ping", "-c", "2", "-i", "0.2", "-W", "1", fastPathVM)
		return err
	})
	l.reload(msees[:1], func(cfg map[string]any) {
		delete(cfg["connections"].([]any)[0].(map[string]any)["vxlan"].(map[string]any), "routeTargets")
	})
	eventually(t, 20*time.Second, "an MSEE that derives them takes none of it", func() error {
		for _, r := range show[edge.EVPNStatus](l, "msee1", "evpn") {
			if r.Best {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
	l.awaitLookup("msee1", "miss: not an endpoint")
}

// TestEVPNByRouteServer: MSEEs and gateways know one EVPN neighbour alone, an FRR that passes
// on what it hears. Of a prefix that it tells once by each instance of the gateway, or by each
// MSEE, both ways are used.
func TestEVPNByRouteServer(t *testing.T) {
	const server, neighbors = "neighbors: [172.16.0.20], sessions: Disabled", "neighbors: [{address: 172.16.0.20, peerASN: 65020}]"
	l := startLab(t, topology(t, "vxlan",
		"neighbors: [172.16.0.12, 172.16.0.13], sessions: Disabled", server, "neighbors: [172.16.0.4, 172.16.0.5], sessions: Disabled", server,
		"neighbors: [{address: 172.16.0.12, peerASN: 65515}, {address: 172.16.0.13, peerASN: 65515}, {address: 172.16.0.20, peerASN: 65020}]", neighbors,
		"neighbors: [{address: 172.16.0.4, peerASN: 12076}, {address: 172.16.0.5, peerASN: 12076}, {address: 172.16.0.20, peerASN: 65020}]", neighbors,
		tellsItsOwn, "", "expressRouteGatewayBypass: true", "expressRouteGatewayBypass: false"))
	uses := func(node, prefix string, want ...string) {
		t.Helper()
		eventually(t, 30*time.Second, node+"'s ways to "+prefix, func() error {
			rows, err := tryShow[edge.RouteStatus](l, node, "routes")
			var got []string
			for _, r := range rows {
				for _, p := range r.Paths {
					if r.Prefix.String() == prefix && p.Resolved && (p.State == bgp.PathBest || p.State == bgp.PathECMP) && strings.HasPrefix(p.Session, r.VRF+"/v5001/172.16.0.20") {
						got = append(got, p.NextHop.String())
					}
				}
			}
			if err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%v: by %q, want %q", err, got, want)
			}
			return nil
		})
	}
	for _, prefix := range []string{"10.100.0.0/16", "fd00:100::/48"} {
		uses("msee1", prefix, "172.16.0.12", "172.16.0.13")
	}
	for _, prefix := range []string{"10.1.0.0/16", "2001:db8:1::/48"} {
		uses("gw0", prefix, "172.16.0.4", "172.16.0.5")
	}
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 30*time.Second)
	for _, node := range gateways {
		if l.seenAt(500*time.Millisecond, node) == 0 {
			t.Errorf("%s sees none of %d flows to the VM", node, probeFlows)
		}
	}
	l.kill("gw0", syscall.SIGTERM)
	uses("msee1", "10.100.0.0/16", "172.16.0.13")
	p.healthy(t, 30*time.Second)
}

// TestEVPNPrefixesWithFRR: FRR is the other end of a connection, by EVPN alone, with an L3VNI
// (advertise ipv4 unicast): its kernel routes to on-premises by both MSEEs, and they to its
// prefix.
func TestEVPNPrefixesWithFRR(t *testing.T) {
	const prefix, addr, mac = "10.50.0.0/24", "10.50.0.1", "02:aa:00:00:00:20"
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	host := evpnHosts[0]
	l.reload(msees, exchangePrefixes(map[string]int{host: evpnAS}, map[string]any{"neighbors": []any{host}, "sessions": "Disabled"}))
	l.reload(msees, func(cfg map[string]any) {
		delete(cfg["connections"].([]any)[0].(map[string]any)["vxlan"].(map[string]any), "remoteVteps")
	})
	for _, command := range []string{
		"ip link del vnet1",
		"ip link add br0 type bridge mcast_snooping 0",
		"ip link set br0 address " + mac + " mtu 1500 up",
		"ip link add vx0 type vxlan id 5001 local " + host + " dstport 4789 nolearning",
		"ip link set vx0 master br0 mtu 1500 up",
		"ip link set lo up",
		"ip addr add " + addr + "/32 dev lo",
		"ip route add " + prefix + " dev lo",
	} {
		l.exec("vm", strings.Fields(command)...)
	}
	config := "router bgp 65020\n bgp router-id " + host + "\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n" +
		" neighbor 172.16.0.4 remote-as 12076\n neighbor 172.16.0.5 remote-as 12076\n" +
		" address-family ipv4 unicast\n  network " + prefix + "\n  maximum-paths 2\n exit-address-family\n" +
		" address-family l2vpn evpn\n  neighbor 172.16.0.4 activate\n  neighbor 172.16.0.5 activate\n  advertise-all-vni\n  advertise ipv4 unicast\n exit-address-family\n"
	startEVPNDaemons(t, l, "vm", "vni 5001\n", config)
	for _, node := range msees {
		eventually(t, 60*time.Second, node+" has FRR's prefix", func() error {
			paths := l.route(node, prefix).Paths // the customer's reflection of the other MSEE's may be the second
			if len(paths) == 0 || paths[0].State != bgp.PathBest || paths[0].NextHop.String() != host || paths[0].MAC != mac || !paths[0].Resolved {
				return fmt.Errorf("it has %+v", paths)
			}
			return nil
		})
	}
	eventually(t, 60*time.Second, "FRR's kernel routes to on-premises by both MSEEs", func() error {
		out := l.exec("vm", "ip", "route", "show", "10.1.0.0/16")
		if !strings.Contains(out, "via 172.16.0.4 dev br0") || !strings.Contains(out, "via 172.16.0.5 dev br0") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	eventually(t, 30*time.Second, "on-premises reaches what FRR announces", func() error {
		_, err := l.try("onprem", "ping", "-c", "2", "-i", "0.2", "-W", "1", addr)
		return err
	})
	p := l.startProbe("onprem", "vm", addr, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	begin := p.now()
	time.Sleep(time.Second)
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("%v", x)
	}
}
