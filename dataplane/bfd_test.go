package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/bfd"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// far is the other end of a session: the same state machine, with gopacket
// for the headers.
type far struct {
	*bfd.Session
	r         *router
	addr, our string
	tags      []uint16
}

var bfdConfig = bfd.Config{MyDiscriminator: 0x1001, DesiredMinTx: 50 * time.Millisecond,
	RequiredMinRx: 50 * time.Millisecond, DetectMult: 3, RequiredMinEcho: 50 * time.Millisecond, ControlIndependent: true}

func newFar(r *router, addr, our string, tags ...uint16) *far {
	cfg := bfdConfig
	cfg.MyDiscriminator = 0x2002
	return &far{bfd.New(cfg, 1, 0), r, addr, our, tags}
}

// session is the router's end on cust.100.
func session(addr, our string, cfg bfd.Config) *BFDSession {
	a := NewAdjacency("cust.100", netip.MustParseAddr(addr))
	a.Resolve(&Rewrite{Out: &Subinterface{Name: "cust.100"}, Header: vlan.NewHeader(ceMAC, mseeMAC, 0x8100, 100, 0)})
	return NewBFDSession(BFDSession{Name: "test", Interface: "cust.100", VRF: 0, Local: netip.MustParseAddr(our),
		Peer: netip.MustParseAddr(addr), Adjacency: a, Config: cfg})
}

// datagram is a frame with a UDP datagram from the customer.
func (f *far) datagram(t testing.TB, payload []byte, dest layers.UDPPort, hops uint8) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: 50000, DstPort: dest}
	var ip gopacket.SerializableLayer
	if netip.MustParseAddr(f.addr).Is4() {
		l := &layers.IPv4{Version: 4, IHL: 5, TTL: hops, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(f.addr), DstIP: net.ParseIP(f.our)}
		udp.SetNetworkLayerForChecksum(l)
		ip = l
	} else {
		l := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(f.addr), DstIP: net.ParseIP(f.our)}
		udp.SetNetworkLayerForChecksum(l)
		ip = l
	}
	return frame(t, mseeMAC, tags(f.tags...), 0x8100, ip, udp, gopacket.Payload(payload))
}

// sent takes the BFD packets that the router has sent out of its customer port.
func (r *router) sent() (all [][]byte) {
	for _, f := range r.customer.tx {
		p := gopacket.NewPacket(f.Bytes(), layers.LayerTypeEthernet, gopacket.Default)
		if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			all = append(all, udp.Payload)
		}
	}
	r.customer.tx = nil
	return all
}

// pass lets d go by for the router.
func (r *router) pass(d time.Duration) { r.engine.epoch = r.engine.epoch.Add(-d) }

// meet exchanges packets until both ends are Up.
func (f *far) meet(t *testing.T, s *BFDSession) {
	t.Helper()
	f.r.engine.adoptForTest(f.r.worker)
	f.r.worker.bfd.set(f.r.worker, []*BFDSession{s})
	for range 20 {
		f.exchange(t)
		if state, _ := f.State(); state == bfd.Up && s.Report().State == bfd.Up {
			return
		}
		f.r.pass(100 * time.Millisecond)
	}
	t.Fatalf("the router is %v after 20 rounds", s.Report())
}

func (e *Engine) adoptForTest(w *Worker) {
	if w.port == nil {
		w.adopt(e.snap.Load())
	}
}

// exchange delivers what both have to say.
func (f *far) exchange(t *testing.T) {
	t.Helper()
	w := f.r.worker
	now := w.clock()
	w.bfd.serve(w, now, true)
	for _, b := range f.r.sent() {
		p, reason := bfd.Parse(b)
		if reason != bfd.Accepted {
			t.Fatalf("the router sent %x: %v", b, reason)
		}
		f.Receive(now, &p)
	}
	for {
		b := f.Transmit(now, nil)
		if len(b) == 0 {
			return
		}
		if v := f.r.receive(f.datagram(t, b, bfd.ControlPort, 255)); v != LocalBFD {
			t.Fatalf("verdict %v for a good packet", v)
		}
	}
}

var families = []struct{ addr, our string }{{"192.168.15.17", "192.168.15.18"}, {"2001:db8:0:10::1", "2001:db8:0:10::2"}}

