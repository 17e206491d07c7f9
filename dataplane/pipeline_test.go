package dataplane

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// fakePort is a port without a device: a test puts frames into rx, and finds
// in tx what was sent.
type fakePort struct {
	mac  port.MAC
	rx   []port.Frame
	tx   []port.Frame
	full bool // refuse to send
	most int  // frames that a Recv gives; 0: as many as there is room for

	noSender error // of NewSender
}

func (p *fakePort) Name() string      { return "fake" }
func (p *fakePort) MAC() port.MAC     { return p.mac }
func (p *fakePort) FD() int           { return -1 }
func (p *fakePort) Release()          {}
func (p *fakePort) Stats() port.Stats { return port.Stats{} }
func (p *fakePort) Close() error      { return nil }
func (p *fakePort) Recv(batch []port.Frame) (int, error) {
	if p.most > 0 {
		batch = batch[:min(p.most, len(batch))]
	}
	n := copy(batch, p.rx)
	p.rx = p.rx[n:]
	return n, nil
}
func (p *fakePort) More() bool                      { return len(p.rx) > 0 }
func (p *fakePort) NewSender() (port.Sender, error) { return fakeSender{p}, p.noSender }

type fakeSender struct{ p *fakePort }

func (s fakeSender) Close() error { return nil }
func (s fakeSender) Send(frames []*port.Frame) (int, error) {
	if s.p.full {
		return 0, nil
	}
	for _, f := range frames {
		c := *f
		c.Buf = bytes.Clone(f.Buf)
		s.p.tx = append(s.p.tx, c)
	}
	return len(frames), nil
}

// The router under test: two ports, customer (Dot1Q 100 and 101, QinQ 7/9, and
// untagged) and core (Dot1Q 200), two VRFs with the same prefixes.
var testLog = slog.New(slog.DiscardHandler)

type router struct {
	t          testing.TB
	customer   *fakePort
	core       *fakePort
	worker     *Worker // of the customer port
	coreWorker *Worker
	engine     *Engine
	subs       map[string]*Subinterface
}

var (
	mseeMAC = port.MAC{2, 0, 0, 0, 0, 1}
	coreMAC = port.MAC{2, 0, 0, 0, 0, 2}
	ceMAC   = port.MAC{2, 0, 0, 0, 1, 1}
	gwMAC   = port.MAC{2, 0, 0, 0, 2, 1}
	gw2MAC  = port.MAC{2, 0, 0, 0, 2, 2}
)

func newRouter(t testing.TB, tpid uint16) *router {
	t.Helper()
	r := &router{t: t, customer: &fakePort{mac: mseeMAC}, core: &fakePort{mac: coreMAC}, subs: map[string]*Subinterface{}}
	sub := func(name string, port, vrf int, outer, inner uint16, a4, a6 string) *Subinterface {
		s := &Subinterface{Name: name, Port: port, VRF: vrf, Outer: outer, Inner: inner, MTU: 1500,
			Addr4: netip.MustParseAddr(a4), Addr6: netip.MustParseAddr(a6), Counters: new(Counters)}
		s.Subnet4, s.Subnet6 = netip.PrefixFrom(s.Addr4, 30).Masked(), netip.PrefixFrom(s.Addr6, 126).Masked()
		r.subs[name] = s
		return s
	}
	customer := []*Subinterface{
		sub("cust.100", 0, 0, 100, 0, "192.168.15.18", "2001:db8:0:10::2"),
		sub("cust.101", 0, 1, 101, 0, "192.168.15.18", "2001:db8:0:10::2"),
		sub("cust.7.9", 0, 0, 7, 9, "192.168.16.18", "2001:db8:0:20::2"),
		sub("cust", 0, 0, 0, 0, "192.168.17.18", "2001:db8:0:30::2"),
	}
	core := []*Subinterface{
		sub("core.200", 1, 0, 200, 0, "10.100.255.4", "fd00:100::4"),
		sub("core.201", 1, 1, 201, 0, "10.100.255.4", "fd00:100::4"),
	}
	customer[0].Link = netip.MustParseAddr("fe80::4")
	group := func(s *Subinterface, src port.MAC, neighbors ...port.MAC) *NextHopGroup {
		g := &NextHopGroup{Kind: Forward}
		for _, dst := range neighbors {
			a := NewAdjacency(s.Name, netip.AddrFrom4([4]byte{10, 100, 255, dst[5]}))
			a.Resolve(&Rewrite{Out: s, Header: vlan.NewHeader(dst, src, tpid, s.Outer, s.Inner)})
			g.Members = append(g.Members, a)
		}
		return g
	}
	table := func(routes map[string]*NextHopGroup) *fib.Table[*NextHopGroup] {
		var changes []fib.Change[*NextHopGroup]
		for p, g := range routes {
			changes = append(changes, fib.Change[*NextHopGroup]{Prefix: netip.MustParsePrefix(p), Value: g})
		}
		return fib.New[*NextHopGroup]().With(changes)
	}
	toCE := group(customer[0], mseeMAC, ceMAC)
	toCE2 := group(customer[1], mseeMAC, ceMAC)
	toGW := group(core[0], coreMAC, gwMAC)
	toBoth := group(core[0], coreMAC, gwMAC, gw2MAC)
	local := &NextHopGroup{Kind: Local}
	dark := &NextHopGroup{Kind: Forward, Members: []*Adjacency{NewAdjacency("core.200", netip.MustParseAddr("10.100.255.14"))}}
	snap := &Snapshot{
		Ports: []*Port{
			NewPort(0, "cust", r.customer, tpid, new(PortCounters), customer, nil),
			NewPort(1, "core", r.core, tpid, new(PortCounters), core, nil),
		},
		VRFs: []VRF{
			{"a", table(map[string]*NextHopGroup{
				"10.1.0.0/16": toCE, "2001:db8:1::/48": toCE, "192.168.15.16/30": toCE, "fe80::4/128": local,
				"10.100.0.0/16": toGW, "fd00:100::/48": toGW, "10.200.0.0/16": toBoth,
				"192.168.15.18/32": local, "2001:db8:0:10::2/128": local,
				"10.66.0.0/16": {Kind: Blackhole}, "10.67.0.0/16": dark,
				"10.100.255.0/27": {Kind: Glean, Out: core[0]},
			})},
			{"b", table(map[string]*NextHopGroup{
				"10.1.0.0/16": toCE2, "10.100.0.0/16": group(core[1], coreMAC, gw2MAC),
			})},
		},
	}
	r.engine = NewEngine(testLog)
	r.engine.snap.Store(snap)
	r.worker = testWorker(t, r.engine, 0, r.customer)
	r.coreWorker = testWorker(t, r.engine, 1, r.core)
	return r
}

