package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
	"msee/vlan"
)

// testGateway makes what the router receives on its VLAN 100 go through a gateway.
// Time stands still.
func testGateway(t testing.TB, mbps, pps, flows int) (*router, *Gateway) {
	r := newRouter(t, vlan.TPIDQ)
	g := NewGateway(GatewayLimits{1400, mbps, pps, flows, time.Minute}, nil)
	r.subs["cust.100"].Gateway = g
	r.sumUp()
	return r, g
}

// flowFrame is a UDP packet of length octets of the flow that has that port.
func flowFrame(t testing.TB, port layers.UDPPort, v6 bool, length int) []byte {
	if v6 {
		l := udp6("2001:db8:1::1", "fd00:100::99", 64, length-48)
		l[1].(*layers.UDP).SrcPort = port
		return frame(t, mseeMAC, tags(100), q, l...)
	}
	l := udp4("10.1.0.1", "10.100.1.1", 64, length-28)
	l[1].(*layers.UDP).SrcPort = port
	return frame(t, mseeMAC, tags(100), q, l...)
}

func TestGatewayFlows(t *testing.T) {
	r, g := testGateway(t, 10_000, 1_000_000, 6)
	for n, want := range []Verdict{Transmit, Transmit, Transmit, DropGatewayFlows} {
		for _, v6 := range []bool{false, true} {
			for range 2 {
				if v := r.receive(flowFrame(t, layers.UDPPort(100+n), v6, 100)); v != want {
					t.Errorf("flow %d, IPv6 %v: %v, want %v", n, v6, v, want)
				}
			}
		}
	}
	if n, dropped := g.Flows(), g.Dropped[GatewayDropFlows].Load(); n != 6 || dropped != 4 {
		t.Errorf("%d flows, %d packets of others dropped; want 6 and 4", n, dropped)
	}
	g.Sweep(r.engine.Now() + 2*time.Minute)
	if v := r.receive(flowFrame(t, 900, false, 100)); v != Transmit {
		t.Errorf("when the others are idle: %v", v)
	}
}

// TestGatewayChanges: counters go on whatever changes, flows unless their limit does.
func TestGatewayChanges(t *testing.T) {
	l := GatewayLimits{1400, 1000, 10_000, 10, time.Minute}
	g := NewGateway(l, nil)
	g.flows.take(1<<40, 0)
	g.Dropped[GatewayDropFlows].Add(5)
	l.Mbps = 2000
	if g = NewGateway(l, g); g.Flows() != 1 || g.Dropped[GatewayDropFlows].Load() != 5 {
		t.Errorf("with another bandwidth: %d flows, %d dropped", g.Flows(), g.Dropped[GatewayDropFlows].Load())
	}
	l.Flows = 5
	if g = NewGateway(l, g); g.Flows() != 0 || g.Dropped[GatewayDropFlows].Load() != 5 {
		t.Errorf("with another limit of flows: %d flows, %d dropped", g.Flows(), g.Dropped[GatewayDropFlows].Load())
	}
}

