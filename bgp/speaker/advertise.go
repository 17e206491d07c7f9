package speaker

import (
	"net/netip"

	"msee/bgp"
)

// What we advertise: the Adj-RIB-Out as the edge has it, encoded here. Every
// path and attribute that leaves is the edge's decision, and nothing received
// can be sent on behind its back.

// atOnce is the weight of the routes that are taken from the table at a time.
const atOnce = 4096

// advertise changes the Adj-RIB-Out.
func (s *session) advertise(u *bgp.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range u.Withdraw {
		delete(s.routes, p)
	}
	for _, r := range u.Announce {
		s.routes[r.Prefix] = r.Attrs
	}
	if s.cur == nil { // a new connection is told everything anyway
		return
	}
	for _, p := range u.Withdraw {
		s.dirty.set(p, struct{}{})
	}
	for _, r := range u.Announce {
		s.dirty.set(r.Prefix, struct{}{})
	}
	s.wakeTellerLocked()
}

// refresh sends all of it again (RFC 2918 §4).
func (s *session) refresh(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == c {
		s.allDirtyLocked()
		s.wakeTellerLocked()
	}
}

// allDirtyLocked has the connection told everything, and no withdrawals of what it has
// never heard.
func (s *session) allDirtyLocked() { s.dirty, s.evpnDirty = keys(s.routes), keysEVPN(s.evpnOut) }

func (s *session) wakeTellerLocked() {
	if s.cur == nil {
		return
	}
	select {
	case s.cur.wake <- struct{}{}:
	default:
	}
}

// tell advertises over c until it is gone: first the whole table, then what
// changes.
func (s *session) tell(c *conn) {
	for _, ready := range []chan struct{}{c.established, c.confirmed} {
		select {
		case <-ready:
		case <-c.gone:
			return
		}
	}
	s.mu.Lock()
	o := c.open
	s.allDirtyLocked()
	s.mu.Unlock()
	w := &updateWriter{local: s.cfg.Local, as: s.cfg.LocalAS, fourOctets: o.fourOctets}
	next, end := s.nextUpdates, w.endOfRIB
	if s.cfg.EVPN {
		next, end = s.nextEVPN, w.endOfEVPN
	}
	family, _ := s.family()
	told := s.told // the End-of-RIB is due when it closes; nil when it is out
	if !o.carries(family) {
		told = nil
	}
	all := false
	for {
		b, more := next(w, c)
		if !more && all {
			b, told, all = end(b), nil, false
		}
		if len(b) > 0 {
			if err := c.send(b, s.cfg.Hold); err != nil {
				s.sendFailed(c, err)
				return
			}
		}
		if more || all {
			continue
		}
		select {
		case <-c.wake:
		case <-told:
			all = true // what it covers is in the table by now
		case <-c.gone:
			return
		}
	}
}

// nextUpdates encodes some of what changed and reports whether more is left.
func (s *session) nextUpdates(w *updateWriter, c *conn) (b []byte, more bool) {
	groups := make(map[*bgp.Attrs][]netip.Prefix)
	var order []*bgp.Attrs
	var withdraw []netip.Prefix
	s.mu.Lock()
	if s.cur != c {
		s.mu.Unlock()
		return nil, false
	}
	s.dirty.take(atOnce, func(p netip.Prefix, _ struct{}) int {
		a := s.routes[p]
		switch {
		case p.Addr().Is4() != w.local.Is4():
		case a == nil:
			withdraw = append(withdraw, p)
		default:
			if groups[a] == nil {
				order = append(order, a)
			}
			groups[a] = append(groups[a], p)
		}
		return weight(a)
	})
	more = s.dirty.len() > 0
	s.mu.Unlock()
	for _, a := range order {
		var err error
		if b, err = w.announce(b, groups[a], a); err != nil {
			s.log.Error("advertise", "prefixes", len(groups[a]), "err", err)
			withdraw = append(withdraw, groups[a]...) // what was announced before is no longer so
		}
	}
	return w.withdraw(b, withdraw), more
}