func (r *router) counters() *PortCounters { return r.engine.Snapshot().Ports[0].Counters }

// sumUp is after a change to a subinterface, which an edge never makes: it makes
// new ones.
func (r *router) sumUp() {
	snap := *r.engine.Snapshot()
	for _, p := range snap.Ports {
		p.sumUp()
	}
	r.engine.snap.Store(&snap)
}

// receive runs one frame, given without headroom, through the customer port's
// worker, and returns its verdict.
func (r *router) receive(b []byte, edit ...func(*port.Frame)) Verdict {
	r.t.Helper()
	return r.receiveAt(r.worker, b, edit...)
}

func (r *router) receiveAt(w *Worker, b []byte, edit ...func(*port.Frame)) Verdict {
	r.t.Helper()
	in, counters := w.device.(*fakePort), r.engine.Snapshot().Ports[w.index].Counters
	f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom}
	f.End = len(f.Buf)
	for _, e := range edit {
		e(&f)
	}
	var before [verdictCount]uint64
	for v := range before {
		before[v] = counters.Verdicts[v].Load()
	}
	in.rx = append(in.rx, f)
	w.step()
	got := proceed
	for v := range before {
		switch n := counters.Verdicts[v].Load() - before[v]; {
		case n == 1 && got == proceed:
			got = Verdict(v)
		case n != 0:
			r.t.Fatalf("one frame was given more than one verdict: %v and %v", got, Verdict(v))
		}
	}
	return got
}

// frame composes a frame from the customer; l begins behind Ethernet and tags.
func frame(t testing.TB, dst port.MAC, tags []layers.Dot1Q, outerTPID layers.EthernetType, payload ...gopacket.SerializableLayer) []byte {
	t.Helper()
	etherType := layers.EthernetTypeIPv4
	if _, v6 := payload[0].(*layers.IPv6); v6 {
		etherType = layers.EthernetTypeIPv6
	}
	l := []gopacket.SerializableLayer{}
	eth := &layers.Ethernet{SrcMAC: ceMAC[:], DstMAC: dst[:], EthernetType: etherType}
	l = append(l, eth)
	for i := range tags {
		tags[i].Type = etherType
		if i == 0 {
			eth.EthernetType = outerTPID
		} else {
			tags[i-1].Type = layers.EthernetTypeDot1Q
		}
		l = append(l, &tags[i])
	}
	b, err := serialize(append(l, payload...)...)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}

func udp4(src, dst string, ttl uint8, size int) []gopacket.SerializableLayer {
	ip := &layers.IPv4{Version: 4, TTL: ttl, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst), Flags: layers.IPv4DontFragment}
	u := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	u.SetNetworkLayerForChecksum(ip)
	return []gopacket.SerializableLayer{ip, u, gopacket.Payload(make([]byte, size))}
}

func udp6(src, dst string, hops uint8, size int) []gopacket.SerializableLayer {
	ip := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
	u := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	u.SetNetworkLayerForChecksum(ip)
	return []gopacket.SerializableLayer{ip, u, gopacket.Payload(make([]byte, size))}
}

func tags(ids ...uint16) []layers.Dot1Q {
	var t []layers.Dot1Q
	for _, id := range ids {
		t = append(t, layers.Dot1Q{VLANIdentifier: id})
	}
	return t
}

const q = layers.EthernetTypeDot1Q

