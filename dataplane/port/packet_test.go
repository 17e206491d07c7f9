package port

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// recvOne waits for exactly one frame and hands it to check before release.
func recvOne(t *testing.T, p Port, check func(f *Frame)) {
	t.Helper()
	batch := make([]Frame, 8)
	for range 3 {
		if !waitReadable(t, p, 2*time.Second) {
			t.Fatal("no frame came")
		}
		n, err := p.Recv(batch)
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			check(&batch[0])
		} else if n > 1 {
			t.Errorf("%d frames came, want 1", n)
		}
		p.Release()
		if n > 0 {
			return
		}
	}
	t.Fatal("readable without a frame")
}

// collect receives until it has want frames, or none comes any more, and
// returns their descriptions; the octets are gone.
func collect(t *testing.T, p Port, want int) []Frame {
	t.Helper()
	var all []Frame
	batch := make([]Frame, 7)
	for len(all) < want && waitReadable(t, p, 300*time.Millisecond) {
		n, err := p.Recv(batch)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, batch[:n]...)
		p.Release()
	}
	return all
}

func TestPacketPlainFrame(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	far := rawSocket(t, b, "far0")
	if p.Name() != "dev0" || p.MAC() == (MAC{}) {
		t.Errorf("name %q, MAC %x", p.Name(), p.MAC())
	}

	want := testFrame(200)
	if _, err := unix.Write(far, want.Bytes()); err != nil {
		t.Fatal(err)
	}
	recvOne(t, p, func(f *Frame) {
		if !bytes.Equal(f.Bytes(), want.Bytes()) || f.OuterTPID != 0 || f.Truncated {
			t.Errorf("got % x, tag %x, truncated %v", f.Bytes(), f.OuterTPID, f.Truncated)
		}
		if f.Start < Headroom {
			t.Errorf("headroom is %d, want %d", f.Start, Headroom)
		}
	})
	if n, err := newTestSender(t, p).Send([]*Frame{want}); n != 1 || err != nil {
		t.Fatalf("Send: %d, %v", n, err)
	}
	got := make([]byte, 300)
	if n, err := unix.Read(far, got); err != nil || !bytes.Equal(got[:n], want.Bytes()) {
		t.Errorf("far end got % x, %v", got[:max(n, 0)], err)
	}
	if n, _ := p.Recv(make([]Frame, 1)); n != 0 {
		t.Error("received what we sent ourselves")
	}
}

// TestPacketTags sends inline tags and superframes between two packet ports:
// the outer tag is out of band, the rest as it was.
func TestPacketTags(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1", RingFrames: 40})
	for _, tags := range [][]uint32{
		{0x81000064},             // Dot1Q
		{0x81000000},             // priority tag: TCI 0 is a tag
		{0x81002064, 0x810000c8}, // QinQ as Azure does it
		{0x88a80064, 0x810000c8}, // QinQ by IEEE 802.1ad
	} {
		for _, payload := range []int{100, 60000} {
			t.Run(fmt.Sprintf("%x/%d", tags, payload), func(t *testing.T) {
				f := superframe(payload, tags...)
				if payload < 1400 {
					f.VNet.GSOType, f.VNet.GSOSize = GSONone, 0
				}
				want := slices.Delete(bytes.Clone(f.Bytes()), 12, 16)
				if n, err := from.Send([]*Frame{f}); n != 1 || err != nil {
					t.Fatalf("Send: %d, %v", n, err)
				}
				recvOne(t, to, func(g *Frame) {
					if tag := uint32(g.OuterTPID)<<16 | uint32(g.OuterTCI); tag != tags[0] {
						t.Errorf("outer tag %08x, want %08x", tag, tags[0])
					}
					if !bytes.Equal(g.Bytes(), want) {
						t.Errorf("got %d octets % x, want %d", g.Len(), g.Bytes()[:20], len(want))
					}
					if g.VNet.GSOType != f.VNet.GSOType || g.VNet.GSOSize != f.VNet.GSOSize ||
						g.VNet.CsumStart != f.VNet.CsumStart-4 || g.VNet.CsumOffset != 16 {
						t.Errorf("got %+v from %+v", g.VNet, f.VNet)
					}
				})
			})
		}
	}
}

