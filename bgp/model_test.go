package bgp

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// model is the RIB's slow twin: it keeps only what was put in, and works out
// all else from scratch, each time.
type model struct {
	policy     Policy
	peers      []Peer
	originated []Route
	over       map[string]bool // sessions beyond their limit, until they end
	mayBeStale map[string]bool
	in         map[string]map[netip.Prefix][]*Attrs
	stale      map[string]map[netip.Prefix]bool
}

type modelRoute struct {
	from  Peer
	attrs *Attrs
}

// accepted returns the routes to each prefix that import policy lets pass.
func (m *model) accepted() map[netip.Prefix][]modelRoute {
	out := map[netip.Prefix][]modelRoute{}
	for _, o := range m.originated {
		out[o.Prefix] = append(out[o.Prefix], modelRoute{Peer{Side: SideLocal}, o.Attrs})
	}
	for _, peer := range m.peers {
		for p, all := range m.in[peer.Name] {
			for _, a := range all {
				if b, why := m.policy.Import(&peer, Route{p, a}); why == "" {
					out[p] = append(out[p], modelRoute{peer, b})
				}
			}
		}
	}
	return out
}

// best filters by one rule after the other, and orders what remains.
func best(routes []modelRoute) []modelRoute {
	for _, score := range []func(modelRoute) int{
		func(r modelRoute) int { return map[Side]int{SideLocal: 1}[r.from.Side] },
		func(r modelRoute) int { return r.from.Weight },
		func(r modelRoute) int { return 1000 - len(r.attrs.ASPath) },
		func(r modelRoute) int { return map[Side]int{SideGateway: 1}[r.from.Side] },
	} {
		top := -1
		for _, r := range routes {
			top = max(top, score(r))
		}
		routes = slices.DeleteFunc(slices.Clone(routes), func(r modelRoute) bool { return score(r) != top })
	}
	slices.SortFunc(routes, func(a, b modelRoute) int {
		return cmp.Or(a.from.Addr.Compare(b.from.Addr), a.attrs.NextHop.Compare(b.attrs.NextHop), bytes.Compare(appendKey(nil, a.attrs), appendKey(nil, b.attrs)))
	})
	return routes[:min(len(routes), 8)]
}

// outcome is all that a RIB tells the world, rendered.
type outcome struct {
	fib map[netip.Prefix]string
	out map[string]map[netip.Prefix]string
}

func newOutcome(peers []Peer) outcome {
	o := outcome{fib: map[netip.Prefix]string{}, out: map[string]map[netip.Prefix]string{}}
	for _, p := range peers {
		o.out[p.Name] = map[netip.Prefix]string{}
	}
	return o
}

func (m *model) outcome() outcome {
	o := newOutcome(m.peers)
	for prefix, routes := range m.accepted() {
		set := best(routes)
		var hops []NextHop
		for _, r := range set {
			if r.from.Side != SideLocal && !slices.ContainsFunc(hops, func(h NextHop) bool { return h.Addr == r.attrs.NextHop }) {
				hops = append(hops, NextHop{Session: r.from.Name, Addr: r.attrs.NextHop})
			}
		}
		if len(hops) > 0 {
			o.fib[prefix] = fmt.Sprint(hops)
		}
		for _, to := range m.peers {
			if a := m.policy.Export(&to, &set[0].from, Route{prefix, set[0].attrs}); a != nil {
				o.out[to.Name][prefix] = fmt.Sprintf("%+v", *a)
			}
		}
	}
	return o
}

// apply makes changes to what was known, and fails if one changes nothing.
func (o *outcome) apply(t *testing.T, c Changes) {
	t.Helper()
	seen := map[netip.Prefix]bool{}
	for _, rc := range c.Routes {
		was, is := o.fib[rc.Prefix], fmt.Sprint(rc.NextHops)
		if len(rc.NextHops) == 0 {
			is = ""
		}
		if was == is || seen[rc.Prefix] {
			t.Fatalf("a change that changes nothing: %v %s", rc.Prefix, is)
		}
		seen[rc.Prefix] = true
		o.fib[rc.Prefix] = is
		if is == "" {
			delete(o.fib, rc.Prefix)
		}
	}
	for _, u := range c.Updates {
		o.applyUpdate(t, u)
	}
}

func (o *outcome) applyUpdate(t *testing.T, u Update) {
	t.Helper()
	table := o.out[u.Session]
	if table == nil {
		t.Fatalf("an update for %q", u.Session)
	}
	for _, r := range u.Announce {
		is := fmt.Sprintf("%+v", *r.Attrs)
		if table[r.Prefix] == is {
			t.Fatalf("%s is told %v again", u.Session, r.Prefix)
		}
		table[r.Prefix] = is
	}
	for _, p := range u.Withdraw {
		if _, ok := table[p]; !ok {
			t.Fatalf("%s is told to forget %v, which it does not know", u.Session, p)
		}
		delete(table, p)
	}
}

