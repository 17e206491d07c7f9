package edge

import (
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
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
	e := &Edge{log: slog.New(slog.DiscardHandler)}
	e.packetNumbers.load(filepath.Join(t.TempDir(), "packetnumbers.json"))
	p := &portState{secy: secy}
	try := func(tx config.StaticSA, rx ...config.StaticSA) error {
		p.cfg.MACsec = &config.MACsec{Cipher: macsec.GCMAES128, Confidentiality: macsec.Confidentiality0, Static: &config.StaticKeys{Transmit: tx, Receive: rx}}
		return e.setStaticKeys(p)
	}
	set := func(tx config.StaticSA, rx ...config.StaticSA) {
		t.Helper()
		if err := try(tx, rx...); err != nil {
			t.Fatal(err)
		}
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
	// A key comes back after others: its first frame was sent with 1.
	set(a, config.StaticSA{SCI: peer, AN: 2, SAK: key("q"), PN: 1})
	next(0, 2)
	// All or nothing: of a configuration with a fault nothing is installed.
	if err := try(config.StaticSA{AN: 1, SAK: key("c"), PN: 1}, config.StaticSA{SCI: other, AN: 4, SAK: key("o"), PN: 1}); err == nil {
		t.Error("AN 4 was accepted")
	}
	next(0, 2)
	if _, _, err := secy.RxPN(peer, 2); err != nil {
		t.Error("half of a faulty configuration was applied:", err)
	}
	if _, err := secy.TxNextPN(1); err == nil {
		t.Error("half of a faulty configuration was applied")
	}
	if _, _, o := secy.Seal(buf, 50, 150); o != macsec.OK {
		t.Errorf("after a faulty configuration: %v", o)
	}
}

// TestStaticKeyUnderAnotherSalt: a key begins no life anew when what else its IVs
// are made of changes, and changes back.
func TestStaticKeyUnderAnotherSalt(t *testing.T) {
	e := &Edge{log: slog.New(slog.DiscardHandler)}
	e.packetNumbers.load(filepath.Join(t.TempDir(), "packetnumbers.json"))
	p := &portState{secy: macsec.NewClosed(macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 1}, 1))}
	key := config.Secret(strings.Repeat("k", 16))
	xpn := func(an uint8, salt byte, ssci uint32) *config.MACsec {
		return &config.MACsec{Cipher: macsec.GCMAESXPN128, Static: &config.StaticKeys{
			Transmit: config.StaticSA{AN: an, SAK: key, PN: 1, SSCI: ssci, Salt: [12]byte{salt}}}}
	}
	plain := &config.MACsec{Cipher: macsec.GCMAES128, Static: &config.StaticKeys{Transmit: config.StaticSA{SAK: key, PN: 1}}}
	buf := make([]byte, 200)
	var last uint64
	for i, c := range []*config.MACsec{xpn(0, 1, 1), xpn(0, 1, 2), xpn(0, 1, 1), xpn(0, 2, 1), xpn(1, 1, 1), xpn(1, 1, 1), plain, xpn(0, 1, 1), plain} {
		p.cfg.MACsec = c
		if err := e.setStaticKeys(p); err != nil {
			t.Fatal(i, err)
		}
		an := c.Static.Transmit.AN
		for range 3 {
			pn, err := p.secy.TxNextPN(an)
			if err != nil || pn <= last {
				t.Fatalf("configuration %d: next packet number %d, %v, after %d", i, pn, err, last)
			}
			last = pn
			if _, _, o := p.secy.Seal(buf, 50, 150); o != macsec.OK {
				t.Fatal(i, o)
			}
		}
	}
}

// TestTwoPortsWithOneKey go on behind each other's packet numbers.
func TestTwoPortsWithOneKey(t *testing.T) {
	e := &Edge{log: slog.New(slog.DiscardHandler), ports: map[string]*portState{}}
	e.packetNumbers.load(filepath.Join(t.TempDir(), "packetnumbers.json"))
	buf := make([]byte, 200)
	used := map[uint64]bool{}
	for i := range 2 {
		p := &portState{secy: macsec.NewClosed(macsec.NewSCI([6]byte{2, 0, 0, 0, 0, byte(i)}, 1))}
		p.cfg.MACsec = &config.MACsec{Cipher: macsec.GCMAES128, Static: &config.StaticKeys{
			Transmit: config.StaticSA{SAK: config.Secret(strings.Repeat("k", 16)), PN: 1}}}
		if err := e.setStaticKeys(p); err != nil {
			t.Fatal(err)
		}
		e.ports[string(rune('a'+i))] = p
	}
	for range 4 {
		for name, p := range e.ports {
			if err := p.secy.SkipTxPN(0, p.numbers.last-2); err != nil { // some million frames later
				t.Fatal(err)
			}
			e.extendNumbers()
			for range 5 {
				pn, err := p.secy.TxNextPN(0)
				if err != nil || used[pn] {
					t.Fatalf("port %s: packet number %d, %v; used before: %v", name, pn, err, used[pn])
				}
				used[pn] = true
				if _, _, o := p.secy.Seal(buf, 50, 150); o != macsec.OK {
					t.Fatalf("port %s, packet number %d: %v", name, pn, o)
				}
			}
		}
	}
}

