package mka

import (
	"slices"
	"time"

	"msee/macsec"
)

const (
	// versionPlain is of 802.1X-2010, which all stations know; versionXPN is
	// 802.1X-2020's, with what XPN needs (§11.11).
	versionPlain = 1
	versionXPN   = 3
)

// transmit sends p's MKPDU if it is due: every hello time, and at once when
// there is something to tell.
func (k *KaY) transmit(now time.Time, p *participant) {
	if now.Before(p.due()) && now.Before(p.hello) {
		return
	}
	p.mn++
	m := k.compose(now, p)
	frame, err := m.Append(nil, p.ick)
	if err != nil { // cannot be: maxPeers fit
		k.log(now, p, 0, EventIgnored, "MKPDU not sent: %v", err)
	} else {
		k.do(Send{frame})
	}
	k.counters.Sent++
	if m.DistSAK != nil {
		k.counters.SentSAK++
	}
	p.sent = slices.DeleteFunc(p.sent, func(s sentMN) bool { return now.Sub(s.at) >= LifeTime })
	p.sent = append(p.sent, sentMN{p.mn, now})
	p.sentAt, p.hello, p.tell = now, now.Add(k.cfg.Hello), false
}

// compose makes p's MKPDU of what there is to tell.
func (k *KaY) compose(now time.Time, p *participant) *MKPDU {
	m := &MKPDU{
		Dst: GroupAddress, Src: k.cfg.SCI.MAC(), EAPOLVersion: eapolV3,
		Version: versionPlain, Priority: k.cfg.Priority, Desired: true, Capability: CapabilityOffsets,
		SCI: k.cfg.SCI, Member: PeerID{p.mi, p.mn}, Agility: agility, CKN: p.key.CKN,
		// Who is not member of another key server's CA wants to be it.
		KeyServer: p.serves || p.server == nil && k.cfg.Priority != 255,
	}
	if slices.ContainsFunc(k.cfg.Suites, macsec.CipherSuite.XPN) {
		m.Version = versionXPN
		if !slices.ContainsFunc(k.cfg.Suites, func(s macsec.CipherSuite) bool { return !s.XPN() }) {
			m.Capability = CapabilityOffset0
		}
	}
	if len(k.cfg.Suites) > 1 {
		for _, s := range k.cfg.Suites {
			c := CapabilityOffsets
			if s.XPN() {
				c = CapabilityOffset0
			}
			m.Suites = append(m.Suites, SuiteCapability{s.ID(), c})
		}
	}
	shy := false
	for _, q := range p.livePeers() {
		m.Live = append(m.Live, PeerID{q.mi, q.mn})
	}
	for _, q := range p.peers {
		if !q.live {
			m.Potential = append(m.Potential, PeerID{q.mi, q.mn})
			shy = shy || now.Sub(q.since) < LifeTime
		}
	}
	k.tellUse(p, m, shy)
	k.tellSAK(p, m)
	return m
}

// tellUse adds what SAKs are in use. While there is a new potential peer it
// says nothing: wpa_supplicant, not knowing yet that it is heard, takes SAK Use
// for a fault and begins anew, which it would do until its former self is
// forgotten here. A participant that is not principal says that it uses none.
func (k *KaY) tellUse(p *participant, m *MKPDU, shy bool) {
	if shy || k.latest == nil || len(m.Live) == 0 {
		return
	}
	if p != k.principal {
		m.SAKUse = &SAKUse{}
		return
	}
	latest, latestHigh := k.latest.use()
	old, oldHigh := k.old.use()
	m.SAKUse = &SAKUse{Latest: latest, Old: old}
	if k.latest.suite.XPN() {
		m.XPN = &XPN{LatestHigh: latestHigh, OldHigh: oldHigh}
	}
}

// use is s as SAK Use has it, with the upper half of the packet number.
func (s *sak) use() (u KeyUse, high uint32) {
	if s == nil {
		return KeyUse{LowPN: 1}, 0 // as wpa_supplicant says it
	}
	pn := max(s.lowPN, 1)
	return KeyUse{s.ki, s.an, s.tx, s.rx, uint32(pn)}, uint32(pn >> 32)
}

// tellSAK adds the SAK until all members have it. If a member is new or gone
// meanwhile, it waits for the next SAK: who takes it goes by the list of live
// peers it comes with.
func (k *KaY) tellSAK(p *participant, m *MKPDU) {
	s := k.latest
	if !p.serves || p != k.principal || s == nil || s.by != p || s.ki.Server != p.mi || s.wrapped == nil {
		return
	}
	if k.allReceive(s) || !p.inUseByMembersOnly(s) || len(s.members) != p.liveCount() {
		return
	}
	m.DistSAK = &DistributedSAK{AN: s.an, Confidentiality: s.conf, KN: s.ki.Number, Suite: s.suite.ID(), Wrapped: s.wrapped}
	if s.suite.XPN() {
		m.ServerSSCI = uint8(s.ssci)
	}
}