func TestBFDSessionMarksItsAdjacency(t *testing.T) {
	for _, a := range families {
		r := newRouter(t, 0x8100)
		f := newFar(r, a.addr, a.our, 100)
		s := session(a.addr, a.our, bfdConfig)
		f.meet(t, s)
		if d := s.Adjacency.Down(); d != 0 {
			t.Errorf("%s: adjacency down (%b) while the session is up", a.addr, d)
		}
		<-r.engine.BFDChanged()
		// Silence: nothing happens before the detection time, then all at once.
		r.pass(140 * time.Millisecond)
		r.worker.serveBFD(0, false)
		if got := s.Report(); got.State != bfd.Up {
			t.Fatalf("%s: down before the detection time: %+v", a.addr, got)
		}
		r.pass(11 * time.Millisecond)
		r.worker.serveBFD(0, false)
		if got := s.Report(); got.State != bfd.Down || got.Diag != bfd.DiagTimeExpired || got.Downs != 1 {
			t.Errorf("%s: %+v after the detection time", a.addr, got)
		}
		if s.Adjacency.Down() != DownBFD {
			t.Errorf("%s: the adjacency is still in use", a.addr)
		}
		select {
		case <-r.engine.BFDChanged():
		default:
			t.Errorf("%s: control was not told", a.addr)
		}
		for range 20 {
			f.exchange(t)
			r.pass(100 * time.Millisecond)
		}
		if s.Report().State != bfd.Up || s.Adjacency.Down() != 0 {
			t.Errorf("%s: did not come back: %+v, adjacency down %b", a.addr, s.Report(), s.Adjacency.Down())
		}
	}
}

// TestBFDOverLinkLocal: a session between link-local addresses is one like others
// where the subinterface has such an address; elsewhere, and for all but UDP, they
// are the kernel's.
func TestBFDOverLinkLocal(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, "fe80::5", "fe80::4", 100)
	f.meet(t, session("fe80::5", "fe80::4", bfdConfig))
	b := f.datagram(t, []byte("x"), bfd.ControlPort, 255)
	if v := r.receive(b); v != DropBFD {
		t.Errorf("no BFD packet: %v", v)
	}
	f.tags = []uint16{101}
	if v := r.receive(f.datagram(t, []byte("x"), bfd.ControlPort, 255)); v != DropPuntFailed {
		t.Errorf("on a subinterface without such an address: %v", v)
	}
	f.tags, f.our = []uint16{100}, "fe80::6"
	if v := r.receive(f.datagram(t, []byte("x"), bfd.ControlPort, 255)); v != DropPuntFailed {
		t.Errorf("to another address: %v", v)
	}
	f.our = "fe80::4"
	b = f.datagram(t, []byte("x"), bfd.ControlPort, 255)
	b[14+4+6] = 58 // ICMPv6
	if v := r.receive(b); v != DropPuntFailed {
		t.Errorf("no UDP: %v", v)
	}
}

// TestBFDTriesAgainForAQueue: sessions that a worker cannot take, as there is no
// queue to send by, are said to be refused until they are given to it again.
func TestBFDTriesAgainForAQueue(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	r.engine.adoptForTest(r.worker)
	r.engine.workers = map[int]*Worker{0: r.worker}
	r.customer.noSender = errors.New("no queue")
	for range 2 {
		r.worker.bfd.set(r.worker, []*BFDSession{s})
		if !r.engine.BFDRefused(0) || len(r.worker.bfd.sessions) != 0 {
			t.Fatalf("refused %v, %d sessions without a queue", r.engine.BFDRefused(0), len(r.worker.bfd.sessions))
		}
	}
	r.customer.noSender = nil
	f.meet(t, s)
	if r.engine.BFDRefused(0) {
		t.Error("refused, though it is up")
	}
}

// TestBFDReadsThePortFirst: a detection time that is over is not acted on while
// the port may still hold the packet that extends it.
func TestBFDReadsThePortFirst(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	r.pass(152 * time.Millisecond)
	full := len(r.worker.batch)
	r.worker.serveBFD(full, true)
	if s.Report().State != bfd.Up {
		t.Fatal("down after a full batch: there may be more in the port")
	}
	f.exchange2(t)
	r.worker.serveBFD(full, true)
	r.worker.serveBFD(0, false)
	if s.Report().State != bfd.Up {
		t.Error("down although the peer's packet was there")
	}
	// But a port that is never empty does not keep a dead peer alive.
	r.pass(152 * time.Millisecond)
	for range port.DefaultRingFrames/full + 1 {
		r.worker.serveBFD(1, true)
	}
	if s.Report().State != bfd.Up {
		t.Error("down after few frames of a port that has more")
	}
	for range port.DefaultRingFrames/full + 1 {
		r.worker.serveBFD(full, true)
	}
	if s.Report().State != bfd.Down {
		t.Error("up after more frames than the port can hold")
	}
}

