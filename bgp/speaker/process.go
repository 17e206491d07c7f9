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
}

func serve(conn net.Conn, log *slog.Logger) error {
	p := &process{log: log, out: newOutbox(), vrfs: make(map[string]*vrf), sessions: make(map[string]*session),
		holds: make(map[string][]bgp.Hold)}
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

func (p *process) obey(conn net.Conn) error {
	dec := newDecoder(conn)
	for {
		var c command
		if err := dec.decode(&c); err != nil {
			return err
		}
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
		if c.Routes == nil {
			continue
		}
		u, err := c.Routes.unpack()
		if err != nil {
			return err
		}
		if s := p.sessions[u.Session]; s != nil {
			s.advertise(u)
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

// configure makes wanted the running sessions. Those that stay as they are
// notice nothing; those that change start anew with their routes.
func (p *process) configure(wanted []bgp.SessionConfig) {
	old := make(map[string]*session)
	var start []bgp.SessionConfig
	next := make(map[string]*session)
	for _, c := range wanted {
		if s := p.sessions[c.Name]; s != nil && s.cfg == c {
			next[c.Name] = s
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
	p.sessions = next
	p.reserve(start)
	for _, c := range start {
		if p.sessions[c.Name] != nil {
			continue // a name given twice
		}
		s := newSession(c, p.vrf(c.Namespace), p.out, p.log, old[c.Name])
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
		e, ok := p.out.pop()
		if !ok {
			select {
			case <-p.out.ready:
				continue
			case <-ended:
				return
			}
		}
		r := report{Status: e.Status, EndOfRIB: e.EndOfRIB}
		if e.Update != nil {
			r.Routes = pack(e.Update)
		}
		if enc.Encode(&r) != nil {
			return
		}
	}
}
