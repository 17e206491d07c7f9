package frr

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBGPDConfig(t *testing.T) {
	c := Config{
		Hostname: "ce", ASN: 65001, RouterID: netip.MustParseAddr("10.1.0.1"),
		KeepaliveSeconds: 3, HoldSeconds: 10, MaximumPaths: 2,
		Networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")},
		Neighbors: []Neighbor{
			{netip.MustParseAddr("192.168.15.18"), 12076, "abc123", false},
			{netip.MustParseAddr("2001:db8:0:10::2"), 12076, "", false},
			{netip.MustParseAddr("172.16.0.4"), 12076, "", true},
		},
		Extra: "debug bgp updates",
		BFD:   &BFD{IntervalMilliseconds: 50, Multiplier: 5},
	}
	if got, want := c.BFDD(), "hostname ce\nbfd\n profile msee\n  detect-multiplier 5\n  receive-interval 50\n  transmit-interval 50\n exit\nexit\n"; got != want {
		t.Errorf("bfdd: got:\n%s\nwant:\n%s", got, want)
	}
	want, err := os.ReadFile("testdata/bgpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.BGPD(); got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := (&Config{Hostname: "r"}).BGPD(); got != "hostname r\n" {
		t.Errorf("without BGP: got %q", got)
	}
}

// TestBGPDConfigIsAccepted has the installed bgpd read it.
func TestBGPDConfigIsAccepted(t *testing.T) {
	daemons, err := Daemons("testdata/bgpd.conf")
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("bgpd checks a configuration only as root")
	}
	bgpd := daemons[len(daemons)-1].Argv[0]
	out, err := runFor(5*time.Second, bgpd, "-C", "-f", "testdata/bgpd.conf")
	if err != nil {
		t.Errorf("%s -C: %v\n%s", bgpd, err, out)
	}
}

// canned answers vtysh from a table.
func canned(answers map[string]string) Runner {
	return func(_ context.Context, argv ...string) ([]byte, error) {
		out, ok := answers[argv[len(argv)-1]]
		if !ok {
			return nil, errors.New("failed to connect to any daemons")
		}
		return []byte(out), nil
	}
}

func TestSessions(t *testing.T) {
	got, err := Sessions(t.Context(), canned(map[string]string{
		"show bgp summary json": `{
"ipv4Unicast":{"routerId":"10.1.0.1","peers":{
 "192.0.2.6":{"remoteAs":12076,"state":"Active","peerUptimeMsec":0,"pfxRcd":0},
 "192.0.2.2":{"remoteAs":12076,"state":"Established","peerUptimeMsec":61000,"pfxRcd":1,"pfxSnt":2}}},
"ipv6Unicast":{"peers":{"2001:db8::2":{"remoteAs":12076,"state":"Idle"}}}}`,
		"show bgp neighbors json": `{
"192.0.2.2":{"lastResetDueTo":"Waiting for NHT"},
"192.0.2.6":{"lastResetDueTo":"BGP Notification received","lastNotificationReason":"OPEN Message Error/Bad Peer AS"},
"2001:db8::2":{"lastResetDueTo":"Hold Timer Expired"}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := []Session{
		{netip.MustParseAddr("192.0.2.2"), 12076, "Established", 61 * time.Second, 1, 2, ""},
		{netip.MustParseAddr("192.0.2.6"), 12076, "Active", 0, 0, 0, "OPEN Message Error/Bad Peer AS"},
		{netip.MustParseAddr("2001:db8::2"), 12076, "Idle", 0, 0, 0, "Hold Timer Expired"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPaths(t *testing.T) {
	got, err := Paths(t.Context(), canned(map[string]string{
		"show bgp ipv4 unicast json": `{"routes":{
"10.100.0.0/16":[{"valid":true},{"valid":true},{"valid":false}],
"10.1.0.0/16":[{"valid":true}]}}`,
	}), false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.Prefix]int{netip.MustParsePrefix("10.100.0.0/16"): 2, netip.MustParsePrefix("10.1.0.0/16"): 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNotReady(t *testing.T) {
	if _, err := Sessions(t.Context(), canned(nil)); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
	for _, nonsense := range []string{"", "[]", "{", `{"ipv4Unicast":{"peers":{"x":{}}}}`} {
		_, err := Sessions(t.Context(), canned(map[string]string{"show bgp summary json": nonsense}))
		if err == nil || strings.Contains(err.Error(), "does not answer") {
			t.Errorf("%q: got %v", nonsense, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"ipv4Unicast":{"peers":{"192.0.2.2":{"state":"Established"}}}}`))
	f.Add([]byte(`{"routes":{"10.1.0.0/16":[{"valid":true}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		sessions, _ := parseSummary(data)
		_ = addReasons(sessions, data)
		_, _ = parseRoutes(data)
	})
}

func runFor(d time.Duration, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
}