func TestGatewayMTUAndFragments(t *testing.T) {
	for _, c := range []struct {
		name     string
		frame    []byte
		want     Verdict
		says     string // of the ICMP error
		dropped  int    // in Gateway.Dropped
		whatever func(*port.Frame)
	}{
		{name: "fits", frame: flowFrame(t, 1, false, 1400), want: Transmit},
		{name: "fits, IPv6", frame: flowFrame(t, 1, true, 1400), want: Transmit},
		{name: "too long", frame: flowFrame(t, 1, false, 1401), want: DropTooBig, says: "DestinationUnreachable(FragmentationNeeded) 1400", dropped: GatewayDropTooBig},
		{name: "too long, IPv6", frame: flowFrame(t, 1, true, 1401), want: DropTooBig, says: "PacketTooBig 1400", dropped: GatewayDropTooBig},
		{name: "too long, without DF", frame: edit4(flowFrame(t, 1, false, 1401), 0), want: DropTooBig, says: "DestinationUnreachable(FragmentationNeeded) 1400", dropped: GatewayDropTooBig},
		{name: "without DF", frame: edit4(flowFrame(t, 1, false, 1400), 0), want: Transmit},
		{name: "first fragment", frame: edit4(flowFrame(t, 1, false, 100), flagMF), want: DropGatewayFragment, dropped: GatewayDropFragment},
		{name: "last fragment", frame: edit4(flowFrame(t, 1, false, 100), 100), want: DropGatewayFragment, dropped: GatewayDropFragment},
		{name: "fragment, IPv6", frame: fragment6(t), want: DropGatewayFragment, dropped: GatewayDropFragment},
	} {
		r, g := testGateway(t, 1, 10_000, 10)
		if v := r.receive(c.frame); v != c.want {
			t.Errorf("%s: %v, want %v", c.name, v, c.want)
		}
		if c.want != Transmit && g.Dropped[c.dropped].Load() != 1 {
			t.Errorf("%s: is not counted", c.name)
		}
		says := ""
		for _, f := range r.customer.tx {
			says = icmpOf(f.Bytes())
		}
		if says != c.says {
			t.Errorf("%s: the sender is told %q, want %q", c.name, says, c.says)
		}
	}
}

// edit4 gives an IPv4 packet other flags and offset.
func edit4(b []byte, field uint16) []byte {
	ip := b[18:]
	binary.BigEndian.PutUint16(ip[6:], field)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], headerSum(ip[:20]))
	return b
}

func headerSum(h []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func fragment6(t testing.TB) []byte {
	l := udp6("2001:db8:1::1", "fd00:100::99", 64, 60)
	l[0].(*layers.IPv6).NextHeader = layers.IPProtocolIPv6Fragment
	payload := append([]byte{protoUDP, 0, 0, 1, 0, 0, 0, 9}, make([]byte, 64)...)
	return frame(t, mseeMAC, tags(100), q, l[0], gopacket.Payload(payload))
}

// icmpOf describes an ICMP error in a frame with one tag.
func icmpOf(b []byte) string {
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return fmt.Sprintf("%v %d", l.TypeCode, l.Seq)
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		return fmt.Sprintf("%v %d", l.TypeCode, binary.BigEndian.Uint32(l.Payload))
	}
	return ""
}

// gatewayPass has n frames go through the gateway, at time now of the worker, and
// returns how many octets and packets leave.
func (r *router) gatewayPass(b []byte, meta func(*port.Frame), n int, now time.Duration) (frames int) {
	w := r.worker
	w.adopt(r.engine.Snapshot())
	w.now = now
	for n > 0 {
		batch := make([]port.Frame, min(n, vector))
		for i := range batch {
			batch[i] = port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
			if meta != nil {
				meta(&batch[i])
			}
		}
		w.forward(batch)
		frames += len(w.egress[1].frames)
		w.egress[1].frames = w.egress[1].frames[:0]
		n -= len(batch)
	}
	return frames
}

// TestGatewayRates: at twice what it passes, half passes; a superframe counts as what
// it is cut into, with the headers of each.
func TestGatewayRates(t *testing.T) {
	super, meta := superframe(t, false, 13_600, 1360, port.VNetNeedsCsum) // ten segments of 1400 octets
	for _, c := range []struct {
		name      string
		mbps, pps int
		frame     []byte
		meta      func(*port.Frame)
		perSecond int // offered
		want      int
		dropped   int
	}{
		{"packets", 1000, 10_000, flowFrame(t, 1, false, 100), nil, 20_000, 10_000, GatewayDropPackets},
		{"octets", 80, 1_000_000, flowFrame(t, 1, false, 1000), nil, 20_000, 10_000, GatewayDropBandwidth},
		{"packets of superframes", 1000, 10_000, super, meta, 2_000, 1_000, GatewayDropPackets},
		{"octets of superframes", 112, 1_000_000, super, meta, 2_000, 1_000, GatewayDropBandwidth},
	} {
		r, g := testGateway(t, c.mbps, c.pps, 10)
		const seconds = 1
		passed := 0
		for ms := range seconds * 1000 {
			passed += r.gatewayPass(c.frame, c.meta, c.perSecond/1000, time.Duration(ms)*time.Millisecond)
		}
		// A bucketful more, as it begins full.
		if want := c.want * seconds; passed < want-c.want/100 || passed > want+c.want/5+300 {
			t.Errorf("%s: %d frames of %d passed, want %d", c.name, passed, c.perSecond*seconds, want)
		}
		packets := uint64(1)
		if c.meta != nil {
			packets = 10
		}
		if got, want := g.Dropped[c.dropped].Load(), uint64(c.perSecond*seconds-passed)*packets; got != want {
			t.Errorf("%s: %d packets were counted as dropped, want %d", c.name, got, want)
		}
		if got, want := g.Passed.Packets.Load(), uint64(passed)*packets; got != want {
			t.Errorf("%s: %d packets were counted as passed, want %d", c.name, got, want)
		}
	}
}

