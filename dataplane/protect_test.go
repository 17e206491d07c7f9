package dataplane

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/macsec"
	"msee/vlan"
)

// secured is a router whose customer port is protected, and the station at
// the other end of the cable.
type secured struct {
	*router
	secy, ce *macsec.SecY
}

var (
	mseeSCI = macsec.NewSCI(mseeMAC, 1)
	ceSCI   = macsec.NewSCI(ceMAC, 1)
)

// newSecured has keys on both sides if keyed.
func newSecured(t *testing.T, keyed bool) *secured {
	s := &secured{router: newRouter(t, vlan.TPIDQ)}
	s.secy, s.ce = testSecY(t, mseeSCI), testSecY(t, ceSCI)
	for _, p := range s.engine.Snapshot().Ports[:1] {
		p.SecY = s.secy
	}
	if keyed {
		key(t, s.secy, s.ce, ceSCI, 1, 0x11)
		key(t, s.ce, s.secy, mseeSCI, 2, 0x22)
	}
	return s
}

func testSecY(t testing.TB, sci macsec.SCI) *macsec.SecY {
	t.Helper()
	s, err := macsec.New(macsec.Config{SCI: sci, ProtectFrames: true, ReplayProtect: true, IncludeSCI: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// key installs a key for what tx, whose channel is sci, sends and rx receives.
func key(t testing.TB, rx, tx *macsec.SecY, sci macsec.SCI, an, seed byte) {
	t.Helper()
	sak := macsec.SAK{Suite: macsec.GCMAES128, Confidentiality: macsec.Confidentiality0, Key: bytes.Repeat([]byte{seed}, 16)}
	for _, err := range []error{
		tx.InstallTxSA(an, sak, 0, 1), tx.EnableTxSA(an),
		rx.CreateRxSC(sci), rx.InstallRxSA(sci, an, sak, 0, 1), rx.EnableRxSA(sci, an),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// seal is what the customer sends.
func (s *secured) seal(b []byte) []byte {
	s.t.Helper()
	buf := append(append(make([]byte, macsec.HeaderOverhead), b...), make([]byte, macsec.ICVLen)...)
	start, end, o := s.ce.Seal(buf, macsec.HeaderOverhead, macsec.HeaderOverhead+len(b))
	if o != macsec.OK {
		s.t.Fatalf("seal: %v", o)
	}
	return buf[start:end]
}

// open is what the customer makes of all that was sent to it since.
func (s *secured) open() (frames [][]byte) {
	s.t.Helper()
	for _, f := range s.customer.tx {
		b := bytes.Clone(f.Bytes())
		start, end, o := s.ce.Open(b, 0, len(b))
		if o != macsec.OK {
			s.t.Fatalf("the customer cannot open\n% x: %v", f.Bytes(), o)
		}
		if f.VNet != (port.VNetHdr{}) {
			s.t.Errorf("a sealed frame has a virtio-net header %+v", f.VNet)
		}
		frames = append(frames, b[start:end])
	}
	s.customer.tx = nil
	return frames
}

// fromCore has the core port's worker forward a frame.
func (s *secured) fromCore(b []byte, edit ...func(*port.Frame)) {
	f := port.Frame{Buf: append(append(make([]byte, port.Headroom), b...), make([]byte, 64)...), Start: port.Headroom, End: port.Headroom + len(b)}
	for _, e := range edit {
		e(&f)
	}
	s.core.rx = append(s.core.rx, f)
	s.coreWorker.step()
}

func (s *secured) coreVerdict(v Verdict) uint64 {
	return s.engine.Snapshot().Ports[1].Counters.Verdicts[v].Load()
}

func TestProtectedReception(t *testing.T) {
	s := newSecured(t, true)
	plain := frame(t, mseeMAC, tags(7, 9), q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...)
	sealed := s.seal(plain)
	if v := s.receive(sealed); v != Transmit || len(s.core.tx) != 1 {
		t.Fatalf("sealed: %v", v)
	}
	want := rewritten(t, udp4("10.1.0.1", "10.100.1.1", 64, 100), gwMAC, 200)
	if got := s.core.tx[0].Bytes(); !bytes.Equal(got, want) {
		t.Errorf("forwarded\n% x, want\n% x", got, want)
	}
	forged := bytes.Clone(s.seal(plain))
	forged[60] ^= 1
	hide := func(f *port.Frame) { f.OuterTPID, f.OuterTCI = vlan.TPIDQ, 100 }
	lie := func(f *port.Frame) {
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 100, CsumStart: 60000}
	}
	for _, c := range []struct {
		name string
		b    []byte
		edit func(*port.Frame)
		want Verdict
	}{
		{"in clear", plain, nil, DropUnprotected},
		{"in clear, broadcast", frame(t, port.MAC{255, 255, 255, 255, 255, 255}, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 10)...), nil, DropUnprotected},
		{"sealed behind a tag", s.seal(plain), hide, DropUnprotected},
		{"replayed", sealed, nil, DropNotValid},
		{"forged", forged, nil, DropNotValid},
		{"cut", s.seal(plain)[:40], nil, DropNotValid},
		{"to another station", s.seal(frame(t, gwMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 10)...)), nil, DropNotForUs},
		{"EAPOL that nobody wants", frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3}), nil, DropEtherType},
		{"lying virtio-net header", s.seal(plain), lie, Transmit},
	} {
		edit := []func(*port.Frame){}
		if c.edit != nil {
			edit = append(edit, c.edit)
		}
		if v := s.receive(c.b, edit...); v != c.want {
			t.Errorf("%s: %v, want %v", c.name, v, c.want)
		}
	}
	kay := make(chan []byte, 1)
	s.engine.Snapshot().Ports[0].EAPOL = kay
	if v := s.receive(frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3})); v != PuntEAPOL {
		t.Errorf("EAPOL: %v", v)
	}
	s.checkSum(11)
}

