package port

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// segmentOf is a frame with a TCP or UDP packet in it, its checksum field 0,
// and where that stands.
func segmentOf(tags int, v6 bool, options []byte, proto byte, payload int) (b []byte, l4, field int) {
	b = []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1}
	for i := range tags {
		b = append(b, 0x81, 0, 0, byte(i+100))
	}
	transport := make([]byte, 20)
	transport[12], field = 0x50, 16
	if proto == 17 {
		transport, field = make([]byte, 8), 6
		binary.BigEndian.PutUint16(transport[4:], uint16(8+payload))
	}
	transport[1], transport[3] = 80, 81
	for i := range payload {
		transport = append(transport, byte(i*11))
	}
	if v6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(options)+len(transport)))
		next := proto
		if len(options) > 0 {
			options = slices.Clone(options)
			next, options[0] = 0, proto
		}
		b = append(b, next, 64)
		b = append(b, bytes.Repeat([]byte{0x20, 1, 0xd, 0xb8}, 8)...)
	} else {
		b = append(b, 8, 0, 0x45+byte(len(options)/4), 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(options)+len(transport)))
		b = append(b, 0, 1, 0x40, 0, 64, proto, 0, 0, 192, 0, 2, 1, 198, 51, 100, 200)
	}
	b = append(b, options...)
	l4 = len(b)
	return append(b, transport...), l4, field
}

// pseudo is the sum that a stack leaves in the field for its device.
func pseudo(b []byte, l4 int, v6 bool, proto byte, options int) uint16 {
	addresses := b[l4-options-8 : l4-options]
	if v6 {
		addresses = b[l4-options-32 : l4-options]
	}
	return wordSum(addresses, uint32(proto)+uint32(len(b)-l4))
}

// wordSum is the one's complement sum of 16-bit words (RFC 1071), word by word.
func wordSum(b []byte, sum uint32) uint16 {
	for i, octet := range b {
		sum += uint32(octet) << (8 * uint(1-i%2))
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}

func TestOpenChecksum(t *testing.T) {
	for _, proto := range []byte{6, 17} {
		for _, v6 := range []bool{false, true} {
			for _, options := range [][]byte{nil, make([]byte, 8)} {
				for tags := range 3 {
					for payload := range 40 {
						b, l4, field := segmentOf(tags, v6, options, proto, payload)
						binary.BigEndian.PutUint16(b[l4+field:], pseudo(b, l4, v6, proto, len(options)))
						want := VNetHdr{Flags: VNetNeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(field)}
						if got := openChecksum(b); got != want {
							t.Fatalf("open, %d tags, IPv6 %v, protocol %d, %d octets: %+v, want %+v", tags, v6, proto, payload, got, want)
						}
						if padded := append(bytes.Clone(b), 0, 0, 0); openChecksum(padded) != want {
							t.Fatal("padding counts")
						}
						finishChecksum(b, &want)
						if sum := wordSum(b[l4:], uint32(pseudo(b, l4, v6, proto, len(options)))); sum != 0xffff {
							t.Fatalf("finished wrongly: the sum is %#x", sum)
						}
						if got := openChecksum(b); got != (VNetHdr{}) {
							t.Fatalf("finished: %+v", got)
						}
						b[len(b)-1] ^= 1
						if got := openChecksum(b); got != (VNetHdr{}) {
							t.Fatalf("wrong, but not open: %+v", got)
						}
					}
				}
			}
		}
	}
}

// TestOpenChecksumByChance: a right checksum that equals the pseudo-header's sum
// is left alone, as it is with a payload that sums up to nothing.
func TestOpenChecksumByChance(t *testing.T) {
	b, l4, field := segmentOf(1, false, nil, 17, 2)
	// The sum over all is field + pseudo + rest, to be 0xffff with field = pseudo.
	sum := pseudo(b, l4, false, 17, 0)
	binary.BigEndian.PutUint16(b[l4+field:], sum)
	payload := b[len(b)-2:]
	payload[0], payload[1] = 0, 0
	binary.BigEndian.PutUint16(payload, ^wordSum(b[l4:], uint32(sum)))
	if got := openChecksum(b); got != (VNetHdr{}) {
		t.Errorf("a finished checksum was taken for an open one: %+v", got)
	}
}

// TestOpenChecksumOfSCTP: a CRC is nothing that we finish.
func TestOpenChecksumOfSCTP(t *testing.T) {
	f := testFrame(100)
	f.VNet = VNetHdr{Flags: VNetNeedsCsum, CsumStart: 34, CsumOffset: 8}
	if new(burstSender).takes(f) || new(xskSender).takes(f) {
		t.Error("it would get a sum of words in its place")
	}
	f.VNet.CsumOffset = 6 // UDP's
	if !new(burstSender).takes(f) || !new(xskSender).takes(f) {
		t.Error("one of UDP is not taken")
	}
}

// FuzzOpenChecksum: whatever the octets, what is found lies in the frame, and is
// found no more once it is finished.
func FuzzOpenChecksum(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, proto := range []byte{6, 17} {
			b, l4, field := segmentOf(1, v6, make([]byte, 8), proto, 9)
			binary.BigEndian.PutUint16(b[l4+field:], pseudo(b, l4, v6, proto, 8))
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxFrame {
			return
		}
		h := openChecksum(b)
		if h == (VNetHdr{}) {
			return
		}
		if !h.canFinish(len(b)) {
			t.Fatalf("%+v of %d octets", h, len(b))
		}
		finishChecksum(b, &h)
	})
}
