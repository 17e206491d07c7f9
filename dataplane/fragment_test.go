package dataplane

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
	"msee/vlan"
)

// reassemble puts pieces together as a receiver would, and checks that each
// fits the MTU, has a good checksum and one hop less.
func reassemble(t *testing.T, frames []port.Frame, mtu, headerLen int) []byte {
	t.Helper()
	var whole []byte
	for i, f := range frames {
		_, _, length := vlan.Parse(f.Bytes(), 0, 0)
		b := f.Bytes()[length:]
		ihl := int(b[0]&0x0f) * 4
		if len(b) > mtu || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Errorf("piece %d has %d octets, says %d, MTU %d", i, len(b), binary.BigEndian.Uint16(b[2:]), mtu)
		}
		if !headerChecksumOK(b[:ihl]) || b[8] != 63 {
			t.Errorf("piece %d: checksum or TTL %d", i, b[8])
		}
		field := binary.BigEndian.Uint16(b[6:])
		if at := int(field&fragmentOffset) * 8; at != len(whole) {
			t.Errorf("piece %d is at %d, want %d", i, at, len(whole))
		}
		if more := field&flagMF != 0; more != (i < len(frames)-1) {
			t.Errorf("piece %d of %d: more = %v", i, len(frames), more)
		}
		if i == 0 && ihl != headerLen {
			t.Errorf("the first header has %d octets", ihl)
		}
		whole = append(whole, b[ihl:]...)
	}
	return whole
}

func TestFragment(t *testing.T) {
	options := map[string][]layers.IPv4Option{
		"none": nil,
		"one to copy, one not": {
			{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}}, // router alert: copied
			{OptionType: 7, OptionLength: 7, OptionData: make([]byte, 5)}, // record route: not
		},
	}
	for name, opt := range options {
		for _, size := range []int{1473, 3000, 8972, 60000} {
			r := newRouter(t, vlan.TPIDQ)
			l := udp4("10.1.0.1", "10.100.1.1", 64, size)
			ip := l[0].(*layers.IPv4)
			ip.Flags, ip.Options = 0, opt
			for i := range l[2].(interface{ LayerContents() []byte }).LayerContents() {
				l[2].(interface{ LayerContents() []byte }).LayerContents()[i] = byte(i)
			}
			in := frame(t, mseeMAC, tags(100), q, l...)
			if v := r.receive(in); v != Fragmented {
				t.Fatalf("%s, %d octets: %v", name, size, v)
			}
			headerLen := int(in[18]&0x0f) * 4
			if got := reassemble(t, r.core.tx, 1500, headerLen); !bytes.Equal(got, in[18+headerLen:]) {
				t.Errorf("%s, %d octets: reassembled to something else", name, size)
			}
			if last := r.core.tx[len(r.core.tx)-1].Bytes(); opt != nil && last[18]&0x0f != 6 {
				t.Errorf("the last piece's header has %d words, want 5 and the copied option", last[18]&0x0f)
			}
			r.checkSum(1)
		}
	}
}

func TestFragmentOfAFragment(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	l := udp4("10.1.0.1", "10.100.1.1", 64, 3000)
	ip := l[0].(*layers.IPv4)
	ip.Flags, ip.FragOffset = layers.IPv4MoreFragments, 100
	if v := r.receive(frame(t, mseeMAC, tags(100), q, l...)); v != Fragmented {
		t.Fatal(v)
	}
	for i, f := range r.core.tx {
		field := binary.BigEndian.Uint16(f.Bytes()[18+6:])
		if want := 100 + i*185; int(field&fragmentOffset) != want || field&flagMF == 0 {
			t.Errorf("piece %d: %#x, want offset %d and more to come", i, field, want)
		}
	}
}

// TestFragmentBeyondTheEnd: a fragment that would end behind the longest packet is
// dropped. Its pieces would begin anew in front, and say that there are more.
func TestFragmentBeyondTheEnd(t *testing.T) {
	for last, want := range map[uint16]Verdict{fragmentOffset - 375: Fragmented, fragmentOffset - 374: Fragmented, fragmentOffset - 373: DropMalformed, fragmentOffset: DropMalformed} {
		r := newRouter(t, vlan.TPIDQ)
		l := udp4("10.1.0.1", "10.100.1.1", 64, 2992) // 3,000 octets with UDP's header, 375 times 8
		ip := l[0].(*layers.IPv4)
		ip.Flags, ip.FragOffset = 0, last
		if v := r.receive(frame(t, mseeMAC, tags(100), q, l...)); v != want || v != Fragmented && len(r.core.tx) > 0 {
			t.Errorf("at %d: %v, %d pieces, want %v", last, v, len(r.core.tx), want)
		}
	}
}

// TestFragmentIntoNowhere: pieces that a tunnel cannot take are counted as lost.
func TestFragmentIntoNowhere(t *testing.T) {
	r := newTunnelRouter(t, underlays[0][0], underlays[0][1])
	in := func() []byte {
		l := udp4("10.1.0.1", "10.50.0.1", 64, 3000)
		l[0].(*layers.IPv4).Flags = 0
		return frame(t, mseeMAC, tags(100), q, l...)
	}
	if v := r.receive(in()); v != Fragmented || len(r.core.tx) != 3 {
		t.Fatalf("%v, %d pieces", v, len(r.core.tx))
	}
	r.core.tx = nil
	r.via.Resolve(nil)
	if v := r.receive(in()); v != DropUnresolved || len(r.core.tx) != 0 {
		t.Errorf("without the way to the tunnel's end: %v, %d pieces", v, len(r.core.tx))
	}
}
