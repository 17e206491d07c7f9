package port

import (
	"encoding/binary"
	"testing"
	"time"
)

// numberedFrames is n frames, short and long in turn, each with its number at the end.
func numberedFrames(n int, long ...int) []*Frame {
	var frames []*Frame
	for i := range n {
		f := testFrame(60)
		if i%3 > 0 {
			f = superframe(long[i%len(long)])
		}
		binary.BigEndian.PutUint32(f.Buf[f.End-4:], uint32(i))
		frames = append(frames, f)
	}
	return frames
}

// TestPacketLongFramesInOrder: long frames and short ones come in the order in which
// they were sent, whole, and stay so until they are given back, whatever comes meanwhile.
func TestPacketLongFramesInOrder(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1"})
	const total = 5 * longBuffers
	frames := numberedFrames(total, 60000, 5000)
	if n, err := from.Send(frames); n != total || err != nil {
		t.Fatalf("Send: %d, %v", n, err)
	}
	var out []Frame
	next := 0
	release := func(n int) {
		for i := range out[:n] {
			f, want := &out[i], frames[next]
			if f.Truncated || f.Len() != want.Len() || f.VNet.GSOSize != want.VNet.GSOSize {
				t.Fatalf("frame %d: %d octets, %+v, truncated %v; sent %d octets", next, f.Len(), f.VNet, f.Truncated, want.Len())
			}
			if got := binary.BigEndian.Uint32(f.Buf[f.End-4:]); got != uint32(next) {
				t.Fatalf("frame %d where %d was to be", got, next)
			}
			next++
		}
		to.ReleaseOldest(n)
		out = out[n:]
	}
	batch := make([]Frame, 20)
	for next < total {
		if len(out) == 0 && !waitReadable(t, to, 2*time.Second) {
			t.Fatalf("%d of %d frames came", next, total)
		}
		n, err := to.Recv(batch)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, batch[:n]...)
		if n == 0 && len(out) > 0 && !to.More() && next+len(out) < total {
			t.Fatalf("%d frames out, no more told of, and %d still to come", len(out), total-next-len(out))
		}
		release((len(out) + 1) / 2)
	}
	if waitReadable(t, to, 50*time.Millisecond) {
		t.Error("readable with all taken")
	}
}

// TestPacketLongFramesOverload: of more long frames than may wait the last are
// truncated, and said to be; after that the port works as before.
func TestPacketLongFramesOverload(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1"})
	long := superframe(60000)
	for range 3 * longWaiting / 60000 {
		if n, err := from.Send([]*Frame{long}); n != 1 || err != nil {
			t.Fatalf("Send: %d, %v", n, err)
		}
	}
	got := collect(t, to, 1<<20)
	whole := 0
	for whole < len(got) && !got[whole].Truncated {
		whole++
	}
	if whole*long.Len() < longWaiting || whole == len(got) || len(got) != 3*longWaiting/60000 {
		t.Errorf("%d frames came, %d of them whole", len(got), whole)
	}
	for _, f := range got[whole:] {
		if !f.Truncated {
			t.Error("a whole frame behind those that had no room")
			break
		}
	}
	if n, err := from.Send([]*Frame{long}); n != 1 || err != nil {
		t.Fatalf("Send: %d, %v", n, err)
	}
	recvOne(t, to, func(f *Frame) {
		if f.Truncated || f.Len() != long.Len() {
			t.Errorf("%d octets, truncated %v", f.Len(), f.Truncated)
		}
	})
}
