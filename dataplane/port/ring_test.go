package port

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fakeStride is the size of its slots.
var fakeStride = strideFor(MaxFrame)

// fakeRing is a ring in our own memory; deliver plays the kernel.
func fakeRing(slots int) *rxRing {
	mem := make([]byte, slots*fakeStride)
	r := &rxRing{stride: fakeStride}
	for i := range slots {
		r.slots = append(r.slots, (*unix.Tpacket2Hdr)(unsafe.Pointer(&mem[i*fakeStride])))
	}
	return r
}

func deliver(h *unix.Tpacket2Hdr, length int, status uint32, tpid, tci uint16) {
	h.Len, h.Snaplen = uint32(length), uint32(min(length, fakeStride-slotMacOff))
	h.Mac, h.Net = slotMacOff, slotMacOff+14
	h.Vlan_tpid, h.Vlan_tci = tpid, tci
	atomic.StoreUint32(&h.Status, status|unix.TP_STATUS_USER)
}

func TestRingWrapsAround(t *testing.T) {
	r := fakeRing(4)
	batch := make([]Frame, 3)
	in, out := 0, 0
	for range 50 {
		for range 2 {
			deliver(r.slots[in%4], 60+in, 0, 0, 0)
			in++
		}
		n := r.take(batch)
		for i := range batch[:n] {
			if batch[i].Len() != 60+out {
				t.Fatalf("frame %d has %d octets, want %d", out, batch[i].Len(), 60+out)
			}
			out++
		}
		r.release(r.held)
	}
	if out != in {
		t.Errorf("took %d of %d frames", out, in)
	}
	for i, h := range r.slots {
		if h.Status != unix.TP_STATUS_KERNEL {
			t.Errorf("slot %d was not given back", i)
		}
	}
}

func TestRingGivesBackNoMoreThanIsOut(t *testing.T) {
	r := fakeRing(3)
	batch := make([]Frame, 3)
	for i := range 6 {
		deliver(r.slots[i%3], 60+i, 0, 0, 0)
		if n := r.take(batch); n != 1 || batch[0].Len() != 60+i {
			t.Fatalf("took %d frames, one of %d octets, want that of %d", n, batch[0].Len(), 60+i)
		}
		r.release(3)
	}
}

func TestRingMetadata(t *testing.T) {
	const valid, tpidValid = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	for _, c := range []struct {
		name      string
		length    int
		status    uint32
		tpid, tci uint16
		wantTPID  uint16
		wantTCI   uint16
		truncated bool
	}{
		{name: "untagged, stale words", length: 60, tpid: 0x8100, tci: 5},
		{name: "tagged", length: 60, status: valid | tpidValid, tpid: 0x88a8, tci: 100, wantTPID: 0x88a8, wantTCI: 100},
		{name: "TCI 0", length: 60, status: valid | tpidValid, tpid: 0x8100, wantTPID: 0x8100},
		{name: "TPID not told", length: 60, status: valid, tpid: 0x1234, tci: 7, wantTPID: 0x8100, wantTCI: 7},
		{name: "losing", length: 60, status: unix.TP_STATUS_LOSING},
		{name: "longest", length: MaxFrame},
		{name: "too long", length: 100_000, truncated: true},
	} {
		r := fakeRing(1)
		deliver(r.slots[0], c.length, c.status, c.tpid, c.tci)
		batch := make([]Frame, 2)
		if n := r.take(batch); n != 1 {
			t.Fatalf("%s: took %d", c.name, n)
		}
		f := &batch[0]
		if f.OuterTPID != c.wantTPID || f.OuterTCI != c.wantTCI || f.Truncated != c.truncated {
			t.Errorf("%s: tag %04x %d, truncated %v", c.name, f.OuterTPID, f.OuterTCI, f.Truncated)
		}
		if f.Start < Headroom || !c.truncated && f.Len() != c.length {
			t.Errorf("%s: %d octets at %d", c.name, f.Len(), f.Start)
		}
	}
}
