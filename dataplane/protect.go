package dataplane

import (
	"encoding/binary"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/macsec"
	"msee/vlan"
)

// A port with a SecY is protected: whatever the frame, and whoever sends it,
// nothing but EAPOL passes in clear in either direction. Reception goes through
// unprotect, a step of the pipeline; all transmission goes through
// egressQueue.send, and there through a sealer.

// unprotect opens the frames received on a protected port. Their port's SecY
// is locked once for all of them.
func (w *Worker) unprotect(ps []packet) {
	secy := w.port.SecY
	if secy == nil {
		return
	}
	secy.LockReceive()
	defer secy.UnlockReceive()
	for i := range ps {
		if p := &ps[i]; p.verdict == proceed {
			p.verdict = open(secy, p)
		}
	}
}

func open(secy *macsec.SecY, p *packet) Verdict {
	if p.OuterTPID != 0 { // a tag in front of the SecTAG; ours are inside
		return DropUnprotected
	}
	start, end, outcome := secy.Open(p.Buf, p.Start, p.End)
	switch outcome {
	case macsec.OK:
		p.Start, p.End = start, end
		p.readTags()
		p.VNet = port.VNetHdr{} // it spoke of the sealed frame, if of anything
		return proceed
	case macsec.NoTag, macsec.Untouched: // whatever the SecY would let through
		return DropUnprotected
	}
	return DropNotValid
}

// sealer seals what leaves by one egress queue. Frames are sealed where they
// are; superframes are cut into memory of its own, and those without room
// around them copied there.
type sealer struct {
	secy   *macsec.SecY
	sender port.Sender

	slab   []byte
	used   int
	frames []port.Frame // in slab
	out    []*port.Frame
	at     int // which of the frames to be sent is at hand

	sent   sealed
	losses losses
	err    error
}

// sealed says what became of frames.
type sealed struct {
	sent    int
	noKey   int // there is no key, or its packet numbers are used up
	tooLong int // it does not fit the port when sealed, or is no frame
	full    int // the egress queue had no room
}

const (
	// slabLen holds the segments of a few superframes: what leaves in one
	// call should still be in the second level cache then.
	slabLen    = 512 << 10
	slabFrames = 512
	// slabFront is free in front of a frame in the slab, for SecTAG and
	// virtio-net header.
	slabFront = 64
)

// send sends frames in order, EAPOL in clear and all others sealed. It holds
// the port's lock from the first packet number until the last frame is with the
// device: several workers may send by the port, and packet numbers must be on
// the wire in their order.
func (s *sealer) send(frames []*port.Frame) (sealed, error) {
	if s.slab == nil {
		s.slab = make([]byte, slabLen)
		s.frames = make([]port.Frame, slabFrames)
		s.out = make([]*port.Frame, 0, slabFrames)
	}
	s.secy.LockTransmit()
	defer s.secy.UnlockTransmit()
	s.sent, s.err = sealed{}, nil
	s.losses.begin()
	for i, f := range frames {
		s.at = i
		switch {
		case isEAPOL(f):
			s.queue(f)
			s.sent.sent++
		case f.VNet.GSOType != port.GSONone:
			s.segment(f)
		default:
			s.seal(f)
		}
	}
	s.flush()
	s.sent.full = min(s.losses.frames, s.sent.sent) // one whose key ended amid it may be counted already
	s.sent.sent -= s.sent.full
	return s.sent, s.err
}

// isEAPOL says whether a frame may pass in clear.
func isEAPOL(f *port.Frame) bool {
	b := f.Bytes()
	return len(b) >= vlan.EthLen && binary.BigEndian.Uint16(b[12:]) == etherTypePAE
}

func (s *sealer) queue(f *port.Frame) {
	if len(s.out) == cap(s.out) {
		s.flush()
	}
	f.VNet = port.VNetHdr{}
	s.out = append(s.out, f)
	s.losses.of = append(s.losses.of, s.at)
}

// flush sends what is queued and makes the slab free.
func (s *sealer) flush() {
	if len(s.out) > 0 {
		n, err := s.sender.Send(s.out)
		s.losses.note(n)
		if s.err == nil {
			s.err = err
		}
	}
	s.out, s.used = s.out[:0], 0
}

// take returns a frame in the slab with room for n octets and an ICV.
func (s *sealer) take(n int) *port.Frame {
	need := (slabFront + n + macsec.ICVLen + 63) &^ 63
	if s.used+need > len(s.slab) || len(s.out) == cap(s.out) {
		s.flush()
	}
	f := &s.frames[len(s.out)]
	*f = port.Frame{Buf: s.slab[s.used : s.used+need], Start: slabFront, End: slabFront + n}
	s.used += need
	return f
}

// seal seals one frame and queues it.
func (s *sealer) seal(f *port.Frame) {
	if f.VNet.Flags&port.VNetNeedsCsum != 0 && !gso.CompleteChecksum(f.Bytes(), &f.VNet) || f.Len() > port.MaxFrame {
		s.sent.tooLong++
		return
	}
	if f.Start < macsec.HeaderOverhead+port.VNetHdrLen || f.End+macsec.ICVLen > len(f.Buf) {
		c := s.take(f.Len())
		copy(c.Bytes(), f.Bytes())
		f = c
	}
	if s.sealInPlace(f) {
		s.sent.sent++
	}
}

// segment seals and queues the frames that a superframe stands for.
func (s *sealer) segment(f *port.Frame) {
	plan, ok := cut(f)
	if !ok {
		s.sent.tooLong++
		return
	}
	for i := range plan.Segments {
		c := s.take(plan.Len)
		c.End = c.Start + plan.Segment(i, c.Bytes())
		if !s.sealInPlace(c) {
			return
		}
	}
	s.sent.sent++
}

func (s *sealer) sealInPlace(f *port.Frame) bool {
	var o macsec.Outcome
	switch f.Start, f.End, o = s.secy.Seal(f.Buf, f.Start, f.End); o {
	case macsec.OK:
		s.queue(f)
		return true
	case macsec.BadLength:
		s.sent.tooLong++
	default: // Untouched too: ProtectFrames off is no way out of a protected port
		s.sent.noKey++
	}
	return false
}
