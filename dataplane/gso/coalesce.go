package gso

import (
	"bytes"
	"encoding/binary"

	"msee/dataplane/port"
)

// Table joins frames of one flow that follow each other in a queue into a
// superframe, by the rules of the kernel's GRO: the receiver must not be able
// to tell it from the frames. A queue's frames are added in their order; a
// frame that is joined is copied behind the one that heads its flow, which may
// move to memory of the table's for that, and does not go into the queue. Flush
// before the queue is used, Release when it has been sent.
type Table struct {
	// UDP joins datagrams too, for an egress that can cut them (USO).
	UDP bool

	// One flow per slot: of two that meet in one, the older is finished. A
	// batch seldom has more than a few, and the table must cost nothing
	// where nothing can be joined.
	flows [16]flow
	live  uint16 // bit per slot in use

	// rooms are where superframes grow whose head has no room behind it where
	// it is; used of them are in the queue.
	rooms [][]byte
	used  int
}

// maxRooms bounds how many superframes of a queue may have been moved; a batch
// of port.BatchSize frames of 1500 octets makes six, more if its flows are many.
const maxRooms = 16

// flow is a superframe in the making. Its head is a frame in the queue.
type flow struct {
	headers // of head
	head    *port.Frame
	size    int    // payload of a segment, octets
	count   int    // frames joined, 1 at first
	next    uint32 // TCP: the sequence number that comes next
	id      uint16 // IPv4: identification of the last frame
	sameID  bool   // IPv4: all have the same
}

// maxDatagrams is how many datagrams become one superframe: half of what the
// kernel would cut (UDP_MAX_SEGMENTS), as its own GRO has it (UDP_GRO_CNT_MAX).
const maxDatagrams = 64

// Add offers the next frame of the queue, whose IP packet, checked, begins l3
// octets behind f.Start. It reports true if the frame is joined to one before
// it, and not to be queued.
func (t *Table) Add(f *port.Frame, l3 int) bool {
	frame := f.Bytes()
	h, proto, ok := locate(frame, l3, 0)
	if !ok || proto != protoTCP && proto != protoUDP || !h.transport(frame, proto == protoUDP) || h.udp && !t.UDP {
		return false // of no flow of ours
	}
	slot := slotOf(frame, &h)
	w := &t.flows[slot]
	held := t.live&(1<<slot) != 0
	same := held && w.sameFlow(frame, &h)
	if same && w.joins(f, frame, &h) && t.fits(w, h.end-h.payload) {
		w.join(frame, &h)
		if w.complete(frame, &h) {
			t.finish(slot)
		}
		return true
	}
	heads := canHead(f, frame, &h)
	if same || held && heads {
		t.finish(slot)
	}
	if heads {
		w.begin(f, frame, &h)
		t.live |= 1 << slot
	}
	return false
}

// Flush finishes all superframes.
func (t *Table) Flush() {
	for slot := 0; t.live != 0; slot++ {
		if t.live&(1<<slot) != 0 {
			t.finish(slot)
		}
	}
}

// Release is to be called when the queue's frames are sent.
func (t *Table) Release() { t.used = 0 }

// fits makes sure that n octets have room behind a flow's head, and moves it if
// need be. It reports false if there is none.
func (t *Table) fits(w *flow, n int) bool {
	f := w.head
	if f.End+n <= len(f.Buf) {
		return true
	}
	if t.used == len(t.rooms) {
		if t.used == maxRooms {
			return false
		}
		t.rooms = append(t.rooms, make([]byte, port.Headroom+port.MaxFrame))
	}
	room := t.rooms[t.used]
	t.used++
	end := port.Headroom + copy(room[port.Headroom:], f.Bytes())
	f.Buf, f.Start, f.End = room, port.Headroom, end
	return true
}

