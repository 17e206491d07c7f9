package macsec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

var (
	macA = [6]byte{2, 0, 0, 0, 0, 0xa}
	macB = [6]byte{2, 0, 0, 0, 0, 0xb}
	sciA = NewSCI(macA, 1)
	sciB = NewSCI(macB, 1)
)

// testSAK returns a key that differs by seed.
func testSAK(suite CipherSuite, conf Confidentiality, seed byte) SAK {
	k := SAK{Suite: suite, Confidentiality: conf, Key: bytes.Repeat([]byte{seed, 0x5a}, suite.KeyLen()/2)}
	if suite.XPN() {
		k.Salt = Salt(bytes.Repeat([]byte{seed ^ 0xff, 7, 9}, 4))
	}
	return k
}

// link is a channel from A to B with one SA.
type link struct {
	tx, rx *SecY
}

func newLink(t testing.TB, sak SAK, cfg Config, next uint64) link {
	cfg.ProtectFrames = true
	rxCfg := cfg
	rxCfg.SCI, rxCfg.UseES, rxCfg.UseSCB = sciB, false, false
	if cfg.SCI == 0 {
		cfg.SCI = sciA
	}
	l := link{mustNew(t, cfg), mustNew(t, rxCfg)}
	ssci := uint32(0)
	if sak.Suite.XPN() {
		ssci = 1
	}
	must(t, l.tx.InstallTxSA(1, sak, ssci, next))
	must(t, l.tx.EnableTxSA(1))
	must(t, l.rx.CreateRxSC(cfg.SCI))
	must(t, l.rx.InstallRxSA(cfg.SCI, 1, sak, ssci, next))
	must(t, l.rx.EnableRxSA(cfg.SCI, 1))
	return l
}

func testFrame(n int) []byte {
	f := make([]byte, n)
	copy(f, macB[:])
	copy(f[6:], macA[:])
	if n >= 14 {
		binary.BigEndian.PutUint16(f[12:], 0x0800)
	}
	for i := 14; i < n; i++ {
		f[i] = byte(i)
	}
	return f
}

// seal returns a sealed copy of frame.
func (l link) seal(t testing.TB, frame []byte) []byte {
	t.Helper()
	buf, start, end := room(frame)
	start, end, o := l.tx.Seal(buf, start, end)
	if o != OK {
		t.Fatalf("seal: %v", o)
	}
	return bytes.Clone(buf[start:end])
}

// open opens a copy of frame.
func (l link) open(frame []byte) ([]byte, Outcome) {
	buf := bytes.Clone(frame)
	start, end, o := l.rx.Open(buf, 0, len(buf))
	return buf[start:end], o
}

var suites = []CipherSuite{GCMAES128, GCMAES256, GCMAESXPN128, GCMAESXPN256}

// TestEveryForm goes through all suites, offsets, forms of the TCI and the
// lengths around every boundary, and checks what can be read on the wire.
func TestEveryForm(t *testing.T) {
	forms := map[string]struct {
		cfg Config
		tci byte
	}{
		"none": {Config{}, 0},
		"sc":   {Config{IncludeSCI: true}, tciSC},
		"es":   {Config{UseES: true}, tciES},
		"scb":  {Config{UseSCB: true, SCI: NewSCI(macA, 0)}, tciSCB},
	}
	for _, suite := range suites {
		for conf := IntegrityOnly; conf <= Confidentiality50; conf++ {
			if suite.XPN() && conf > Confidentiality0 {
				continue
			}
			for form, f := range forms {
				t.Run(fmt.Sprint(suite, "/", conf, "/", form), func(t *testing.T) {
					l := newLink(t, testSAK(suite, conf, 1), f.cfg, 1)
					for _, n := range []int{14, 15, 42, 43, 59, 60, 61, 62, 63, 64, 80, 1514, 9014} {
						plain := testFrame(n)
						sealed := l.seal(t, plain)
						got, o := l.open(sealed)
						if o != OK || !bytes.Equal(got, plain) {
							t.Fatalf("%d octets: %v, %x", n, o, got)
						}
						tci, sl := sealed[14], int(sealed[15])
						wantTCI := f.tci | 1
						if conf != IntegrityOnly {
							wantTCI |= tciE | tciC
						}
						wantSL := n - 12
						if wantSL >= 48 {
							wantSL = 0
						}
						if tci != wantTCI || sl != wantSL {
							t.Errorf("%d octets: TCI %02x SL %d, want %02x %d", n, tci, sl, wantTCI, wantSL)
						}
						head := 12 + 8
						if f.tci == tciSC {
							head += 8
						}
						clear := conf.clear()
						if conf == IntegrityOnly {
							clear = n
						}
						clear = min(clear, n-12)
						user := sealed[head : len(sealed)-ICVLen]
						if !bytes.Equal(user[:clear], plain[12:12+clear]) {
							t.Errorf("%d octets: the clear part is not clear", n)
						}
						if rest := plain[12+clear:]; len(rest) >= 8 && bytes.Equal(user[clear:], rest) {
							t.Errorf("%d octets: not encrypted", n)
						}
					}
					// Ethernet padding behind a short frame is no part of it.
					sealed := append(l.seal(t, testFrame(30)), make([]byte, 9)...)
					if got, o := l.open(sealed); o != OK || !bytes.Equal(got, testFrame(30)) {
						t.Errorf("padded: %v, %x", o, got)
					}
				})
			}
		}
	}
}

