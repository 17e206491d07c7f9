package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"msee/dataplane/port"
	"msee/vlan"
)

// members makes n resolved neighbors.
func members(n int) []*Adjacency {
	var all []*Adjacency
	for i := range n {
		a := NewAdjacency("core.200", netip.AddrFrom4([4]byte{10, 100, 255, byte(12 + i)}))
		a.Resolve(&Rewrite{})
		all = append(all, a)
	}
	return all
}

// flows makes n IPv4 packets that differ in addresses and ports.
func flows(r *rand.Rand, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		p := make([]byte, 28)
		p[0], p[9] = 0x45, protoUDP
		binary.BigEndian.PutUint64(p[12:], r.Uint64())
		binary.BigEndian.PutUint32(p[20:], r.Uint32())
		all[i] = p
	}
	return all
}

// chosen is where the flows of a group go.
func chosen(g *NextHopGroup, flows [][]byte) []*Rewrite {
	out := make([]*Rewrite, len(flows))
	for i, f := range flows {
		out[i] = g.choose(f, false)
	}
	return out
}

// TestOnlyTheLostMembersFlowsMove takes members away in every way there is, at
// random: down for one reason or two, unresolved, or not in the group at all.
func TestOnlyTheLostMembersFlowsMove(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	packets := flows(r, 2000)
	for n := 2; n <= 9; n++ {
		g := &NextHopGroup{Members: members(n)}
		before := chosen(g, packets)
		for range 10 {
			i := r.IntN(n)
			lost := g.Members[i]
			was := lost.Rewrite()
			var restore func()
			other := g
			switch r.IntN(3) {
			case 0:
				lost.SetDown(DownBFD, true)
				lost.SetDown(DownLink, true)
				lost.SetDown(DownBFD, false)
				restore = func() { lost.SetDown(DownLink, false) }
			case 1:
				lost.Resolve(nil)
				restore = func() { lost.Resolve(was) }
			case 2:
				other = &NextHopGroup{Members: append(append([]*Adjacency{}, g.Members[:i]...), g.Members[i+1:]...)}
				restore = func() {}
			}
			for k, now := range chosen(other, packets) {
				if (before[k] == was) == (now == before[k]) || now == nil || now == was {
					t.Fatalf("%d members: flow %d was at the lost one: %v; it has moved: %v", n, k, before[k] == was, now != before[k])
				}
			}
			restore()
			for k, now := range chosen(g, packets) {
				if now != before[k] {
					t.Fatalf("%d members: flow %d did not come back", n, k)
				}
			}
		}
	}
}

func TestFlowsSpreadEvenly(t *testing.T) {
	packets := flows(rand.New(rand.NewPCG(5, 6)), 20000)
	for n := 2; n <= 8; n++ {
		g := &NextHopGroup{Members: members(n)}
		share := map[*Rewrite]int{}
		for _, r := range chosen(g, packets) {
			share[r]++
		}
		for _, a := range g.Members {
			if got, fair := share[a.Rewrite()], len(packets)/n; got < fair*9/10 || got > fair*11/10 {
				t.Errorf("one of %d members has %d of %d flows", n, got, len(packets))
			}
		}
	}
}

func TestBackups(t *testing.T) {
	all := members(4)
	g := &NextHopGroup{Members: all[:2], Backup: all[2:]}
	p := flows(rand.New(rand.NewPCG(7, 8)), 1)[0]
	all[0].SetDown(DownBFD, true)
	if r := g.choose(p, false); r != all[1].Rewrite() {
		t.Error("not the member that is left")
	}
	all[1].SetDown(DownBFD, true)
	if r := g.choose(p, false); r != all[2].Rewrite() && r != all[3].Rewrite() {
		t.Error("not a backup when no member is left")
	}
	all[2].SetDown(DownBFD, true)
	all[3].Resolve(nil)
	if r := g.choose(p, false); r != nil {
		t.Error("a rewrite though nobody is left")
	}
	all[1].SetDown(DownBFD, false)
	if r := g.choose(p, false); r != all[1].Rewrite() {
		t.Error("not the member that is back")
	}
}

