package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"msee/dataplane/fib"
	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/fastpath"
	"msee/vlan"
	"msee/vxlan"
)

const testVNI = 5001

var (
	vtepMAC  = port.MAC{2, 0, 0, 0, 4, 1} // on the underlay
	innerMAC = port.MAC{2, 0, 0, 0, 4, 2} // in the overlay
)

// tunnelRouter is newRouter with an underlay, untagged on the core port, and in
// VRF a a VXLAN network with the host 10.100.255.20, to which an endpoint and
// 10.50.0.0/16 lead.
type tunnelRouter struct {
	*router
	over *Subinterface
	vtep *VTEP
	via  *Adjacency
	host *Adjacency
}

func newTunnelRouter(t testing.TB, local, remote string) *tunnelRouter {
	t.Helper()
	r := &tunnelRouter{router: newRouter(t, vlan.TPIDQ)}
	under := &Subinterface{Name: "core", Port: 1, VRF: 2, MTU: 1600, Underlay: true, Counters: new(Counters)}
	l := netip.MustParseAddr(local)
	if l.Is4() {
		under.Addr4, under.Subnet4 = l, netip.PrefixFrom(l, 24).Masked()
	} else {
		under.Addr6, under.Subnet6 = l, netip.PrefixFrom(l, 64).Masked()
	}
	r.via = NewAdjacency("core", netip.MustParseAddr(remote))
	r.via.Resolve(&Rewrite{Out: under, Header: vlan.NewHeader(vtepMAC, coreMAC, 0, 0, 0)})
	r.vtep = NewVTEP(l, netip.MustParseAddr(remote), testVNI, r.via)
	r.over = &Subinterface{Name: "core.v5001", Port: 1, VRF: 0, MTU: 1500, Counters: new(Counters),
		Tunnel: NewTunnel(testVNI, []*VTEP{r.vtep}),
		Addr4:  netip.MustParseAddr("10.100.255.36"), Subnet4: netip.MustParsePrefix("10.100.255.32/27"),
		Addr6: netip.MustParseAddr("fd00:100:0:ff::4"), Subnet6: netip.MustParsePrefix("fd00:100:0:ff::/64")}
	r.host = NewAdjacency(r.over.Name, netip.MustParseAddr("10.100.255.50"))
	r.host.Resolve(&Rewrite{Out: r.over, Header: vlan.NewHeader(innerMAC, coreMAC, 0, 0, 0), VTEP: r.vtep})
	e, _ := r.endpointsOf(0)
	h, _ := e.FastPath.AddHost(r.host)
	for _, a := range []string{"10.100.1.20", "fd00:100::20"} {
		e.Set(netip.MustParseAddr(a), fastpath.Value(h))
	}
	s := *r.engine.Snapshot()
	s.Ports = []*Port{s.Ports[0], NewPort(1, "core", r.core, vlan.TPIDQ, new(PortCounters),
		[]*Subinterface{r.subs["core.200"], r.subs["core.201"], under, r.over}, nil)}
	s.VRFs = append([]VRF{}, s.VRFs...)
	group := &NextHopGroup{Kind: Forward, Members: []*Adjacency{r.host}}
	local6 := &NextHopGroup{Kind: Local}
	s.VRFs[0].FIB = s.VRFs[0].FIB.With([]fib.Change[*NextHopGroup]{
		{Prefix: netip.MustParsePrefix("10.50.0.0/16"), Value: group},
		{Prefix: netip.MustParsePrefix("10.100.255.36/32"), Value: local6},
	})
	s.VRFs = append(s.VRFs, VRF{"underlay", fib.New[*NextHopGroup]().With([]fib.Change[*NextHopGroup]{
		{Prefix: netip.PrefixFrom(l, l.BitLen()), Value: &NextHopGroup{Kind: Local}}})})
	r.engine.snap.Store(&s)
	r.worker.adopt(&s)
	r.coreWorker.adopt(&s)
	return r
}

