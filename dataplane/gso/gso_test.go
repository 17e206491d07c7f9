package gso

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
)

// shape describes a superframe to build.
type shape struct {
	v6, udp       bool
	tags          int
	options       int // octets of TCP options
	payload, size int
	flags         byte // TCP
	id            uint16
	noDF          bool
	seq           uint32
	tos           byte
	room          int // octets free behind the frame
}

// build makes the superframe: an unfinished checksum, as a kernel sends it.
func (s shape) build(r *rand.Rand) *port.Frame {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	for i := range s.tags {
		b = append(b, 0x81, 0, 0, byte(100+i))
	}
	l4len := udpLen
	if !s.udp {
		l4len = minTCP + s.options
	}
	if s.v6 {
		b = append(b, 0x86, 0xdd)
	} else {
		b = append(b, 8, 0)
	}
	l3 := len(b)
	if s.v6 {
		b = append(b, 0x60|s.tos>>4, s.tos<<4, 0x12, 0x34)
		b = binary.BigEndian.AppendUint16(b, uint16(l4len+s.payload))
		b = append(b, s.proto(), 64)
		b = append(b, []byte{0: 0x20, 1: 1, 15: 1, 16: 0x20, 17: 1, 31: 2}...)
	} else {
		b = append(b, 0x45, s.tos)
		b = binary.BigEndian.AppendUint16(b, uint16(20+l4len+s.payload))
		b = binary.BigEndian.AppendUint16(b, s.id)
		df := byte(0x40)
		if s.noDF {
			df = 0
		}
		b = append(b, df, 0, 64, s.proto(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
		binary.BigEndian.PutUint16(b[l3+10:], ^Fold(Sum(b[l3:], 0)))
	}
	l4 := len(b)
	b = append(b, 0x9c, 0x40, 0x13, 0x88)
	if s.udp {
		b = binary.BigEndian.AppendUint16(b, uint16(udpLen+s.payload))
		b = append(b, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, s.seq)
		b = append(b, 1, 2, 3, 4, byte(l4len/4)<<4, s.flags, 0x20, 0, 0, 0, 0, 0)
		for range s.options {
			b = append(b, 1) // no operation
		}
	}
	payload := len(b)
	for range s.payload {
		b = append(b, byte(r.Uint32()))
	}
	f := &port.Frame{Buf: make([]byte, port.Headroom+len(b)+s.room), Start: port.Headroom}
	f.End = f.Start + copy(f.Buf[f.Start:], b)
	kind := byte(port.GSOUDPL4)
	switch {
	case s.udp:
	case s.v6:
		kind = port.GSOTCPv6
	default:
		kind = port.GSOTCPv4
	}
	if s.flags&tcpCWR != 0 && !s.udp {
		kind |= port.GSOECN
	}
	f.VNet = port.VNetHdr{GSOType: kind, GSOSize: uint16(s.size), HdrLen: uint16(payload)}
	h := headers{l3: l3, l4: l4, payload: payload, end: len(b), v6: s.v6, udp: s.udp}
	h.leave(f.Bytes(), &f.VNet)
	return f
}

func (s shape) proto() byte {
	if s.udp {
		return protoUDP
	}
	return protoTCP
}

func (s shape) l3() int { return 14 + 4*s.tags }

func randomShape(r *rand.Rand) shape {
	s := shape{
		v6: r.IntN(2) == 0, udp: r.IntN(3) == 0, tags: r.IntN(3), options: 4 * r.IntN(11),
		size: 1 + r.IntN(1460), id: uint16(r.Uint32()), noDF: r.IntN(2) == 0, seq: r.Uint32(), tos: byte(r.Uint32()),
		flags: 0x10 | byte(r.Uint32())&(tcpCWR|tcpPSH|tcpFIN|0x40),
	}
	limit := 64000
	if s.udp {
		limit = min(limit, s.size*maxDatagrams)
	}
	s.payload = s.size + 1 + r.IntN(max(1, min(limit, 40*s.size)-s.size-1))
	if s.udp {
		s.options, s.flags = 0, 0
	}
	return s
}

// cutAll returns the segments, each in a buffer of its own.
func cutAll(t testing.TB, f *port.Frame, l3 int) []*port.Frame {
	t.Helper()
	p, ok := Cut(f.Bytes(), l3, f.VNet)
	if !ok {
		t.Fatalf("not cut: %+v", f.VNet)
	}
	var out []*port.Frame
	for i := range p.Segments {
		s := &port.Frame{Buf: make([]byte, port.Headroom+port.MaxFrame), Start: port.Headroom}
		s.End = s.Start + p.Segment(i, s.Buf[s.Start:])
		out = append(out, s)
	}
	return out
}

// TestCutThenCoalesce: what is cut has the right parts, and joined again is the
// superframe it was.
func TestCutThenCoalesce(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := randomShape(r)
		f := s.build(r)
		whole := bytes.Clone(f.Bytes())
		segments := cutAll(t, f, s.l3())
		if want := (s.payload + s.size - 1) / s.size; len(segments) != want {
			t.Fatalf("%+v: %d segments, want %d", s, len(segments), want)
		}
		for i, seg := range segments {
			checkSegment(t, s, seg.Bytes(), i, len(segments))
		}
		table := Table{UDP: true}
		if s.flags&tcpCWR != 0 { // the first stays alone
			table.Add(segments[0], s.l3())
			s.flags &^= tcpCWR
			s.seq, s.id, s.payload = s.seq+uint32(s.size), s.id+1, s.payload-s.size
			segments = segments[1:]
			if len(segments) == 1 {
				continue
			}
			tail := s.build(rand.New(rand.NewPCG(seed, 2)))
			copy(tail.Bytes()[f.VNet.HdrLen:], whole[int(f.VNet.HdrLen)+s.size:])
			f, whole = tail, tail.Bytes()
		}
		for i, seg := range segments {
			if joined := table.Add(seg, s.l3()); joined != (i > 0) {
				t.Fatalf("%+v: segment %d of %d joined: %v", s, i, len(segments), joined)
			}
		}
		table.Flush()
		got := segments[0]
		if got.VNet != f.VNet {
			t.Fatalf("%+v: virtio-net header %+v, want %+v", s, got.VNet, f.VNet)
		}
		if !bytes.Equal(got.Bytes(), whole) {
			t.Fatalf("%+v: joined differs from what was cut", s)
		}
	}
}

// checkSegment lets another implementation read a segment and recompute its
// checksums.
func checkSegment(t *testing.T, s shape, b []byte, i, n int) {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatalf("%+v: segment %d: %v", s, i, p.ErrorLayer().Error())
	}
	network := p.NetworkLayer()
	if ip, ok := network.(*layers.IPv4); ok && ip.Id != s.id+uint16(i) {
		t.Fatalf("%+v: segment %d has identification %d", s, i, ip.Id)
	}
	out := gopacket.NewSerializeBuffer()
	var list []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			last := i == n-1
			if l.Seq != s.seq+uint32(i*s.size) || l.CWR != (i == 0 && s.flags&tcpCWR != 0) ||
				l.PSH != (last && s.flags&tcpPSH != 0) || l.FIN != (last && s.flags&tcpFIN != 0) ||
				l.ECE != (s.flags&0x40 != 0) {
				t.Fatalf("%+v: segment %d of %d: TCP %+v", s, i, n, l)
			}
			l.SetNetworkLayerForChecksum(network)
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(network)
		}
		if sl, ok := l.(gopacket.SerializableLayer); ok {
			list = append(list, sl)
		}
		if l.LayerType() == layers.LayerTypeTCP || l.LayerType() == layers.LayerTypeUDP {
			list = append(list, gopacket.Payload(l.LayerPayload()))
			break
		}
	}
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, list...); err != nil {
		t.Fatal(err)
	}
	if want := out.Bytes()[:len(b)]; !bytes.Equal(want, b) { // gopacket pads short frames
		t.Fatalf("%+v: segment %d of %d\n got %x\nwant %x", s, i, n, b[:min(len(b), 100)], want[:min(len(b), 100)])
	}
}