func TestForward(t *testing.T) {
	tests := []struct {
		name  string
		tags  []layers.Dot1Q
		l     []gopacket.SerializableLayer
		outer uint16
		dst   port.MAC
	}{
		{"dot1q v4", tags(100), udp4("10.1.0.1", "10.100.1.1", 64, 100), 200, gwMAC},
		{"dot1q v6", tags(100), udp6("2001:db8:1::1", "fd00:100::99", 64, 100), 200, gwMAC},
		{"other VRF, same addresses", tags(101), udp4("10.1.0.1", "10.100.1.1", 64, 100), 201, gw2MAC},
		{"qinq", tags(7, 9), udp4("10.1.0.1", "10.100.1.1", 64, 100), 200, gwMAC},
		{"untagged", nil, udp4("10.1.0.1", "10.100.1.1", 64, 100), 200, gwMAC},
		{"priority-tagged", tags(0), udp4("10.1.0.1", "10.100.1.1", 64, 100), 200, gwMAC},
		{"TTL 2 is enough", tags(100), udp4("10.1.0.1", "10.100.1.1", 2, 100), 200, gwMAC},
		{"exactly the MTU", tags(100), udp4("10.1.0.1", "10.100.1.1", 2, 1472), 200, gwMAC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, vlan.TPIDQ)
			in := frame(t, mseeMAC, tt.tags, q, tt.l...)
			if v := r.receive(in); v != Transmit {
				t.Fatalf("verdict %v", v)
			}
			if len(r.core.tx) != 1 {
				t.Fatalf("%d frames sent", len(r.core.tx))
			}
			out := r.core.tx[0].Bytes()
			want := rewritten(t, tt.l, tt.dst, tt.outer)
			if !bytes.Equal(out, want) {
				t.Errorf("sent\n% x\nwant\n% x", out, want)
			}
		})
	}
}

// rewritten is what must leave: one hop less, new MACs, the core's tag. The
// whole frame is composed anew by gopacket, checksums included.
func rewritten(t *testing.T, l []gopacket.SerializableLayer, dst port.MAC, outer uint16) []byte {
	switch ip := l[0].(type) {
	case *layers.IPv4:
		ip.TTL--
	case *layers.IPv6:
		ip.HopLimit--
	}
	b := frame(t, dst, tags(outer), q, l...)
	copy(b[6:], coreMAC[:])
	return b
}

// TestNothingStaysOfThePacketBefore: what the steps know of packets is kept in memory
// that is used again; none must go the way of one before, of another customer perhaps.
func TestNothingStaysOfThePacketBefore(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	before := func() []byte { return frame(t, mseeMAC, tags(101), q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...) }
	for _, tt := range []struct {
		name string
		l    []gopacket.SerializableLayer
		want Verdict
	}{
		{"IPv6 without a route", udp6("2001:db8:1::1", "2001:db8:ffff::1", 64, 100), DropNoRoute},
		{"IPv4 without a route", udp4("10.1.0.1", "172.16.0.1", 64, 100), DropNoRoute},
		{"IPv6 to us", udp6("2001:db8:1::1", "2001:db8:0:10::2", 64, 100), DropPuntFailed},
	} {
		if v := r.receive(before()); v != Transmit {
			t.Fatal(v)
		}
		r.core.tx = nil
		if v := r.receive(frame(t, mseeMAC, tags(100), q, tt.l...)); v != tt.want || len(r.core.tx) != 0 {
			t.Errorf("%s: %v, %d sent to the core; want %v", tt.name, v, len(r.core.tx), tt.want)
		}
	}
}

func TestHiddenTagAndTPID(t *testing.T) {
	r := newRouter(t, vlan.TPIDAD)
	l := udp4("10.1.0.1", "10.100.1.1", 64, 10)
	hide := func(tpid, tci uint16) func(*port.Frame) {
		return func(f *port.Frame) { f.OuterTPID, f.OuterTCI = tpid, tci }
	}
	if v := r.receive(frame(t, mseeMAC, nil, q, l...), hide(vlan.TPIDAD, 0x2000|100)); v != Transmit {
		t.Errorf("S-tag in metadata: %v", v)
	}
	if v := r.receive(frame(t, mseeMAC, tags(9), q, l...), hide(vlan.TPIDAD, 7)); v != Transmit {
		t.Errorf("S-tag in metadata, C-tag inline: %v", v)
	}
	if v := r.receive(frame(t, mseeMAC, nil, q, l...), hide(vlan.TPIDQ, 100)); v != DropUnknownVLAN {
		t.Errorf("0x8100 on a port with 0x88a8: %v", v)
	}
	if v := r.receive(frame(t, mseeMAC, tags(7, 9), layers.EthernetTypeQinQ, l...)); v != Transmit {
		t.Errorf("both inline: %v", v)
	}
	out, _, _ := vlan.Parse(r.core.tx[0].Bytes(), 0, 0)
	if out.OuterTPID != vlan.TPIDAD || out.Outer != 200 {
		t.Errorf("left with %+v", out)
	}
}

