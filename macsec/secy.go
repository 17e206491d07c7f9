package macsec

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ValidateFrames says what happens to received frames that do not validate
// (802.1AE-2018 §10.7.8).
type ValidateFrames uint8

const (
	Strict   ValidateFrames = iota // only valid frames are delivered
	Check                          // others too, if they can be read, and counted
	Disabled                       // nothing is verified
)

func (v ValidateFrames) String() string {
	return [...]string{"strict", "check", "disabled"}[v]
}

// Config is what management decides of a SecY. The zero value of all but SCI
// is the standard's default but for ProtectFrames, whose default is true.
type Config struct {
	// SCI is the transmit channel's. Its MAC is the port's, its port number is
	// 1 unless several SecYs share a MAC.
	SCI SCI
	// ProtectFrames off sends frames as they are (§10.7.18).
	ProtectFrames bool
	// ValidateFrames, ReplayProtect and ReplayWindow govern reception: with
	// ReplayProtect, a frame more than ReplayWindow packet numbers behind the
	// newest is late. 0 wants strict order.
	ValidateFrames ValidateFrames
	ReplayProtect  bool
	ReplayWindow   uint32
	// The forms of the TCI (§10.5.3). Of the three at most one; without any
	// the SCI is left out as long as there is but one receive channel.
	IncludeSCI, UseES, UseSCB bool
	// MaxFrame is the longest sealed frame that the port can send, without
	// FCS; 0 is no limit.
	MaxFrame int
}

// MaxReplayWindowXPN is the widest window for which packet numbers of 64 bits
// are recovered without doubt (§10.7.8).
const MaxReplayWindowXPN = 1<<30 - 1

// Errors that callers tell apart.
var (
	ErrNoSuchSC = errors.New("no such receive channel")
	ErrNoSuchSA = errors.New("no such SA")
)

// maxReceiveSCs bounds the channels of a group; each costs 2 KB.
const maxReceiveSCs = 256

// SecY protects one port. See the package comment for its locks.
type SecY struct {
	tx transmitter
	rx receiver
}

// transmitter is the sending half.
type transmitter struct {
	mu       sync.Mutex
	cfg      Config
	sas      [4]*transmitSA
	current  *transmitSA // the encoding SA; nil: nothing is sent
	peers    int         // receive channels there are
	counters TxCounters
}

// transmitSA is an SA of the transmit channel.
type transmitSA struct {
	association
	tci      byte // E and C; the rest is the transmitter's
	an       uint8
	next     uint64 // packet number; 0: used up
	last     uint64 // packet number that may be used
	counters TxSACounters
}

// receiver is the receiving half.
type receiver struct {
	mu       sync.Mutex
	cfg      Config
	scs      []*receiveSC
	counters RxCounters
}

// receiveSC is a receive channel.
type receiveSC struct {
	sci      SCI
	sas      [4]*receiveSA
	counters RxSCCounters
}

// receiveSA is an SA of a receive channel.
type receiveSA struct {
	association
	inUse        bool
	next, lowest uint64 // packet numbers: newest validated + 1, and lowest acceptable
	counters     RxSACounters
}

