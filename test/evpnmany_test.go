package test

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"msee/api"
	"msee/edge"
)

// TestEVPNEndpoints has a host tell of 200,000 endpoints, and says how long it takes
// until an MSEE has them all. What is above the port's limit goes by the gateway.
func TestEVPNEndpoints(t *testing.T) {
	const endpoints, limit = 200_000, 25_000
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	l.exec("vm", "ip", "addr", "add", evpnHosts[1]+"/24", "dev", "eth1")
	l.reload(gateways, func(cfg map[string]any) { delete(cfg["virtualNetwork"].(map[string]any), "endpoints") })
	l.reload(msees, func(cfg map[string]any) {
		var neighbors []any
		for _, host := range evpnHosts {
			neighbors = append(neighbors, map[string]any{"address": host, "peerASN": evpnAS})
		}
		cfg["underlay"].(map[string]any)["evpn"] = map[string]any{"neighbors": neighbors}
	})
	e := startEVPN(t, l)
	first := netip.MustParseAddr(fastPathVM)
	e.has(evpnHosts[0], 0, first)
	l.awaitLookup("msee1", "hit: host "+evpnHosts[0])
	all := []netip.Addr{first}
	for i := 1; i < endpoints; i++ { // the first of them in the VNet's prefix, below the GatewaySubnet
		n := i + 0x0200
		if i > 60_000 {
			n = i + 0x10000
		}
		all = append(all, netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}))
	}
	processes := map[string]int{"edge": l.pid("msee1"), "its speaker": speakerOf(t, l.pid("msee1")), "the host's speaker": speakerOf(t, os.Getpid())}
	before := cpuTimes(t, processes)
	began := time.Now()
	e.has(evpnHosts[0], 0, all...)
	var s edge.FastPathStatus
	device := api.NewClient(l.ns("msee1")) // without a process for each question, and with a pause: to be asked costs time as well
	eventually(t, 2*time.Minute, "all endpoints", func() error {
		time.Sleep(50 * time.Millisecond)
		rows, err := device.FastPath()
		if err != nil {
			return err
		}
		if s = rows[0]; s.Endpoints != endpoints {
			return fmt.Errorf("%d endpoints", s.Endpoints)
		}
		return nil
	})
	took := time.Since(began)
	for name, after := range cpuTimes(t, processes) {
		t.Logf("%s: %v of processor time", name, after-before[name])
	}
	t.Logf("%d endpoints after %v, %d programmed by %d hosts; %s", s.Endpoints, took.Round(10*time.Millisecond), s.Programmed, s.Hosts, s.Alert)
	if s.Programmed != limit || s.Alert == "" || s.Hosts != 1 {
		t.Errorf("FastPath has %+v", s)
	}
	l.awaitLookup("msee1", "hit: host "+evpnHosts[0])
}

// cpuTimes is how much of processors the processes have had, of all threads.
func cpuTimes(t *testing.T, processes map[string]int) map[string]time.Duration {
	t.Helper()
	times := map[string]time.Duration{}
	for name, pid := range processes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
		f := strings.Fields(rest)
		for _, ticks := range f[11:13] { // utime, stime
			n, err := strconv.Atoi(ticks)
			if err != nil {
				t.Fatal(err)
			}
			times[name] += time.Duration(n) * 10 * time.Millisecond // USER_HZ
		}
	}
	return times
}
