package mka

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"msee/macsec"
)

// A KaY's work, after every event and whenever Next says:
//
//  1. keys:      participants begin and end with their CAKs
//  2. expire:    peers that were not heard for a life time go
//  3. elect:     each participant's key server
//  4. principal: the participant that provides the SAKs
//  5. serve:     as key server, make a new SAK if one is needed
//  6. follow:    send with the latest SAK once all receive with it
//  7. retire:    stop receiving with the old one once all send with the latest
//  8. transmit:  MKPDUs that are due

// Config is what a KaY needs to know besides its keys.
type Config struct {
	SCI macsec.SCI
	// Priority to become key server: 0 is best, 255 never (802.1X-2020
	// table 9-2).
	Priority uint8
	// Suites are the cipher suites this station takes, the preferred first.
	Suites []macsec.CipherSuite
	// Confidentiality is what this station gives out as key server. As a
	// member it takes what the key server says, but for integrity only where
	// this asks for encryption.
	Confidentiality macsec.Confidentiality
	// Hello is the pace of MKPDUs, from BoundedHelloTime to HelloTime; 0 is
	// HelloTime.
	Hello time.Duration
	// RekeyEvery is the life of a SAK, as key server; 0 is until its packet
	// numbers run out.
	RekeyEvery time.Duration
	// Rand is where member identifiers and SAKs come from: crypto/rand.
	Rand io.Reader
}

// leastRekey is the shortest life of a SAK: the one before must have gone.
const leastRekey = 10 * time.Second

// Check says what is wrong with c.
func (c *Config) Check() error {
	var faults []error
	if len(c.Suites) == 0 {
		faults = append(faults, errors.New("no cipher suite"))
	}
	for _, s := range c.Suites {
		if !s.Valid() {
			faults = append(faults, fmt.Errorf("%s is unknown", s))
		} else if s.XPN() && c.Confidentiality > macsec.Confidentiality0 {
			faults = append(faults, fmt.Errorf("%s has no confidentiality offsets (802.1AE-2018 §14.7)", s))
		}
	}
	if c.Confidentiality > macsec.Confidentiality50 {
		faults = append(faults, fmt.Errorf("%s: want 0 to 3", c.Confidentiality))
	}
	if c.Hello != 0 && (c.Hello < BoundedHelloTime || c.Hello > HelloTime) {
		faults = append(faults, fmt.Errorf("hello time %s: want %s to %s", c.Hello, BoundedHelloTime, HelloTime))
	}
	if c.RekeyEvery != 0 && c.RekeyEvery < leastRekey {
		faults = append(faults, fmt.Errorf("rekey every %s: want %s at least", c.RekeyEvery, leastRekey))
	}
	return errors.Join(faults...)
}

// Key is a CAK with its name.
type Key struct {
	Name     string // for people; may be empty
	CKN      []byte // 1 to 32 octets
	CAK      []byte // 16 or 32 octets
	Fallback bool   // used only where no other key has live peers
	// Start and End bound when the key is in force; zero times do not. Of
	// several keys the one that started last is preferred.
	Start, End time.Time
}

// Check says what is wrong with k, without telling the key.
func (k *Key) Check() error {
	switch {
	case len(k.CKN) < 1 || len(k.CKN) > 32:
		return fmt.Errorf("CKN of %d octets: want 1 to 32", len(k.CKN))
	case len(k.CAK) != 16 && len(k.CAK) != 32:
		return fmt.Errorf("CAK of %d octets: want 16 or 32", len(k.CAK))
	case !k.End.IsZero() && !k.End.After(k.Start):
		return fmt.Errorf("key ends at %s: want later than its start", k.End.Format(time.RFC3339))
	}
	return nil
}

func (k *Key) inForce(now time.Time) bool {
	return !now.Before(k.Start) && (k.End.IsZero() || now.Before(k.End))
}

// KaY is the key agreement entity of a port. It has one owner; nothing in it
// is safe for concurrent use.
type KaY struct {
	cfg   Config
	keys  []Key
	parts []*participant // of the keys in force, the preferred first

	principal *participant
	pinned    *participant // preferred by Promote, whatever the order
	// The SAKs in the SecY. Old is in use until all send with latest.
	latest, old *sak
	rekey       string // why the next SAK is asked for; empty if it is not

	wanting time.Time // since when; zero if no SAK is needed

	now      time.Time // of the last event
	counters Counters
	journal  journal
	trouble  trouble
	out      []Action
}

