package mka

import (
	"slices"
	"time"
)

// Receive takes an EAPOL frame. It does not keep it.
func (k *KaY) Receive(now time.Time, frame []byte) []Action {
	k.applyKeys(now)
	k.receive(now, frame)
	return k.settle(now)
}

// receive checks a frame in the order of 802.1X-2020 §11.11.2.
func (k *KaY) receive(now time.Time, frame []byte) {
	k.counters.Received++
	m, err := ParseMKPDU(frame)
	if err != nil {
		k.counters.Invalid++
		return
	}
	if m.Dst != GroupAddress || m.Agility != agility {
		k.counters.Invalid++
		return
	}
	p := k.participant(m.CKN)
	if p == nil {
		k.counters.UnknownCKN++
		k.unknownCKN(now, m)
		return
	}
	if !m.Verify(frame, p.ick) {
		k.counters.BadICV++
		k.troubled(now, p, m.SCI, EventWrongCAK, "has CKN %x with another CAK: the ICV of its MKPDUs does not hold", m.CKN)
		return
	}
	if m.SCI == k.cfg.SCI {
		k.counters.Own++
		k.troubled(now, p, m.SCI, EventLoop, "MKPDUs come back, or another station has this one's SCI")
		return
	}
	if m.Member.MI == p.mi { // §9.4.2
		k.counters.Collisions++
		k.log(now, p, m.SCI, EventCollision, "has chosen the same member identifier; taking another")
		k.restart(p)
		return
	}
	k.heard(now, p, m)
}

func (k *KaY) participant(ckn []byte) *participant {
	for _, p := range k.parts {
		if p.sameKey(ckn) {
			return p
		}
	}
	return nil
}

// restart gives p a new MI. SAKs stay while another participant has peers.
func (k *KaY) restart(p *participant) {
	p.newMI()
	for _, q := range p.peers {
		q.since = time.Time{}
	}
}

// heard takes what a member says.
func (k *KaY) heard(now time.Time, p *participant, m *MKPDU) {
	q := p.peer(m.Member.MI)
	// A number that was there before is a replay.
	last := p.pastMN(m.Member.MI)
	if q != nil {
		last = q.mn
	}
	if m.Member.MN <= last {
		k.counters.Replayed++
		return
	}
	if q == nil {
		if len(p.peers) >= maxPeers {
			k.counters.BadPeer++
			return
		}
		q = &peer{mi: m.Member.MI, sci: m.SCI, since: now}
		p.peers = append(p.peers, q)
		p.tell = true
	}
	if q.sci != m.SCI {
		k.counters.BadPeer++
		return
	}
	q.mn, q.priority, q.capability, q.suites = m.Member.MN, m.Priority, m.Capability, slices.Clone(m.Suites)
	q.heardUntil = now.Add(LifeTime)
	q.hears = q.hears[:0]
	for _, id := range m.Live {
		q.hears = append(q.hears, id.MI)
	}

	mn, listed := m.lists(p.mi)
	if listed && mn > p.mn {
		// Somebody else said that under this MI.
		k.counters.Collisions++
		k.log(now, p, m.SCI, EventCollision, "has heard another station under this member identifier; taking another")
		k.restart(p)
		return
	}
	if listed && p.fresh(mn, now) {
		k.alive(now, p, q)
	}
	if !q.live {
		return
	}
	k.elect(now, p)
	if m.SAKUse != nil {
		k.sakUse(now, p, q, m)
	}
	if m.XPN != nil && m.XPN.Suspension > 0 {
		k.suspended(now, p, q, m.XPN.Suspension)
	}
	if m.DistCAK != nil {
		k.log(now, p, q.sci, EventIgnored, "distributes a group CAK; not supported")
	}
	if m.DistSAK != nil {
		k.takeSAK(now, p, q, m)
	}
}

// alive says that q has heard this station lately.
func (k *KaY) alive(now time.Time, p *participant, q *peer) {
	// A longer time, by suspension, stays.
	if until := now.Add(LifeTime); until.After(q.liveUntil) {
		q.liveUntil = until
	}
	if q.live {
		return
	}
	q.live, q.since, q.latest, q.old = true, now, KeyUse{}, KeyUse{}
	p.tell = true
	// A station that has restarted has a new MI; what it was is gone.
	for _, r := range slices.Clone(p.peers) {
		if r != q && r.sci == q.sci {
			k.log(now, p, q.sci, EventPeer, "peer has restarted")
			k.removePeer(p, r)
		}
	}
	k.log(now, p, q.sci, EventPeer, "peer is live, with priority %d, MACsec capability: %s", q.priority, q.capability)
}

// sakUse notes which SAKs q uses. wpa_supplicant moves a SAK from latest to old
// as soon as both send with it, so either place counts; see peer.use.
func (k *KaY) sakUse(now time.Time, p *participant, q *peer, m *MKPDU) {
	s := k.latest
	had := s != nil && q.use(s.ki).Rx
	q.latest, q.old, q.xpn = m.SAKUse.Latest, m.SAKUse.Old, XPN{}
	if m.XPN != nil {
		q.xpn = *m.XPN
	}
	if s == nil || s.by != p || !p.serves {
		return
	}
	if had && !q.use(s.ki).Rx && k.rekey == "" {
		k.rekey = "a peer has given up the SAK"
	}
	if q.lowPN(s) >= s.suite.PendingPNExhaustion() && k.rekey == "" {
		k.rekey = "packet numbers of a peer"
	}
}

// use returns what q says of a SAK; zero if nothing.
func (q *peer) use(ki KI) KeyUse {
	switch ki {
	case q.latest.KI:
		return q.latest
	case q.old.KI:
		return q.old
	}
	return KeyUse{}
}

// lowPN is the lowest packet number that q accepts under s.
func (q *peer) lowPN(s *sak) uint64 {
	var high, low uint32
	switch s.ki {
	case q.latest.KI:
		high, low = q.xpn.LatestHigh, q.latest.LowPN
	case q.old.KI:
		high, low = q.xpn.OldHigh, q.old.LowPN
	}
	if !s.suite.XPN() {
		high = 0
	}
	return uint64(high)<<32 | uint64(low)
}

// maxSuspension bounds for how long a control plane may be away (§9.18).
const maxSuspension = 120 * time.Second

// suspended keeps a peer live whose control plane restarts while its SecY goes
// on.
func (k *KaY) suspended(now time.Time, p *participant, q *peer, seconds uint8) {
	until := now.Add(min(time.Duration(seconds)*time.Second, maxSuspension))
	if until.After(q.liveUntil) {
		q.liveUntil = until
		q.heardUntil = until
		k.log(now, p, q.sci, EventPeer, "peer suspends MKA for %d s", seconds)
	}
}

func (k *KaY) unknownCKN(now time.Time, m *MKPDU) {
	for i := range k.keys {
		key := &k.keys[i]
		if string(key.CKN) != string(m.CKN) {
			continue
		}
		if now.Before(key.Start) {
			k.troubled(now, nil, m.SCI, EventUnknownCKN, "has CKN %x in force, which is not here before %s", m.CKN, key.Start.Format(time.RFC3339))
		} else {
			k.troubled(now, nil, m.SCI, EventUnknownCKN, "has CKN %x in force, which is not here since %s", m.CKN, key.End.Format(time.RFC3339))
		}
		return
	}
	k.troubled(now, nil, m.SCI, EventUnknownCKN, "has CKN %x, which is not configured here", m.CKN)
}
