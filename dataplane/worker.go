package dataplane

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"msee/dataplane/port"
)

// Worker runs the pipeline for one port, to completion, on a thread that it may
// share with the workers of other ports: it takes a batch, decides each frame,
// sends what is to be sent by its own senders on every egress port, and gives
// the batch back.
type Worker struct {
	engine  *Engine
	log     *slog.Logger
	index   int // of its port
	device  port.Port
	leaver  port.Leaver // device, if it is one
	mac     port.MAC
	macWord uint64 // as admit compares it

	snap      *Snapshot // of the current batch
	metersOut bool      // it has a port with an Egress
	adopted   atomic.Pointer[Snapshot]
	port      *Port // snap.Ports[index]
	now       time.Duration

	batch     []port.Frame
	bulk      bulk
	more      bool                 // the last step has not emptied the port, as far as it knows
	packets   [vector]packet       // of the batch at hand
	own       [1]packet            // of our own, at hand
	charges   [vector]charge       // of the packets
	sought    sought               // of the packets: what fastPath and lookup look for
	verdicts  [verdictCount]uint64 // of the current batch
	tagged    tagged
	rx, tx    run
	endpoints endpointRun

	egress []*egressQueue // by port index; nil where there is none
	queues []*egressQueue // the same without holes

	replies []port.Frame // ICMP errors of the current batch
	pieces  []port.Frame // of packets, and copies, waiting for transmit; buffers are made when first needed
	header  [60]byte     // of the piece at hand
	asked   [64]question // recent resolution requests

	thread       *thread
	mail         chan func(*Worker)
	eapol        tokenBucket // 802.1X frames to the KaY
	bfd          bfdTable
	taps         map[int]*Subinterface
	injectBufs   [][]byte
	injectFrames []port.Frame
	started      bool // the engine's

	mutedUntil time.Duration // the port reported an error; 0 if it may be asked
}

// run counts consecutive frames of one subinterface, so that its atomic
// counters are touched once per run.
type run struct {
	counters      *Counters
	frames, bytes uint64
}

// maxReplies is the number of ICMP errors one batch can cause.
const maxReplies = 32

// injectBufLen holds a frame of the largest MTU a TAP can have here.
const injectBufLen = port.Headroom + 9216 + 64

// tapCheckEvery is after how many full batches in a row the TAPs get a turn.
const tapCheckEvery = 8

func newWorker(e *Engine, t *thread, index int, p port.Port) (*Worker, error) {
	mac := p.MAC()
	w := &Worker{
		thread: t,
		engine: e, log: e.log.With("port", p.Name()), index: index, device: p, mac: p.MAC(), macWord: binary.LittleEndian.Uint64(append(mac[:], 0, 0)) << 16,
		batch:        make([]port.Frame, port.BatchSize),
		bulk:         bulk{first: -1},
		replies:      make([]port.Frame, 0, maxReplies),
		pieces:       make([]port.Frame, 0, piecePool),
		taps:         map[int]*Subinterface{},
		injectFrames: make([]port.Frame, injectBatch),
		mail:         make(chan func(*Worker), mailQueue),
		eapol:        newTokenBucket(puntEAPOLPerSecond, puntEAPOLPerSecond/2),
	}
	w.leaver, _ = p.(port.Leaver)
	if w.bulk.keeper, _ = p.(port.Keeper); w.bulk.keeper != nil {
		w.batch = make([]port.Frame, keptFrames)
	}
	for range injectBatch {
		w.injectBufs = append(w.injectBufs, make([]byte, injectBufLen))
	}
	if err := w.bfd.open(); err != nil {
		return nil, err
	}
	if err := t.watch(w.bfd.timer, index); err != nil {
		w.bfd.close()
		return nil, err
	}
	return w, nil
}

// errorPause is how long a worker whose port reports an error leaves it alone:
// a descriptor in error polls ready without end.
const errorPause = 100 * time.Millisecond

// mute leaves the port alone for errorPause.
func (w *Worker) mute() {
	w.mutedUntil = time.Since(w.engine.epoch) + errorPause
}

// unmute reports whether the port may be asked again.
func (w *Worker) unmute() bool {
	if time.Since(w.engine.epoch) < w.mutedUntil {
		return false
	}
	w.mutedUntil = 0
	return true
}

