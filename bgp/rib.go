package bgp

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// RIB holds the routes of one VRF (RFC 4271 §3.2): of each prefix all that was
// heard (the Adj-RIBs-In, refused routes included), in order of preference, so
// that the first are the Loc-RIB. Adj-RIBs-Out are not stored: they follow from
// the best route and the policy, before and after each change.
//
// A RIB has one owner; nothing in it is safe for concurrent use. Prefixes are
// masked, invalid ones ignored. What it hands out is not to be changed, and
// what it was given neither.
type RIB struct {
	policy     Policy
	was        Policy // before the running batch
	peers      []*peer
	local      *peer
	originated []Route
	table      map[netip.Prefix]*entry
	lengths    [2][129]int // how many prefixes of it there are of each family and length
	attrs      attrTable
	batch      batch
}

// peer is a session's state. Configurations are replaced, never changed: what
// was decided under the old one can then be told apart.
type peer struct {
	cfg *Peer
	was *Peer // cfg before the running batch; nil if the peer is new
	// generation counts the speaker's lives; routes of earlier ones are stale.
	generation uint32
	stale      bool // there may be such routes
	over       bool // it announced more than MaxPrefixes; nothing of it counts until it has ended
	counts     Counts
	update     Update // of the running batch
}

// entry is a prefix with at most one route per peer, or what [RIB.Replace] has of it.
type entry struct {
	paths     []path  // in the order of comparePaths
	first     [1]path // where paths begins: most prefixes have one route
	multipath int     // the first so many are used
	dirty     bool    // touched by the running batch
}

type path struct {
	peer       *peer
	in         *attrSet // as received
	attrs      *attrSet // after import; in if refused
	reason     Reason
	generation uint32
}

// Counts are the numbers of a session's prefixes.
type Counts struct {
	Received   int // Adj-RIB-In: Accepted + Refused
	Accepted   int // by at least one route
	Refused    int
	Advertised int // Adj-RIB-Out
}

// NewRIB returns an empty RIB.
func NewRIB(policy Policy, peers []Peer) *RIB {
	policy.AddressSpace = nil
	r := &RIB{
		policy: policy,
		was:    policy,
		local:  &peer{cfg: &Peer{Side: SideLocal}},
		table:  make(map[netip.Prefix]*entry),
		attrs:  attrTable{sets: make(map[string]*attrSet)},
	}
	r.SetPeers(peers)
	return r
}

// Apply takes a session's announcements and withdrawals. Updates of unknown
// sessions are ignored: they were removed while the speaker was talking.
func (r *RIB) Apply(u Update) Changes {
	p := r.peer(u.Session)
	if p == nil || p.over {
		return Changes{}
	}
	r.expect(len(u.Withdraw) + len(u.Announce))
	// RFC 4271 §4.3: a prefix that is in both parts is announced.
	for _, prefix := range u.Withdraw {
		r.withdraw(p, prefix)
	}
	im := importer{rib: r, peer: p}
	defer im.close()
	for _, route := range u.Announce {
		if !route.Prefix.IsValid() {
			continue
		}
		if route.Attrs == nil { // RFC 7606 §2: treat-as-withdraw
			r.withdraw(p, route.Prefix)
			continue
		}
		r.announce(p, route.Prefix.Masked(), &im, route.Attrs)
		if p.over {
			break
		}
	}
	return r.settleLimits()
}

// Paths are all routes of a session to a prefix.
type Paths struct {
	Prefix netip.Prefix
	Attrs  []*Attrs // none: the prefix is withdrawn
}

// Replace takes from a session that may tell several routes to a prefix, as in EVPN,
// what it says of these prefixes now. Such a session never says anything by [RIB.Apply].
func (r *RIB) Replace(session string, prefixes []Paths) Changes {
	p := r.peer(session)
	if p == nil || p.over {
		return Changes{}
	}
	r.expect(len(prefixes))
	im := importer{rib: r, peer: p}
	defer im.close()
	for _, x := range prefixes {
		if x.Prefix.IsValid() && !p.over {
			r.replace(p, x.Prefix.Masked(), &im, x.Attrs)
		}
	}
	return r.settleLimits()
}

