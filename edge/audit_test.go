package edge

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/bgp/speaker"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/fib"
	"msee/dataplane/port"
)

// bench is an Edge without ports and processes: one VRF of a private peering
// with two customer sessions and ten of gateways.
type bench struct {
	*Edge
	v     *vrf
	peers []bgp.Peer
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a speaker that never starts, and takes what it is told
	b := &bench{Edge: &Edge{log: slog.New(slog.DiscardHandler), sessions: map[string]*session{}, vrfs: map[string]*vrf{},
		asking: map[hop]bool{}, speaker: speaker.StartInProcess(ctx, slog.New(slog.DiscardHandler)), device: &config.Device{}}}
	customer, core := newSub(t, "cust.100", "192.168.15.18/30"), newSub(t, "core.200", "10.100.255.4/27")
	b.v = &vrf{cfg: config.VRF{Name: "er1-private"}, subs: map[string]*subinterface{"cust.100": customer, "core.200": core}, fwd: newForwarding()}
	b.vrfs["er1-private"] = b.v
	b.device.VRFs = []config.VRF{b.v.cfg}
	for _, s := range b.v.subs {
		s.vrf = b.v
		b.v.fwd.connect(s)
	}
	add := func(p bgp.Peer, sub string) {
		b.peers = append(b.peers, p)
		b.sessions[p.Name] = &session{cfg: config.Session{Name: p.Name, Subinterface: sub}, vrf: b.v}
	}
	add(bgp.Peer{Name: "ce", Side: bgp.SideCustomer, AS: 65001, Local: netip.MustParseAddr("192.168.15.18"), Addr: netip.MustParseAddr("192.168.15.17")}, "cust.100")
	for i := range 10 {
		add(bgp.Peer{Name: fmt.Sprint("gw", i), Side: bgp.SideGateway, AS: bgp.ASGateway, Weight: i / 9,
			Local: netip.MustParseAddr("10.100.255.4"), Addr: netip.AddrFrom4([4]byte{10, 100, 255, byte(12 + i)}), Connection: fmt.Sprint(i / 2)}, "core.200")
	}
	b.v.rib = bgp.NewRIB(bgp.PrivatePeering(), b.peers)
	return b
}

// ways is the model: of each prefix all that was announced, by session.
type ways map[netip.Prefix]map[string]*bgp.Attrs

// best returns the next hops that a prefix's traffic may take, by the MSEE's
// rules, as one who reads them aloud would apply them.
func (b *bench) best(routes map[string]*bgp.Attrs) (hops []netip.Addr) {
	var in []bgp.Peer
	for _, p := range b.peers { // in order of address
		if routes[p.Name] != nil {
			in = append(in, p)
		}
	}
	for _, worse := range []func(a, b bgp.Peer) bool{
		func(a, b bgp.Peer) bool { return a.Weight < b.Weight },
		func(a, b bgp.Peer) bool { return len(routes[a.Name].ASPath) > len(routes[b.Name].ASPath) },
		func(a, b bgp.Peer) bool { return a.Side == bgp.SideCustomer && b.Side == bgp.SideGateway },
	} {
		all := slices.Clone(in)
		in = slices.DeleteFunc(in, func(a bgp.Peer) bool {
			return slices.ContainsFunc(all, func(b bgp.Peer) bool { return worse(a, b) })
		})
	}
	for _, p := range in[:min(len(in), bgp.MaxPaths)] {
		hops = append(hops, p.Addr)
	}
	return hops
}

