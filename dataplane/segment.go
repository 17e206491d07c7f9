package dataplane

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// cutter stands before the sender of a port that does not take all superframes. It
// cuts those of a port.Plain into the frames they stand for and completes
// checksums, so that all else need not know that the device can do neither; and
// those in tunnels before any other port. It is one worker's.
type cutter struct {
	port.Sender
	plain   bool          // the port is a port.Plain
	tunnels port.Tunneler // takes some superframes in tunnels; nil: none
	slab    []byte        // segments that wait to be sent
	used    int
	frames  [port.BatchSize]port.Frame // of the slab
	out     []*port.Frame
}

// plainSlab holds the segments of four superframes.
const plainSlab = 4 * (port.MaxFrame + 64*plainFront)

// plainFront is what stays free in front of a segment, for the port.
const plainFront = 64

func newCutter(s port.Sender, plain bool) *cutter {
	return &cutter{Sender: s, plain: plain, slab: make([]byte, plainSlab), out: make([]*port.Frame, 0, port.BatchSize)}
}

// prepare opens what stands before the sender, if the port needs it.
func (q *egressQueue) prepare(log *slog.Logger) {
	if q.cutter == nil {
		_, plain := q.port.Port.(port.Plain)
		if !plain && !q.port.tunnels {
			return
		}
		q.cutter = newCutter(q.sender, plain)
		if t, ok := q.sender.(port.Tunneler); ok {
			if err := t.OpenTunnels(); err == nil {
				q.cutter.tunnels = t
			} else if !errors.Is(err, unix.EINVAL) { // an older kernel: no fault of anyone's
				log.Warn("superframes into tunnels are cut", "egress", q.port.Name, "err", err)
			}
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
	lost := 0
	for _, f := range frames {
		if !s.plain && (f.Inner == 0 || f.VNet.GSOType == port.GSONone || s.tunnels != nil && s.tunnels.TakesTunnelled(f)) {
			s.queue(f, &lost, &err)
			continue
		}
		if f.VNet.GSOType == port.GSONone {
			if f.VNet.Flags&port.VNetNeedsCsum != 0 && !gso.CompleteChecksum(f.Bytes(), &f.VNet) {
				lost++
				continue
			}
			s.queue(f, &lost, &err)
			continue
		}
		plan, ok := cut(f)
		if !ok {
			lost++
			continue
		}
		before := lost
		for i := range plan.Segments {
			need := (plainFront + plan.Len + 63) &^ 63
			if s.used+need > len(s.slab) || len(s.out) == cap(s.out) {
				s.flush(&lost, &err)
			}
			c := &s.frames[len(s.out)]
			*c = port.Frame{Buf: s.slab[s.used : s.used+need], Start: plainFront}
			c.End = plainFront + plan.Segment(i, c.Buf[plainFront:])
			s.used += need
			s.queue(c, &lost, &err)
		}
		lost = min(lost, before+1)
	}
	s.flush(&lost, &err)
	return len(frames) - min(lost, len(frames)), err
}

func (s *cutter) queue(f *port.Frame, lost *int, err *error) {
	if len(s.out) == cap(s.out) {
		s.flush(lost, err)
	}
	s.out = append(s.out, f)
}

// flush sends what is queued and makes the slab free.
func (s *cutter) flush(lost *int, err *error) {
	if len(s.out) > 0 {
		n, e := s.Sender.Send(s.out)
		*lost += len(s.out) - n
		if *err == nil {
			*err = e
		}
	}
	s.out, s.used = s.out[:0], 0
}
