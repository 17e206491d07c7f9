package evpn

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	gobgp "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

func TestExtended(t *testing.T) {
	target := NewRT(65011, 7001)
	for name, c := range map[string]struct {
		wire string
		want Extended
	}{
		"FRR's":           {frrExtended, Extended{Targets: []RT{target}}},
		"a move":          {frrExtended + "0600000000000007", Extended{Targets: []RT{target}, Sequence: 7}},
		"sticky":          {"0600010000000000", Extended{Sticky: true}},
		"the first move":  {"0600000000000002 0600010000000007", Extended{Sequence: 2}},
		"router's MAC":    {"0603 02aa00000001", Extended{RouterMAC: MAC{2, 0xaa, 0, 0, 0, 1}}},
		"a group's":       {"0603 03aa00000001", Extended{}},
		"MPLS":            {"030c00000000000a", Extended{Other: true}},
		"MPLS or VXLAN":   {"030c00000000000a 030c000000000008 030c00000000000a", Extended{}},
		"unknown":         {"0002fdf300001b59 4003000000000001 0601000000000000", Extended{Targets: []RT{target}}},
		"targets by IPv4": {"0102ac10000b0002", Extended{Targets: []RT{{1, 2, 172, 16, 0, 11, 0, 2}}}},
	} {
		got, err := ParseExtended(unhex(t, c.wire))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		again, err := ParseExtended(AppendExtended(nil, c.want))
		if want := c.want; err != nil || !want.Other && !reflect.DeepEqual(again, want) {
			t.Errorf("%s: built and parsed again: %+v, %v", name, again, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 7), make([]byte, 9)} {
		if _, err := ParseExtended(b); err == nil {
			t.Errorf("%d octets are accepted", len(b))
		}
	}
}

// TestExtendedAsGoBGP has another implementation read what is built.
func TestExtendedAsGoBGP(t *testing.T) {
	wire := AppendExtended(nil, Extended{Targets: []RT{NewRT(12076, 7001)}, Sequence: 3, Sticky: true, RouterMAC: MAC{2, 0, 0, 0, 0, 9}})
	want := []string{"12076:7001", "VXLAN", "mac-mobility: 3, sticky", "router's mac: 02:00:00:00:00:09"}
	for i, w := range want {
		x, err := gobgp.ParseExtended(wire[8*i : 8*i+8])
		if err != nil || x.String() != w {
			t.Errorf("GoBGP reads %v, %v; want %s", x, err, w)
		}
	}
}

func TestTargetVNI(t *testing.T) {
	for _, c := range []struct {
		rt   RT
		vni  uint32
		text string
	}{
		{NewRT(65011, 7001), 7001, "65011:7001"},
		{NewRT(4200000000, 7001), 7001, "23456:7001"},
		{RT{0, 2, 0xfd, 0xf3, 0x10, 0, 0x1b, 0x59}, 7001, "65011:268442457"}, // RFC 8365 §5.1.2.1
		{RT{0, 2, 0xfd, 0xf3, 0x90, 0, 0x1b, 0x59}, 0, "65011:2415926105"},   // not derived
		{RT{0, 2, 0xfd, 0xf3, 0x01, 0, 0x1b, 0x59}, 0, "65011:16784217"},     // of a VLAN
		{RT{1, 2, 172, 16, 0, 11, 0x1b, 0x59}, 0, "172.16.0.11:7001"},
		{RT{2, 2, 0, 1, 0, 0, 0x1b, 0x59}, 0, "65536:7001"},
	} {
		if c.rt.VNI() != c.vni || c.rt.String() != c.text {
			t.Errorf("%x: VNI %d, text %s; want %d, %s", c.rt[:], c.rt.VNI(), c.rt, c.vni, c.text)
		}
	}
}

// TestParseTarget: what a target is called is read as the same one, and nothing else is read.
func TestParseTarget(t *testing.T) {
	for s, want := range map[string]RT{
		"65011:7001":      NewRT(65011, 7001),
		"0:4294967295":    {0, 2, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"4200000000:7001": {2, 2, 0xfa, 0x56, 0xea, 0x00, 0x1b, 0x59},
		"172.16.0.11:2":   {1, 2, 172, 16, 0, 11, 0, 2},
	} {
		if got, err := ParseRT(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s: % x called %v, %v; want % x", s, got[:], got, err, want[:])
		}
	}
	for _, s := range []string{"", ":", "65011", "65011:", ":7001", "65011:4294967296", "65536:65536", "172.16.0.11:65536",
		"4294967296:1", "fd00::1:1", "-1:1", "1:-1", "1:1:1", " 1:1", "a:1"} {
		if got, err := ParseRT(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

func TestPMSI(t *testing.T) {
	vtep := netip.MustParseAddr("172.16.0.11")
	if b := AppendPMSI(nil, 7001, vtep); !bytes.Equal(b, unhex(t, frrPMSI)) {
		t.Errorf("built as % x", b)
	}
	for name, c := range map[string]struct {
		wire string
		vni  uint32
		ok   bool
	}{
		"FRR's":           {frrPMSI, 7001, true},
		"IPv6":            {"00 06 001b59 fd000000000000000000000000000001", 7001, true},
		"PIM":             {"00 03 001b59 ac10000b e0000001", 0, true},
		"short":           {"00 06 001b", 0, false},
		"half an address": {"00 06 001b59 ac10", 0, false},
	} {
		if vni, err := ParsePMSI(unhex(t, c.wire)); vni != c.vni || (err == nil) != c.ok {
			t.Errorf("%s: %d, %v", name, vni, err)
		}
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add(unhex(f, frrExtended+"0600000000000007 060302aa00000001"))
	f.Add(unhex(f, frrPMSI))
	f.Fuzz(func(t *testing.T, b []byte) {
		ParsePMSI(b)
		e, err := ParseExtended(b)
		if err != nil || e.Other {
			return
		}
		again, err := ParseExtended(AppendExtended(nil, e))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v becomes %+v, %v", e, again, err)
		}
	})
}
