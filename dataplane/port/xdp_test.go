package port

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// testXDP opens an xdp port, or skips the test where the kernel has no AF_XDP.
func testXDP(t testing.TB, ns, device string) *XDP {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("the kernel has no AF_XDP")
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	var p *XDP
	in(t, ns, func() (err error) { p, err = OpenXDP(XDPConfig{Device: device}); return err })
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestXDPPlainFrame(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testXDP(t, a, "dev0")
	far := rawSocket(t, b, "far0")
	if p.Name() != "dev0" || p.MAC() == (MAC{}) || p.Mode() != "copy" {
		t.Errorf("name %q, MAC %x, mode %q", p.Name(), p.MAC(), p.Mode())
	}
	want := testFrame(200)
	if _, err := unix.Write(far, want.Bytes()); err != nil {
		t.Fatal(err)
	}
	recvOne(t, p, func(f *Frame) {
		if !bytes.Equal(f.Bytes(), want.Bytes()) || f.OuterTPID != 0 || f.Truncated || f.VNet != (VNetHdr{}) {
			t.Errorf("got % x, tag %x, truncated %v, %+v", f.Bytes(), f.OuterTPID, f.Truncated, f.VNet)
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

// TestXDPTags: a tag is in the frame, also if the far end's stack keeps it
// beside it, and frames longer than a chunk come whole.
func TestXDPTags(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	testMTU(t, 9000, map[string]string{a: "dev0", b: "dev1"})
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testXDP(t, b, "dev1")
	for _, tags := range [][]uint32{
		nil,
		{0x81000064},             // Dot1Q
		{0x81000000},             // priority tag: TCI 0 is a tag
		{0x81002064, 0x810000c8}, // QinQ as Azure does it
		{0x88a80064, 0x810000c8}, // QinQ by IEEE 802.1ad
	} {
		for _, payload := range []int{100, 1440, 1800, 8900} {
			t.Run(fmt.Sprintf("%x/%d", tags, payload), func(t *testing.T) {
				f := superframe(payload, tags...)
				f.VNet.GSOType, f.VNet.GSOSize = GSONone, 0
				want := f.VNet
				want.HdrLen = 0
				if n, err := from.Send([]*Frame{f}); n != 1 || err != nil {
					t.Fatalf("Send: %d, %v", n, err)
				}
				recvOne(t, to, func(g *Frame) {
					// The kernel has put the pseudo-header's sum there or left ours.
					if !bytes.Equal(g.Bytes(), f.Bytes()) || g.Truncated {
						t.Errorf("got %d octets % x, want %d", g.Len(), g.Bytes()[:20], f.Len())
					}
				})
			})
		}
	}
}

// TestXDPTagBeside: a tag that the far end's stack leaves to its device, beside
// the frame, is put into it.
func TestXDPTagBeside(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testXDP(t, a, "dev0")
	if strings.Contains(p.Mode(), "inline") {
		t.Skip("the kernel does not tell tags to XDP programs")
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, 0xa888), // 802.1ad in network order on this, a little-endian machine
			asm.Mov.Imm(asm.R3, 0x2064),
			asm.FnSkbVlanPush.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	in(t, b, func() error {
		dev, err := net.InterfaceByName("far0")
		if err != nil {
			return err
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: prog, Attach: ebpf.AttachTCXEgress})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	far := rawSocket(t, b, "far0")
	for _, f := range []*Frame{testFrame(60), superframe(100, 0x810000c8)} {
		if _, err := unix.Write(far, f.Bytes()); err != nil {
			t.Fatal(err)
		}
		want := slices.Insert(bytes.Clone(f.Bytes()), 12, 0x88, 0xa8, 0x20, 0x64)
		recvOne(t, p, func(g *Frame) {
			if !bytes.Equal(g.Bytes(), want) || g.OuterTPID != 0 || g.Start < Headroom {
				t.Errorf("got % x at %d, want % x", g.Bytes()[:22], g.Start, want[:22])
			}
		})
	}
}

// TestXDPForwards: two kernels speak TCP and UDP through an xdp port and a
// packet port. Checksums that the one leaves to its device are finished on the
// way, and superframes leave by the xdp port whole.
func TestXDPForwards(t *testing.T) {
	nsA, nsR, nsB := testNS(t, "a"), testNS(t, "r"), testNS(t, "b")
	testVeth(t, nsA, "a0", nsR, "r0")
	testVeth(t, nsB, "b0", nsR, "r1")
	in(t, nsA, func() error { return addAddr("a0", "192.0.2.1/24") })
	in(t, nsB, func() error { return addAddr("b0", "192.0.2.2/24") })
	q := testPacket(t, nsR, PacketConfig{Device: "r1"})
	p := testXDP(t, nsR, "r0")
	c := startCable(t, p, q)
	transfer(t, nsA, nsB)
	datagrams(t, nsA, nsB)
	if c.lost.Load() > c.frames.Load()/2 {
		t.Errorf("lost %d of %d frames", c.lost.Load(), c.frames.Load())
	}
}

// TestXDPForwardsBetween is the same with two xdp ports.
func TestXDPForwardsBetween(t *testing.T) {
	nsA, nsR, nsB := testNS(t, "a"), testNS(t, "r"), testNS(t, "b")
	testVeth(t, nsA, "a0", nsR, "r0")
	testVeth(t, nsB, "b0", nsR, "r1")
	in(t, nsA, func() error { return addAddr("a0", "192.0.2.1/24") })
	in(t, nsB, func() error { return addAddr("b0", "192.0.2.2/24") })
	startCable(t, testXDP(t, nsR, "r0"), testXDP(t, nsR, "r1"))
	transfer(t, nsA, nsB)
	datagrams(t, nsA, nsB)
}

// TestXDPQueues: frames of all queues of a device are received.
func TestXDPQueues(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	in(t, a, func() error {
		peer, err := os.Open(netns.Path(b))
		if err != nil {
			return err
		}
		defer peer.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "dev0", 4, 4
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0", PeerNamespace: netlink.NsFd(peer.Fd()),
			PeerNumTxQueues: 4, PeerNumRxQueues: 4})
	})
	for ns, dev := range map[string]string{a: "dev0", b: "far0"} {
		in(t, ns, func() error {
			os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6", []byte("1"), 0)
			return setUp(dev, true)
		})
	}
	p := testXDP(t, a, "dev0")
	if len(p.queues) != 4 {
		t.Fatalf("%d queues, want 4", len(p.queues))
	}
	far := rawSocket(t, b, "far0")
	used := map[int]bool{}
	for i := range 64 { // the far end chooses the queue by flow
		f := superframe(200)
		f.Bytes()[14+20+1] = byte(i)
		if _, err := unix.Write(far, f.Bytes()); err != nil {
			t.Fatal(err)
		}
		recvOne(t, p, func(g *Frame) {
			if !bytes.Equal(g.Bytes(), f.Bytes()) {
				t.Errorf("got % x", g.Bytes()[:20])
			}
			for k, q := range p.queues {
				if q.held > 0 {
					used[k] = true
				}
			}
		})
	}
	if len(used) < 2 {
		t.Errorf("frames came from %d queues, want several", len(used))
	}
}

func TestXDPOverload(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	from := newTestSender(t, testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8}))
	to := testXDP(t, b, "dev1")
	frames := slices.Repeat([]*Frame{testFrame(60)}, 100)
	for round := range 3 { // the ring is usable again after each overflow
		before := to.Stats().RxDropped
		for deadline := time.Now().Add(20 * time.Second); to.Stats().RxDropped == before; {
			if _, err := from.Send(frames); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // the device's own queue has 256
			if time.Now().After(deadline) {
				t.Fatalf("round %d: none counted as dropped", round)
			}
		}
		if got := len(collect(t, to, 2*rxChunks)); got != rxChunks {
			t.Errorf("round %d: received %d of %d slots", round, got, rxChunks)
		}
	}
}

func TestXDPDeviceDownAndUp(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testXDP(t, a, "dev0")
	s := newTestSender(t, p)
	far := rawSocket(t, b, "far0")
	in(t, a, func() error { return setUp("dev0", false) })
	f := testFrame(60)
	if n, err := s.Send([]*Frame{f, f}); n != 0 || !errors.Is(err, unix.ENETDOWN) {
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
	if n, err := s.Send([]*Frame{f}); n != 0 || err == nil {
		t.Errorf("Send after the device was removed: %d, %v", n, err)
	}
}

func TestXDPRefusals(t *testing.T) {
	ns := testNS(t, "a")
	in(t, ns, func() error {
		for _, dev := range []string{"nosuch0", "lo"} {
			if p, err := OpenXDP(XDPConfig{Device: dev}); err == nil {
				t.Errorf("OpenXDP(%s) succeeded", dev)
				p.Close()
			}
		}
		d := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy0"}} // has no XDP
		if err := netlink.LinkAdd(d); err != nil {
			return nil // the kernel has no such device; without one there is none without XDP
		}
		if p, err := OpenXDP(XDPConfig{Device: "dummy0"}); err == nil || !strings.Contains(err.Error(), "type packet") {
			t.Errorf("OpenXDP(dummy0): %v", err)
			if err == nil {
				p.Close()
			}
		}
		return nil
	})
}

// TestXDPTakesTurns: a device has one xdp port, and another after it.
func TestXDPTakesTurns(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testXDP(t, a, "dev0")
	in(t, a, func() error {
		if second, err := OpenXDP(XDPConfig{Device: "dev0"}); !errors.Is(err, unix.EBUSY) {
			t.Errorf("second port on the device: %v", err)
			if err == nil {
				second.Close()
			}
		}
		if !hasXDP(t, "dev0") {
			t.Error("the first port has no program on the device")
		}
		if err := p.Close(); err != nil {
			return err
		}
		if hasXDP(t, "dev0") {
			t.Error("a closed port has left its program")
		}
		p, err := OpenXDP(XDPConfig{Device: "dev0"})
		if err != nil {
			return err
		}
		return p.Close()
	})
}

func hasXDP(t *testing.T, device string) bool {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
}

// xdpHolder is the environment by which the test's executable becomes a process
// that holds an xdp port on a device.
const xdpHolder = "MSEE_TEST_XDP_HOLDER"

func TestMain(m *testing.M) {
	device := os.Getenv(xdpHolder)
	if device == "" {
		os.Exit(m.Run())
	}
	if _, err := OpenXDP(XDPConfig{Device: device}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	time.Sleep(time.Minute)
}

// TestXDPKilled: a process that is killed leaves nothing on the device.
func TestXDPKilled(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	testXDP(t, a, "dev0").Close() // skips without AF_XDP
	exe, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), xdpHolder+"=dev0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in(t, a, cmd.Start)
	line := make([]byte, 200)
	n, _ := out.Read(line)
	if string(line[:n]) != "open\n" {
		t.Errorf("holder: %q", line[:n])
	}
	in(t, a, func() error {
		if !hasXDP(t, "dev0") {
			t.Error("the holder has no program on the device")
		}
		return nil
	})
	cmd.Process.Kill()
	cmd.Wait()
	var p *XDP
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the kernel lets go in its own time
		err := netns.Do(a, func() (err error) { p, err = OpenXDP(XDPConfig{Device: "dev0"}); return err })
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	p.Close()
}

func TestXDPAllocs(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "dev1")
	p, q := testXDP(t, a, "dev0"), testXDP(t, b, "dev1")
	testAllocs(t, p, q, testFrame(60))
	testAllocs(t, q, p, testFrame(1514))
}

func BenchmarkXDP(b *testing.B) {
	ns1, ns2 := testNS(b, "a"), testNS(b, "b")
	testVeth(b, ns1, "dev0", ns2, "dev1")
	from, to := testXDP(b, ns1, "dev0"), testXDP(b, ns2, "dev1")
	for _, f := range []*Frame{testFrame(60), testFrame(1514)} {
		b.Run(byteName(f.Len()), func(b *testing.B) { benchLoop(b, from, to, f) })
	}
}

// BenchmarkSendSmall is what it costs to send a small frame over veth to a
// kernel that drops it at once, its work included: CPU time of the thread.
func BenchmarkSendSmall(b *testing.B) {
	ns1, ns2 := testNS(b, "a"), testNS(b, "b")
	testVeth(b, ns1, "dev0", ns2, "far0")
	testVeth(b, ns1, "dev1", ns2, "far1")
	deafen(b, ns2, "far0", "far1")
	packet, xdp := testPacket(b, ns1, PacketConfig{Device: "dev0", RingFrames: 8}), testXDP(b, ns1, "dev1")
	for _, way := range []struct {
		name   string
		port   Port
		bursts bool
	}{{"packet, singly", packet, false}, {"xdp, singly", xdp, false}, {"bursts", packet, true}} {
		s := newTestSender(b, way.port).(*packetSender)
		if way.bursts {
			needsBursts(b, s)
		} else {
			s.endBursts()
		}
		for _, octets := range []int{64, 512, 1400} {
			frames := slices.Repeat([]*Frame{testFrame(octets)}, 64)
			b.Run(fmt.Sprintf("%s/%d", way.name, octets), func(b *testing.B) {
				in(b, ns1, func() error { // bursts leave from there only
					began := threadTime(b)
					for left := b.N; left > 0; left -= len(frames) {
						if n, err := s.Send(frames); n != len(frames) || err != nil {
							return fmt.Errorf("%d sent: %w", n, err)
						}
					}
					b.ReportMetric(float64(threadTime(b)-began)/float64(b.N), "cpu-ns/frame")
					return nil
				})
			})
		}
	}
}

// deafen has devices drop what they receive.
func deafen(b *testing.B, ns string, devices ...string) {
	in(b, ns, func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer handle.Close()
		for _, name := range devices {
			dev, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			if _, err := attachHostDrop(handle, dev.Index, netlink.HANDLE_MIN_INGRESS); err != nil {
				return err
			}
		}
		return nil
	})
}

func threadTime(b *testing.B) time.Duration {
	var spent unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &spent); err != nil {
		b.Fatal(err)
	}
	return time.Duration(spent.Nano())
}

// TestXDPSilenceHost: a silenced host does not send on the device, we do, and a
// host that may speak again does.
func TestXDPSilenceHost(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testXDP(t, a, "dev0")
	far, host := rawSocket(t, b, "far0"), rawSocket(t, a, "dev0")
	s := newTestSender(t, p)
	for i, on := range []bool{true, true, false, false, true} {
		if err := p.SilenceHost(on); err != nil {
			t.Fatal(err)
		}
		fromHost, ours := testFrame(60+i), testFrame(100+i)
		unix.Write(host, fromHost.Bytes())
		if n, err := s.Send([]*Frame{ours}); n != 1 || err != nil {
			t.Fatalf("Send: %d, %v", n, err)
		}
		want := []int{fromHost.Len(), ours.Len()}
		if on {
			want = want[1:]
		}
		buf := make([]byte, 300)
		for _, length := range want {
			if n, err := unix.Read(far, buf); err != nil || n != length {
				t.Errorf("silent %v: %d octets, %v; want %d", on, n, err, length)
			}
		}
	}
}