// TestGroup: with two peers the SCI is sent, and each is heard as itself.
func TestGroup(t *testing.T) {
	sciC := NewSCI([6]byte{2, 0, 0, 0, 0, 0xc}, 1)
	sak := testSAK(GCMAESXPN128, Confidentiality0, 1)
	hub := mustNew(t, Config{SCI: sciB, ProtectFrames: true, ReplayProtect: true})
	for i, sci := range []SCI{sciA, sciC} {
		must(t, hub.CreateRxSC(sci))
		must(t, hub.InstallRxSA(sci, 0, sak, uint32(i+1), 1))
		must(t, hub.EnableRxSA(sci, 0))
	}
	must(t, hub.InstallTxSA(0, sak, 3, 1))
	must(t, hub.EnableTxSA(0))
	buf, start, end := room(testFrame(100))
	start, _, _ = hub.Seal(buf, start, end)
	if buf[start+14]&tciSC == 0 {
		t.Error("two peers, and no SCI in the tag")
	}
	for i, sci := range []SCI{sciA, sciC} {
		tx := mustNew(t, Config{SCI: sci, ProtectFrames: true, IncludeSCI: true})
		must(t, tx.InstallTxSA(0, sak, uint32(i+1), 1))
		must(t, tx.EnableTxSA(0))
		if got, o := (link{tx, hub}).open(link{tx: tx}.seal(t, testFrame(200))); o != OK || !bytes.Equal(got, testFrame(200)) {
			t.Errorf("from %v: %v", sci, o)
		}
	}
	hub.RemoveRxSC(sciC)
	buf, start, end = room(testFrame(100))
	if start, _, _ = hub.Seal(buf, start, end); buf[start+14]&tciSC != 0 {
		t.Error("one peer, and still an SCI in the tag")
	}
}

// TestReplayWindow: who is how far behind, and what is accepted.
func TestReplayWindow(t *testing.T) {
	for _, suite := range []CipherSuite{GCMAES128, GCMAESXPN128} {
		for _, window := range []uint32{0, 1, 10, 1 << 20, math.MaxUint32} {
			l := newLink(t, testSAK(suite, Confidentiality0, 1), Config{ReplayProtect: true, ReplayWindow: window}, 1)
			var sent [][]byte
			for range 100 {
				sent = append(sent, l.seal(t, testFrame(80)))
			}
			// The newest first: the others are as far behind as they can be.
			for i := len(sent) - 1; i >= 0; i-- {
				want := OK
				if behind := uint64(len(sent) - i); behind > max(uint64(window), 1) && i < len(sent)-1 || window == 0 && i < len(sent)-1 {
					want = Late
				}
				if _, o := l.open(sent[i]); o != want {
					t.Errorf("%v, window %d: %d behind the next: %v, want %v", suite, window, len(sent)-i, o, want)
				}
			}
		}
	}
}

// TestWindowMovesForValidOnly: a forged packet number far ahead does nothing.
func TestWindowMovesForValidOnly(t *testing.T) {
	l := newLink(t, testSAK(GCMAES128, Confidentiality0, 1), Config{ReplayProtect: true}, 1)
	first, second := l.seal(t, testFrame(80)), l.seal(t, testFrame(80))
	forged := bytes.Clone(first)
	binary.BigEndian.PutUint32(forged[16:], 0xffffffff)
	if _, o := l.open(forged); o != NotValid {
		t.Fatalf("forged: %v", o)
	}
	for _, f := range [][]byte{first, second} {
		if _, o := l.open(f); o != OK {
			t.Errorf("after a forged frame: %v", o)
		}
	}
}

// TestPacketNumberZero is no number.
func TestPacketNumberZero(t *testing.T) {
	l := newLink(t, testSAK(GCMAES128, Confidentiality0, 1), Config{ReplayProtect: true}, 1)
	l.tx.tx.current.next, l.tx.tx.current.last = 1<<32, 1<<32 // forces a frame with 0, which nothing else can
	if _, o := l.open(l.seal(t, testFrame(80))); o != Late {
		t.Errorf("packet number 0: %v", o)
	}
	if err := l.tx.InstallTxSA(0, testSAK(GCMAES128, 0, 2), 0, 0); err == nil {
		t.Error("a first packet number of 0 was accepted")
	}
}