// TestPacketNumbersOutliveTheProcess, orderly ended or not: none is used twice.
func TestPacketNumbersOutliveTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "packetnumbers.json")
	buf := make([]byte, 200)
	start := func() (*Edge, *portState) {
		t.Helper()
		e := &Edge{log: slog.New(slog.DiscardHandler), ports: map[string]*portState{}}
		e.packetNumbers.load(file)
		p := &portState{secy: macsec.NewClosed(macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 1}, 1))}
		e.ports["p"] = p
		p.cfg.MACsec = &config.MACsec{Cipher: macsec.GCMAES128, Static: &config.StaticKeys{
			Transmit: config.StaticSA{AN: 1, SAK: config.Secret(strings.Repeat("k", 16)), PN: 1}}}
		if err := e.setStaticKeys(p); err != nil {
			t.Fatal(err)
		}
		return e, p
	}
	seal := func(p *portState, want uint64) {
		t.Helper()
		if next, err := p.secy.TxNextPN(1); err != nil || next != want {
			t.Errorf("next packet number %d, %v; want %d", next, err, want)
		}
		if _, _, o := p.secy.Seal(buf, 50, 150); o != macsec.OK {
			t.Error(o)
		}
	}
	e, p := start()
	seal(p, 1)
	e.closeSecY(p)
	_, p = start()
	seal(p, 2) // and the process crashes
	e, p = start()
	seal(p, 2+pnBlock)
	// The block nears its end: another is reserved, and what was reserved is
	// where the next process begins.
	if err := p.secy.InstallTxSA(1, macsec.SAK{Suite: macsec.GCMAES128, Key: []byte(strings.Repeat("k", 16))}, 0, 1+2*pnBlock-1); err != nil {
		t.Fatal(err)
	}
	e.extendNumbers()
	seal(p, 2*pnBlock)
	seal(p, 1+2*pnBlock)
	seal(p, 2+2*pnBlock)
	_, p = start()
	seal(p, 2+3*pnBlock)

	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, "", "/proc/msee/packetnumbers.json"} {
		e.packetNumbers = packetNumbers{}
		e.packetNumbers.load(bad)
		p := &portState{secy: macsec.NewClosed(1), cfg: p.cfg}
		if err := e.setStaticKeys(p); err == nil {
			t.Errorf("state %q: static keys were accepted", bad)
		}
		if _, _, o := p.secy.Seal(buf, 50, 150); o != macsec.NoKey {
			t.Errorf("state %q: sealing: %v", bad, o)
		}
	}
}

// TestPacketNumbersRunOut: the last number of a key is the last.
func TestPacketNumbersRunOut(t *testing.T) {
	var n packetNumbers
	n.load(filepath.Join(t.TempDir(), "packetnumbers.json"))
	const most = 1<<32 - 1
	from, r, err := n.reserve("k", most-9, most)
	if err != nil || from != most-9 || r.last != most {
		t.Fatal(from, r, err)
	}
	if more, err := n.extend(&r, most); more || err != nil {
		t.Error("there was more than all:", err)
	}
	if _, _, err := n.reserve("k", 1, most); err == nil {
		t.Error("reserved once more")
	}
	if err := n.giveBack(r, most); err != nil {
		t.Error(err)
	}
	if from, _, err := n.reserve("k", 1, most); from != most || err != nil {
		t.Error(from, err)
	}
	// With two that have the same key, neither has numbers of the other's.
	_, a, _ := n.reserve("x", 1, most)
	from, b, _ := n.reserve("x", 1, most)
	if from != a.last+1 {
		t.Errorf("the second begins at %d, the first ends at %d", from, a.last)
	}
	if more, _ := n.extend(&a, most); more {
		t.Error("the first went on over the second's")
	}
	if err := n.giveBack(a, 7); err != nil || n.free["x"] != b.last+1 {
		t.Errorf("what the first gives back is %d, %v", n.free["x"], err)
	}
	if _, r, err := n.reserve("y", math.MaxUint64-1, math.MaxUint64); err != nil || r.last != math.MaxUint64-1 || n.free["y"] != math.MaxUint64 {
		t.Error(r, err, n.free["y"])
	}
}
