package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needsBursts skips the test where the kernel cannot send bursts, and fails it where a sender
// could and does not.
func needsBursts(t testing.TB, s *packetSender) {
	t.Helper()
	if !kernelBursts() {
		t.Skip("programs of this kernel cannot tell their namespace: bursts need Linux 6.15")
	}
	if s.bursts == nil {
		t.Fatal("no bursts: ", s.WhySingly())
	}
}

// burstPort is a packet port with a sender of bursts and what its far end gets.
func burstPort(t *testing.T) (ns string, p *Packet, s *packetSender, far int) {
	t.Helper()
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	testMTU(t, 9000, map[string]string{a: "dev0", b: "far0"})
	p = testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	s = newTestSender(t, p).(*packetSender)
	needsBursts(t, s)
	far = rawSocket(t, b, "far0")
	if err := unix.SetsockoptInt(far, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
		t.Fatal(err)
	}
	return a, p, s, far
}

// TestBursts: frames of all lengths arrive in order and as they were, some in bursts,
// some not.
func TestBursts(t *testing.T) {
	ns, _, s, far := burstPort(t)
	const total = 300
	sizes := []int{60, burstMax, burstMax + 1, 64, 300, 9000, 1514, burstMin}
	var frames []*Frame
	for i := range total {
		size := sizes[i/(burstLeast+3)%len(sizes)] // in runs
		if i > 200 {
			size = sizes[i%len(sizes)]
		}
		frames = append(frames, numbered(i, size))
	}
	var want [][]byte
	for _, f := range frames {
		want = append(want, slices.Clone(f.Bytes()))
	}
	in(t, ns, func() error {
		if n, err := s.Send(frames); n != total || err != nil {
			return fmt.Errorf("%d of %d sent: %w", n, total, err)
		}
		return nil
	})
	if s.bursts == nil {
		t.Fatal("bursts were given up")
	}
	got := make([]byte, 10000)
	for i := range total {
		n, err := unix.Read(far, got)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(got[:n], want[i]) {
			t.Fatalf("frame %d: got %d octets, number %d; want %d octets", i, n, binary.BigEndian.Uint32(got[n-4:]), len(want[i]))
		}
	}
}

// TestBurstFinishesChecksums: a program's packet cannot say that its checksum is open.
func TestBurstFinishesChecksums(t *testing.T) {
	ns, _, s, far := burstPort(t)
	b, l4, field := segmentOf(0, false, nil, 17, 40)
	var frames []*Frame
	for range burstLeast {
		f := newFrame(slices.Clone(b))
		binary.BigEndian.PutUint16(f.Bytes()[l4+field:], pseudo(b, l4, false, 17, 0))
		f.VNet = VNetHdr{Flags: VNetNeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(field)}
		frames = append(frames, f)
	}
	in(t, ns, func() error {
		n, errno, ok := s.bursts.send(frames, false)
		if n != len(frames) || errno != 0 || !ok {
			return fmt.Errorf("%d sent, %w, %v", n, errno, ok)
		}
		return nil
	})
	for range frames {
		got := make([]byte, 200)
		n, err := unix.Read(far, got)
		if err != nil {
			t.Fatal(err)
		}
		sum := uint32(pseudo(got[:n], l4, false, 17, 0))
		if wordSum(got[l4:n], sum) != 0xffff {
			t.Errorf("checksum %#04x is wrong", got[l4+field:l4+field+2])
		}
	}
	open := frames[0]
	open.VNet.CsumStart = 200
	long := numbered(0, finishMax+1)
	long.VNet = VNetHdr{Flags: VNetNeedsCsum, CsumStart: 34, CsumOffset: 6}
	for _, f := range []*Frame{open, long, superframe(3000), numbered(0, burstMin-1), numbered(0, burstMax+1)} {
		if s.bursts.takes(f) {
			t.Errorf("takes a frame of %d octets, %+v", f.Len(), f.VNet)
		}
	}
}

