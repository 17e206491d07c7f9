package test

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"msee/bgp"
	"msee/edge"
	"msee/lab/vlanshim"
	"msee/netns"
	"msee/test/injector"
)

var manyPrefixes = flag.Int("prefixes", 100_000, "how many prefixes TestManyPrefixes has a customer announce; a million takes a minute and a GB")

// TestManyPrefixes lifts the limit on prefixes and has one customer announce very
// many, and withdraw them all at once: the other VRF loses nothing, keeps its
// sessions, and BFD's too; and the FIB is what the RIB says.
func TestManyPrefixes(t *testing.T) {
	l := startLab(t, topology(t, "default"), "gw0", "gw1")
	l.editConfig("msee1", func(cfg map[string]any) {
		cfg["bgp"].(map[string]any)["maximumPrefixes"] = 0
		cfg["circuits"] = append(cfg["circuits"].([]any), map[string]any{
			"name": "er9", "port": "cust", "peerings": []any{map[string]any{
				"peeringType": "AzurePrivatePeering", "peerASN": 65009, "vlanId": 900,
				"primaryPeerAddressPrefix": "192.168.90.0/30", "secondaryPeerAddressPrefix": "192.168.90.4/30",
			}},
		})
	})
	if out, err := l.msee("reload", "-d", l.ns("msee1")); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	err := netns.Do(l.ns("ce"), func() error {
		if _, err := vlanshim.Add("link1", "link1.900", 1500, vlanshim.Tag{TPID: vlanshim.TPIDCustomer, VID: 900}); err != nil {
			return err
		}
		link, err := netlink.LinkByName("link1.900")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("192.168.90.1/30")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, a)
	})
	if err != nil {
		t.Fatal(err)
	}
	p := startProbes(l)
	i := injector.Injector{AS: 65009, Local: netip.MustParseAddr("192.168.90.1"), Peer: netip.MustParseAddr("192.168.90.2")}
	if err := i.Connect(t.Context(), l.ns("ce")); err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	before := othersOf(l)
	began, begin := time.Now(), p.now()
	if err := i.Announce(injector.Slash24s(*manyPrefixes)); err != nil {
		t.Fatal(err)
	}
	accepted := func(want int) func() error {
		return func() error {
			s, err := l.session("msee1", "er9-private", "192.168.90.1")
			if err == nil && s.Accepted != want {
				err = fmt.Errorf("%d prefixes, want %d", s.Accepted, want)
			}
			return err
		}
	}
	eventually(t, 3*time.Minute, "all prefixes", accepted(*manyPrefixes))
	t.Logf("%d prefixes after %v", *manyPrefixes, time.Since(began).Round(time.Millisecond))
	for _, a := range show[edge.AuditStatus](l, "msee1", "audit", "--now") {
		if a.Repaired > 0 || a.VRF == "er9-private" && a.Prefixes < *manyPrefixes {
			t.Errorf("audit: %+v", a)
		}
	}
	began = time.Now()
	i.Close()
	eventually(t, time.Minute, "none", accepted(0))
	t.Logf("gone after %v", time.Since(began).Round(time.Millisecond))
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("the other VRF: %v", x)
	}
	if after := othersOf(l); after != before {
		t.Errorf("the other sessions were\n%s\nand are\n%s", before, after)
	}
}

// othersOf describes the sessions of msee1's first VRF, BGP's and BFD's.
func othersOf(l *testLab) (text string) {
	l.t.Helper()
	for _, s := range show[edge.SessionStatus](l, "msee1", "bgp") {
		if s.VRF == "er1-private" {
			text += fmt.Sprintf("%s %s since %s, %d flaps\n", s.Session, s.State, s.Since, s.Flaps)
			if s.State != bgp.StateEstablished {
				l.t.Errorf("%s is %s", s.Session, s.State)
			}
		}
	}
	for _, s := range show[edge.BFDStatus](l, "msee1", "bfd") {
		if s.VRF == "er1-private" {
			text += fmt.Sprintf("BFD of %s: %v, down %v\n", s.Session, s.State, s.Downs)
		}
	}
	return text
}