// TestExhaustion: the last packet number is used once, then nothing is sent.
func TestExhaustion(t *testing.T) {
	for _, suite := range suites {
		l := newLink(t, testSAK(suite, Confidentiality0, 1), Config{ReplayProtect: true}, suite.PendingPNExhaustion()-1)
		if l.tx.RekeyDue() {
			t.Error("rekey due too early")
		}
		l.seal(t, testFrame(64))
		if !l.tx.RekeyDue() {
			t.Error("rekey not due")
		}

		l = newLink(t, testSAK(suite, Confidentiality0, 1), Config{ReplayProtect: true}, suite.MaxPN()-1)
		nonces := map[[12]byte]bool{}
		for range 2 {
			l.seal(t, testFrame(64))
			nonces[l.tx.tx.current.nonce] = true
		}
		if len(nonces) != 2 {
			t.Fatalf("%v: a nonce was used twice", suite)
		}
		frame, start, end := room(testFrame(64))
		before := bytes.Clone(frame)
		if _, _, o := l.tx.Seal(frame, start, end); o != Exhausted || !bytes.Equal(frame, before) {
			t.Errorf("%v: after the last packet number: %v", suite, o)
		}
		// Installing the key once more does not make its numbers new.
		must(t, l.tx.InstallTxSA(1, testSAK(suite, Confidentiality0, 1), boolSSCI(suite), 1))
		if _, _, o := l.tx.Seal(frame, start, end); o != Exhausted {
			t.Errorf("%v: key installed again: %v", suite, o)
		}
		if !l.tx.RekeyDue() {
			t.Errorf("%v: used up, and no rekey due", suite)
		}
		// A new key does.
		must(t, l.tx.InstallTxSA(2, testSAK(suite, Confidentiality0, 2), boolSSCI(suite), 1))
		must(t, l.tx.EnableTxSA(2))
		if _, _, o := l.tx.Seal(frame, start, end); o != OK {
			t.Errorf("%v: new key: %v", suite, o)
		}
	}
}

func boolSSCI(c CipherSuite) uint32 {
	if c.XPN() {
		return 1
	}
	return 0
}

// TestNumbersNeverReused: whichever way a key comes back, its packet numbers go on.
func TestNumbersNeverReused(t *testing.T) {
	sak := testSAK(GCMAES128, Confidentiality0, 1)
	l := newLink(t, sak, Config{}, 1)
	for range 5 {
		l.seal(t, testFrame(64))
	}
	must(t, l.tx.InstallTxSA(1, sak, 0, 1))
	if next, _ := l.tx.TxNextPN(1); next != 6 {
		t.Errorf("same AN: next %d, want 6", next)
	}
	must(t, l.tx.InstallTxSA(2, sak, 0, 1))
	if next, _ := l.tx.TxNextPN(2); next != 6 {
		t.Errorf("other AN: next %d, want 6", next)
	}
	frame, start, end := room(testFrame(64))
	if _, _, o := l.tx.Seal(frame, start, end); o.Passes() {
		t.Errorf("the old AN still sends: %v", o)
	}
	if err := l.tx.EnableTxSA(1); err != nil {
		t.Fatal(err)
	}
	if _, _, o := l.tx.Seal(frame, start, end); o != Exhausted {
		t.Errorf("the old AN sends again: %v", o)
	}
	must(t, l.tx.EnableTxSA(2))
	if err := l.tx.InstallTxSA(2, testSAK(GCMAES128, Confidentiality0, 9), 0, 1); err == nil {
		t.Error("the key in use was replaced under its AN")
	}
	if next, _ := l.tx.TxNextPN(2); next != 6 {
		t.Errorf("after a refused install: next %d, want 6", next)
	}
}

// TestReceiveWindowNeverGoesBack for a key installed again.
func TestReceiveWindowNeverGoesBack(t *testing.T) {
	sak := testSAK(GCMAES128, Confidentiality0, 1)
	l := newLink(t, sak, Config{ReplayProtect: true}, 1)
	old := l.seal(t, testFrame(64))
	if _, o := l.open(old); o != OK {
		t.Fatal(o)
	}
	must(t, l.rx.InstallRxSA(sciA, 1, sak, 0, 1))
	if _, o := l.open(old); o != Late {
		t.Errorf("replayed after the key was installed again: %v", o)
	}
	must(t, l.rx.InstallRxSA(sciA, 1, sak, 0, 100))
	must(t, l.rx.InstallRxSA(sciA, 1, sak, 0, 50))
	if next, lowest, _ := l.rx.RxPN(sciA, 1); next != 100 || lowest != 100 {
		t.Errorf("next %d lowest %d, want 100", next, lowest)
	}
	if _, o := l.open(l.seal(t, testFrame(64))); o != Late {
		t.Errorf("below the lowest acceptable: %v", o)
	}
}

