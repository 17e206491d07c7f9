// Package dataplane forwards frames: ports, workers, the pipeline they run,
// and the tables they read. Start with pipeline.go, a frame's whole way.
//
// Control writes, forwarding reads: tables come as one immutable Snapshot
// behind an atomic pointer, which a worker loads once per batch. Workers share
// nothing else, take no locks and allocate nothing per frame.
package dataplane

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"msee/dataplane/port"
)

// Engine is a router's forwarding half: one worker per port. Its methods are
// for one goroutine at a time, the control side's.
type Engine struct {
	log        *slog.Logger
	epoch      time.Time // workers count time from here
	snap       atomic.Pointer[Snapshot]
	workers    map[int]*Worker // by port index
	unresolved chan Unresolved
	lostTaps   chan *Subinterface
}

// Unresolved is a neighbor that packets wait for and whose link-layer address
// is not known.
type Unresolved struct {
	Subinterface *Subinterface
	Addr         netip.Addr
}

// lostTapsQueue bounds how many lost TAPs wait to be noticed.
const lostTapsQueue = 64

// unresolvedQueue bounds how many questions wait; more are dropped, as the
// packets that caused them were.
const unresolvedQueue = 256

// NewEngine returns an engine without ports.
func NewEngine(log *slog.Logger) *Engine {
	e := &Engine{log: log, epoch: time.Now(), workers: map[int]*Worker{},
		unresolved: make(chan Unresolved, unresolvedQueue), lostTaps: make(chan *Subinterface, lostTapsQueue)}
	e.snap.Store(&Snapshot{})
	return e
}

// Unresolved is where the workers ask for neighbors.
func (e *Engine) Unresolved() <-chan Unresolved { return e.unresolved }

// Snapshot returns the tables in force.
func (e *Engine) Snapshot() *Snapshot { return e.snap.Load() }

// LostTaps is where the workers report subinterfaces whose TAP is gone.
func (e *Engine) LostTaps() <-chan *Subinterface { return e.lostTaps }

// AddPort prepares the worker of a port. It starts with the first snapshot that
// has the port at index, which was not used before.
func (e *Engine) AddPort(index int, p port.Port) error {
	w, err := newWorker(e, index, p)
	if err != nil {
		return fmt.Errorf("make worker of port %s: %w", p.Name(), err)
	}
	e.workers[index] = w
	return nil
}

// RemovePort takes AddPort back for a port that no snapshot has had.
func (e *Engine) RemovePort(index int) {
	if w := e.workers[index]; w != nil && !w.started {
		w.release()
		delete(e.workers, index)
	}
}

// Publish makes s the tables in force: workers take it with their next batch,
// and with Sync if ports or subinterfaces have changed (an idle worker watches
// the TAPs of the snapshot it has). It starts the workers of ports that are new
// in s, and stops those of ports that are gone; the ports stay the caller's to
// close, after Sync.
func (e *Engine) Publish(s *Snapshot) {
	had := e.snap.Load()
	for i, w := range e.workers {
		// A worker whose port is gone must not see a snapshot without it.
		if has(had, i) && !has(s, i) {
			w.stop()
			delete(e.workers, i)
		}
	}
	e.snap.Store(s)
	for i, w := range e.workers {
		if has(s, i) && !has(had, i) {
			w.started = true
			go w.run()
		}
	}
}

func has(s *Snapshot, port int) bool { return port < len(s.Ports) && s.Ports[port] != nil }

// Sync returns when every worker has taken the snapshot in force, and so when
// none uses anything that it does not hold.
func (e *Engine) Sync() {
	s := e.snap.Load()
	for _, w := range e.workers {
		if !w.started {
			continue
		}
		w.kick()
		for w.adopted.Load() != s {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// Close stops all workers. Ports and TAPs are the caller's to close then.
func (e *Engine) Close() {
	for i, w := range e.workers {
		if w.started {
			w.stop()
		} else {
			w.release()
		}
		delete(e.workers, i)
	}
}
