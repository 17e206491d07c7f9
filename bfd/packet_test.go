package bfd

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden has packets spelled out octet by octet from RFC 5880 §4.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name, octets string
		want         Packet
	}{
		// version 1, no diagnostic | Down | multiplier 3 | length 24
		{"first of a session", "20 40 03 18 00000001 00000000 000f4240 000493e0 00000000",
			Packet{State: Down, DetectMult: 3, My: 1, DesiredMinTx: time.Second, RequiredMinRx: 300 * time.Millisecond}},
		// time expired | Up, P, C | multiplier 5
		{"poll", "21 e8 05 18 12345678 9abcdef0 0000c350 0000c350 0000c350",
			Packet{Diag: DiagTimeExpired, State: Up, Poll: true, ControlIndependent: true, DetectMult: 5,
				My: 0x12345678, Your: 0x9abcdef0, DesiredMinTx: 50 * time.Millisecond,
				RequiredMinRx: 50 * time.Millisecond, RequiredMinEchoRx: 50 * time.Millisecond}},
		// administratively down | AdminDown, F, D
		{"final, demand", "27 12 01 18 00000007 00000008 00000001 ffffffff 00000000",
			Packet{Diag: DiagAdminDown, State: AdminDown, Final: true, Demand: true, DetectMult: 1, My: 7, Your: 8,
				DesiredMinTx: time.Microsecond, RequiredMinRx: 0xffffffff * time.Microsecond}},
	} {
		b := unhex(t, c.octets)
		p, r := Parse(append(b, 0xee, 0xee)) // what follows is not the packet's
		if r != Accepted {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		if !bytes.Equal(p.Raw, b) {
			t.Errorf("%s: Raw is %x, want %x", c.name, p.Raw, b)
		}
		p.Raw = nil
		if got, want := p.appendHeader(nil, headerLen), b; !bytes.Equal(got, want) {
			t.Errorf("%s: encoded %x, want %x", c.name, got, want)
		}
		if c.want.Raw = nil; !equal(p, c.want) {
			t.Errorf("%s: parsed %+v, want %+v", c.name, p, c.want)
		}
	}
}

func equal(a, b Packet) bool {
	return bytes.Equal(a.appendHeader(nil, headerLen), b.appendHeader(nil, headerLen))
}

func TestHostilePackets(t *testing.T) {
	const good = "20 40 03 18 00000001 00000000 000f4240 000493e0 00000000"
	edit := func(at int, octets ...byte) []byte {
		b := unhex(t, good)
		copy(b[at:], octets)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"empty", nil, BadLength},
		{"one octet short", unhex(t, good)[:23], BadLength},
		{"version 0", edit(0, 0x00), BadVersion},
		{"version 2", edit(0, 0x40), BadVersion},
		{"length of 23", edit(3, 23), BadLength},
		{"longer than the datagram", edit(3, 25), BadLength},
		{"authentication flag without a section", edit(1, 0x44), BadLength},
		{"multiplier 0", edit(2, 0), BadMultiplier},
		{"multipoint", edit(1, 0x41), BadFlags},
		{"poll and final", edit(1, 0x70), BadFlags},
		{"my discriminator 0", edit(4, 0, 0, 0, 0), BadMyDisc},
		{"your discriminator 0 in init", edit(1, 0x80), BadYourDisc},
		{"your discriminator 0 in up", edit(1, 0xc0), BadYourDisc},
		{"your discriminator 0 in admin-down", edit(1, 0x00), Accepted},
	} {
		if _, r := Parse(c.b); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
}

// FuzzPacket gives arbitrary octets to the parser and to sessions of every
// kind of authentication: whatever comes, they stay sane and forgeries are
// not taken.
func FuzzPacket(f *testing.F) {
	f.Add(unhex(f, "20 40 03 18 00000001 00001001 000f4240 000493e0 00000000"))                           // Down
	f.Add(unhex(f, "20 e8 05 18 12345678 00001001 00000000 00000000 0000c350"))                           // Up, poll, intervals of 0
	f.Add(unhex(f, "20 44 03 2a 00000001 00001001 000f4240 000493e0 00000000 0502 0100"))                 // Auth Len of 2
	f.Add(unhex(f, "20 44 ff 1b 00000001 00001001 ffffffff ffffffff ffffffff 01 03 01"))                  // password, empty
	f.Add(unhex(f, "20 44 03 34 00000001 00001001 000f4240 000493e0 00000000 04 1c 01 00 00000001"+zero)) // SHA1
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		p, r := Parse(b)
		if r != Accepted {
			return
		}
		if len(p.Raw) < headerLen || len(p.Raw) > len(b) {
			t.Fatalf("Raw has %d octets of %d", len(p.Raw), len(b))
		}
		for auth := range AuthType(authCount) {
			cfg := testConfig
			cfg.Auth = Auth{Type: auth, Keys: []Key{{ID: 1, Secret: []byte("not to be guessed")[:16]}}}
			s := New(cfg, 1, 0)
			r := s.Receive(time.Second, &p)
			if r == Accepted && auth != AuthNone {
				t.Fatalf("%v: a forgery was accepted: %x", auth, b)
			}
			if d := s.Deadline(); d < 0 {
				t.Fatalf("deadline %v", d)
			}
			for now := time.Second; now < 100*time.Second; now += 7 * time.Second {
				for n := 0; len(s.Transmit(now, nil)) > 0; n++ {
					if n > 3 {
						t.Fatal("sends without end")
					}
				}
				s.Expire(now)
			}
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the packet was changed")
		}
	})
}

const zero = "0000000000000000000000000000000000000000"
