package mka

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"msee/macsec"
)

// network is a simulated link with virtual time: MKPDUs are delayed, lost and
// doubled; data frames, of which each station sends one every probeEvery, are
// not. It watches what must never happen.
type network struct {
	t        testing.TB
	rng      *rand.Rand
	now      time.Time
	stations []*station
	queue    deliveries
	// loss is the share of MKPDUs lost, of each receiver alone; double of
	// those that come twice. cut drops by sender and receiver.
	loss, double float64
	maxDelay     time.Duration
	cut          func(from, to *station) bool
	lossy        bool // see checkTransmit
	tap          func(frame []byte)
	verbose      bool

	probes, probesLost int // from a secured station to a live peer of it
	keys               map[string]bool
}

// station is a KaY with a model of its SecY.
type station struct {
	net      *network
	name     string
	kay      *KaY
	cfg      Config
	sas      [4]*modelSA
	transmit int // AN; -1 if none
	sent     int // MKPDUs
	probe    time.Time
}

type modelSA struct {
	Install
	key string // a copy
}

const probeEvery = 20 * time.Millisecond

type delivery struct {
	at    time.Time
	to    *station
	frame []byte
}

type deliveries []delivery

func (d deliveries) Len() int           { return len(d) }
func (d deliveries) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deliveries) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deliveries) Push(x any)        { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newNetwork(t testing.TB, seed uint64) *network {
	return &network{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: epoch, maxDelay: 5 * time.Millisecond,
		cut: func(_, _ *station) bool { return false }, keys: map[string]bool{}, verbose: testing.Verbose(),
	}
}

// Read makes the network a deterministic source of random numbers.
func (n *network) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(n.rng.Uint32())
	}
	return len(b), nil
}

var (
	primaryKey = Key{Name: "primary", CKN: []byte("primary"), CAK: bytes.Repeat([]byte{1}, 16)}
	nextKey    = Key{Name: "next", CKN: []byte("next"), CAK: bytes.Repeat([]byte{2}, 32)}
)

// add makes a station with MAC address 02:00:00:00:00:id.
func (n *network) add(id byte, cfg Config, keys ...Key) *station {
	if cfg.SCI == 0 {
		cfg.SCI = macsec.NewSCI([6]byte{2, 0, 0, 0, 0, id}, 1)
	}
	if cfg.Suites == nil {
		cfg.Suites = []macsec.CipherSuite{macsec.GCMAES128}
	}
	cfg.Rand = n
	if err := cfg.Check(); err != nil {
		n.t.Fatal(err)
	}
	s := &station{net: n, name: fmt.Sprintf("s%d", id), cfg: cfg, probe: n.now}
	n.stations = append(n.stations, s)
	s.start(keys)
	return s
}

// start begins a new life of the station: nothing is remembered.
func (s *station) start(keys []Key) {
	s.kay, s.sas, s.transmit = New(s.cfg, keys), [4]*modelSA{}, -1
	s.do(s.kay.Advance(s.net.now))
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for {
		next := end
		var due *station
		probe := false
		for _, s := range n.stations {
			if at := s.kay.Next(); !at.IsZero() && at.Before(next) {
				next, due, probe = at, s, false
			}
			if s.probe.Before(next) {
				next, due, probe = s.probe, s, true
			}
		}
		if len(n.queue) > 0 && n.queue[0].at.Before(next) {
			d := heap.Pop(&n.queue).(delivery)
			n.advance(d.at)
			d.to.do(d.to.kay.Receive(n.now, d.frame))
			continue
		}
		n.advance(next)
		switch {
		case due == nil:
			return
		case probe:
			due.sendProbe()
		default:
			due.do(due.kay.Advance(n.now))
			if at := due.kay.Next(); !at.After(n.now) && !at.IsZero() {
				n.t.Fatalf("%s: after Advance at %s, Next is %s", due.name, n.since(n.now), n.since(at))
			}
		}
	}
}

func (n *network) advance(t time.Time) {
	if t.After(n.now) {
		n.now = t
	}
}

func (n *network) since(t time.Time) time.Duration { return t.Sub(epoch) }

func (n *network) logf(format string, args ...any) {
	if n.verbose {
		n.t.Logf("%8.3fs "+format, append([]any{n.since(n.now).Seconds()}, args...)...)
	}
}

// do obeys the KaY.
func (s *station) do(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			s.sent++
			s.net.send(s, a.Frame)
		case Install:
			s.install(a)
		case Transmit:
			s.checkTransmit(a)
			s.transmit = int(a.AN)
		case Remove:
			if sa := s.sas[a.AN]; sa == nil || sa.KI != a.KI {
				s.net.t.Errorf("%s: removes %v, AN %d, which is not there", s.name, a.KI, a.AN)
			}
			s.sas[a.AN] = nil
			if s.transmit == int(a.AN) {
				s.transmit = -1
			}
		case Log:
			s.net.logf("%s %s", s.name, a.Event.String())
		}
	}
}

