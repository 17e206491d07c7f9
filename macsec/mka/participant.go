package mka

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"time"

	"msee/macsec"
)

const (
	// maxPeers bounds what a holder of the CAK can make a participant keep.
	maxPeers = 30
	// minGap is the least time between two MKPDUs of a participant.
	minGap = 50 * time.Millisecond
	// rememberedPeers is how many members that are gone are remembered, so
	// that old MKPDUs of theirs are not taken for new.
	rememberedPeers = 64
)

// participant is this station's part in the CA of one CAK (802.1X-2020 §9.3).
type participant struct {
	cfg      *Config
	key      Key // the CAK is a copy of its own
	kek, ick []byte

	mi   MI
	mn   uint32 // of the last MKPDU sent
	sent []sentMN
	kn   uint32 // of the last SAK made under mi

	peers []*peer
	past  []PeerID // members that are gone, with their last MN

	serves bool  // this station is key server
	server *peer // who is, otherwise; nil if nobody is

	hello  time.Time // when the next MKPDU is due
	tell   bool      // there is something to tell at once
	sentAt time.Time

	// used has the last SAK taken from a key server, so that none is
	// installed a second time: its packet numbers would begin anew.
	used []KI
}

// sentMN is when an MKPDU was sent. A peer that lists its number heard it, and
// so is alive (§9.4.3).
type sentMN struct {
	mn uint32
	at time.Time
}

// peer is another member of a CA.
type peer struct {
	mi         MI
	mn         uint32 // the last received
	sci        macsec.SCI
	priority   uint8
	capability Capability
	suites     []SuiteCapability // announced; nil if none were

	// A live peer has shown that it hears this station; a potential one is
	// only heard.
	live       bool
	since      time.Time // of live, or of potential
	heardUntil time.Time
	liveUntil  time.Time

	hears       []MI   // its live peers
	latest, old KeyUse // as last told
	xpn         XPN
}

func newParticipant(cfg *Config, key Key, now time.Time) *participant {
	key.CKN, key.CAK = slices.Clone(key.CKN), slices.Clone(key.CAK)
	p := &participant{
		cfg: cfg, key: key, hello: now,
		kek: deriveKEK(key.CAK, key.CKN), ick: deriveICK(key.CAK, key.CKN),
	}
	p.newMI()
	return p
}

func (p *participant) wipe() {
	clear(p.key.CAK)
	clear(p.kek)
	clear(p.ick)
}

// newMI begins a new life under another member identifier. Peers must prove
// again that they hear this station.
func (p *participant) newMI() {
	random(p.cfg.Rand, p.mi[:])
	p.mn, p.kn, p.sent = 0, 0, nil
	for _, q := range p.peers {
		q.live = false
	}
	p.tell = true
}

// random fills b. There is no going on without randomness.
func random(r io.Reader, b []byte) {
	if _, err := io.ReadFull(r, b); err != nil {
		panic("mka: random numbers: " + err.Error())
	}
}

func (p *participant) peer(mi MI) *peer {
	for _, q := range p.peers {
		if q.mi == mi {
			return q
		}
	}
	return nil
}

// livePeers returns the live peers, the highest SCI first.
func (p *participant) livePeers() (live []*peer) {
	for _, q := range p.peers {
		if q.live {
			live = append(live, q)
		}
	}
	slices.SortFunc(live, func(a, b *peer) int { return cmp.Compare(b.sci, a.sci) })
	return live
}

func (p *participant) liveCount() (n int) {
	for _, q := range p.peers {
		n += btoi(q.live)
	}
	return n
}

// incomplete reports whether there is somebody who is not live yet: potential
// peers, or such as the live ones hear and this station does not.
func (p *participant) incomplete() bool {
	for _, q := range p.peers {
		if !q.live || slices.ContainsFunc(q.hears, func(mi MI) bool { return mi != p.mi && p.peer(mi) == nil }) {
			return true
		}
	}
	return false
}

// covers reports whether all stations that are live in q are so in p.
func (p *participant) covers(q *participant) bool {
	for _, a := range q.peers {
		if a.live && !slices.ContainsFunc(p.peers, func(b *peer) bool { return b.live && b.sci == a.sci }) {
			return false
		}
	}
	return true
}