// outer takes the outer headers off a frame that was sent, checking them.
func (r *tunnelRouter) outer(b []byte) (inner []byte) {
	r.t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	eth := p.LinkLayer().(*layers.Ethernet)
	src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
	vx, ok := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
	if !ok || port.MAC(eth.DstMAC) != vtepMAC || port.MAC(eth.SrcMAC) != coreMAC || dst.String() != r.vtep.Addr.String() || vx.VNI != testVNI {
		r.t.Fatalf("sent %v → %v: %v", src, dst, p)
	}
	if ip, v4 := p.NetworkLayer().(*layers.IPv4); v4 {
		if int(ip.Length) != len(b)-14 || !headerChecksumOK(b[14:34]) {
			r.t.Fatalf("outer header of %d octets: %+v", len(b), ip)
		}
	}
	if udp := p.TransportLayer().(*layers.UDP); int(udp.Length) != len(vx.Payload)+16 {
		r.t.Fatalf("outer UDP header of %d octets: %+v", len(b), udp)
	}
	return vx.Payload
}

var underlays = [][2]string{{"172.16.0.1", "172.16.0.2"}, {"fd01::1", "fd01::2"}}

// TestIntoTunnel: what goes to a host behind a tunnel is the packet as it would
// leave on a link, within the outer headers; by FastPath and by a route.
func TestIntoTunnel(t *testing.T) {
	for _, u := range underlays {
		r := newTunnelRouter(t, u[0], u[1])
		for _, l := range [][]gopacket.SerializableLayer{
			udp4("10.1.0.1", "10.100.1.20", 64, 100), udp4("10.1.0.1", "10.50.0.1", 64, 1472), udp6("2001:db8:1::1", "fd00:100::20", 64, 100),
		} {
			r.core.tx = nil
			if v := r.receive(frame(t, mseeMAC, tags(100), q, l...)); v != Transmit || len(r.core.tx) != 1 {
				t.Fatalf("%v, %d sent", v, len(r.core.tx))
			}
			inner := r.outer(r.core.tx[0].Bytes())
			want := rewritten(t, l, innerMAC, 0)
			want = append(want[:12:12], want[16:]...) // without the tag
			if !bytes.Equal(inner, want) {
				t.Errorf("%s: sent\n% x\nwant\n% x", u[0], inner, want)
			}
		}
		if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.20", 64, 1473)...)); v != DropTooBig {
			t.Errorf("too long by one octet: %v", v)
		}
		r.via.Resolve(nil)
		if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.50.0.1", 64, 10)...)); v != DropUnresolved {
			t.Errorf("the tunnel's other end is not resolved: %v", v)
		}
		// An endpoint whose tunnel is broken goes by the gateway.
		r.core.tx = nil
		if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.20", 64, 10)...)); v != Transmit || port.MAC(r.core.tx[0].Bytes()[:6]) != gwMAC {
			t.Errorf("an endpoint behind it: %v", v)
		}
	}
}

// TestSuperframeIntoTunnel: what leaves are the segments, each in headers of its
// own.
func TestSuperframeIntoTunnel(t *testing.T) {
	for _, u := range underlays {
		r := newTunnelRouter(t, u[0], u[1])
		const mss, payload = 1400, 5*1400 + 17
		tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 1000, ACK: true, PSH: true, Window: 1000}
		ip := &layers.IPv4{Version: 4, TTL: 64, TOS: 2, Id: 9, Protocol: layers.IPProtocolTCP, Flags: layers.IPv4DontFragment,
			SrcIP: []byte{10, 1, 0, 1}, DstIP: []byte{10, 100, 1, 20}}
		tcp.SetNetworkLayerForChecksum(ip)
		data := make([]byte, payload)
		for i := range data {
			data[i] = byte(i * 7)
		}
		super := frame(t, mseeMAC, tags(100), q, ip, tcp, gopacket.Payload(data))
		vnet := port.VNetHdr{GSOType: port.GSOTCPv4, GSOSize: mss}
		if !gso.LeaveChecksum(super, 18, &vnet) {
			t.Fatal("no TCP")
		}
		if v := r.receive(super, func(f *port.Frame) { f.VNet = vnet }); v != Transmit || len(r.core.tx) != 6 {
			t.Fatalf("%v, %d sent", v, len(r.core.tx))
		}
		var got []byte
		for i := range r.core.tx {
			f := &r.core.tx[i]
			if f.VNet.GSOType != port.GSONone || f.VNet.Flags != 0 {
				t.Errorf("segment %d: %+v", i, f.VNet)
			}
			inner := r.outer(f.Bytes())
			p := gopacket.NewPacket(inner, layers.LayerTypeEthernet, gopacket.Default)
			seg := p.TransportLayer().(*layers.TCP)
			again := bytes.Clone(inner)
			var h port.VNetHdr
			if !gso.LeaveChecksum(again, 14, &h) || !gso.CompleteChecksum(again, &h) || !bytes.Equal(again, inner) {
				t.Errorf("segment %d: checksum", i)
			}
			if seg.Seq != uint32(1000+i*mss) || p.NetworkLayer().(*layers.IPv4).TTL != 63 {
				t.Errorf("segment %d: %+v", i, seg)
			}
			if class := f.Bytes()[15]; u[0] == "172.16.0.1" && class != 2 {
				t.Errorf("segment %d: outer class %#x", i, class)
			}
			got = append(got, seg.Payload...)
		}
		if !bytes.Equal(got, data) {
			t.Error("the segments are not the superframe's payload")
		}
	}
}

