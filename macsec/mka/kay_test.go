package mka

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/macsec"
)

var allSuites = []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256}

// TestTwo brings up two stations, for every suite and confidentiality.
func TestTwo(t *testing.T) {
	for _, suite := range allSuites {
		for conf := macsec.IntegrityOnly; conf <= macsec.Confidentiality50; conf++ {
			if suite.XPN() && conf > macsec.Confidentiality0 {
				continue
			}
			t.Run(fmt.Sprint(suite, " ", conf), func(t *testing.T) {
				n := newNetwork(t, 1)
				cfg := Config{Suites: []macsec.CipherSuite{suite}, Confidentiality: conf}
				low := cfg
				cfg.Priority, low.Priority = 10, 5
				a, b := n.add(1, cfg, primaryKey), n.add(2, low, primaryKey)
				n.secured(time.Second)
				n.lossless("start")
				if !b.kay.principal.serves || a.kay.principal.serves {
					t.Error("the lower priority is not key server")
				}
				sa := a.sas[a.transmit]
				if sa.Suite != suite || sa.Confidentiality != conf {
					t.Errorf("%s, %s, want %s, %s", sa.Suite, sa.Confidentiality, suite, conf)
				}
			})
		}
	}
}

// TestElection checks who becomes key server.
func TestElection(t *testing.T) {
	for _, c := range []struct {
		priorities []uint8 // of stations 1, 2, 3, by rising SCI
		server     int     // -1 for none
	}{
		{[]uint8{5, 5}, 0}, {[]uint8{5, 4}, 1}, {[]uint8{255, 200}, 1}, {[]uint8{255, 255}, -1},
		{[]uint8{9, 9, 9}, 0}, {[]uint8{9, 8, 7}, 2}, {[]uint8{255, 255, 0}, 2},
	} {
		n := newNetwork(t, 2)
		for i, p := range c.priorities {
			n.add(byte(i+1), Config{Priority: p}, primaryKey)
		}
		if c.server < 0 {
			n.run(10 * time.Second)
			for _, s := range n.stations {
				if st := s.kay.Status(n.now); st.Secured || !strings.Contains(st.Reason, "nobody wants to be key server") {
					t.Errorf("%v: secured %v, %q", c.priorities, st.Secured, st.Reason)
				}
			}
			continue
		}
		n.secured(10 * time.Second)
		for i, s := range n.stations {
			if s.kay.principal.serves != (i == c.server) {
				t.Errorf("%v: station %d serves: %v", c.priorities, i, s.kay.principal.serves)
			}
		}
	}
}

// TestGroup has three stations come one after another, with XPN: the SSCIs go
// by the SCIs.
func TestGroup(t *testing.T) {
	n := newNetwork(t, 3)
	cfg := Config{Suites: []macsec.CipherSuite{macsec.GCMAESXPN256}, Confidentiality: macsec.Confidentiality0}
	for id := byte(1); id <= 4; id++ {
		n.add(id, cfg, primaryKey)
		if id == 1 {
			continue // alone
		}
		n.secured(20 * time.Second)
		for i, s := range n.stations {
			if got, want := s.sas[s.transmit].SSCI, uint32(len(n.stations)-i); got != want {
				t.Errorf("of %d: station %d has SSCI %d, want %d", len(n.stations), i+1, got, want)
			}
		}
		n.run(10 * time.Second)
	}
}

// TestServerSSCI follows a key server that gives out SSCIs by its list.
func TestServerSSCI(t *testing.T) {
	listed := []macsec.SCI{30, 10, 20}
	for _, c := range []struct {
		server uint8
		want   map[macsec.SCI]uint32
	}{
		{0, map[macsec.SCI]uint32{40: 1, 30: 2, 20: 3, 10: 4}},
		{1, map[macsec.SCI]uint32{40: 1, 30: 2, 10: 3, 20: 4}},
		{2, map[macsec.SCI]uint32{40: 2, 30: 1, 10: 3, 20: 4}},
		{4, map[macsec.SCI]uint32{40: 4, 30: 1, 10: 2, 20: 3}},
	} {
		for sci, want := range c.want {
			if got := ssci(sci, 40, listed, c.server); got != want {
				t.Errorf("server %d: SCI %d has SSCI %d, want %d", c.server, sci, got, want)
			}
		}
	}
}

