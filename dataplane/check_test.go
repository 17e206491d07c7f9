package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"

	"msee/dataplane/gso"
	"msee/dataplane/port"
)

// TestPlainPacketsCheckAsAll: what passes at once is what passes in full, and nothing else.
func TestPlainPacketsCheckAsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	passed, refused := 0, map[Verdict]int{}
	for range 100_000 {
		const length = 64
		f := port.Frame{Buf: make([]byte, port.Headroom+length), Start: port.Headroom, End: port.Headroom + 14 + 16 + r.IntN(length-14-16+1)}
		b := f.Buf[f.Start+14:]
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		b[0], b[12], b[16] = 0x45, 10, 10
		binary.BigEndian.PutUint16(b[2:], uint16(f.Len()-14-r.IntN(3)))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^gso.Fold(gso.Sum(b[:minIPv4], 0)))
		switch r.IntN(12) { // a wrong octet, with the right checksum or not
		case 0, 1:
			b[r.IntN(minIPv4)] = byte(r.Uint32())
		case 2, 3:
			b[r.IntN(minIPv4)] = byte(r.Uint32())
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^gso.Fold(gso.Sum(b[:minIPv4], 0)))
		case 4:
			f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: uint16(r.IntN(length)), CsumOffset: 6}
		case 5:
			f.VNet = port.VNetHdr{GSOType: port.GSOUDPL4, GSOSize: uint16(r.IntN(20))}
		}
		full := f
		p := packet{Frame: &full, l3: f.Start + 14, etherType: etherTypeIPv4}
		p.verdict = checkOne(&p)
		ps := []packet{{Frame: &f, l3: f.Start + 14, etherType: etherTypeIPv4}}
		check(ps)
		if got := ps[0]; got.verdict != p.verdict || got.verdict == proceed && (got.End != p.End || got.headerLen != p.headerLen || got.dst != p.dst) {
			t.Fatalf("% x, %+v: %v to %x, header %d, end %d; in full %v to %x, %d, %d", b[:minIPv4], f.VNet,
				got.verdict, got.dst, got.headerLen, got.End, p.verdict, p.dst, p.headerLen, p.End)
		}
		if refused[p.verdict]++; p.verdict == proceed {
			passed++
		}
	}
	if passed < 50_000 || refused[DropChecksum] < 1000 || refused[DropMalformed] < 1000 || refused[DropMartian] < 50 {
		t.Errorf("%d passed, refused were %v", passed, refused)
	}
}

// TestOneLineOfTheCache: frames and what is known of them have one each.
func TestOneLineOfTheCache(t *testing.T) {
	if unsafe.Sizeof(int(0)) != 8 {
		t.Skip("for 64-bit processors")
	}
	if f, p := unsafe.Sizeof(port.Frame{}), unsafe.Sizeof(packet{}); f != 64 || p != 64 {
		t.Errorf("a port.Frame has %d octets, a packet %d: want 64", f, p)
	}
}
