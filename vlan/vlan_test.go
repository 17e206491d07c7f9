package vlan

import (
	"bytes"
	"testing"
)

var (
	dst = [6]byte{2, 0, 0, 0, 0, 1}
	src = [6]byte{2, 0, 0, 0, 0, 2}
)

func TestParse(t *testing.T) {
	eth := append(dst[:], src[:]...)
	frame := func(tail ...byte) []byte { return append(bytes.Clone(eth), tail...) }
	tests := []struct {
		name      string
		b         []byte
		tpid, tci uint16
		want      Stack
		etherType uint16
		length    int // 0: incomplete
	}{
		{name: "untagged", b: frame(8, 0), want: Stack{}, etherType: 0x800, length: 14},
		{name: "dot1q inline", b: frame(0x81, 0, 0x20, 100, 8, 0),
			want: Stack{OuterTPID: TPIDQ, Outer: 100}, etherType: 0x800, length: 18},
		{name: "dot1q hidden", b: frame(8, 0), tpid: TPIDQ, tci: 0x2064,
			want: Stack{OuterTPID: TPIDQ, Outer: 100}, etherType: 0x800, length: 14},
		{name: "priority tag", b: frame(0x81, 0, 0xe0, 0, 8, 0),
			want: Stack{}, etherType: 0x800, length: 18},
		{name: "priority tag hidden, tag inline", b: frame(0x81, 0, 0, 100, 8, 0), tpid: TPIDQ, tci: 0xe000,
			want: Stack{OuterTPID: TPIDQ, Outer: 100}, etherType: 0x800, length: 18},
		{name: "qinq inline", b: frame(0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd),
			want: Stack{OuterTPID: TPIDAD, Outer: 7, Inner: 9}, etherType: 0x86dd, length: 22},
		{name: "qinq, outer hidden", b: frame(0x81, 0, 0, 9, 0x86, 0xdd), tpid: TPIDQ, tci: 7,
			want: Stack{OuterTPID: TPIDQ, Outer: 7, Inner: 9}, etherType: 0x86dd, length: 18},
		{name: "three tags", b: frame(0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0),
			want: Stack{OuterTPID: TPIDQ, Outer: 1, Inner: 2}, etherType: TPIDQ, length: 22},
		{name: "runt", b: eth},
		{name: "cut in the tag", b: frame(0x81, 0, 0)},
		{name: "cut in the second tag", b: frame(0x81, 0, 0, 1, 0x81, 0, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, etherType, length := Parse(tt.b, tt.tpid, tt.tci)
			if length != tt.length {
				t.Fatalf("length %d, want %d", length, tt.length)
			}
			if length != 0 && (got != tt.want || etherType != tt.etherType) {
				t.Errorf("got  %+v, %#x\nwant %+v, %#x", got, etherType, tt.want, tt.etherType)
			}
		})
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	tests := []struct{ outer, inner uint16 }{{0, 0}, {100, 0}, {7, 4094}}
	for _, tt := range tests {
		h := NewHeader(dst, src, TPIDAD, tt.outer, tt.inner)
		b := make([]byte, 64)
		start := h.Put(b, 40, 0x86dd)
		if got := 40 - start; got != h.Len() {
			t.Errorf("%+v: wrote %d octets, Len says %d", tt, got, h.Len())
		}
		s, etherType, length := Parse(b[start:], 0, 0)
		if s.Outer != tt.outer || s.Inner != tt.inner || etherType != 0x86dd || length != h.Len() {
			t.Errorf("%+v: parsed %+v, %#x, %d octets", tt, s, etherType, length)
		}
		if !bytes.Equal(b[start:start+6], dst[:]) || !bytes.Equal(b[start+6:start+12], src[:]) {
			t.Errorf("%+v: addresses % x", tt, b[start:start+12])
		}
		for i, c := range append(b[:40-Room:40-Room], b[40:]...) {
			if c != 0 {
				t.Fatalf("%+v: octet %d outside of Room was written", tt, i)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 100, 8, 0}, uint16(0), uint16(0))
	f.Add([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 9, 0x86, 0xdd}, uint16(TPIDQ), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, tpid, tci uint16) {
		s, _, length := Parse(b, tpid, tci)
		if length > len(b) || length > 0 && length < EthLen || s.Outer > 4095 || s.Inner > 4095 {
			t.Fatalf("%+v, %d of %d octets", s, length, len(b))
		}
		if s.Outer == 0 && (s.OuterTPID != 0 || s.Inner != 0) {
			t.Fatalf("a second tag without a first: %+v", s)
		}
	})
}
