package mka

import (
	"bytes"
	"flag"
	"testing"
	"time"

	"msee/macsec"
)

var hostileFrames = flag.Int("hostile", 100_000, "frames that TestHostileStation sends; 10000000 for the long form")

// TestHostileStation has a station without the CAKs between two that have them. It
// hears all, and sends replays, forgeries, truncations and noise to both. They
// keep each other and their SAK, lose no frame, and count each of its frames as
// refused.
func TestHostileStation(t *testing.T) {
	n := newNetwork(t, 7)
	n.verbose = false
	suites := []macsec.CipherSuite{macsec.GCMAESXPN128, macsec.GCMAES256}
	n.add(1, Config{Priority: 1, Suites: suites}, primaryKey, nextKey)
	n.add(2, Config{Priority: 2, Suites: suites}, primaryKey, nextKey)
	var heard [][]byte
	n.tap = func(frame []byte) {
		if len(heard) < 1000 {
			heard = append(heard, frame)
		} else {
			heard[n.rng.IntN(len(heard))] = frame
		}
	}
	n.secured(10 * time.Second)
	n.run(5 * time.Second)
	before := [2]Counters{n.stations[0].kay.counters, n.stations[1].kay.counters}
	sak := n.stations[0].kay.latest.ki
	n.lossless("before")
	other := Key{Name: "other", CKN: primaryKey.CKN, CAK: bytes.Repeat([]byte{9}, 16)}
	otherICK := deriveICK(other.CAK, other.CKN)
	for sent := 0; sent < *hostileFrames; {
		for range 10 {
			frame := forge(n, heard[n.rng.IntN(len(heard))], otherICK)
			for _, s := range n.stations {
				s.do(s.kay.Receive(n.now, frame))
				sent++
			}
		}
		n.run(20 * time.Millisecond)
	}
	n.run(time.Second) // what is on its way arrives
	if why := n.agree(); why != "" {
		t.Error(why)
	}
	if ki := n.stations[0].kay.latest.ki; ki != sak {
		t.Errorf("SAK %v was replaced by %v", sak, ki)
	}
	n.lossless("with a hostile station")
	for i, s := range n.stations {
		c, was := s.kay.counters, before[i]
		refused := c.Invalid + c.UnknownCKN + c.BadICV + c.Own + c.Collisions + c.Replayed + c.BadPeer -
			(was.Invalid + was.UnknownCKN + was.BadICV + was.Own + was.Collisions + was.Replayed + was.BadPeer)
		// A copy that overtakes its original is taken, and the original refused.
		if want := uint64(*hostileFrames+19) / 20 * 10; refused != want {
			t.Errorf("%s refused %d frames, want %d: %+v", s.name, refused, want, c)
		}
		other := n.stations[1-i].kay.counters
		if got, want := c.Received-was.Received-refused, other.Sent-before[1-i].Sent; got != want {
			t.Errorf("%s took %d frames of the %d that its peer has sent", s.name, got, want)
		}
		if c.Invalid == was.Invalid || c.UnknownCKN == was.UnknownCKN || c.BadICV == was.BadICV || c.Own == was.Own || c.Replayed == was.Replayed {
			t.Errorf("%s: a kind of forgery was not met: %+v", s.name, c)
		}
	}
}

// forge makes of an MKPDU what somebody without the CAK can.
func forge(n *network, frame, ick []byte) []byte {
	f := bytes.Clone(frame)
	switch n.rng.IntN(7) {
	case 0: // as it was
	case 1: // bits turned
		for range 1 + n.rng.IntN(8) {
			f[n.rng.IntN(len(f))] ^= 1 << n.rng.IntN(8)
		}
	case 2: // cut
		f = f[:n.rng.IntN(len(f))]
	case 3: // longer
		f = append(f, make([]byte, 1+n.rng.IntN(200))...)
	case 4: // two halves
		at := n.rng.IntN(len(f))
		f = append(f[:at], f[n.rng.IntN(len(f)):]...)
	case 5: // octets
		for range 1 + n.rng.IntN(20) {
			f[14+n.rng.IntN(len(f)-14)] = byte(n.rng.Uint32())
		}
	case 6: // said anew, under another CAK of the same name, or as another CKN
		m, err := ParseMKPDU(f)
		if err != nil {
			break
		}
		m.Member.MN += n.rng.Uint32N(1000)
		m.SAKUse = nil
		if n.rng.IntN(2) == 0 {
			m.CKN = []byte{byte(n.rng.Uint32())}
		}
		if said, err := m.Append(nil, ick); err == nil {
			f = said
		}
	}
	return f
}
