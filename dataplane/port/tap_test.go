package port

import (
	"bytes"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func testTap(t testing.TB, ns, name string) *Tap {
	t.Helper()
	var p *Tap
	in(t, ns, func() (err error) {
		if unix.Access("/dev/net/tun", unix.R_OK) != nil {
			return nil
		}
		p, err = OpenTap(TapConfig{Name: name})
		return err
	})
	if p == nil {
		t.Skip("no /dev/net/tun")
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestTapBothWays connects a TAP to the packet port on the same device: what
// one sends the other receives, superframes and tags included.
func TestTapBothWays(t *testing.T) {
	ns := testNS(t, "a")
	tap := testTap(t, ns, "tap0")
	host := testPacket(t, ns, PacketConfig{Device: "tap0"})
	if tap.MAC() == host.MAC() || tap.MAC()[0]&3 != 2 || tap.Name() != "tap0" {
		t.Errorf("tap is %s %x, device %x; want an address of its own", tap.Name(), tap.MAC(), host.MAC())
	}
	drain(tap)
	in(t, ns, func() error { // up since OpenTap: no frames of the host's own from here
		link, err := netlink.LinkByName("tap0")
		if err == nil && link.Attrs().OperState != netlink.OperUp && link.Attrs().RawFlags&unix.IFF_UP == 0 {
			t.Error("the device is not up")
		}
		return err
	})
	fromTap, fromHost := newTestSender(t, tap), newTestSender(t, host)
	for _, f := range []*Frame{testFrame(60), testFrame(1514), superframe(60000), superframe(60000, 0x81000064, 0x810000c8)} {
		if n, err := fromHost.Send([]*Frame{f}); n != 1 || err != nil {
			t.Fatalf("Send to tap: %d, %v", n, err)
		}
		recvFrame(t, tap, f)
		if n, err := fromTap.Send([]*Frame{f}); n != 1 || err != nil {
			t.Fatalf("Send from tap: %d, %v", n, err)
		}
		recvFrame(t, host, f)
	}
}

// recvFrame expects want among the next frames; the host may send some itself.
func recvFrame(t *testing.T, p Port, want *Frame) {
	t.Helper()
	batch := make([]Frame, 8)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		waitReadable(t, p, 100*time.Millisecond)
		n, err := p.Recv(batch)
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch[:n] {
			f := &batch[i]
			got := bytes.Clone(f.Bytes())
			if f.OuterTPID != 0 { // put it back inline
				got = append(got[:12:12], append([]byte{byte(f.OuterTPID >> 8), byte(f.OuterTPID),
					byte(f.OuterTCI >> 8), byte(f.OuterTCI)}, got[12:]...)...)
				f.VNet.CsumStart += 4
			}
			if bytes.Equal(got, want.Bytes()) {
				if f.VNet.GSOType != want.VNet.GSOType || f.VNet.GSOSize != want.VNet.GSOSize ||
					want.VNet.Flags != 0 && f.VNet.CsumStart != want.VNet.CsumStart || f.Start < Headroom {
					t.Errorf("got %+v at %d, want %+v", f.VNet, f.Start, want.VNet)
				}
				p.Release()
				return
			}
		}
		p.Release()
	}
	t.Errorf("%s did not receive the frame of %d octets", p.Name(), want.Len())
}

func drain(p Port) {
	batch := make([]Frame, BatchSize)
	for n := 1; n > 0; {
		n, _ = p.Recv(batch)
		p.Release()
	}
}

// TestTapMore: a Recv that has read as many frames as it may says that there may be more.
func TestTapMore(t *testing.T) {
	ns := testNS(t, "a")
	tap := testTap(t, ns, "")
	host := newTestSender(t, testPacket(t, ns, PacketConfig{Device: tap.Name(), RingFrames: 8}))
	frames := make([]*Frame, tapBatch)
	for i := range frames {
		frames[i] = testFrame(60)
	}
	if n, err := host.Send(frames); n != len(frames) || err != nil {
		t.Fatalf("Send to tap: %d, %v", n, err)
	}
	batch := make([]Frame, BatchSize)
	if n, err := tap.Recv(batch); n != tapBatch || err != nil || !tap.More() {
		t.Errorf("of %d frames: %d, %v, more %v", len(frames), n, err, tap.More())
	}
	tap.Release()
	for tap.More() { // the host may have said something itself
		if _, err := tap.Recv(batch); err != nil {
			t.Fatal(err)
		}
		tap.Release()
	}
}

func TestTapOverload(t *testing.T) {
	ns := testNS(t, "a")
	tap := testTap(t, ns, "")
	host := newTestSender(t, testPacket(t, ns, PacketConfig{Device: tap.Name(), RingFrames: 8}))
	for range 10 {
		frames := make([]*Frame, BatchSize)
		for i := range frames {
			frames[i] = testFrame(60)
		}
		host.Send(frames)
	}
	if got := tap.Stats().RxDropped; got == 0 {
		t.Error("2560 frames unread and none counted as dropped")
	}
	if n, err := tap.Recv(make([]Frame, BatchSize)); n != tapBatch || err != nil {
		t.Errorf("Recv: %d, %v; want %d", n, err, tapBatch)
	}
}

func TestTapDeviceRemoved(t *testing.T) {
	ns := testNS(t, "a")
	tap := testTap(t, ns, "tap0")
	s := newTestSender(t, tap)
	in(t, ns, func() error {
		return netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}})
	})
	if n, err := tap.Recv(make([]Frame, 1)); n != 0 || err == nil {
		t.Errorf("Recv: %d, %v; want an error", n, err)
	}
	if n, err := s.Send([]*Frame{testFrame(60)}); n != 0 || err == nil {
		t.Errorf("Send: %d, %v; want an error", n, err)
	}
}

func TestTapAllocs(t *testing.T) {
	ns := testNS(t, "a")
	tap := testTap(t, ns, "tap0")
	host := testPacket(t, ns, PacketConfig{Device: "tap0"})
	testAllocs(t, tap, host, testFrame(60))
	testAllocs(t, host, tap, superframe(60000))
}