// TestGatewaySuperframes: what cannot be one is dropped as such, and divides by nothing.
func TestGatewaySuperframes(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*port.VNetHdr)
		want Verdict
	}{
		{"of 1360 octets each", func(*port.VNetHdr) {}, Transmit},
		{"of 1361 octets each", func(h *port.VNetHdr) { h.GSOSize = 1361 }, DropTooBig},
		{"of none", func(h *port.VNetHdr) { h.GSOSize = 0 }, DropMalformed},
		{"of none, UDP", func(h *port.VNetHdr) { h.GSOSize, h.GSOType = 0, port.GSOUDPL4 }, DropMalformed},
		{"of no known type", func(h *port.VNetHdr) { h.GSOSize, h.GSOType = 0, 77 }, DropMalformed},
	} {
		for _, v6 := range []bool{false, true} {
			size := 1360
			if v6 {
				size = 1340
			}
			r, g := testGateway(t, 1000, 10_000, 10)
			b, meta := superframe(t, v6, 10_000, size, port.VNetNeedsCsum)
			before := uint16(1360)
			got := r.receive(b, meta, func(f *port.Frame) {
				c.edit(&f.VNet)
				if f.VNet.GSOSize > before {
					f.VNet.GSOSize = uint16(size + 1)
				}
			})
			if got != c.want {
				t.Errorf("%s, IPv6 %v: %v, want %v", c.name, v6, got, c.want)
			}
			if n := g.Flows(); (n == 1) != (c.want == Transmit) {
				t.Errorf("%s, IPv6 %v: makes %d flows", c.name, v6, n)
			}
		}
	}
}

// TestGatewayDeadPackets: what dies of its TTL, or must not leave its link, makes no
// flow and takes no room.
func TestGatewayDeadPackets(t *testing.T) {
	r, g := testGateway(t, 1000, 10_000, 10)
	b := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 1, 20)...)
	if v := r.receive(b); v != DropTTL || g.Flows() != 0 || g.Passed.Packets.Load() != 0 {
		t.Errorf("%v, %d flows, %d packets passed", v, g.Flows(), g.Passed.Packets.Load())
	}
	b = frame(t, mseeMAC, tags(100), q, udp6("fe80::99", "fd00:100::99", 64, 20)...)
	if v := r.receive(b); v != DropMartian || g.Flows() != 0 || g.Passed.Packets.Load() != 0 {
		t.Errorf("link-local source: %v, %d flows, %d packets passed", v, g.Flows(), g.Passed.Packets.Load())
	}
	// What is for the gateway itself is none of this: a fragment of BGP's, say.
	l := udp4("10.1.0.1", "192.168.15.18", 64, 20)
	r.receive(edit4(frame(t, mseeMAC, tags(100), q, l...), flagMF))
	if n := g.Dropped[GatewayDropFragment].Load(); n != 0 {
		t.Errorf("%d fragments for the gateway itself were dropped", n)
	}
}