// TestXPNRecovery: the upper half follows the lower over its wrap, in order and
// out of it.
func TestXPNRecovery(t *testing.T) {
	const start = 5<<32 - 50
	l := newLink(t, testSAK(GCMAESXPN256, Confidentiality0, 1), Config{ReplayProtect: true, ReplayWindow: 60}, start)
	var sent [][]byte
	for range 100 {
		sent = append(sent, l.seal(t, testFrame(64)))
	}
	// In groups of five, each backwards: some cross the wrap.
	for g := 0; g < len(sent); g += 5 {
		for i := 4; i >= 0; i-- {
			if _, o := l.open(sent[g+i]); o != OK {
				t.Errorf("frame %d: %v", g+i, o)
			}
		}
	}
	if next, _, _ := l.rx.RxPN(sciA, 1); next != start+100 {
		t.Errorf("next %d, want %d", next, uint64(start+100))
	}
	// A gap of less than half the low numbers is bridged, too.
	l.tx.tx.current.next += 1<<31 - 1000
	if _, o := l.open(l.seal(t, testFrame(64))); o != OK {
		t.Errorf("after a gap: %v", o)
	}
}

// TestValidateFrames: each mode with each kind of frame, and the counter it
// goes to.
func TestValidateFrames(t *testing.T) {
	type want struct {
		o       Outcome
		counter string
	}
	for _, c := range []struct {
		name                    string
		strict, check, disabled want
		make                    func(l link) []byte
		conf                    Confidentiality
	}{
		{"valid", want{OK, "InPktsOK"}, want{OK, "InPktsOK"}, want{Tolerated, "InPktsUnchecked"},
			func(l link) []byte { return l.seal(t, testFrame(80)) }, IntegrityOnly},
		{"valid, encrypted", want{OK, "InPktsOK"}, want{OK, "InPktsOK"}, want{OK, "InPktsOK"},
			func(l link) []byte { return l.seal(t, testFrame(80)) }, Confidentiality0},
		{"untagged", want{NoTag, "InPktsNoTag"}, want{Untouched, "InPktsUntagged"}, want{Untouched, "InPktsUntagged"},
			func(l link) []byte { return testFrame(80) }, IntegrityOnly},
		{"forged", want{NotValid, "InPktsNotValid"}, want{Tolerated, "InPktsInvalid"}, want{Tolerated, "InPktsUnchecked"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[40] ^= 1; return f }, IntegrityOnly},
		{"forged, encrypted", want{NotValid, "InPktsNotValid"}, want{NotValid, "InPktsNotValid"}, want{NotValid, "InPktsNotValid"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[40] ^= 1; return f }, Confidentiality0},
		{"unknown SCI", want{UnknownSCI, "InPktsNoSAErr"}, want{Tolerated, "InPktsNoSA"}, want{Tolerated, "InPktsNoSA"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[27] ^= 1; return f }, IntegrityOnly},
		{"unknown SCI, encrypted", want{UnknownSCI, "InPktsNoSAErr"}, want{UnknownSCI, "InPktsNoSAErr"}, want{UnknownSCI, "InPktsNoSAErr"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[27] ^= 1; return f }, Confidentiality0},
		{"unused AN", want{NotUsingSA, "InPktsNotUsingSA"}, want{Tolerated, "InPktsUnusedSA"}, want{Tolerated, "InPktsUnusedSA"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[14] ^= 2; return f }, IntegrityOnly},
		{"unused AN, encrypted", want{NotUsingSA, "InPktsNotUsingSA"}, want{NotUsingSA, "InPktsNotUsingSA"}, want{NotUsingSA, "InPktsNotUsingSA"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[14] ^= 2; return f }, Confidentiality0},
		{"bad tag", want{BadTag, "InPktsBadTag"}, want{BadTag, "InPktsBadTag"}, want{BadTag, "InPktsBadTag"},
			func(l link) []byte { f := l.seal(t, testFrame(80)); f[14] |= tciVersion; return f }, IntegrityOnly},
		{"late", want{Late, "InPktsLate"}, want{Late, "InPktsLate"}, want{Late, "InPktsLate"},
			func(l link) []byte {
				f := l.seal(t, testFrame(80))
				must(t, l.rx.InstallRxSA(sciA, 1, testSAK(GCMAES128, IntegrityOnly, 1), 0, 9))
				return f
			}, IntegrityOnly},
	} {
		for mode, w := range map[ValidateFrames]want{Strict: c.strict, Check: c.check, Disabled: c.disabled} {
			l := newLink(t, testSAK(GCMAES128, c.conf, 1),
				Config{IncludeSCI: true, ReplayProtect: true, ValidateFrames: mode}, 1)
			frame := c.make(l)
			got, o := l.open(frame)
			if o != w.o {
				t.Errorf("%s, %v: %v, want %v", c.name, mode, o, w.o)
			}
			if o == Tolerated && len(got) != 80 || o.Passes() && !bytes.Equal(got[:12], testFrame(80)[:12]) {
				t.Errorf("%s, %v: delivered %x", c.name, mode, got)
			}
			if n := countersNamed(l.rx.Status(), w.counter); n != 1 {
				t.Errorf("%s, %v: %s is %d, want 1", c.name, mode, w.counter, n)
			}
			if n := rxTotal(l.rx.Status()); n != 1 {
				t.Errorf("%s, %v: all receive counters add up to %d, want 1", c.name, mode, n)
			}
		}
	}
	l := newLink(t, testSAK(GCMAES128, IntegrityOnly, 1), Config{ReplayWindow: 3}, 1)
	old := l.seal(t, testFrame(80))
	must(t, l.rx.InstallRxSA(sciA, 1, testSAK(GCMAES128, IntegrityOnly, 1), 0, 9))
	if _, o := l.open(old); o != OK || l.rx.Status().RxSCs[0].InPktsDelayed != 1 {
		t.Errorf("late without replay protection: %v, %+v", o, l.rx.Status())
	}
}