// TestBFDReadsWhatAPortLeaves: so it is with a port that gives less at a time than a
// worker has room for, as a tap does.
func TestBFDReadsWhatAPortLeaves(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	r.pass(152 * time.Millisecond)
	r.customer.most = 4
	queue := func(b []byte) {
		buf := append(make([]byte, port.Headroom), b...)
		r.customer.rx = append(r.customer.rx, port.Frame{Buf: buf, Start: port.Headroom, End: len(buf)})
	}
	for range 10 {
		queue(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 1)...))
	}
	queue(f.datagram(t, f.Transmit(r.worker.clock(), nil), bfd.ControlPort, 255))
	for len(r.customer.rx) > 0 {
		n := r.worker.step()
		r.worker.serveBFD(n, r.worker.more)
	}
	if s.Report().State != bfd.Up {
		t.Error("down although the peer's packet was there")
	}
}

// exchange2 delivers what the far end has to say.
func (f *far) exchange2(t *testing.T) {
	for b := f.Transmit(f.r.worker.clock(), nil); len(b) > 0; b = f.Transmit(f.r.worker.clock(), nil) {
		f.r.receive(f.datagram(t, b, bfd.ControlPort, 255))
	}
}

func TestHostileBFD(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	good := make([]byte, 24)
	good[0], good[1], good[2], good[3] = 0x20, 0x40, 3, 24 // Down: would take the session down
	binary.BigEndian.PutUint32(good[4:], 0x2002)
	binary.BigEndian.PutUint32(good[8:], 0x1001)
	edit := func(at int, octets ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], octets)
		return b
	}
	r.sent()
	other := newFar(r, "192.168.15.19", "192.168.15.18", 100)
	otherLink := newFar(r, "192.168.15.17", "192.168.15.18", 7, 9)
	for _, c := range []struct {
		name string
		b    []byte
		want bfd.Reason
	}{
		{"hop limit 254", f.datagram(t, good, bfd.ControlPort, 254), bfd.BadHopLimit},
		{"hop limit 1", f.datagram(t, good, bfd.ControlPort, 1), bfd.BadHopLimit},
		{"echo with hop limit 254", f.datagram(t, good, bfd.EchoPort, 254), bfd.BadHopLimit},
		{"another neighbor", other.datagram(t, good, bfd.ControlPort, 255), bfd.UnknownSession},
		{"another neighbor's echo", other.datagram(t, good, bfd.EchoPort, 255), bfd.UnknownSession},
		{"the right neighbor by another link", otherLink.datagram(t, good, bfd.ControlPort, 255), bfd.UnknownSession},
		{"discriminator of nobody", f.datagram(t, edit(8, 0xde, 0xad, 0xbe, 0xef), bfd.ControlPort, 255), bfd.UnknownSession},
		{"version", f.datagram(t, edit(0, 0x40), bfd.ControlPort, 255), bfd.BadVersion},
		{"short", f.datagram(t, good[:23], bfd.ControlPort, 255), bfd.BadLength},
		{"empty", f.datagram(t, nil, bfd.ControlPort, 255), bfd.BadLength},
		{"long echo", f.datagram(t, make([]byte, 1000), bfd.EchoPort, 255), bfd.UnknownSession},
	} {
		before := r.counters().BFDDiscards[c.want].Load()
		if v := r.receive(c.b); v != DropBFD {
			t.Errorf("%s: verdict %v", c.name, v)
		}
		if n := r.counters().BFDDiscards[c.want].Load() - before; n != 1 {
			t.Errorf("%s: %d discards as %v", c.name, n, c.want)
		}
	}
	bad := f.datagram(t, good, bfd.ControlPort, 255)
	bad[len(bad)-1] ^= 1
	if v := r.receive(bad); v != DropBFD || r.counters().BFDDiscards[bfd.BadChecksum].Load() != 1 {
		t.Errorf("with a bad checksum: verdict %v", v)
	}
	if got := s.Report(); got.State != bfd.Up {
		t.Errorf("the session is %+v", got)
	}
	if len(r.sent()) != 0 {
		t.Error("something was answered")
	}
	r.receive(f.datagram(t, good, bfd.ControlPort, 255))
	if got := s.Report(); got.State != bfd.Down {
		t.Errorf("and yet the good packet has not taken it down: %+v", got)
	}
}

func TestBFDFloodIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time stands still while the flood comes
		r := newRouter(t, 0x8100)
		f := newFar(r, families[0].addr, families[0].our, 100)
		f.meet(t, session(families[0].addr, families[0].our, bfdConfig))
		b := f.datagram(t, make([]byte, 24), bfd.EchoPort, 255)
		passed := 0
		for range 2 * bfdPerSecond {
			if r.receive(bytes.Clone(b)) == LocalBFD {
				passed++
			}
		}
		if passed == 0 || passed > bfdPerSecond {
			t.Errorf("%d of %d echoes at once were sent back", passed, 2*bfdPerSecond)
		}
	})
}

// TestBFDFloodIsTheNeighborsOwn: a neighbor that floods, and whoever is none,
// leave the session of another one alone.
func TestBFDFloodIsTheNeighborsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRouter(t, 0x8100)
		loud := newFar(r, families[0].addr, families[0].our, 100)
		calm := newFar(r, families[1].addr, families[1].our, 100)
		cfg := bfdConfig
		cfg.MyDiscriminator = 0x1002
		a, b := session(loud.addr, loud.our, bfdConfig), session(calm.addr, calm.our, cfg)
		loud.meet(t, a)
		r.engine.adoptForTest(r.worker)
		r.worker.bfd.set(r.worker, []*BFDSession{a, b})
		stranger := newFar(r, "192.168.15.16", families[0].our, 100)
		for _, f := range []*far{loud, stranger} {
			flood := f.datagram(t, make([]byte, 24), bfd.EchoPort, 255)
			for range 2 * bfdPerSecond {
				r.receive(bytes.Clone(flood))
			}
		}
		if n := r.counters().BFDDiscards[bfd.RateLimited].Load(); n == 0 {
			t.Error("the flood was not limited")
		}
		if v := r.receive(calm.datagram(t, calm.Transmit(r.worker.clock(), nil), bfd.ControlPort, 255)); v != LocalBFD {
			t.Errorf("verdict %v for a packet of a neighbor that does not flood", v)
		}
	})
}