// TestProtectedTransmission: single frames, unfinished checksums and
// superframes reach the customer whole, in order.
func TestProtectedTransmission(t *testing.T) {
	s := newSecured(t, true)
	to := func(l []gopacket.SerializableLayer) []byte {
		b := frame(t, coreMAC, tags(200), q, l...)
		copy(b[6:], gwMAC[:])
		return b
	}
	want := frame(t, ceMAC, tags(100), q, udp4("10.100.1.1", "10.1.0.1", 63, 100)...)
	copy(want[6:], mseeMAC[:])

	s.fromCore(to(udp4("10.100.1.1", "10.1.0.1", 64, 100)))
	if got := s.open(); len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Fatalf("sent % x, want\n% x", got, want)
	}
	unfinished := to(udp4("10.100.1.1", "10.1.0.1", 64, 100))
	l4 := 18 + 20
	binary.BigEndian.PutUint16(unfinished[l4+6:], gso.Fold(gso.Sum(unfinished[18+12:18+20], protoUDP+108)))
	s.fromCore(unfinished, func(f *port.Frame) {
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: uint16(l4), CsumOffset: 6}
	})
	if got := s.open(); len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Fatalf("with its checksum completed % x, want\n% x", got, want)
	}
	for _, v6 := range []bool{false, true} {
		const payload, mss = 60000, 1400
		b, edit := coreSuperframe(t, v6, payload, mss)
		s.fromCore(b, edit)
		got := s.open()
		if len(got) != (payload+mss-1)/mss {
			t.Fatalf("v6 %v: %d segments, want %d", v6, len(got), (payload+mss-1)/mss)
		}
		total := 0
		for i, g := range got {
			p := gopacket.NewPacket(g, layers.LayerTypeEthernet, gopacket.Default)
			tcp, _ := p.TransportLayer().(*layers.TCP)
			if tcp == nil || g[12] != 0x81 || binary.BigEndian.Uint16(g[14:]) != 100 {
				t.Fatalf("segment %d: %v", i, p)
			}
			if tcp.Seq != uint32(i*mss) {
				t.Errorf("segment %d has sequence number %d", i, tcp.Seq)
			}
			total += len(tcp.Payload)
		}
		if total != payload {
			t.Errorf("%d octets arrived, want %d", total, payload)
		}
	}
	if n := s.coreVerdict(Transmit); n != 4 {
		t.Errorf("%d frames counted as sent, want 4", n)
	}
}

// coreSuperframe makes a TCP superframe from the core to the customer, its
// checksum left to us.
func coreSuperframe(t testing.TB, v6 bool, payload, mss int) ([]byte, func(*port.Frame)) {
	t.Helper()
	tcp := &layers.TCP{SrcPort: 5201, DstPort: 1000, ACK: true, Window: 100}
	h := port.VNetHdr{GSOType: port.GSOTCPv4, HdrLen: 18 + 20 + 20, GSOSize: uint16(mss)}
	var l3 gopacket.SerializableLayer
	if v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP("fd00:100::99"), DstIP: net.ParseIP("2001:db8:1::1")}
		tcp.SetNetworkLayerForChecksum(ip)
		l3, h.GSOType = ip, port.GSOTCPv6
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP("10.100.1.1"), DstIP: net.ParseIP("10.1.0.1"), Flags: layers.IPv4DontFragment}
		tcp.SetNetworkLayerForChecksum(ip)
		l3 = ip
	}
	b := frame(t, coreMAC, tags(200), q, l3, tcp, gopacket.Payload(make([]byte, payload)))
	if !gso.LeaveChecksum(b, 18, &h) {
		t.Fatal("no TCP")
	}
	return b, func(f *port.Frame) { f.VNet = h }
}