func (r *RIB) replace(p *peer, prefix netip.Prefix, im *importer, all []*Attrs) {
	e := r.table[prefix]
	if e == nil {
		if len(all) == 0 {
			return
		}
		e = r.newEntry(prefix)
	}
	r.touch(prefix, e)
	paths := make([]path, 0, len(all))
	for _, a := range all {
		if im.load(a); !slices.ContainsFunc(paths, func(x path) bool { return x.in == im.in }) {
			paths = append(paths, im.path(prefix))
		}
	}
	r.removeFunc(e, func(x *path) bool { return x.peer == p })
	for _, x := range paths {
		r.add(e, x)
	}
	p.over = p.exceeds()
}

func (r *RIB) announce(p *peer, prefix netip.Prefix, im *importer, a *Attrs) {
	im.load(a)
	e := r.table[prefix]
	if e == nil {
		e = r.newEntry(prefix)
	}
	i := e.find(p)
	if i >= 0 && e.paths[i].in == im.in {
		e.paths[i].generation = p.generation
		return
	}
	r.touch(prefix, e)
	if i >= 0 {
		r.remove(e, i)
	}
	r.add(e, im.path(prefix))
	p.over = p.exceeds()
}

func (r *RIB) withdraw(p *peer, prefix netip.Prefix) {
	prefix = prefix.Masked()
	e := r.table[prefix]
	if e == nil {
		return
	}
	if i := e.find(p); i >= 0 {
		r.touch(prefix, e)
		r.remove(e, i)
	}
}

// Down drops all routes of a session that has ended. Its Adj-RIB-Out stays, as
// what the session is to be told when it comes back.
func (r *RIB) Down(session string) Changes {
	if p := r.peer(session); p != nil {
		p.over = false
	}
	return r.drop(session, func(*path) bool { return true })
}

// MarkStale says that the speaker was restarted: all routes are kept in use as
// stale (RFC 4724 §4.2) until they are heard again or [RIB.Sweep] or [RIB.Down]
// removes them. Of what comes by EVPN its own table keeps that.
func (r *RIB) MarkStale() {
	for _, p := range r.peers {
		if p.cfg.Underlay.IsValid() {
			continue
		}
		p.generation++
		p.stale = p.counts.Received > 0
	}
}

// Retain says that a session has ended and its peer may be restarting: its
// routes are kept in use as stale, as by [RIB.MarkStale]. Those that were stale
// already go (RFC 4724 §4.2: consecutive restarts).
func (r *RIB) Retain(session string) Changes {
	p := r.peer(session)
	if p == nil {
		return Changes{}
	}
	c := r.Sweep(session)
	p.over = false // as by Down
	p.generation++
	p.stale = p.counts.Received > 0
	return c
}

// Sweep drops a session's stale routes: at its End-of-RIB, or when it has not
// come back in time.
func (r *RIB) Sweep(session string) Changes {
	p := r.peer(session)
	if p == nil || !p.stale {
		return Changes{}
	}
	return r.drop(session, func(path *path) bool { return path.generation != p.generation })
}

// drop goes through the whole table: sessions end rarely, and an index of each
// peer's prefixes would cost more than the scan at every announcement.
func (r *RIB) drop(session string, which func(*path) bool) Changes {
	p := r.peer(session)
	if p == nil {
		return Changes{}
	}
	p.stale = false
	if p.counts.Received == 0 {
		return Changes{}
	}
	r.removeAll(p, which)
	p.over = p.over || p.exceeds()
	return r.settleLimits()
}

func (r *RIB) removeAll(p *peer, which func(*path) bool) {
	for prefix, e := range r.table {
		gone := func(x *path) bool { return x.peer == p && which(x) }
		for i := range e.paths {
			if gone(&e.paths[i]) {
				r.touch(prefix, e)
				r.removeFunc(e, gone)
				break
			}
		}
	}
}

// Len returns the number of prefixes, those with only refused routes included.
func (r *RIB) Len() int { return len(r.table) }

// Counts returns the numbers of a session's routes; zero if it is unknown.
func (r *RIB) Counts(session string) Counts {
	p := r.peer(session)
	if p == nil {
		return Counts{}
	}
	c := p.counts
	c.Refused = c.Received - c.Accepted
	return c
}

