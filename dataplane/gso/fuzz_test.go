package gso

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"msee/dataplane/port"
)

// FuzzCut: whatever frame and header say, what is cut has the payload of the
// superframe, in order, and nothing beyond it.
func FuzzCut(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range []shape{
		{payload: 3000, size: 1000, flags: 0x18},
		{v6: true, payload: 3000, size: 1000, tags: 2, options: 12, flags: 0x90},
		{udp: true, payload: 3000, size: 1000, tags: 1},
		{udp: true, v6: true, payload: 3, size: 1},
	} {
		frame := s.build(r)
		f.Add(frame.Bytes(), s.l3(), frame.VNet.Flags, frame.VNet.GSOType, frame.VNet.GSOSize, frame.VNet.CsumStart, frame.VNet.CsumOffset)
	}
	f.Fuzz(func(t *testing.T, frame []byte, l3 int, flags, kind byte, size, start, offset uint16) {
		h := port.VNetHdr{Flags: flags, GSOType: kind, GSOSize: size, CsumStart: start, CsumOffset: offset}
		p, ok := Cut(frame, l3, h)
		if !ok {
			return
		}
		dst := make([]byte, p.Len)
		var payload []byte
		for i := range p.Segments {
			n := p.Segment(i, dst)
			if n < p.payload || n > p.Len || i < p.Segments-1 && n != p.Len {
				t.Fatalf("segment %d of %d has %d octets; the longest shall have %d", i, p.Segments, n, p.Len)
			}
			payload = append(payload, dst[p.payload:n]...)
		}
		if !bytes.Equal(payload, frame[p.payload:p.end]) {
			t.Fatal("the payload is not that of the superframe")
		}
	})
}

// FuzzCutTunnel: whatever stands before the inner packet, its segments are those of
// Cut but for the outer headers, which stay in bounds.
func FuzzCutTunnel(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range []shape{{payload: 3000, size: 1000, flags: 0x18}, {v6: true, payload: 3000, size: 1000}} {
		frame := s.build(r)
		for _, outer := range [][]byte{
			append([]byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17}, make([]byte, 10+16)...),
			append([]byte{0x60, 0, 0, 0, 0, 0, 17, 64}, make([]byte, 32+16)...),
		} {
			at := 14 + len(outer)
			all := append(append(make([]byte, 14), outer...), frame.Bytes()...)
			f.Add(all, 14, at+s.l3(), frame.VNet.Flags, frame.VNet.GSOType, frame.VNet.GSOSize, frame.VNet.CsumStart+uint16(at), frame.VNet.CsumOffset)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, outer, l3 int, flags, kind byte, size, start, offset uint16) {
		h := port.VNetHdr{Flags: flags, GSOType: kind, GSOSize: size, CsumStart: start, CsumOffset: offset}
		p, ok := CutTunnel(frame, outer, l3, h)
		if !ok {
			return
		}
		plain, ok := Cut(frame, l3, h)
		if !ok || plain.Segments != p.Segments {
			t.Fatalf("%d segments, without the tunnel %d", p.Segments, plain.Segments)
		}
		in, out := make([]byte, plain.Len), make([]byte, p.Len)
		for i := range min(p.Segments, 100) {
			n := plain.Segment(i, in)
			if got := p.Segment(i, out); got != n || !bytes.Equal(out[l3:n], in[l3:n]) {
				t.Fatalf("segment %d differs inside", i)
			}
			if length := int(binary.BigEndian.Uint16(out[p.outerUDP+4:])); length != (n-p.outerUDP)&0xffff {
				t.Fatalf("segment %d: UDP length %d of %d octets", i, length, n-p.outerUDP)
			}
		}
	})
}

// FuzzChecksum: neither direction leaves the frame's bounds, and the one undoes
// the other.
func FuzzChecksum(f *testing.F) {
	s := shape{payload: 100, size: 1000}
	frame := s.build(rand.New(rand.NewPCG(1, 1)))
	f.Add(frame.Bytes(), 14, frame.VNet.CsumStart, frame.VNet.CsumOffset)
	f.Fuzz(func(t *testing.T, frame []byte, l3 int, start, offset uint16) {
		frame = bytes.Clone(frame)
		h := port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: start, CsumOffset: offset}
		CompleteChecksum(frame, &h)
		if !LeaveChecksum(frame, l3, &h) {
			return
		}
		at, proto, _ := locate(frame, l3, 0)
		at.transport(frame, proto == protoUDP)
		frame = frame[:at.end]
		if !CompleteChecksum(frame, &h) || Fold(Sum(frame[at.l4:], at.pseudo(frame, at.end-at.l4))) != 0xffff {
			t.Fatalf("checksum of %x is wrong", frame)
		}
	})
}

