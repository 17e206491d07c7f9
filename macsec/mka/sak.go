package mka

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"msee/macsec"
)

// sak is a SAK in the SecY. The key itself is there only.
type sak struct {
	ki      KI
	an      uint8
	suite   macsec.CipherSuite
	conf    macsec.Confidentiality
	by      *participant // it was distributed in whose CA
	members []MI         // but this station
	wrapped []byte       // as key server: to distribute
	ssci    uint32       // of this station; XPN only

	rx, tx  bool // always installed to receive first
	created time.Time
	txSince time.Time

	nextPN, receivedPN, lowPN uint64 // see PacketNumbers
}

// serve makes a new SAK if one is needed and the time has come (§9.8).
func (k *KaY) serve(now time.Time) {
	p := k.principal
	if p == nil || !p.serves {
		k.rekey, k.wanting = "", time.Time{}
		return
	}
	why := k.needed(now, p)
	if why == "" || k.cannot(p) != "" {
		k.wanting = time.Time{}
		return
	}
	// Who is not live yet would need another SAK at once, and lose what the
	// live ones send meanwhile: wait, but not for ever.
	if k.wanting.IsZero() {
		k.wanting = now
	}
	if p.incomplete() && now.Before(k.wanting.Add(LifeTime)) {
		return
	}
	// A member keeps two SAKs at most, so all must send with the latest before
	// there is a next; and the old one must have gone.
	if k.latest != nil && k.latest.tx {
		if !k.allTransmit(k.latest) && now.Before(k.wanting.Add(LifeTime)) {
			return
		}
		k.removeSAK(&k.old)
	}
	k.makeSAK(now, p, why)
}

// needed says why a new SAK is needed; empty if none is.
func (k *KaY) needed(now time.Time, p *participant) string {
	s := k.latest
	switch {
	case s == nil:
		return "the first"
	case s.by != p:
		return "change of CAK"
	case s.ki.Server != p.mi:
		return "change of key server"
	case !p.inUseByMembersOnly(s):
		return "new member"
	case !s.tx && s.suite.XPN() && len(s.members) != p.liveCount():
		return "member gone" // the SSCIs go by the list of members
	case !s.tx || k.old != nil:
		return "" // the last one is still under way
	case k.rekey != "":
		return k.rekey
	case max(s.nextPN, s.receivedPN) >= s.suite.PendingPNExhaustion():
		return "packet numbers"
	case k.cfg.RekeyEvery != 0 && !now.Before(s.created.Add(k.cfg.RekeyEvery)):
		return "time"
	}
	return ""
}

// inUseByMembersOnly reports whether all live peers are members of s.
func (p *participant) inUseByMembersOnly(s *sak) bool {
	for _, q := range p.peers {
		if q.live && !slices.Contains(s.members, q.mi) {
			return false
		}
	}
	return true
}

// cannot says why no SAK can be distributed to the live peers; empty if one
// can. There is no way on without MACsec.
func (k *KaY) cannot(p *participant) string {
	for _, q := range p.livePeers() {
		if q.capability < needed(k.cfg.Confidentiality) {
			return fmt.Sprintf("peer %s has MACsec capability: %s; needed for %q: %s", q.sci, q.capability, k.cfg.Confidentiality, needed(k.cfg.Confidentiality))
		}
	}
	if p.commonSuite() == 0 {
		return fmt.Sprintf("the peers announce no cipher suite of %v", k.cfg.Suites)
	}
	return ""
}

// commonSuite is the first suite that all live peers take; those that announce
// none are taken to be configured alike. It is 0 if there is none.
func (p *participant) commonSuite() macsec.CipherSuite {
	for _, s := range p.cfg.Suites {
		if !slices.ContainsFunc(p.peers, func(q *peer) bool {
			return q.live && q.suites != nil && !slices.ContainsFunc(q.suites, func(c SuiteCapability) bool {
				return c.Suite == s.ID() && c.Capability >= needed(p.cfg.Confidentiality)
			})
		}) {
			return s
		}
	}
	return 0
}

// makeSAK makes a SAK, has it received, and sends it to the members.
func (k *KaY) makeSAK(now time.Time, p *participant, why string) {
	k.rekey = ""
	p.kn++
	s := &sak{
		ki: KI{p.mi, p.kn}, an: k.nextAN(), suite: p.commonSuite(), conf: k.cfg.Confidentiality,
		by: p, rx: true, created: now,
	}
	var listed []macsec.SCI
	for _, q := range p.livePeers() {
		s.members = append(s.members, q.mi)
		listed = append(listed, q.sci)
	}
	receivers := make([]Receiver, 0, len(listed))
	for _, sci := range listed {
		receivers = append(receivers, s.receiver(sci, k.cfg.SCI, listed, 0))
	}
	s.ssci = ssci(k.cfg.SCI, k.cfg.SCI, listed, 0)
	nonce := make([]byte, s.suite.KeyLen())
	random(k.cfg.Rand, nonce)
	key := deriveSAK(p.key.CAK, nonce, append([]MI{p.mi}, s.members...), p.kn)
	clear(nonce)
	s.wrapped = wrapKey(p.kek, key)
	k.install(s, key, receivers, s.ssci)
	k.wanting = time.Time{}
	p.tell = true
	k.counters.Generated++
	k.log(now, p, 0, EventSAK, "SAK %d, AN %d, %s, %s, for %d peers: %s", s.ki.Number, s.an, s.suite, s.conf, len(s.members), why)
}

