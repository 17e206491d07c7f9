package dataplane

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// cutter stands before the sender of a port with tunnels, and cuts those superframes
// in tunnels into the frames they stand for that the sender does not take whole. It
// is one worker's.
type cutter struct {
	port.Sender
	tunnels port.Tunneler // takes some; nil: none
	slab    []byte        // segments that wait to be sent
	used    int
	frames  [port.BatchSize]port.Frame // of the slab
	out     []*port.Frame
	losses  losses
	err     error
}

// cutterSlab holds the segments of four superframes.
const cutterSlab = 4 * (port.MaxFrame + 64*cutterFront)

// cutterFront is what stays free in front of a segment, for the port.
const cutterFront = 64

func newCutter(s port.Sender) *cutter {
	return &cutter{Sender: s, slab: make([]byte, cutterSlab), out: make([]*port.Frame, 0, port.BatchSize)}
}

// prepare opens what stands before the sender, if the port needs it.
func (q *egressQueue) prepare(log *slog.Logger) {
	if q.cutter != nil || !q.port.tunnels {
		return
	}
	q.cutter = newCutter(q.sender)
	if t, ok := q.sender.(port.Tunneler); ok {
		if err := t.OpenTunnels(); err == nil {
			q.cutter.tunnels = t
		} else if !errors.Is(err, unix.EINVAL) { // an older kernel: no fault of anyone's
			log.Warn("superframes into tunnels are cut", "egress", q.port.Name, "err", err)
		}
	}
}

// out is where frames go that need no seal.
func (q *egressQueue) out() port.Sender {
	if q.cutter != nil {
		return q.cutter
	}
	return q.sender
}

// cut plans how to cut a superframe, in a tunnel or not.
func cut(f *port.Frame) (gso.Plan, bool) {
	_, _, l3 := vlan.Parse(f.Bytes(), 0, 0)
	if f.Inner != 0 {
		return gso.CutTunnel(f.Bytes(), l3, f.Inner-f.Start, f.VNet)
	}
	return gso.Cut(f.Bytes(), l3, f.VNet)
}

// Send implements port.Sender. Of a superframe that is cut, either all segments
// left or it does not count as sent.
func (s *cutter) Send(frames []*port.Frame) (sent int, err error) {
	s.losses.begin()
	s.err = nil
	for i, f := range frames {
		if f.Inner == 0 || f.VNet.GSOType == port.GSONone || s.tunnels != nil && s.tunnels.TakesTunnelled(f) {
			s.queue(i, f)
			continue
		}
		plan, ok := cut(f)
		if !ok {
			s.flush() // losses are counted in the order of the frames
			s.losses.add(i)
			continue
		}
		for k := range plan.Segments {
			need := (cutterFront + plan.Len + 63) &^ 63
			if s.used+need > len(s.slab) || len(s.out) == cap(s.out) {
				s.flush()
			}
			c := &s.frames[len(s.out)]
			*c = port.Frame{Buf: s.slab[s.used : s.used+need], Start: cutterFront}
			c.End = cutterFront + plan.Segment(k, c.Buf[cutterFront:])
			s.used += need
			s.queue(i, c)
		}
	}
	s.flush()
	return len(frames) - s.losses.frames, s.err
}

// queue puts in line what is, or is of, frame i of those to be sent.
func (s *cutter) queue(i int, f *port.Frame) {
	if len(s.out) == cap(s.out) {
		s.flush()
	}
	s.out = append(s.out, f)
	s.losses.of = append(s.losses.of, i)
}

// flush sends what is queued and makes the slab free.
func (s *cutter) flush() {
	if len(s.out) > 0 {
		n, err := s.Sender.Send(s.out)
		s.losses.note(n)
		if s.err == nil {
			s.err = err
		}
	}
	s.out, s.used = s.out[:0], 0
}

// losses counts how many frames did not leave, or not all of what they were cut into.
// A sender tells only how many it has sent; it is the last ones that a full queue
// refuses.
type losses struct {
	of     []int // of what is queued: which frame it is of
	frames int
	last   int // the one counted last
}

func (l *losses) begin() { l.of, l.frames, l.last = l.of[:0], 0, -1 }

// note is after sent of what was queued have left.
func (l *losses) note(sent int) {
	for _, i := range l.of[sent:] {
		l.add(i)
	}
	l.of = l.of[:0]
}

// add counts frame i, once. None before it follows.
func (l *losses) add(i int) {
	if i != l.last {
		l.frames++
		l.last = i
	}
}
