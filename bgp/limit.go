package bgp

// exceeds reports whether the peer has announced more prefixes than it may
// (RFC 4486 §4). Refused ones count: they are held as well. While there may be
// stale ones, as many of them may come on top: it could have changed them all.
func (p *peer) exceeds() bool {
	most := p.cfg.MaxPrefixes
	if p.stale {
		most *= 2
	}
	return most > 0 && p.counts.Received > most
}

// settleLimits drops the routes of the sessions that have gone over their limit
// and settles. A session is reported once: it has no routes after that.
func (r *RIB) settleLimits() Changes {
	var exceeded []string
	for _, p := range r.peers {
		if p.over && p.counts.Received > 0 {
			r.removeAll(p, func(*path) bool { return true })
			p.stale = false
			exceeded = append(exceeded, p.cfg.Name)
		}
	}
	c := r.settle()
	c.Exceeded = exceeded
	return c
}

// LimitWarning is the share of a limit, in percent, from which on it is said to
// be near.
const LimitWarning = 80

// LimitState says how near a number is to a limit.
type LimitState string

// The states of a limit.
const (
	LimitOK      LimitState = "ok"
	LimitNear    LimitState = "near"     // LimitWarning percent or more
	LimitReached LimitState = "exceeded" // the session is or was ended for it
)

// Near reports whether n is LimitWarning percent of limit or more; of no limit
// nothing is.
func Near(n, limit int) bool { return limit > 0 && 100*n >= LimitWarning*limit }
