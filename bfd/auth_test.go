package bfd

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"testing"
	"time"
)

var hashed = []AuthType{AuthKeyedMD5, AuthMeticulousMD5, AuthKeyedSHA1, AuthMeticulousSHA1}

func authConfig(t AuthType, keys ...Key) Config {
	cfg := testConfig
	if len(keys) == 0 {
		keys = []Key{{ID: 7, Secret: []byte("secret")}}
	}
	cfg.Auth = Auth{Type: t, Keys: keys}
	return cfg
}

// TestAuthGolden computes each digest by the RFC's words: over the whole
// packet, with the key, padded with zeroes, where the digest will be.
func TestAuthGolden(t *testing.T) {
	for _, typ := range hashed {
		s := New(authConfig(typ), 1, 0)
		s.xmitSeq = 0x01020303
		b := s.Transmit(0, nil)
		head := unhex(t, "20 44 03 00 00001001 00000000 000f4240 000493e0 00000000  00 00 07 00 01020304")
		head[24] = byte(typ)
		var want []byte
		if typ == AuthKeyedMD5 || typ == AuthMeticulousMD5 {
			head[3], head[25] = 24+24, 24
			sum := md5.Sum(append(bytes.Clone(head), "secret\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...))
			want = append(head, sum[:]...)
		} else {
			head[3], head[25] = 24+28, 28
			sum := sha1.Sum(append(bytes.Clone(head), "secret\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...))
			want = append(head, sum[:]...)
		}
		if !bytes.Equal(b, want) {
			t.Errorf("%v:\n got %x\nwant %x", typ, b, want)
		}
	}
	s := New(authConfig(AuthPassword), 1, 0)
	want := unhex(t, "20 44 03 21 00001001 00000000 000f4240 000493e0 00000000 01 09 07 736563726574")
	if b := s.Transmit(0, nil); !bytes.Equal(b, want) {
		t.Errorf("password:\n got %x\nwant %x", b, want)
	}
}

func TestAuthSequence(t *testing.T) {
	for _, typ := range hashed {
		sender, receiver := New(authConfig(typ), 1, 0), New(authConfig(typ), 2, 0)
		send := func(seq uint32) Reason {
			sender.xmitSeq = seq - 1
			sender.urgent = true
			p, _ := Parse(sender.Transmit(0, nil))
			return receiver.Receive(time.Second, &p)
		}
		start := uint32(0xfffffffe) // the numbers go round
		again := Accepted
		if typ.meticulous() {
			again = AuthSequence
		}
		for _, c := range []struct {
			seq  uint32
			want Reason
		}{
			{start, Accepted}, {start, again}, {start + 1, Accepted}, {start, AuthSequence},
			{start + 1 + 9, Accepted}, // 3 × multiplier ahead
			{start + 10 + 10, AuthSequence}, {start + 10, again}, {start + 11, Accepted},
		} {
			if got := send(c.seq); got != c.want {
				t.Errorf("%v: sequence %#x: %v, want %v", typ, c.seq, got, c.want)
			}
		}
	}
}

func TestAuthRefuses(t *testing.T) {
	for _, typ := range append(hashed, AuthPassword) {
		sender := New(authConfig(typ), 1, 0)
		good := sender.Transmit(0, nil)
		for at := range good {
			b := bytes.Clone(good)
			b[at] ^= 1
			p, r := Parse(b)
			if r != Accepted || typ == AuthPassword && at < headerLen || at == 27 {
				continue // not a packet; or nothing guards it; or reserved, and yet guarded below
			}
			if r := New(authConfig(typ), 2, 0).Receive(0, &p); r == Accepted {
				t.Errorf("%v: accepted with octet %d changed", typ, at)
			}
		}
		p, _ := Parse(good)
		if r := New(testConfig, 2, 0).Receive(0, &p); r != AuthMismatch {
			t.Errorf("%v: without authentication here: %v", typ, r)
		}
		if r := New(authConfig(typ, Key{ID: 8, Secret: []byte("secret")}), 2, 0).Receive(0, &p); r != AuthUnknownKey {
			t.Errorf("%v: unknown key: %v", typ, r)
		}
		rolled := authConfig(typ, Key{ID: 9, Secret: []byte("newer")}, Key{ID: 7, Secret: []byte("secret")})
		if r := New(rolled, 2, 0).Receive(0, &p); r != Accepted {
			t.Errorf("%v: with the old key still accepted: %v", typ, r)
		}
		plain := hello(Down)
		if r := New(authConfig(typ), 2, 0).Receive(0, &plain); r != AuthMismatch {
			t.Errorf("%v: without authentication there: %v", typ, r)
		}
	}
}

// TestAuthSequenceForgotten: a peer that has restarted begins at another
// number, and is heard two detection times after it was last.
func TestAuthSequenceForgotten(t *testing.T) {
	receiver := New(authConfig(AuthMeticulousSHA1), 2, 0)
	first := New(authConfig(AuthMeticulousSHA1), 1, 0)
	p, _ := Parse(first.Transmit(0, nil))
	if r := receiver.Receive(0, &p); r != Accepted {
		t.Fatal(r)
	}
	second := New(authConfig(AuthMeticulousSHA1), 3, 0)
	detection := receiver.detectionTime()
	for now := time.Duration(0); now < 2*detection; now += detection / 50 {
		receiver.Expire(now)
		second.urgent = true
		p, _ := Parse(second.Transmit(0, nil))
		if r := receiver.Receive(now, &p); r != AuthSequence {
			t.Fatalf("%v after the last packet: %v", now, r)
		}
	}
	receiver.Expire(2 * detection)
	second.urgent = true
	p, _ = Parse(second.Transmit(0, nil))
	if r := receiver.Receive(2*detection, &p); r != Accepted {
		t.Errorf("after two detection times: %v", r)
	}
}
