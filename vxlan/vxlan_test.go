package vxlan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	local4, remote4 = netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.2")
	local6, remote6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// tunnelled returns an outer packet with the inner frame.
func tunnelled(h Header, inner []byte, class byte, flow uint32) []byte {
	b := append(make([]byte, MaxLen), inner...)
	return b[h.Put(b, MaxLen, len(b), class, flow):]
}

// TestPut compares with what another implementation reads.
func TestPut(t *testing.T) {
	inner := bytes.Repeat([]byte{0x5a}, 100)
	for _, c := range []struct{ src, dst netip.Addr }{{local4, remote4}, {local6, remote6}} {
		h := NewHeader(c.src, c.dst, 0xabcdef)
		b := tunnelled(h, inner, 0xba, 12345)
		first := gopacket.LayerType(layers.LayerTypeIPv4)
		if c.src.Is6() {
			first = layers.LayerTypeIPv6
		}
		p := gopacket.NewPacket(b, first, gopacket.Default)
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			if ip.TOS != 0xba || int(ip.Length) != len(b) || ip.TTL != 64 || ip.Flags != layers.IPv4DontFragment {
				t.Errorf("IPv4: %+v", ip)
			}
			if sum(b[:20]) != 0xffff {
				t.Errorf("IPv4: header sums up to %#x", sum(b[:20]))
			}
		case *layers.IPv6:
			if ip.TrafficClass != 0xba || int(ip.Length) != len(b)-40 || ip.HopLimit != 64 {
				t.Errorf("IPv6: %+v", ip)
			}
		}
		src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
		udp, _ := p.TransportLayer().(*layers.UDP)
		vx, _ := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
		if src.String() != c.src.String() || dst.String() != c.dst.String() || udp == nil || vx == nil {
			t.Fatalf("not read as VXLAN: %v", p)
		}
		if udp.DstPort != Port || udp.SrcPort < 49152 || udp.Checksum != 0 || int(udp.Length) != 16+len(inner) {
			t.Errorf("UDP: %+v", udp)
		}
		if vx.VNI != 0xabcdef || !vx.ValidIDFlag || !bytes.Equal(vx.Payload, inner) {
			t.Errorf("VXLAN: %+v", vx)
		}
		got, r := Parse(b, h.Len()-16)
		if r != Tunnelled || got.VNI != 0xabcdef || !bytes.Equal(b[got.Inner:got.End], inner) {
			t.Errorf("Parse: %v %+v", r, got)
		}
	}
}

func sum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return s&0xffff + s>>16
}

// TestFlows: flows of different hash leave by many source ports.
func TestFlows(t *testing.T) {
	h := NewHeader(local4, remote4, 5)
	ports := map[string]bool{}
	for i := range uint32(1000) {
		ports[string(tunnelled(h, make([]byte, 14), 0, i*0x9e3779b9)[20:22])] = true
	}
	if len(ports) < 900 {
		t.Errorf("1000 flows have %d source ports", len(ports))
	}
}

func TestParseRefuses(t *testing.T) {
	good := tunnelled(NewHeader(local4, remote4, 5), make([]byte, 60), 0, 1)
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   Result
	}{
		{"as it is", func(b []byte) []byte { return b }, Tunnelled},
		{"TCP", func(b []byte) []byte { b[9] = 6; return b }, Other},
		{"another port", func(b []byte) []byte { b[23]++; return b }, Other},
		{"a first fragment", func(b []byte) []byte { b[6] = 0x20; return b }, Other},
		{"a later fragment", func(b []byte) []byte { b[7] = 1; return b }, Other},
		{"no room for a frame", func(b []byte) []byte { return b[:20+16+13] }, Malformed},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, Malformed},
		{"UDP length short", func(b []byte) []byte { b[24], b[25] = 0, 29; return b }, Malformed},
		{"no VNI", func(b []byte) []byte { b[28] = 0; return b }, Malformed},
		{"reserved bits", func(b []byte) []byte { b[28], b[29], b[35] = 0xff, 0xff, 0xff; return b }, Tunnelled},
	} {
		if _, got := Parse(c.change(bytes.Clone(good)), 20); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDecap is RFC 6040's table (figure 4), for both families.
func TestDecap(t *testing.T) {
	const drop = 0xff
	want := [4][4]byte{ // [inner][outer]; codepoints in the order Not-ECT, ECT(1), ECT(0), CE
		{0, 0, 0, drop},
		{1, 1, 1, 3},
		{2, 1, 2, 3},
		{3, 3, 3, 3},
	}
	for inner := range byte(4) {
		for outer := range byte(4) {
			v4 := tunnelled(NewHeader(local4, remote4, 5), nil, 0xb8|inner, 0)
			v6 := tunnelled(NewHeader(local6, remote6, 5), nil, 0xb8|inner, 0)
			ok4, ok6 := Decap(outer, v4), Decap(outer, v6)
			if keep := want[inner][outer] != drop; ok4 != keep || ok6 != keep {
				t.Errorf("inner %d outer %d: kept %v %v", inner, outer, ok4, ok6)
			} else if !keep {
				continue
			}
			class6 := v6[0]<<4 | v6[1]>>4
			if w := 0xb8 | want[inner][outer]; v4[1] != w || class6 != w {
				t.Errorf("inner %d outer %d: class %#x %#x, want %#x", inner, outer, v4[1], class6, w)
			}
			if s := sum(v4[:20]); s != 0xffff {
				t.Errorf("inner %d outer %d: header sums up to %#x", inner, outer, s)
			}
		}
	}
}

// FuzzParse: what is found lies within the packet and holds an Ethernet header.
func FuzzParse(f *testing.F) {
	f.Add(tunnelled(NewHeader(local4, remote4, 5), make([]byte, 60), 0, 1), byte(0))
	f.Add(tunnelled(NewHeader(local6, remote6, 5), make([]byte, 60), 3, 1), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, class byte) {
		if len(b) < 40 {
			return
		}
		headerLen := int(b[0]&15) * 4
		if b[0]>>4 == 6 {
			headerLen = 40
		}
		if headerLen < 20 || headerLen > len(b) {
			return
		}
		p, r := Parse(b, headerLen)
		if r == Tunnelled {
			if p.Inner < headerLen+16 || p.End > len(b) || p.End-p.Inner < 14 || p.VNI > MaxVNI {
				t.Fatalf("%+v of %d octets", p, len(b))
			}
			Decap(class, b[p.Inner+14:p.End])
		}
	})
}
