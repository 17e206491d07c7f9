package port

import "encoding/binary"

// DecodeVNetHdr reads the header at the start of b, which must hold VNetHdrLen
// octets. Fields are in the host's byte order, as AF_PACKET and TUN/TAP have
// them by default (legacy virtio).
func DecodeVNetHdr(b []byte) VNetHdr {
	_ = b[VNetHdrLen-1] // BCE
	return VNetHdr{
		Flags:      b[0],
		GSOType:    b[1],
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Encode writes the header to the first VNetHdrLen octets of b, which must be
// that long.
func (h VNetHdr) Encode(b []byte) {
	_ = b[VNetHdrLen-1] // BCE
	b[0], b[1] = h.Flags, h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}

// maxHdrLen bounds the header length we name for a superframe whose headers we
// cannot find: tags, IPv6 with extensions, TCP with options.
const maxHdrLen = 256

// withHeader writes the virtio-net header into the octets before the frame and
// returns both as one piece, the form in which the kernel takes them.
func (f *Frame) withHeader() []byte {
	h := f.VNet
	h.Flags &= VNetNeedsCsum // DATA_VALID says nothing about a frame we send
	if h.GSOType == GSONone {
		h.HdrLen, h.GSOSize = 0, 0
	} else {
		h.HdrLen = h.headerLen(f.Bytes())
	}
	b := f.Buf[f.Start-VNetHdrLen : f.End]
	h.Encode(b)
	return b
}

// headerLen returns the length of a superframe's headers. The kernel makes that
// much of the frame linear memory and the rest page fragments, so the hint that
// came with a frame, which may span all of it, would cost a 64 KiB allocation
// in one piece.
func (h VNetHdr) headerLen(frame []byte) uint16 {
	l4 := int(h.CsumStart)
	switch {
	case h.Flags&VNetNeedsCsum == 0:
	case h.GSOType == GSOUDPL4 && l4+8 <= len(frame):
		return h.CsumStart + 8
	case h.GSOType != GSOUDPL4 && l4+20 <= len(frame):
		if n := l4 + int(frame[l4+12]>>4)*4; n <= len(frame) { // RFC 9293 §3.1: data offset
			return uint16(n)
		}
	}
	return uint16(min(int(h.HdrLen), len(frame), maxHdrLen))
}
