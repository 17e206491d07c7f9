package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitReadable polls a port as a worker does; false if nothing came in time.
func waitReadable(t testing.TB, p Port, timeout time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(timeout.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}

func newTestSender(t testing.TB, p Port) Sender {
	t.Helper()
	s, err := p.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPairCarriesFrames(t *testing.T) {
	a, b := NewPair(PairOptions{})
	defer a.Close()
	defer b.Close()
	if waitReadable(t, b, 0) {
		t.Error("readable while empty")
	}
	f := newFrame(bytes.Repeat([]byte("frame"), 9000))
	f.VNet = VNetHdr{Flags: VNetNeedsCsum, GSOType: GSOTCPv6, GSOSize: 1440, CsumStart: 54, CsumOffset: 16}
	if n, err := newTestSender(t, a).Send([]*Frame{f}); n != 1 || err != nil {
		t.Fatalf("Send: %d, %v", n, err)
	}
	if waitReadable(t, a, 0) || !waitReadable(t, b, 0) {
		t.Error("the wrong end is readable")
	}
	batch := make([]Frame, 4)
	n, err := b.Recv(batch)
	if n != 1 || err != nil {
		t.Fatalf("Recv: %d, %v", n, err)
	}
	if !bytes.Equal(batch[0].Bytes(), f.Bytes()) || batch[0].VNet != f.VNet || batch[0].Start < Headroom {
		t.Errorf("got %d octets at %d, %+v", batch[0].Len(), batch[0].Start, batch[0].VNet)
	}
	b.Release()
	if n, _ := b.Recv(batch); n != 0 || waitReadable(t, b, 0) {
		t.Errorf("after Release: %d frames, or still readable", n)
	}
}

func TestPairDrops(t *testing.T) {
	a, b := NewPollPair(PairOptions{Slots: 4})
	s := newTestSender(t, a)
	f := newFrame([]byte("0123456789abcd"))
	if n, err := s.Send(slices.Repeat([]*Frame{f}, 7)); n != 4 || err != nil {
		t.Errorf("Send of 7 into 4 slots: %d, %v", n, err)
	}
	if got := b.Stats().RxDropped; got != 3 {
		t.Errorf("dropped %d, want 3", got)
	}
	batch := make([]Frame, 8)
	if n, _ := b.Recv(batch); n != 4 {
		t.Errorf("received %d, want 4", n)
	}
	if n, _ := s.Send([]*Frame{f}); n != 0 {
		t.Error("a frame that is held was overwritten")
	}
	b.Release()
	long := newFrame(make([]byte, MaxFrame+1))
	if n, err := s.Send([]*Frame{long, f}); n != 1 || !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too long, then good: %d, %v", n, err)
	}
	b.Close()
	if n, err := s.Send([]*Frame{f}); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("to a closed end: %d, %v", n, err)
	}
}

// TestPairConcurrent runs both ends in goroutines of their own, with two
// senders, and expects every frame whole, in order of its sender, and counted.
func TestPairConcurrent(t *testing.T) {
	const senders, each = 2, 5000
	a, b := NewPair(PairOptions{Slots: 64})
	defer a.Close()
	defer b.Close()
	var wg sync.WaitGroup
	var sent [senders]int
	for id := range senders {
		s := newTestSender(t, a)
		wg.Go(func() {
			for i := 0; i < each; i += 8 {
				var batch []*Frame
				for j := range 8 {
					payload := binary.BigEndian.AppendUint32([]byte{byte(id)}, uint32(i+j))
					batch = append(batch, newFrame(bytes.Repeat(payload, 20)))
				}
				n, _ := s.Send(batch)
				sent[id] += n
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var got [senders]int
	last := [senders]int{-1, -1}
	batch := make([]Frame, 16)
	for finished := false; ; {
		n, _ := b.Recv(batch)
		for i := range batch[:n] {
			p := batch[i].Bytes()
			id, seq := int(p[0]), int(binary.BigEndian.Uint32(p[1:]))
			if !bytes.Equal(p, bytes.Repeat(p[:5], 20)) || seq <= last[id] {
				t.Fatalf("sender %d: frame % x after %d", id, p[:10], last[id])
			}
			last[id] = seq
			got[id]++
		}
		b.Release()
		if n > 0 {
			continue
		}
		if finished {
			break
		}
		select {
		case <-done:
			finished = true
		default:
			waitReadable(t, b, time.Millisecond)
		}
	}
	total := uint64(got[0]+got[1]) + b.Stats().RxDropped
	if got != sent || total != senders*each {
		t.Errorf("sent %v, received %v, with drops %d of %d", sent, got, total, senders*each)
	}
}

// testAllocs expects no allocation for a frame sent on from and received on to.
func testAllocs(t *testing.T, from, to Port, f *Frame) {
	t.Helper()
	s := newTestSender(t, from)
	frames := slices.Repeat([]*Frame{f}, 8)
	batch := make([]Frame, BatchSize)
	received := 0
	allocs := testing.AllocsPerRun(100, func() {
		s.Send(frames)
		n, _ := to.Recv(batch)
		received += n
		to.Release()
		to.Recv(batch)
		to.Release()
	})
	if allocs != 0 || received == 0 {
		t.Errorf("%v allocations per round, %d frames received", allocs, received)
	}
}

func TestPairAllocs(t *testing.T) {
	a, b := NewPair(PairOptions{})
	defer a.Close()
	defer b.Close()
	testAllocs(t, a, b, newFrame(make([]byte, 60)))
}

func BenchmarkPair(b *testing.B) {
	for _, size := range []int{60, 1514, 64000} {
		b.Run(byteName(size), func(b *testing.B) {
			p, q := NewPollPair(PairOptions{})
			benchLoop(b, p, q, testFrame(size))
		})
	}
}

// benchLoop sends and receives b.N frames in batches of 32.
func benchLoop(b *testing.B, from, to Port, f *Frame) {
	s := newTestSender(b, from)
	frames := slices.Repeat([]*Frame{f}, 32)
	batch := make([]Frame, BatchSize)
	b.SetBytes(int64(f.Len()))
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(frames) {
		if _, err := s.Send(frames); err != nil {
			b.Fatal(err)
		}
		if _, err := to.Recv(batch); err != nil {
			b.Fatal(err)
		}
		to.Release()
	}
}