// TestPacketSegmentsForDevice: a device without segmentation offload gets the
// superframe as segments, not dropped.
func TestPacketSegmentsForDevice(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1", RingFrames: 64})
	in(t, a, func() error { return ethtoolSet("dev0", unix.ETHTOOL_STSO, 0) })
	if n, err := from.Send([]*Frame{superframe(14000)}); n != 1 || err != nil {
		t.Fatalf("Send: %d, %v", n, err)
	}
	got := collect(t, to, 10)
	if len(got) != 10 || got[0].VNet.GSOType != GSONone {
		t.Errorf("%d frames, want 10 segments without GSO", len(got))
	}
}

// TestPacketBadFrameSparesOthers: what the kernel refuses is skipped.
func TestPacketBadFrameSparesOthers(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1", RingFrames: 8})
	noSize := superframe(5000)
	noSize.VNet.GSOSize = 0
	n, err := from.Send([]*Frame{testFrame(60), testFrame(9000), testFrame(61), noSize, testFrame(62)})
	if n != 3 || !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("Send: %d, %v; want 3 and EMSGSIZE", n, err)
	}
	got := collect(t, to, 3)
	if len(got) != 3 || got[0].Len() != 60 || got[1].Len() != 61 || got[2].Len() != 62 {
		t.Errorf("received %d frames, want those of 60, 61 and 62 octets", len(got))
	}
}

func TestPacketOverload(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testPacket(t, b, PacketConfig{Device: "dev1", RingFrames: 8})
	slots := len(to.ring.slots)
	frames := slices.Repeat([]*Frame{testFrame(60)}, slots+10)
	for round := range 3 { // the ring is usable again after each overflow
		if n, err := from.Send(frames); n != len(frames) || err != nil {
			t.Fatalf("Send: %d, %v", n, err)
		}
		want := uint64(10 * (round + 1))
		for deadline := time.Now().Add(2 * time.Second); to.Stats().RxDropped < want && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		got := len(collect(t, to, slots+1))
		if drops := to.Stats().RxDropped; got != slots || drops != want {
			t.Errorf("round %d: received %d of %d slots, %d dropped", round, got, slots, drops)
		}
	}
}

func TestPacketDeviceDownAndUp(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	s := newTestSender(t, p)
	far := rawSocket(t, b, "far0")
	recvError := func(want error) {
		t.Helper()
		if !waitReadable(t, p, time.Second) { // POLLERR
			t.Fatal("the error does not poll")
		}
		var err error
		for range 2 {
			if _, err = p.Recv(make([]Frame, 1)); err != nil {
				break
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("Recv: %v, want %v", err, want)
		}
		if waitReadable(t, p, 0) {
			t.Error("the error still polls after it was reported")
		}
	}

	in(t, a, func() error { return setUp("dev0", false) })
	recvError(unix.ENETDOWN)
	f := testFrame(60)
	n, err := s.Send([]*Frame{f, f})
	if n != 0 || !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("Send while down: %d, %v", n, err)
	}
	frames := []*Frame{f}
	if allocs := testing.AllocsPerRun(10, func() { s.Send(frames) }); allocs != 0 {
		t.Errorf("Send while down allocates %v times", allocs)
	}

	in(t, a, func() error { return setUp("dev0", true) })
	if _, err := unix.Write(far, f.Bytes()); err != nil {
		t.Fatal(err)
	}
	recvOne(t, p, func(g *Frame) {
		if !bytes.Equal(g.Bytes(), f.Bytes()) {
			t.Errorf("after the device came back: % x", g.Bytes())
		}
	})
	if n, err := s.Send([]*Frame{f}); n != 1 || err != nil {
		t.Errorf("Send after the device came back: %d, %v", n, err)
	}

	in(t, a, func() error {
		return netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "dev0"}})
	})
	recvError(unix.ENODEV)
	if n, err := s.Send([]*Frame{f}); n != 0 || !errors.Is(err, unix.ENXIO) {
		t.Errorf("Send after the device was removed: %d, %v", n, err)
	}
}