// TestSalt checks the salt against the words of 802.1AE-2018 §10.7.28: the
// upper 16 bits of the MI xor the lower 16 of the key number, the next 16 xor
// the upper 16, then the MI's last 64 bits.
func TestSalt(t *testing.T) {
	got := salt(KI{MI{0x10, 0x20, 0x30, 0x40, 5, 6, 7, 8, 9, 10, 11, 12}, 0x0a0b0c0d})
	want := [12]byte{0x10 ^ 0x0c, 0x20 ^ 0x0d, 0x30 ^ 0x0a, 0x40 ^ 0x0b, 5, 6, 7, 8, 9, 10, 11, 12}
	if got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

// rekeys of each cause, which must lose nothing.
func TestRekey(t *testing.T) {
	for _, stations := range []int{2, 3} {
		for _, c := range []struct {
			name  string
			every time.Duration
			rekey func(n *network)
		}{
			{"asked for", 0, func(n *network) {
				actions, err := n.stations[0].kay.Rekey(n.now)
				if err != nil {
					t.Fatal(err)
				}
				n.stations[0].do(actions)
			}},
			{"packet numbers sent", 0, func(n *network) {
				s := n.stations[0]
				s.do(s.kay.PacketNumbers(n.now, uint8(s.transmit), 0xc0000000, 1, 1))
			}},
			{"packet numbers received", 0, func(n *network) {
				s := n.stations[0]
				s.do(s.kay.PacketNumbers(n.now, uint8(s.transmit), 1, 0xc0000000, 1))
			}},
			{"packet numbers of a member's peers", 0, func(n *network) {
				s := n.stations[1]
				s.do(s.kay.PacketNumbers(n.now, uint8(s.transmit), 1, 1, 0xc0000000))
			}},
			{"time", 20 * time.Second, func(n *network) { n.run(20 * time.Second) }},
		} {
			t.Run(fmt.Sprint(stations, " ", c.name), func(t *testing.T) {
				n := newNetwork(t, 4)
				for id := range stations {
					n.add(byte(id+1), Config{RekeyEvery: c.every}, primaryKey)
				}
				n.secured(20 * time.Second)
				n.lossless("start")
				for range 6 {
					was := n.stations[0].kay.latest
					c.rekey(n)
					n.run(8 * time.Second)
					n.secured(0 + time.Second)
					s := n.stations[0].kay
					if s.latest.ki == was.ki || s.latest.an == was.an {
						t.Errorf("SAK %v, AN %d, was %v, AN %d", s.latest.ki, s.latest.an, was.ki, was.an)
					}
					if c.every == 0 && s.old != nil {
						t.Errorf("old SAK not retired after 8 s")
					}
				}
				n.lossless("rekey")
			})
		}
	}
}

func TestRekeyByMember(t *testing.T) {
	n := newNetwork(t, 5)
	n.add(1, Config{}, primaryKey)
	b := n.add(2, Config{}, primaryKey)
	if _, err := b.kay.Rekey(n.now); err == nil {
		t.Error("without peers: no error")
	}
	n.secured(time.Second)
	if _, err := b.kay.Rekey(n.now); !errors.Is(err, ErrNotServer) {
		t.Errorf("%v, want %v", err, ErrNotServer)
	}
}

// TestLoss keeps groups of stations under loss, delay and doubling of MKPDUs
// while they rekey, restart, lose links and CAKs; then they must agree. The
// network checks that no key server sends what a live peer cannot receive, and
// that nobody uses packet numbers twice.
func TestLoss(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		n := newNetwork(t, uint64(seed))
		n.verbose, n.lossy = false, true
		cfg := Config{Confidentiality: macsec.Confidentiality0, Suites: []macsec.CipherSuite{allSuites[seed%4]}}
		stations := 2 + seed%3
		for id := range stations {
			n.add(byte(id+1), cfg, primaryKey, nextKey)
		}
		n.loss, n.double, n.maxDelay = float64(seed%10)*0.07, 0.1, 500*time.Millisecond
		for range 20 {
			n.run(time.Duration(n.rng.IntN(10_000)) * time.Millisecond)
			s := n.stations[n.rng.IntN(len(n.stations))]
			switch n.rng.IntN(8) {
			case 0:
				s.start(s.kay.keys) // power cut
			case 1:
				other := n.stations[n.rng.IntN(len(n.stations))]
				n.cut = func(from, to *station) bool { return from == s && to == other } // one way
			case 2:
				n.cut = func(from, to *station) bool { return from == s || to == s }
			case 3:
				n.cut = func(_, _ *station) bool { return false }
			case 4:
				s.do(s.kay.SetKeys(n.now, []Key{primaryKey}))
			case 5:
				s.do(s.kay.SetKeys(n.now, []Key{nextKey}))
			case 6:
				s.do(s.kay.SetKeys(n.now, []Key{primaryKey, nextKey}))
			case 7:
				if actions, err := s.kay.Rekey(n.now); err == nil {
					s.do(actions)
				}
			}
		}
		n.loss, n.double = 0, 0
		n.cut = func(_, _ *station) bool { return false }
		for _, s := range n.stations {
			s.do(s.kay.SetKeys(n.now, []Key{primaryKey, nextKey}))
		}
		n.secured(40 * time.Second)
		n.probes, n.probesLost = 0, 0
		n.run(20 * time.Second)
		n.lossless(fmt.Sprintf("seed %d: after the trouble", seed))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestLossyRekey wants no data lost over rekeys even if a third of the MKPDUs
// are.
func TestLossyRekey(t *testing.T) {
	for seed := range uint64(20) {
		n := newNetwork(t, seed)
		n.verbose = false
		a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
		n.secured(time.Second)
		n.loss = 0.2 // three hellos in a row seldom go
		n.maxDelay = 100 * time.Millisecond
		for range 10 {
			if actions, err := a.kay.Rekey(n.now); err == nil {
				a.do(actions)
			}
			n.run(15 * time.Second)
		}
		journals := append(a.kay.Status(n.now).Journal, b.kay.Status(n.now).Journal...)
		lost := slices.ContainsFunc(journals, func(e Event) bool { return e.Kind == EventLost })
		if !lost { // then it is no wonder
			n.lossless(fmt.Sprintf("seed %d", seed))
		}
	}
}

// TestRestart has a member, then the key server, begin a new life at once: the
// others find out without waiting for a life time.
func TestRestart(t *testing.T) {
	n := newNetwork(t, 6)
	a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
	n.secured(time.Second)
	for _, s := range []*station{b, a, b, a} {
		n.run(9 * time.Second)
		s.start([]Key{primaryKey})
		n.secured(2 * time.Second)
	}
}

// TestSilence takes the link away: after a life time nothing is sent any more,
// and when it is back all begins anew.
func TestSilence(t *testing.T) {
	n := newNetwork(t, 7)
	a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
	n.secured(time.Second)
	n.cut = func(_, _ *station) bool { return true }
	n.run(LifeTime + time.Second)
	for _, s := range []*station{a, b} {
		if s.transmit >= 0 || s.sas != [4]*modelSA{} {
			t.Errorf("%s still has SAs", s.name)
		}
		if st := s.kay.Status(n.now); st.Secured || !strings.Contains(st.Reason, "no MKPDU is heard") {
			t.Errorf("%s: secured %v, %q", s.name, st.Secured, st.Reason)
		}
	}
	n.cut = func(_, _ *station) bool { return false }
	n.secured(3 * time.Second)
}

// TestOneWay loses one direction for a while, of either length: the member
// never installs a SAK twice (the network checks), and both come back.
func TestOneWay(t *testing.T) {
	for _, toServer := range []bool{false, true} {
		for silence := time.Second; silence < 20*time.Second; silence += 700 * time.Millisecond {
			n := newNetwork(t, 8)
			n.verbose = false
			server, member := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
			n.secured(time.Second)
			n.run(time.Second)
			n.cut = func(from, _ *station) bool { return from == member == toServer }
			n.run(silence)
			n.cut = func(_, _ *station) bool { return false }
			n.secured(15 * time.Second)
			_ = server
		}
	}
}

// TestWrongKeys checks what people are told.
func TestWrongKeys(t *testing.T) {
	other := primaryKey
	other.CAK = bytes.Repeat([]byte{9}, 16)
	late := primaryKey
	late.Start = epoch.Add(time.Hour)
	ended := primaryKey
	ended.End = epoch.Add(-time.Hour)
	for _, c := range []struct {
		name   string
		own    []Key
		peer   Key
		reason string
		kind   EventKind
	}{
		{"wrong CAK", []Key{primaryKey}, other, "has CKN 7072696d617279 with another CAK", EventWrongCAK},
		{"wrong CKN", []Key{primaryKey}, nextKey, "has CKN 6e657874, which is not configured here", EventUnknownCKN},
		{"not yet", []Key{nextKey, late}, primaryKey, "which is not here before 2026-01-01T01:00:00Z", EventUnknownCKN},
		{"no longer", []Key{nextKey, ended}, primaryKey, "which is not here since 2025-12-31T23:00:00Z", EventUnknownCKN},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, 9)
			a := n.add(1, Config{}, c.own...)
			n.add(2, Config{}, c.peer)
			n.run(time.Minute)
			st := a.kay.Status(n.now)
			if st.Secured || !strings.Contains(st.Reason, c.reason) || !strings.Contains(st.Reason, "020000000002/0001") {
				t.Errorf("secured %v, reason %q, want one with %q and the peer's SCI", st.Secured, st.Reason, c.reason)
			}
			entries := 0
			for _, e := range st.Journal {
				if e.Kind == c.kind {
					entries++
					if e.Count < 20 {
						t.Errorf("journal says %d times, want each of a minute's", e.Count)
					}
				}
			}
			if entries != 1 {
				t.Errorf("%d entries in the journal, want 1", entries)
			}
		})
	}
}

