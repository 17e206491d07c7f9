package dataplane

import (
	"msee/dataplane/gso"
	"msee/dataplane/port"
)

// egressQueue is one worker's way out by one port.
type egressQueue struct {
	port    *Port
	sender  port.Sender
	control []*port.Frame // ours (inject, ICMP): goes first
	frames  []*port.Frame // forwarded
	bulk    []*port.Frame // the same, long; see bulk.go
	bulkAt  []int16       // where in the worker's batch they are
	sealer  *sealer       // of a protected port, once something was sent
	cutter  *cutter       // before sender, of a port with tunnels; nil otherwise
	// join makes superframes again of what a protected port had to receive as
	// single frames.
	join gso.Table
}

// send transmits frames, counts for the port, and returns what became of them.
// All that leaves by the port leaves here, and is sealed if it is protected.
func (q *egressQueue) send(frames []*port.Frame) (s sealed) {
	var bytes uint64
	for _, f := range frames {
		bytes += uint64(f.Len())
	}
	var err error
	if q.port.SecY != nil {
		if q.sealer == nil || q.sealer.secy != q.port.SecY {
			q.sealer = &sealer{secy: q.port.SecY, sender: q.sender}
		}
		s, err = q.sealer.send(frames)
	} else {
		s.sent, err = q.out().Send(frames)
		s.full = len(frames) - s.sent
	}
	c := q.port.Counters
	c.TxFrames.Add(uint64(s.sent))
	c.TxBytes.Add(bytes) // as offered: what was lost shows in TxDrops
	if s.sent < len(frames) {
		c.TxDrops.Add(uint64(len(frames) - s.sent))
	}
	if err != nil {
		c.Errors.Add(1)
	}
	return s
}