func TestPacketRefusals(t *testing.T) {
	ns := testNS(t, "a")
	in(t, ns, func() error {
		for _, cfg := range []PacketConfig{{Device: "nosuch0"}, {Device: "lo", RingFrames: -1}, {Device: "lo", RingFrames: 1 << 20}, {Device: "lo"}} {
			if p, err := OpenPacket(cfg); err == nil {
				t.Errorf("OpenPacket(%+v) succeeded", cfg)
				p.Close()
			}
		}
		return nil
	})
}

func TestPacketAllocs(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	to := testPacket(t, b, PacketConfig{Device: "dev1"})
	testAllocs(t, from, to, testFrame(60))
	testAllocs(t, from, to, superframe(60000))
}

func BenchmarkPacket(b *testing.B) {
	ns1, ns2 := testNS(b, "a"), testNS(b, "b")
	testVeth(b, ns1, "dev0", ns2, "dev1")
	from := testPacket(b, ns1, PacketConfig{Device: "dev0", RingFrames: 8})
	to := testPacket(b, ns2, PacketConfig{Device: "dev1", RingFrames: 64})
	for _, f := range []*Frame{testFrame(60), testFrame(1514), superframe(64000)} {
		b.Run(byteName(f.Len()), func(b *testing.B) { benchLoop(b, from, to, f) })
	}
}

// TestResize: the ring becomes another one while the port is in use; senders stay,
// what arrives goes into the new one, and what does not fit it is truncated.
func TestResize(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	testMTU(t, 9000, map[string]string{a: "dev0", b: "far0"})
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	far := testPacket(t, b, PacketConfig{Device: "far0", RingFrames: 8})
	sender, err := far.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	arrives := func(when string, n int, truncated bool) {
		t.Helper()
		if sent, err := sender.Send([]*Frame{testFrame(n)}); sent != 1 || err != nil {
			t.Fatal(sent, err)
		}
		batch := make([]Frame, 4)
		got, poll := 0, []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}
		for deadline := time.Now().Add(10 * time.Second); got == 0 && time.Now().Before(deadline); {
			unix.Poll(poll, 1000)
			if got, err = p.Recv(batch); err != nil {
				t.Fatal(err)
			}
		}
		defer p.Release()
		if got != 1 || batch[0].Truncated != truncated || !truncated && !bytes.Equal(batch[0].Bytes(), testFrame(n).Bytes()) {
			t.Errorf("%s: %d frames; of %d octets %d, truncated %v", when, got, n, batch[0].Len(), batch[0].Truncated)
		}
	}
	arrives("large slots", 5000, false)
	small := PacketConfig{RingFrames: 4096, MaxFrame: 1550}
	if err := p.Resize(small); err != nil {
		t.Fatal(err)
	}
	if n := len(p.ring.slots); n < 4096 || len(p.ring.mem) > 10<<20 {
		t.Errorf("%d slots in %d octets", n, len(p.ring.mem))
	}
	arrives("small slots", 1550, false)
	arrives("small slots", 5000, true)
	own, err := p.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	own.Close()
	if err := p.Resize(PacketConfig{MaxFrame: 10}); err == nil {
		t.Error("slots of 10 octets were accepted")
	}
	arrives("after what was refused", 1550, false)
	if err := p.Resize(PacketConfig{RingFrames: 8}); err != nil {
		t.Fatal(err)
	}
	arrives("large slots again", 5000, false)
}