// TestRefused checks what a member does not take.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name           string
		server, member Config
		reason         string // at the member, or the server with "server: "
	}{
		{"other suite", Config{Suites: []macsec.CipherSuite{macsec.GCMAES256}}, Config{Suites: []macsec.CipherSuite{macsec.GCMAESXPN128}},
			"distributes a SAK for GCM-AES-256; this port takes [GCM-AES-XPN-128]"},
		{"integrity only", Config{}, Config{Confidentiality: macsec.Confidentiality0},
			"distributes a SAK for integrity only; this port encrypts"},
		{"capability", Config{Confidentiality: macsec.Confidentiality30}, Config{Suites: []macsec.CipherSuite{macsec.GCMAESXPN128}},
			`server: has MACsec capability: confidentiality, offset 0; needed for "encrypted, offset 30"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, 10)
			a, b := n.add(1, c.server, primaryKey), n.add(2, c.member, primaryKey)
			n.run(time.Minute)
			reason, want := b.kay.Status(n.now).Reason, c.reason
			if rest, ok := strings.CutPrefix(want, "server: "); ok {
				reason, want = a.kay.Status(n.now).Reason, rest
			}
			if !strings.Contains(reason, want) {
				t.Errorf("%q, want one with %q", reason, want)
			}
			if a.transmit >= 0 || b.transmit >= 0 {
				t.Error("somebody sends")
			}
		})
	}
}

// TestSuiteNegotiation has stations with several suites find the one that all
// take.
func TestSuiteNegotiation(t *testing.T) {
	n := newNetwork(t, 11)
	a := n.add(1, Config{Suites: []macsec.CipherSuite{macsec.GCMAESXPN256, macsec.GCMAESXPN128, macsec.GCMAES256, macsec.GCMAES128}}, primaryKey)
	n.add(2, Config{Suites: []macsec.CipherSuite{macsec.GCMAES256, macsec.GCMAES128}}, primaryKey)
	n.add(3, Config{Suites: []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256}}, primaryKey)
	n.secured(20 * time.Second)
	if got := a.sas[a.transmit].Suite; got != macsec.GCMAES256 {
		t.Errorf("%s, want %s", got, macsec.GCMAES256)
	}
}

// TestCAKRoll changes the CAK under way: the new one comes to one end, then to
// the other, and the old one goes in the same order. Nothing is lost, and each
// step's SAK comes from the new CA.
func TestCAKRoll(t *testing.T) {
	for _, stations := range []int{2, 3} {
		t.Run(fmt.Sprint(stations), func(t *testing.T) {
			n := newNetwork(t, 12)
			keys := []Key{primaryKey}
			for id := range stations {
				n.add(byte(id+1), Config{}, keys...)
			}
			n.secured(20 * time.Second)
			n.lossless("start")
			for i := range byte(20) {
				next := Key{Name: "next", CKN: []byte{'k', i}, CAK: bytes.Repeat([]byte{i}, 16+16*int(i%2)), Start: n.now}
				for _, s := range n.stations {
					n.run(3 * time.Second)
					s.do(s.kay.SetKeys(n.now, append(keys, next)))
				}
				n.run(5 * time.Second)
				n.secured(time.Second)
				for _, s := range n.stations {
					if got := s.kay.principal.key.CKN; !bytes.Equal(got, next.CKN) || !bytes.Equal(s.kay.latest.by.key.CKN, next.CKN) {
						t.Fatalf("%s: principal is CKN %x, SAK of %x, want %x", s.name, got, s.kay.latest.by.key.CKN, next.CKN)
					}
				}
				keys = []Key{next}
				for _, s := range n.stations {
					n.run(3 * time.Second)
					s.do(s.kay.SetKeys(n.now, keys))
				}
			}
			n.run(10 * time.Second)
			n.secured(time.Second)
			n.lossless("20 changes of CAK")
		})
	}
}

// TestKeyChain changes the CAK by the clock, with clocks four seconds apart.
func TestKeyChain(t *testing.T) {
	n := newNetwork(t, 13)
	chain := func(skew time.Duration) (keys []Key) {
		for i := range 5 {
			start := epoch.Add(time.Duration(i)*time.Minute + skew)
			keys = append(keys, Key{CKN: []byte{byte(i)}, CAK: bytes.Repeat([]byte{byte(i)}, 16), Start: start, End: start.Add(90 * time.Second)})
		}
		keys[0].Start = time.Time{}
		return keys
	}
	a := n.add(1, Config{}, chain(0)...)
	n.add(2, Config{}, chain(4*time.Second)...)
	n.secured(time.Second)
	for i := range byte(5) {
		n.run(30 * time.Second)
		n.secured(time.Second)
		if got := a.kay.principal.key.CKN[0]; got != i {
			t.Errorf("minute %d: key %d", i, got)
		}
		n.run(29 * time.Second)
	}
	n.lossless("key chain")
}

// TestFallback loses the primary at one end: the fallback takes over with the
// SAK in use, and gives back when the primary is there again.
func TestFallback(t *testing.T) {
	for _, loser := range []int{0, 1} { // key server, member
		n := newNetwork(t, 14)
		fallback := nextKey
		fallback.Name, fallback.Fallback = "fallback", true
		keys := []Key{fallback, primaryKey}
		for id := range 2 {
			n.add(byte(id+1), Config{}, keys...)
		}
		n.secured(2 * time.Second)
		n.run(10 * time.Second)
		for _, s := range n.stations {
			if got := s.kay.principal.key.Name; got != "primary" {
				t.Fatalf("principal is the %s", got)
			}
		}
		s := n.stations[loser]
		s.do(s.kay.SetKeys(n.now, []Key{fallback}))
		n.run(LifeTime + 5*time.Second)
		n.secured(time.Second)
		for _, s := range n.stations {
			if got := s.kay.principal.key.Name; got != "fallback" {
				t.Errorf("loser %d: after the loss, principal of %s is the %s", loser, s.name, got)
			}
		}
		s.do(s.kay.SetKeys(n.now, keys))
		n.run(8 * time.Second)
		n.secured(time.Second)
		for _, s := range n.stations {
			if got := s.kay.latest.by.key.Name; got != "primary" {
				t.Errorf("loser %d: at last, %s has a SAK of the %s", loser, s.name, got)
			}
		}
		n.lossless("fallback and back")
	}
}

// TestPromote checks that a CAK is promoted only if nobody loses by it.
func TestPromote(t *testing.T) {
	n := newNetwork(t, 15)
	a, b := n.add(1, Config{}, primaryKey, nextKey), n.add(2, Config{}, primaryKey)
	if _, err := a.kay.Promote(n.now, nil); err == nil {
		t.Error("without peers: no error")
	}
	n.secured(time.Second)
	for _, c := range []struct {
		s    *station
		ckn  []byte
		want string
	}{
		{a, nextKey.CKN, "not all peers are live under it"},
		{a, nil, "not all peers are live under it"},
		{a, primaryKey.CKN, "is the principal already"},
		{a, []byte("unheard of"), "no other CAK is in force"},
		{b, nil, ErrNotServer.Error()},
	} {
		if _, err := c.s.kay.Promote(n.now, c.ckn); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, CKN %q: %v, want an error with %q", c.s.name, c.ckn, err, c.want)
		}
	}
	b.do(b.kay.SetKeys(n.now, []Key{primaryKey, nextKey}))
	n.run(5 * time.Second)
	for range 4 {
		was := a.kay.principal
		actions, err := a.kay.Promote(n.now, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.do(actions)
		n.run(8 * time.Second)
		n.secured(time.Second)
		if a.kay.principal == was || a.kay.latest.by == was || !bytes.Equal(b.kay.latest.by.key.CKN, a.kay.principal.key.CKN) {
			t.Error("nothing has changed")
		}
	}
	n.lossless("promotion")
}

// TestReplay plays every MKPDU of an old handshake and of the running one
// again: nothing comes of it, and the peer stays.
func TestReplay(t *testing.T) {
	n := newNetwork(t, 16)
	a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
	var tape [][]byte
	n.cut = func(from, to *station) bool { return false }
	record := func(s *station, actions []Action) {
		for _, act := range actions {
			if send, ok := act.(Send); ok {
				tape = append(tape, bytes.Clone(send.Frame))
			}
		}
		s.do(actions)
	}
	for range 100 { // step by hand, to tape b
		record(b, b.kay.Advance(n.now))
		a.do(a.kay.Advance(n.now))
		for len(n.queue) > 0 {
			d := n.queue[0]
			n.queue = n.queue[1:]
			record(d.to, d.to.kay.Receive(n.now, d.frame))
		}
		n.now = n.now.Add(100 * time.Millisecond)
	}
	if st := a.kay.Status(n.now); !st.Secured || len(tape) < 5 {
		t.Fatalf("secured %v, %d frames on tape", st.Secured, len(tape))
	}
	ki, replayed := a.kay.latest.ki, a.kay.counters.Replayed
	for _, frame := range tape {
		a.do(a.kay.Receive(n.now, frame))
	}
	if got := a.kay.counters.Replayed - replayed + a.kay.counters.Own; a.kay.latest.ki != ki || got < uint64(len(tape)) {
		t.Errorf("SAK %v, was %v; %d of %d replays seen", a.kay.latest.ki, ki, got, len(tape))
	}
	// In another life of a they are of a peer that does not answer.
	a.start([]Key{primaryKey})
	n.stations = []*station{a}
	for range 50 {
		for _, frame := range tape {
			a.do(a.kay.Receive(n.now, frame))
		}
		n.run(time.Second)
	}
	if a.kay.principal != nil || a.transmit >= 0 {
		t.Error("a tape is live")
	}
}

// TestCollision gives two stations the same member identifier.
func TestCollision(t *testing.T) {
	n := newNetwork(t, 17)
	a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
	b.kay.parts[0].mi = a.kay.parts[0].mi
	n.queue = nil // what they said under other names
	n.run(LifeTime)
	n.secured(4 * time.Second)
	if a.kay.counters.Collisions+b.kay.counters.Collisions == 0 {
		t.Error("nobody has noticed")
	}
}

// TestLoop sends a station its own frames.
func TestLoop(t *testing.T) {
	n := newNetwork(t, 18)
	a := n.add(1, Config{}, primaryKey)
	for range 20 {
		for _, act := range a.kay.Advance(n.now) {
			if send, ok := act.(Send); ok {
				a.kay.Receive(n.now, send.Frame)
			}
		}
		n.now = n.now.Add(time.Second)
	}
	st := a.kay.Status(n.now)
	if st.Counters.Own == 0 || st.Counters.Collisions > 0 || !strings.Contains(st.Reason, "come back") {
		t.Errorf("%+v, %q", st.Counters, st.Reason)
	}
}

// TestPace bounds what a station sends: a hello every two seconds, and no
// storm while there is much to tell.
func TestPace(t *testing.T) {
	for _, c := range []struct{ hello, want time.Duration }{{0, HelloTime}, {BoundedHelloTime, BoundedHelloTime}} {
		n := newNetwork(t, 19)
		a := n.add(1, Config{Hello: c.hello}, primaryKey)
		n.add(2, Config{}, primaryKey)
		n.secured(time.Second)
		if a.sent > 8 {
			t.Errorf("%d MKPDUs to come up", a.sent)
		}
		n.run(10 * time.Second)
		a.sent = 0
		n.run(20 * time.Second)
		if want := int(20 * time.Second / c.want); a.sent < want-1 || a.sent > want+1 {
			t.Errorf("hello %s: %d MKPDUs in 20 s, want %d", c.hello, a.sent, want)
		}
	}
}

// TestSuspension keeps a peer that said it would be away.
func TestSuspension(t *testing.T) {
	n := newNetwork(t, 20)
	a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
	n.secured(time.Second)
	p := b.kay.principal
	p.mn++
	m := b.kay.compose(n.now, p)
	m.XPN = &XPN{Suspension: 30}
	frame, err := m.Append(nil, p.ick)
	if err != nil {
		t.Fatal(err)
	}
	a.do(a.kay.Receive(n.now, frame))
	n.cut = func(from, _ *station) bool { return from == b }
	n.run(29 * time.Second)
	if a.transmit < 0 {
		t.Error("forgotten after 29 s of 30")
	}
	n.run(2 * time.Second)
	if a.transmit >= 0 {
		t.Error("still there after 31 s of 30")
	}
}

// TestHandshakeOfLinux plays one end of a Linux station's handshake to a KaY
// that has the CAK: it hears a peer that never hears it.
func TestHandshakeOfLinux(t *testing.T) {
	for _, h := range handshakes(t) {
		n := newNetwork(t, 21)
		s := n.add(9, Config{}, Key{CKN: h.CKN, CAK: h.CAK})
		bad := uint64(0)
		for i, f := range h.Frames {
			n.now = n.now.Add(100 * time.Millisecond)
			s.do(s.kay.Receive(n.now, f.Frame))
			if !f.ICVHolds {
				bad++
			}
			if c := s.kay.counters; c.BadICV != bad || c.Invalid > 0 || c.Replayed > 0 {
				t.Errorf("%s, frame %d: %+v, want %d bad ICVs", h.Name, i, c, bad)
			}
		}
		if s.kay.Status(n.now).Secured {
			t.Errorf("%s: secured", h.Name)
		}
	}
}

// FuzzKaY has a member with the right CAK say anything, in the middle of a
// running pair.
func FuzzKaY(f *testing.F) {
	for _, h := range handshakes(f) {
		for _, frame := range h.Frames {
			f.Add([]byte(frame.Frame), uint16(2000))
		}
	}
	full, err := fullMKPDU().Append(nil, make([]byte, 16))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full, uint16(10))
	f.Fuzz(func(t *testing.T, frame []byte, wait uint16) {
		m, err := ParseMKPDU(frame)
		if err != nil {
			return
		}
		n := newNetwork(t, 22)
		n.verbose = false
		a, b := n.add(1, Config{}, primaryKey), n.add(2, Config{}, primaryKey)
		n.secured(time.Second)
		m.Dst, m.Agility, m.CKN = GroupAddress, agility, primaryKey.CKN
		for i := range m.Live { // let it hear the station
			m.Live[i] = PeerID{a.kay.principal.mi, a.kay.principal.mn}
			break
		}
		signed, err := m.Append(nil, a.kay.principal.ick)
		if err != nil {
			return
		}
		a.do(a.kay.Receive(n.now, signed))
		n.run(time.Duration(wait) * time.Millisecond)
		m.Member.MN++
		if signed, err = m.Append(nil, a.kay.principal0().ick); err == nil {
			a.do(a.kay.Receive(n.now, signed))
		}
		n.run(13 * time.Second)
		_ = b
	})
}

// principal0 is the participant of the first key.
func (k *KaY) principal0() *participant { return k.parts[0] }
