package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// TestLookupOfManyVRFs: in a vector of packets of several VRFs, of both families, some
// settled and some with a way out before, each goes where it would alone.
func TestLookupOfManyVRFs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	core := &Subinterface{Name: "core.200", Counters: new(Counters)}
	var neighbors []*Adjacency
	for i := range 12 {
		a := NewAdjacency(core.Name, netip.AddrFrom4([4]byte{10, 100, 255, byte(i)}))
		if i > 0 { // one is not resolved
			a.Resolve(&Rewrite{Out: core, Header: vlan.NewHeader(port.MAC{5: byte(i)}, coreMAC, 0x8100, 200, 0)})
		}
		neighbors = append(neighbors, a)
	}
	neighbors[1].SetDown(DownBFD, true)
	some := func(n int) (all []*Adjacency) {
		for _, i := range r.Perm(len(neighbors))[:n] {
			all = append(all, neighbors[i])
		}
		return all
	}
	group := func() *NextHopGroup {
		all := some(4)
		members := 1 + r.IntN(3)
		g := &NextHopGroup{Members: all[:members]}
		if r.IntN(2) == 0 {
			g.Backup = all[members:]
		}
		if r.IntN(8) == 0 {
			g.Kind = Blackhole
		}
		return g
	}
	addr := func(v6 bool) netip.Addr {
		n := byte(r.IntN(40))
		if !v6 {
			return netip.AddrFrom4([4]byte{10, 100, 1, n})
		}
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
	}
	w := Worker{snap: &Snapshot{}, engine: NewEngine(testLog)}
	for range 4 {
		var changes []fib.Change[*NextHopGroup]
		for range 40 {
			a := addr(r.IntN(3) == 0)
			changes = append(changes, fib.Change[*NextHopGroup]{Prefix: netip.PrefixFrom(a, a.BitLen()-r.IntN(3)), Value: group()})
		}
		w.snap.VRFs = append(w.snap.VRFs, VRF{FIB: fib.New[*NextHopGroup]().With(changes)})
	}
	ways := map[Verdict]int{}
	for range 500 {
		ps := make([]packet, 1+r.IntN(vector))
		type fate struct {
			out     *Rewrite
			verdict Verdict
		}
		want := make([]fate, len(ps))
		for i := range ps {
			p := &ps[i]
			p.in = &Subinterface{VRF: r.IntN(len(w.snap.VRFs))}
			if i > 0 && r.IntN(4) > 0 {
				p.in = ps[i-1].in
			}
			p.v6 = r.IntN(3) == 0
			to := addr(p.v6)
			p.Frame = &port.Frame{Buf: make([]byte, vlan.EthLen+minIPv6+8), End: vlan.EthLen + minIPv6 + 8}
			p.l3 = vlan.EthLen
			p.Buf[11] = byte(r.IntN(len(neighbors))) // it comes from one of them, perhaps
			b := p.ip()
			if p.v6 {
				b[0], b[6] = 6<<4, protoUDP
				copy(b[24:], to.AsSlice())
			} else {
				b[0], b[9] = 4<<4|minIPv4/4, protoUDP
				copy(b[16:], to.AsSlice())
				p.dst = binary.BigEndian.Uint32(b[16:])
			}
			switch r.IntN(8) {
			case 0:
				p.verdict = DropTTL
			case 1:
				p.out = neighbors[2].Rewrite()
			}
			if want[i] = (fate{p.out, p.verdict}); p.verdict != proceed || p.out != nil {
				continue
			}
			g, _ := w.table(p).Lookup(to)
			switch {
			case g == nil:
				want[i].verdict = DropNoRoute
			case g.Kind == Blackhole:
				want[i].verdict = DropBlackhole
			default:
				flow := uint64(flowHash(b, p.v6))
				out := heaviest(g.Members, flow)
				if out == nil {
					out = heaviest(g.Backup, flow)
					if out != nil && g.backedUpBy(p.Buf[6:12]) {
						out, want[i].verdict = nil, DropUnresolved // it came from one of them
					}
				}
				if want[i].out = out; out == nil {
					want[i].verdict = DropUnresolved
				}
			}
			ways[want[i].verdict]++
		}
		w.lookup(ps)
		for i := range ps {
			got := fate{ps[i].out, ps[i].verdict}
			if got.verdict != proceed {
				got.out = want[i].out // nobody asks
			}
			if got != want[i] {
				t.Fatalf("packet %d of %d: got %v, want %v", i, len(ps), got, want[i])
			}
		}
	}
	for _, v := range []Verdict{proceed, DropNoRoute, DropBlackhole, DropUnresolved} {
		if ways[v] == 0 {
			t.Errorf("no packet had verdict %v", v)
		}
	}
}
