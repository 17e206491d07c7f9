package evpn

import (
	"bytes"
	"cmp"
	"container/heap"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Table holds what all sessions have told, and per network who is where. It is
// for one goroutine.
type Table struct {
	sessions map[string]*told
	networks map[uint32]*network
	named    []*network // those with targets of their own
	found    []*network // what importers has returned last
	as       uint32
	most     int
}

// told is what one session has told.
type told struct {
	routes  map[Key]*Entry
	refused int // announcements above a bound since the session began
}

// mostAlike bounds what one session tells of one address or prefix of a network, with
// whatever distinguishers, tags and stations. Their order is kept by moving what is
// behind a new one. A station, as a router is one, may have any number of addresses, so
// its routes are a heap.
const mostAlike = 512

// Entry is a route of a session's. Only the table changes it.
type Entry struct {
	Route
	Session string
	Stale   bool // from before a restart, the peer's or the speaker's
	at      int  // where it is among its station's
}

// Network is a VXLAN network that routes are imported into.
type Network struct {
	VNI uint32
	// Import are the targets of which a route must have one; nil: any that is
	// derived from the VNI.
	Import []RT
}

// network is who is where in a network, by all routes imported.
type network struct {
	Network
	stations map[MAC]*byRank
	hosts    map[netip.Addr]ranked
	prefixes map[netip.Prefix]ranked
	vteps    map[netip.Addr]int // routes by next hop
	floods   map[netip.Addr]int // those of type 3
}

// ranked are routes for the same, best first.
type ranked []*Entry

// Changes name what may be elsewhere than before.
type Changes struct {
	Stations []Station
	Hosts    []Host
	Prefixes []Prefix
	VTEPs    []uint32 // networks to which ends of tunnels have come, or gone
}

// Station is one of a network's.
type Station struct {
	VNI uint32
	MAC MAC
}

// Host is an address in a network.
type Host struct {
	VNI  uint32
	Addr netip.Addr
}

// Prefix is one behind a network.
type Prefix struct {
	VNI    uint32
	Prefix netip.Prefix
}

// NewTable returns an empty table of a router of that AS, which keeps at most so
// many routes of each session.
func NewTable(as uint32, most int) *Table {
	return &Table{sessions: map[string]*told{}, networks: map[uint32]*network{}, as: as, most: most}
}

// SetNetworks makes networks, each with a VNI of its own, those that routes are
// imported into. Of one that is gone nothing is reported.
func (t *Table) SetNetworks(networks []Network) (c Changes) {
	was := t.networks
	t.networks = map[uint32]*network{}
	var others []Network
	for _, x := range networks {
		old := was[x.VNI]
		if old != nil && slices.Equal(old.Import, x.Import) && (old.Import == nil) == (x.Import == nil) {
			t.networks[x.VNI] = old
		} else {
			others = append(others, x)
		}
	}
	t.named = slices.DeleteFunc(slices.Collect(maps.Values(t.networks)), func(n *network) bool { return n.Import == nil })
	for _, x := range others {
		n := &network{Network: x, stations: map[MAC]*byRank{}, hosts: map[netip.Addr]ranked{},
			prefixes: map[netip.Prefix]ranked{}, vteps: map[netip.Addr]int{}, floods: map[netip.Addr]int{}}
		for _, s := range t.sessions {
			for k, e := range s.routes {
				switch {
				case !t.imports(n, e):
				case n.crowded(e):
					s.refused++
					t.set(s, k, nil, &c)
				default:
					n.add(e, &c)
				}
			}
		}
		if t.networks[x.VNI] = n; n.Import != nil {
			t.named = append(t.named, n)
		}
		if old := was[x.VNI]; old != nil {
			old.nameAll(&c)
		}
	}
	return c
}

// nameAll adds all that a network has to c.
func (n *network) nameAll(c *Changes) {
	for mac := range n.stations {
		c.Stations = append(c.Stations, Station{n.VNI, mac})
	}
	for a := range n.hosts {
		c.Hosts = append(c.Hosts, Host{n.VNI, a})
	}
	for p := range n.prefixes {
		c.Prefixes = append(c.Prefixes, Prefix{n.VNI, p})
	}
	c.VTEPs = append(c.VTEPs, n.VNI)
}

// Update takes what a session tells. Routes above a bound are refused, see
// [Table.Told]; what one was to replace is gone.
func (t *Table) Update(u Update) (c Changes) {
	s := t.sessions[u.Session]
	if s == nil {
		s = &told{routes: map[Key]*Entry{}}
		t.sessions[u.Session] = s
	}
	for _, k := range u.Withdraw {
		t.set(s, k, nil, &c)
	}
	for _, r := range u.Announce {
		old := s.routes[r.Key]
		switch {
		case old == nil && len(s.routes) >= t.most:
			s.refused++
		case old != nil && old.Equal(&r):
			old.Stale = false
		default:
			t.set(s, r.Key, &Entry{Route: r, Session: u.Session}, &c)
		}
	}
	return c
}

// set replaces a session's route, nil for none.
func (t *Table) set(s *told, k Key, e *Entry, c *Changes) {
	if old := s.routes[k]; old != nil {
		for _, n := range t.importers(old) {
			n.remove(old, c)
		}
		delete(s.routes, k)
	}
	if e == nil {
		return
	}
	networks := t.importers(e)
	if slices.ContainsFunc(networks, func(n *network) bool { return n.crowded(e) }) {
		s.refused++
		return
	}
	for _, n := range networks {
		n.add(e, c)
	}
	s.routes[k] = e
}

// importers returns the networks that a route is for, until the next call. Those without
// targets of their own are found by the route's.
func (t *Table) importers(e *Entry) []*network {
	t.found = t.found[:0]
	for _, rt := range e.Attrs.Extended.Targets {
		if n := t.networks[rt.VNI()]; n != nil && n.Import == nil && !slices.Contains(t.found, n) && t.imports(n, e) {
			t.found = append(t.found, n)
		}
	}
	for _, n := range t.named {
		if t.imports(n, e) {
			t.found = append(t.found, n)
		}
	}
	return t.found
}

// Imported reports whether a route is taken for any network.
func (t *Table) Imported(e *Entry) bool { return len(t.importers(e)) > 0 }

// Stale marks what a session has told, or all have if it is "", as from before a
// restart. It stays in use.
func (t *Table) Stale(session string) {
	for name, s := range t.sessions {
		if session != "" && name != session {
			continue
		}
		for _, e := range s.routes {
			e.Stale = true
		}
	}
}

// Sweep drops what a session has not told again since it was marked (RFC 4724 §4.1).
func (t *Table) Sweep(session string) (c Changes) {
	if s := t.sessions[session]; s != nil {
		for k, e := range s.routes {
			if e.Stale {
				t.set(s, k, nil, &c)
			}
		}
	}
	return c
}

// Drop forgets all that a session has told.
func (t *Table) Drop(session string) (c Changes) {
	if s := t.sessions[session]; s != nil {
		for k := range s.routes {
			t.set(s, k, nil, &c)
		}
		delete(t.sessions, session)
	}
	return c
}

// Told returns how many routes of a session are kept, and how many were refused as too
// many, of all or alike.
func (t *Table) Told(session string) (kept, refused int) {
	if s := t.sessions[session]; s != nil {
		return len(s.routes), s.refused
	}
	return 0, 0
}

// Entries returns all routes, in order of network, type, distinguisher and the rest
// of the key, for an operator.
func (t *Table) Entries() []*Entry {
	var all []*Entry
	for _, s := range t.sessions {
		all = slices.AppendSeq(all, maps.Values(s.routes))
	}
	slices.SortFunc(all, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.Network(), b.Network()), cmp.Compare(a.Type, b.Type), bytes.Compare(a.MAC[:], b.MAC[:]),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
			bytes.Compare(a.RD[:], b.RD[:]), cmp.Compare(a.Tag, b.Tag), strings.Compare(a.Session, b.Session))
	})
	return all
}

