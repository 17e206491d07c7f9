package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/fastpath"
	"msee/vlan"
)

var hostMAC = port.MAC{2, 0, 0, 0, 3, 1}

// endpointsOf gives a router's VRF a FastPath with one host.
func (r *router) endpointsOf(vrf int) (*Endpoints, *Adjacency) {
	e := &Endpoints{FastPath: &FastPath{}}
	for _, s := range r.subs {
		if s.Port == 0 && s.VRF == vrf {
			s.Endpoints = e
		}
	}
	r.sumUp()
	core := r.subs["core.200"]
	a := NewAdjacency(core.Name, netip.MustParseAddr("10.100.255.20"))
	a.Resolve(&Rewrite{Out: core, Header: vlan.NewHeader(hostMAC, coreMAC, 0x8100, core.Outer, 0)})
	h, _ := e.FastPath.AddHost(a)
	for _, addr := range []string{"10.100.1.10", "fd00:100::10"} {
		e.Set(netip.MustParseAddr(addr), fastpath.Value(h))
	}
	return e, a
}

// TestFastPath: an endpoint's packets go to its host, all others and other VRFs'
// by the table; and so do the endpoint's while its host cannot be used.
func TestFastPath(t *testing.T) {
	r := newRouter(t, 0x8100)
	e, a := r.endpointsOf(0)
	sentTo := func(tag uint16, dst string) port.MAC {
		t.Helper()
		r.core.tx = nil
		if v := r.receive(ipFrame(t, tag, dst)); v != Transmit || len(r.core.tx) != 1 {
			t.Fatalf("%s: %v, %d frames sent", dst, v, len(r.core.tx))
		}
		return port.MAC(r.core.tx[0].Bytes()[:6])
	}
	if got := sentTo(100, "10.100.1.10"); got != hostMAC {
		t.Errorf("the endpoint's packet went to %x", got)
	}
	if got := sentTo(100, "fd00:100::10"); got != hostMAC {
		t.Errorf("the endpoint's IPv6 packet went to %x", got)
	}
	if got := sentTo(100, "10.100.1.11"); got != gwMAC {
		t.Errorf("a neighbor's packet went to %x", got)
	}
	if got := sentTo(101, "10.100.1.10"); got != gw2MAC {
		t.Errorf("another VRF's packet went to %x", got)
	}
	a.SetDown(DownBFD, true)
	if got := sentTo(100, "10.100.1.10"); got != gwMAC {
		t.Errorf("with the host down the packet went to %x", got)
	}
	a.SetDown(DownBFD, false)
	a.Resolve(nil)
	if got := sentTo(100, "10.100.1.10"); got != gwMAC {
		t.Errorf("with the host not resolved the packet went to %x", got)
	}
	if hits, misses := e.Hits.Load(), e.Misses.Load(); hits != 2 || misses != 3 {
		t.Errorf("%d hits and %d misses, want 2 and 3", hits, misses)
	}
}

// TestFastPathOfManyVRFs: in a vector of packets from several VRFs, with FastPath and
// without, both families, some settled before, each goes where it would alone.
func TestFastPathOfManyVRFs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	hosts := &FastPath{}
	core := &Subinterface{Name: "core.200", Counters: new(Counters)}
	var subs []*Subinterface
	var numbers []Host
	for i := range 8 {
		a := NewAdjacency(core.Name, netip.AddrFrom4([4]byte{10, 100, 255, byte(i)}))
		if i > 0 { // one is not resolved
			a.Resolve(&Rewrite{Out: core, Header: vlan.NewHeader(port.MAC{5: byte(i)}, coreMAC, 0x8100, 200, 0)})
		}
		h, _ := hosts.AddHost(a)
		numbers = append(numbers, h)
	}
	addr := func(v6 bool) netip.Addr {
		if n := byte(r.IntN(40)); !v6 {
			return netip.AddrFrom4([4]byte{10, 100, 1, n})
		} else {
			return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
		}
	}
	for range 4 {
		s := &Subinterface{Counters: new(Counters), Endpoints: &Endpoints{FastPath: hosts}}
		for range 40 {
			s.Endpoints.Set(addr(r.IntN(3) == 0), fastpath.Value(numbers[r.IntN(len(numbers))]))
		}
		subs = append(subs, s)
	}
	subs = append(subs, &Subinterface{Counters: new(Counters)}) // no FastPath
	var w Worker
	hits := 0
	for range 500 {
		ps := make([]packet, 1+r.IntN(vector))
		want, wantLeft := make([]*Rewrite, len(ps)), false
		for i := range ps {
			p := &ps[i]
			p.verdict = proceed
			if r.IntN(8) == 0 {
				p.verdict = DropTTL
				continue
			}
			if p.in = subs[r.IntN(len(subs))]; i > 0 && ps[i-1].in != nil && r.IntN(4) > 0 {
				p.in = ps[i-1].in
			}
			p.v6 = r.IntN(3) == 0
			to := addr(p.v6)
			if p.v6 {
				p.Frame = &port.Frame{Buf: make([]byte, minIPv6), End: minIPv6}
				copy(p.Buf[24:], to.AsSlice())
			} else {
				p.dst = binary.BigEndian.Uint32(to.AsSlice())
			}
			if e := p.in.Endpoints; e != nil && e.Lookup(to) != 0 {
				want[i] = hosts.hosts[e.Lookup(to)].Load().Usable()
			}
			if want[i] != nil {
				hits++
			}
			wantLeft = wantLeft || want[i] == nil
		}
		if left := w.fastPath(ps); left != wantLeft {
			t.Errorf("packets left for lookup: %v, want %v", left, wantLeft)
		}
		for i := range ps {
			if ps[i].out != want[i] {
				t.Fatalf("packet %d of %d goes to %v, want %v", i, len(ps), ps[i].out, want[i])
			}
		}
	}
	w.endpoints.flush()
	var counted uint64
	for _, s := range subs[:4] {
		counted += s.Endpoints.Hits.Load()
	}
	if counted != uint64(hits) || hits == 0 {
		t.Errorf("%d hits counted, want %d", counted, hits)
	}
}