// nextAN is the first after the last in use that is free (§9.9).
func (k *KaY) nextAN() uint8 {
	if k.latest == nil {
		return 0
	}
	an := (k.latest.an + 1) & 3
	if k.old != nil && k.old.an == an {
		an = (an + 1) & 3
	}
	return an
}

// install hands a SAK to the SecY, to be received.
func (k *KaY) install(s *sak, key []byte, receivers []Receiver, own uint32) {
	switch {
	case k.latest == nil:
	case !k.latest.tx || k.latest.an == s.an:
		k.removeSAK(&k.latest)
	default:
		k.removeSAK(&k.old)
		k.old = k.latest
	}
	if k.old != nil && k.old.an == s.an {
		k.removeSAK(&k.old)
	}
	in := Install{KI: s.ki, AN: s.an, Suite: s.suite, Confidentiality: s.conf, Key: key, Receivers: receivers}
	if s.suite.XPN() {
		in.Salt, in.SSCI = salt(s.ki), own
	}
	k.latest = s
	k.do(in)
}

// salt is the part of an XPN suite's IV that comes from the SAK's identifier
// (802.1AE-2018 §10.7.28).
func salt(ki KI) (salt [12]byte) {
	copy(salt[:], ki.Server[:])
	x := binary.BigEndian.Uint32(salt[:])
	binary.BigEndian.PutUint32(salt[:], x^(ki.Number<<16|ki.Number>>16))
	return salt
}

// ssci is the short identifier of the station sci among all that have a SAK:
// the highest SCI has 1, the next 2 (802.1AE-2018 §10.7.13). A key server that
// tells its own, not 0, leaves the others to those that it lists, in its order.
func ssci(sci, server macsec.SCI, listed []macsec.SCI, serverSSCI uint8) uint32 {
	n := uint32(1)
	if serverSSCI == 0 {
		n += uint32(btoi(server > sci))
		for _, other := range listed {
			n += uint32(btoi(other > sci))
		}
		return n
	}
	if sci == server {
		return uint32(serverSSCI)
	}
	for _, other := range listed {
		if n == uint32(serverSSCI) {
			n++
		}
		if other == sci {
			break
		}
		n++
	}
	return n
}

// removeSAK takes a SAK out of the SecY, if there is one.
func (k *KaY) removeSAK(s **sak) {
	if *s != nil {
		k.do(Remove{(*s).ki, (*s).an})
		*s = nil
	}
}

// takeSAK installs a SAK that q distributes, if q is key server. Its CA becomes
// the principal one: it is the key server's choice.
func (k *KaY) takeSAK(now time.Time, p *participant, q *peer, m *MKPDU) {
	d := m.DistSAK
	ki := KI{q.mi, d.KN}
	suite, known := macsec.SuiteByID(d.Suite)
	switch {
	case p.server != q:
		k.counters.NotServer++
		return
	case k.latest != nil && k.latest.ki == ki, k.old != nil && k.old.ki == ki:
		return // sent again, for others or because this station was not heard
	case len(d.Wrapped) == 0:
		k.troubled(now, p, q.sci, EventRefused, "wants no MACsec; this port does nothing without")
		return
	case k.principal != nil && k.principal != p && !p.covers(k.principal):
		k.troubled(now, p, q.sci, EventRefused, "distributes under another CAK than the principal one, under which not all peers are live; waiting for them")
		return
	case p.takenBefore(ki):
		// Its packet numbers would begin again. Who is a new member gets a
		// new SAK.
		k.log(now, p, q.sci, EventRefused, "distributes SAK %d again, which was in use here; taking a new member identifier", d.KN)
		k.restart(p)
		return
	case !known:
		k.counters.CipherMismatch++
		k.troubled(now, p, q.sci, EventRefused, "distributes a SAK for cipher suite %016x, which is unknown", d.Suite)
		return
	case !slices.Contains(k.cfg.Suites, suite):
		k.counters.CipherMismatch++
		k.troubled(now, p, q.sci, EventRefused, "distributes a SAK for %s; this port takes %v", suite, k.cfg.Suites)
		return
	case d.Confidentiality == macsec.IntegrityOnly && k.cfg.Confidentiality != macsec.IntegrityOnly:
		k.troubled(now, p, q.sci, EventRefused, "distributes a SAK for integrity only; this port encrypts")
		return
	case suite.XPN() && d.Confidentiality > macsec.Confidentiality0:
		k.troubled(now, p, q.sci, EventRefused, "distributes a SAK for %s, %s: there is no such thing (802.1AE-2018 §14.7)", suite, d.Confidentiality)
		return
	}
	s := &sak{ki: ki, an: d.AN, suite: suite, conf: d.Confidentiality, by: p, rx: true, created: now}
	receivers, ok := s.fromList(p, q, m)
	if !ok {
		return // not for this station yet, or for some it has still to hear
	}
	key, err := unwrapKey(p.kek, d.Wrapped)
	if err != nil {
		k.counters.BadUnwrap++
		k.troubled(now, p, q.sci, EventRefused, "distributes SAK %d, which does not unwrap: %v", d.KN, err)
		return
	}
	p.take(ki)
	if k.principal != p {
		k.principal = p
		k.log(now, p, q.sci, EventPrincipal, "principal: the key server distributes under it")
	}
	k.install(s, key, receivers, s.ssci)
	p.tell = true
	k.counters.Taken++
	k.log(now, p, q.sci, EventSAK, "SAK %d, AN %d, %s, %s, taken", s.ki.Number, s.an, s.suite, s.conf)
}

