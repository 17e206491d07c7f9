package bgp

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestArrivalOrder: the same routes in any order, in pieces of any size, end in
// the same RIB.
func TestArrivalOrder(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := worlds()[seed%3]
		var updates []Update
		last := w.peers[len(w.peers)-1] // that tells several routes
		told := randomPaths(r, w, last)
		for _, p := range w.peers[:len(w.peers)-1] {
			for _, prefix := range w.prefixes {
				updates = append(updates, Update{Session: p.Name, Announce: []Route{{prefix, randomAttrs(r, p)}}})
			}
		}
		var first string
		for range 4 {
			rib := NewRIB(w.policy, w.peers)
			r.Shuffle(len(updates), func(i, j int) { updates[i], updates[j] = updates[j], updates[i] })
			for _, u := range updates {
				rib.Apply(u)
			}
			for _, x := range told {
				r.Shuffle(len(x.Attrs), func(i, j int) { x.Attrs[i], x.Attrs[j] = x.Attrs[j], x.Attrs[i] })
				rib.Replace(last.Name, []Paths{x})
			}
			got := account(rib, w.peers)
			if first == "" {
				first = got
			} else if got != first {
				t.Fatalf("seed %d:\n%s\n%s", seed, first, got)
			}
		}
	}
}

func account(rib *RIB, peers []Peer) string {
	s := ""
	for prefix, candidates := range rib.Routes() {
		for _, c := range candidates {
			s += fmt.Sprintf("%v %s %+v %s %q\n", prefix, c.Peer.Name, *c.Attrs, c.State, c.Why)
		}
	}
	for _, p := range peers {
		for _, route := range rib.AdjRIBOut(p.Name) {
			s += fmt.Sprintf("%s %v %+v\n", p.Name, route.Prefix, *route.Attrs)
		}
	}
	return s
}
