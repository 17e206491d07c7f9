package speaker

import (
	"net/netip"
	"slices"

	"msee/bgp"
	"msee/bgp/evpn"
)

// What is advertised: each session's Adj-RIB-Out, and what of it the process has not been
// told yet.

// Advertise changes a session's Adj-RIB-Out. What changes nothing is not sent.
// The attributes must not change afterwards. Their ASPath is what follows our
// own AS; without a NextHop the session's local address is sent.
func (s *Speaker) Advertise(u bgp.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	routes, dirty := withdraw(s.routes, s.dirty, u.Session, u.Withdraw)
	for _, r := range u.Announce {
		if old := routes[r.Prefix]; r.Attrs != nil && (old == nil || !equal(old, r.Attrs)) {
			routes[r.Prefix] = r.Attrs
			dirty.set(r.Prefix, struct{}{})
		}
	}
	s.wakeUp()
}

// AdvertiseEVPN is Advertise for an EVPN session.
func (s *Speaker) AdvertiseEVPN(u evpn.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advertiseEVPNLocked(u)
}

// ReplaceEVPN makes routes the whole Adj-RIB-Out of an EVPN session.
func (s *Speaker) ReplaceEVPN(session string, routes []evpn.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := evpn.Update{Session: session, Announce: routes}
	wanted := make(map[evpn.Key]struct{}, len(routes))
	for i := range routes {
		wanted[routes[i].Key] = struct{}{}
	}
	for k := range s.evpn[session] {
		if _, ok := wanted[k]; !ok {
			u.Withdraw = append(u.Withdraw, k)
		}
	}
	s.advertiseEVPNLocked(u)
}

func (s *Speaker) advertiseEVPNLocked(u evpn.Update) {
	routes, dirty := withdraw(s.evpn, s.evpnDirty, u.Session, u.Withdraw)
	for i := range u.Announce {
		r := &u.Announce[i]
		if old, ok := routes[r.Key]; !ok || !old.Equal(r) {
			routes[r.Key] = *r
			dirty.set(r.Key, struct{}{})
		}
	}
	s.wakeUp()
}

// withdraw takes keys out of a session's Adj-RIB-Out, and returns it with what of it has not
// been told.
func withdraw[K comparable, R any](all map[string]map[K]R, untold map[string]*queue[K, struct{}], session string, keys []K) (map[K]R, *queue[K, struct{}]) {
	routes, dirty := all[session], untold[session]
	if routes == nil {
		routes = make(map[K]R)
		all[session] = routes
	}
	if dirty == nil {
		dirty = new(queue[K, struct{}])
		untold[session] = dirty
	}
	for _, k := range keys {
		if _, ok := routes[k]; ok {
			delete(routes, k)
			dirty.set(k, struct{}{})
		}
	}
	return routes, dirty
}

func equal(a, b *bgp.Attrs) bool {
	return a == b || a.NextHop == b.NextHop && a.Origin == b.Origin && a.MED == b.MED && a.HasMED == b.HasMED &&
		slices.Equal(a.ASPath, b.ASPath) && slices.Equal(a.Communities, b.Communities)
}

// keys queues all prefixes of a table, those with the same attributes together.
func keys(routes map[netip.Prefix]*bgp.Attrs) *queue[netip.Prefix, struct{}] {
	return together(routes, func(a *bgp.Attrs) *bgp.Attrs { return a })
}

// keysEVPN is keys for EVPN.
func keysEVPN(routes map[evpn.Key]evpn.Route) *queue[evpn.Key, struct{}] {
	return together(routes, func(r evpn.Route) *evpn.Attrs { return r.Attrs })
}

func together[K, A comparable, R any](routes map[K]R, attrs func(R) A) *queue[K, struct{}] {
	byAttrs := make(map[A][]K)
	for p, r := range routes {
		a := attrs(r)
		byAttrs[a] = append(byAttrs[a], p)
	}
	q := new(queue[K, struct{}])
	for _, prefixes := range byAttrs {
		for _, p := range prefixes {
			q.set(p, struct{}{})
		}
	}
	return q
}