// resize gives the port another receive ring, between two batches.
func (w *Worker) resize(cfg port.PacketConfig) error {
	p, ok := w.device.(Resizer)
	if !ok {
		return nil
	}
	w.drain()
	clear(w.batch) // no pointer must outlive the old ring: the Go heap may grow into its place
	for _, q := range w.queues {
		clear(q.bulk[:cap(q.bulk)])
	}
	w.mutedUntil = 0
	return p.Resize(cfg)
}

// deadline is when the worker has to be called without a frame or a TAP asking
// for it, 0 for never.
func (w *Worker) deadline() time.Duration { return w.mutedUntil }

// step takes one batch through the pipeline, sends what is in line, and returns how
// many frames it has taken; 1 if it has only sent, 0 if there was nothing to do.
func (w *Worker) step() int {
	w.more = false
	if snap := w.engine.snap.Load(); snap != w.snap {
		w.adopt(snap)
	}
	if len(w.mail) > 0 {
		w.readMail()
	}
	if w.mutedUntil != 0 && !w.unmute() {
		w.drain()
		return 0
	}
	room := w.room()
	n, err := w.device.Recv(room)
	if err != nil {
		w.port.Counters.Errors.Add(1)
		w.log.Warn("receive", "err", err)
		w.drain()
		w.mute()
	}
	if n == 0 && w.bulk.waiting == 0 { // then the keeper has no more, either
		w.drain()
		return 0
	}
	w.now = time.Since(w.engine.epoch)
	first := w.bulk.oldest + w.bulk.kept // where room begins
	if first >= len(w.batch) {
		first -= len(w.batch)
	}
	w.bulk.kept += n
	bytes := 0
	for i := 0; i < n; i += vector {
		if w.bulk.keeper != nil && w.port.SecY == nil {
			w.bulk.first = first + i
		}
		bytes += w.forward(room[i:min(i+vector, n)])
	}
	w.bulk.first = -1
	w.transmit()
	w.giveBack()
	w.replies, w.pieces = w.replies[:0], w.pieces[:0]
	w.publishCounters(uint64(n), uint64(bytes))
	w.more = n == len(room) || w.leaver != nil && w.leaver.More()
	return max(n, 1)
}

// countRx counts frames that came in by a subinterface, and countTx those that leave by
// one, octets together; nil is none.
func (w *Worker) countRx(s *Subinterface, frames, octets int) {
	if s == nil {
		return
	}
	if w.rx.counters != s.Counters {
		w.flushRx()
		w.rx.counters = s.Counters
	}
	w.rx.frames += uint64(frames)
	w.rx.bytes += uint64(octets)
}

func (w *Worker) countTx(s *Subinterface, frames, octets int) {
	if s == nil {
		return
	}
	if w.tx.counters != s.Counters {
		w.flushTx()
		w.tx.counters = s.Counters
	}
	w.tx.frames += uint64(frames)
	w.tx.bytes += uint64(octets)
}

func (w *Worker) flushRx() {
	if w.rx.frames > 0 {
		w.rx.counters.RxFrames.Add(w.rx.frames)
		w.rx.counters.RxBytes.Add(w.rx.bytes)
	}
	w.rx = run{}
}

func (w *Worker) flushTx() {
	if w.tx.frames > 0 {
		w.tx.counters.TxFrames.Add(w.tx.frames)
		w.tx.counters.TxBytes.Add(w.tx.bytes)
	}
	w.tx = run{}
}

// publishCounters moves the batch's counts to where others may read them.
func (w *Worker) publishCounters(frames, bytes uint64) {
	w.flushRx()
	w.flushTx()
	w.endpoints.flush()
	c := w.port.Counters
	c.RxFrames.Add(frames)
	c.RxBytes.Add(bytes)
	for v, n := range w.verdicts {
		if n > 0 {
			c.Verdicts[v].Add(n)
			w.verdicts[v] = 0
		}
	}
}

// egressTo returns the queue of an egress port; nil if the port is gone, or so
// new that this worker has yet to adopt the snapshot that has it.
func (w *Worker) egressTo(portIndex int) *egressQueue {
	if portIndex < len(w.egress) {
		return w.egress[portIndex]
	}
	return nil
}

// enqueueControl puts a frame of our own in line, ahead of forwarded ones.
func (w *Worker) enqueueControl(portIndex int, f *port.Frame) {
	if q := w.egressTo(portIndex); q != nil {
		q.control = append(q.control, f)
		return
	}
	w.dropOwn(DropEgressDown)
}

