package dataplane

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"msee/dataplane/fib"
	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// withKernel gives a subinterface a kernel's side: a socket pair, which keeps
// frames apart as a TAP does. It returns the kernel's end.
func (r *router) withKernel(s *Subinterface) int {
	r.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	s.Punt = NewPunt(fds[0])
	return fds[1]
}

func read(t *testing.T, fd int) []byte {
	t.Helper()
	b := make([]byte, 70000)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatalf("the kernel got nothing: %v", err)
	}
	return b[:n]
}

func TestPunt(t *testing.T) {
	broadcast := port.MAC{255, 255, 255, 255, 255, 255}
	solicited := port.MAC{0x33, 0x33, 0xff, 0, 0, 2}
	arp := func(sender string) []byte { return arpFrame(t, broadcast, sender) }
	nd := func(src, dst string) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{
			&layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)},
			gopacket.Payload(append([]byte{135, 0, 0, 0}, make([]byte, 28)...))}
	}
	tests := []struct {
		name string
		b    []byte
		want Verdict
	}{
		{"ARP", arp("192.168.15.17"), PuntARP},
		{"ARP probe", arp("0.0.0.0"), PuntARP},
		{"ARP from elsewhere", arp("7.7.0.1"), DropForeignNeighbor},
		{"ARP that is too short", arp("192.168.15.17")[:40], DropForeignNeighbor},
		{"solicitation", frame(t, solicited, tags(100), q, nd("2001:db8:0:10::1", "ff02::1:ff00:2")...), PuntLinkLocal},
		{"solicitation of a link-local sender", frame(t, solicited, tags(100), q, nd("fe80::1", "ff02::1:ff00:2")...), PuntLinkLocal},
		{"duplicate address detection", frame(t, solicited, tags(100), q, nd("::", "ff02::1:ff00:2")...), PuntLinkLocal},
		{"solicitation from elsewhere", frame(t, solicited, tags(100), q, nd("2001:bad::1", "ff02::1:ff00:2")...), DropForeignNeighbor},
		{"link-local unicast", frame(t, mseeMAC, tags(100), q, nd("fe80::1", "fe80::2")...), PuntLinkLocal},
		{"link-local unicast from elsewhere", frame(t, mseeMAC, tags(100), q, nd("2001:bad::1", "fe80::2")...), DropForeignNeighbor},
		{"unicast solicitation", frame(t, mseeMAC, tags(100), q, nd("2001:db8:0:10::1", "2001:db8:0:10::2")...), PuntLocal},
		{"wider multicast", frame(t, solicited, tags(100), q, nd("2001:db8:0:10::1", "ff05::1")...), DropNotForUs},
		{"BGP at TTL 1", frame(t, mseeMAC, tags(100), q, udp4("192.168.15.17", "192.168.15.18", 1, 50)...), PuntLocal},
		{"two tags", frame(t, mseeMAC, tags(7, 9), q, udp4("192.168.15.17", "192.168.15.18", 1, 50)...), PuntLocal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, vlan.TPIDQ)
			kernel := map[string]int{}
			for _, s := range []string{"cust.100", "cust.7.9"} {
				kernel[s] = r.withKernel(r.subs[s])
			}
			if got := r.receive(tt.b); got != tt.want {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			if tt.want >= DropRunt {
				return
			}
			tags, _, length := vlan.Parse(tt.b, 0, 0)
			fd := kernel["cust.100"]
			if tags.Inner != 0 {
				fd = kernel["cust.7.9"]
			}
			got := read(t, fd)
			want := append(bytes.Clone(tt.b[:12]), tt.b[length-2:]...)
			if !bytes.Equal(got, want[:len(got)]) || len(got) < len(want)-18 {
				t.Errorf("the kernel got\n% x\nwant\n% x", got, want)
			}
		})
	}
}