func (n *network) send(from *station, frame []byte) {
	if n.tap != nil {
		n.tap(bytes.Clone(frame))
	}
	for _, to := range n.stations {
		if to == from || n.cut(from, to) {
			continue
		}
		for again := true; again; again = n.rng.Float64() < n.double {
			if n.rng.Float64() >= n.loss {
				delay := time.Duration(n.rng.Int64N(int64(n.maxDelay)))
				heap.Push(&n.queue, delivery{n.now.Add(delay), to, bytes.Clone(frame)})
			}
		}
	}
}

// install checks that no key is ever installed twice: its packet numbers
// would begin again.
func (s *station) install(a Install) {
	id := fmt.Sprintf("%s %x", s.name, a.Key)
	if s.net.keys[id] {
		s.net.t.Errorf("%s: SAK %v installed a second time", s.name, a.KI)
	}
	s.net.keys[id] = true
	if len(a.Key) != a.Suite.KeyLen() {
		s.net.t.Errorf("%s: key of %d octets for %s", s.name, len(a.Key), a.Suite)
	}
	if sa := s.sas[a.AN]; sa != nil {
		s.net.t.Errorf("%s: SAK %v installed over %v", s.name, a.KI, sa.KI)
	}
	s.sas[a.AN] = &modelSA{a, string(a.Key)}
}

// receives reports whether s can open what from sends with sa.
func (s *station) receives(from *station, sa *modelSA) bool {
	own := s.sas[sa.AN]
	if own == nil || own.key != sa.key {
		return false
	}
	for _, r := range own.Receivers {
		if r.SCI == from.cfg.SCI {
			return !sa.Suite.XPN() || r.SSCI == sa.SSCI && r.SSCI != 0 && own.Salt == sa.Salt
		}
	}
	return false
}

// livePeers returns the stations that s has for live, as they are: not such as
// have begun a new life.
func (s *station) livePeers() (live []*station) {
	if s.kay.principal == nil {
		return nil
	}
	for _, q := range s.kay.principal.peers {
		for _, other := range s.net.stations {
			if q.live && slices.ContainsFunc(other.kay.parts, func(p *participant) bool { return p.mi == q.mi }) {
				live = append(live, other)
			}
		}
	}
	return live
}

// checkTransmit checks that all live peers can receive what s is to send with
// from now on. On a lossy link that holds for key servers alone, and for peers
// that have it for live too: a member goes by its key server's word, and there
// may be stations that it hears and the key server does not.
func (s *station) checkTransmit(a Transmit) {
	sa := s.sas[a.AN]
	if sa == nil || sa.KI != a.KI {
		s.net.t.Errorf("%s: sends with %v, which is not installed", s.name, a.KI)
		return
	}
	for _, peer := range s.livePeers() {
		mutual := s.kay.principal.serves && slices.Contains(peer.livePeers(), s)
		if !peer.receives(s, sa) && (mutual || !s.net.lossy) {
			s.net.t.Errorf("%s at %s: sends with %v, AN %d, and %s does not receive with it", s.name, s.net.since(s.net.now), a.KI, a.AN, peer.name)
		}
	}
}

// sendProbe sends a data frame to all live peers.
func (s *station) sendProbe() {
	s.probe = s.net.now.Add(probeEvery)
	if s.transmit < 0 {
		return
	}
	for _, peer := range s.livePeers() {
		s.net.probes++
		if !peer.receives(s, s.sas[s.transmit]) {
			s.net.probesLost++
			s.net.logf("%s: probe to %s lost", s.name, peer.name)
		}
	}
}

// secured waits until all stations have one SAK and send with it, for d at
// most.
func (n *network) secured(d time.Duration) {
	n.t.Helper()
	for end := n.now.Add(d); n.now.Before(end); n.run(100 * time.Millisecond) {
		if n.agree() == "" {
			return
		}
	}
	n.t.Fatalf("after %s: %s", d, n.agree())
}

// agree says why not all stations use the same SAK; empty if they do.
func (n *network) agree() string {
	ki := KI{}
	for _, s := range n.stations {
		st := s.kay.Status(n.now)
		switch {
		case !st.Secured:
			return s.name + ": " + st.Reason
		case st.Latest == nil || !st.Latest.Tx || s.transmit != int(st.Latest.AN):
			return s.name + " does not send with the latest SAK"
		case ki == KI{}:
			ki = st.Latest.KI
		case ki != st.Latest.KI:
			return fmt.Sprintf("%s has %v, another %v", s.name, st.Latest.KI, ki)
		}
		if got, want := len(s.livePeers()), len(n.stations)-1; got != want {
			return fmt.Sprintf("%s has %d live peers, want %d", s.name, got, want)
		}
	}
	return ""
}

// lossless wants no data frame lost since the last call.
func (n *network) lossless(what string) {
	n.t.Helper()
	if n.probesLost > 0 || n.probes == 0 {
		n.t.Errorf("%s: %d of %d data frames lost", what, n.probesLost, n.probes)
	}
	n.probes, n.probesLost = 0, 0
}