// TestFragmentsIntoTunnel: a packet without DF is cut inside of the tunnel.
func TestFragmentsIntoTunnel(t *testing.T) {
	r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
	l := udp4("10.1.0.1", "10.50.0.1", 64, 2000)
	l[0].(*layers.IPv4).Flags = 0
	if v := r.receive(frame(t, mseeMAC, tags(100), q, l...)); v != Fragmented || len(r.core.tx) != 2 {
		t.Fatalf("%v, %d sent", v, len(r.core.tx))
	}
	for i := range r.core.tx {
		if inner := r.outer(r.core.tx[i].Bytes()); len(inner) > 1514 || !headerChecksumOK(inner[14:34]) {
			t.Errorf("piece of %d octets: % x", len(inner), inner[:34])
		}
	}
}

// wrapped is a frame of the host's into the tunnel, as it arrives at the core port.
func (r *tunnelRouter) wrapped(inner []byte) []byte {
	h := vxlan.NewHeader(r.vtep.Addr, r.underlay(), testVNI)
	const l3 = 14
	b := append(make([]byte, l3+h.Len()), inner...)
	h.Put(b, l3+h.Len(), len(b), 0, 1)
	copy(b, coreMAC[:])
	copy(b[6:], vtepMAC[:])
	binary.BigEndian.PutUint16(b[12:], etherTypeIPv4)
	if r.vtep.Addr.Is6() {
		binary.BigEndian.PutUint16(b[12:], etherTypeIPv6)
	}
	return b
}

func (r *tunnelRouter) underlay() netip.Addr {
	u := r.engine.Snapshot().Ports[1].dot1q[0]
	if u.Addr4.IsValid() {
		return u.Addr4
	}
	return u.Addr6
}

// fromCore is receive for the core port.
func (r *tunnelRouter) fromCore(b []byte, vnet port.VNetHdr) Verdict {
	r.t.Helper()
	c := r.engine.Snapshot().Ports[1].Counters
	var before [verdictCount]uint64
	for v := range before {
		before[v] = c.Verdicts[v].Load()
	}
	f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, VNet: vnet}
	f.End = len(f.Buf)
	r.core.rx = append(r.core.rx, f)
	r.coreWorker.step()
	got := proceed
	for v := range before {
		if n := c.Verdicts[v].Load() - before[v]; n == 1 && got == proceed {
			got = Verdict(v)
		} else if n != 0 {
			r.t.Fatalf("more than one verdict: %v and %v", got, Verdict(v))
		}
	}
	return got
}

// TestOutOfTunnel: the inner packet goes on as if the host were on a link.
func TestOutOfTunnel(t *testing.T) {
	for _, u := range underlays {
		r := newTunnelRouter(t, u[0], u[1])
		for _, l := range [][]gopacket.SerializableLayer{
			udp4("10.100.1.20", "10.1.0.1", 64, 100), udp6("fd00:100::20", "2001:db8:1::1", 64, 100),
		} {
			r.customer.tx = nil
			if v := r.fromCore(r.wrapped(frame(t, coreMAC, nil, q, l...)), port.VNetHdr{}); v != Transmit || len(r.customer.tx) != 1 {
				t.Fatalf("%v, %d sent", v, len(r.customer.tx))
			}
			want := rewritten(t, l, ceMAC, 100)
			copy(want[6:], mseeMAC[:])
			if got := r.customer.tx[0].Bytes(); !bytes.Equal(got, want) {
				t.Errorf("sent\n% x\nwant\n% x", got, want)
			}
		}
	}
}