// countersNamed returns the SecY's or the first channel's counter of a name.
func countersNamed(st Status, name string) uint64 {
	for _, s := range []any{st.Rx, st.RxSCs[0].RxSCCounters} {
		if f := reflect.ValueOf(s).FieldByName(name); f.IsValid() {
			return f.Uint()
		}
	}
	return math.MaxUint64
}

// rxTotal adds up all counters of received frames but those of SAs, whose
// frames the channels count too.
func rxTotal(st Status) (n uint64) {
	add := func(s any) {
		v := reflect.ValueOf(s)
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; len(name) > 6 && name[:6] == "InPkts" {
				n += v.Field(i).Uint()
			}
		}
	}
	add(st.Rx)
	for _, sc := range st.RxSCs {
		add(sc.RxSCCounters)
	}
	return n
}

// TestBadTags: every malformation of §9.12, counted as such.
func TestBadTags(t *testing.T) {
	for name, bend := range map[string]func(f []byte) []byte{
		"version":            func(f []byte) []byte { f[14] |= tciVersion; return f },
		"SC with ES":         func(f []byte) []byte { f[14] |= tciES; return f },
		"SC with SCB":        func(f []byte) []byte { f[14] |= tciSCB; return f },
		"E without C":        func(f []byte) []byte { f[14] &^= tciC; return f },
		"SL bit 7":           func(f []byte) []byte { f[15] |= 0x40; return f },
		"SL bit 8":           func(f []byte) []byte { f[15] |= 0x80; return f },
		"SL 48":              func(f []byte) []byte { f[15] = 48; return f },
		"SL 1":               func(f []byte) []byte { f[15] = 1; return f },
		"no SL, short":       func(f []byte) []byte { return f[:28+47+16] },
		"SL beyond the end":  func(f []byte) []byte { f[15] = 47; return f[:28+46+16] },
		"no ICV":             func(f []byte) []byte { return f[:28+8] },
		"cut in the SCI":     func(f []byte) []byte { return f[:27] },
		"cut in the tag":     func(f []byte) []byte { return f[:19] },
		"only the EtherType": func(f []byte) []byte { return f[:14] },
	} {
		l := newLink(t, testSAK(GCMAES128, Confidentiality0, 1), Config{IncludeSCI: true, ReplayProtect: true}, 1)
		if _, o := l.open(bend(l.seal(t, testFrame(1000)))); o != BadTag {
			t.Errorf("%s: %v, want bad-tag", name, o)
		}
		if n := l.rx.Status().Rx.InPktsBadTag; n != 1 {
			t.Errorf("%s: InPktsBadTag %d", name, n)
		}
	}
}