func TestPuntCompletesChecksum(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	kernel := r.withKernel(r.subs["cust.100"])
	ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP("192.168.15.17"), DstIP: net.ParseIP("192.168.15.18")}
	tcp := &layers.TCP{SrcPort: 1000, DstPort: 179, ACK: true}
	tcp.SetNetworkLayerForChecksum(ip)
	whole := frame(t, mseeMAC, nil, q, ip, tcp, gopacket.Payload(bytes.Repeat([]byte{7}, 20001)))
	partial := bytes.Clone(whole)
	// What a kernel leaves to its device: the pseudo-header's sum.
	pseudo := gso.Fold(gso.Sum(partial[26:34], protoTCP+20+20001))
	partial[50], partial[51] = byte(pseudo>>8), byte(pseudo)
	v := r.receive(partial, func(f *port.Frame) {
		f.OuterTPID, f.OuterTCI = vlan.TPIDQ, 100
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1460, CsumStart: 34, CsumOffset: 16}
	})
	if v != PuntLocal {
		t.Fatal(v)
	}
	if got := read(t, kernel); !bytes.Equal(got, whole) {
		t.Errorf("checksum % x, want % x (%d octets of %d)", got[50:52], whole[50:52], len(got), len(whole))
	}
}

// arpFrame composes a request on VLAN 100.
func arpFrame(t *testing.T, dst port.MAC, sender string) []byte {
	b := frame(t, dst, tags(100), q, udp4("1.0.0.1", "1.0.0.2", 1, 0)...)
	b[16], b[17] = 0x08, 0x06
	copy(b[18:], []byte{0, 1, 8, 0, 6, 4, 0, 1})
	copy(b[18+14:], net.ParseIP(sender).To4())
	return b
}

func TestLinkLocalSendersAreFew(t *testing.T) {
	var n neighborhood
	addr := func(i int) [16]byte { return [16]byte{0xfe, 0x80, 15: byte(i + 1)} }
	admit := func(i int, now time.Duration) bool { return n.admit(addr(i), now, func() bool { return true }) }
	for i := range maxLinkLocals {
		if !admit(i, 0) {
			t.Fatalf("sender %d of %d is refused", i+1, maxLinkLocals)
		}
	}
	if admit(100, linkLocalFor) {
		t.Error("one more is admitted")
	}
	if !admit(0, linkLocalFor) {
		t.Error("a known sender is refused")
	}
	if !admit(100, linkLocalFor+1) || !admit(0, linkLocalFor+1) {
		t.Error("a silent sender keeps its place, or one that speaks has lost it")
	}
	for range 2 {
		if n.admit(addr(101), linkLocalFor+1, func() bool { return false }) {
			t.Error("one is admitted that may not be")
		}
	}
}

func TestPuntIsPoliced(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	kernel := r.withKernel(r.subs["cust.100"])
	arp := arpFrame(t, mseeMAC, "192.168.15.17")
	policed := 0
	for range 2 * puntARPPerSecond {
		switch v := r.receive(arp); v {
		case DropPuntPoliced:
			policed++
		case PuntARP:
			read(t, kernel)
		default:
			t.Fatal(v)
		}
	}
	if policed == 0 {
		t.Errorf("%d ARP frames passed in a moment; the rate is %d/s", 2*puntARPPerSecond, puntARPPerSecond)
	}
	if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("192.168.15.17", "192.168.15.18", 1, 50)...)); v != PuntLocal {
		t.Errorf("BGP while ARP is policed: %v", v)
	}
	r.checkSum(2*puntARPPerSecond + 1)
}

func TestInjectPushesTags(t *testing.T) {
	for name, want := range map[string][]byte{
		"cust.100": {0x81, 0, 0, 100},
		"cust.7.9": {0x81, 0, 0, 7, 0x81, 0, 0, 9},
		"cust":     {},
	} {
		r := newRouter(t, vlan.TPIDQ)
		s := r.subs[name]
		kernel := r.withKernel(s)
		r.worker.adopt(r.engine.Snapshot())
		out := frame(t, ceMAC, nil, q, udp4("192.168.15.18", "192.168.15.17", 1, 50)...)
		if _, err := unix.Write(kernel, out); err != nil {
			t.Fatal(err)
		}
		r.worker.inject(s)
		wantFrame := append(append(bytes.Clone(out[:12]), want...), out[12:]...)
		if len(r.customer.tx) != 1 || !bytes.Equal(r.customer.tx[0].Bytes(), wantFrame) {
			t.Errorf("%s: sent % x, want % x", name, r.customer.tx[0].Bytes(), wantFrame)
		}
		if n := s.Counters.Injected.Load(); n != 1 {
			t.Errorf("%s: injected %d", name, n)
		}
		r.checkSum(0) // what we send ourselves has no verdict
	}
}

