package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIPv6 runs over the IPv6 half of the default topology.
func TestIPv6(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	const vm, onprem = "fd00:100:0:1::10", "2001:db8:1::10"
	l.pings("onprem", vm)
	l.pings("vm", onprem)
	msees := []string{"2001:db8:0:10::2", "2001:db8:0:14::2"}
	gateways := []string{"fd00:100:0:ff::c", "fd00:100:0:ff::d"}
	// Asked again, as on a busy machine an answer may come too late.
	eventually(t, 30*time.Second, "traceroute", func() error {
		hops := l.traceroute("onprem", vm)
		if len(hops) != 4 || hops[0] != "2001:db8:1::1" || !slices.Contains(msees, hops[1]) ||
			!slices.Contains(gateways, hops[2]) || hops[3] != vm {
			return fmt.Errorf("%v; want the CE, one of %v, one of %v, the VM", hops, msees, gateways)
		}
		return nil
	})
	for _, reverse := range []bool{false, true} {
		if rate := l.iperf3("onprem", "vm", vm, reverse, "-6"); rate < 0.1 {
			t.Errorf("iperf3 -6, reverse %v: %.3f Gb/s", reverse, rate)
		}
	}
}

// traceroute returns the first address of each hop, "*" for one that is silent.
func (l *testLab) traceroute(from, to string) []string {
	l.t.Helper()
	var hops []string
	for line := range strings.Lines(l.exec(from, "traceroute", "-n", "-q", "3", "-w", "2", "-m", "8", to)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "traceroute" {
			hop := "*"
			for _, f := range fields[1:] {
				if _, err := netip.ParseAddr(f); err == nil {
					hop = f
					break
				}
			}
			hops = append(hops, hop)
		}
	}
	return hops
}

// jumbo is the default topology with hosts, and a CE, that take larger packets
// than the MSEEs and gateways pass on: those have Azure's MTU of 1500, and gateways
// 1400 into the VNet.
func jumbo(t *testing.T) string {
	return topology(t, "default",
		"{ends: [onprem:eth0, ce:lan0]}", "{ends: [onprem:eth0, ce:lan0], mtu: 8000}",
		"- name: link1.100\n", "- name: link1.100\n        mtu: 8000\n",
		"- name: link2.100\n", "- name: link2.100\n        mtu: 8000\n",
		"{ends: [gw0:eth2, vnet:gw0]}", "{ends: [gw0:eth2, vnet:gw0], mtu: 8000}",
		"{ends: [gw1:eth2, vnet:gw1]}", "{ends: [gw1:eth2, vnet:gw1], mtu: 8000}",
		"{ends: [vnet:vm, vm:eth0]}", "{ends: [vnet:vm, vm:eth0], mtu: 8000}",
	)
}

// TestPathMTU sends what does not fit, and wants the router that cannot pass it
// on to say so, by its own address on the side that the packet came from.
func TestPathMTU(t *testing.T) {
	l := startLab(t, jumbo(t), "gw0", "gw1")
	for _, c := range []struct {
		name, from, to string
		routers        []string // of which one answers
		says           string
	}{
		{"IPv4 at the MSEE", "onprem", "10.100.1.10", []string{"192.168.15.18", "192.168.15.22"}, "Frag needed and DF set (mtu = 1500)"},
		{"IPv6 at the MSEE", "onprem", "fd00:100:0:1::10", []string{"2001:db8:0:10::2", "2001:db8:0:14::2"}, "Packet too big: mtu=1500"},
		{"IPv4 at the gateway", "vm", "10.1.0.10", []string{"10.100.1.4", "10.100.1.5"}, "Frag needed and DF set (mtu = 1500)"},
		{"IPv6 at the gateway", "vm", "2001:db8:1::10", []string{"fd00:100:0:1::4", "fd00:100:0:1::5"}, "Packet too big: mtu=1500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := l.in(t).try(c.from, "ping", "-n", "-c", "5", "-i", "0.3", "-W", "1", "-M", "do", "-s", "3000", c.to)
			if err == nil {
				t.Errorf("packets of 3000 octets arrived over an MTU of 1500:\n%s", out)
			}
			if !slices.ContainsFunc(c.routers, func(r string) bool {
				return strings.Contains(out, "From "+r+" icmp_seq=") && strings.Contains(out, c.says)
			}) {
				t.Errorf("want %q from one of %v; got:\n%s", c.says, c.routers, out)
			}
			if !strings.Contains(out, "local error: message too long, mtu") {
				t.Errorf("%s has not learnt the path's MTU:\n%s", c.from, out)
			}
		})
	}
	// Of what the MSEEs pass, gateways pass what is not longer than 1400.
	for to, c := range map[string]struct {
		headers int
		says    string
	}{
		"10.100.1.10":      {28, "Frag needed and DF set (mtu = 1400)"},
		"fd00:100:0:1::10": {48, "Packet too big: mtu=1400"},
	} {
		l.exec("onprem", "ip", "-4", "route", "flush", "cache")
		l.exec("onprem", "ip", "-6", "route", "flush", "cache")
		ping := []string{"ping", "-n", "-c", "3", "-i", "0.3", "-W", "2", "-M", "do", "-s"}
		out, err := l.try("onprem", append(ping, strconv.Itoa(1400-c.headers), to)...)
		if err != nil {
			t.Errorf("packets of 1400 octets do not pass the gateway: %v\n%s", err, out)
		}
		out, _ = l.try("onprem", append(ping, strconv.Itoa(1401-c.headers), to)...)
		if !strings.Contains(out, c.says) || !strings.Contains(out, "local error: message too long, mtu") {
			t.Errorf("want %q, and the path's MTU learnt; got:\n%s", c.says, out)
		}
	}
	for _, node := range []string{"onprem", "vm"} {
		l.exec(node, "ip", "-4", "route", "flush", "cache")
		l.exec(node, "ip", "-6", "route", "flush", "cache")
	}
	for _, to := range []string{"10.100.1.10", "fd00:100:0:1::10"} {
		for _, reverse := range []bool{false, true} { // begins with segments of nearly 8000
			if rate := l.iperf3("onprem", "vm", to, reverse); rate < 0.1 {
				t.Errorf("TCP to %s, reverse %v: %.3f Gb/s", to, reverse, rate)
			}
		}
	}
}