// New returns a SecY without keys: it sends nothing and validates nothing.
func New(cfg Config) (*SecY, error) {
	s := NewClosed(cfg.SCI)
	if err := s.Configure(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// NewClosed returns a SecY with the strictest configuration there is, and without
// keys: it lets nothing through, either way. It cannot fail, so that a port that
// is to be protected can be closed whatever else does.
func NewClosed(sci SCI) *SecY {
	s := &SecY{}
	s.tx.cfg = Config{SCI: sci, ProtectFrames: true, ReplayProtect: true}
	s.rx.cfg = s.tx.cfg
	return s
}

// Configure changes what management decides. The SCI stays: another one is
// another SecY.
func (s *SecY) Configure(cfg Config) error {
	forms := 0
	for _, on := range []bool{cfg.IncludeSCI, cfg.UseES, cfg.UseSCB} {
		if on {
			forms++
		}
	}
	switch {
	case forms > 1:
		return errors.New("of IncludeSCI, UseES and UseSCB at most one (802.1AE-2018 §9.5)")
	case cfg.UseES && cfg.SCI.Port() != portES, cfg.UseSCB && cfg.SCI.Port() != portSCB:
		return fmt.Errorf("SCI %s cannot be left to the source address: ES implies port %d, SCB port %d", cfg.SCI, portES, portSCB)
	case cfg.ValidateFrames > Disabled:
		return fmt.Errorf("ValidateFrames %d: want 0 to 2", cfg.ValidateFrames)
	}
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if s.tx.cfg.SCI != 0 && s.tx.cfg.SCI != cfg.SCI {
		return fmt.Errorf("SCI %s: the SecY's is %s and stays so", cfg.SCI, s.tx.cfg.SCI)
	}
	s.rx.cfg, s.tx.cfg = cfg, cfg
	return nil
}

// SCI returns the transmit channel's identifier.
func (s *SecY) SCI() SCI {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	return s.tx.cfg.SCI
}

// LockTransmit begins a batch of Seal. Whoever sends on the port holds it until
// the frames are with the device, so that they are on the wire in the order of
// their packet numbers.
func (s *SecY) LockTransmit() { s.tx.mu.Lock() }

// UnlockTransmit ends the batch.
func (s *SecY) UnlockTransmit() { s.tx.mu.Unlock() }

// LockReceive begins a batch of Open.
func (s *SecY) LockReceive() { s.rx.mu.Lock() }

// UnlockReceive ends the batch.
func (s *SecY) UnlockReceive() { s.rx.mu.Unlock() }

// InstallTxSA makes a transmit SA with the key; nothing is sent with it before
// EnableTxSA. ssci is for XPN suites alone. next is its first packet number, 1
// for a fresh key. An SA that is there already with the same key goes on where
// it is, whatever next says, unless that is further on: a packet number is
// never used twice with a key.
func (s *SecY) InstallTxSA(an uint8, key SAK, ssci uint32, next uint64) error {
	if an > 3 {
		return fmt.Errorf("AN %d: want 0 to 3", an)
	}
	if next == 0 || next > key.Suite.MaxPN() {
		return fmt.Errorf("packet number %d: want 1 to %d with %s", next, key.Suite.MaxPN(), key.Suite)
	}
	a, err := newAssociation(&key, s.SCI(), ssci) // takes a while: not under the lock
	if err != nil {
		return err
	}
	sa := &transmitSA{association: a, an: an, next: next, last: key.Suite.MaxPN()}
	if a.conf != IntegrityOnly {
		sa.tci = tciE | tciC
	}
	t := &s.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range t.sas { // under another AN the same key has the same IVs
		if old == nil || old.fingerprint != a.fingerprint {
			continue
		}
		if old.next == 0 || old.next > sa.next {
			sa.next = old.next
		}
		sa.last = old.last
		if old.an != an {
			// From here on the new one alone counts on.
			old.next = 0
			if t.current == old {
				t.current = nil
			}
		}
	}
	current := t.sas[an] != nil && t.current == t.sas[an]
	if current && t.current.fingerprint != a.fingerprint {
		sa.wipe()
		return fmt.Errorf("AN %d: in use for transmission with another key", an)
	}
	if old := t.sas[an]; old != nil {
		if old.fingerprint == a.fingerprint {
			sa.counters = old.counters
		}
		old.wipe()
	}
	t.sas[an] = sa
	if current {
		t.current = sa
	}
	return nil
}

// EnableTxSA makes an SA the one to send with.
func (s *SecY) EnableTxSA(an uint8) error {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return fmt.Errorf("enable transmit SA %d: %w", an, ErrNoSuchSA)
	}
	s.tx.current = s.tx.sas[an]
	return nil
}

// DisableTx stops transmission: no frame leaves until EnableTxSA.
func (s *SecY) DisableTx() {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	s.tx.current = nil
}

// StopTxSA ends transmission with an SA for good and returns the packet number
// that it would have used next, 0 if there is none.
func (s *SecY) StopTxSA(an uint8) (next uint64, err error) {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return 0, fmt.Errorf("stop transmit SA %d: %w", an, ErrNoSuchSA)
	}
	sa := s.tx.sas[an]
	next, sa.next = sa.next, 0
	return next, nil
}

// RemoveTxSA forgets a transmit SA and wipes its key. If it was the one to send
// with, transmission stops.
func (s *SecY) RemoveTxSA(an uint8) {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return
	}
	sa := s.tx.sas[an]
	s.tx.sas[an] = nil
	if s.tx.current == sa {
		s.tx.current = nil
	}
	sa.wipe()
}

// LimitTxPN sets the last packet number that a transmit SA may use, for the time
// being: it waits there until the limit is raised. A key whose numbers are kept
// over restarts is limited to those that are noted down as used.
func (s *SecY) LimitTxPN(an uint8, last uint64) error {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return fmt.Errorf("limit transmit SA %d: %w", an, ErrNoSuchSA)
	}
	s.tx.sas[an].last = min(last, s.tx.sas[an].suite.MaxPN())
	return nil
}

// SkipTxPN leaves out a transmit SA's packet numbers before pn. Where they are used
// up they stay so.
func (s *SecY) SkipTxPN(an uint8, pn uint64) error {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return fmt.Errorf("skip packet numbers of transmit SA %d: %w", an, ErrNoSuchSA)
	}
	if sa := s.tx.sas[an]; sa.next != 0 {
		sa.next = max(sa.next, pn)
	}
	return nil
}

// TxNextPN returns the next packet number of a transmit SA, 0 if it is used up.
func (s *SecY) TxNextPN(an uint8) (uint64, error) {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	if an > 3 || s.tx.sas[an] == nil {
		return 0, fmt.Errorf("transmit SA %d: %w", an, ErrNoSuchSA)
	}
	return s.tx.sas[an].next, nil
}

// RekeyDue reports whether the SA to send with nears the end of its packet
// numbers, or has reached it.
func (s *SecY) RekeyDue() bool {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	return s.tx.current != nil && s.tx.current.rekeyDue()
}

func (sa *transmitSA) rekeyDue() bool {
	return sa.next == 0 || sa.next >= sa.suite.PendingPNExhaustion()
}

