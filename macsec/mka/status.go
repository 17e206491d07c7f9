package mka

import (
	"fmt"
	"slices"
	"time"

	"msee/macsec"
)

// Status is what a KaY knows, for people. Nothing of it is secret.
type Status struct {
	SCI      macsec.SCI           `json:"sci"`
	Priority uint8                `json:"keyServerPriority"`
	Suites   []macsec.CipherSuite `json:"cipherSuites"`
	// Secured says that all frames are sent, and received from all live
	// peers, under a SAK. Otherwise Reason says why not.
	Secured bool   `json:"secured"`
	Reason  string `json:"reason,omitempty"`

	Latest       *SAKStatus          `json:"latestSAK,omitempty"`
	Old          *SAKStatus          `json:"oldSAK,omitempty"`
	Participants []ParticipantStatus `json:"participants"` // the preferred first
	Waiting      []WaitingKey        `json:"waiting,omitempty"`
	Counters     Counters            `json:"counters"`
	Journal      []Event             `json:"journal"` // the oldest first
}

// ParticipantStatus is of one CAK.
type ParticipantStatus struct {
	Name      string       `json:"name,omitempty"`
	CKN       CKN          `json:"ckn"`
	CAKBits   int          `json:"cakBits"`
	Fallback  bool         `json:"fallback"`
	Principal bool         `json:"principal"` // it provides the SAKs
	Member    PeerID       `json:"member"`
	KeyServer macsec.SCI   `json:"keyServer,omitempty"` // 0 if nobody is
	Server    bool         `json:"isKeyServer"`
	Peers     []PeerStatus `json:"peers"`
}

// PeerStatus is of another member.
type PeerStatus struct {
	SCI        macsec.SCI `json:"sci"`
	Member     PeerID     `json:"member"`
	Live       bool       `json:"live"`
	Since      time.Time  `json:"since"`   // of being live, or heard
	Expires    time.Time  `json:"expires"` // unless it is heard again
	Priority   uint8      `json:"keyServerPriority"`
	Capability Capability `json:"capability"`
	Tx         bool       `json:"tx"` // with the latest SAK
	Rx         bool       `json:"rx"`
}

// SAKStatus is of a SAK in use.
type SAKStatus struct {
	KI              KI                     `json:"keyIdentifier"`
	CKN             CKN                    `json:"ckn"`
	AN              uint8                  `json:"an"`
	Suite           macsec.CipherSuite     `json:"cipherSuite"`
	Confidentiality macsec.Confidentiality `json:"confidentiality"`
	Tx              bool                   `json:"tx"`
	Rx              bool                   `json:"rx"`
	Since           time.Time              `json:"since"`
}

// WaitingKey is a key that is not in force yet.
type WaitingKey struct {
	Name  string    `json:"name,omitempty"`
	CKN   CKN       `json:"ckn"`
	Start time.Time `json:"start"`
}

// Status tells the state of things.
func (k *KaY) Status(now time.Time) Status {
	s := Status{
		SCI: k.cfg.SCI, Priority: k.cfg.Priority, Suites: slices.Clone(k.cfg.Suites),
		Latest: k.latest.status(), Old: k.old.status(),
		Counters: k.counters, Journal: slices.Clone(k.journal.events),
	}
	for _, p := range k.parts {
		s.Participants = append(s.Participants, k.participantStatus(p))
	}
	for _, key := range k.keys {
		if now.Before(key.Start) {
			s.Waiting = append(s.Waiting, WaitingKey{key.Name, key.CKN, key.Start})
		}
	}
	s.Reason = k.unsecured(now)
	s.Secured = s.Reason == ""
	return s
}

func (k *KaY) participantStatus(p *participant) ParticipantStatus {
	s := ParticipantStatus{
		Name: p.key.Name, CKN: p.key.CKN, CAKBits: 8 * len(p.key.CAK), Fallback: p.key.Fallback,
		Principal: p == k.principal, Member: PeerID{p.mi, p.mn},
		KeyServer: p.serverSCI(), Server: p.serves,
	}
	for _, q := range p.peers {
		ps := PeerStatus{
			SCI: q.sci, Member: PeerID{q.mi, q.mn}, Live: q.live, Since: q.since, Expires: q.heardUntil,
			Priority: q.priority, Capability: q.capability,
		}
		if q.live {
			ps.Expires = q.liveUntil
		}
		if k.latest != nil {
			u := q.use(k.latest.ki)
			ps.Tx, ps.Rx = u.Tx, u.Rx
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}

func (s *sak) status() *SAKStatus {
	if s == nil {
		return nil
	}
	return &SAKStatus{
		KI: s.ki, CKN: s.by.key.CKN, AN: s.an, Suite: s.suite, Confidentiality: s.conf, Tx: s.tx, Rx: s.rx,
		Since: s.created,
	}
}

// unsecured says why no frames can be sent; empty if they can.
func (k *KaY) unsecured(now time.Time) string {
	if len(k.parts) == 0 {
		return "no CAK is in force"
	}
	p := k.principal
	if p == nil {
		return k.alone(now)
	}
	if k.latest != nil && (k.latest.tx || k.old != nil) {
		return ""
	}
	if p.serves {
		switch why := k.cannot(p); {
		case why != "":
			return why
		case k.latest == nil:
			return "waiting for potential peers, before the first SAK is made"
		}
		for _, q := range p.livePeers() {
			if !q.use(k.latest.ki).Rx {
				return fmt.Sprintf("waiting for peer %s to receive with SAK %d", q.sci, k.latest.ki.Number)
			}
		}
	}
	if t, ok := k.recent(now, EventRefused); ok {
		return fmt.Sprintf("key server %s %s", t.Peer, t.Text)
	}
	switch {
	case p.server == nil:
		return "nobody wants to be key server"
	case k.latest == nil:
		return fmt.Sprintf("waiting for a SAK from key server %s", p.server.sci)
	}
	return fmt.Sprintf("waiting for key server %s to send with SAK %d", p.server.sci, k.latest.ki.Number)
}

// alone says why there is no live peer.
func (k *KaY) alone(now time.Time) string {
	for _, kind := range []EventKind{EventWrongCAK, EventUnknownCKN, EventLoop} {
		if t, ok := k.recent(now, kind); ok {
			return fmt.Sprintf("%s %s", t.Peer, t.Text)
		}
	}
	for _, p := range k.parts {
		for _, q := range p.peers {
			return fmt.Sprintf("peer %s is heard, but does not say that it hears this station", q.sci)
		}
	}
	return "no MKPDU is heard: is MACsec on at the other end?"
}

// recent returns the last trouble of a kind, if it is no older than a life
// time.
func (k *KaY) recent(now time.Time, kind EventKind) (Event, bool) {
	t, ok := k.trouble.last[kind]
	return t, ok && now.Sub(t.Last) < LifeTime
}