// TestCutRefuses what is not as its header says.
func TestCutRefuses(t *testing.T) {
	tcp := shape{payload: 4000, size: 1000, flags: 0x10}
	for name, spoil := range map[string]func(f *port.Frame){
		"none":            func(f *port.Frame) { f.VNet.GSOType = port.GSONone },
		"UFO":             func(f *port.Frame) { f.VNet.GSOType = port.GSOUDP },
		"other family":    func(f *port.Frame) { f.VNet.GSOType = port.GSOTCPv6 },
		"other protocol":  func(f *port.Frame) { f.VNet.GSOType = port.GSOUDPL4 },
		"size 0":          func(f *port.Frame) { f.VNet.GSOSize = 0 },
		"too fine":        func(f *port.Frame) { f.VNet.GSOSize = 1 },
		"checksum start":  func(f *port.Frame) { f.VNet.CsumStart += 4 },
		"checksum offset": func(f *port.Frame) { f.VNet.CsumOffset = 6 },
		"fragment":        func(f *port.Frame) { f.Bytes()[20] |= 0x20 },
		"cut short":       func(f *port.Frame) { f.End -= 1 },
		"header length":   func(f *port.Frame) { f.Bytes()[14] = 0x44 },
		"data offset":     func(f *port.Frame) { f.Bytes()[34+12] = 0x40 },
		"version":         func(f *port.Frame) { f.Bytes()[14] = 0x55 },
	} {
		f := tcp.build(rand.New(rand.NewPCG(1, 1)))
		if _, ok := Cut(f.Bytes(), 14, f.VNet); !ok {
			t.Fatal("the unspoilt frame is refused")
		}
		spoil(f)
		if _, ok := Cut(f.Bytes(), 14, f.VNet); ok {
			t.Errorf("%s: cut", name)
		}
	}
	f := tcp.build(rand.New(rand.NewPCG(1, 1)))
	p, _ := Cut(f.Bytes(), 14, f.VNet)
	if p.Segment(0, make([]byte, p.Len-1)) != 0 || p.Segment(4, make([]byte, p.Len)) != 0 || p.Segment(-1, make([]byte, p.Len)) != 0 {
		t.Error("a segment was written that has no room or does not exist")
	}
}

