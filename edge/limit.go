package edge

import (
	"fmt"
	"time"

	"msee/bgp"
)

// limitHold names the hold on a session that announced too many prefixes.
const limitHold = "prefix limit"

// limit is what the control loop keeps of a session's limit on prefixes.
type limit struct {
	near     bool      // said to be near
	exceeded int       // how often it was exceeded
	until    time.Time // when the session is let up again; zero if it is not held
}

// limitExceeded takes a session down that announced too many prefixes. How long
// Azure keeps it down is not published: it comes back when there are fewer, and
// how many there are shows only when it is up. So it is tried again now and
// then.
func (e *Edge) limitExceeded(name string) {
	s := e.sessions[name]
	if s == nil {
		return
	}
	s.limit.exceeded++
	s.limit.near = false
	s.limit.until = time.Now().Add(e.device.PrefixRetry)
	why := fmt.Sprintf("sent Cease / maximum number of prefixes reached (6/1): the peer announced more than %d prefixes; every %v it is tried whether there are fewer",
		s.cfg.MaxPrefixes, e.device.PrefixRetry)
	if s.cfg.Carrier != "" { // other networks' routes go by that session, so it stays
		e.log.Error("BGP prefix limit exceeded; none of the neighbour's IP prefix routes counts", "session", name, "limit", s.cfg.MaxPrefixes, "retry", e.device.PrefixRetry)
		s.vrf.reviewAll()
		return
	}
	e.log.Error("BGP prefix limit exceeded; session ended", "session", name, "limit", s.cfg.MaxPrefixes, "retry", e.device.PrefixRetry)
	e.speaker.Hold(name, bgp.Hold{By: limitHold, Cease: bgp.CeaseMaxPrefixes, Why: why})
}

// watchLimit warns once when a session comes near its limit, and again only
// after it was farther away.
func (e *Edge) watchLimit(s *session) {
	received := s.vrf.rib.Counts(s.cfg.Name).Received
	near := bgp.Near(received, s.cfg.MaxPrefixes)
	if near && !s.limit.near {
		e.log.Warn("BGP prefix limit is near", "session", s.cfg.Name, "received", received, "limit", s.cfg.MaxPrefixes)
	}
	s.limit.near = near
}

// releaseLimits lets sessions up whose time is over.
func (e *Edge) releaseLimits(now time.Time) {
	for _, s := range e.sessions {
		if !s.limit.until.IsZero() && !now.Before(s.limit.until) {
			s.releaseLimit(e)
		}
	}
}

func (s *session) releaseLimit(e *Edge) {
	s.limit.until = time.Time{}
	// It is down, but if the speaker died meanwhile the RIB has not heard so.
	e.down(s)
	e.speaker.Release(s.cfg.Name, limitHold)
}

// LimitStatus is how many prefixes a session may announce, and how near that is.
type LimitStatus struct {
	Limit    int            `json:"limit"`    // 0: none
	Headroom int            `json:"headroom"` // so many more may come; 0 without a limit
	State    bgp.LimitState `json:"state"`
	Exceeded int            `json:"exceeded"` // how often
	RetryAt  *time.Time     `json:"retryAt,omitempty"`
}

func (s *session) limitStatus(received int) LimitStatus {
	l := LimitStatus{Limit: s.cfg.MaxPrefixes, Headroom: max(0, s.cfg.MaxPrefixes-received), State: bgp.LimitOK, Exceeded: s.limit.exceeded}
	switch {
	case !s.limit.until.IsZero():
		until := s.limit.until
		l.State, l.RetryAt = bgp.LimitReached, &until
	case bgp.Near(received, s.cfg.MaxPrefixes):
		l.State = bgp.LimitNear
	}
	return l
}