// TestBurstElsewhere: a thread in another namespace, where the device's index is
// another's, sends nothing so, and everything by the ring.
func TestBurstElsewhere(t *testing.T) {
	_, _, s, far := burstPort(t)
	var frames []*Frame
	var want []int
	for i := range 2 * burstSlots {
		frames, want = append(frames, numbered(i, 100)), append(want, i)
	}
	in(t, testNS(t, "c"), func() error {
		if n, err := s.Send(frames); n != len(frames) || err != nil {
			return fmt.Errorf("%d of %d sent: %w", n, len(frames), err)
		}
		return nil
	})
	if s.bursts != nil {
		t.Error("sent bursts from another namespace")
	}
	if got := arrived(far, len(want)); !slices.Equal(got, want) {
		t.Errorf("frames %v arrived, want %v", got, want)
	}
}

func TestBurstDeviceDown(t *testing.T) {
	ns, _, s, far := burstPort(t)
	in(t, ns, func() error {
		if err := setUp("dev0", false); err != nil {
			return err
		}
		if n, err := s.Send(burstOf(0)); n != 0 || !errors.Is(err, unix.ENETDOWN) {
			t.Errorf("by a device that is down %d left, %v", n, err)
		}
		if err := setUp("dev0", true); err != nil {
			return err
		}
		if n, err := s.Send(burstOf(10)); n != 10 || err != nil {
			t.Errorf("after that %d left, %v", n, err)
		}
		return nil
	})
	if got, want := arrived(far, 10), []int{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}; !slices.Equal(got, want) {
		t.Errorf("frames %v arrived, want %v", got, want)
	}
}

// TestBurstDeviceGone: when the device is removed nothing leaves, not even by another one that
// has got its index, as one may that comes from another namespace.
func TestBurstDeviceGone(t *testing.T) {
	ns, p, s, _ := burstPort(t)
	in(t, ns, func() error {
		dev, err := netlink.LinkByIndex(p.ifindex)
		if err != nil {
			return err
		}
		if err := netlink.LinkDel(dev); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Index = "dev1", p.ifindex
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far1"}); err != nil {
			return err
		}
		for _, dev := range []string{"dev1", "far1"} {
			os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6", []byte("1"), 0) // it would send of its own
			if err := setUp(dev, true); err != nil {
				return err
			}
		}
		for range 2 {
			if n, err := s.Send(burstOf(0)); n != 0 || !errors.Is(err, unix.ENXIO) {
				t.Errorf("%d left, %v", n, err)
			}
		}
		dev, err = netlink.LinkByIndex(p.ifindex)
		if err != nil {
			return err
		}
		if a := dev.Attrs(); a.Name != "dev1" || a.Statistics.TxPackets != 0 {
			t.Errorf("%s got %d frames of ours", a.Name, a.Statistics.TxPackets)
		}
		return nil
	})
}

// burstOf is ten frames, numbered.
func burstOf(from int) (frames []*Frame) {
	for i := range 10 {
		frames = append(frames, numbered(from+i, 100))
	}
	return frames
}

// TestBurstsOfSilentHost: what keeps the host from sending lets our bursts pass, on both
// kinds of ports, and nothing without our mark.
func TestBurstsOfSilentHost(t *testing.T) {
	for _, kind := range []string{"packet", "xdp"} {
		t.Run(kind, func(t *testing.T) {
			ns, packet, s, far := burstPort(t)
			var port interface{ SilenceHost(bool) error } = packet
			if kind == "xdp" {
				if err := packet.Close(); err != nil {
					t.Fatal(err)
				}
				xdp := testXDP(t, ns, "dev0")
				port, s = xdp, newTestSender(t, xdp).(*packetSender)
			}
			in(t, ns, func() error {
				for i, silent := range []bool{true, false} {
					if err := port.SilenceHost(silent); err != nil {
						return err
					}
					if n, errno, ok := s.bursts.send(burstOf(10*i), silent); n != 10 || errno != 0 || !ok {
						t.Errorf("host silent %v: %d left, %v, %v", silent, n, errno, ok)
					}
					if n, _, _ := s.bursts.send(burstOf(100), false); (n > 0) == silent {
						t.Errorf("host silent %v: %d without our mark left", silent, n)
					}
				}
				return nil
			})
			var want []int
			for i := range 20 {
				want = append(want, i)
			}
			if got := arrived(far, len(want)); !slices.Equal(got, want) {
				t.Errorf("frames %v arrived, want %v", got, want)
			}
		})
	}
}