// Network returns the VNI that a route names, 0 if none.
func (r *Route) Network() uint32 {
	if r.Type == TypeMulticast {
		return r.Attrs.Flood
	}
	return r.VNI
}

// Station returns the best route for a station, nil if there is none.
func (t *Table) Station(s Station) *Entry {
	if n := t.networks[s.VNI]; n != nil {
		if all := n.stations[s.MAC]; all != nil {
			return (*all)[0]
		}
	}
	return nil
}

// Host returns the best route for an address, nil if there is none.
func (t *Table) Host(h Host) *Entry {
	if n := t.networks[h.VNI]; n != nil {
		return n.hosts[h.Addr].best()
	}
	return nil
}

// Prefixes returns those that a network has routes for, in no order.
func (t *Table) Prefixes(vni uint32) (all []Prefix) {
	if n := t.networks[vni]; n != nil {
		for p := range n.prefixes {
			all = append(all, Prefix{vni, p})
		}
	}
	return all
}

// Prefix returns all routes for a prefix, the best first, not to be changed.
func (t *Table) Prefix(p Prefix) []*Entry {
	if n := t.networks[p.VNI]; n != nil {
		return n.prefixes[p.Prefix]
	}
	return nil
}

// VTEPs returns the ends of a network's tunnels, sorted, and which of them are to get
// frames for everybody.
func (t *Table) VTEPs(vni uint32) (all, flood []netip.Addr) {
	n := t.networks[vni]
	if n == nil {
		return nil, nil
	}
	return slices.SortedFunc(maps.Keys(n.vteps), netip.Addr.Compare), slices.SortedFunc(maps.Keys(n.floods), netip.Addr.Compare)
}

