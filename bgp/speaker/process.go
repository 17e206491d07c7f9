package speaker

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"msee/bgp"
)

// Main is the life of a speaker process: it obeys the commands on conn and
// reports on it until conn closes or breaks, which is no error. It owns conn.
func Main(conn net.Conn) error {
	return serve(conn, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// FD is the file descriptor on which the edge leaves the socket for Main.
const FD = 3

// Inherited returns the socket the edge has left for this process.
func Inherited() (net.Conn, error) {
	f := os.NewFile(FD, "speaker socket")
	if f == nil {
		return nil, fmt.Errorf("take over descriptor %d: not open", FD)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over descriptor %d: %w; this command is started by `msee edge`", FD, err)
	}
	return c, nil
}

// process is the speaker: all sessions of the device.
type process struct {
	log      *slog.Logger
	out      *outbox
	vrfs     map[string]*vrf
	sessions map[string]*session
	holds    map[string][]bgp.Hold // by session, known or not yet
	reborn   bool
	told     chan struct{} // closed when the edge has told all there is to advertise
	pongs    chan pong

	mu      sync.Mutex // of sessions, which the one that answers pings looks at too
	obeying busy       // a command
}

// busy measures how long somebody has been at one thing.
type busy struct{ since atomic.Int64 }

func (b *busy) begin() { b.since.Store(time.Now().UnixNano()) }
func (b *busy) end()   { b.since.Store(0) }

func (b *busy) now() time.Duration {
	since := b.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

func serve(conn net.Conn, log *slog.Logger) error {
	p := &process{log: log, out: newOutbox(), vrfs: make(map[string]*vrf), sessions: make(map[string]*session),
		holds: make(map[string][]bgp.Hold), told: make(chan struct{}), pongs: make(chan pong, 1)}
	ended := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		p.report(conn, ended)
		conn.Close()
	})
	err := p.obey(conn)
	p.configure(nil)
	close(ended)
	conn.Close()
	writing.Wait()
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("read commands: %w", err)
	}
	return nil
}

// maxWaiting is how many commands may wait for one that takes its time.
const maxWaiting = 64

// obey reads commands and answers pings, while another goroutine does the work.
func (p *process) obey(conn net.Conn) error {
	commands := make(chan command, maxWaiting)
	var working sync.WaitGroup
	working.Go(func() {
		for c := range commands {
			p.obeying.begin()
			p.execute(&c)
			p.obeying.end()
		}
	})
	defer working.Wait()
	defer close(commands)
	dec := newDecoder(conn)
	for {
		var c command
		if err := dec.decode(&c); err != nil {
			return err
		}
		if c.Ping != 0 {
			p.answer(c.Ping)
			continue
		}
		commands <- c
	}
}

// answer says that the process lives, and who in it may not.
func (p *process) answer(ping uint64) {
	a := pong{Ping: ping, Busy: p.obeying.now(), With: "a command"}
	p.mu.Lock()
	for name, s := range p.sessions {
		if b := s.busy.now(); b > a.Busy {
			a.Busy, a.With = b, "session "+name
		}
	}
	p.mu.Unlock()
	select {
	case p.pongs <- a:
	default: // the one before is not out yet
	}
}

func (p *process) execute(c *command) {
	p.reborn = p.reborn || c.Reborn
	if h := c.Holds; h != nil {
		p.hold(h)
	}
	if c.Configure {
		p.configure(c.Sessions)
	}
	if c.Reset != nil {
		if s := p.sessions[c.Reset.Session]; s != nil {
			s.reset(c.Reset.Why)
		}
	}
	if c.Routes != nil {
		if s := p.sessions[c.Routes.Session]; s != nil {
			s.advertise(c.Routes.unpack())
		}
	}
	if c.EVPN != nil {
		if s := p.sessions[c.EVPN.Session]; s != nil {
			s.advertiseEVPN(c.EVPN)
		}
	}
	if c.Told {
		select {
		case <-p.told:
		default:
			close(p.told)
		}
	}
}

func (p *process) hold(h *holds) {
	if p.holds[h.Session] = h.Holds; len(h.Holds) == 0 {
		delete(p.holds, h.Session)
	}
	if s := p.sessions[h.Session]; s != nil {
		s.setHolds(h.Holds)
	}
}

// configure makes wanted the running sessions. Those that stay as they are, but
// for their TCP-MD5 key, notice nothing; those that change start anew with their
// routes.
func (p *process) configure(wanted []bgp.SessionConfig) {
	old := make(map[string]*session)
	var start []bgp.SessionConfig
	next := make(map[string]*session)
	for _, c := range wanted {
		if s := p.sessions[c.Name]; s != nil && s.same(&c) {
			if next[c.Name] = s; s.keyNow() != c.Key {
				s.setKey(c.Key)
			}
		} else {
			start = append(start, c)
		}
	}
	var stopping sync.WaitGroup
	for name, s := range p.sessions {
		if next[name] == s {
			continue
		}
		old[name] = s
		stopping.Go(func() { s.stop(p.farewell(s, wanted)) })
	}
	stopping.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = next
	p.reserve(start)
	for _, c := range start {
		if p.sessions[c.Name] != nil {
			continue // a name given twice
		}
		s := newSession(c, p.vrf(c.Namespace), p, old[c.Name])
		s.setHolds(p.holds[c.Name])
		p.sessions[c.Name] = s
		s.start()
	}
}

// farewell is what the peer of s is told when s ends.
func (p *process) farewell(s *session, wanted []bgp.SessionConfig) notification {
	for _, c := range wanted {
		if c.Name == s.cfg.Name && c.Enabled {
			return ceaseConfig
		}
		if c.Name == s.cfg.Name {
			return ceaseShutdown
		}
	}
	return ceaseDeconfigured
}

// reserve starts the servers of all sessions before the first of them has
// routes, see pool.
func (p *process) reserve(start []bgp.SessionConfig) {
	n := 0
	for _, c := range start {
		if c.Enabled {
			n++
		}
	}
	if err := servers.reserve(n); err != nil {
		p.log.Error("start BGP servers", "err", err) // each session tries again and says so
	}
}

func (p *process) vrf(name string) *vrf {
	v := p.vrfs[name]
	if v == nil {
		v = newVRF(name, p.log)
		p.vrfs[name] = v
	}
	return v
}

// report writes what the sessions have to say until ended closes or the socket
// breaks.
func (p *process) report(conn net.Conn, ended <-chan struct{}) {
	enc := gob.NewEncoder(conn)
	for {
		select {
		case a := <-p.pongs: // before routes, of which there may be many
			if enc.Encode(&report{Pong: &a}) != nil {
				return
			}
		default:
		}
		e, ok := p.out.pop()
		if !ok {
			select {
			case <-p.out.ready:
				continue
			case a := <-p.pongs:
				if enc.Encode(&report{Pong: &a}) != nil {
					return
				}
				continue
			case <-ended:
				return
			}
		}
		r := report{Status: e.Status, EndOfRIB: e.EndOfRIB}
		if e.Update != nil {
			r.Routes = pack(e.Update)
		}
		if e.EVPN != nil {
			r.EVPN = packEVPN(e.EVPN)
		}
		if enc.Encode(&r) != nil {
			return
		}
	}
}