// slotOf spreads flows by the low halves of addresses and the ports.
func slotOf(frame []byte, h *headers) int {
	src, dst := frame[h.l3+12:], frame[h.l3+16:]
	if h.v6 {
		src, dst = frame[h.l3+20:], frame[h.l3+36:]
	}
	x := binary.LittleEndian.Uint32(src) ^ binary.LittleEndian.Uint32(dst)*3 ^ binary.LittleEndian.Uint32(frame[h.l4:])
	return int(x * 0x9e3779b1 >> 28)
}

// sameFlow compares the Ethernet header, protocol, addresses and ports.
func (w *flow) sameFlow(frame []byte, h *headers) bool {
	head := w.head.Bytes()
	if w.v6 != h.v6 || w.udp != h.udp || w.l3 != h.l3 || len(head) < w.payload || !bytes.Equal(head[:h.l3], frame[:h.l3]) {
		return false
	}
	from, to := h.l3+12, h.l3+20
	if h.v6 {
		from, to = h.l3+8, h.l3+40
	}
	return bytes.Equal(head[from:to], frame[from:to]) &&
		binary.LittleEndian.Uint32(head[w.l4:]) == binary.LittleEndian.Uint32(frame[h.l4:])
}

// canHead says whether others may be joined to the frame. Its checksum is
// looked at when the first one is: most frames stay alone.
func canHead(f *port.Frame, frame []byte, h *headers) bool {
	if f.VNet.GSOType != port.GSONone || h.payload == h.end || h.end != len(frame) {
		return false
	}
	if !h.v6 && h.l4-h.l3 != minIPv4 { // options, as in the kernel
		return false
	}
	if h.udp {
		return binary.BigEndian.Uint16(frame[h.l4+4:]) == uint16(h.end-h.l4) && hasSum(f, frame, h)
	}
	// CWR is said of the first segment in RFC 3168 and of each in AccECN (RFC
	// 9768), and a virtio-net header cannot tell which is meant. Linux 6.18
	// joins as we do, older ones those behind to one with CWR.
	return frame[h.l4+13]&(tcpCWR|tcpURG|tcpPSH|tcpRST|tcpSYN|tcpFIN) == 0
}

// hasSum says whether a datagram has a checksum. One without would get one.
func hasSum(f *port.Frame, frame []byte, h *headers) bool {
	return f.VNet.Flags&port.VNetNeedsCsum != 0 || binary.BigEndian.Uint16(frame[h.sumAt():]) != 0
}

// begin makes the frame the head of a new superframe.
func (w *flow) begin(f *port.Frame, frame []byte, h *headers) {
	*w = flow{headers: *h, head: f, size: h.end - h.payload, count: 1}
	if !h.udp {
		w.next = binary.BigEndian.Uint32(frame[h.l4+4:]) + uint32(w.size)
	}
	if !h.v6 {
		w.id = binary.BigEndian.Uint16(frame[h.l3+4:])
	}
}

// joins says whether the frame, of the flow, continues it.
func (w *flow) joins(f *port.Frame, frame []byte, h *headers) bool {
	head, size := w.head.Bytes(), h.end-h.payload
	switch {
	case f.VNet.GSOType != port.GSONone, size == 0, size > w.size, h.end != len(frame):
		return false
	case h.l4 != w.l4, h.payload != w.payload:
		return false
	case len(head)-w.l3+size > maxIP:
		return false
	case !w.sameIP(head, frame):
		return false
	}
	if h.udp {
		if w.count >= maxDatagrams || int(binary.BigEndian.Uint16(frame[h.l4+4:])) != h.end-h.l4 || !hasSum(f, frame, h) {
			return false
		}
	} else if !w.sameTCP(head, frame) {
		return false
	}
	return (w.count > 1 || sumOK(w.head, head, &w.headers)) && sumOK(f, frame, h)
}

