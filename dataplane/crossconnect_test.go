package dataplane

import (
	"bytes"
	"testing"

	"msee/dataplane/port"
	"msee/vlan"
)

// TestCrossConnect passes frames between a protected and a plain port that are
// connected: tagged or not, for whatever address, as they are; EAPOL alone
// stays where it is.
func TestCrossConnect(t *testing.T) {
	s := newSecured(t, true)
	ports := s.engine.Snapshot().Ports
	ports[0].CrossConnect, ports[1].CrossConnect = &CrossConnect{Port: 1}, &CrossConnect{Port: 0}
	eapol := make(chan []byte, 1)
	ports[0].EAPOL = eapol
	strange := port.MAC{2, 9, 9, 9, 9, 9}

	for _, tagged := range [][]byte{
		frame(t, strange, tags(7, 9), q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...),
		frame(t, strange, nil, q, udp4("10.1.0.1", "10.100.1.1", 1, 100)...),
	} {
		if v := s.receive(s.seal(tagged)); v != Transmit || len(s.core.tx) != 1 || !bytes.Equal(s.core.tx[0].Bytes(), tagged) {
			t.Fatalf("from the protected port: %v, %d frames, want what was sealed", v, len(s.core.tx))
		}
		s.core.tx = nil
		s.fromCore(tagged)
		if got := s.open(); len(got) != 1 || !bytes.Equal(got[0], tagged) {
			t.Fatalf("to the protected port: %x, want %x", got, tagged)
		}
	}
	if v := s.receive(frame(t, strange, nil, q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...)); v != DropUnprotected {
		t.Errorf("in clear on the protected port: %v, want %v", v, DropUnprotected)
	}

	// A tag beside the frame is put inside before it is sealed.
	inner := frame(t, strange, nil, q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...)
	s.fromCore(inner, func(f *port.Frame) { f.OuterTPID, f.OuterTCI = vlan.TPIDQ, 100 })
	want := bytes.Join([][]byte{inner[:12], {0x81, 0x00, 0, 100}, inner[12:]}, nil)
	if got := s.open(); len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Errorf("hidden tag: %x, want %x", got, want)
	}

	hello := bytes.Clone(inner)
	copy(hello, []byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03})
	hello[12], hello[13] = 0x88, 0x8e
	s.fromCore(hello)
	if len(s.customer.tx) != 0 || s.coreVerdict(DropEtherType) != 1 {
		t.Errorf("EAPOL of the plain port: %d frames sent in clear, %d dropped", len(s.customer.tx), s.coreVerdict(DropEtherType))
	}
	if v := s.receive(hello); v != PuntEAPOL || len(eapol) != 1 || len(s.core.tx) != 0 {
		t.Errorf("EAPOL of the protected port: %v, %d to the KaY, %d passed on", v, len(eapol), len(s.core.tx))
	}
	super := tcpFrame(t, 5000)
	for _, size := range []uint16{0, 1, 1000} {
		s.fromCore(super, func(f *port.Frame) { f.VNet = port.VNetHdr{GSOType: port.GSOTCPv4, GSOSize: size} })
	}
	if got := s.open(); len(got) != 5 || s.coreVerdict(DropMalformed) != 2 {
		t.Errorf("superframes of 5000 octets for segments of 0, 1 and 1000: %d frames, %d dropped, want 5 and 2", len(got), s.coreVerdict(DropMalformed))
	}
	if v := s.receive([]byte{1, 2, 3}); v != DropRunt {
		t.Errorf("three octets: %v, want %v", v, DropRunt)
	}
}
