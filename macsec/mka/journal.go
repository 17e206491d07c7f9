package mka

import (
	"fmt"
	"time"

	"msee/macsec"
)

// EventKind says what an event is about.
type EventKind string

const (
	EventKey        EventKind = "key"         // a CAK begins or ends to be in force
	EventPeer       EventKind = "peer"        // a peer comes, restarts or is lost
	EventServer     EventKind = "key-server"  // another key server
	EventPrincipal  EventKind = "principal"   // another CAK provides the SAKs
	EventSAK        EventKind = "sak"         // a SAK is made, taken, used, retired
	EventLost       EventKind = "lost"        // nobody is left
	EventWrongCAK   EventKind = "wrong-cak"   // same CKN, another CAK
	EventUnknownCKN EventKind = "unknown-ckn" // a CKN that is not configured
	EventRefused    EventKind = "refused"     // what the key server wants is not done
	EventCollision  EventKind = "collision"   // of member identifiers
	EventLoop       EventKind = "loop"        // own frames come back
	EventIgnored    EventKind = "ignored"
)

// Trouble reports whether an event of this kind asks for somebody's attention.
func (e EventKind) Trouble() bool {
	switch e {
	case EventLost, EventWrongCAK, EventUnknownCKN, EventRefused, EventCollision, EventLoop:
		return true
	}
	return false
}

// Event is an entry of a KaY's journal.
type Event struct {
	At   time.Time  `json:"at"`
	Kind EventKind  `json:"kind"`
	CKN  CKN        `json:"ckn,omitempty"`  // of the participant; nil if it is about none
	Key  string     `json:"key,omitempty"`  // its key's name
	Peer macsec.SCI `json:"peer,omitempty"` // 0 if it is about none
	Text string     `json:"text"`
	// Count is how often it was seen up to Last, which is At for the first.
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
}

func (e *Event) String() string {
	s := string(e.Kind) + ": "
	if e.Peer != 0 {
		s += e.Peer.String() + " "
	}
	if e.Kind == EventPrincipal || e.Kind == EventKey {
		s += fmt.Sprintf("CKN %s ", e.CKN)
	}
	return s + e.Text
}

// journalLen is how many events are kept.
const journalLen = 64

type journal struct{ events []Event }

func (j *journal) add(e Event) {
	if len(j.events) == journalLen {
		j.events = append(j.events[:0], j.events[1:]...)
	}
	j.events = append(j.events, e)
}

// log notes an event and has it told.
func (k *KaY) log(now time.Time, p *participant, peer macsec.SCI, kind EventKind, format string, args ...any) {
	e := Event{At: now, Last: now, Kind: kind, Peer: peer, Text: fmt.Sprintf(format, args...), Count: 1}
	if p != nil {
		e.CKN, e.Key = p.key.CKN, p.key.Name
	}
	k.journal.add(e)
	k.do(Log{e})
}

// trouble is the last of each kind of what may go wrong with every frame
// that comes, so that the journal has it once.
type trouble struct {
	last   map[EventKind]Event
	logged map[EventKind]time.Time
}

// sayAgain is the least time between two entries of the same kind, and between
// equal ones.
const (
	sayOther = 10 * time.Second
	sayAgain = 10 * time.Minute
)

// troubled is log for what anybody can cause at any rate.
func (k *KaY) troubled(now time.Time, p *participant, peer macsec.SCI, kind EventKind, format string, args ...any) {
	if k.trouble.last == nil {
		k.trouble = trouble{map[EventKind]Event{}, map[EventKind]time.Time{}}
	}
	e := Event{At: now, Last: now, Kind: kind, Peer: peer, Text: fmt.Sprintf(format, args...), Count: 1}
	if p != nil {
		e.CKN, e.Key = p.key.CKN, p.key.Name
	}
	was, quiet := k.trouble.last[kind], sayOther
	if was.Peer == e.Peer && was.Text == e.Text {
		e.At, e.Count = was.At, was.Count+1
		quiet = sayAgain
	}
	k.trouble.last[kind] = e
	if at, ok := k.trouble.logged[kind]; ok && now.Sub(at) < quiet {
		for i := range k.journal.events {
			if was := &k.journal.events[i]; was.Kind == kind && was.Peer == e.Peer && was.Text == e.Text {
				was.Count, was.Last = was.Count+1, now
			}
		}
		return
	}
	k.trouble.logged[kind] = now
	k.journal.add(e)
	k.do(Log{e})
}

// Counters count frames and SAKs of a KaY, under OpenConfig's names where its
// macsec model has one.
type Counters struct {
	Sent           uint64 `json:"out-mkpdu"`
	SentSAK        uint64 `json:"out-sak-mkpdu"`
	Received       uint64 `json:"in-mkpdu"`
	Taken          uint64 `json:"in-sak-mkpdu"`  // SAKs installed as member
	Generated      uint64 `json:"sak-generated"` // as key server
	Invalid        uint64 `json:"mkpdu-validation-failures"`
	UnknownCKN     uint64 `json:"rx-unrecognized-ckn"`
	BadICV         uint64 `json:"mkpdu-icv-verification-failures"`
	Replayed       uint64 `json:"mkpdu-replayed"`          // message number not above the last
	BadPeer        uint64 `json:"mkpdu-bad-peer-failures"` // one too many, or its SCI changed
	NotServer      uint64 `json:"sak-not-of-key-server"`
	BadUnwrap      uint64 `json:"sak-decryption-failures"`
	CipherMismatch uint64 `json:"sak-cipher-mismatch-failures"`
	Own            uint64 `json:"mkpdu-own"` // that came back
	Collisions     uint64 `json:"member-identifier-collisions"`
}