// TestFIBEqualsModel plays 1,000 random histories of announcements,
// withdrawals, flaps, restarts and neighbors through RIB and forwarding tables:
// after each publication the FIB has the model's routes, each with all of its
// next hops and no other, and finds packets' routes as a walk over the model.
func TestFIBEqualsModel(t *testing.T) {
	prefixes := []netip.Prefix{}
	for _, s := range []string{"0.0.0.0/0", "10.1.0.0/16", "10.1.0.0/24", "10.1.0.128/25", "10.1.2.0/23", "10.2.0.0/15", "10.2.3.4/32",
		"172.16.0.0/12", "192.168.0.0/16", "192.168.15.0/24", "203.0.113.0/24", "203.0.113.77/32"} {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 4))
		b := newBench(t)
		model, stale := ways{}, map[string]map[netip.Prefix]bool{}
		forget := func(session string, which func(netip.Prefix) bool) {
			for p := range model {
				if which(p) {
					delete(model[p], session)
					delete(stale[session], p)
				}
			}
		}
		for range 12 {
			for range 1 + r.IntN(6) {
				p := b.peers[r.IntN(len(b.peers))]
				if stale[p.Name] == nil {
					stale[p.Name] = map[netip.Prefix]bool{}
				}
				isStale := func(x netip.Prefix) bool { return stale[p.Name][x] }
				switch r.IntN(12) {
				case 0:
					b.ribChanged(b.v, b.v.rib.Down(p.Name))
					forget(p.Name, func(netip.Prefix) bool { return true })
				case 1:
					b.ribChanged(b.v, b.v.rib.Retain(p.Name))
					forget(p.Name, isStale)
					for x := range model {
						if model[x][p.Name] != nil {
							stale[p.Name][x] = true
						}
					}
				case 2:
					b.ribChanged(b.v, b.v.rib.Sweep(p.Name))
					forget(p.Name, isStale)
				case 3:
					sub := b.v.subs["core.200"]
					b.v.fwd.neighborChanged(hop{sub: sub, addr: p.Addr}, port.MAC{2, 0, 0, 0, 0, byte(r.IntN(3))}, r.IntN(2) == 0)
				default:
					u := bgp.Update{Session: p.Name}
					a := &bgp.Attrs{NextHop: p.Addr, ASPath: slices.Repeat([]uint32{p.AS}, 1+r.IntN(2))}
					for range 1 + r.IntN(5) {
						x := prefixes[r.IntN(len(prefixes))]
						switch {
						case slices.ContainsFunc(u.Announce, func(r bgp.Route) bool { return r.Prefix == x }) || slices.Contains(u.Withdraw, x):
						case r.IntN(3) == 0:
							u.Withdraw = append(u.Withdraw, x)
							delete(model[x], p.Name)
							delete(stale[p.Name], x)
						default:
							u.Announce = append(u.Announce, bgp.Route{Prefix: x, Attrs: a})
							if p.Side == bgp.SideGateway && x.Bits() == 0 {
								delete(model[x], p.Name) // refused, and so what was there before
								continue
							}
							if model[x] == nil {
								model[x] = map[string]*bgp.Attrs{}
							}
							model[x][p.Name] = a
							delete(stale[p.Name], x)
						}
					}
					b.ribChanged(b.v, b.v.rib.Apply(u))
				}
			}
			b.v.fwd.commit()
			b.compare(t, seed, model, prefixes, r)
		}
		if b.auditVRF(b.v, time.Now()); b.v.audit.Repaired != 0 {
			t.Fatalf("seed %d: the audit found %q", seed, b.v.audit.Findings)
		}
		if t.Failed() {
			return
		}
	}
}

func (b *bench) compare(t *testing.T, seed uint64, model ways, prefixes []netip.Prefix, r *rand.Rand) {
	t.Helper()
	routes := 0
	for _, p := range prefixes {
		want := b.best(model[p])
		g, ok := b.v.fwd.table.Get(p)
		if !ok {
			g = &dataplane.NextHopGroup{}
		}
		var got []netip.Addr
		for _, m := range g.Members {
			got = append(got, m.Addr)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v leads to %v, want %v", seed, p, got, want)
		}
		if len(want) > 0 {
			routes++
		}
	}
	if n := b.v.fwd.table.Len4(); n != routes+len(b.v.fwd.connected) {
		t.Fatalf("seed %d: the FIB has %d prefixes, want %d of BGP's and %d of our own", seed, n, routes, len(b.v.fwd.connected))
	}
	for range 20 {
		p := prefixes[r.IntN(len(prefixes))]
		x := p.Addr().As4()
		x[3] ^= byte(r.IntN(256))
		addr := netip.AddrFrom4(x)
		longest := netip.Prefix{}
		for _, q := range prefixes {
			if q.Contains(addr) && len(b.best(model[q])) > 0 && (!longest.IsValid() || q.Bits() > longest.Bits()) {
				longest = q
			}
		}
		for q := range b.v.fwd.connected {
			if q.Contains(addr) && q.Bits() >= longest.Bits() {
				longest = q
			}
		}
		g, ok := b.v.fwd.table.Lookup(addr)
		want, _ := b.v.fwd.table.Get(longest)
		if ok != longest.IsValid() || ok && g != want {
			t.Fatalf("seed %d: %v is not looked up by %v", seed, addr, longest)
		}
	}
}

