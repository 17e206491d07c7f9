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

// TestEVPNEndpoints has a host tell of 200,000 endpoints, as many as the largest port
// takes, and says how long it takes until an MSEE has them all in its exact match. The
// next one goes by the gateway.
func TestEVPNEndpoints(t *testing.T) {
	const limit = 200_000
	l := startLab(t, topology(t, "vxlan", configured["vxlan"]...), "gw0", "gw1")
	l.exec("vm", "ip", "addr", "add", evpnHosts[1]+"/24", "dev", "eth1")
	l.reload(gateways, func(cfg map[string]any) {
		vnet := cfg["virtualNetwork"].(map[string]any)
		delete(vnet, "endpoints")
		space := vnet["addressSpace"].(map[string]any)
		for _, more := range []string{"10.101.0.0/16", "10.102.0.0/15", "10.104.0.0/16"} {
			space["addressPrefixes"] = append(space["addressPrefixes"].([]any), more)
		}
	})
	l.reload(msees, func(cfg map[string]any) {
		var neighbors []any
		for _, host := range evpnHosts {
			neighbors = append(neighbors, map[string]any{"address": host, "peerASN": evpnAS})
		}
		cfg["underlay"].(map[string]any)["evpn"] = map[string]any{"neighbors": neighbors}
		cfg["ports"].([]any)[0].(map[string]any)["bandwidthInGbps"] = 100
	})
	e := startEVPN(t, l)
	first := netip.MustParseAddr(fastPathVM)
	e.has(evpnHosts[0], 0, first)
	l.awaitLookup("msee1", "hit: host "+evpnHosts[0])
	all := []netip.Addr{first}
	for i := 1; i <= limit; i++ { // the first of them below the GatewaySubnet
		n := i + 0x0200
		if i > 60_000 {
			n = i + 0x10000
		}
		all = append(all, netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}))
	}
	processes := map[string]int{"edge": l.pid("msee1"), "its speaker": speakerOf(t, l.pid("msee1")), "the host's speaker": speakerOf(t, os.Getpid())}
	before := cpuTimes(t, processes)
	began := time.Now()
	e.has(evpnHosts[0], 0, all[:limit]...)
	var s edge.FastPathStatus
	device := api.NewClient(l.ns("msee1")) // without a process for each question, and with a pause: to be asked costs time as well
	eventually(t, 2*time.Minute, "all endpoints", func() error {
		time.Sleep(50 * time.Millisecond)
		rows, err := device.FastPath()
		if err != nil {
			return err
		}
		if s = rows[0]; s.Programmed != limit {
			return fmt.Errorf("%d of %d endpoints programmed", s.Programmed, s.Endpoints)
		}
		return nil
	})
	took := time.Since(began)
	for name, after := range cpuTimes(t, processes) {
		t.Logf("%s: %v of processor time", name, after-before[name])
	}
	t.Logf("%d endpoints after %v, by %d hosts", s.Programmed, took.Round(10*time.Millisecond), s.Hosts)
	if s.Endpoints != limit || s.Waiting != 0 || s.Alert != "" || s.Hosts != 1 {
		t.Errorf("FastPath has %+v", s)
	}
	e.has(evpnHosts[0], 0, all...)
	eventually(t, time.Minute, "one more goes by the gateway", func() error {
		found, err := device.Lookup("er1-private", all[limit])
		if err != nil || len(found) != 1 || !strings.Contains(found[0].FastPath, "limit") || found[0].Kind != "forward" || len(found[0].Hops) != 2 {
			return fmt.Errorf("%+v, %v", found, err)
		}
		rows, err := device.FastPath()
		if err != nil || rows[0].Programmed != limit || rows[0].Waiting != 1 || rows[0].Alert == "" {
			return fmt.Errorf("FastPath has %+v, %v", rows, err)
		}
		return nil
	})
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