// dropOwn counts a frame of our own that does not leave.
func (w *Worker) dropOwn(why Verdict) { w.port.Counters.OwnDrops[why].Add(1) }

// mailQueue bounds how many functions of the control side wait for a worker.
const mailQueue = 64

// post has the worker run f between two batches, soon. It is safe from any
// goroutine, does not wait, and reports whether there was room.
func (w *Worker) post(f func(*Worker)) bool {
	select {
	case w.mail <- f:
		w.thread.kick()
		return true
	default:
		return false
	}
}

// readMail runs what the control side has posted, and sends what came of it.
func (w *Worker) readMail() {
	for range len(w.mail) {
		(<-w.mail)(w)
	}
	w.transmit()
}

// serve does what a descriptor other than the port's has woken us for.
func (w *Worker) serve(fd int) {
	w.now = time.Since(w.engine.epoch)
	if snap := w.engine.snap.Load(); snap != w.snap { // it may be long since the last batch
		w.adopt(snap)
	}
	if fd == w.bfd.timer {
		var buf [8]byte
		unix.Read(fd, buf[:]) // serveBFD follows
	} else if s := w.taps[fd]; s != nil {
		w.inject(s)
	}
}

// adopt makes a new snapshot the current one: opens senders for ports that
// came, closes those of ports that went, watches the right TAPs.
func (w *Worker) adopt(snap *Snapshot) {
	w.drain()
	w.snap, w.tagged = snap, tagged{}
	if p := snap.Ports[w.index]; p != w.port {
		w.port = p
		w.adoptTaps()
	}
	w.metersOut = slices.ContainsFunc(snap.Ports, func(p *Port) bool { return p != nil && p.egress })
	w.adoptSenders()
	w.adopted.Store(snap)
}

func (w *Worker) adoptSenders() {
	for i, q := range w.egress {
		if q != nil && (w.snap.Ports[i] == nil || w.snap.Ports[i].Port != q.port.Port) {
			w.thread.senders.release(q.port.Port)
			w.egress[i] = nil
		}
	}
	for len(w.egress) < len(w.snap.Ports) {
		w.egress = append(w.egress, nil)
	}
	w.queues = w.queues[:0]
	for i, p := range w.snap.Ports {
		if p == nil {
			continue
		}
		q := w.egress[i]
		if q == nil {
			sender, err := w.thread.senders.hold(p.Port)
			if err != nil {
				w.log.Error("open transmit queue", "egress", p.Name, "err", err)
				continue
			}
			if b, ok := sender.(port.Burster); ok && b.WhySingly() != nil {
				w.log.Warn("small frames leave one by one", "egress", p.Name, "err", b.WhySingly())
			}
			q = &egressQueue{sender: sender,
				control: make([]*port.Frame, 0, injectBatch+maxReplies+piecePool),
				frames:  make([]*port.Frame, 0, port.BatchSize),
				bulk:    make([]*port.Frame, 0, keptFrames), bulkAt: make([]int16, 0, keptFrames)}
			w.egress[i] = q
		}
		q.port = p
		q.prepare(w.log)
		w.queues = append(w.queues, q)
	}
}

func (w *Worker) adoptTaps() {
	for fd := range w.taps {
		w.thread.unwatch(fd)
		delete(w.taps, fd)
	}
	for _, s := range w.port.inject {
		if s.Punt != nil {
			if err := w.thread.watch(s.Punt.FD, w.index); err != nil {
				w.log.Error("watch TAP", "interface", s.Name, "err", err)
			}
			w.taps[s.Punt.FD] = s
		}
	}
}

// question is a neighbor that was asked for not long ago.
type question struct {
	neighbor *Adjacency
	at       time.Duration
}

// askAgain is how long a worker waits before it asks for a neighbor again.
const askAgain = 200 * time.Millisecond

// resolve asks the control side, without waiting, to find a neighbor.
func (w *Worker) resolve(a *Adjacency) {
	q := &w.asked[a.seed%uint64(len(w.asked))]
	if q.neighbor == a && w.now-q.at < askAgain {
		return
	}
	*q = question{a, w.now}
	select {
	case w.engine.unresolved <- a:
	default: // the control side is behind; the next packet asks again
	}
}

// release closes what the worker opened, on its way out.
func (w *Worker) release() {
	for _, q := range w.egress {
		if q != nil {
			w.thread.senders.release(q.port.Port)
		}
	}
	for fd := range w.taps {
		w.thread.unwatch(fd)
	}
	w.bfd.close()
}