// imports reports whether a route is for a network: by its targets, and for bridged
// frames by the VNI that it names, which is everywhere the same (RFC 8365 §5.1.3). One
// that has been with this AS is a loop (RFC 4271 §9.1.2).
func (t *Table) imports(n *network, e *Entry) bool {
	a := e.Attrs
	if a.Extended.Other || !a.NextHop.IsValid() || e.Tag != 0 && e.Tag != n.VNI || slices.Contains(a.ASPath, t.as) {
		return false
	}
	if !slices.ContainsFunc(a.Extended.Targets, func(rt RT) bool {
		return n.Import == nil && rt.VNI() == n.VNI || slices.Contains(n.Import, rt)
	}) {
		return false
	}
	switch e.Type {
	case TypeMACIP:
		return e.VNI == n.VNI || e.routed(n.VNI)
	case TypeMulticast:
		return a.Flood == n.VNI
	}
	// By a gateway's address the label does not count (RFC 9136 §3.2).
	return e.Gateway.IsValid() || e.VNI == n.VNI && a.Extended.RouterMAC != MAC{}
}

// routed reports whether the sender takes packets in that VNI that are for its own MAC.
func (r *Route) routed(vni uint32) bool {
	return r.Routed == vni && r.Attrs.Extended.RouterMAC != MAC{}
}

// Destination returns the MAC that packets by that route are sent to in a network,
// behind its next hop: the sender's if it routes them, else the station's. A prefix
// behind a gateway has none.
func (r *Route) Destination(vni uint32) MAC {
	if r.Type == TypePrefix && !r.Gateway.IsValid() || r.Type == TypeMACIP && r.routed(vni) {
		return r.Attrs.Extended.RouterMAC
	}
	return r.MAC
}

// crowded reports whether a network has as much as it takes from e's session of what e
// is about.
func (n *network) crowded(e *Entry) bool {
	if e.Type == TypePrefix {
		return n.prefixes[e.Prefix].crowded(e.Session)
	}
	return e.Type == TypeMACIP && e.Prefix.IsValid() && n.hosts[e.Prefix.Addr()].crowded(e.Session)
}

func (n *network) add(e *Entry, c *Changes) {
	n.change(e, c, ranked.with, 1)
}

func (n *network) remove(e *Entry, c *Changes) {
	n.change(e, c, ranked.without, -1)
}