// New returns the KaY of a port. Config and keys must have passed Check. Call
// Advance at once.
func New(cfg Config, keys []Key) *KaY {
	if cfg.Hello == 0 {
		cfg.Hello = HelloTime
	}
	k := &KaY{cfg: cfg}
	k.setKeys(keys)
	return k
}

// Advance does what is due by the clock.
func (k *KaY) Advance(now time.Time) []Action { return k.settle(now) }

// SetKeys replaces the keys. Participants whose key stays go on undisturbed.
func (k *KaY) SetKeys(now time.Time, keys []Key) []Action {
	k.setKeys(keys)
	return k.settle(now)
}

func (k *KaY) setKeys(keys []Key) {
	k.keys = slices.Clone(keys)
	slices.SortStableFunc(k.keys, func(a, b Key) int {
		if a.Fallback != b.Fallback {
			return cmp.Compare(btoi(a.Fallback), btoi(b.Fallback))
		}
		return b.Start.Compare(a.Start)
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// settle does all that follows from an event.
func (k *KaY) settle(now time.Time) []Action {
	k.now = now
	k.applyKeys(now)
	for _, p := range k.parts {
		k.expire(now, p)
	}
	for _, p := range k.parts {
		k.elect(now, p)
	}
	k.choosePrincipal(now)
	k.serve(now)
	k.follow(now)
	k.retire(now)
	for _, p := range k.parts {
		k.transmit(now, p)
	}
	out := k.out
	k.out = nil
	return out
}

func (k *KaY) do(a Action) { k.out = append(k.out, a) }

// applyKeys makes the participants those of the keys in force.
func (k *KaY) applyKeys(now time.Time) {
	var parts []*participant
	for _, key := range k.keys {
		if !key.inForce(now) {
			continue
		}
		i := slices.IndexFunc(k.parts, func(p *participant) bool {
			return bytes.Equal(p.key.CKN, key.CKN) && bytes.Equal(p.key.CAK, key.CAK)
		})
		if i < 0 {
			p := newParticipant(&k.cfg, key, now)
			k.log(now, p, 0, EventKey, "in force")
			parts = append(parts, p)
			continue
		}
		p := k.parts[i]
		p.key.Name, p.key.Fallback, p.key.Start, p.key.End = key.Name, key.Fallback, key.Start, key.End
		parts = append(parts, p)
	}
	gone := k.parts
	k.parts = parts
	for _, p := range gone {
		if !slices.Contains(parts, p) {
			k.log(now, p, 0, EventKey, "no longer in force")
			k.endParticipant(p)
		}
	}
}

func (k *KaY) endParticipant(p *participant) {
	peers := p.peers
	p.peers = nil
	for _, q := range peers {
		k.peerGone(q.sci)
	}
	p.wipe()
	if k.principal == p {
		k.principal = nil
	}
	if k.pinned == p {
		k.pinned = nil
	}
}

// peerGone removes the receive SC of a station that no participant knows any
// more.
func (k *KaY) peerGone(sci macsec.SCI) {
	for _, p := range k.parts {
		for _, q := range p.peers {
			if q.sci == sci {
				return
			}
		}
	}
	k.do(RemovePeer{sci})
}

// choosePrincipal decides which participant provides the SAKs. First match:
//
//  1. as key server, the preferred participant that has live peers, if those
//     are all that the principal has, and no SAK is under way: nobody is to
//     lose the port over it;
//  2. the principal, while it has live peers: a member follows its key server,
//     which chooses by what CKN it distributes under (see takeSAK);
//  3. any participant with live peers, the preferred first;
//  4. none: the SAKs go, and nothing is sent until there is a peer.
//
// The SAKs in use stay in all cases but the last.
func (k *KaY) choosePrincipal(now time.Time) {
	was := k.principal
	if was != nil && was.liveCount() == 0 {
		k.principal = nil
	}
	for _, p := range k.preferred() {
		if p.liveCount() == 0 {
			continue
		}
		if k.principal == nil || k.principal.serves && p.serves && p.covers(k.principal) && k.settled() {
			k.principal = p
			break
		}
		if p == k.principal {
			break
		}
	}
	switch {
	case k.principal == was:
	case k.principal != nil:
		k.log(now, k.principal, 0, EventPrincipal, "principal")
	default:
		k.log(now, was, 0, EventLost, "no live peer is left: nothing is sent or received until there is one")
		k.removeSAK(&k.latest)
		k.removeSAK(&k.old)
	}
}

// preferred returns the participants in order of preference.
func (k *KaY) preferred() []*participant {
	if k.pinned == nil || k.pinned == k.parts[0] {
		return k.parts
	}
	out := []*participant{k.pinned}
	for _, p := range k.parts {
		if p != k.pinned {
			out = append(out, p)
		}
	}
	return out
}

// ErrNotServer is returned where only the key server may decide.
var ErrNotServer = errors.New("this station is not key server")

// Rekey asks for a new SAK under the principal CAK.
func (k *KaY) Rekey(now time.Time) ([]Action, error) {
	switch p := k.principal; {
	case p == nil:
		return nil, errors.New("no peer is live")
	case !p.serves:
		return nil, fmt.Errorf("%w: %s is; ask there", ErrNotServer, p.serverSCI())
	}
	k.rekey = "asked for"
	return k.settle(now), nil
}

// Promote makes the participant of a CKN principal, and asks for a SAK under
// it. It is refused unless all peers are live under that CAK already, so that
// no frame is lost. With a nil ckn, any other than the principal is taken.
func (k *KaY) Promote(now time.Time, ckn []byte) ([]Action, error) {
	p, err := k.promotable(ckn)
	if err != nil {
		return nil, err
	}
	k.pinned, k.rekey = p, ""
	return k.settle(now), nil
}

// Promotable says why Promote would refuse; nil if it would not.
func (k *KaY) Promotable(ckn []byte) error {
	_, err := k.promotable(ckn)
	return err
}

func (k *KaY) promotable(ckn []byte) (*participant, error) {
	was := k.principal
	if was == nil {
		return nil, errors.New("no peer is live")
	}
	if !was.serves {
		return nil, fmt.Errorf("%w: %s is; rotate there", ErrNotServer, was.serverSCI())
	}
	var faults []error
	for _, p := range k.parts {
		switch {
		case ckn == nil && p == was:
		case ckn != nil && !bytes.Equal(p.key.CKN, ckn):
		case p == was:
			return nil, fmt.Errorf("CKN %x is the principal already", ckn)
		case !p.covers(was):
			faults = append(faults, fmt.Errorf("CKN %x: not all peers are live under it", p.key.CKN))
		case !p.serves:
			faults = append(faults, fmt.Errorf("CKN %x: %w: %s is", p.key.CKN, ErrNotServer, p.serverSCI()))
		default:
			return p, nil
		}
	}
	if faults == nil {
		faults = append(faults, errors.New("no other CAK is in force"))
	}
	return nil, errors.Join(faults...)
}

// PacketNumbers tells how far the packet numbers of the SAK of an AN are: the
// next that will be sent, the highest received, and the lowest of those still
// accepted of any peer.
func (k *KaY) PacketNumbers(now time.Time, an uint8, next, received, lowest uint64) []Action {
	for _, s := range []*sak{k.latest, k.old} {
		if s != nil && s.an == an {
			s.nextPN, s.receivedPN, s.lowPN = next, received, lowest
		}
	}
	return k.settle(now)
}

// Next returns when Advance must be called at the latest.
func (k *KaY) Next() time.Time {
	var next time.Time
	// What was due at the last event is done, or waits for another one.
	at := func(t time.Time) {
		if t.After(k.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, p := range k.parts {
		at(p.due())
		for _, q := range p.peers {
			if q.live {
				at(q.liveUntil)
			} else {
				at(q.heardUntil)
			}
		}
	}
	for i := range k.keys {
		at(k.keys[i].Start)
		at(k.keys[i].End)
	}
	if s := k.latest; s != nil && s.tx {
		if k.old != nil {
			at(k.retireAt())
		}
		if k.cfg.RekeyEvery != 0 && k.principal != nil && k.principal.serves && k.old == nil {
			at(s.created.Add(k.cfg.RekeyEvery))
		}
	}
	if !k.wanting.IsZero() {
		at(k.wanting.Add(LifeTime))
	}
	return next
}