// TestBFDSetTouchesOnlyWhatChanged: another session comes and goes, one is
// changed, one is removed and says so.
func TestBFDSetTouchesOnlyWhatChanged(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	cfg := bfdConfig
	cfg.MyDiscriminator = 0x1002
	another := session(families[1].addr, families[1].our, cfg)
	r.worker.bfd.set(r.worker, []*BFDSession{s, another})
	slower := bfdConfig
	slower.DesiredMinTx = 300 * time.Millisecond
	r.worker.bfd.set(r.worker, []*BFDSession{s.Change(slower, false), another})
	r.worker.bfd.set(r.worker, []*BFDSession{s.Change(slower, false)})
	if got := s.Report(); got.State != bfd.Up || got.Ups != 1 {
		t.Errorf("the session that stayed: %+v", got)
	}
	r.sent()
	f.exchange(t)
	r.sent()
	r.worker.bfd.set(r.worker, nil)
	said := r.sent()
	if len(said) == 0 {
		t.Fatal("a removed session says nothing")
	}
	if p, _ := bfd.Parse(said[len(said)-1]); p.State != bfd.AdminDown || p.Diag != bfd.DiagAdminDown {
		t.Errorf("a removed session says %v (%v)", p.State, p.Diag)
	}
	r.pass(time.Minute)
	r.worker.serveBFD(0, false)
	if n := len(r.worker.bfd.sessions); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestBFDTakesTheOldOnesPlace: of two sessions to one neighbor, one after the
// other, the later one is spoken to.
func TestBFDTakesTheOldOnesPlace(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	cfg := bfdConfig
	cfg.MyDiscriminator = 0x1002
	next := session(families[0].addr, families[0].our, cfg)
	f.meet(t, next)
	if n := len(r.worker.bfd.sessions); n != 1 {
		t.Errorf("%d sessions speak to the neighbor", n)
	}
}

func TestBFDAdminDownIsNoFailure(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	f.meet(t, s)
	cfg := f.Config()
	cfg.Disabled = true
	f.Configure(cfg, r.worker.clock())
	f.exchange(t)
	if got := s.Report(); got.State != bfd.Down || !got.PeerAdminDown || s.Adjacency.Down() != 0 {
		t.Errorf("after the peer's AdminDown: %+v, adjacency down %b (RFC 5882 §4.2)", got, s.Adjacency.Down())
	}
	// Enabled again before control has looked: it still was no failure.
	cfg.Disabled = false
	f.Configure(cfg, r.worker.clock())
	f.exchange(t)
	if got := s.Report(); got.PeerAdminDown || !got.LeftByAdmin || got.Downs != 1 || s.Adjacency.Down() != 0 {
		t.Errorf("after the peer's AdminDown and Down: %+v, adjacency down %b", got, s.Adjacency.Down())
	}
	f.meet(t, s)
	for range 30 {
		r.pass(200 * time.Millisecond)
		r.worker.serveBFD(0, false)
	}
	if got := s.Report(); got.LeftByAdmin || got.Downs != 2 || got.Ups != 2 || s.Adjacency.Down() != DownBFD {
		t.Errorf("after silence: %+v, adjacency down %b", got, s.Adjacency.Down())
	}
}

func TestStrictBFD(t *testing.T) {
	r := newRouter(t, 0x8100)
	f := newFar(r, families[0].addr, families[0].our, 100)
	s := session(families[0].addr, families[0].our, bfdConfig)
	s.Strict = true
	r.engine.adoptForTest(r.worker)
	r.worker.bfd.set(r.worker, []*BFDSession{s})
	if s.Adjacency.Down() != DownBFD {
		t.Error("in use before the session has been up")
	}
	f.meet(t, s)
	if s.Adjacency.Down() != 0 {
		t.Error("not in use although the session is up")
	}
}

func tableOf(routes map[string]*NextHopGroup) *fib.Table[*NextHopGroup] {
	var changes []fib.Change[*NextHopGroup]
	for p, g := range routes {
		changes = append(changes, fib.Change[*NextHopGroup]{Prefix: netip.MustParsePrefix(p), Value: g})
	}
	return fib.New[*NextHopGroup]().With(changes)
}

// TestBFDBetweenWorkers has two engines with real workers on a cable.
func TestBFDBetweenWorkers(t *testing.T) {
	a, b := port.NewPair(port.PairOptions{})
	ends := [2]*Engine{}
	sessions := [2]*BFDSession{}
	for i, p := range []port.Port{a, b} {
		e := NewEngine(testLog)
		t.Cleanup(e.Close)
		addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
		sub := &Subinterface{Name: "x", Addr4: addrs[i], Subnet4: netip.MustParsePrefix("192.0.2.0/30"), MTU: 1500, Counters: new(Counters)}
		adj := NewAdjacency("x", addrs[1-i])
		adj.Resolve(&Rewrite{Out: sub, Header: vlan.NewHeader([]port.Port{b, a}[i].MAC(), p.MAC(), 0x8100, 0, 0)})
		cfg := bfdConfig
		cfg.DesiredMinTx, cfg.RequiredMinRx = 100*time.Millisecond, 100*time.Millisecond
		cfg.DetectMult = 10 // a thread may wait long on a busy machine
		cfg.MyDiscriminator = NewDiscriminator()
		sessions[i] = NewBFDSession(BFDSession{Name: "x", Interface: "x", Local: addrs[i], Peer: addrs[1-i], Adjacency: adj, Config: cfg})
		if err := e.AddPort(0, p, AnyCPU); err != nil {
			t.Fatal(err)
		}
		e.Publish(&Snapshot{Ports: []*Port{NewPort(0, "x", p, 0x8100, new(PortCounters), []*Subinterface{sub}, nil)},
			VRFs: []VRF{{"v", tableOf(map[string]*NextHopGroup{addrs[i].String() + "/32": {Kind: Local}})}}})
		if err := e.SetBFD(0, []*BFDSession{sessions[i]}); err != nil {
			t.Fatal(err)
		}
		ends[i] = e
	}
	await := func(what string, limit time.Duration, cond func() bool) time.Duration {
		t.Helper()
		for began := time.Now(); ; time.Sleep(100 * time.Microsecond) {
			if took := time.Since(began); cond() {
				return took
			} else if took > limit {
				t.Fatalf("%s: not within %v; %+v and %+v", what, limit, sessions[0].Report(), sessions[1].Report())
			}
		}
	}
	await("up", 20*time.Second, func() bool {
		return sessions[0].Report().State == bfd.Up && sessions[1].Report().State == bfd.Up
	})
	await("full rate", 20*time.Second, func() bool {
		rows := ends[0].BFDStatus(0)
		return len(rows) == 1 && rows[0].DetectionTime == bfd.Millis(time.Second)
	})
	time.Sleep(1200 * time.Millisecond)
	if n := sessions[0].Report().Downs; n != 0 {
		t.Errorf("%d times down on an idle cable", n)
	}
	ends[1].Close()
	// How soon is the matter of tests by a clock of their own; a peer that is silent sends at most each 100 ms.
	took := await("down", 20*time.Second, func() bool { return sessions[0].Adjacency.Down() == DownBFD })
	if took < 800*time.Millisecond {
		t.Errorf("marked down %v after the last packet or so, want about a second", took)
	}
}