// TestExtensionHeaders: with the transport header named, IPv6 extension headers
// in front of it are carried along.
func TestExtensionHeaders(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	f := shape{v6: true, payload: 3000, size: 1000, flags: 0x10}.build(r)
	b := f.Bytes()
	ext := append(bytes.Clone(b[:54]), protoTCP, 0, 1, 4, 0, 0, 0, 0) // destination options: PadN
	ext = append(ext, b[54:]...)
	ext[14+6] = 60
	binary.BigEndian.PutUint16(ext[18:], binary.BigEndian.Uint16(ext[18:])+8)
	v := f.VNet
	v.CsumStart += 8
	p, ok := Cut(ext, 14, v)
	if !ok || p.Segments != 3 {
		t.Fatalf("cut %v into %d", ok, p.Segments)
	}
	dst := make([]byte, p.Len)
	n := p.Segment(1, dst)
	h := headers{l3: 14, l4: 62, payload: 82, end: n, v6: true}
	if acc := h.pseudo(dst, n-62); Fold(Sum(dst[62:n], acc)) != 0xffff {
		t.Error("wrong checksum behind an extension header")
	}
}

// TestJoinRules: of two segments in order, the second with one difference, only
// some make a superframe.
func TestJoinRules(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte) // of the second segment, IPv4 at 14, TCP with 12 octets of options at 34
		first  bool           // change the first instead
		joins  bool
	}{
		"nothing":               {func([]byte) {}, false, true},
		"PSH":                   {func(b []byte) { b[34+13] |= tcpPSH }, false, true},
		"FIN":                   {func(b []byte) { b[34+13] |= tcpFIN }, false, true},
		"CWR":                   {func(b []byte) { b[34+13] |= tcpCWR }, false, false},
		"CWR on the first":      {func(b []byte) { b[34+13] |= tcpCWR }, true, false},
		"PSH on the first":      {func(b []byte) { b[34+13] |= tcpPSH }, true, false},
		"SYN":                   {func(b []byte) { b[34+13] |= tcpSYN }, false, false},
		"RST":                   {func(b []byte) { b[34+13] |= tcpRST }, false, false},
		"URG":                   {func(b []byte) { b[34+13] |= tcpURG }, false, false},
		"ECE":                   {func(b []byte) { b[34+13] |= 0x40 }, false, false},
		"CE":                    {func(b []byte) { b[14+1] |= 3 }, false, false},
		"TTL":                   {func(b []byte) { b[14+8]-- }, false, false},
		"DF":                    {func(b []byte) { b[14+6] ^= 0x40 }, false, false},
		"identification":        {func(b []byte) { b[14+5] += 5 }, false, false},
		"the same number":       {func(b []byte) { b[14+5]-- }, false, true},
		"sequence":              {func(b []byte) { b[34+7]++ }, false, false},
		"acknowledgment":        {func(b []byte) { b[34+11]++ }, false, false},
		"window":                {func(b []byte) { b[34+15]++ }, false, false},
		"timestamp":             {func(b []byte) { b[34+20+5]++ }, false, false},
		"other port":            {func(b []byte) { b[34+1]++ }, false, false},
		"other address":         {func(b []byte) { b[14+15]++ }, false, false},
		"other MAC":             {func(b []byte) { b[5]++ }, false, false},
		"a corrupt octet":       {func(b []byte) { b[80] ^= 1; b[34+16] ^= 1 }, false, false},
		"a corrupt octet first": {func(b []byte) { b[80] ^= 1; b[34+16] ^= 1 }, true, false},
	} {
		r := rand.New(rand.NewPCG(3, 3))
		segments := cutAll(t, shape{options: 12, payload: 3000, size: 1000, flags: 0x10, seq: 7, id: 300}.build(r), 14)
		b := segments[1].Bytes()
		if c.first {
			b = segments[0].Bytes()
		}
		sum := binary.BigEndian.Uint16(b[34+16:])
		c.change(b)
		if binary.BigEndian.Uint16(b[34+16:]) == sum { // the change is meant to be valid
			v := port.VNetHdr{}
			LeaveChecksum(b, 14, &v)
			CompleteChecksum(b, &v)
		} else {
			binary.BigEndian.PutUint16(b[34+16:], sum)
		}
		table := Table{}
		table.Add(segments[0], 14)
		if joined := table.Add(segments[1], 14); joined != c.joins {
			t.Errorf("%s: joined %v, want %v", name, joined, c.joins)
		}
		table.Flush()
	}
}