func TestOriginateRoutesByTheVRF(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	origin := &Subinterface{Name: "origin", VRF: 0, Origin: true, MTU: 1500, Counters: new(Counters)}
	kernel := r.withKernel(origin)
	r.worker.adopt(r.engine.Snapshot())
	for _, ttl := range []uint8{1, 64} {
		r.core.tx = nil
		out := frame(t, ceMAC, nil, q, udp4("192.168.15.18", "10.100.1.1", ttl, 50)...)
		unix.Write(kernel, out)
		r.worker.inject(origin)
		if len(r.core.tx) != 1 || port.MAC(r.core.tx[0].Bytes()[:6]) != gwMAC {
			t.Fatalf("TTL %d: sent %d frames", ttl, len(r.core.tx))
		}
		if got := r.core.tx[0].Bytes()[18+8]; got != ttl {
			t.Errorf("TTL %d left as %d", ttl, got)
		}
	}
	for name, b := range map[string][]byte{
		"garbage":   bytes.Repeat([]byte{0xff}, 60),
		"short v6":  append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0),
		"no route":  frame(t, ceMAC, nil, q, udp4("192.168.15.18", "172.16.0.1", 64, 50)...),
		"malformed": frame(t, ceMAC, nil, q, udp4("192.168.15.18", "10.100.1.1", 64, 50)...)[:30],
	} {
		r.core.tx = nil
		unix.Write(kernel, b)
		r.worker.inject(origin)
		if len(r.core.tx) != 0 || len(r.customer.tx) != 0 {
			t.Errorf("%s was sent", name)
		}
	}
	dropped := uint64(0)
	for v := range r.counters().OwnDrops {
		dropped += r.counters().OwnDrops[v].Load()
	}
	if dropped != 4 {
		t.Errorf("%d counted as dropped, want all four", dropped)
	}
}

// frame802dot1X composes an MKPDU's outline.
func frame802dot1X(dst port.MAC) []byte {
	return append(append(dst[:], ceMAC[:]...), 0x88, 0x8e, 3, 5, 0, 2, 1, 2)
}

func TestEAPOL(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	kay := make(chan []byte, 5)
	r.engine.Snapshot().Ports[0].EAPOL = kay
	for _, dst := range []port.MAC{{1, 0x80, 0xc2, 0, 0, 0}, {1, 0x80, 0xc2, 0, 0, 3}, {1, 0x80, 0xc2, 0, 0, 0xe}, mseeMAC} {
		b := frame802dot1X(dst)
		if v := r.receive(b); v != PuntEAPOL {
			t.Fatalf("to %x: %v", dst, v)
		}
		if got := <-kay; !bytes.Equal(got, b) {
			t.Errorf("the KaY got % x, want % x", got, b)
		}
	}
	for _, dst := range []port.MAC{{1, 0x80, 0xc2, 0, 0, 1}, {1, 0x80, 0xc2, 0, 1, 3}, {255, 255, 255, 255, 255, 255}, ceMAC} {
		if v := r.receive(frame802dot1X(dst)); v != DropNotForUs {
			t.Errorf("to %x: %v", dst, v)
		}
	}
	tagged := func(f *port.Frame) { f.OuterTPID, f.OuterTCI = vlan.TPIDQ, 100 }
	if v := r.receive(frame802dot1X(mseeMAC), tagged); v != DropEtherType {
		t.Errorf("with a tag: %v", v)
	}
	count := map[Verdict]int{}
	for range 2 * puntEAPOLPerSecond {
		count[r.receive(frame802dot1X(mseeMAC))]++
	}
	if count[PuntEAPOL] != cap(kay) || count[DropPuntFailed] == 0 || count[DropPuntPoliced] == 0 {
		t.Errorf("a flood that nobody reads: %v", count)
	}
	r.checkSum(4 + 4 + 1 + 2*puntEAPOLPerSecond)
}

