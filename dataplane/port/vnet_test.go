package port

import (
	"bytes"
	"testing"
)

func FuzzVNetHdr(f *testing.F) {
	f.Add([]byte{VNetNeedsCsum, GSOTCPv4, 54, 0, 0xb4, 5, 34, 0, 16, 0})
	f.Add(bytes.Repeat([]byte{0xff}, VNetHdrLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < VNetHdrLen {
			return
		}
		var got [VNetHdrLen]byte
		DecodeVNetHdr(b).Encode(got[:])
		if !bytes.Equal(got[:], b[:VNetHdrLen]) {
			t.Errorf("round trip of % x gives % x", b[:VNetHdrLen], got)
		}
	})
}

// FuzzWithHeader looks for a header length that lies outside of the frame.
func FuzzWithHeader(f *testing.F) {
	f.Add(uint8(VNetNeedsCsum), uint8(GSOTCPv4), uint16(2000), uint16(34), make([]byte, 60))
	f.Add(uint8(VNetNeedsCsum), uint8(GSOUDPL4), uint16(0), uint16(0xffff), make([]byte, 14))
	f.Fuzz(func(t *testing.T, flags, gso uint8, hdrLen, csumStart uint16, frame []byte) {
		fr := newFrame(frame)
		fr.VNet = VNetHdr{Flags: flags, GSOType: gso, HdrLen: hdrLen, CsumStart: csumStart}
		b := fr.withHeader()
		if h := DecodeVNetHdr(b); int(h.HdrLen) > len(frame) || h.Flags&^VNetNeedsCsum != 0 {
			t.Errorf("header %+v of a frame of %d octets", h, len(frame))
		}
		if !bytes.Equal(b[VNetHdrLen:], frame) {
			t.Error("frame changed")
		}
	})
}

func TestHeaderLen(t *testing.T) {
	tcp := make([]byte, 4000)
	tcp[34+12] = 8 << 4 // 32 octets: timestamps
	for _, c := range []struct {
		name  string
		h     VNetHdr
		frame []byte
		want  uint16
	}{
		{"tcp", VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOTCPv4, HdrLen: 4000, CsumStart: 34}, tcp, 66},
		{"tcp with ECN", VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOTCPv4 | GSOECN, HdrLen: 4000, CsumStart: 34}, tcp, 66},
		{"udp", VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOUDPL4, HdrLen: 4000, CsumStart: 34}, tcp, 42},
		{"checksum done", VNetHdr{GSOType: GSOTCPv4, HdrLen: 54, CsumStart: 34}, tcp, 54},
		{"checksum done, whole frame linear", VNetHdr{GSOType: GSOTCPv4, HdrLen: 4000}, tcp, maxHdrLen},
		{"start beyond the end", VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOTCPv4, HdrLen: 90, CsumStart: 100}, tcp[:80], 80},
		{"options beyond the end", VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOTCPv4, HdrLen: 54, CsumStart: 34}, tcp[:60], 54},
	} {
		if got := c.h.headerLen(c.frame); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// newFrame returns a frame of its own memory with headroom.
func newFrame(b []byte) *Frame {
	buf := make([]byte, Headroom+len(b))
	copy(buf[Headroom:], b)
	return &Frame{Buf: buf, Start: Headroom, End: len(buf)}
}
