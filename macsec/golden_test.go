package macsec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// room returns a frame in a buffer with room for what sealing adds.
func room(frame []byte) (buf []byte, start, end int) {
	buf = make([]byte, HeaderOverhead+len(frame)+ICVLen)
	copy(buf[HeaderOverhead:], frame)
	return buf, HeaderOverhead, HeaderOverhead + len(frame)
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// linuxPeer is a station of testdata/linux.json.
type linuxPeer struct {
	Cipher, Key, Salt, SCI string
	AN                     uint8
	PN                     uint64
	SSCI                   uint32
}

func (p linuxPeer) sak(t testing.TB, conf Confidentiality) SAK {
	k := SAK{Key: unhex(t, p.Key), Confidentiality: conf}
	if err := k.Suite.UnmarshalText([]byte(strings.ToUpper(p.Cipher))); err != nil || !k.Suite.Valid() {
		t.Fatalf("cipher %q", p.Cipher)
	}
	copy(k.Salt[:], unhex(t, p.Salt))
	return k
}

func (p linuxPeer) sci(t testing.TB) SCI {
	b := unhex(t, p.SCI)
	return NewSCI([6]byte(b), uint16(b[6])<<8|uint16(b[7]))
}

// TestLinuxVectors seals what a Linux kernel sealed, from the same keys to the
// same octets, and opens what it sealed, with one SecY per direction and file,
// so that packet numbers and windows move as they did.
func TestLinuxVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/linux.json")
	if err != nil {
		t.Fatal(err)
	}
	var files map[string]struct {
		P1, P2 linuxPeer
		Frames []struct {
			From, Frame, Plain string
			PN                 uint64
		}
	}
	if err := json.Unmarshal(raw, &files); err != nil {
		t.Fatal(err)
	}
	if len(files) < 9 {
		t.Fatalf("%d files, want 9", len(files))
	}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			conf := Confidentiality0
			if strings.Contains(name, "integ") {
				conf = IntegrityOnly
			}
			form := Config{ProtectFrames: true, ReplayProtect: true}
			switch {
			case strings.HasSuffix(name, "sci-es"):
				form.UseES = true
			case !strings.HasSuffix(name, "sci-off"):
				form.IncludeSCI = true
			}
			tx, rx := map[string]*SecY{}, map[string]*SecY{}
			for from, p := range map[string]linuxPeer{"p1": f.P1, "p2": f.P2} {
				cfg := form
				cfg.SCI = p.sci(t)
				tx[from] = mustNew(t, cfg)
				must(t, tx[from].InstallTxSA(p.AN, p.sak(t, conf), p.SSCI, p.PN))
				must(t, tx[from].EnableTxSA(p.AN))
				cfg.SCI++ // some other station
				cfg.UseES = false
				rx[from] = mustNew(t, cfg)
				must(t, rx[from].CreateRxSC(p.sci(t)))
				must(t, rx[from].InstallRxSA(p.sci(t), p.AN, p.sak(t, conf), p.SSCI, p.PN))
				must(t, rx[from].EnableRxSA(p.sci(t), p.AN))
			}
			for i, v := range f.Frames {
				sealed := unhex(t, v.Frame)
				plain := append(bytes.Clone(sealed[:12]), unhex(t, v.Plain)...)
				buf, start, end := room(plain)
				start, end, o := tx[v.From].Seal(buf, start, end)
				if o != OK || !bytes.Equal(buf[start:end], sealed) {
					t.Errorf("frame %d: sealed %v\n%x, want\n%x", i, o, buf[start:end], sealed)
				}
				got := bytes.Clone(sealed)
				start, end, o = rx[v.From].Open(got, 0, len(got))
				if o != OK || !bytes.Equal(got[start:end], plain) {
					t.Errorf("frame %d: opened %v\n%x, want\n%x", i, o, got[start:end], plain)
				}
				if next, _, _ := rx[v.From].RxPN(tx[v.From].SCI(), sealed[14]&3); next != v.PN+1 {
					t.Errorf("frame %d: next packet number %d, want %d", i, next, v.PN+1)
				}
				again := bytes.Clone(sealed)
				// With XPN, one that is half the low numbers old is taken for one to come.
				if _, _, o = rx[v.From].Open(again, 0, len(again)); o != Late && (o != NotValid || f.P1.SSCI == 0) {
					t.Errorf("frame %d: replayed: %v, want late", i, o)
				}
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustNew(t testing.TB, cfg Config) *SecY {
	t.Helper()
	s, err := New(cfg)
	must(t, err)
	return s
}

// TestIEEEVectors does the same with the vectors of 802.1AE-2018 annex C.
func TestIEEEVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/ieee.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Key, SCI, Plain, Sealed string
		Suite                         CipherSuite
		PN                            uint64
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 32 {
		t.Fatalf("%d vectors, want 32", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			plain, sealed := unhex(t, v.Plain), unhex(t, v.Sealed)
			sak := SAK{Suite: v.Suite, Key: unhex(t, v.Key)}
			if sealed[14]&tciE != 0 {
				sak.Confidentiality = Confidentiality0
			}
			var ssci uint32
			if v.Suite.XPN() {
				ssci = 0x7a30c118
				sak.Salt = Salt(unhex(t, "e630e81a48de86a21c66fa6d"))
			}
			b := unhex(t, v.SCI)
			sci := NewSCI([6]byte(b), uint16(b[6])<<8|uint16(b[7]))
			an := sealed[14] & maskAN
			tx := mustNew(t, Config{SCI: sci, ProtectFrames: true, UseES: sealed[14]&tciES != 0, IncludeSCI: sealed[14]&tciSC != 0})
			must(t, tx.InstallTxSA(an, sak, ssci, v.PN))
			must(t, tx.EnableTxSA(an))
			rx := mustNew(t, Config{SCI: sciB, ReplayProtect: true})
			must(t, rx.CreateRxSC(sci))
			must(t, rx.InstallRxSA(sci, an, sak, ssci, v.PN))
			must(t, rx.EnableRxSA(sci, an))

			buf, start, end := room(plain)
			start, end, o := tx.Seal(buf, start, end)
			if o != OK || !bytes.Equal(buf[start:end], sealed) {
				t.Errorf("sealed %v\n%x, want\n%x", o, buf[start:end], sealed)
			}
			got := bytes.Clone(sealed)
			start, end, o = rx.Open(got, 0, len(got))
			if o != OK || !bytes.Equal(got[start:end], plain) {
				t.Errorf("opened %v\n%x, want\n%x", o, got[start:end], plain)
			}
		})
	}
}
