package dataplane

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// narrowSender takes so many frames, and no more.
type narrowSender struct{ room int }

func (s *narrowSender) Close() error { return nil }
func (s *narrowSender) Send(frames []*port.Frame) (int, error) {
	n := min(s.room, len(frames))
	s.room -= n
	return n, nil
}

// TestCutterCounts: a superframe of which a segment was lost did not leave, however
// many of them; what was complete before it did.
func TestCutterCounts(t *testing.T) {
	r := newTunnelRouter(t, underlays[0][0], underlays[0][1])
	whole := func(gsoType uint8) *port.Frame { // of 6 segments, as it goes into a tunnel
		b := tcpFrame(t, 5500)
		b = append(append(make([]byte, port.Headroom), b[:12]...), b[16:]...) // without the tag
		f := &port.Frame{Buf: b, Start: port.Headroom, End: len(b), VNet: port.VNetHdr{GSOType: gsoType, GSOSize: 1000}}
		if f.Start = r.vtep.put(f, f.Start, f.Start+vlan.EthLen); f.Start < 0 {
			t.Fatal("no way to the tunnel's end")
		}
		return f
	}
	super, bad := whole(port.GSOTCPv4), whole(port.GSOUDP)
	b := make([]byte, 200)
	single := &port.Frame{Buf: b, Start: 100, End: 164}
	many := []*port.Frame{single}
	for range 60 {
		many = append(many, super)
	}
	for _, tt := range []struct {
		name   string
		frames []*port.Frame
		room   int
		sent   int
	}{
		{"all", []*port.Frame{single, super, super}, 13, 3},
		{"one that cannot be cut", []*port.Frame{bad, super, bad, single}, 7, 2},
		{"the last segment is lost", []*port.Frame{single, super, super}, 12, 2},
		{"the first of the last is the last that leaves", []*port.Frame{single, super, super}, 8, 2},
		{"one segment leaves", []*port.Frame{super, super, single}, 1, 0},
		{"none leaves", []*port.Frame{super, bad, single}, 0, 0},
		{"several calls", many, 1 + 50*6 + 3, 51},
	} {
		s := newCutter(&narrowSender{tt.room})
		if sent, _ := s.Send(tt.frames); sent != tt.sent {
			t.Errorf("%s: %d of %d left, want %d", tt.name, sent, len(tt.frames), tt.sent)
		}
	}
	s := newCutter(&narrowSender{})
	if n := testing.AllocsPerRun(10, func() { s.Send(many) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// tcpFrame is from the customer to the VNet, with one tag.
func tcpFrame(t *testing.T, payload int) []byte {
	t.Helper()
	b := ipFrame(t, 100, "10.100.1.10")[:18+20]
	ip := b[18:]
	ip[6], ip[9] = 0x40, protoTCP
	binary.BigEndian.PutUint16(ip[2:], uint16(40+payload))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^gso.Fold(gso.Sum(ip, 0)))
	b = append(b, 0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0)
	for i := range payload {
		b = append(b, byte(i*7+i>>8))
	}
	return b
}

// TestOpenChecksumOfSCTP: it is a CRC32c, which leaves complete.
func TestOpenChecksumOfSCTP(t *testing.T) {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolSCTP, SrcIP: net.ParseIP("10.1.0.1"), DstIP: net.ParseIP("10.100.1.1"), Flags: layers.IPv4DontFragment}
	l := []gopacket.SerializableLayer{ip, &layers.SCTP{SrcPort: 1000, DstPort: 2000, VerificationTag: 7}, gopacket.Payload("with its chunks")}
	in := frame(t, mseeMAC, tags(100), q, l...)
	copy(in[18+20+8:], []byte{1, 2, 3, 4})
	r := newRouter(t, vlan.TPIDQ)
	open := func(f *port.Frame) {
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: 18 + 20, CsumOffset: 8}
	}
	if v := r.receive(in, open); v != Transmit {
		t.Fatal(v)
	}
	if f, want := r.core.tx[0], rewritten(t, l, gwMAC, 200); !bytes.Equal(f.Bytes(), want) || f.VNet.Flags != 0 {
		t.Errorf("sent\n% x, header %+v, want\n% x", f.Bytes(), f.VNet, want)
	}
	if v := r.receive(in, open, func(f *port.Frame) { f.VNet.CsumStart = uint16(len(in) - 8 - 2) }); v != DropMalformed {
		t.Errorf("with room for two octets: %v", v)
	}
}

// TestOpenChecksumStaysBehindIPHeader: whoever sends with a virtio-net header says
// where the checksum goes. That must not be a source address which has been checked,
// a destination which has been looked up, or a tag.
func TestOpenChecksumStaysBehindIPHeader(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l, l4 := udp4("10.1.0.1", "10.100.1.1", 64, 100), 18+20
		if v6 {
			l, l4 = udp6("2001:db8:1::1", "fd00:100::99", 64, 100), 18+40
		}
		in := frame(t, mseeMAC, tags(100), q, l...)
		headers := rewritten(t, l, gwMAC, 200)[:l4]
		for _, tt := range []struct {
			start, offset int
			want          Verdict
		}{
			{l4, 6, Transmit}, {l4 - 1, 7, DropMalformed}, {0, 14, DropMalformed}, {18 + 4, 4, DropMalformed},
			{18 + 4, l4, DropMalformed}, {l4, len(in) - l4 - 2, Transmit}, {l4, len(in) - l4 - 1, DropMalformed},
		} {
			r := newRouter(t, vlan.TPIDQ)
			v := r.receive(in, func(f *port.Frame) {
				f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: uint16(tt.start), CsumOffset: uint16(tt.offset)}
			})
			if v != tt.want {
				t.Errorf("IPv6 %v, checksum from %d at %d of %d: %v, want %v", v6, tt.start, tt.start+tt.offset, len(in), v, tt.want)
			}
			for _, f := range r.core.tx { // as the next one completes it
				if !gso.CompleteChecksum(f.Bytes(), &f.VNet) || !bytes.Equal(f.Bytes()[:l4], headers) {
					t.Errorf("IPv6 %v, checksum from %d at %d: headers left as % x", v6, tt.start, tt.start+tt.offset, f.Bytes()[:l4])
				}
			}
		}
	}
}
