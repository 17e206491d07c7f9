package speaker

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"msee/bgp"
)

var malformedUpdates = flag.Int("malformed", 50_000, "how many mutated UPDATEs TestMalformedOverSession sends")

// maxResets is how many mutants that end the session are sent: each costs two
// seconds or three.
const maxResets = 3

// mutate spoils an UPDATE: octets anywhere after the header, attributes cut,
// doubled or made up, lengths that lie.
func mutate(r *rand.Rand, m []byte) []byte {
	m = append([]byte(nil), m...)
	for range 1 + r.IntN(4) {
		at := headerLen + r.IntN(len(m)-headerLen)
		switch r.IntN(6) {
		case 0:
			m[at] = byte(r.Uint32())
		case 1:
			m[at] ^= 1 << r.IntN(8)
		case 2: // cut
			n := min(r.IntN(8), len(m)-at)
			m = append(m[:at], m[at+n:]...)
		case 3: // double
			n := min(r.IntN(8), len(m)-at)
			m = append(m[:at+n:at+n], m[at:]...)
		case 4: // an attribute of some kind, at the beginning of the attributes
			v := make([]byte, r.IntN(12))
			for i := range v {
				v[i] = byte(r.Uint32())
			}
			a := append([]byte{byte(r.IntN(16) << 4), byte(r.IntN(45)), byte(len(v) + r.IntN(20)/19)}, v...)
			if at := headerLen + 4; at <= len(m) {
				m = append(m[:at:at], append(a, m[at:]...)...)
				n := binary.BigEndian.Uint16(m[headerLen+2:])
				binary.BigEndian.PutUint16(m[headerLen+2:], n+uint16(len(a)))
			}
		case 5: // a length of the UPDATE itself
			if len(m) >= headerLen+4 {
				m[headerLen+1+2*r.IntN(2)] += byte(r.IntN(5)) - 2
			}
		}
		if len(m) <= headerLen+4 {
			return updateMessage(nil, nil, nil)
		}
	}
	m = m[:min(len(m), maxMessage)]
	binary.BigEndian.PutUint16(m[16:], uint16(len(m)))
	return m
}

// TestMalformedOverSession sends mutated UPDATEs over a real session. The
// speaker must not die of any, and the session beside it not move. Mutants that
// end the session, as some must (RFC 7606 §3), are spread out, and no more than
// maxResets are sent; what follows one goes over a new session.
func TestMalformedOverSession(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		malformedOverSession(t, v4a, v4b, ipv4Unicast, prefixesOf("10.0.0.0/8"), prefixesOf("203.0.113.0/24"))
	})
	t.Run("IPv6", func(t *testing.T) {
		malformedOverSession(t, v6a, v6b, ipv6Unicast, prefixesOf("2001:db8::/32"), prefixesOf("2001:db8:1::/48"))
	})
}

// malformedOverSession sends half of the mutants over a session of one family,
// some and good are prefixes of that family; good arrives in the end.
func malformedOverSession(t *testing.T, ours, theirs string, family uint32, some, good []netip.Prefix) {
	total := *malformedUpdates / 2
	nsA, nsB := link(t)
	nsC, nsD := link(t)
	hostile := newFakePeerAt(t, nsB, theirs)
	f := newFRR(t, nsD, neighbour(v4a)+" address-family ipv4 unicast\n  network 192.0.2.0/24\n exit-address-family\n")
	e := newEdge(t, "/proc/self/exe", "speaker")
	c := ourSession(nsA, ours, theirs)
	beside := ourSession(nsC, v4a, v4b)
	beside.Name = "beside"
	e.Configure([]bgp.SessionConfig{c, beside})
	e.Advertise(announce("beside", &bgp.Attrs{}, "10.0.0.0/8"))
	e.until("the session beside", 20*time.Second, func() bool { return e.hasLocked("beside", "192.0.2.0/24") })

	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	w := &updateWriter{local: netip.MustParseAddr(theirs), as: theirAS, fourOctets: true}
	seeds := [][]byte{w.withdraw(nil, some), w.endOfRIB(nil)}
	for range 50 {
		for p, a := range randomTable(r, family == ipv6Unicast) {
			m, err := w.announce(nil, []netip.Prefix{p}, a)
			must(t, err)
			seeds = append(seeds, m)
			break
		}
	}
	var conn net.Conn
	connect := func() {
		// An OPEN with the four-octet AS, so that paths are read as written.
		o := openMessage(180, 2, 12, 1, 4, 0, byte(family>>16), 0, 1, 65, 4, 0, 0, 0xfd, 0xe9)
		conn = hostile.accept()
		conn.SetDeadline(time.Now().Add(10 * time.Minute))
		hostile.write(conn, o)
		hostile.establish(conn)
		for { // our side's messages, so that it is never stuck
			if m := hostile.read(conn); m[18] == typeUpdate {
				break // End-of-RIB: it is up
			}
		}
		go func(conn net.Conn) {
			b := make([]byte, 4096)
			for {
				if _, err := conn.Read(b); err != nil {
					return
				}
			}
		}(conn)
	}
	connect()
	began := time.Now()
	sent, malformed, resets := 0, 0, 0
	var batch []byte
	flush := func() {
		if _, err := conn.Write(batch); err != nil {
			t.Fatalf("after %d UPDATEs: %v; %+v", sent, err, e.of(c.Name))
		}
		batch = batch[:0]
	}
	for sent < total {
		m := mutate(r, seeds[r.IntN(len(seeds))])
		u, err := parseUpdate(m, family, true)
		if err != nil && resets >= maxResets*sent/total {
			continue
		}
		if err == nil && u.malformed != "" {
			malformed++
		}
		sent++
		if batch = append(batch, m...); len(batch) > 32<<10 {
			flush()
		}
		if err != nil {
			resets++
			flush()
			e.until("the end of the session", 10*time.Second, func() bool { return e.status[c.Name].Flaps >= resets })
			connect()
		}
	}
	flush()
	// What is well-formed still counts, on this session too.
	m, err := w.announce(nil, good, &bgp.Attrs{})
	must(t, err)
	batch = append(batch, m...)
	flush()
	e.until("a good route after all that", 60*time.Second, func() bool { return e.hasLocked(c.Name, good[0].String()) })
	t.Logf("%d mutated UPDATEs in %v: %d treated as withdrawals, %d ended the session", sent, time.Since(began).Round(time.Millisecond), malformed, resets)
	if n := e.restartsNow(); n > 0 {
		t.Errorf("the speaker died %d times", n)
	}
	if st := e.of("beside"); st.State != bgp.StateEstablished || st.Flaps > 0 || f.count("ipv4", v4a) != 1 {
		t.Errorf("the session beside: %+v", st)
	}
}
