package test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
	l.editConfig("msee1", func(cfg map[string]any) { cfg["bgp"].(map[string]any)["maximumPrefixes"] = 0 })
	l.addCustomer("Standard")
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

// addCustomer gives msee1 the circuit er9, and the CE's namespace the customer's
// end of it: 192.168.90.1 and 2001:db8:90::1, AS 65009, for an injector.
func (l *testLab) addCustomer(tier string) {
	t := l.t
	t.Helper()
	l.editConfig("msee1", func(cfg map[string]any) {
		cfg["circuits"] = append(cfg["circuits"].([]any), map[string]any{
			"name": "er9", "port": "cust", "sku": map[string]any{"tier": tier}, "peerings": []any{map[string]any{
				"peeringType": "AzurePrivatePeering", "peerASN": 65009, "vlanId": 900,
				"primaryPeerAddressPrefix": "192.168.90.0/30", "secondaryPeerAddressPrefix": "192.168.90.4/30",
				"ipv6PeeringConfig": map[string]any{
					"primaryPeerAddressPrefix": "2001:db8:90::/126", "secondaryPeerAddressPrefix": "2001:db8:90::4/126"},
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
		// The lab has IPv6 off where its topology has none.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/link1.900/disable_ipv6", []byte("0"), 0); err != nil {
			return err
		}
		link, err := netlink.LinkByName("link1.900")
		if err != nil {
			return err
		}
		for _, addr := range []string{"192.168.90.1/30", "2001:db8:90::1/126"} {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
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