// TestNothingInClear: whatever makes the router send, with and without a key,
// no frame leaves the protected port unsealed but EAPOL.
func TestNothingInClear(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		s := newSecured(t, keyed)
		kernel := s.withKernel(s.subs["cust.100"])
		if _, err := unix.Write(kernel, frame(t, ceMAC, nil, q, udp4("192.168.15.18", "192.168.15.17", 64, 20)...)); err != nil {
			t.Fatal(err)
		}
		to := func(l ...gopacket.SerializableLayer) []byte { return frame(t, coreMAC, tags(200), q, l...) }
		b, edit := coreSuperframe(t, false, 60000, 1400)
		s.fromCore(b, edit)                                                                                      // superframe
		s.fromCore(to(udp4("10.100.1.1", "10.1.0.1", 64, 100)...))                                               // single
		big := udp4("10.100.1.1", "10.1.0.1", 64, 3000)                                                          // fragments
		big[0].(*layers.IPv4).Flags = 0                                                                          //
		s.fromCore(to(big...))                                                                                   //
		s.receive(s.maybeSeal(keyed, frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 1, 10)...))) // ICMP error
		s.worker.inject(s.subs["cust.100"])                                                                      // what the kernel says
		for _, b := range [][]byte{
			frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3}),
			frame(t, ceMAC, tags(100), q, udp4("192.168.15.18", "192.168.15.17", 255, 24)...), // BFD, say
		} {
			f := &port.Frame{Buf: append(make([]byte, port.Headroom, port.Headroom+len(b)), b...), Start: port.Headroom, End: port.Headroom + len(b)}
			s.worker.enqueueControl(0, f)
			s.worker.transmit()
		}
		eapol, sealed := 0, 0
		for _, f := range s.customer.tx {
			switch binary.BigEndian.Uint16(f.Bytes()[12:]) {
			case macsec.EtherType:
				sealed++
			case etherTypePAE:
				eapol++
			default:
				t.Errorf("keyed %v: in clear: % x", keyed, f.Bytes())
			}
		}
		if eapol != 1 || keyed && sealed != 43+1+3+1+1+1 || !keyed && sealed != 0 {
			t.Errorf("keyed %v: %d EAPOL, %d sealed frames", keyed, eapol, sealed)
		}
		if n := s.coreVerdict(DropNoKey); !keyed && n != 2 {
			t.Errorf("%d frames dropped for want of a key, want 2", n)
		}
	}
}

func (s *secured) maybeSeal(keyed bool, b []byte) []byte {
	if keyed {
		return s.seal(b)
	}
	return b
}

// TestOpenedFramesAreJoined: what had to be received as single frames leaves
// for the core as the superframe it was.
func TestOpenedFramesAreJoined(t *testing.T) {
	s := newSecured(t, true)
	const payload, mss = 14000, 1400
	var seq uint32
	for range payload / mss {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 1, 0, 1}, DstIP: []byte{10, 100, 1, 1}, Flags: layers.IPv4DontFragment, Id: uint16(seq / mss)}
		tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: seq, ACK: true, Window: 1000}
		tcp.SetNetworkLayerForChecksum(ip)
		b := s.seal(frame(t, mseeMAC, tags(100), q, ip, tcp, gopacket.Payload(bytes.Repeat([]byte{byte(seq)}, mss))))
		buf := append(append(make([]byte, port.Headroom), b...), make([]byte, port.MaxFrame)...)
		s.customer.rx = append(s.customer.rx, port.Frame{Buf: buf, Start: port.Headroom, End: port.Headroom + len(b)})
		seq += mss
	}
	s.worker.step()
	if len(s.core.tx) != 1 {
		t.Fatalf("%d frames left, want one superframe", len(s.core.tx))
	}
	f := s.core.tx[0]
	if f.VNet.GSOType != port.GSOTCPv4 || f.VNet.GSOSize != mss || f.Len() != 18+20+20+payload {
		t.Errorf("%d octets, %+v", f.Len(), f.VNet)
	}
	s.checkSum(payload / mss)
}