func TestDrops(t *testing.T) {
	ok := func() []gopacket.SerializableLayer { return udp4("10.1.0.1", "10.100.1.1", 64, 20) }
	edit := func(f func(b []byte)) []byte {
		b := frame(t, mseeMAC, tags(100), q, ok()...)
		f(b)
		return b
	}
	const ip = 18
	tests := []struct {
		name string
		b    []byte
		want Verdict
	}{
		{"runt", make([]byte, 13), DropRunt},
		{"runt with half a tag", edit(func([]byte) {})[:16], DropRunt},
		{"another station's", frame(t, gwMAC, tags(100), q, ok()...), DropNotForUs},
		{"broadcast IPv4", frame(t, port.MAC{255, 255, 255, 255, 255, 255}, tags(100), q, ok()...), DropNotForUs},
		{"unknown VLAN", frame(t, mseeMAC, tags(99), q, ok()...), DropUnknownVLAN},
		{"unknown C-tag", frame(t, mseeMAC, tags(7, 8), q, ok()...), DropUnknownVLAN},
		{"two tags where one is due", frame(t, mseeMAC, tags(100, 1), q, ok()...), DropUnknownVLAN},
		{"wrong TPID", frame(t, mseeMAC, tags(100), layers.EthernetTypeQinQ, ok()...), DropUnknownVLAN},
		{"EAPOL without a KaY", frame802dot1X(port.MAC{1, 0x80, 0xc2, 0, 0, 3}), DropEtherType},
		{"EtherType", edit(func(b []byte) { b[16], b[17] = 0x88, 0xcc }), DropEtherType},
		{"version", edit(func(b []byte) { b[ip] = 0x65 }), DropMalformed},
		{"header length", edit(func(b []byte) { b[ip] = 0x44 }), DropMalformed},
		{"header longer than the packet", edit(func(b []byte) { b[ip] = 0x4f; b[ip+3] = 24; b[ip+2] = 0 }), DropMalformed},
		{"total length", edit(func(b []byte) { b[ip+2] = 0xff }), DropMalformed},
		{"checksum", edit(func(b []byte) { b[ip+10]++ }), DropChecksum},
		{"IPv6 too short", frame(t, mseeMAC, tags(100), q, udp6("2001:db8:1::1", "fd00:100::99", 64, 0)...)[:50], DropMalformed},
		{"source multicast", frame(t, mseeMAC, tags(100), q, udp4("224.0.0.1", "10.100.1.1", 64, 0)...), DropMartian},
		{"destination loopback", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "127.0.0.1", 64, 0)...), DropMartian},
		{"source loopback v6", frame(t, mseeMAC, tags(100), q, udp6("::1", "fd00:100::99", 64, 0)...), DropMartian},
		{"source v4-mapped", frame(t, mseeMAC, tags(100), q, udp6("::ffff:10.1.0.1", "fd00:100::99", 64, 0)...), DropMartian},
		{"source link-local", frame(t, mseeMAC, tags(100), q, udp6("fe80::1", "fd00:100::99", 64, 0)...), DropMartian},
		{"no route", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "172.16.0.1", 64, 0)...), DropNoRoute},
		{"blackhole", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.66.0.1", 64, 0)...), DropBlackhole},
		{"unresolved", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.67.0.1", 64, 0)...), DropUnresolved},
		{"glean, no TAP", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.255.20", 64, 0)...), DropPuntFailed},
		{"TTL 1", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 1, 0)...), DropTTL},
		{"TTL 0", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 0, 0)...), DropTTL},
		{"hop limit 1", frame(t, mseeMAC, tags(100), q, udp6("2001:db8:1::1", "fd00:100::99", 1, 0)...), DropTTL},
		{"too big", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 1473)...), DropTooBig},
		{"ours, no TAP", frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "192.168.15.18", 1, 0)...), DropPuntFailed},
	}
	r := newRouter(t, vlan.TPIDQ)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			if got := r.receive(tt.b); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if len(r.core.tx) != 0 {
		t.Errorf("%d frames left by the core port", len(r.core.tx))
	}
	if got := r.receive(edit(func([]byte) {}), func(f *port.Frame) { f.Truncated = true }); got != DropTruncated {
		t.Errorf("truncated: %v", got)
	}
	r.core.full = true
	if got := r.receive(edit(func([]byte) {})); got != DropEgressFull {
		t.Errorf("egress full: %v", got)
	}
	r.checkSum(uint64(len(tests)) + 2)
}

// checkSum verifies that verdicts add up to frames.
func (r *router) checkSum(want uint64) {
	r.t.Helper()
	var total uint64
	for _, v := range Verdicts() {
		total += r.counters().Verdicts[v].Load()
	}
	if rx := r.counters().RxFrames.Load(); total != rx || rx != want {
		r.t.Errorf("received %d, verdicts %d, want %d", rx, total, want)
	}
	if n := r.counters().Verdicts[proceed].Load(); n != 0 {
		r.t.Errorf("%d frames without a verdict", n)
	}
}

func TestPaddingIsCut(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	in := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 1)...)
	r.receive(in) // gopacket has padded it to 60 octets
	if got, want := r.core.tx[0].Len(), 18+20+8+1; got != want {
		t.Errorf("left with %d octets, want %d", got, want)
	}
}

func TestResolutionIsAskedForOnce(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	for range 5 {
		r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.67.0.20", 64, 0)...))
	}
	if n := len(r.engine.Unresolved()); n != 1 {
		t.Fatalf("%d questions", n)
	}
	if a := <-r.engine.Unresolved(); a.Addr.String() != "10.100.255.14" {
		t.Errorf("asked for %v", a.Addr)
	}
}

