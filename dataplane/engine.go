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
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"msee/dataplane/guard"
	"msee/dataplane/port"
)

// Engine is a router's forwarding half: one worker per port. Its methods are
// for one goroutine at a time, the control side's, but for SendFrame.
type Engine struct {
	log        *slog.Logger
	epoch      time.Time // workers count time from here
	snap       atomic.Pointer[Snapshot]
	mu         sync.Mutex      // over workers, for SendFrame
	workers    map[int]*Worker // by port index
	threads    []*thread
	unresolved chan *Adjacency
	lostTaps   chan *Subinterface
	bfdChanged chan struct{}
	learned    chan Learned
	gleans     budget // what may begin neighbors in the kernel's table

	guardCommand []string // nil: there is none
	guardOnce    sync.Once
	guard        *guard.Guard  // nil: BFD has none
	guardEpoch   time.Duration // epoch on its clock
}

// lostTapsQueue bounds how many lost TAPs wait to be noticed.
const lostTapsQueue = 64

// unresolvedQueue bounds how many questions wait; more are dropped, as the
// packets that caused them were.
const unresolvedQueue = 256

// NewEngine returns an engine without ports.
func NewEngine(log *slog.Logger) *Engine {
	e := &Engine{log: log, epoch: time.Now(), workers: map[int]*Worker{},
		unresolved: make(chan *Adjacency, unresolvedQueue), lostTaps: make(chan *Subinterface, lostTapsQueue),
		bfdChanged: make(chan struct{}, 1), learned: make(chan Learned, learnedQueue)}
	e.gleans.init(gleanPerDevice)
	e.snap.Store(&Snapshot{})
	return e
}

// Unresolved is where the workers ask for neighbors that packets wait for.
func (e *Engine) Unresolved() <-chan *Adjacency { return e.unresolved }

// Now is the workers' time.
func (e *Engine) Now() time.Duration { return time.Since(e.epoch) }

// Snapshot returns the tables in force.
func (e *Engine) Snapshot() *Snapshot { return e.snap.Load() }

// LostTaps is where the workers report subinterfaces whose TAP is gone.
func (e *Engine) LostTaps() <-chan *Subinterface { return e.lostTaps }

// Learned is where the workers tell behind which tunnel a station is that spoke to
// us.
func (e *Engine) Learned() <-chan Learned { return e.learned }

// AddPort prepares the worker of a port. It starts with the first snapshot that
// has the port at index, which was not used before.
//
// The worker runs on processor cpu, or on AnyCPU.
func (e *Engine) AddPort(index int, p port.Port, cpu int) error {
	t, err := e.threadFor(cpu)
	if err != nil {
		return fmt.Errorf("make thread of port %s: %w", p.Name(), err)
	}
	w, err := newWorker(e, t, index, p)
	if err != nil {
		return fmt.Errorf("make worker of port %s: %w", p.Name(), err)
	}
	t.ports++
	e.mu.Lock()
	defer e.mu.Unlock()
	e.workers[index] = w
	return nil
}

// RemovePort takes AddPort back for a port that no snapshot has had.
func (e *Engine) RemovePort(index int) {
	if w := e.workers[index]; w != nil && !w.started {
		e.end(index, w)
	}
}

// threadFor returns the thread that a further port shall run on: one bound to
// cpu, or, for AnyCPU, the one with the fewest ports of as many as make sense.
func (e *Engine) threadFor(cpu int) (*thread, error) {
	var found []*thread
	for _, t := range e.threads {
		if t.cpu == cpu {
			found = append(found, t)
		}
	}
	if len(found) > 0 && (cpu != AnyCPU || len(found) >= maxThreads()) {
		return slices.MinFunc(found, func(a, b *thread) int { return a.ports - b.ports }), nil
	}
	t, err := newThread(e, cpu)
	if err == nil {
		e.threads = append(e.threads, t)
	}
	return t, err
}

// maxThreads is how many threads that are not bound to a processor there may
// be: one processor stays for who sends and receives, and for the control side.
// It goes by processors: GOMAXPROCS is higher, so that threads that forward keep
// no goroutine from running.
func maxThreads() int { return max(1, runtime.NumCPU()-1) }

// end ends a worker, and its thread with the last.
func (e *Engine) end(index int, w *Worker) {
	e.forget(index)
	t := w.thread
	if w.started {
		t.stop(w)
	}
	w.release()
	if t.ports--; t.ports > 0 {
		return
	}
	t.close()
	e.threads = slices.DeleteFunc(e.threads, func(other *thread) bool { return other == t })
}

// forget takes a worker off the list: from then on nobody else reaches it.
func (e *Engine) forget(index int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.workers, index)
}

// SendFrame has a port's worker send a frame as it is, Ethernet header and tags
// included, ahead of what it forwards: control protocols speak so. The frame is
// copied. It is safe from any goroutine and does not wait; the error says that
// the port is gone or has too much to send already.
func (e *Engine) SendFrame(portIndex int, frame []byte) error {
	f := &port.Frame{Buf: append(make([]byte, port.Headroom, port.Headroom+len(frame)), frame...), Start: port.Headroom}
	f.End = len(f.Buf)
	return e.post(portIndex, func(w *Worker) { w.enqueueControl(portIndex, f) })
}

// Resizer is a port whose receive ring can be changed while it is in use.
type Resizer interface {
	Resize(cfg port.PacketConfig) error
}

// Resize gives a port another receive ring, and returns when it has it.
func (e *Engine) Resize(portIndex int, cfg port.PacketConfig) error {
	done := make(chan error, 1)
	err := e.post(portIndex, func(w *Worker) { done <- w.resize(cfg) })
	if err != nil {
		return err
	}
	return <-done
}

// post has a port's worker run f; see Worker.post.
func (e *Engine) post(portIndex int, f func(*Worker)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.workers[portIndex]
	if w == nil {
		return fmt.Errorf("send by port %d: there is no such port", portIndex)
	}
	if !w.post(f) {
		return fmt.Errorf("send by port %s: %d frames wait already", w.device.Name(), mailQueue)
	}
	return nil
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
			e.end(i, w)
		}
	}
	e.snap.Store(s)
	for i, w := range e.workers {
		if has(s, i) && !has(had, i) {
			w.started = true
			w.thread.start(w)
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
		w.thread.kick()
		for w.adopted.Load() != s {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// Close stops all workers. Ports and TAPs are the caller's to close then.
func (e *Engine) Close() {
	for i, w := range e.workers {
		e.end(i, w)
	}
	if e.guard != nil {
		if err := e.guard.Close(); err != nil {
			e.log.Warn("end guard", "err", err)
		}
		e.guard = nil
	}
}
