package port

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// numbered returns a frame that says which it is, in its middle and at its end.
func numbered(i, size int) *Frame {
	f := testFrame(size)
	b := f.Bytes()
	binary.BigEndian.PutUint32(b[size/2:], uint32(i))
	binary.BigEndian.PutUint32(b[size-4:], uint32(i))
	return f
}

// arrived reads n frames of a socket and returns the numbers they end with.
func arrived(far, n int) (got []int) {
	buf := make([]byte, 10000)
	for range n {
		size, err := unix.Read(far, buf)
		if err != nil {
			break
		}
		got = append(got, int(binary.BigEndian.Uint32(buf[size-4:])))
	}
	return got
}

// TestTxRingCopies sends each slot's frame several times over while the far end
// has read none: a slot must not travel itself, and no frame may overtake
// another, small or not.
func TestTxRingCopies(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	sender := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	far := rawSocket(t, b, "far0")
	if err := unix.SetsockoptInt(far, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
		t.Fatal(err)
	}
	testMTU(t, 9000, map[string]string{a: "dev0", b: "far0"})
	const total = 3 * txSlots
	sizes := []int{64, txFrameMax, txFrameMax + 1, 300, 1514, 9000}
	size := func(i int) int { return sizes[i/7%len(sizes)] } // in runs
	var batch []*Frame
	for i := range total {
		batch = append(batch, numbered(i, size(i)))
		if len(batch) == BatchSize || i == total-1 {
			if n, err := sender.Send(batch); n != len(batch) || err != nil {
				t.Fatalf("Send: %d of %d, %v", n, len(batch), err)
			}
			batch = batch[:0]
		}
	}
	got := make([]byte, 10000)
	for i := range total {
		n, err := unix.Read(far, got)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if want := numbered(i, size(i)).Bytes(); !bytes.Equal(got[:n], want) {
			t.Fatalf("frame %d: got %d octets, number %d; want %d octets", i, n, binary.BigEndian.Uint32(got[n-4:]), len(want))
		}
	}
}

// TestTxRingRefused makes the kernel refuse frames in the middle of what was
// put into the ring, and all: the others leave, and the ring goes on.
func TestTxRingRefused(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	far := rawSocket(t, b, "far0")
	var r *txRing
	in(t, a, func() (err error) { r, err = openTxRing(p.ifindex); return err })
	t.Cleanup(func() { r.close() })
	frames := func(from, n int) (out []*Frame) {
		for i := range n {
			out = append(out, numbered(from+i, 100))
		}
		return out
	}
	expect := func(numbers ...int) {
		t.Helper()
		if got := arrived(far, len(numbers)); !slices.Equal(got, numbers) {
			t.Errorf("frames %v arrived, want %v", got, numbers)
		}
	}

	// Passed over, as one for which the device has no room.
	for _, f := range frames(0, 3) {
		r.put(f)
	}
	r.slot(r.next + 1).Len = txSlot
	if n, more, errno := r.flush(); n != 3 || !more || errno != 0 { // flush does not know of this one
		t.Errorf("flush: %d, %v, %v", n, more, errno)
	}
	expect(0, 2)

	in(t, a, func() error { return setUp("dev0", false) })
	for range 3 { // more than once: what was refused is not kept
		if n, more, errno := r.send(frames(10, 200)); n != 0 || more || errno != unix.ENETDOWN {
			t.Errorf("send by a device that is down: %d, %v, %v", n, more, errno)
		}
	}
	in(t, a, func() error { return setUp("dev0", true) })
	if n, more, errno := r.send(frames(500, txSlots+3)); n != txSlots+3 || !more || errno != 0 {
		t.Errorf("send after that: %d, %v, %v", n, more, errno)
	}
	expect(500, 501, 502)
}