// TestEngineLifeCycle runs real workers: ports come and go while tables are
// published.
func TestEngineLifeCycle(t *testing.T) {
	e := NewEngine(testLog)
	a0, a1 := port.NewPair(port.PairOptions{MACs: [2]port.MAC{ceMAC, mseeMAC}})
	b0, b1 := port.NewPair(port.PairOptions{MACs: [2]port.MAC{coreMAC, gwMAC}})
	defer func() {
		e.Close()
		for _, p := range []port.Port{a0, a1, b0, b1} {
			p.Close()
		}
	}()
	in := &Subinterface{Name: "cust", Port: 0, MTU: 1500, Counters: new(Counters)}
	out := &Subinterface{Name: "core", Port: 1, MTU: 1500, Counters: new(Counters)}
	neighbor := NewAdjacency("core", netip.MustParseAddr("10.100.255.12"))
	neighbor.Resolve(&Rewrite{Out: out, Header: vlan.NewHeader(gwMAC, coreMAC, vlan.TPIDQ, 0, 0)})
	g := &NextHopGroup{Members: []*Adjacency{neighbor}}
	table := fib.New[*NextHopGroup]().With([]fib.Change[*NextHopGroup]{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Value: g}})
	counters := []*PortCounters{new(PortCounters), new(PortCounters)}
	ports := []*Port{
		NewPort(0, "cust", a1, vlan.TPIDQ, counters[0], []*Subinterface{in}, nil),
		NewPort(1, "core", b0, vlan.TPIDQ, counters[1], []*Subinterface{out}, nil),
	}
	for i, p := range ports {
		if err := e.AddPort(i, p.Port, AnyCPU); err != nil {
			t.Fatal(err)
		}
	}
	e.Publish(&Snapshot{Ports: ports, VRFs: []VRF{{"a", table}}})
	e.Sync()
	send, err := a0.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer send.Close()
	b := frame(t, mseeMAC, nil, q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...)
	const frames = 500
	received := 0
	batch := make([]port.Frame, 64)
	for i := range frames {
		f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
		if n, err := send.Send([]*port.Frame{&f}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if i%10 == 0 { // tables change all the time
			e.Publish(&Snapshot{Ports: ports, VRFs: []VRF{{"a", table.With(nil)}}})
			e.Sync()
		}
		for range 1000 {
			n, _ := b1.Recv(batch)
			b1.Release()
			if received += n; received > i {
				break
			}
			unix.Poll([]unix.PollFd{{Fd: int32(b1.FD()), Events: unix.POLLIN}}, 1000)
		}
	}
	if received != frames {
		t.Errorf("%d of %d frames came through", received, frames)
	}
	hello := frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3})
	for i := range 3 { // from a worker that may sleep
		if err := e.SendFrame(1, hello); err != nil {
			t.Fatal(err)
		}
		n := 0
		for range 1000 {
			if n, _ = b1.Recv(batch); n > 0 {
				break
			}
			unix.Poll([]unix.PollFd{{Fd: int32(b1.FD()), Events: unix.POLLIN}}, 1000)
		}
		if n != 1 || !bytes.Equal(batch[0].Bytes(), hello) {
			t.Fatalf("%d frames instead of control frame %d", n, i)
		}
		b1.Release()
	}
	if err := e.SendFrame(7, hello); err == nil {
		t.Error("a frame was sent by a port that is not there")
	}
	// The core port goes; frames are dropped, nothing else happens.
	e.Publish(&Snapshot{Ports: []*Port{ports[0], nil}, VRFs: []VRF{{"a", table}}})
	e.Sync()
	f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
	send.Send([]*port.Frame{&f})
	for counters[0].RxFrames.Load() < frames+1 {
		unix.Poll(nil, 1)
	}
	if n := counters[0].Verdicts[DropEgressDown].Load(); n != 1 {
		t.Errorf("%d frames dropped for want of the port", n)
	}
}