// FuzzCoalesce adds frames of three flows, each by three octets of input:
// flow, change, length. The queue, cut again, must be the frames that went in,
// in the order of each flow, but for identifications that mean nothing.
func FuzzCoalesce(f *testing.F) {
	f.Add([]byte{0, 0, 100, 1, 0, 50, 0, 0, 100, 0, 0, 20, 1, 0, 50, 2, 0, 9, 2, 0, 9})
	f.Add([]byte{0, 0, 100, 0, 1, 100, 0, 2, 100, 0, 3, 100, 0, 0, 100, 0, 4, 100, 0, 0, 100, 0, 5, 100})
	f.Add([]byte{2, 0, 9, 2, 0, 10, 2, 0, 9, 2, 6, 9, 2, 7, 9, 2, 8, 9, 2, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		table := Table{UDP: true}
		shapes := [3]shape{{flags: 0x10, id: 65530}, {flags: 0x10, v6: true, seq: 1<<32 - 100}, {udp: true, noDF: true}}
		var in [3][][]byte
		var queue []*port.Frame
		r := rand.New(rand.NewPCG(1, 1))
		for ; len(input) >= 3 && len(queue) < 64; input = input[3:] {
			k := int(input[0] % 3)
			s := &shapes[k]
			s.payload, s.room = int(input[2]), 4096
			now := *s
			now.change(input[1])
			frame := now.build(r)
			frame.VNet.GSOType, frame.VNet.GSOSize, frame.VNet.HdrLen = port.GSONone, 0, 0
			CompleteChecksum(frame.Bytes(), &frame.VNet)
			s.seq, s.id = s.seq+uint32(s.payload), s.id+1
			frame.Bytes()[now.l3()+13+k]++ // of another address each
			v := port.VNetHdr{}
			LeaveChecksum(frame.Bytes(), now.l3(), &v)
			if input[1] != 11 { // else: corrupt
				CompleteChecksum(frame.Bytes(), &v)
			}
			if !now.v6 {
				ip := frame.Bytes()[now.l3():]
				ip[10], ip[11] = 0, 0
				binary.BigEndian.PutUint16(ip[10:], ^Fold(Sum(ip[:20], 0)))
			}
			if at := now.l3() + []int{36, 56, 0}[k]; k < 2 && binary.BigEndian.Uint16(frame.Bytes()[at:]) == 0xffff {
				clear(frame.Bytes()[at : at+2]) // in TCP the same, and what cutting writes
			}
			in[k] = append(in[k], bytes.Clone(frame.Bytes()))
			if !table.Add(frame, now.l3()) {
				queue = append(queue, frame)
			}
		}
		table.Flush()
		var out [3][][]byte
		for _, f := range queue {
			k := 1
			if b := f.Bytes(); b[12] == 8 {
				k = int(b[14+9]-protoTCP) / (protoUDP - protoTCP) * 2
			}
			if f.VNet.GSOType == port.GSONone {
				out[k] = append(out[k], f.Bytes())
				continue
			}
			for _, s := range cutAll(t, f, 14) {
				out[k] = append(out[k], s.Bytes())
			}
		}
		for k := range in {
			if len(in[k]) != len(out[k]) {
				t.Fatalf("flow %d: %d frames of %d", k, len(out[k]), len(in[k]))
			}
			for i := range in[k] {
				a, b := in[k][i], out[k][i]
				if k == 0 { // DF is set
					binary.BigEndian.PutUint16(b[18:], binary.BigEndian.Uint16(a[18:]))
					binary.BigEndian.PutUint16(b[24:], binary.BigEndian.Uint16(a[24:]))
				}
				if !bytes.Equal(a, b) {
					t.Fatalf("flow %d frame %d:\n got %x\nwant %x", k, i, b, a)
				}
			}
		}
	})
}

// change makes the next frame of a flow differ from what is expected.
func (s *shape) change(how byte) {
	switch how {
	case 1:
		s.flags |= tcpPSH
	case 2:
		s.flags |= tcpCWR
	case 3:
		s.flags |= tcpFIN
	case 4:
		s.seq++
	case 5:
		s.flags |= tcpSYN
	case 6:
		s.tos = 3
	case 7:
		s.id += 7
	case 8:
		s.id--
	case 9:
		s.noDF = !s.noDF
	case 10:
		s.options = 4
	}
}