func (n *network) change(e *Entry, c *Changes, op func(ranked, *Entry) ranked, by int) {
	switch e.Type {
	case TypeMACIP:
		if e.VNI == n.VNI && n.station(e, by) {
			c.Stations = append(c.Stations, Station{n.VNI, e.MAC})
		}
		if e.Prefix.IsValid() && replace(n.hosts, e.Prefix.Addr(), e, op) {
			c.Hosts = append(c.Hosts, Host{n.VNI, e.Prefix.Addr()})
		}
	case TypeMulticast:
		if count(n.floods, e.Attrs.NextHop, by) {
			c.VTEPs = append(c.VTEPs, n.VNI)
		}
	case TypePrefix:
		replace(n.prefixes, e.Prefix, e, op)
		c.Prefixes = append(c.Prefixes, Prefix{n.VNI, e.Prefix}) // equal ones are used together
	}
	if count(n.vteps, e.Attrs.NextHop, by) {
		c.VTEPs = append(c.VTEPs, n.VNI)
	}
}

// byRank are the routes for a station, of any number, as a heap with the best first. Each is in
// one network's alone, that of its VNI.
type byRank []*Entry

func (h byRank) Len() int           { return len(h) }
func (h byRank) Less(i, j int) bool { return better(h[i], h[j]) < 0 }

func (h byRank) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *byRank) Push(e any) {
	e.(*Entry).at = len(*h)
	*h = append(*h, e.(*Entry))
}

func (h *byRank) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

// station adds a route to its station's or removes it, and reports whether the best has
// changed.
func (n *network) station(e *Entry, by int) bool {
	h := n.stations[e.MAC]
	if h == nil {
		n.stations[e.MAC] = &byRank{e}
		e.at = 0
		return true
	}
	best := (*h)[0]
	if by > 0 {
		heap.Push(h, e)
	} else if heap.Remove(h, e.at); len(*h) == 0 {
		delete(n.stations, e.MAC)
		return true
	}
	return (*h)[0] != best
}

// replace applies op to what m has for k, and reports whether the best has changed.
func replace[K comparable](m map[K]ranked, k K, e *Entry, op func(ranked, *Entry) ranked) bool {
	best := m[k].best()
	now := op(m[k], e) // in place
	if m[k] = now; len(now) == 0 {
		delete(m, k)
	}
	return best != now.best()
}

// count reports whether k has come or gone.
func count(m map[netip.Addr]int, k netip.Addr, by int) bool {
	was := m[k]
	if m[k] = was + by; m[k] == 0 {
		delete(m, k)
	}
	return was == 0 || was+by == 0
}

func (l ranked) best() *Entry {
	if len(l) == 0 {
		return nil
	}
	return l[0]
}

func (l ranked) with(e *Entry) ranked {
	i, _ := slices.BinarySearchFunc(l, e, better)
	return slices.Insert(l, i, e)
}

func (l ranked) without(e *Entry) ranked {
	if i, found := slices.BinarySearchFunc(l, e, better); found {
		l = slices.Delete(l, i, i+1)
	}
	return l
}

func (l ranked) crowded(session string) bool {
	if len(l) < mostAlike {
		return false
	}
	n := 0
	for _, e := range l {
		if e.Session == session {
			n++
		}
	}
	return n >= mostAlike
}

// better is negative if a is: a station that is not to move, then the latest move,
// then the lowest address (RFC 7432 §15.1); the rest is for a definite order, in which no
// two routes of a station, address or prefix are equal.
func better(a, b *Entry) int {
	x, y := &a.Attrs.Extended, &b.Attrs.Extended
	if x.Sticky != y.Sticky {
		if x.Sticky {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(y.Sequence, x.Sequence), a.Attrs.NextHop.Compare(b.Attrs.NextHop),
		bytes.Compare(a.RD[:], b.RD[:]), bytes.Compare(a.MAC[:], b.MAC[:]), a.Prefix.Addr().Compare(b.Prefix.Addr()),
		cmp.Compare(a.Tag, b.Tag), strings.Compare(a.Session, b.Session))
}
