package mka

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"msee/macsec"
)

// handshake is one of testdata/handshakes.json.
type handshake struct {
	Name                         string
	CAK, OtherCAK, CKN, KEK, ICK hexBytes
	Frames                       []handshakeFrame
}

type handshakeFrame struct {
	From            string
	Frame           hexBytes
	ICVHolds        bool
	Priority        uint8
	KeyServer       bool
	Capability      uint8
	SCI, MI         hexBytes
	MN              uint32
	Live, Potential []handshakePeer
	SAKUse          *struct{ Latest, Old handshakeKey }
	DistSAK         *struct {
		AN, Confidentiality uint8
		KN                  uint32
		Suite               string
		SAK                 hexBytes
	}
}

type handshakePeer struct {
	MI hexBytes
	MN uint32
}

type handshakeKey struct {
	MI     hexBytes
	KN     uint32
	AN     uint8
	Tx, Rx bool
	LowPN  uint32
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func handshakes(t testing.TB) []handshake {
	t.Helper()
	b, err := os.ReadFile("testdata/handshakes.json")
	if err != nil {
		t.Fatal(err)
	}
	var h []handshake
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	if len(h) == 0 {
		t.Fatal("no handshakes")
	}
	return h
}

// TestHandshakes takes every MKPDU of Linux stations apart, checks its ICV,
// unwraps its SAK, and puts it together again to the same octets.
func TestHandshakes(t *testing.T) {
	for _, h := range handshakes(t) {
		t.Run(h.Name, func(t *testing.T) {
			if got := deriveKEK(h.CAK, h.CKN); !bytes.Equal(got, h.KEK) {
				t.Errorf("KEK %x, want %x", got, h.KEK)
			}
			if got := deriveICK(h.CAK, h.CKN); !bytes.Equal(got, h.ICK) {
				t.Errorf("ICK %x, want %x", got, h.ICK)
			}
			for i, f := range h.Frames {
				if err := checkHandshakeFrame(&h, &f); err != nil {
					t.Errorf("frame %d, from %s: %v", i, f.From, err)
				}
			}
		})
	}
}

func checkHandshakeFrame(h *handshake, f *handshakeFrame) error {
	p, err := ParseMKPDU(f.Frame)
	if err != nil {
		return err
	}
	want := &MKPDU{
		Dst: GroupAddress, Src: [6]byte(f.SCI), EAPOLVersion: 3, Version: 1, Agility: agility, Desired: true,
		Priority: f.Priority, KeyServer: f.KeyServer, Capability: Capability(f.Capability),
		SCI: macsec.NewSCI([6]byte(f.SCI), 1), Member: PeerID{MI(f.MI), f.MN}, CKN: h.CKN,
		Live: peerIDs(f.Live), Potential: peerIDs(f.Potential),
		icvAt: len(f.Frame) - icvLen,
	}
	if f.SAKUse != nil {
		want.SAKUse = &SAKUse{Latest: f.SAKUse.Latest.use(), Old: f.SAKUse.Old.use()}
	}
	if d := f.DistSAK; d != nil {
		if p.DistSAK == nil {
			return fmt.Errorf("no distributed SAK")
		}
		suite := map[string]macsec.CipherSuite{"gcm-aes-128": macsec.GCMAES128, "gcm-aes-256": macsec.GCMAES256}[d.Suite]
		want.DistSAK = &DistributedSAK{AN: d.AN, Confidentiality: macsec.Confidentiality(d.Confidentiality), KN: d.KN, Suite: suite.ID(), Wrapped: wrapKey(h.KEK, d.SAK)}
		if sak, err := unwrapKey(h.KEK, p.DistSAK.Wrapped); err != nil || !bytes.Equal(sak, d.SAK) {
			return fmt.Errorf("SAK %x, %v, want %x", sak, err, d.SAK)
		}
	}
	if !reflect.DeepEqual(p, want) {
		return fmt.Errorf("decodes as\n%+v, want\n%+v", p, want)
	}
	ick := h.ICK
	if holds := p.Verify(f.Frame, ick); holds != f.ICVHolds {
		return fmt.Errorf("ICV holds: %v, want %v", holds, f.ICVHolds)
	}
	if !f.ICVHolds {
		if ick = deriveICK(h.OtherCAK, h.CKN); !p.Verify(f.Frame, ick) {
			return fmt.Errorf("ICV does not hold under the other CAK")
		}
	}
	if got, err := p.Append(nil, ick); err != nil || !bytes.Equal(got, f.Frame) {
		return fmt.Errorf("encodes as\n%x, %v, want\n%x", got, err, []byte(f.Frame))
	}
	return nil
}

func peerIDs(peers []handshakePeer) (ids []PeerID) {
	for _, p := range peers {
		ids = append(ids, PeerID{MI(p.MI), p.MN})
	}
	return ids
}

func (k *handshakeKey) use() KeyUse {
	return KeyUse{KI: KI{MI(k.MI), k.KN}, AN: k.AN, Tx: k.Tx, Rx: k.Rx, LowPN: k.LowPN}
}

// fullMKPDU has every parameter set there is.
func fullMKPDU() *MKPDU {
	return &MKPDU{
		Dst: GroupAddress, Src: [6]byte{2, 0, 0, 0, 0, 1}, EAPOLVersion: 3,
		Version: 3, Priority: 200, KeyServer: true, Desired: true, Capability: CapabilityOffsets,
		SCI: macsec.NewSCI([6]byte{2, 0, 0, 0, 0, 1}, 1), Member: PeerID{MI{1, 2, 3}, 77}, Agility: agility,
		CKN:  []byte("a CKN of 21 octets..."),
		Live: []PeerID{{MI{4}, 5}, {MI{6}, 7}}, Potential: []PeerID{{MI{8}, 9}}, ServerSSCI: 2,
		SAKUse: &SAKUse{
			Latest: KeyUse{KI{MI{1, 2, 3}, 4}, 3, true, true, 5}, Old: KeyUse{KI{MI{1, 2, 3}, 3}, 2, false, true, 6},
			PlainRx: true, DelayProtect: true,
		},
		DistSAK: &DistributedSAK{AN: 3, Confidentiality: macsec.Confidentiality50, KN: 4, Suite: macsec.GCMAESXPN256.ID(), Wrapped: bytes.Repeat([]byte{9}, 40)},
		DistCAK: &DistributedCAK{append(bytes.Repeat([]byte{8}, 24), "group"...)},
		KMD:     []byte("example.net"),
		Suites:  []SuiteCapability{{macsec.GCMAES128.ID(), CapabilityOffsets}, {macsec.GCMAESXPN256.ID(), CapabilityOffset0}},
		XPN:     &XPN{Suspension: 30, LatestHigh: 1, OldHigh: 2},
	}
}

// TestRoundTrip encodes and decodes MKPDUs with all parameter sets, suites,
// lengths of CKN, and with the ICV in a set of its own.
func TestRoundTrip(t *testing.T) {
	ick := bytes.Repeat([]byte{5}, 32)
	for ckn := 1; ckn <= 32; ckn++ {
		for _, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256} {
			for _, indicator := range []bool{false, true} {
				want := fullMKPDU()
				want.CKN = bytes.Repeat([]byte{'n'}, ckn)
				want.DistSAK.Suite, want.DistSAK.Wrapped = suite.ID(), make([]byte, suite.KeyLen()+wrapOverhead)
				want.Indicator = indicator
				frame, err := want.Append(nil, ick)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ParseMKPDU(append(frame, "padding of the medium"...))
				if err != nil {
					t.Fatalf("CKN of %d octets, %s: %v", ckn, suite, err)
				}
				want.icvAt = len(frame) - icvLen
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got\n%+v, want\n%+v", got, want)
				}
				if !got.Verify(frame, ick) {
					t.Fatal("ICV does not hold")
				}
			}
		}
	}
}