// setPeers forgets the tables of names that are gone, and begins those of new
// ones.
func (o *outcome) setPeers(peers []Peer) {
	was := o.out
	o.out = newOutcome(peers).out
	for name := range o.out {
		if was[name] != nil {
			o.out[name] = was[name]
		}
	}
}

func (m *model) randomUpdate(r *rand.Rand, w world) Update {
	peer := w.peers[r.IntN(len(w.peers))]
	u := Update{Session: peer.Name}
	for range r.IntN(4) {
		u.Withdraw = append(u.Withdraw, w.prefixes[r.IntN(len(w.prefixes))])
	}
	shared := randomAttrs(r, peer)
	for range r.IntN(6) {
		if r.IntN(3) == 0 {
			shared = randomAttrs(r, peer)
		}
		u.Announce = append(u.Announce, Route{w.prefixes[r.IntN(len(w.prefixes))], shared})
	}
	return u
}

func (m *model) replace(session string, all []Paths) {
	for _, x := range all {
		if !m.hears(session) {
			return
		}
		delete(m.in[session], x.Prefix)
		delete(m.stale[session], x.Prefix)
		if len(x.Attrs) > 0 {
			m.in[session][x.Prefix] = slices.CompactFunc(slices.SortedFunc(slices.Values(x.Attrs), func(a, b *Attrs) int {
				return bytes.Compare(appendKey(nil, a), appendKey(nil, b))
			}), (*Attrs).Equal)
		}
		m.enforce()
	}
}

// hears reports whether anything that a session says counts.
func (m *model) hears(session string) bool {
	if m.over[session] || !slices.ContainsFunc(m.peers, func(p Peer) bool { return p.Name == session }) {
		return false
	}
	if m.in[session] == nil {
		m.in[session], m.stale[session] = map[netip.Prefix][]*Attrs{}, map[netip.Prefix]bool{}
	}
	return true
}

func (m *model) update(u Update) {
	if !m.hears(u.Session) {
		return
	}
	for _, p := range u.Withdraw {
		delete(m.in[u.Session], p)
		delete(m.stale[u.Session], p)
	}
	for _, r := range u.Announce {
		m.in[u.Session][r.Prefix] = []*Attrs{r.Attrs}
		delete(m.stale[u.Session], r.Prefix)
		m.enforce()
		if m.over[u.Session] {
			return
		}
	}
}

// enforce drops the routes of sessions with too many. Whether stale ones were
// left when it was last asked is what counts.
func (m *model) enforce() {
	for _, p := range m.peers {
		most := p.MaxPrefixes
		if m.mayBeStale[p.Name] {
			most += p.MaxPrefixes
		}
		if n := len(m.in[p.Name]); most > 0 && n > most {
			m.over[p.Name] = true
			m.forget(p.Name)
		}
	}
}

// forget drops all that a session has said.
func (m *model) forget(session string) {
	delete(m.in, session)
	delete(m.stale, session)
	delete(m.mayBeStale, session)
}

func (m *model) originate(r *rand.Rand, prefixes []netip.Prefix) {
	m.originated, m.policy.AddressSpace = nil, nil
	for _, p := range prefixes {
		marks := [][]uint32{nil, {storage}, {sql}, {sql, storage}}[r.IntN(4)]
		m.originated = append(m.originated, Route{p, &Attrs{Communities: marks}})
		m.policy.AddressSpace = append(m.policy.AddressSpace, p)
	}
}

func (m *model) markStale() {
	for name, routes := range m.in {
		m.mayBeStale[name] = len(routes) > 0
		for p := range routes {
			m.stale[name][p] = true
		}
	}
}

func (m *model) sweep(session string) {
	for p := range m.stale[session] {
		delete(m.in[session], p)
	}
	clear(m.stale[session])
	delete(m.mayBeStale, session)
	m.enforce()
}

// setPeers leaves some of the world's out and changes others.
func (m *model) setPeers(r *rand.Rand, w world) {
	var peers []Peer
	for _, p := range w.peers {
		switch r.IntN(8) {
		case 0:
			continue
		case 1:
			p.Weight = r.IntN(3)
		case 2:
			p.Connection = []string{"A", "B"}[r.IntN(2)]
		case 3:
			p.Subnet = netip.Prefix{}
		case 4:
			p.AS = 64512
		case 5:
			p.MaxPrefixes = 1 + r.IntN(4)
		case 6:
			p.Local, p.Addr, p.Subnet = customer6.Local, customer6.Addr, customer6.Subnet // the other family
		}
		peers = append(peers, p)
	}
	for _, was := range m.peers {
		if !slices.ContainsFunc(peers, was.sameSessionAs) {
			m.forget(was.Name)
			delete(m.over, was.Name)
		}
	}
	m.peers = peers
	m.enforce()
}

func (p Peer) sameSessionAs(q Peer) bool { return p.sameSession(&q) }

