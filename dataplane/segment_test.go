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

// plainPort is a fakePort that takes frames only.
type plainPort struct{ *fakePort }

func (plainPort) Plain() {}

// TestPlainEgress: a superframe leaves a port that takes none as the frames it
// stands for, each with its checksums; what is one frame gets its own; and the
// order stays.
func TestPlainEgress(t *testing.T) {
	r := newRouter(t, 0x8100)
	snap := r.engine.Snapshot()
	core := *snap.Ports[1]
	core.Port = plainPort{r.core}
	r.engine.snap.Store(&Snapshot{Ports: []*Port{snap.Ports[0], &core}, VRFs: snap.VRFs})
	r.worker.adopt(r.engine.Snapshot())

	const size, payload = 1000, 5500
	super := tcpFrame(t, payload)
	h := port.VNetHdr{GSOType: port.GSOTCPv4, GSOSize: size}
	if !gso.LeaveChecksum(super, 18, &h) {
		t.Fatal("no TCP frame")
	}
	if v := r.receive(super, func(f *port.Frame) { f.VNet = h }); v != Transmit {
		t.Fatalf("superframe: %v", v)
	}
	single := tcpFrame(t, 100)
	h = port.VNetHdr{}
	gso.LeaveChecksum(single, 18, &h)
	if v := r.receive(single, func(f *port.Frame) { f.VNet = h }); v != Transmit {
		t.Fatalf("frame: %v", v)
	}
	if len(r.core.tx) != 7 {
		t.Fatalf("%d frames left, want 7", len(r.core.tx))
	}
	var data []byte
	for i, f := range r.core.tx {
		b := f.Bytes()
		if f.VNet.GSOType != port.GSONone || f.VNet.Flags&port.VNetNeedsCsum != 0 {
			t.Errorf("frame %d left with header %+v", i, f.VNet)
		}
		ip := b[18:]
		pseudo := uint64(len(ip)-20) + protoTCP
		if gso.Fold(gso.Sum(ip[:20], 0)) != 0xffff || gso.Fold(gso.Sum(ip[20:], gso.Sum(ip[12:20], pseudo))) != 0xffff {
			t.Errorf("frame %d has a wrong checksum", i)
		}
		if i < 6 {
			data = append(data, ip[40:]...)
		}
	}
	if !bytes.Equal(data, super[18+40:]) {
		t.Error("the segments are not the superframe's payload")
	}
}

// TestPlainSenderCounts: a superframe of which a segment was lost did not leave.
func TestPlainSenderCounts(t *testing.T) {
	p := &fakePort{full: true}
	s := newCutter(fakeSender{p}, true)
	b := append(make([]byte, port.Headroom), tcpFrame(t, 5500)...)
	f := &port.Frame{Buf: b, Start: port.Headroom, End: len(b), VNet: port.VNetHdr{GSOType: port.GSOTCPv4, GSOSize: 1000}}
	bad := *f
	bad.VNet.GSOType = port.GSOUDP
	if sent, _ := s.Send([]*port.Frame{f, &bad}); sent != 0 {
		t.Errorf("%d left by a full port", sent)
	}
	p.full = false
	if sent, _ := s.Send([]*port.Frame{&bad, f}); sent != 1 {
		t.Errorf("%d left, want the one that can be cut", sent)
	}
	if n := testing.AllocsPerRun(10, func() { p.tx = nil; p.full = true; s.Send([]*port.Frame{f}) }); n != 0 {
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
			snap := r.engine.Snapshot()
			core := *snap.Ports[1]
			core.Port = plainPort{r.core}
			r.engine.snap.Store(&Snapshot{Ports: []*Port{snap.Ports[0], &core}, VRFs: snap.VRFs})
			v := r.receive(in, func(f *port.Frame) {
				f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: uint16(tt.start), CsumOffset: uint16(tt.offset)}
			})
			if v != tt.want {
				t.Errorf("IPv6 %v, checksum from %d at %d of %d: %v, want %v", v6, tt.start, tt.start+tt.offset, len(in), v, tt.want)
			}
			for _, f := range r.core.tx {
				if !bytes.Equal(f.Bytes()[:l4], headers) {
					t.Errorf("IPv6 %v, checksum from %d at %d: headers left as % x", v6, tt.start, tt.start+tt.offset, f.Bytes()[:l4])
				}
			}
		}
	}
}