var hostileFrames = flag.Int("hostile", 200_000, "frames that TestHostilePeer sends; 10000000 for the long form")

// TestHostilePeer throws forgeries at a protected port between frames of the
// real peer: none of the former is delivered, all of the latter are, and the
// counters add up.
func TestHostilePeer(t *testing.T) {
	s := newSecured(t, true)
	r := rand.New(rand.NewPCG(1, 2))
	plain := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 50)...)
	frames := make([]port.Frame, 0, port.BatchSize)
	bufs := make([][]byte, port.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	var old [][]byte
	honest, hostile := 0, 0
	send := func(b []byte) {
		buf := bufs[len(frames)]
		n := copy(buf[port.Headroom:], b)
		frames = append(frames, port.Frame{Buf: buf, Start: port.Headroom, End: port.Headroom + n})
		if len(frames) == port.BatchSize {
			s.customer.rx, frames = frames, frames[:0]
			s.worker.step()
			if n := len(s.core.tx); n != honest {
				t.Fatalf("after %d hostile frames %d were delivered, of %d honest ones", hostile, n, honest)
			}
			s.core.tx, honest = nil, 0
		}
	}
	total := 0
	for total < *hostileFrames {
		good := bytes.Clone(s.seal(plain))
		if len(old) < 1000 {
			old = append(old, good)
		} else {
			old[r.IntN(len(old))] = good
		}
		honest++
		send(good)
		for range 20 {
			b := bytes.Clone(old[r.IntN(len(old))])
			switch r.IntN(8) {
			case 0: // replayed as it is
			case 1: // bits turned, behind the addresses, which decide whether we look at all
				for range 1 + r.IntN(4) {
					b[12+r.IntN(len(b)-12)] ^= 1 << r.IntN(8)
				}
			case 2: // cut
				b = b[:r.IntN(len(b))]
			case 3: // foreign SCI
				binary.BigEndian.PutUint64(b[20:], r.Uint64())
			case 4: // packet number ahead
				binary.BigEndian.PutUint32(b[16:], binary.BigEndian.Uint32(good[16:])+1+r.Uint32N(1<<30))
			case 5: // other association, other flags
				b[14] = byte(r.Uint32())
			case 6: // longer
				b = append(b, make([]byte, r.IntN(100))...)
				b[15] = byte(r.Uint32())
			case 7: // 802.1X with anything in it
				b = append(frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3})[:14], b...)
				for range 10 {
					b[14+r.IntN(len(b)-14)] = byte(r.Uint32())
				}
			}
			if bytes.Equal(b, good) {
				continue
			}
			hostile++
			total++
			send(b)
		}
	}
	for len(frames) > 0 { // the last batch
		send(frame(t, gwMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 50)...))
	}
	c := s.counters()
	var sum uint64
	for v := range c.Verdicts {
		sum += c.Verdicts[v].Load()
	}
	if sum != c.RxFrames.Load() {
		t.Errorf("verdicts add up to %d of %d frames", sum, c.RxFrames.Load())
	}
	st := s.secy.Status()
	refused := st.Rx.InPktsBadTag + st.Rx.InPktsNoSAErr
	for _, sc := range st.RxSCs {
		refused += sc.InPktsLate + sc.InPktsNotUsingSA + sc.InPktsNotValid
	}
	if n := c.Verdicts[DropNotValid].Load(); n != refused {
		t.Errorf("%d frames dropped as not valid, the SecY counted %d", n, refused)
	}
	if v := s.receive(s.seal(plain)); v != Transmit {
		t.Errorf("the real peer afterwards: %v", v)
	}
	t.Logf("%d hostile frames, %d refused by the SecY", hostile, refused)
}

func TestProtectedPathDoesNotAllocate(t *testing.T) {
	s := newSecured(t, true)
	b, edit := coreSuperframe(t, false, 30000, 1400)
	f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
	edit(&f)
	q := &egressQueue{port: s.engine.Snapshot().Ports[0], sender: discardSender{}}
	if n := testing.AllocsPerRun(100, func() {
		g := f
		if r := q.send([]*port.Frame{&g}); r.sent != 1 {
			t.Fatalf("%+v", r)
		}
	}); n > 2 { // the frame and its list, which are the test's
		t.Errorf("%v allocations per superframe", n)
	}
}

// discardSender sends to nowhere.
type discardSender struct{}

func (discardSender) Close() error                           { return nil }
func (discardSender) Send(frames []*port.Frame) (int, error) { return len(frames), nil }