// CreateRxSC makes a receive channel; nothing happens if it is there.
func (s *SecY) CreateRxSC(sci SCI) error {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	if s.rx.find(sci) != nil {
		return nil
	}
	if len(s.rx.scs) == maxReceiveSCs {
		return fmt.Errorf("receive channel %s: there are %d already", sci, maxReceiveSCs)
	}
	s.rx.scs = append(s.rx.scs, &receiveSC{sci: sci})
	s.countPeers()
	return nil
}

// RemoveRxSC forgets a receive channel and wipes its keys.
func (s *SecY) RemoveRxSC(sci SCI) {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	sc := s.rx.find(sci)
	if sc == nil {
		return
	}
	s.rx.scs = slices.DeleteFunc(s.rx.scs, func(c *receiveSC) bool { return c == sc })
	for _, sa := range sc.sas {
		if sa != nil {
			sa.wipe()
		}
	}
	s.countPeers()
}

// countPeers tells the transmitter, whose SecTAG's form depends on it.
func (s *SecY) countPeers() {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	s.tx.peers = len(s.rx.scs)
}

// InstallRxSA makes a receive SA with the key; it is not used before
// EnableRxSA. lowest is the lowest acceptable packet number, 1 for a fresh key.
// An SA that is there already with the same key keeps its window: it never goes
// back.
func (s *SecY) InstallRxSA(sci SCI, an uint8, key SAK, ssci uint32, lowest uint64) error {
	if an > 3 {
		return fmt.Errorf("AN %d: want 0 to 3", an)
	}
	lowest = max(lowest, 1) // 0 is no packet number (§9.6)
	if lowest > key.Suite.MaxPN() {
		return fmt.Errorf("packet number %d: want at most %d with %s", lowest, key.Suite.MaxPN(), key.Suite)
	}
	a, err := newAssociation(&key, sci, ssci)
	if err != nil {
		return err
	}
	sa := &receiveSA{association: a, next: lowest, lowest: lowest}
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	sc := s.rx.find(sci)
	if sc == nil {
		sa.wipe()
		return fmt.Errorf("install receive SA: %s: %w", sci, ErrNoSuchSC)
	}
	for i, old := range sc.sas {
		if old == nil {
			continue
		}
		if old.fingerprint == sa.fingerprint { // an old frame is old under any AN
			sa.next, sa.lowest = max(sa.next, old.next), max(sa.lowest, old.lowest)
			if i == int(an) {
				sa.counters, sa.inUse = old.counters, old.inUse
			}
		}
	}
	if old := sc.sas[an]; old != nil {
		old.wipe()
	}
	sc.sas[an] = sa
	return nil
}

// EnableRxSA begins to accept frames of a receive SA.
func (s *SecY) EnableRxSA(sci SCI, an uint8) error { return s.setInUse(sci, an, true) }

// DisableRxSA stops accepting them; the SA stays.
func (s *SecY) DisableRxSA(sci SCI, an uint8) error { return s.setInUse(sci, an, false) }

func (s *SecY) setInUse(sci SCI, an uint8, on bool) error {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	sa, err := s.rx.sa(sci, an)
	if err != nil {
		return err
	}
	sa.inUse = on
	return nil
}

// RemoveRxSA forgets a receive SA and wipes its key.
func (s *SecY) RemoveRxSA(sci SCI, an uint8) {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	if sa, err := s.rx.sa(sci, an); err == nil {
		s.rx.find(sci).sas[an] = nil
		sa.wipe()
	}
}

// RxPN returns a receive SA's next and lowest acceptable packet number.
func (s *SecY) RxPN(sci SCI, an uint8) (next, lowest uint64, err error) {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	sa, err := s.rx.sa(sci, an)
	if err != nil {
		return 0, 0, err
	}
	return sa.next, sa.lowest, nil
}

// Close wipes all keys. Nothing is sent or accepted from then on.
func (s *SecY) Close() {
	s.rx.mu.Lock()
	defer s.rx.mu.Unlock()
	for _, sc := range s.rx.scs {
		for _, sa := range sc.sas {
			if sa != nil {
				sa.wipe()
			}
		}
	}
	s.rx.scs = nil
	s.countPeers()
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	s.tx.current = nil
	for an, sa := range s.tx.sas {
		if sa != nil {
			sa.wipe()
		}
		s.tx.sas[an] = nil
	}
}

// find returns the receive channel with an SCI, nil if there is none. The
// caller holds the lock.
func (r *receiver) find(sci SCI) *receiveSC {
	for _, sc := range r.scs {
		if sc.sci == sci {
			return sc
		}
	}
	return nil
}

func (r *receiver) sa(sci SCI, an uint8) (*receiveSA, error) {
	sc := r.find(sci)
	if sc == nil {
		return nil, fmt.Errorf("receive channel %s: %w", sci, ErrNoSuchSC)
	}
	if an > 3 || sc.sas[an] == nil {
		return nil, fmt.Errorf("receive SA %d of %s: %w", an, sci, ErrNoSuchSA)
	}
	return sc.sas[an], nil
}