// step does one random thing to both.
func step(r *rand.Rand, rib *RIB, m *model, w world, seen *outcome) Changes {
	session := w.peers[r.IntN(len(w.peers))].Name
	switch r.IntN(17) {
	case 16:
		m.sweep(session)
		delete(m.over, session)
		for p := range m.in[session] {
			m.stale[session][p] = true
		}
		m.mayBeStale[session] = len(m.in[session]) > 0
		return rib.Retain(session)
	case 0:
		m.forget(session)
		delete(m.over, session)
		return rib.Down(session)
	case 1:
		m.markStale()
		rib.MarkStale()
		return Changes{}
	case 2:
		m.sweep(session)
		return rib.Sweep(session)
	case 3:
		m.setPeers(r, w)
		seen.setPeers(m.peers)
		return rib.SetPeers(m.peers)
	case 4:
		m.policy.AllowOwnAS, m.policy.AllowRemoteVnetTraffic = r.IntN(2) == 0, r.IntN(2) == 0
		m.policy.RouteFilter = [][]uint32{nil, {storage}, {storage, sql}}[r.IntN(3)]
		m.policy.RouteFilterIPv6 = [][]uint32{nil, {sql}}[r.IntN(2)]
		m.policy.Regions = [][]uint16{nil, {15}, {}}[r.IntN(3)]
		return rib.SetPolicy(m.policy)
	case 5:
		if w.policy.Kind == KindPrivate {
			return Changes{}
		}
		m.originate(r, [][]netip.Prefix{nil, w.prefixes[1:3], w.prefixes[1:2], w.prefixes[6:8]}[r.IntN(4)])
		return rib.Originate(m.originated)
	}
	u := m.randomUpdate(r, w)
	if i := slices.IndexFunc(w.peers, func(p Peer) bool { return p.Name == u.Session }); several(u.Session) {
		all := randomPaths(r, w, w.peers[i])
		m.replace(u.Session, all)
		return rib.Replace(u.Session, all)
	}
	m.update(u)
	return rib.Apply(u)
}

// TestModel plays a thousand random histories and compares the sum of all
// changes, and the RIB's own account, with the model: in the first histories
// after every step, then now and then.
func TestModel(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := worlds()[seed%3]
		rib := NewRIB(w.policy, w.peers)
		m := &model{policy: w.policy, peers: w.peers, in: map[string]map[netip.Prefix][]*Attrs{}, stale: map[string]map[netip.Prefix]bool{},
			over: map[string]bool{}, mayBeStale: map[string]bool{}}
		seen := newOutcome(w.peers)
		for i := range 25 {
			seen.apply(t, step(r, rib, m, w, &seen))
			if seed < 200 || i%5 == 4 {
				compare(t, seed, rib, m, seen)
			}
		}
		if t.Failed() {
			return
		}
		rib.Originate(nil)
		for _, p := range w.peers {
			rib.Down(p.Name)
		}
		if rib.Len() != 0 || len(rib.attrs.sets) != 0 {
			t.Fatalf("seed %d: %d prefixes, %d attribute sets are left", seed, rib.Len(), len(rib.attrs.sets))
		}
	}
}

func compare(t *testing.T, seed uint64, rib *RIB, m *model, seen outcome) {
	t.Helper()
	want := m.outcome()
	if !maps.Equal(seen.fib, want.fib) {
		t.Fatalf("seed %d: next hops\n got %v\nwant %v", seed, seen.fib, want.fib)
	}
	received, accepted, stale := map[string]int{}, map[string]int{}, 0
	for prefix, candidates := range rib.Routes() {
		had, took := map[string]bool{}, map[string]bool{}
		for _, c := range candidates {
			name := c.Peer.Name
			if !had[name] {
				received[name]++
				stale += oneIf(c.Stale)
			}
			if !took[name] && c.State != PathRefused {
				accepted[name]++
				took[name] = true
			}
			had[name] = true
			if c.Peer.Side != SideLocal && m.in[c.Peer.Name][prefix] == nil {
				t.Fatalf("seed %d: %v of %s is not in the model", seed, prefix, c.Peer.Name)
			}
		}
	}
	for _, p := range m.peers {
		if !maps.Equal(seen.out[p.Name], want.out[p.Name]) {
			t.Fatalf("seed %d: Adj-RIB-Out of %s\n got %v\nwant %v", seed, p.Name, seen.out[p.Name], want.out[p.Name])
		}
		out := map[netip.Prefix]string{}
		for _, route := range rib.AdjRIBOut(p.Name) {
			out[route.Prefix] = fmt.Sprintf("%+v", *route.Attrs)
		}
		if !maps.Equal(out, want.out[p.Name]) {
			t.Fatalf("seed %d: AdjRIBOut(%s)\n got %v\nwant %v", seed, p.Name, out, want.out[p.Name])
		}
		counts := Counts{len(m.in[p.Name]), accepted[p.Name], len(m.in[p.Name]) - accepted[p.Name], len(out)}
		if got := rib.Counts(p.Name); got != counts || received[p.Name] != counts.Received {
			t.Fatalf("seed %d: Counts(%s) = %+v, want %+v; Routes has %d", seed, p.Name, got, counts, received[p.Name])
		}
		stale -= len(m.stale[p.Name])
	}
	if stale != 0 {
		t.Fatalf("seed %d: %d stale routes too many", seed, stale)
	}
}
