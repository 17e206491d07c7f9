package dataplane

import "msee/dataplane/port"

// Short frames do not wait for long ones. A receive ring holds megabytes of one
// TCP connection, which take milliseconds to send, and a ping or a BFD packet
// behind them would wait for all of it. So a worker looks at all that waits, sends
// the short frames at once, and of the long ones bulkBudget octets before it looks
// again. A flow stays in order: its short frames wait behind its long ones. Its fragments
// may go ahead, as they do not tell which flow they are of.
//
// That takes a port whose frames may be kept over the next Recv (port.Keeper). Of
// others all is sent with the batch.

const (
	// bulkLen is the longest frame, octets, that does not wait: a jumbo frame of
	// 9000 with its headers. What is longer is a superframe.
	bulkLen = 9216
	// bulkBudget is how many octets of them leave by an egress port in a turn,
	// and what a short frame waits for at most.
	bulkBudget = 256 << 10
	// keptFrames is how many frames are looked at before the first of them has left.
	keptFrames = 2 * port.BatchSize
	// bulkFlows tells flows apart, by hash. Two in one place wait for each other.
	bulkFlows = 1024
)

// bulk is what a worker keeps of a port's frames: those at batch[oldest] and on,
// around the end, from which it took them.
type bulk struct {
	keeper  port.Keeper // nil: nothing is kept
	oldest  int
	kept    int
	first   int               // where in batch the vector at hand begins; -1: what is at hand is not in batch
	waiting int               // of the kept: in line
	waits   [keptFrames]bool  // of the kept: those
	flow    [keptFrames]int16 // of those that wait
	flows   [bulkFlows]int16  // how many wait
}

// room is where the next Recv goes.
func (w *Worker) room() []port.Frame {
	b := &w.bulk
	if b.kept == 0 {
		b.oldest = 0
	}
	from := b.oldest + b.kept
	if from < len(w.batch) {
		return w.batch[from:min(from+port.BatchSize, len(w.batch))]
	}
	from -= len(w.batch)
	return w.batch[from:min(from+port.BatchSize, b.oldest)]
}

// mayWait reports whether waitsBehind has to look at a packet. (Inlined.)
func (b *bulk) mayWait(p *packet) bool { return b.first >= 0 && (b.waiting > 0 || p.Len() > bulkLen) }

// waitsBehind puts the i-th packet of the vector at hand in line behind the long
// frames of its egress queue, if it belongs there.
func (w *Worker) waitsBehind(q *egressQueue, i int, p *packet) bool {
	b := &w.bulk
	flow := bulkFlow(p)
	if p.Len() <= bulkLen && b.flows[flow] == 0 {
		return false
	}
	at := b.first + i
	b.waits[at], b.flow[at] = true, flow
	b.flows[flow]++
	b.waiting++
	q.bulk = append(q.bulk, p.Frame)
	q.bulkAt = append(q.bulkAt, int16(at))
	return true
}

func bulkFlow(p *packet) int16 { return int16(flowHash(p.ip(), p.v6) % bulkFlows) }

// hasten sends what waits of the packet's flow.
func (w *Worker) hasten(p *packet) {
	if w.bulk.waiting == 0 {
		return
	}
	for flow := bulkFlow(p); w.bulk.flows[flow] > 0; {
		w.transmit()
	}
}

// nextBulk takes the frames off the line that may leave by a queue in this turn.
func (w *Worker) nextBulk(q *egressQueue) []*port.Frame {
	octets, n := 0, 0
	for n < len(q.bulk) && octets < bulkBudget {
		octets += q.bulk[n].Len()
		at := q.bulkAt[n]
		w.bulk.waits[at] = false
		w.bulk.flows[w.bulk.flow[at]]--
		n++
	}
	w.bulk.waiting -= n
	return q.bulk[:n]
}

// shift takes the n first off the line for good. Lines are short: they are moved up.
func (q *egressQueue) shift(n int) {
	q.bulk = q.bulk[:copy(q.bulk, q.bulk[n:])]
	q.bulkAt = q.bulkAt[:copy(q.bulkAt, q.bulkAt[n:])]
}

// giveBack returns to the port what has left, in the order in which it came.
func (w *Worker) giveBack() {
	b := &w.bulk
	if b.keeper == nil {
		w.device.Release()
		b.kept = 0
		return
	}
	n := 0
	for n < b.kept && !b.waits[b.oldest] {
		if b.oldest++; b.oldest == len(w.batch) {
			b.oldest = 0
		}
		n++
	}
	b.kept -= n
	b.keeper.ReleaseOldest(n)
}

// drain sends all that waits, before something changes that it relies on, and gives
// back what is kept. What waits may have left by a transmit outside of step: a port
// whose frames are kept does not rest.
func (w *Worker) drain() {
	if w.bulk.kept == 0 {
		return
	}
	for w.bulk.waiting > 0 {
		w.transmit()
	}
	w.giveBack()
	w.publishCounters(0, 0)
}
