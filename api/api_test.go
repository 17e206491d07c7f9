package api

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/config"
	"msee/edge"
)

func TestClaimIsExclusive(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip(Dir + " is root's")
	}
	name := fmt.Sprintf("api-test-%d", os.Getpid())
	first, err := Claim(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(name); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("second claim: %v", err)
	}
	first.Release()
	again, err := Claim(name)
	if err != nil {
		t.Fatalf("claim after release: %v", err)
	}
	again.Release()
	if _, err := os.Stat(SocketPath(name)[:len(SocketPath(name))-len("/ctl.sock")]); !os.IsNotExist(err) {
		t.Errorf("something is left: %v", err)
	}
}

// lines prints with f and returns the lines without trailing blanks.
func lines(t *testing.T, f func(*bytes.Buffer) error) []string {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	out := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i := range out {
		out[i] = strings.TrimRight(out[i], " ")
	}
	return out
}

func compare(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestShowBGP(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	up := edge.SessionStatus{VRF: "er1-private", Peer: netip.MustParseAddr("192.168.15.17"), AS: 4200000001,
		Side: config.SideCustomer, MD5: true, Received: 3, Accepted: 2, Refused: 1, Advertised: 4}
	up.Received, up.Prefixes = 160, edge.LimitStatus{Limit: 200, State: bgp.LimitNear}
	up.State, up.Since, up.Hold, up.Keepalive = bgp.StateEstablished, now.Add(-75*time.Minute), 10*time.Second, 3*time.Second
	down := edge.SessionStatus{VRF: "er1-private", Peer: netip.MustParseAddr("2001:db8::1"), AS: 65001, Side: config.SideCustomer}
	down.State, down.Reason = bgp.StateActive, "the keys differ"
	compare(t, lines(t, func(b *bytes.Buffer) error { return ShowBGP(b, []edge.SessionStatus{up, down}, now) }),
		"VRF          NEIGHBOR       AS          SIDE      STATE        SINCE  KEEP/HOLD  MD5  ACCEPTED  REFUSED  LIMIT       SENT  FLAPS",
		"er1-private  192.168.15.17  4200000001  customer  Established  1h15m  3/10       yes  2         1        200 (80%!)  4     0",
		"er1-private  2001:db8::1    65001       customer  Active       never  -          no   0         0        -           0     0",
		"er1-private 2001:db8::1: the keys differ")
}

func TestShowDevices(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	msee := edge.DeviceStatus{Name: "msee1", Kind: config.KindEdge, Role: "primary", ASN: 12076, RouterID: netip.MustParseAddr("192.0.2.1"),
		PID: 77, Started: now.Add(-75 * time.Minute), SpeakerRestarts: 2, Maintenance: edge.Draining}
	gateway := edge.DeviceStatus{Name: "gw0", Kind: config.KindGateway, Role: "0", ASN: 65515, RouterID: netip.MustParseAddr("192.0.2.2"),
		PID: 78, Started: now.Add(-time.Minute), Maintenance: edge.InService, TakesOver: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}}
	compare(t, lines(t, func(b *bytes.Buffer) error { return ShowDevices(b, []edge.DeviceStatus{msee, gateway}, now) }),
		"DEVICE  KIND     ROLE     AS     ROUTER-ID  PID  RUNS   SPEAKER-RESTARTS  MAINTENANCE  TAKES-OVER",
		"msee1   edge     primary  12076  192.0.2.1  77   1h15m  2                 Draining     -",
		"gw0     gateway  0        65515  192.0.2.2  78   01:00  0                 InService    10.0.0.5,fd00::5")
}

func TestShowRoutes(t *testing.T) {
	prefix := netip.MustParsePrefix("10.1.0.0/16")
	hop := netip.MustParseAddr("192.168.15.17")
	rows := []edge.RouteStatus{
		{VRF: "a", Prefix: prefix, Source: "bgp", Paths: []edge.PathStatus{
			{NextHop: hop, Interface: "cust.100", ASPath: []uint32{65001, 65001}, State: bgp.PathBest, Why: "only route", Resolved: true},
			{NextHop: hop, Interface: "cust.100", Origin: 2, State: bgp.PathRefused, Why: "martian", Stale: true},
			{NextHop: hop, Interface: "cust.100", Origin: 9, State: bgp.PathLost},
		}},
		{VRF: "a", Prefix: netip.PrefixFrom(hop, 32), Source: "local"},
	}
	rows = append(rows, edge.RouteStatus{VRF: "a", Prefix: netip.MustParsePrefix("20.150.66.0/24"), Source: "originated", Paths: []edge.PathStatus{
		{NextHop: hop, Interface: "cust.100", ASPath: []uint32{65001, 12076}, State: bgp.PathRefused, Why: "not in advertisedPublicPrefixes"}}})
	compare(t, lines(t, func(b *bytes.Buffer) error { return ShowRoutes(b, rows) }),
		"   VRF  PREFIX            NEXT-HOP       INTERFACE  SOURCE      AS-PATH        NOTE",
		"*  a    10.1.0.0/16       192.168.15.17  cust.100   bgp         65001 65001 i  only route",
		"x  a    10.1.0.0/16       192.168.15.17  cust.100   bgp         ?              martian; stale",
		"   a    10.1.0.0/16       192.168.15.17  cust.100   bgp         -              next hop not resolved",
		"*  a    192.168.15.17/32  -              -          local       -              -",
		"*  a    20.150.66.0/24    -              -          originated  -              -",
		"x  a    20.150.66.0/24    192.168.15.17  cust.100   bgp         65001 12076 i  not in advertisedPublicPrefixes")
}

func TestUnits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1_500_000_000: "1.5 GB", 1<<64 - 1: "18.4 EB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("bytesOf(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "00:00", 59 * time.Second: "00:59", 59*time.Minute + 59*time.Second: "59:59",
		time.Hour: "1h00m", 25 * time.Hour: "1d01h"} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
}