// ipFrame is a minimal UDP packet with one tag.
func ipFrame(t *testing.T, tag uint16, dst string) []byte {
	t.Helper()
	b := append(append([]byte{}, mseeMAC[:]...), ceMAC[:]...)
	b = append(b, 0x81, 0, byte(tag>>8), byte(tag))
	to := netip.MustParseAddr(dst)
	if to.Is6() {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, protoUDP, 64)
		b = append(append(b, netip.MustParseAddr("2001:db8:1::10").AsSlice()...), to.AsSlice()...)
	} else {
		b = append(b, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protoUDP, 0, 0, 10, 1, 0, 10)
		b = append(b, to.AsSlice()...)
		ip := b[len(b)-20:]
		binary.BigEndian.PutUint16(ip[10:], ^gso.Fold(gso.Sum(ip, 0)))
	}
	return append(b, 0, 9, 0, 9, 0, 8, 0, 0)
}

// TestHostNumbers: numbers given back are used again only after RecycleHosts.
func TestHostNumbers(t *testing.T) {
	var f FastPath
	a, b := NewAdjacency("core", netip.MustParseAddr("10.0.0.1")), NewAdjacency("core", netip.MustParseAddr("10.0.0.2"))
	first, _ := f.AddHost(a)
	f.RemoveHost(first)
	if second, _ := f.AddHost(b); second == first {
		t.Error("a number was used again that a worker may hold")
	}
	f.RecycleHosts()
	if third, _ := f.AddHost(b); third != first {
		t.Errorf("got number %d, want %d again", third, first)
	}
	for {
		if _, ok := f.AddHost(a); !ok {
			break
		}
	}
	f.RemoveHost(77)
	if _, ok := f.AddHost(a); ok {
		t.Error("a number was found where there are none left")
	}
	f.RecycleHosts()
	if h, ok := f.AddHost(a); !ok || h != 77 {
		t.Errorf("got %d, %v; want 77", h, ok)
	}
}

// BenchmarkFastPath is BenchmarkPipelineDot1Q10k, and the same with destinations
// that the exact match has, in 64 hosts; of 200,000 all are in use. In lpm_10k_ecmp
// each route has two next hops, as a gateway has two instances.
func BenchmarkFastPath(b *testing.B) {
	b.Run("hit_10k", func(b *testing.B) { benchmarkFastPath(b, 10_000, 4096) })
	b.Run("lpm_10k", BenchmarkPipelineDot1Q10k)
	b.Run("lpm_10k_ecmp", func(b *testing.B) { benchmarkPipeline(b, 2, false) })
	b.Run("hit_200k", func(b *testing.B) { benchmarkFastPath(b, 200_000, 1<<18) })
}

func benchmarkFastPath(b *testing.B, endpoints, destinations int) {
	r := rand.New(rand.NewPCG(10, 1))
	bench := newPipelineBench(b, r, 10_000, 1600)
	e := &Endpoints{FastPath: &FastPath{}}
	bench.customer.Endpoints = e
	bench.worker.engine.Snapshot().Ports[0].sumUp()
	hosts := make([]Host, 64)
	for i := range hosts {
		hosts[i], _ = e.FastPath.AddHost(bench.neighbor(byte(i)))
	}
	const first = 11 << 24
	for i := range endpoints {
		addr := netip.AddrFrom4([4]byte{first >> 24, byte(i >> 16), byte(i >> 8), byte(i)})
		e.Set(addr, fastpath.Value(hosts[i%len(hosts)]))
	}
	addrs := make([]uint32, destinations)
	for i := range addrs {
		addrs[i] = first + r.Uint32N(uint32(endpoints))
	}
	bench.run(b, addrs)
	if e.Hits.Load() == 0 || e.Misses.Load() > 0 {
		b.Fatalf("%d hits, %d misses", e.Hits.Load(), e.Misses.Load())
	}
}