func TestECMPKeepsFlowsTogether(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	const flows = 200
	byFlow := map[byte]port.MAC{}
	used := map[port.MAC]int{}
	for round := range 3 {
		for i := range byte(flows) {
			r.core.tx = nil
			r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", net.IPv4(10, 200, 0, i).String(), 64, 0)...))
			dst := port.MAC(r.core.tx[0].Bytes()[:6])
			if round == 0 {
				byFlow[i] = dst
				used[dst]++
			} else if byFlow[i] != dst {
				t.Fatalf("flow %d moved from %x to %x", i, byFlow[i], dst)
			}
		}
	}
	for _, mac := range []port.MAC{gwMAC, gw2MAC} {
		if n := used[mac]; n < flows/4 {
			t.Errorf("%x carries %d of %d flows", mac, n, flows)
		}
	}
}

// superframe makes a TCP superframe as a kernel hands it out: partial
// checksum, a virtio-net header, a hidden tag.
func superframe(t *testing.T, v6 bool, payload, mss int, flags uint8) ([]byte, func(*port.Frame)) {
	tcp := &layers.TCP{SrcPort: 1000, DstPort: 5201, ACK: true, Window: 100}
	var b []byte
	gso := uint8(port.GSOTCPv4)
	l4 := 14 + 20
	if v6 {
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP("2001:db8:1::1"), DstIP: net.ParseIP("fd00:100::99")}
		tcp.SetNetworkLayerForChecksum(ip)
		b = frame(t, mseeMAC, nil, q, ip, tcp, gopacket.Payload(make([]byte, payload)))
		gso, l4 = port.GSOTCPv6, 14+40
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP("10.1.0.1"), DstIP: net.ParseIP("10.100.1.1"), Flags: layers.IPv4DontFragment}
		tcp.SetNetworkLayerForChecksum(ip)
		b = frame(t, mseeMAC, nil, q, ip, tcp, gopacket.Payload(make([]byte, payload)))
	}
	return b, func(f *port.Frame) {
		f.OuterTPID, f.OuterTCI = vlan.TPIDQ, 100
		f.VNet = port.VNetHdr{Flags: flags, GSOType: gso, HdrLen: 60000, GSOSize: uint16(mss)}
		if flags&port.VNetNeedsCsum != 0 {
			f.VNet.CsumStart, f.VNet.CsumOffset = uint16(l4), 16
		}
	}
}

func TestSuperframePassesUnsplit(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, flags := range []uint8{port.VNetNeedsCsum, port.VNetDataValid} {
			r := newRouter(t, vlan.TPIDQ)
			mss, headers := 1460, 40
			if v6 {
				mss, headers = 1440, 60
			}
			b, meta := superframe(t, v6, 50000, mss, flags)
			whole := bytes.Clone(b) // with its full checksum
			if v := r.receive(b, meta); v != Transmit {
				t.Fatalf("v6 %v flags %d: %v", v6, flags, v)
			}
			f := &r.core.tx[0]
			if f.Len() != len(b)+vlan.TagLen {
				t.Errorf("left with %d octets of %d", f.Len(), len(b))
			}
			want := port.VNetHdr{Flags: flags | port.VNetNeedsCsum, GSOType: f.VNet.GSOType, GSOSize: uint16(mss),
				HdrLen: uint16(18 + headers), CsumStart: uint16(18 + headers - 20), CsumOffset: 16}
			if f.VNet != want {
				t.Errorf("v6 %v: virtio header %+v, want %+v", v6, f.VNet, want)
			}
			if flags == port.VNetDataValid {
				// Completing what startChecksum has begun must give the checksum
				// that gopacket computed over the whole.
				p := packet{Frame: f, l3: f.Start + 18}
				if !completeChecksum(&p) {
					t.Fatal("checksum out of range")
				}
				at := headers - 20 + 16
				if got, want := f.Bytes()[18+at:18+at+2], whole[14+at:14+at+2]; !bytes.Equal(got, want) {
					t.Errorf("v6 %v: checksum % x, want % x", v6, got, want)
				}
			}
		}
	}
}

func TestSuperframeSegmentsMustFit(t *testing.T) {
	for mss, want := range map[int]Verdict{1460: Transmit, 1461: DropTooBig, 0: DropMalformed, 9: DropMalformed, 10: Transmit} {
		r := newRouter(t, vlan.TPIDQ)
		b, meta := superframe(t, false, 20000, mss, port.VNetNeedsCsum)
		if got := r.receive(b, meta); got != want {
			t.Errorf("gso_size %d: %v, want %v", mss, got, want)
		}
	}
}

func TestHostileVNetHeader(t *testing.T) {
	for _, h := range []port.VNetHdr{
		{Flags: 1, GSOType: port.GSOTCPv4, GSOSize: 100, CsumStart: 65535, CsumOffset: 65535},
		{Flags: 1, GSOType: port.GSOTCPv4, GSOSize: 100, CsumStart: 0},
		{Flags: 1, GSOType: port.GSOTCPv4, GSOSize: 100, CsumStart: 70},
		{Flags: 0, GSOType: port.GSOUDPL4, GSOSize: 65535},
		{Flags: 0, GSOType: 77, GSOSize: 1},
	} {
		r := newRouter(t, vlan.TPIDQ)
		b := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 20)...)
		r.receive(b, func(f *port.Frame) { f.VNet = h }) // must not panic
		r.checkSum(1)
	}
}

