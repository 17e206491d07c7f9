package speaker

import (
	"net/netip"
	"sync"

	"msee/bgp"
	"msee/bgp/evpn"
)

// outbox holds what a slow reader has yet to hear. It never blocks the writer
// and is bounded by the number of sessions and prefixes, because it keeps only
// the newest word on each. What a reader must not miss stays apart: that a
// session left Established, for the routes before it are void then.
type outbox struct {
	mu        sync.Mutex
	ready     chan struct{} // has an item when there may be something to pop
	restarted bool
	pending   map[string]*news
	queue     []string // names in pending, in the order they came
}

// news is what is pending of one session, in the order in which it is told.
type news struct {
	// before are changes from before it went down, if its routes are retained:
	// what was withdrawn must not be kept as stale.
	before changes
	down   *bgp.SessionStatus // it left Established
	status *bgp.SessionStatus
	routes changes
	eor    bool
}

// changes of a session's routes, of the one kind that it has; nil: withdrawn.
type changes struct {
	ip   queue[netip.Prefix, *bgp.Attrs]
	evpn queue[evpn.Key, evpnWord]
}

func (c *changes) len() int { return c.ip.len() + c.evpn.len() }

func newOutbox() *outbox {
	return &outbox{ready: make(chan struct{}, 1), pending: make(map[string]*news)}
}

func (o *outbox) signalLocked() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) newsLocked(session string) *news {
	n := o.pending[session]
	if n == nil {
		n = &news{}
		o.pending[session] = n
		o.queue = append(o.queue, session)
	}
	o.signalLocked()
	return n
}

// restart forgets everything: a new speaker begins.
func (o *outbox) restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.restarted = true
	o.pending = make(map[string]*news)
	o.queue = nil
	o.signalLocked()
}

func (o *outbox) status(s bgp.SessionStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.newsLocked(s.Session)
	if s.State == bgp.StateEstablished {
		n.status = &s
		return
	}
	switch {
	case s.Retain == 0:
		n.before = changes{}
	case n.down == nil && n.status == nil:
		n.before = n.routes
	case n.down != nil && n.down.Retain == 0:
		s.Retain = 0 // of a life of which the reader has heard nothing
	}
	n.routes, n.eor = changes{}, false
	n.down, n.status = &s, nil
}

func (o *outbox) update(u *bgp.Update) {
	if len(u.Announce)+len(u.Withdraw) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.newsLocked(u.Session)
	for _, p := range u.Withdraw {
		n.routes.ip.set(p, nil)
	}
	for _, r := range u.Announce {
		n.routes.ip.set(r.Prefix, r.Attrs)
	}
}

func (o *outbox) updateEVPN(u *evpn.Update) {
	if len(u.Announce)+len(u.Withdraw) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.newsLocked(u.Session)
	for _, k := range u.Withdraw {
		n.routes.evpn.set(k, evpnWord{})
	}
	for i := range u.Announce {
		r := &u.Announce[i]
		n.routes.evpn.set(r.Key, evpnWord{r.VNI, r.Routed, r.Gateway, r.Attrs})
	}
}

func (o *outbox) endOfRIB(session string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.newsLocked(session).eor = true
}

// pop takes the next event, false if there is none. Sessions take turns.
func (o *outbox) pop() (bgp.Event, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.restarted {
		o.restarted = false
		o.signalLocked()
		return bgp.Event{Restarted: true}, true
	}
	if len(o.queue) == 0 {
		return bgp.Event{}, false
	}
	session := o.queue[0]
	o.queue = o.queue[1:]
	n := o.pending[session]
	e := n.pop(session)
	if n.empty() {
		delete(o.pending, session)
	} else {
		o.queue = append(o.queue, session)
	}
	o.signalLocked()
	return e, true
}

func (n *news) empty() bool {
	return n.before.len() == 0 && n.down == nil && n.status == nil && n.routes.len() == 0 && !n.eor
}

func (n *news) pop(session string) bgp.Event {
	switch {
	case n.before.len() > 0:
		return n.before.pop(session)
	case n.down != nil:
		s := n.down
		n.down = nil
		return bgp.Event{Status: s}
	case n.status != nil:
		s := n.status
		n.status = nil
		return bgp.Event{Status: s}
	case n.routes.len() > 0:
		return n.routes.pop(session)
	default:
		n.eor = false
		return bgp.Event{EndOfRIB: session}
	}
}

func (c *changes) pop(session string) bgp.Event {
	if c.ip.len() > 0 {
		return bgp.Event{Update: takeRoutes(session, &c.ip)}
	}
	return bgp.Event{EVPN: takeEVPN(session, &c.evpn)}
}

// takeRoutes moves changes of up to maxRoutes weight out of q.
func takeRoutes(session string, q *queue[netip.Prefix, *bgp.Attrs]) *bgp.Update {
	u := &bgp.Update{Session: session}
	q.take(maxRoutes, func(p netip.Prefix, a *bgp.Attrs) int {
		if a == nil {
			u.Withdraw = append(u.Withdraw, p)
		} else {
			u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: a})
		}
		return weight(a)
	})
	return u
}