// TestSuperframeOutOfTunnel: it leaves whole; its header speaks of the frame that
// leaves.
func TestSuperframeOutOfTunnel(t *testing.T) {
	r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
	inner := frame(t, coreMAC, nil, q, &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, Flags: layers.IPv4DontFragment,
		SrcIP: []byte{10, 100, 1, 20}, DstIP: []byte{10, 1, 0, 1}}, gopacket.Payload(append([]byte{0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0}, make([]byte, 5000)...)))
	vnet := port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1000, HdrLen: 104, CsumStart: 84, CsumOffset: 16}
	if v := r.fromCore(r.wrapped(inner), vnet); v != Transmit || len(r.customer.tx) != 1 {
		t.Fatalf("%v, %d sent", v, len(r.customer.tx))
	}
	f := r.customer.tx[0]
	if want := (port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1000, HdrLen: 58, CsumStart: 38, CsumOffset: 16}); f.VNet != want || f.Len() != len(inner)+4 {
		t.Errorf("%d octets, %+v, want %+v", f.Len(), f.VNet, want)
	}
	// An outer checksum that was left to a device is nobody's any more.
	l := udp4("10.100.1.20", "10.1.0.1", 64, 100)
	r.customer.tx = nil
	if v := r.fromCore(r.wrapped(frame(t, coreMAC, nil, q, l...)), port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: 34, CsumOffset: 6}); v != Transmit {
		t.Fatal(v)
	}
	if f := r.customer.tx[0]; f.VNet.Flags != 0 {
		t.Errorf("%+v", f.VNet)
	}
	// A train of outer datagrams is not one frame.
	if v := r.fromCore(r.wrapped(inner), port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOUDPL4, GSOSize: 1000, CsumStart: 34, CsumOffset: 6}); v != DropMalformed {
		t.Errorf("UDP GSO of the outer packet: %v", v)
	}
}