func TestICMPErrors(t *testing.T) {
	tests := []struct {
		name     string
		l        []gopacket.SerializableLayer
		from     string
		typ      uint8
		code     uint8
		mtu      uint16
		quotedIP string
	}{
		{"time exceeded", udp4("10.1.0.1", "10.100.1.1", 1, 0), "192.168.15.18", 11, 0, 0, "10.100.1.1"},
		{"no route", udp4("10.1.0.1", "172.16.0.1", 64, 0), "192.168.15.18", 3, 0, 0, "172.16.0.1"},
		{"fragmentation needed", udp4("10.1.0.1", "10.100.1.1", 64, 2000), "192.168.15.18", 3, 4, 1500, "10.100.1.1"},
		{"hop limit", udp6("2001:db8:1::1", "fd00:100::99", 1, 0), "2001:db8:0:10::2", 3, 0, 0, "fd00:100::99"},
		{"no route v6", udp6("2001:db8:1::1", "2001:db8:ffff::1", 64, 0), "2001:db8:0:10::2", 1, 0, 0, "2001:db8:ffff::1"},
		{"packet too big", udp6("2001:db8:1::1", "fd00:100::99", 64, 2000), "2001:db8:0:10::2", 2, 0, 1500, "fd00:100::99"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, vlan.TPIDQ)
			r.receive(frame(t, mseeMAC, tags(100), q, tt.l...))
			if len(r.customer.tx) != 1 {
				t.Fatalf("%d replies", len(r.customer.tx))
			}
			pkt := gopacket.NewPacket(r.customer.tx[0].Bytes(), layers.LayerTypeEthernet, gopacket.Default)
			if err := pkt.ErrorLayer(); err != nil {
				t.Fatal(err.Error())
			}
			if eth := pkt.Layer(layers.LayerTypeEthernet).(*layers.Ethernet); port.MAC(eth.DstMAC) != ceMAC {
				t.Errorf("sent to %v", eth.DstMAC)
			}
			if tag := pkt.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); tag.VLANIdentifier != 100 {
				t.Errorf("sent on VLAN %d", tag.VLANIdentifier)
			}
			if src := pkt.NetworkLayer().NetworkFlow().Src().String(); src != tt.from {
				t.Errorf("from %s, want %s", src, tt.from)
			}
			var quoted []byte
			switch icmp := pkt.Layers()[3].(type) {
			case *layers.ICMPv4:
				if icmp.TypeCode.Type() != tt.typ || icmp.TypeCode.Code() != tt.code || icmp.Seq != tt.mtu {
					t.Errorf("got %v, next-hop MTU %d", icmp.TypeCode, icmp.Seq)
				}
				quoted = icmp.Payload
				if got := net.IP(quoted[16:20]).String(); got != tt.quotedIP {
					t.Errorf("quotes a packet to %s", got)
				}
			case *layers.ICMPv6:
				if icmp.TypeCode.Type() != tt.typ || icmp.TypeCode.Code() != tt.code {
					t.Errorf("got %v", icmp.TypeCode)
				}
				if mtu := binary.BigEndian.Uint32(icmp.Payload); mtu != uint32(tt.mtu) {
					t.Errorf("MTU %d", mtu)
				}
				quoted = icmp.Payload[4:]
				if got := net.IP(quoted[24:40]).String(); got != tt.quotedIP {
					t.Errorf("quotes a packet to %s", got)
				}
			}
			r.checkSum(1)
			if n := r.subs["cust.100"].Counters.Generated.Load(); n != 1 {
				t.Errorf("generated %d", n)
			}
		})
	}
}

func TestNoErrorsAboutErrors(t *testing.T) {
	ip := func() *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolICMPv4, SrcIP: net.ParseIP("10.1.0.1"), DstIP: net.ParseIP("10.100.1.1")}
	}
	fragment := ip()
	fragment.FragOffset, fragment.Protocol = 100, layers.IPProtocolUDP
	behind := func(extensions int) []gopacket.SerializableLayer {
		ip := &layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolIPv6Destination, SrcIP: net.ParseIP("2001:db8:1::1"), DstIP: net.ParseIP("fd00:100::99")}
		b := bytes.Repeat([]byte{protoDestination, 0, 1, 4, 0, 0, 0, 0}, extensions)
		b[len(b)-8] = protoICMPv6
		return []gopacket.SerializableLayer{ip, gopacket.Payload(append(b, 3, 0, 0, 0, 0, 0, 0, 0))} // time exceeded
	}
	r := newRouter(t, vlan.TPIDQ)
	for name, l := range map[string][]gopacket.SerializableLayer{
		"about time exceeded":                   {ip(), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}},
		"about a redirect":                      {ip(), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(5, 0)}},
		"about a later piece":                   {fragment, gopacket.Payload(make([]byte, 8))},
		"about nothing inside":                  {ip()},
		"about one behind an extension header":  behind(1),
		"about one behind more than are walked": behind(maxExtensions + 1),
	} {
		r.receive(frame(t, mseeMAC, tags(100), q, l...))
		if len(r.customer.tx) != 0 {
			t.Errorf("an error %s was sent", name)
			r.customer.tx = nil
		}
	}
}

