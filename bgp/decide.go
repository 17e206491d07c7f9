package bgp

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
)

// MaxPaths is how many equal routes share a prefix's traffic (ECMP).
const MaxPaths = 8

// tieBreak is one step of the decision process (RFC 4271 §9.1.2.2): of two
// routes to one prefix the one whose value is greater is better.
type tieBreak struct {
	name  string
	value func(*path) int
	sign  string // between the two values in an explanation; "" if they say nothing
}

// tieBreaks is the decision, in order: first the connection's weight, then the
// length of the AS path, as Azure documents it. Routes that none of these tells
// apart are used together, ordered by peer address.
//
// ORIGIN and MED do not count: that an MSEE looks at them is not documented,
// and no peer of one AS gives it cause to.
var tieBreaks = [...]tieBreak{
	{"local origin", localOrigin, ""},
	{"higher connection weight", connectionWeight, ">"},
	{"shorter AS path", shortPath, "<"},
	{"gateway before customer", fromGateway, ""},
}

func localOrigin(p *path) int { return oneIf(p.peer.cfg.Side == SideLocal) }

func connectionWeight(p *path) int { return p.peer.cfg.Weight }

func shortPath(p *path) int { return -len(p.attrs.ASPath) }

// fromGateway keeps a customer who announces a VNet's prefix from getting half
// of its flows back: an ECMP set has only one side. (Not documented by Azure.)
func fromGateway(p *path) int { return oneIf(p.peer.cfg.Side == SideGateway) }

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// decidedBy returns the first tie-break that tells a and b apart, or nil.
func decidedBy(a, b *path) *tieBreak {
	for i := range tieBreaks {
		if t := &tieBreaks[i]; t.value(a) != t.value(b) {
			return t
		}
	}
	return nil
}

// comparePaths orders accepted routes before refused ones, then better before
// worse, then by peer, then by next hop: a total order, whatever came first.
func comparePaths(a, b *path) int {
	if c := cmp.Compare(oneIf(a.reason != ""), oneIf(b.reason != "")); c != 0 {
		return c
	}
	if a.reason == "" {
		if t := decidedBy(a, b); t != nil {
			return cmp.Compare(t.value(b), t.value(a))
		}
	}
	if a.peer != b.peer {
		return cmp.Or(a.peer.cfg.Addr.Compare(b.peer.cfg.Addr), strings.Compare(a.peer.cfg.Name, b.peer.cfg.Name))
	}
	x, y := &a.in.Attrs, &b.in.Attrs
	return cmp.Or(x.NextHop.Compare(y.NextHop), bytes.Compare(x.MAC[:], y.MAC[:]), strings.Compare(a.in.key, b.in.key))
}

// decide puts e's routes in order and counts its multipath set, which are the
// first. Insertion, as they are few and nearly in order, and as slices.SortFunc
// would copy two routes to the heap for each comparison.
func (e *entry) decide() {
	for i := range e.paths {
		for j := i; j > 0 && comparePaths(&e.paths[j], &e.paths[j-1]) < 0; j-- {
			e.paths[j], e.paths[j-1] = e.paths[j-1], e.paths[j]
		}
	}
	e.multipath = 0
	for i := range e.paths[:min(len(e.paths), MaxPaths)] {
		if e.paths[i].reason != "" || decidedBy(&e.paths[0], &e.paths[i]) != nil {
			break
		}
		e.multipath++
	}
}

// PathState is a route's part in the decision.
type PathState string

const (
	PathBest    PathState = "best"    // used, and what is announced
	PathECMP    PathState = "ecmp"    // used beside the best
	PathLost    PathState = "lost"    // accepted but not used
	PathRefused PathState = "refused" // by import policy
)

// Candidate is one route to a prefix and what became of it.
type Candidate struct {
	Peer     Peer   // Side is SideLocal and the rest zero if this device originates it
	Attrs    *Attrs // after import; as received if refused
	Received *Attrs
	State    PathState
	Why      string // in words: the tie-break that decided, or the Reason of the refusal
	Stale    bool   // from before the speaker's restart
}

// candidates explains e, in order of preference.
func (e *entry) candidates() []Candidate {
	out := make([]Candidate, len(e.paths))
	for i := range e.paths {
		p := &e.paths[i]
		state, why := e.explain(i)
		out[i] = Candidate{
			Peer: *p.peer.cfg, Attrs: &p.attrs.Attrs, Received: &p.in.Attrs,
			State: state, Why: why, Stale: p.generation != p.peer.generation,
		}
	}
	return out
}

func (e *entry) explain(i int) (PathState, string) {
	p := &e.paths[i]
	switch {
	case p.reason != "":
		return PathRefused, string(p.reason)
	case i == 0:
		return PathBest, e.whyBest()
	case i < e.multipath:
		return PathECMP, "equal to the best"
	}
	return PathLost, whyBetter(&e.paths[0], p)
}

// whyBest says what the best route has over the first one that is not used.
func (e *entry) whyBest() string {
	switch {
	case e.multipath < len(e.paths) && e.paths[e.multipath].reason == "":
		return whyBetter(&e.paths[0], &e.paths[e.multipath])
	case e.multipath > 1:
		return fmt.Sprintf("lowest peer address of %d equal routes", e.multipath)
	}
	return "only route"
}

// whyBetter words the tie-break between two accepted routes, for example
// "shorter AS path: 1 < 3".
func whyBetter(best, lost *path) string {
	t := decidedBy(best, lost)
	switch {
	case t == nil:
		return fmt.Sprintf("lower peer address of more than %d equal routes", MaxPaths)
	case t.sign == "":
		return t.name
	}
	b, l := t.value(best), t.value(lost)
	if t.sign == "<" {
		b, l = -b, -l
	}
	return fmt.Sprintf("%s: %d %s %d", t.name, b, t.sign, l)
}