func TestTunnelDrops(t *testing.T) {
	good := frame(t, coreMAC, nil, q, udp4("10.100.1.20", "10.1.0.1", 64, 100)...)
	const ip, udp, vx, eth = 14, 34, 42, 50
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   Verdict
	}{
		{"as it is", func(b []byte) []byte { return b }, Transmit},
		{"another VNI", func(b []byte) []byte { b[vx+6]++; return b }, DropUnknownVNI},
		{"another sender", func(b []byte) []byte { b[ip+15]++; b[ip+11]--; return b }, DropForeignVTEP},
		{"UDP length", func(b []byte) []byte { b[udp+4] = 0xff; return b }, DropMalformed},
		{"no VNI", func(b []byte) []byte { b[vx] = 0; return b }, DropMalformed},
		{"another station's", func(b []byte) []byte { b[eth+5]++; return b }, DropNotForUs},
		{"a tag inside", func(b []byte) []byte { b[eth+12], b[eth+13] = 0x81, 0; return b }, DropUnknownVLAN},
		{"EAPOL inside", func(b []byte) []byte { b[eth+12], b[eth+13] = 0x88, 0x8e; return b }, DropEtherType},
		{"inner checksum", func(b []byte) []byte { b[eth+14+11]++; return b }, DropChecksum},
		{"outer checksum", func(b []byte) []byte { b[ip+11]++; return b }, DropChecksum},
		{"congestion not understood", func(b []byte) []byte { b[ip+1] = 3; b[ip+11] -= 3; return b }, DropCongested},
		{"to another port", func(b []byte) []byte { b[udp+3]++; return b }, DropPuntFailed}, // the kernel's, of which the test has none
		{"in a tunnel of its own", func(b []byte) []byte { return tunnelTwice(b) }, DropNoRoute},
	} {
		r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
		if got := r.fromCore(c.change(r.wrapped(good)), port.VNetHdr{}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
	b := r.wrapped(good)
	copy(b, mseeMAC[:])
	if got := r.receive(b); got == Transmit {
		t.Error("VXLAN from a customer was taken")
	}
}

// tunnelTwice puts a frame of the tunnel into the tunnel again.
func tunnelTwice(b []byte) []byte {
	r := &tunnelRouter{vtep: &VTEP{Addr: netip.MustParseAddr("172.16.0.2")}}
	h := vxlan.NewHeader(r.vtep.Addr, netip.MustParseAddr("172.16.0.1"), testVNI)
	out := append(make([]byte, 14+h.Len()), b...)
	h.Put(out, 14+h.Len(), len(out), 0, 1)
	copy(out, b[:14])
	return out
}

// TestLearn: what is handed to the kernel teaches where its sender is, once; and
// what the kernel says goes there, or to all where nobody knows.
func TestLearn(t *testing.T) {
	r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	r.over.Punt = NewPunt(fds[1])
	host := frame(t, coreMAC, nil, q, udp4("10.100.255.50", "10.100.255.36", 64, 10)...)
	copy(host[6:], innerMAC[:])
	for range 2 {
		if v := r.fromCore(r.wrapped(host), port.VNetHdr{}); v != PuntLocal {
			t.Fatal(v)
		}
	}
	if got := len(r.engine.learned); got != 1 {
		t.Fatalf("told %d times", got)
	}
	l := <-r.engine.Learned()
	if l != (Learned{r.over, innerMAC, r.vtep}) {
		t.Errorf("learned %+v", l)
	}
	// One who invents stations is not heard of without end.
	r.over.limits.learn = newTokenBucket(0, 3)
	for i := range 20 {
		host[6+5] = byte(100 + i)
		r.fromCore(r.wrapped(host), port.VNetHdr{})
	}
	if got := len(r.engine.learned); got != 3 {
		t.Errorf("told of %d invented stations, want 3", got)
	}
	other := NewVTEP(netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.3"), testVNI, r.via)
	tunnel := NewTunnel(testVNI, []*VTEP{r.vtep, other})
	to := func(dst port.MAC) (sent int) {
		r.core.tx = nil
		tap := tapWith(t, frame(t, dst, nil, q, udp4("10.100.255.36", "10.100.255.50", 64, 10)...))
		defer tap.Close()
		s := &Subinterface{Name: "core.v5001", Port: 1, Tunnel: tunnel, Punt: NewPunt(int(tap.Fd())), Counters: new(Counters), limits: newLimits()}
		r.coreWorker.inject(s)
		return len(r.core.tx)
	}
	if n := to(innerMAC); n != 2 {
		t.Errorf("to a station not known yet: %d frames", n)
	}
	tunnel.Place(map[port.MAC]*VTEP{innerMAC: r.vtep})
	if n := to(innerMAC); n != 1 {
		t.Errorf("to a known station: %d frames", n)
	}
	r.outer(r.core.tx[0].Bytes())
	if n := to(port.MAC{255, 255, 255, 255, 255, 255}); n != 2 {
		t.Errorf("to all stations: %d frames", n)
	}
}

// TestInjectToAll: what the kernel says to all stations goes to each end once, however
// many there are, in memory that is used again.
func TestInjectToAll(t *testing.T) {
	r := newTunnelRouter(t, "172.16.0.1", "172.16.0.2")
	const ends, frames = 100, 3
	var vteps []*VTEP
	for i := range ends {
		vteps = append(vteps, NewVTEP(netip.MustParseAddr("172.16.0.1"), netip.AddrFrom4([4]byte{172, 16, 0, byte(100 + i)}), testVNI, r.via))
	}
	s := &Subinterface{Name: "core.v5001", Port: 1, Tunnel: NewTunnel(testVNI, vteps), Counters: new(Counters)}
	kernel := r.withKernel(s)
	say := func() (said [][]byte) {
		for i := range frames {
			b := frame(t, port.MAC{255, 255, 255, 255, 255, 255}, nil, q, udp4("10.100.255.36", "10.100.255.50", 64, 100+i)...)
			unix.Write(kernel, b)
			said = append(said, b)
		}
		return said
	}
	said := say()
	r.core.tx = nil
	r.coreWorker.inject(s)
	if len(r.core.tx) != ends*frames {
		t.Fatalf("%d frames left, want %d", len(r.core.tx), ends*frames)
	}
	for i := range r.core.tx {
		f := &r.core.tx[i]
		dst := f.Bytes()[14+19]
		if inner := f.Bytes()[14+20+8+8:]; dst != byte(100+i%ends) || !bytes.Equal(inner, said[i/ends]) {
			t.Fatalf("frame %d went to the end .%d as % x, want % x", i, dst, inner, said[i/ends])
		}
	}
	memory := func() *byte { return &r.coreWorker.pieces[:1][0].Buf[0] }
	was := memory()
	say()
	r.coreWorker.inject(s)
	if memory() != was || len(r.coreWorker.pieces) != 0 {
		t.Error("the copies have other memory the second time")
	}
}

// tapWith is a descriptor from which a frame can be read, as from a TAP.
func tapWith(t *testing.T, b []byte) *os.File {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(fds[1], b)
	unix.Close(fds[1])
	return os.NewFile(uintptr(fds[0]), "tap")
}

// FuzzTunnel is FuzzForward for what comes by the underlay.
func FuzzTunnel(f *testing.F) {
	var routers []*tunnelRouter
	for _, u := range underlays {
		r := &tunnelRouter{vtep: &VTEP{Addr: netip.MustParseAddr(u[1])}}
		h := vxlan.NewHeader(r.vtep.Addr, netip.MustParseAddr(u[0]), testVNI)
		inner := frame(f, coreMAC, nil, q, udp4("10.100.1.20", "10.1.0.1", 64, 20)...)
		b := append(make([]byte, h.Len()), inner...)
		h.Put(b, h.Len(), len(b), 0, 1)
		f.Add(b, u[0] == "fd01::1", uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
		f.Add(b, u[0] == "fd01::1", uint8(1), uint8(port.GSOTCPv4), uint16(1000), uint16(84), uint16(16))
		f.Add(b, u[0] == "fd01::1", uint8(1), uint8(port.GSOUDPL4), uint16(100), uint16(84), uint16(6))
		routers = append(routers, newTunnelRouter(f, u[0], u[1]))
	}
	before := frame(f, coreMAC, tags(201), q, udp4("10.100.1.20", "10.1.0.1", 64, 20)...) // of VRF b
	f.Fuzz(func(t *testing.T, ip []byte, v6 bool, flags, gso uint8, gsoSize, csumStart, csumOffset uint16) {
		if len(ip) > port.MaxFrame-14 {
			return
		}
		r, etherType := routers[0], uint16(etherTypeIPv4)
		if v6 {
			r, etherType = routers[1], etherTypeIPv6
		}
		r.t = t
		if v := r.fromCore(before, port.VNetHdr{}); v != Transmit {
			t.Fatalf("the packet before: %v", v)
		}
		r.core.tx, r.customer.tx = nil, nil
		b := append(append(coreMAC[:], vtepMAC[:]...), byte(etherType>>8), byte(etherType))
		v := r.fromCore(append(b, ip...), port.VNetHdr{Flags: flags, GSOType: gso, GSOSize: gsoSize, CsumStart: csumStart, CsumOffset: csumOffset})
		sent := append(r.core.tx, r.customer.tx...)
		if v == Transmit && len(sent) != 1 || v != Transmit && v != Fragmented && len(sent) > 1 {
			t.Fatalf("%v, and %d frames were sent", v, len(sent))
		}
		for i, f := range sent {
			got, _, n := vlan.Parse(f.Bytes(), 0, 0)
			if f.Len() < vlan.EthLen+minIPv4 || int(f.VNet.HdrLen) > f.Len() {
				t.Fatalf("sent %+v", f)
			}
			// VRF a by the customer's 100 and the core's 200, or in a tunnel.
			if customer := i >= len(r.core.tx); customer && got.Outer != 100 || !customer && got.Outer != 200 && got != (vlan.Stack{}) {
				t.Fatalf("sent % x with tags %+v", f.Bytes(), got)
			}
			if v != Transmit && v != Fragmented {
				continue
			}
			if got == (vlan.Stack{}) {
				n = f.Inner - f.Start
			}
			inner := minIPv6
			if !v6 {
				inner = int(ip[0]&0x0f) * 4
			}
			inner += 8 + 8 + vlan.EthLen // UDP, VXLAN
			if want, got := addresses(ip[inner:]), addresses(f.Bytes()[n:]); !bytes.Equal(got, want) {
				t.Fatalf("%v: sent % x, between addresses other than % x", v, f.Bytes(), want)
			}
		}
	})
}