// TestAuditRepairs breaks forwarding in each way that the audit looks for: it
// finds it, says what, and all is well again.
func TestAuditRepairs(t *testing.T) {
	p := netip.MustParsePrefix("10.1.0.0/16")
	for name, c := range map[string]struct {
		damage func(*bench)
		words  string
	}{
		"route missing": {func(b *bench) { b.v.fwd.set(b.v.fwd.routed, p, nil) }, "10.1.0.0/16: leads to nothing, not to forward core.200/10.100.255.12 core.200/10.100.255.13"},
		"route stale": {func(b *bench) {
			f := b.v.fwd
			f.set(f.routed, netip.MustParsePrefix("10.9.0.0/16"), f.routed[p])
		}, "10.9.0.0/16: leads to forward core.200/10.100.255.12 core.200/10.100.255.13, but the RIB has no route"},
		"ECMP member missing": {func(b *bench) {
			f := b.v.fwd
			f.set(f.routed, p, f.group(dataplane.Forward, nil, []hop{{sub: b.v.subs["core.200"], addr: b.peers[1].Addr}}, nil))
		}, "10.1.0.0/16: leads to forward core.200/10.100.255.12, not to"},
		"not in the FIB": {func(b *bench) {
			b.v.fwd.table = b.v.fwd.table.With([]fib.Change[*dataplane.NextHopGroup]{{Prefix: p, Delete: true}})
		}, "10.1.0.0/16: not in the FIB"},
		"stale in the FIB": {func(b *bench) {
			b.v.fwd.table = b.v.fwd.table.With([]fib.Change[*dataplane.NextHopGroup]{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Value: b.v.fwd.routed[p].NextHopGroup}})
		}, "10.9.0.0/16: the FIB leads elsewhere"},
		"another group in the FIB": {func(b *bench) {
			b.v.fwd.table = b.v.fwd.table.With([]fib.Change[*dataplane.NextHopGroup]{{Prefix: p, Value: &dataplane.NextHopGroup{}}})
		}, "10.1.0.0/16: the FIB leads elsewhere"},
		"orphaned adjacency": {func(b *bench) {
			b.v.fwd.routed[p].Members[1] = dataplane.NewAdjacency("core.200", b.peers[2].Addr)
		}, "10.1.0.0/16: a next hop of its group is not the neighbor's adjacency"},
	} {
		b := newBench(t)
		for _, gw := range b.peers[1:3] {
			b.ribChanged(b.v, b.v.rib.Apply(bgp.Update{Session: gw.Name, Announce: []bgp.Route{{Prefix: p, Attrs: &bgp.Attrs{NextHop: gw.Addr, ASPath: []uint32{bgp.ASGateway}}}}}))
		}
		b.auditVRF(b.v, time.Now())
		if b.v.audit.Repaired != 0 || b.v.audit.Audits != 1 {
			t.Fatalf("%s: found %q before the damage", name, b.v.audit.Findings)
		}
		c.damage(b)
		b.auditVRF(b.v, time.Now())
		if b.v.audit.Repaired != 1 || !strings.Contains(strings.Join(b.v.audit.Findings, "\n"), c.words) {
			t.Errorf("%s: %d repairs, found %q, want %q", name, b.v.audit.Repaired, b.v.audit.Findings, c.words)
		}
		b.v.fwd.commit()
		b.compare(t, 0, ways{p: {"gw0": &bgp.Attrs{}, "gw1": &bgp.Attrs{}}}, []netip.Prefix{p, netip.MustParsePrefix("10.9.0.0/16")}, rand.New(rand.NewPCG(1, 1)))
		if b.auditVRF(b.v, time.Now()); b.v.audit.Repaired != 1 {
			t.Errorf("%s: not repaired: %q", name, b.v.audit.Findings)
		}
	}
}

// BenchmarkLearn is the control loop's part of learning prefixes from a
// customer, 500 with the same path in an UPDATE and 4,096 in an event, with a
// publication after each event.
func BenchmarkLearn(b *testing.B) {
	const prefixes = 200_000
	var updates []bgp.Update
	for i := range prefixes {
		if i%4096 == 0 {
			updates = append(updates, bgp.Update{Session: "ce"})
		}
		u := &updates[len(updates)-1]
		a := &bgp.Attrs{NextHop: netip.MustParseAddr("192.168.15.17"), ASPath: []uint32{65001, uint32(i / 500)}}
		if i%500 != 0 && len(u.Announce) > 0 {
			a = u.Announce[len(u.Announce)-1].Attrs
		}
		x := uint32(20)<<24 + uint32(i)<<8
		u.Announce = append(u.Announce, bgp.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8)}), 24), Attrs: a})
	}
	for b.Loop() {
		e := newBench(b)
		for _, u := range updates {
			e.ribChanged(e.v, e.v.rib.Apply(u))
			e.v.fwd.commit()
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/prefixes, "µs/prefix")
}