// TestRepairedOnce: when the customer's link is dead, what a gateway sends goes to the
// partner, by any of the links to it; what the partner sends, by whichever link, goes to
// the customer or nowhere.
func TestRepairedOnce(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	g, _ := r.engine.Snapshot().VRFs[0].FIB.Lookup(netip.MustParseAddr("10.1.0.1"))
	partner := []port.MAC{{2, 0, 0, 0, 3, 1}, {2, 0, 0, 0, 3, 2}}
	for i, mac := range partner {
		out := r.subs["core.200"]
		a := NewAdjacency(fmt.Sprint("core", i), netip.MustParseAddr("10.100.255.5"))
		a.Resolve(&Rewrite{Out: out, Header: vlan.NewHeader(mac, coreMAC, vlan.TPIDQ, out.Outer, out.Inner)})
		g.Backup = append(g.Backup, a)
	}
	send := func(from port.MAC, want Verdict) (to map[port.MAC]int) {
		t.Helper()
		r.core.tx, to = nil, map[port.MAC]int{}
		for i := range byte(50) {
			f := frame(t, coreMAC, tags(200), q, udp4(fmt.Sprintf("10.100.1.%d", i+1), "10.1.0.1", 64, 0)...)
			copy(f[6:], from[:])
			if v := r.receiveAt(r.coreWorker, f); v != want {
				t.Fatalf("from %v: verdict %v, want %v", net.HardwareAddr(from[:]), v, want)
			}
		}
		for _, f := range r.core.tx {
			to[port.MAC(f.Bytes()[:6])]++
		}
		return to
	}
	send(partner[0], Transmit) // the customer is there
	g.Members[0].SetDown(DownBFD, true)
	if to := send(gwMAC, Transmit); to[partner[0]] == 0 || to[partner[1]] == 0 || to[partner[0]]+to[partner[1]] != 50 {
		t.Errorf("a gateway's packets went to %v", to)
	}
	for _, mac := range partner {
		send(mac, DropUnresolved)
	}
	g.Backup[1].Resolve(nil) // the partner is known by one link alone
	send(partner[0], DropUnresolved)
}

// TestOneStoreForAllGroups takes a neighbor away that a thousand groups have.
func TestOneStoreForAllGroups(t *testing.T) {
	all := members(3)
	packets := flows(rand.New(rand.NewPCG(9, 10)), 20)
	groups := make([]*NextHopGroup, 1000)
	for i := range groups {
		groups[i] = &NextHopGroup{Members: []*Adjacency{all[0], all[1+i%2]}}
	}
	gone := all[0].Rewrite()
	all[0].SetDown(DownBFD, true)
	for _, g := range groups {
		for _, r := range chosen(g, packets) {
			if r == gone || r == nil {
				t.Fatal("a group still uses the neighbor, or nobody")
			}
		}
	}
}

// TestLosingAMember sends frames through the router while one of two next hops
// is down, and while both are.
func TestLosingAMember(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	g, _ := r.engine.Snapshot().VRFs[0].FIB.Lookup(netip.MustParseAddr("10.200.0.1"))
	send := func(want Verdict) {
		t.Helper()
		for i := range byte(50) {
			p := udp4("10.1.0.1", fmt.Sprintf("10.200.0.%d", i), 64, 0)
			if v := r.receive(frame(t, mseeMAC, tags(100), q, p...)); v != want {
				t.Fatalf("verdict %v, want %v", v, want)
			}
		}
	}
	g.Members[0].SetDown(DownBFD, true)
	send(Transmit)
	for _, f := range r.core.tx {
		if dst := port.MAC(f.Bytes()[:6]); dst != gw2MAC {
			t.Fatalf("sent to %v, which is down", net.HardwareAddr(dst[:]))
		}
	}
	g.Members[1].Resolve(nil)
	send(DropUnresolved)
	g.Kind = Neighbor
	send(Transmit) // to the neighbor itself, whatever BFD says
}

// TestReadySettles: whoever changes a neighbor's state at the same time as others, in
// the end it can be used if and only if that state says so.
func TestReadySettles(t *testing.T) {
	a := NewAdjacency("core.200", netip.MustParseAddr("10.100.255.12"))
	rewrites := []*Rewrite{nil, {}, {}}
	for range 3000 {
		var wg sync.WaitGroup
		last := rand.IntN(3)
		drained, failed := rand.IntN(2) == 0, rand.IntN(2) == 0
		wg.Go(func() {
			a.Resolve(rewrites[(last+1)%3])
			a.Resolve(rewrites[last])
		})
		wg.Go(func() {
			a.SetDown(DownBFD, !failed)
			a.SetDown(DownBFD, failed)
		})
		wg.Go(func() { a.SetDown(DownLink, drained) })
		wg.Wait()
		want := rewrites[last]
		if drained || failed {
			want = nil
		}
		if got := a.Usable(); got != want || a.ready.Load() != want {
			t.Fatalf("drained %v, failed %v, rewrite %p: usable is %p", drained, failed, rewrites[last], got)
		}
	}
}