// TestEveryBitIsSigned flips each bit of a frame: it must not parse, or not
// verify.
func TestEveryBitIsSigned(t *testing.T) {
	ick := bytes.Repeat([]byte{5}, 16)
	frame, err := fullMKPDU().Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(frame) {
		bad := bytes.Clone(frame)
		bad[i/8] ^= 1 << (i % 8)
		if p, err := ParseMKPDU(bad); err == nil && p.Verify(bad, ick) {
			t.Errorf("octet %d, bit %d: accepted", i/8, i%8)
		}
	}
}

// TestTruncated cuts a frame at every length.
func TestTruncated(t *testing.T) {
	frame, err := fullMKPDU().Append(nil, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	for n := range frame {
		if _, err := ParseMKPDU(frame[:n]); err == nil {
			t.Errorf("%d of %d octets: no error", n, len(frame))
		}
	}
}

// TestBadMKPDU changes one field of a good frame and wants the fault named.
func TestBadMKPDU(t *testing.T) {
	const basic = ethLen + eapolLen
	for _, c := range []struct {
		name string
		edit func(b []byte)
		want string
	}{
		{"other EtherType", func(b []byte) { b[13] = 0xe5 }, "EtherType 0x88e5"},
		{"other EAPOL type", func(b []byte) { b[ethLen+1] = 1 }, "EAPOL packet type 1"},
		{"odd length", func(b []byte) { b[ethLen+3]-- }, "multiple of 4"},
		{"length beyond the frame", func(b []byte) { b[ethLen+2] = 0xff }, "octets follow"},
		{"no CKN", func(b []byte) { b[basic+3] = 28 }, "CKN of 0 octets"},
		{"CKN of 33 octets", func(b []byte) { b[basic+3] = 28 + 33 }, "CKN of 33 octets"},
		{"basic set beyond the frame", func(b []byte) { b[basic+2] |= 1 }, "CKN of"},
		{"peer list of 15 octets", func(b []byte) { b[basic+36+3] = 15 }, "peer list of 15 octets"},
		{"peer list beyond the frame", func(b []byte) { b[basic+36+2] |= 0xf }, "follow"},
		{"SAK use of 36 octets", func(b []byte) { b[basic+36+20+3] = 36 }, "SAK use of 36 octets"},
		{"live peers twice", func(b []byte) { b[basic+36+20] = setLive }, "parameter set 1 twice"},
		{"ICV indicator too early", func(b []byte) { b[basic+36] = setICV }, "ICV indicator"},
	} {
		p := &MKPDU{
			EAPOLVersion: 3, CKN: []byte("four"), Live: []PeerID{{MI{1}, 1}},
			SAKUse: &SAKUse{},
		}
		frame, err := p.Append(nil, make([]byte, 16))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMKPDU(frame); err != nil {
			t.Fatal(err)
		}
		c.edit(frame)
		if _, err := ParseMKPDU(frame); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// FuzzMKPDU wants whatever parses to be encoded to something that parses to
// the same.
func FuzzMKPDU(f *testing.F) {
	ick := make([]byte, 16)
	for _, h := range handshakes(f) {
		for _, frame := range h.Frames {
			f.Add([]byte(frame.Frame))
		}
	}
	for _, indicator := range []bool{false, true} {
		p := fullMKPDU()
		p.Indicator = indicator
		frame, err := p.Append(nil, ick)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := ParseMKPDU(frame)
		if err != nil {
			return
		}
		p.Verify(frame, ick)
		again, err := p.Append(nil, ick)
		if err != nil {
			if len(frame) > 1000 {
				return // longer than ours may be
			}
			t.Fatal(err)
		}
		q, err := ParseMKPDU(again)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if !q.Verify(again, ick) {
			t.Fatal("ICV of our own does not hold")
		}
		p.icvAt, q.icvAt = 0, 0
		normalize(p)
		normalize(q)
		if !reflect.DeepEqual(p, q) {
			t.Fatalf("was\n%+v, became\n%+v", p, q)
		}
	})
}

// normalize forgets differences that mean nothing.
func normalize(p *MKPDU) {
	if len(p.Live) == 0 {
		p.Live, p.ServerSSCI = nil, 0
	}
	if len(p.Potential) == 0 {
		p.Potential = nil
	}
	if len(p.KMD) == 0 {
		p.KMD = nil
	}
	if d := p.DistSAK; d != nil && len(d.Wrapped) == 0 {
		*d = DistributedSAK{Suite: macsec.GCMAES128.ID()}
	}
}