// TestNoBurstThroughQueues: a device has none while it has a queueing discipline, which
// somebody meant for others than us.
func TestNoBurstThroughQueues(t *testing.T) {
	ns, p, s, _ := burstPort(t)
	queue := &netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: p.ifindex, Handle: netlink.MakeHandle(1, 0),
		Parent: netlink.HANDLE_ROOT}, Rate: 1e6, Limit: 10000, Buffer: 10000}
	in(t, ns, func() error {
		if err := netlink.QdiscAdd(queue); err != nil {
			return err
		}
		if err := p.LookForQueues(); err != nil {
			return err
		}
		if way := s.wayOf(testFrame(100)); way != wayRing {
			t.Errorf("the way is %d", way)
		}
		if other := newTestSender(t, p).(*packetSender); other.wayOf(testFrame(100)) != wayRing {
			t.Error("another sender is not told")
		}
		if err := netlink.QdiscDel(queue); err != nil {
			return err
		}
		if err := p.LookForQueues(); err != nil {
			return err
		}
		if way := s.wayOf(testFrame(100)); way != wayBurst {
			t.Errorf("without it the way is %d", way)
		}
		return nil
	})
}

// TestBurstQueue: on a veth of several queues bursts leave by the processor's, as frames by
// the ring do, whatever their flows.
func TestBurstQueue(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVethQueues(t, a, "dev0", b, "far0", 8)
	in(t, b, func() error { return ethtoolSet("far0", unix.ETHTOOL_SGRO, 1) }) // with NAPI there are queues to receive by
	s := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})).(*packetSender)
	needsBursts(t, s)
	far := rawSocket(t, b, "far0")
	// All but those of queue 0 are dropped. SKF_AD_OFF + SKF_AD_QUEUE, linux/filter.h.
	filter := []unix.SockFilter{{Code: 0x20, K: 0xfffff000 + 24}, {Code: 0x15, Jf: 1, K: 0}, {Code: 6, K: 0xffff}, {Code: 6, K: 0}}
	if err := unix.SetsockoptSockFprog(far, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		t.Fatal(err)
	}
	var frames []*Frame
	var want []int
	for i := range burstSlots {
		b, l4, _ := segmentOf(0, false, nil, 17, 40)
		binary.BigEndian.PutUint16(b[l4:], uint16(1000+i))
		binary.BigEndian.PutUint32(b[len(b)-4:], uint32(i))
		frames, want = append(frames, newFrame(b)), append(want, i)
	}
	in(t, a, func() error {
		var set unix.CPUSet
		set.Set(0)
		if err := unix.SchedSetaffinity(0, &set); err != nil { // of a thread that is not used again
			return err
		}
		if n, errno, ok := s.bursts.send(frames, false); n != len(frames) || errno != 0 || !ok {
			t.Errorf("%d sent, %v, %v", n, errno, ok)
		}
		return nil
	})
	if got := arrived(far, len(want)); !slices.Equal(got, want) {
		t.Errorf("frames %v came by queue 0, want %v", got, want)
	}
}

func TestBurstAllocates(t *testing.T) {
	ns, _, s, _ := burstPort(t)
	frames := slices.Repeat([]*Frame{testFrame(64)}, burstSlots)
	in(t, ns, func() error {
		if n := testing.AllocsPerRun(100, func() { s.Send(frames) }); n != 0 {
			t.Errorf("%v allocations per burst", n)
		}
		return nil
	})
}
