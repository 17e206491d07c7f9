package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// tunnelled puts a superframe into a VXLAN tunnel: outer Ethernet, IP, UDP and
// VXLAN in front of it.
func tunnelled(inner *Frame, v6 bool) *Frame {
	b := []byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1}
	n := inner.Len() + 16 // with UDP and VXLAN
	if v6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, byte(n>>8), byte(n), 17, 64)
		b = append(b, bytes.Repeat([]byte{0xfd}, 32)...)
	} else {
		b = append(b, 8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2)
		binary.BigEndian.PutUint16(b[16:], uint16(n+20))
	}
	b = append(b, 0xc0, 1, 0x12, 0xb5, byte(n>>8), byte(n), 0, 0, 8, 0, 0, 0, 0, 0, 5, 0)
	f := newFrame(append(b, inner.Bytes()...))
	f.VNet = inner.VNet
	f.VNet.CsumStart += uint16(len(b))
	f.Inner = f.Start + len(b) + 14
	return f
}

// TestTunnelledSuperframe: one in a tunnel crosses whole, and is known at the far
// end for what it is.
func TestTunnelledSuperframe(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p, far := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}), testPacket(t, b, PacketConfig{Device: "far0", RingFrames: 8})
	s, err := p.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tunnels := s.(Tunneler)
	plain, super := superframe(5000), tunnelled(superframe(60000), false)
	if tunnels.TakesTunnelled(super) {
		t.Error("it is taken before OpenTunnels")
	}
	if err := tunnels.OpenTunnels(); errors.Is(err, unix.EINVAL) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if tunnels.TakesTunnelled(plain) || tunnels.TakesTunnelled(tunnelled(testFrame(100), false)) {
		t.Error("what is no superframe in a tunnel is taken for one")
	}
	for _, f := range []*Frame{super, tunnelled(superframe(60000), true), tunnelled(superframe(1500), false)} {
		want, sent := bytes.Clone(f.Bytes()), f.VNet
		if !tunnels.TakesTunnelled(f) {
			t.Fatal("it is not taken")
		}
		if n, err := s.Send([]*Frame{f}); n != 1 || err != nil {
			t.Fatalf("sent %d, %v", n, err)
		}
		recvOne(t, far, func(got *Frame) {
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d octets came, want %d", got.Len(), len(want))
			}
			if got.VNet.GSOType != GSOTCPv4 || got.VNet.GSOSize != sent.GSOSize || got.VNet.Flags != VNetNeedsCsum || got.VNet.CsumStart != sent.CsumStart {
				t.Errorf("its header is %+v, was %+v", got.VNet, sent)
			}
		})
	}
	// Between others, in order.
	if n, err := s.Send([]*Frame{testFrame(60), tunnelled(superframe(30000), false), testFrame(61)}); n != 3 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	if all := collect(t, far, 3); len(all) != 3 || all[0].Len() != 60 || all[1].Len() < 30000 || all[2].Len() != 61 {
		t.Errorf("%d frames came: %+v", len(all), all)
	}
}