// TestSealRefuses what cannot be sent, without touching it or using a number.
func TestSealRefuses(t *testing.T) {
	l := newLink(t, testSAK(GCMAES128, Confidentiality0, 1), Config{IncludeSCI: true, MaxFrame: 200}, 1)
	frame := testFrame(100)
	buf, start, end := room(frame)
	for name, c := range map[string]struct{ start, end int }{
		"no headroom": {start - 1, end},
		"no tailroom": {start, end + 1},
		"runt":        {start, start + 13},
		"negative":    {start, start},
	} {
		if s, e, o := l.tx.Seal(buf, c.start, c.end); o != BadLength || s != c.start || e != c.end {
			t.Errorf("%s: %v", name, o)
		}
	}
	long, start, end := room(testFrame(200 - Overhead + 1))
	if _, _, o := l.tx.Seal(long, start, end); o != BadLength || l.tx.Status().Tx.OutPktsTooLong != 1 {
		t.Errorf("too long: %v, %+v", o, l.tx.Status().Tx)
	}
	if next, _ := l.tx.TxNextPN(1); next != 1 {
		t.Errorf("packet numbers were used: next %d", next)
	}
	l.seal(t, testFrame(200-Overhead))
	if st := l.tx.Status().Tx; st.OutPktsEncrypted != 1 || st.OutOctetsEncrypted != 200-Overhead-12 || st.OutPktsProtected != 0 {
		t.Errorf("counters %+v", st)
	}
	l.tx.DisableTx()
	if _, _, o := l.tx.Seal(long, start, end); o != NoKey || l.tx.Status().Tx.OutPktsNoSA != 1 {
		t.Errorf("without a key: %v", o)
	}
}

// TestRefusedConfigurations: each says what is wrong.
func TestRefusedConfigurations(t *testing.T) {
	for _, c := range []Config{
		{SCI: sciA, IncludeSCI: true, UseES: true},
		{SCI: sciA, UseSCB: true},
		{SCI: NewSCI(macA, 2), UseES: true},
		{SCI: sciA, ValidateFrames: 3},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	s := mustNew(t, Config{SCI: sciA})
	if err := s.Configure(Config{SCI: sciB}); err == nil {
		t.Error("another SCI was accepted")
	}
	for name, k := range map[string]SAK{
		"no suite":            {Key: make([]byte, 16)},
		"short key":           {Suite: GCMAES256, Key: make([]byte, 16)},
		"offset with XPN":     {Suite: GCMAESXPN128, Key: make([]byte, 16), Confidentiality: Confidentiality30},
		"unknown offset code": {Suite: GCMAES128, Key: make([]byte, 16), Confidentiality: 4},
	} {
		if err := s.InstallTxSA(0, k, 1, 1); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	good := testSAK(GCMAESXPN128, Confidentiality0, 1)
	if s.InstallTxSA(4, good, 1, 1) == nil || s.InstallTxSA(0, good, 0, 1) == nil {
		t.Error("AN 4 or SSCI 0 was accepted")
	}
	if err := s.InstallRxSA(sciB, 0, good, 1, 1); !errors.Is(err, ErrNoSuchSC) {
		t.Errorf("no channel: %v", err)
	}
	if err := s.EnableTxSA(0); !errors.Is(err, ErrNoSuchSA) {
		t.Errorf("no SA: %v", err)
	}
	for i := range maxReceiveSCs {
		must(t, s.CreateRxSC(sciB+SCI(i)))
	}
	if s.CreateRxSC(sciA) == nil {
		t.Error("no bound on receive channels")
	}
}

// TestFourSAs: frames of each AN are opened, those of a removed one are not.
func TestFourSAs(t *testing.T) {
	l := newLink(t, testSAK(GCMAES128, Confidentiality0, 1), Config{ReplayProtect: true}, 1)
	var sent [4][]byte
	for an := range uint8(4) {
		if an != 1 {
			k := testSAK(GCMAES128, Confidentiality0, 10+an)
			must(t, l.tx.InstallTxSA(an, k, 0, 1))
			must(t, l.rx.InstallRxSA(sciA, an, k, 0, 1))
			must(t, l.rx.EnableRxSA(sciA, an))
			must(t, l.tx.EnableTxSA(an))
		}
		sent[an] = l.seal(t, testFrame(70))
	}
	_ = l.tx.EnableTxSA(1)
	sent[1] = l.seal(t, testFrame(70))
	for an, f := range sent {
		if _, o := l.open(f); o != OK {
			t.Errorf("AN %d: %v", an, o)
		}
	}
	must(t, l.rx.DisableRxSA(sciA, 2))
	l.rx.RemoveRxSA(sciA, 3)
	_ = l.tx.EnableTxSA(2)
	if _, o := l.open(l.seal(t, testFrame(70))); o != NotUsingSA {
		t.Errorf("disabled: %v", o)
	}
	_ = l.tx.EnableTxSA(3)
	if _, o := l.open(l.seal(t, testFrame(70))); o != NotUsingSA {
		t.Errorf("removed: %v", o)
	}
	l.tx.RemoveTxSA(3)
	buf, start, end := room(testFrame(70))
	if _, _, o := l.tx.Seal(buf, start, end); o != NoKey {
		t.Errorf("removed for transmission: %v", o)
	}
}

// TestKeysAreWiped when their SA goes: nothing of the key schedule is left in
// the object that held it.
func TestKeysAreWiped(t *testing.T) {
	l := newLink(t, testSAK(GCMAES256, Confidentiality0, 1), Config{}, 1)
	memory := func(v any) []byte {
		p := reflect.ValueOf(v)
		return unsafe.Slice((*byte)(p.UnsafePointer()), p.Type().Elem().Size())
	}
	tx, rx := memory(l.tx.tx.sas[1].aead), memory(l.rx.rx.scs[0].sas[1].aead)
	if !bytes.ContainsFunc(tx, func(r rune) bool { return r != 0 }) {
		t.Fatal("there is no key to wipe; the test looks at the wrong memory")
	}
	l.tx.Close()
	l.rx.RemoveRxSC(sciA)
	for name, mem := range map[string][]byte{"transmit": tx, "receive": rx} {
		if !bytes.Equal(mem, make([]byte, len(mem))) {
			t.Errorf("%s: something of the key is left", name)
		}
	}
	if _, _, o := l.tx.Seal(make([]byte, 200), 50, 150); o != NoKey {
		t.Errorf("closed: %v", o)
	}
	// What wipe overwrites holds all of the key by value.
	block, err := aes.NewCipher(make([]byte, 32))
	must(t, err)
	aead, err := cipher.NewGCM(block)
	must(t, err)
	for _, v := range []any{block, aead} {
		if typ := reflect.TypeOf(v); typ.Kind() != reflect.Pointer || hasPointers(typ.Elem()) {
			t.Errorf("%v: keeps something elsewhere, which wipe does not reach", typ)
		}
	}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return hasPointers(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.String, reflect.UnsafePointer:
		return true
	}
	return false
}

// TestConcurrent: workers seal and open while keys come and go; run with -race.
// No packet number is sent twice.
func TestConcurrent(t *testing.T) {
	l := newLink(t, testSAK(GCMAES128, Confidentiality0, 0), Config{ReplayProtect: true, ReplayWindow: 1 << 20, IncludeSCI: true}, 1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	var rekeys atomic.Int64
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				buf, start, end := room(testFrame(100))
				before := rekeys.Load()
				l.tx.LockTransmit()
				start, end, o := l.tx.Seal(buf, start, end)
				l.tx.UnlockTransmit()
				if o != OK {
					t.Errorf("seal: %v", o)
					return
				}
				mu.Lock()
				id := string(buf[end-ICVLen : end])
				if seen[id] {
					t.Error("two frames with one ICV")
				}
				seen[id] = true
				mu.Unlock()
				l.rx.LockReceive()
				_, _, o = l.rx.Open(buf, start, end)
				l.rx.UnlockReceive()
				// Who was away for so long that the AN has another key may find it changed.
				if o != OK && rekeys.Load()-before < 2 {
					t.Errorf("open: %v", o)
					return
				}
			}
		})
	}
	for i := range 200 {
		rekeys.Add(1)
		an, old := uint8(i+2)%4, uint8(i+1)%4
		k := testSAK(GCMAES128, Confidentiality0, byte(i+1))
		must(t, l.rx.InstallRxSA(sciA, an, k, 0, 1))
		must(t, l.rx.EnableRxSA(sciA, an))
		must(t, l.tx.InstallTxSA(an, k, 0, 1))
		must(t, l.tx.EnableTxSA(an))
		l.tx.RemoveTxSA(old)
		l.tx.Status()
		l.rx.Status()
	}
	close(stop)
	wg.Wait()
}

