package edge

import (
	"net/netip"
	"strings"
	"testing"

	"msee/config"
	"msee/macsec"
)

func TestSealedMTU(t *testing.T) {
	sub := func(port string, stag, ctag uint16, mtu int) config.Subinterface {
		return config.Subinterface{Port: port, STag: stag, CTag: ctag, MTU: mtu, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.15.18/30")}}
	}
	for _, c := range []struct {
		subs []config.Subinterface
		want int
	}{
		{nil, 32},
		{[]config.Subinterface{sub("p", 0, 0, 1500)}, 1532},
		{[]config.Subinterface{sub("p", 0, 100, 1500)}, 1536},
		{[]config.Subinterface{sub("p", 0, 100, 1500), sub("p", 7, 9, 1500)}, 1540},
		{[]config.Subinterface{sub("p", 0, 100, 1500), sub("other", 7, 9, 9000)}, 1536},
	} {
		dev := &config.Device{VRFs: []config.VRF{{Subinterfaces: c.subs}}}
		if got, why := sealedMTU(dev, "p"); got != c.want {
			t.Errorf("%+v: %d (%s), want %d", c.subs, got, why, c.want)
		}
	}
	dev := &config.Device{VRFs: []config.VRF{{Subinterfaces: []config.Subinterface{sub("p", 7, 9, 65535)}}}}
	err := checkMACsec(dev, config.Port{Name: "p"}, "lo")
	if err == nil || !strings.Contains(err.Error(), "want at least 65575 (IP MTU 65535, tags 8, SecTAG and ICV 32)") {
		t.Errorf("a device that is too small: %v", err)
	}
}

// TestStaticKeysOverReloads: a key that stays goes on counting, one that goes is
// gone, and another under the same AN takes its place.
func TestStaticKeysOverReloads(t *testing.T) {
	peer, other := macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 2}, 1), macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 3}, 1)
	secy, err := macsec.New(macsec.Config{SCI: macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 1}, 1), ProtectFrames: true})
	if err != nil {
		t.Fatal(err)
	}
	key := func(b string) config.Secret { return config.Secret(strings.Repeat(b, 16)) }
	var before *config.StaticKeys
	set := func(tx config.StaticSA, rx ...config.StaticSA) {
		t.Helper()
		c := &config.MACsec{Cipher: macsec.GCMAES128, Confidentiality: macsec.Confidentiality0, Static: &config.StaticKeys{Transmit: tx, Receive: rx}}
		if err := setStaticKeys(secy, c, before); err != nil {
			t.Fatal(err)
		}
		before = c.Static
	}
	next := func(an uint8, want uint64) {
		t.Helper()
		if got, err := secy.TxNextPN(an); err != nil || got != want {
			t.Errorf("AN %d: next packet number %d, %v; want %d", an, got, err, want)
		}
	}
	a := config.StaticSA{AN: 0, SAK: key("a"), PN: 1}
	set(a, config.StaticSA{SCI: peer, AN: 1, SAK: key("p"), PN: 1}, config.StaticSA{SCI: other, AN: 1, SAK: key("o"), PN: 1})
	buf := make([]byte, 200)
	if _, _, o := secy.Seal(buf, 50, 150); o != macsec.OK {
		t.Fatal(o)
	}
	set(a, config.StaticSA{SCI: peer, AN: 1, SAK: key("p"), PN: 1}, config.StaticSA{SCI: peer, AN: 2, SAK: key("q"), PN: 1})
	next(0, 2)
	if _, _, err := secy.RxPN(other, 1); err == nil {
		t.Error("a removed peer is still heard")
	}
	set(config.StaticSA{AN: 0, SAK: key("b"), PN: 5}, config.StaticSA{SCI: peer, AN: 2, SAK: key("q"), PN: 1})
	next(0, 5)
	if _, _, err := secy.RxPN(peer, 1); err == nil {
		t.Error("a removed association is still heard")
	}
	set(config.StaticSA{AN: 3, SAK: key("b"), PN: 1}, config.StaticSA{SCI: peer, AN: 2, SAK: key("q"), PN: 1})
	next(3, 5)
	if _, err := secy.TxNextPN(0); err == nil {
		t.Error("the old transmit association is still there")
	}
	if _, _, o := secy.Seal(buf, 50, 150); o != macsec.OK {
		t.Errorf("after the reloads: %v", o)
	}
}