// sameIP compares what a superframe has once: traffic class (ECN with it), TTL
// and DF; flow label. IPv4's identifications must be those that cutting the
// superframe gives, or all the same where they mean nothing (DF, RFC 6864 §4).
func (w *flow) sameIP(head, frame []byte) bool {
	a, b := head[w.l3:], frame[w.l3:]
	if w.v6 {
		return binary.BigEndian.Uint32(a) == binary.BigEndian.Uint32(b) && a[7] == b[7]
	}
	if b[0] != a[0] || b[1] != a[1] || b[8] != a[8] || (a[6]^b[6])&0xe0 != 0 {
		return false
	}
	const df = 0x40
	id := binary.BigEndian.Uint16(b[4:])
	same := id == w.id && a[6]&df != 0 && (w.count == 1 || w.sameID)
	return same || id == w.id+1 && !w.sameID
}

// sameTCP says whether a segment is the next one and has the same to say:
// flags but for those that end a superframe, acknowledgment, window and options
// (timestamps with them).
func (w *flow) sameTCP(head, frame []byte) bool {
	a, b := head[w.l4:w.payload], frame[w.l4:w.payload]
	return binary.BigEndian.Uint32(b[4:]) == w.next &&
		binary.BigEndian.Uint32(a[8:]) == binary.BigEndian.Uint32(b[8:]) &&
		a[12] == b[12] && (a[13]^b[13])&^(tcpFIN|tcpPSH) == 0 &&
		binary.BigEndian.Uint16(a[14:]) == binary.BigEndian.Uint16(b[14:]) &&
		binary.BigEndian.Uint16(a[18:]) == binary.BigEndian.Uint16(b[18:]) &&
		bytes.Equal(a[minTCP:], b[minTCP:])
}

// sumOK verifies a transport checksum, unless the device has, or the sender
// has left it out because nothing can have gone wrong since.
func sumOK(f *port.Frame, frame []byte, h *headers) bool {
	switch {
	case f.VNet.Flags&port.VNetNeedsCsum != 0:
		return int(f.VNet.CsumStart) == h.l4 // and not that of a packet within
	case f.VNet.Flags&port.VNetDataValid != 0:
		return true
	}
	return Fold(Sum(frame[h.l4:h.end], h.pseudo(frame, h.end-h.l4))) == 0xffff
}

// join copies the frame's payload behind the head's.
func (w *flow) join(frame []byte, h *headers) {
	f := w.head
	f.End += copy(f.Buf[f.End:], frame[h.payload:h.end])
	w.count++
	if !h.v6 {
		id := binary.BigEndian.Uint16(frame[h.l3+4:])
		w.sameID, w.id = id == w.id, id
	}
	if !h.udp {
		f.Bytes()[w.l4+13] |= frame[h.l4+13] & (tcpFIN | tcpPSH)
		w.next += uint32(h.end - h.payload)
	}
}

// complete says whether nothing may follow the frame just joined: it is shorter
// than the others, or its flags must be last.
func (w *flow) complete(frame []byte, h *headers) bool {
	return h.end-h.payload < w.size || !h.udp && frame[h.l4+13]&(tcpFIN|tcpPSH) != 0
}

// finish makes the head a superframe if something was joined to it: lengths,
// IPv4 checksum, virtio-net header. The flow's slot is free then.
func (t *Table) finish(slot int) {
	w := &t.flows[slot]
	t.live &^= 1 << slot
	f, h := w.head, &w.headers
	if w.head = nil; w.count == 1 {
		return
	}
	frame := f.Bytes()
	h.end = len(frame)
	ip := frame[h.l3:]
	kind := uint8(port.GSOTCPv6)
	if h.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-minIPv6))
	} else {
		kind = port.GSOTCPv4
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^Fold(Sum(ip[:minIPv4], 0)))
	}
	if h.udp {
		kind = port.GSOUDPL4
		binary.BigEndian.PutUint16(frame[h.l4+4:], uint16(h.end-h.l4))
	}
	f.VNet = port.VNetHdr{GSOType: kind, GSOSize: uint16(w.size), HdrLen: uint16(h.payload)}
	h.leave(frame, &f.VNet)
}