func (p *participant) serverSCI() macsec.SCI {
	switch {
	case p.serves:
		return p.cfg.SCI
	case p.server != nil:
		return p.server.sci
	}
	return 0
}

// remember keeps the last message number of a peer that goes.
func (p *participant) remember(q *peer) {
	p.past = slices.DeleteFunc(p.past, func(id PeerID) bool { return id.MI == q.mi })
	if len(p.past) == rememberedPeers {
		p.past = slices.Delete(p.past, 0, 1)
	}
	p.past = append(p.past, PeerID{q.mi, q.mn})
}

func (p *participant) pastMN(mi MI) uint32 {
	for _, id := range p.past {
		if id.MI == mi {
			return id.MN
		}
	}
	return 0
}

// fresh reports whether the MKPDU with number mn was sent within a life time.
func (p *participant) fresh(mn uint32, now time.Time) bool {
	for _, s := range p.sent {
		if s.mn == mn {
			return now.Sub(s.at) < LifeTime
		}
	}
	return false
}

// takenBefore reports whether a SAK of this key server, of this number or a
// later one, was installed before.
func (p *participant) takenBefore(ki KI) bool {
	for _, u := range p.used {
		if u.Server == ki.Server {
			return ki.Number <= u.Number
		}
	}
	return false
}

func (p *participant) take(ki KI) {
	p.used = slices.DeleteFunc(p.used, func(u KI) bool { return u.Server == ki.Server })
	if len(p.used) == rememberedPeers {
		p.used = slices.Delete(p.used, 0, 1)
	}
	p.used = append(p.used, ki)
}

// expire removes the peers that were not heard for a life time (§9.4.3).
func (k *KaY) expire(now time.Time, p *participant) {
	lost := false
	for _, q := range slices.Clone(p.peers) {
		if q.live && !now.Before(q.liveUntil) {
			lost = true
			q.live, q.since = false, now
			k.log(now, p, q.sci, EventPeer, "peer lost: it has not answered for %s", LifeTime)
			p.tell = true
		}
		if !q.live && !now.Before(q.heardUntil) {
			k.removePeer(p, q)
		}
	}
	// With a new MI the SAK of old is not waited for: who comes back is a
	// new member, and gets a new SAK.
	if lost && p.liveCount() == 0 {
		p.newMI()
	}
}

func (k *KaY) removePeer(p *participant, q *peer) {
	p.peers = slices.DeleteFunc(p.peers, func(r *peer) bool { return r == q })
	p.remember(q)
	if p.server == q {
		p.server = nil
	}
	k.peerGone(q.sci)
}

// elect decides who is key server: of this station and the live peers that
// with the lowest priority, then the lowest SCI (§9.5).
func (k *KaY) elect(now time.Time, p *participant) {
	const never = 255
	var best *peer
	live := 0
	for _, q := range p.peers {
		if !q.live {
			continue
		}
		live++
		if q.priority != never && (best == nil || q.priority < best.priority || q.priority == best.priority && q.sci < best.sci) {
			best = q
		}
	}
	serves := live > 0 && k.cfg.Priority != never && (best == nil ||
		k.cfg.Priority < best.priority || k.cfg.Priority == best.priority && k.cfg.SCI < best.sci)
	if serves {
		best = nil
	}
	if serves == p.serves && best == p.server {
		return
	}
	p.serves, p.server, p.tell = serves, best, true
	switch {
	case serves:
		k.log(now, p, 0, EventServer, "this station is key server")
	case best != nil:
		k.log(now, p, best.sci, EventServer, "key server")
	case live > 0:
		k.log(now, p, 0, EventServer, "nobody wants to be key server: all have priority %d", never)
	}
}

// due is when the next MKPDU must be sent.
func (p *participant) due() time.Time {
	if p.tell {
		return p.sentAt.Add(minGap)
	}
	return p.hello
}

// sameKey reports whether ckn is p's.
func (p *participant) sameKey(ckn []byte) bool { return bytes.Equal(p.key.CKN, ckn) }