func TestICMPRateLimit(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	count := func(frames int, source func(i int) string) int {
		t.Helper()
		r.customer.tx = nil
		for i := range frames {
			r.receive(frame(t, mseeMAC, tags(100), q, udp4(source(i), "10.100.1.1", 1, 0)...))
		}
		return len(r.customer.tx)
	}
	// The clock is real here: allow what a slow machine earns meanwhile.
	if n := count(200, func(int) string { return "10.1.0.1" }); n < icmpSourceBurst || n >= 150 {
		t.Errorf("%d errors for 200 packets of one source, burst %d", n, icmpSourceBurst)
	}
	if n := count(1, func(int) string { return "10.1.0.2" }); n != 1 {
		t.Errorf("%d errors for the first packet of another source", n)
	}
	many := func(i int) string { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String() }
	if n := count(1000, many); n >= 900 {
		t.Errorf("%d errors for 1000 packets of many sources, rate %d/s", n, icmpPerSecond)
	}
}

func TestUpperLayer6(t *testing.T) {
	header := func(next byte, rest ...byte) []byte {
		return append(append(make([]byte, 6), next), append(make([]byte, 33), rest...)...)
	}
	long := header(protoDestination)
	for range 20 {
		long = append(long, protoDestination, 0, 0, 0, 0, 0, 0, 0)
	}
	for name, tt := range map[string]struct {
		p     []byte
		proto byte
		at    int
		whole bool
	}{
		"none":             {header(protoUDP, 1, 2, 3, 4, 5, 6, 7, 8), protoUDP, 40, true},
		"hop by hop":       {header(protoHopByHop, protoTCP, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8), protoTCP, 48, true},
		"routing of 24":    {header(protoRouting, append([]byte{protoUDP, 2}, make([]byte, 30)...)...), protoUDP, 64, true},
		"AH of 24":         {header(protoAH, append([]byte{protoUDP, 4}, make([]byte, 30)...)...), protoUDP, 64, true},
		"fragment":         {header(protoFragment, protoUDP, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8), protoUDP, 48, false},
		"cut":              {header(protoDestination, protoUDP, 0), protoDestination, 40, true},
		"longer than it":   {header(protoHopByHop, protoUDP, 255, 0, 0, 0, 0, 0, 0), protoUDP, 40 + 2048, true},
		"too many headers": {long, protoDestination, 40 + 8*maxExtensions, true},
	} {
		if proto, at, whole := upperLayer6(tt.p); proto != tt.proto || at != tt.at || whole != tt.whole {
			t.Errorf("%s: protocol %d at %d, whole %v; want %d, %d, %v", name, proto, at, whole, tt.proto, tt.at, tt.whole)
		}
		flowHash(tt.p, true) // reads within the packet, or panics
	}
}

// TestFlowHash6 tells flows apart by the ports behind extension headers, and
// keeps fragments together.
func TestFlowHash6(t *testing.T) {
	packet := func(fragment bool, port byte) []byte {
		p := append(make([]byte, 40), protoUDP, 0, 0, 0, 0, 0, 0, 0, 0, port, 0, 9, 0, 8, 0, 0)
		if p[6] = protoHopByHop; fragment {
			p[6] = protoFragment
		}
		return p
	}
	if flowHash(packet(false, 1), true) == flowHash(packet(false, 2), true) {
		t.Error("ports behind a hop-by-hop header do not count")
	}
	if flowHash(packet(true, 1), true) != flowHash(packet(true, 2), true) {
		t.Error("two fragments of one packet go different ways")
	}
	labelled := func(p []byte, label byte) []byte {
		p[3] = label
		return p
	}
	if flowHash(labelled(packet(true, 1), 1), true) == flowHash(labelled(packet(true, 1), 2), true) {
		t.Error("the flow label of fragments does not count")
	}
	if flowHash(labelled(packet(false, 1), 1), true) != flowHash(labelled(packet(false, 1), 2), true) {
		t.Error("a changed flow label moves a flow that has ports")
	}
}

func TestForwardDoesNotAllocate(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	in := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.200.1.1", 64, 20)...)
	frames := make([]port.Frame, vector)
	for i := range frames {
		frames[i].Buf = append(make([]byte, port.Headroom), in...)
	}
	w := r.worker
	w.adopt(r.engine.Snapshot())
	allocs := testing.AllocsPerRun(1000, func() {
		for i := range frames {
			f := &frames[i]
			f.Start, f.End = port.Headroom, len(f.Buf)
			copy(f.Buf[f.Start:], in)
		}
		w.forward(frames)
		if n := len(w.egress[1].frames); n != len(frames) {
			t.Fatalf("%d of %d frames are in line", n, len(frames))
		}
		w.egress[1].frames = w.egress[1].frames[:0]
	})
	if allocs != 0 {
		t.Errorf("%v allocations per frame", allocs)
	}
}