// TestRoom: a head without room behind it moves to where there is; if the table
// has no more, it is left as it is, until the queue has been sent.
func TestRoom(t *testing.T) {
	var table Table
	queue := func() string {
		super := shape{payload: 3000, size: 1000, flags: 0x10}.build(rand.New(rand.NewPCG(1, 1)))
		segments := cutAll(t, super, 14)
		segments[0].Buf = segments[0].Buf[:segments[0].End+999]
		got := fmt.Sprint(table.Add(segments[0], 14), table.Add(segments[1], 14), table.Add(segments[2], 14))
		table.Flush()
		if got == "false true true" && !bytes.Equal(segments[0].Bytes()[34+20:], super.Bytes()[34+20:]) {
			t.Errorf("joined: %x", segments[0].Bytes())
		}
		return got
	}
	for i := range maxRooms {
		if got := queue(); got != "false true true" {
			t.Error(i, got)
		}
	}
	if got := queue(); got != "false false true" {
		t.Error("without room:", got)
	}
	table.Release()
	if got := queue(); got != "false true true" {
		t.Error("after Release:", got)
	}
}

// TestAllocs: nothing is allocated.
func TestAllocs(t *testing.T) {
	s := shape{payload: 60000, size: 1448, flags: 0x10, options: 12}
	f := s.build(rand.New(rand.NewPCG(1, 1)))
	segments := cutAll(t, f, 14)
	dst := make([]byte, port.MaxFrame)
	end := segments[0].End
	var table Table
	if n := testing.AllocsPerRun(100, func() {
		p, _ := Cut(f.Bytes(), 14, f.VNet)
		for i := range p.Segments {
			p.Segment(i, dst)
		}
		segments[0].End = end
		segments[0].VNet = port.VNetHdr{Flags: port.VNetDataValid}
		for _, s := range segments {
			table.Add(s, 14)
		}
		table.Flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCut64k(b *testing.B) {
	s := shape{payload: 63712, size: 1448, flags: 0x10, options: 12}
	f := s.build(rand.New(rand.NewPCG(1, 1)))
	dst := make([]byte, port.MaxFrame+1<<17)
	b.SetBytes(int64(s.payload))
	for b.Loop() {
		p, _ := Cut(f.Bytes(), 14, f.VNet)
		at := 0
		for i := range p.Segments {
			at += p.Segment(i, dst[at:])
		}
	}
}

func BenchmarkCoalesce64k(b *testing.B) {
	s := shape{payload: 63712, size: 1448, flags: 0x10, options: 12}
	segments := cutAll(b, s.build(rand.New(rand.NewPCG(1, 1))), 14)
	head := *segments[0]
	first := bytes.Clone(head.Bytes())
	b.SetBytes(int64(s.payload))
	var table Table
	for b.Loop() {
		*segments[0] = head
		copy(head.Bytes(), first)
		for _, s := range segments {
			table.Add(s, 14)
		}
		table.Flush()
	}
}
