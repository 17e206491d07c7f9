package bgp

import (
	"net/netip"
	"slices"
	"testing"
)

// many announces n prefixes of a customer, from the first on.
func many(p *Peer, first, n int) Update {
	u := Update{Session: p.Name}
	a := &Attrs{NextHop: p.Addr, ASPath: []uint32{p.AS}}
	for i := first; i < first+n; i++ {
		u.Announce = append(u.Announce, Route{netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24), a})
	}
	return u
}

// TestLimit: limit−1 and limit prefixes are fine, one more ends the session.
func TestLimit(t *testing.T) {
	const limit = 4000
	customer := customer4
	customer.MaxPrefixes = limit
	for _, parts := range [][]int{{limit - 1}, {limit}, {limit - 1, 1}, {limit + 1}, {limit, 1}, {limit, 600}} {
		r := NewRIB(PrivatePeering(), []Peer{customer, gatewayA0})
		r.Apply(announce(&gatewayA0, "10.1.0.0/16", ASGateway))
		sum := 0
		var c Changes
		for _, n := range parts {
			c = r.Apply(many(&customer, sum, n))
			sum += n
		}
		got := r.Counts("ce4").Received
		if sum <= limit {
			if got != sum || c.Exceeded != nil {
				t.Errorf("%v: %d received, exceeded %v", parts, got, c.Exceeded)
			}
			continue
		}
		if got != 0 || !slices.Equal(c.Exceeded, []string{"ce4"}) || r.Len() != 1 || len(r.AdjRIBOut("gwA0")) != 0 {
			t.Errorf("%v: %d received, exceeded %v, %d prefixes, gateway is told %d", parts, got, c.Exceeded, r.Len(), len(r.AdjRIBOut("gwA0")))
		}
		// Those announced before go from the FIB and from the gateway, in the
		// update that reports it; those of this one never got there.
		if want := parts[0]; len(parts) > 1 && (len(c.Routes) != want || len(c.Updates[0].Withdraw) != want || len(c.Updates[0].Announce) != 0) {
			t.Errorf("%v: %d routes change, want %d", parts, len(c.Routes), want)
		}
		expect(t, "what it says on is ignored", r.Apply(many(&customer, sum, 1)))
		expect(t, "down", r.Down("ce4"))
		if c := r.Apply(many(&customer, 0, limit)); c.Exceeded != nil || r.Counts("ce4").Received != limit {
			t.Errorf("%v: back with %d prefixes, exceeded %v", parts, r.Counts("ce4").Received, c.Exceeded)
		}
	}
}

// TestLimitCounts: what counts is prefixes held, not announcements.
func TestLimitCounts(t *testing.T) {
	customer := customer4
	customer.MaxPrefixes = 2
	r := NewRIB(PrivatePeering(), []Peer{customer, customer6})
	r.Apply(many(&customer, 0, 2))
	for range 3 {
		if c := r.Apply(Update{Session: "ce4", Withdraw: []netip.Prefix{many(&customer, 0, 1).Announce[0].Prefix}, Announce: many(&customer, 2, 1).Announce}); c.Exceeded != nil {
			t.Fatal("a withdrawal in the same update does not count")
		}
		r.Apply(Update{Session: "ce4", Withdraw: []netip.Prefix{many(&customer, 2, 1).Announce[0].Prefix}, Announce: many(&customer, 0, 1).Announce})
	}
	r.Apply(announce(&customer6, "2001:db8:100::/48", 64512))
	if got := r.Counts("ce4").Received; got != 2 {
		t.Fatalf("%d received, want 2", got)
	}
	if c := r.Apply(announce(&customer, "127.0.0.0/8", 64512)); !slices.Equal(c.Exceeded, []string{"ce4"}) {
		t.Error("a refused prefix does not count")
	}
	if r.Counts("ce6").Received != 1 {
		t.Error("another session lost its routes")
	}
}

// TestLimitChanges: a limit below what there is ends the session; a higher one
// lets it be.
func TestLimitChanges(t *testing.T) {
	customer := customer4
	r := NewRIB(PrivatePeering(), []Peer{customer})
	r.Apply(many(&customer, 0, 10))
	for _, step := range []struct{ limit, left int }{{10, 10}, {11, 10}, {9, 0}} {
		customer.MaxPrefixes = step.limit
		c := r.SetPeers([]Peer{customer})
		if got := r.Counts("ce4").Received; got != step.left || (len(c.Exceeded) == 1) != (step.left == 0) {
			t.Errorf("limit %d: %d left, exceeded %v", step.limit, got, c.Exceeded)
		}
	}
}

// TestLimitAfterRestart: a speaker that was restarted may announce other
// prefixes than the stale ones; only what is left after the sweep counts.
func TestLimitAfterRestart(t *testing.T) {
	customer := customer4
	customer.MaxPrefixes = 10
	for fresh, exceeded := range map[int]bool{10: false, 11: true} {
		r := NewRIB(PrivatePeering(), []Peer{customer})
		r.Apply(many(&customer, 0, 10))
		r.MarkStale()
		if c := r.Apply(many(&customer, 5, fresh)); c.Exceeded != nil {
			t.Errorf("%d new: exceeded before the sweep", fresh)
		}
		if c := r.Sweep("ce4"); (len(c.Exceeded) == 1) != exceeded {
			t.Errorf("%d new: exceeded %v after the sweep", fresh, c.Exceeded)
		}
	}
}

// TestLimitWhileStale: a peer that does not say that its table is told may have
// its stale routes and as many others, not any number.
func TestLimitWhileStale(t *testing.T) {
	customer := customer4
	customer.MaxPrefixes = 10
	r := NewRIB(PrivatePeering(), []Peer{customer})
	r.Apply(many(&customer, 0, 10))
	r.Retain("ce4")
	if c := r.Apply(many(&customer, 10, 10)); c.Exceeded != nil {
		t.Error("10 stale and 10 new ones exceed the limit of 10 before the sweep")
	}
	if c := r.Apply(many(&customer, 20, 1)); len(c.Exceeded) != 1 {
		t.Error("10 stale and 11 new ones do not exceed the limit of 10")
	}
}

// TestLimitAfterWithdrawals: a session that withdraws all its stale routes has
// none, and the limit counts from there.
func TestLimitAfterWithdrawals(t *testing.T) {
	for what, end := range map[string]func(*RIB) Changes{
		"sweep": func(r *RIB) Changes { return r.Sweep("ce4") },
		"down":  func(r *RIB) Changes { return r.Down("ce4") },
	} {
		customer := customer4
		customer.MaxPrefixes = 10
		r := NewRIB(PrivatePeering(), []Peer{customer})
		r.Apply(many(&customer, 0, 1))
		r.Retain("ce4")
		r.Apply(Update{Session: "ce4", Withdraw: []netip.Prefix{many(&customer, 0, 1).Announce[0].Prefix}})
		end(r)
		if c := r.Apply(many(&customer, 0, 11)); len(c.Exceeded) != 1 {
			t.Errorf("%s: 11 prefixes do not exceed the limit of 10", what)
		}
	}
}

func TestNear(t *testing.T) {
	for _, c := range []struct {
		n, limit int
		want     bool
	}{{79, 100, false}, {80, 100, true}, {3199, 4000, false}, {3200, 4000, true}, {1 << 40, 0, false}} {
		if Near(c.n, c.limit) != c.want {
			t.Errorf("Near(%d, %d) = %v", c.n, c.limit, !c.want)
		}
	}
}