// FuzzForward: whatever comes, and whatever of another customer's came before it,
// leaves on its own VRF's subinterfaces alone, between the same addresses.
func FuzzForward(f *testing.F) {
	f.Add(frame(f, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 20)...), uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
	f.Add(frame(f, mseeMAC, tags(101), q, udp4("10.1.0.1", "10.100.1.1", 64, 20)...), uint8(0), uint8(0), uint16(0), uint16(0), uint16(0))
	f.Add(frame(f, mseeMAC, tags(100), q, udp6("2001:db8:1::1", "fd00:100::99", 1, 20)...), uint8(1), uint8(port.GSOTCPv6), uint16(1440), uint16(54), uint16(16))
	f.Add(frame(f, mseeMAC, tags(7, 9), q, udp4("10.1.0.1", "172.16.0.1", 64, 20)...), uint8(2), uint8(port.GSOUDPL4), uint16(100), uint16(34), uint16(6))
	r := newRouter(f, vlan.TPIDQ)
	before := [][]byte{ // of VRF b, for those of VRF a, and the other way about
		frame(f, mseeMAC, tags(101), q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...),
		frame(f, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 100)...),
	}
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, gsoSize, csumStart, csumOffset uint16) {
		if len(b) > port.MaxFrame {
			return
		}
		r.t = t
		inTags, _, l3 := vlan.Parse(b, 0, 0)
		in := r.engine.Snapshot().Ports[0].subinterface(inTags)
		vrf := 0
		if l3 > 0 && in != nil {
			vrf = in.VRF
		}
		received := r.counters().RxFrames.Load()
		if v := r.receive(before[vrf]); v != Transmit {
			t.Fatalf("the packet before: %v", v)
		}
		r.core.tx, r.customer.tx = nil, nil
		v := r.receive(b, func(f *port.Frame) {
			f.VNet = port.VNetHdr{Flags: flags, GSOType: gso, GSOSize: gsoSize, CsumStart: csumStart, CsumOffset: csumOffset}
		})
		r.checkSum(received + 2)
		sent := append(r.core.tx, r.customer.tx...)
		if v == Transmit && len(sent) != 1 || v != Transmit && v != Fragmented && len(sent) > 1 {
			t.Fatalf("%v, and %d frames were sent", v, len(sent))
		}
		for i, f := range sent {
			outer := []uint16{200, 201}[vrf]
			if i >= len(r.core.tx) {
				outer = []uint16{100, 101}[vrf]
			}
			sentTags, etherType, n := vlan.Parse(f.Bytes(), 0, 0)
			if f.Len() < vlan.EthLen+minIPv4 || int(f.VNet.HdrLen) > f.Len() || sentTags != (vlan.Stack{OuterTPID: vlan.TPIDQ, Outer: outer}) {
				t.Fatalf("sent %+v with tags %+v of VRF %d", f, sentTags, vrf)
			}
			if v == Transmit || v == Fragmented {
				if want, got := addresses(b[l3:]), addresses(f.Bytes()[n:]); !bytes.Equal(got, want) {
					t.Fatalf("%v: sent % x, between addresses other than % x", v, f.Bytes(), want)
				}
			} else if !ownError(f.Bytes()[n:], etherType, in) {
				t.Fatalf("%v, but % x was sent", v, f.Bytes())
			}
		}
	})
}

// addresses are the source and destination of an IP packet.
func addresses(ip []byte) []byte {
	if ip[0]>>4 == 6 {
		return ip[8:40]
	}
	return ip[12:20]
}

// ownError says whether an IP packet is an ICMP error from a subinterface's address.
func ownError(ip []byte, etherType uint16, in *Subinterface) bool {
	from, icmp := in.Addr4, ip[9] == protoICMP
	if etherType == etherTypeIPv6 {
		from, icmp = in.Addr6, ip[6] == protoICMPv6
	}
	a := addresses(ip)
	return icmp && bytes.Equal(a[:len(a)/2], from.AsSlice())
}

// TestTaggedAsBefore: a frame's subinterface is that of its tags, whatever came
// before it.
func TestTaggedAsBefore(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	w := r.worker
	w.adopt(r.engine.Snapshot())
	random := rand.New(rand.NewPCG(3, 1))
	ids := []uint16{0, 10, 100, 101, 0x2064} // the last is 100 with a priority
	types := []uint16{etherTypeIPv4, etherTypeIPv6, etherTypeARP, vlan.TPIDQ, vlan.TPIDAD}
	matched := 0
	for range 20_000 {
		f := port.Frame{Buf: make([]byte, 64)}
		b := f.Buf
		f.End = []int{64, 64, 64, 13, 14, 17, 18, 19, 22}[random.IntN(9)]
		if random.IntN(2) == 0 {
			f.OuterTPID, f.OuterTCI = types[3+random.IntN(2)], ids[random.IntN(len(ids))]
		}
		for at := 12; at < 24; at += 4 {
			binary.BigEndian.PutUint16(b[at:], types[random.IntN(len(types))])
			binary.BigEndian.PutUint16(b[at+2:], ids[random.IntN(len(ids))])
		}
		for range 1 + random.IntN(2) { // the second is tagged as the first
			p := packet{Frame: &f}
			p.readTags()
			if w.tagged.as(&p) {
				matched++
			}
			ps := []packet{p}
			w.demux(ps)
			tags, etherType, length := vlan.Parse(f.Bytes(), f.OuterTPID, f.OuterTCI)
			in, p := w.port.subinterface(tags), ps[0]
			if length == 0 || in == nil {
				if p.verdict == proceed {
					t.Fatalf("% x with outer %#x %#x passes", b[12:f.End], f.OuterTPID, f.OuterTCI)
				}
				continue
			}
			if p.in != in || p.etherType != etherType || p.l3 != length {
				t.Fatalf("% x with outer %#x %#x: %s, type %#x at %d, want %s, %#x at %d",
					b[12:f.End], f.OuterTPID, f.OuterTCI, p.in.Name, p.etherType, p.l3, in.Name, etherType, length)
			}
		}
	}
	if matched < 100 {
		t.Errorf("only %d frames were tagged as the one before", matched)
	}
}