// Explain returns the routes to exactly that prefix, the best first, each with
// its part in the decision and why.
func (r *RIB) Explain(prefix netip.Prefix) []Candidate {
	e := r.table[prefix.Masked()]
	if e == nil {
		return nil
	}
	return e.candidates()
}

// Routes iterates over all prefixes in order, each with what [RIB.Explain]
// says of it.
func (r *RIB) Routes() iter.Seq2[netip.Prefix, []Candidate] {
	return func(yield func(netip.Prefix, []Candidate) bool) {
		for _, prefix := range slices.SortedFunc(maps.Keys(r.table), netip.Prefix.Compare) {
			if !yield(prefix, r.table[prefix].candidates()) {
				return
			}
		}
	}
}

// NextHops iterates over the prefixes that BGP has a way to, in no order, each
// with its ECMP set as [RouteChange] has it.
func (r *RIB) NextHops() iter.Seq2[netip.Prefix, []NextHop] {
	return func(yield func(netip.Prefix, []NextHop) bool) {
		for prefix, e := range r.table {
			var hops []NextHop
			for i := range e.multipath {
				hops = e.member(i).appendNextHop(hops)
			}
			if len(hops) > 0 && !yield(prefix, hops) {
				return
			}
		}
	}
}

// Covers reports whether a session has announced a prefix that addr is in and that
// was not refused.
func (r *RIB) Covers(session string, addr netip.Addr) bool {
	p := r.peer(session)
	if p == nil || p.over || p.cfg.Local.Is4() != addr.Is4() {
		return false
	}
	lengths := &r.lengths[oneIf(addr.Is6())]
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		prefix, _ := addr.Prefix(bits)
		if e := r.table[prefix]; e != nil {
			if _, accepted := e.has(p); accepted {
				return true
			}
		}
	}
	return false
}

// AdjRIBOut returns all that a session is told, in order of prefix: the sum of
// the updates in [Changes] so far.
func (r *RIB) AdjRIBOut(session string) []Route {
	p := r.peer(session)
	if p == nil {
		return nil
	}
	var out []Route
	for prefix, e := range r.table {
		if a := exported(&r.policy, p.cfg, e.best(), prefix); a != nil {
			out = append(out, Route{Prefix: prefix, Attrs: a})
		}
	}
	slices.SortFunc(out, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

func (r *RIB) peer(session string) *peer {
	for _, p := range r.peers {
		if p.cfg.Name == session {
			return p
		}
	}
	return nil
}

func (r *RIB) newEntry(prefix netip.Prefix) *entry {
	e := new(entry)
	e.paths = e.first[:0]
	r.table[prefix] = e
	r.lengths[oneIf(prefix.Addr().Is6())][prefix.Bits()]++
	return e
}

func (e *entry) find(p *peer) int {
	for i := range e.paths {
		if e.paths[i].peer == p {
			return i
		}
	}
	return -1
}

// has reports whether there are routes of a peer's, and accepted ones.
func (e *entry) has(p *peer) (known, accepted bool) {
	for i := range e.paths {
		if e.paths[i].peer == p {
			known, accepted = true, accepted || e.paths[i].reason == ""
		}
	}
	return known, accepted
}

// add and remove keep the counts; the order is decide's.
func (r *RIB) add(e *entry, p path) {
	known, accepted := e.has(p.peer)
	p.peer.counts.Received += oneIf(!known)
	p.peer.counts.Accepted += oneIf(!accepted && p.reason == "")
	e.paths = append(e.paths, p)
}

func (r *RIB) remove(e *entry, i int) {
	p := e.paths[i]
	r.attrs.release(p.in)
	r.attrs.release(p.attrs)
	e.paths = slices.Delete(e.paths, i, i+1)
	known, accepted := e.has(p.peer)
	p.peer.counts.Received -= oneIf(!known)
	p.peer.counts.Accepted -= oneIf(!accepted && p.reason == "")
}

func (r *RIB) removeFunc(e *entry, which func(*path) bool) {
	for i := len(e.paths) - 1; i >= 0; i-- {
		if which(&e.paths[i]) {
			r.remove(e, i)
		}
	}
}