// TestGatewayBeforeTheKernel: the first packets for a neighbor that is not known yet
// go by the kernel, and must fit as well.
func TestGatewayBeforeTheKernel(t *testing.T) {
	r, g := testGateway(t, 1000, 10_000, 10)
	r.withKernel(r.subs["core.200"])
	to := func(size int) []byte {
		return frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.255.9", 64, size)...)
	}
	for _, c := range []struct {
		frame []byte
		want  Verdict
	}{{to(20), PuntGlean}, {to(1400), DropTooBig}, {edit4(to(20), flagMF), DropGatewayFragment}} {
		if v := r.receive(c.frame); v != c.want {
			t.Errorf("%v, want %v", v, c.want)
		}
	}
	if packets, octets := g.Passed.Packets.Load(), g.Passed.Bytes.Load(); packets != 1 || octets != 48 {
		t.Errorf("%d packets of %d octets passed, want the one of 48", packets, octets)
	}
}

func TestGatewayDoesNotAllocate(t *testing.T) {
	r, _ := testGateway(t, 10_000, 1_000_000, 10)
	in := flowFrame(t, 1, false, 100)
	frames := make([]port.Frame, vector)
	for i := range frames {
		frames[i].Buf = append(make([]byte, port.Headroom), in...)
	}
	w := r.worker
	w.adopt(r.engine.Snapshot())
	allocs := testing.AllocsPerRun(100, func() {
		for i := range frames {
			f := &frames[i]
			f.Start, f.End = port.Headroom, len(f.Buf)
			copy(f.Buf[f.Start:], in)
		}
		w.now += time.Millisecond
		w.forward(frames)
		if n := len(w.egress[1].frames); n != len(frames) {
			t.Fatalf("%d of %d frames are in line", n, len(frames))
		}
		w.egress[1].frames = w.egress[1].frames[:0]
	})
	if allocs != 0 {
		t.Errorf("%v allocations per batch", allocs)
	}
}

// FuzzGateway: whatever comes, what leaves fits, is no fragment, and is of one of the
// flows that there is room for.
func FuzzGateway(f *testing.F) {
	f.Add(flowFrame(f, 1, false, 100), uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
	f.Add(flowFrame(f, 1, true, 1300), uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
	f.Add(flowFrame(f, 1, false, 1300), uint8(0), uint8(port.GSOUDPL4), uint16(0), uint16(0), uint16(0))
	f.Add(flowFrame(f, 1, true, 1300), uint8(1), uint8(port.GSOTCPv6), uint16(100), uint16(58), uint16(6))
	f.Add(fragment6(f), uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
	r, g := testGateway(f, 1000, 100_000, 64)
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, gsoSize, csumStart, csumOffset uint16) {
		if len(b) > port.MaxFrame {
			return
		}
		r.t = t
		r.core.tx, r.customer.tx = nil, nil
		passed := g.Passed.Packets.Load()
		v := r.receive(b, func(f *port.Frame) {
			f.VNet = port.VNetHdr{Flags: flags, GSOType: gso, GSOSize: gsoSize, CsumStart: csumStart, CsumOffset: csumOffset}
		})
		if n := g.Flows(); n > 64 {
			t.Fatalf("%d flows", n)
		}
		if tags, _, _ := vlan.Parse(b, 0, 0); tags.Outer != 100 || tags.Inner != 0 || v != Transmit {
			return
		}
		if g.Passed.Packets.Load() == passed {
			t.Fatalf("% x was sent past the gateway", b)
		}
		for _, f := range r.core.tx {
			_, etherType, l3 := vlan.Parse(f.Bytes(), 0, 0)
			ip := f.Bytes()[l3:]
			fragment := false
			if etherType == etherTypeIPv4 {
				fragment = !bytes.Equal([]byte{ip[6] & 0x3f, ip[7]}, []byte{0, 0})
			} else {
				_, _, whole := upperLayer6(ip)
				fragment = !whole
			}
			if fragment || f.VNet.GSOType == port.GSONone && len(ip) > 1400 {
				t.Fatalf("sent % x", f.Bytes())
			}
		}
	})
}
