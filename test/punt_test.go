package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"msee/edge"
)

// TestPunt looks at the kernel's side of a peering: it answers for the MSEE's
// addresses, and serves as a tool to look from the MSEE at the customer.
func TestPunt(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	for _, to := range []string{"192.168.15.18", "192.168.15.22", "2001:db8:0:10::2", "2001:db8:0:14::2"} {
		l.pings("ce", to)
	}
	l.pings("ce", "192.168.15.18", "-s", "4000") // in fragments
	l.pings("msee1.er1-private", "192.168.15.17")
	l.pings("msee1.er1-private", "2001:db8:0:10::1")
	out := l.exec("msee1", "ip", "netns", "exec", l.ns("msee1.er1-private"), "ping", "-n", "-c", "2", "10.100.255.12")
	if !strings.Contains(out, "2 received") {
		t.Errorf("ping to the gateway from the VRF's namespace:\n%s", out)
	}
	t.Run("ARP", func(t *testing.T) { arpTable(t, l.in(t)) })
	t.Run("ours only", func(t *testing.T) { ownAddressesOnly(t, l.in(t)) })
}

// arpTable wants the rows that Azure's ARP table of a peering has.
func arpTable(t *testing.T, l *testLab) {
	mac := map[string]string{} // of an interface
	for _, p := range []struct{ node, device string }{{"ce", "link1.100"}, {"msee1", "eth1"}} {
		raw := strings.TrimSpace(l.exec(p.node, "cat", "/sys/class/net/"+p.device+"/address"))
		hex := strings.ReplaceAll(raw, ":", "")
		mac[p.node] = hex[:4] + "." + hex[4:8] + "." + hex[8:]
	}
	eventually(t, 20*time.Second, "ARP table", func() error {
		rows := map[string]edge.ARPStatus{}
		for _, r := range show[edge.ARPStatus](l, "msee1", "arp") {
			rows[r.Addr.String()] = r
		}
		for addr, want := range map[string]edge.ARPStatus{
			"192.168.15.17":    {Property: "On-Prem", MAC: mac["ce"]},
			"2001:db8:0:10::1": {Property: "On-Prem", MAC: mac["ce"]},
			"192.168.15.18":    {Property: "Microsoft", MAC: mac["msee1"]},
			"2001:db8:0:10::2": {Property: "Microsoft", MAC: mac["msee1"]},
		} {
			got := rows[addr]
			if got.Property != want.Property || got.MAC != want.MAC || got.VRF != "er1-private" || got.Interface != "cust.100" {
				return fmt.Errorf("%s: got %+v, want %s %s", addr, got, want.Property, want.MAC)
			}
			if got.Age < 0 || got.Age > 60 {
				return fmt.Errorf("%s: confirmed %d s ago", addr, got.Age)
			}
		}
		return nil
	})
	table, err := l.msee("show", "arp", "-d", l.ns("msee1"))
	if err != nil || !strings.HasPrefix(table, "Age") || !strings.Contains(table, "On-Prem") {
		t.Errorf("show arp: %v\n%s", err, table)
	}
}

// ownAddressesOnly wants no answer to a question for another's address: ARP on
// the customer's link for the core's address, which is in the same namespace.
func ownAddressesOnly(t *testing.T, l *testLab) {
	l.exec("ce", "ip", "neigh", "flush", "all")
	l.exec("ce", "ip", "route", "add", "10.100.255.4/32", "dev", "link1.100")
	defer l.exec("ce", "ip", "route", "del", "10.100.255.4/32", "dev", "link1.100")
	if out, err := l.try("ce", "ping", "-n", "-c", "2", "-i", "0.3", "-W", "1", "10.100.255.4"); err == nil {
		t.Errorf("the MSEE answers ARP for its core address on the customer's link:\n%s", out)
	}
}