// fromList takes the members of a SAK from the key server's live peers, and
// returns the stations to receive from. It reports false if this station is
// not in the list, or one that it has not heard yet.
func (s *sak) fromList(p *participant, server *peer, m *MKPDU) (receivers []Receiver, ok bool) {
	s.members = append(s.members, server.mi)
	var listed []macsec.SCI
	for _, id := range m.Live {
		if id.MI == p.mi {
			ok = true
			listed = append(listed, p.cfg.SCI)
			continue
		}
		q := p.peer(id.MI)
		if q == nil {
			return nil, false
		}
		s.members = append(s.members, q.mi)
		listed = append(listed, q.sci)
	}
	for _, sci := range append([]macsec.SCI{server.sci}, listed...) {
		if sci != p.cfg.SCI {
			receivers = append(receivers, s.receiver(sci, server.sci, listed, m.ServerSSCI))
		}
	}
	s.ssci = ssci(p.cfg.SCI, server.sci, listed, m.ServerSSCI)
	return receivers, ok
}

// receiver is a station to receive s from.
func (s *sak) receiver(sci, server macsec.SCI, listed []macsec.SCI, serverSSCI uint8) Receiver {
	r := Receiver{SCI: sci}
	if s.suite.XPN() {
		r.SSCI = ssci(sci, server, listed, serverSSCI)
	}
	return r
}

// follow sends with the latest SAK once all receive with it: as key server when
// all live peers say so, as member when the key server does it (§9.10).
func (k *KaY) follow(now time.Time) {
	s := k.latest
	if s == nil || s.tx || s.by != k.principal {
		return
	}
	if s.by.serves && s.ki.Server == s.by.mi {
		if !k.allReceive(s) {
			return
		}
	} else if q := s.by.server; q == nil || q.mi != s.ki.Server || !q.use(s.ki).Tx {
		return
	}
	s.tx, s.txSince, s.by.tell = true, now, true
	k.do(Transmit{s.ki, s.an})
	k.log(now, s.by, 0, EventSAK, "SAK %d, AN %d: sending with it", s.ki.Number, s.an)
}

// allReceive reports whether all live peers receive with s.
func (k *KaY) allReceive(s *sak) bool {
	for _, q := range s.by.peers {
		if q.live && !q.use(s.ki).Rx {
			return false
		}
	}
	return true
}

// allTransmit reports whether all members of s that are live send with it.
func (k *KaY) allTransmit(s *sak) bool {
	for _, q := range s.by.peers {
		if q.live && slices.Contains(s.members, q.mi) && !q.use(s.ki).Tx {
			return false
		}
	}
	return true
}

// settled reports whether no SAK is under way.
func (k *KaY) settled() bool {
	return k.latest == nil || k.latest.tx && k.old == nil && k.allTransmit(k.latest)
}

// retireAt is when the old SAK goes, if all send with the latest; a life time
// later in any case.
func (k *KaY) retireAt() time.Time {
	at := k.latest.txSince.Add(RetireTime)
	if !k.allTransmit(k.latest) {
		at = k.latest.txSince.Add(2 * LifeTime)
	}
	return at
}

func (k *KaY) retire(now time.Time) {
	if k.old == nil || k.latest == nil || !k.latest.tx || now.Before(k.retireAt()) {
		return
	}
	k.log(now, k.old.by, 0, EventSAK, "SAK %d, AN %d: retired", k.old.ki.Number, k.old.an)
	k.removeSAK(&k.old)
}