// TestAllocs: nothing per frame.
func TestAllocs(t *testing.T) {
	l := newLink(t, testSAK(GCMAESXPN256, Confidentiality0, 1), Config{ReplayProtect: true, IncludeSCI: true}, 1)
	buf, start, end := room(testFrame(1464))
	if n := testing.AllocsPerRun(100, func() {
		s, e, o := l.tx.Seal(buf, start, end)
		if o != OK {
			t.Fatal(o)
		}
		if _, _, o = l.rx.Open(buf, s, e); o != OK {
			t.Fatal(o)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzOpen throws frames at a SecY that has keys. What is opened must be what
// was sealed, and all is counted once.
func FuzzOpen(f *testing.F) {
	l := newLink(f, testSAK(GCMAES128, Confidentiality30, 1), Config{IncludeSCI: true}, 1)
	f.Add(l.seal(f, testFrame(14)))
	f.Add(l.seal(f, testFrame(60)))
	f.Add(l.seal(f, testFrame(300)))
	f.Add(testFrame(60))
	f.Add(newLink(f, testSAK(GCMAES128, Confidentiality30, 1), Config{UseES: true}, 1).seal(f, testFrame(40)))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, mode := range []ValidateFrames{Strict, Check, Disabled} {
			l := newLink(t, testSAK(GCMAES128, Confidentiality30, 1), Config{IncludeSCI: true, ValidateFrames: mode}, 1)
			got, o := l.open(frame)
			if n := rxTotal(l.rx.Status()); n != 1 {
				t.Fatalf("%v: counted %d times", o, n)
			}
			if !o.Passes() && len(got) != len(frame) {
				t.Fatalf("%v: dropped, and its bounds moved", o)
			}
			if o == OK && len(got) < 14 {
				t.Fatalf("%d octets were delivered", len(got))
			}
		}
	})
}

// FuzzSealOpen: what is sealed opens to what it was.
func FuzzSealOpen(f *testing.F) {
	f.Add(uint8(0), uint8(1), uint64(1), []byte("payload"))
	f.Add(uint8(2), uint8(1), uint64(1)<<40, bytes.Repeat([]byte{7}, 100))
	f.Fuzz(func(t *testing.T, suite, conf uint8, next uint64, payload []byte) {
		k := testSAK(GCMAES128+CipherSuite(suite%4), Confidentiality(conf%4), 3)
		if k.Suite.XPN() {
			k.Confidentiality %= 2
		}
		next = max(1, next%k.Suite.MaxPN())
		l := newLink(t, k, Config{IncludeSCI: conf&4 != 0, UseES: conf&4 == 0 && conf&8 != 0, ReplayProtect: true}, next)
		plain := append(testFrame(14), payload...)
		if got, o := l.open(l.seal(t, plain)); o != OK || !bytes.Equal(got, plain) {
			t.Fatalf("%v: %x, want %x", o, got, plain)
		}
	})
}

// TestBitFlips: no single bit of a sealed frame can be turned.
func TestBitFlips(t *testing.T) {
	for _, conf := range []Confidentiality{IntegrityOnly, Confidentiality0, Confidentiality30} {
		l := newLink(t, testSAK(GCMAES128, conf, 1), Config{IncludeSCI: true}, 1)
		sealed := l.seal(t, testFrame(90))
		for bit := range len(sealed) * 8 {
			f := bytes.Clone(sealed)
			f[bit/8] ^= 1 << (bit % 8)
			if _, o := l.open(f); o.Passes() {
				t.Errorf("%v: bit %d turned: %v", conf, bit, o)
			}
		}
		for range 1000 {
			f := bytes.Clone(sealed)
			f = f[:rand.IntN(len(f))]
			if _, o := l.open(f); o.Passes() {
				t.Errorf("%v: cut to %d: %v", conf, len(f), o)
			}
		}
	}
}

func TestSCIText(t *testing.T) {
	for _, s := range []SCI{0, sciA, NewSCI([6]byte{0xff, 1, 2, 3, 4, 5}, 0x1234)} {
		text, _ := s.MarshalText()
		var got SCI
		if err := got.UnmarshalText(text); err != nil || got != s {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "0250560000010001", "02505600000x/0001", "025056000001/00zz", "025056000001-0001"} {
		if new(SCI).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if m := sciA.MAC(); m != macA || sciA.Port() != 1 {
		t.Errorf("%v %d", m, sciA.Port())
	}
}

// TestTransmitLimit: at its limit an SA waits, also under another AN, and goes on
// where it was when the limit is raised.
func TestTransmitLimit(t *testing.T) {
	sak := testSAK(GCMAES128, Confidentiality0, 1)
	l := newLink(t, sak, Config{ReplayProtect: true}, 1)
	must(t, l.tx.LimitTxPN(1, 2))
	seal := func(want Outcome) {
		t.Helper()
		buf := make([]byte, 200)
		if _, _, o := l.tx.Seal(buf, 50, 150); o != want {
			t.Errorf("%v, want %v", o, want)
		}
	}
	seal(OK)
	seal(OK)
	seal(Exhausted)
	must(t, l.tx.InstallTxSA(2, sak, 0, 1))
	must(t, l.tx.EnableTxSA(2))
	seal(Exhausted)
	must(t, l.tx.LimitTxPN(2, 3))
	seal(OK)
	seal(Exhausted)
	if err := l.tx.LimitTxPN(3, 9); !errors.Is(err, ErrNoSuchSA) {
		t.Errorf("limit without an SA: %v", err)
	}
}

// TestClosed: a SecY without keys lets nothing through, whatever else fails.
func TestClosed(t *testing.T) {
	s := NewClosed(sciA)
	buf := make([]byte, 200)
	if _, _, o := s.Seal(buf, 50, 150); o != NoKey {
		t.Errorf("sealing: %v", o)
	}
	if _, _, o := s.Open(buf, 50, 150); o != NoTag {
		t.Errorf("opening: %v", o)
	}
	if err := s.Configure(Config{SCI: sciB, ProtectFrames: true}); err == nil {
		t.Error("its SCI was changed")
	}
}
