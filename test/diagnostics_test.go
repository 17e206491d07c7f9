package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"msee/api"
	"msee/bgp"
	"msee/edge"
)

// azure asks one MSEE as `az network express-route list-route-tables` would.
func azure[T any](l *testLab, node string, args ...string) T {
	l.t.Helper()
	var v T
	out, err := l.msee(append([]string{"show", "--json", "-d", l.ns(node)}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	if err != nil {
		l.t.Fatalf("show %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// privateDiagnostics compares Azure's diagnostics of a private peering with
// what the lab is known to be, on both paths.
func privateDiagnostics(t *testing.T, l *testLab) {
	for node, path := range map[string]string{"msee1": "primary", "msee2": "secondary"} {
		ce := map[string]string{"msee1": "192.168.15.17", "msee2": "192.168.15.21"}[node]
		flags := []string{"--circuit", "er1", "--peering", "AzurePrivatePeering", "--path", path}
		table := azure[api.List[edge.RouteTableRow]](l, node, append([]string{"route-table"}, flags...)...)
		rows, best := map[string]bool{}, map[string]int{}
		for _, r := range table.Value {
			rows[fmt.Sprintf("%s %s %s %d %s", r.Network, r.NextHop, r.LocPrf, r.Weight, r.Path)] = true
			if strings.HasSuffix(r.NextHop, "*") {
				best[r.Network]++
			}
			if best[r.Network] != 1 || r.Detail != nil {
				t.Errorf("%s: the best route is not one, or not the first; or more than Azure's fields: %+v", node, r)
			}
		}
		for _, want := range []string{"10.1.0.0/16 " + ce + "* 100 0 65001 I", "10.100.0.0/16 10.100.255.12* 100 0 65515 I", "10.100.0.0/16 10.100.255.13 100 0 65515 I"} {
			if !rows[want] {
				t.Errorf("%s: no row %q in %v", node, want, rows)
			}
		}
		for _, r := range azure[api.List[edge.RouteTableRow]](l, node, append([]string{"route-table", "--why"}, flags...)...).Value {
			if r.NextHop == "10.100.255.13" && (r.Detail == nil || r.Detail.State != bgp.PathECMP || r.Detail.Behind != "gateway instance 1, connection vnet1" || !r.Detail.Resolved) {
				t.Errorf("%s: %+v", node, r.Detail)
			}
		}
		summary := azure[api.List[edge.SummaryRow]](l, node, append([]string{"route-table-summary", "--why"}, flags...)...)
		if len(summary.Value) != 6 {
			t.Errorf("%s: %d sessions, want 6", node, len(summary.Value))
		}
		for _, s := range summary.Value {
			if s.Neighbor == ce && (s.V != 4 || s.AS != 65001 || s.StatePfxRcd == "0" || s.Detail.Prefixes.Limit != 4000 || s.Detail.Behind != "customer, AS 65001") {
				t.Errorf("%s: %+v %+v", node, s, s.Detail)
			}
		}
		if out, err := l.msee("show", "route-table", "-d", l.ns(node), "--peering", "MicrosoftPeering", "--path", path); err == nil || !strings.Contains(out, "it has AzurePrivatePeering") {
			t.Errorf("a peering that is not there: %v\n%s", err, out)
		}
	}
	bothEnds(t, l)
	peeringStats(t, l)
}

// bothEnds: both ends of the link; a customer who does not answer is Incomplete.
func bothEnds(t *testing.T, l *testLab) {
	arp := func() string {
		var out []string
		for _, r := range azure[api.List[edge.ARPTableRow]](l, "msee1", "arp-table", "--circuit", "er1").Value {
			out = append(out, fmt.Sprintf("%s %s %s", r.Interface, r.IPAddress, r.MACAddress))
		}
		return strings.Join(out, "; ")
	}
	mac := strings.ReplaceAll(strings.Fields(l.exec("ce", "cat", "/sys/class/net/link1.100/address"))[0], ":", "")
	want := fmt.Sprintf("On-Prem 192.168.15.17 %s.%s.%s; Microsoft 192.168.15.18 ", mac[:4], mac[4:8], mac[8:])
	if got := arp(); !strings.HasPrefix(got, want) || strings.Contains(got, "Incomplete") {
		t.Errorf("got %s, want %s…", got, want)
	}
	l.exec("ce", "ip", "link", "set", "link1.100", "down")
	l.exec("msee1.er1-private", "ip", "neigh", "flush", "all") // or it takes a minute
	eventually(t, 20*time.Second, "a customer who is silent", func() error {
		if got := arp(); !strings.HasPrefix(got, "On-Prem 192.168.15.17 Incomplete; Microsoft 192.168.15.18 ") {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
	l.exec("ce", "ip", "link", "set", "link1.100", "up")
	l.exec("ce", "ip", "addr", "replace", "2001:db8:0:10::1/126", "dev", "link1.100") // the kernel took it
	l.awaitSessions(40*time.Second, "msee1")
}

// peeringStats: octets count on the path that they took.
func peeringStats(t *testing.T, l *testLab) {
	sum := func() (in, out uint64) {
		for _, node := range msees {
			s := azure[edge.PeeringStats](l, node, "stats", "--circuit", "er1")
			if node == "msee1" && s.SecondaryBytesIn+s.SecondaryBytesOut > 0 || node == "msee2" && s.PrimaryBytesIn+s.PrimaryBytesOut > 0 {
				t.Errorf("%s counts the other path: %+v", node, s)
			}
			in += s.PrimaryBytesIn + s.SecondaryBytesIn
			out += s.PrimaryBytesOut + s.SecondaryBytesOut
		}
		return in, out
	}
	in, out := sum()
	const pings, size = 20, 1028 // octets of IP
	l.exec("onprem", "ping", "-n", "-c", fmt.Sprint(pings), "-i", "0.02", "-s", fmt.Sprint(size-28), "10.100.1.10")
	eventually(t, 20*time.Second, "octets are counted", func() error {
		in2, out2 := sum()
		if in2-in < pings*size || in2-in > 4*pings*size || out2-out < pings*size || out2-out > 4*pings*size {
			return fmt.Errorf("%d in, %d out, want each about %d", in2-in, out2-out, pings*size)
		}
		return nil
	})
}
