package gso_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/netns"
)

// cable is a veth pair between two namespaces.
type cable struct{ ns, dev [2]string }

func newCable(t *testing.T, name string) cable {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and packet sockets need root")
	}
	var c cable
	for i, end := range []string{"a", "b"} {
		c.ns[i] = fmt.Sprintf("gso-%d-%s%s", os.Getpid(), name, end)
		c.dev[i] = name + end
		if err := netns.Create(c.ns[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netns.Delete(c.ns[i]) })
	}
	c.do(t, 0, func() error {
		peer, err := os.Open(netns.Path(c.ns[1]))
		if err != nil {
			return err
		}
		defer peer.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = c.dev[0]
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: c.dev[1], PeerNamespace: netlink.NsFd(peer.Fd())})
	})
	for i := range c.ns {
		c.do(t, i, func() error {
			os.WriteFile("/proc/sys/net/ipv6/conf/"+c.dev[i]+"/disable_ipv6", []byte("1"), 0)
			link, err := netlink.LinkByName(c.dev[i])
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMTU(link, 2000); err != nil { // room for any options around a payload of 1460
				return err
			}
			return netlink.LinkSetUp(link)
		})
	}
	return c
}

func (c cable) do(t *testing.T, end int, fn func() error) {
	t.Helper()
	if err := netns.Do(c.ns[end], fn); err != nil {
		t.Fatal(err)
	}
}

func (c cable) open(t *testing.T, end int) (port.Port, port.Sender) {
	t.Helper()
	var p *port.Packet
	c.do(t, end, func() (err error) {
		p, err = port.OpenPacket(port.PacketConfig{Device: c.dev[end]})
		return err
	})
	s, err := p.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); p.Close() })
	return p, s
}

// ethtool switches an offload of a device by a legacy command.
func ethtool(dev string, cmd, value uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	arg := struct{ cmd, data uint32 }{cmd, value}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&arg)}
	copy(req.name[:], dev)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}

const (
	ethtoolTxChecksum = 0x17 // ETHTOOL_STXCSUM; segmentation goes with it
	ethtoolGRO        = 0x2c // ETHTOOL_SGRO
)

// receive takes frames until want have come.
func receive(t *testing.T, p port.Port, want int) []*port.Frame {
	t.Helper()
	var out []*port.Frame
	batch := make([]port.Frame, port.BatchSize)
	fds := []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}
	for end := time.Now().Add(5 * time.Second); len(out) < want && time.Now().Before(end); {
		n, err := p.Recv(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range batch[:n] {
			f.Buf = bytes.Clone(f.Buf)
			out = append(out, &f)
		}
		p.Release()
		if n == 0 {
			unix.Poll(fds, 100)
		}
	}
	return out
}

// drain takes frames until none has come for a while.
func drain(t *testing.T, p port.Port) {
	t.Helper()
	batch := make([]port.Frame, port.BatchSize)
	fds := []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}
	for n := 1; n > 0; {
		if _, err := p.Recv(batch); err != nil {
			t.Fatal(err)
		}
		p.Release()
		n, _ = unix.Poll(fds, 150)
	}
}

// TestAsTheKernelCuts: a superframe sent into a device without offloads is cut
// by the kernel; ours are the same frames, octet for octet.
func TestAsTheKernelCuts(t *testing.T) {
	c := newCable(t, "cut")
	_, tx := c.open(t, 0)
	rx, _ := c.open(t, 1)
	c.do(t, 0, func() error { return ethtool(c.dev[0], ethtoolTxChecksum, 0) })
	r := rand.New(rand.NewPCG(7, 7))
	for range 60 {
		s := gso.RandomShape(r)
		f := s.Build(r)
		if s.Payload() > 127*int(f.VNet.GSOSize) && f.VNet.GSOType == port.GSOUDPL4 {
			continue // UDP_MAX_SEGMENTS
		}
		plan, ok := gso.Cut(f.Bytes(), s.L3(), f.VNet)
		if !ok {
			t.Fatalf("%+v: not cut", s)
		}
		if n, err := tx.Send([]*port.Frame{f}); n != 1 {
			t.Fatalf("%+v: not sent: %v", s, err)
		}
		got := receive(t, rx, plan.Segments)
		if len(got) != plan.Segments {
			t.Fatalf("%+v: the kernel made %d frames, we %d", s, len(got), plan.Segments)
		}
		dst := make([]byte, plan.Len)
		for i, k := range got {
			if k.VNet.Flags&port.VNetNeedsCsum != 0 {
				t.Fatalf("%+v: the kernel left a checksum", s)
			}
			ours, theirs := dst[:plan.Segment(i, dst)], k.Bytes()
			if k.OuterTPID != 0 {
				theirs = append(theirs[:12:12], binary.BigEndian.AppendUint16(nil, k.OuterTPID)...)
				theirs = append(binary.BigEndian.AppendUint16(theirs, k.OuterTCI), k.Bytes()[12:]...)
			}
			if !bytes.Equal(ours, theirs) {
				h := min(len(ours), 120)
				t.Fatalf("%+v: segment %d of %d\n  ours %x\nkernel %x", s, i, plan.Segments, ours[:h], theirs[:min(len(theirs), 120)])
			}
		}
	}
}

// TestAsTheKernelJoins: segments that arrive at a device with GRO are joined by
// the kernel; what we join is the same superframe, header included.
func TestAsTheKernelJoins(t *testing.T) {
	c := newCable(t, "gro")
	_, tx := c.open(t, 0)
	rx, _ := c.open(t, 1)
	c.do(t, 1, func() error { return ethtool(c.dev[1], ethtoolGRO, 1) })
	c.do(t, 0, func() error { return ethtool(c.dev[0], ethtoolTxChecksum, 0) }) // without, veth spares itself GRO
	// Let frames wait for each other, as under load.
	dir := "/sys/class/net/" + c.dev[1]
	if out, err := exec.Command("ip", "netns", "exec", c.ns[1], "sh", "-c",
		"echo 50000000 >"+dir+"/gro_flush_timeout && echo 2 >"+dir+"/napi_defer_hard_irqs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := rand.New(rand.NewPCG(9, 9))
	whole := 0
	for tries := 0; whole < 8; tries++ {
		if tries == 100 {
			t.Fatalf("the kernel joined %d of %d superframes wholly: too few to say anything", whole, tries)
		}
		s := gso.RandomShape(r).TCP()
		f := s.Build(r)
		plan, _ := gso.Cut(f.Bytes(), s.L3(), f.VNet)
		var theirs, ours []*port.Frame
		var table gso.Table
		for i := range plan.Segments {
			seg := &port.Frame{Buf: make([]byte, port.Headroom+port.MaxFrame), Start: port.Headroom}
			seg.End = seg.Start + plan.Segment(i, seg.Buf[seg.Start:])
			theirs = append(theirs, &port.Frame{Buf: bytes.Clone(seg.Buf), Start: seg.Start, End: seg.End})
			if !table.Add(seg, s.L3()) {
				ours = append(ours, seg)
			}
		}
		table.Flush()
		if n, err := tx.Send(theirs); n != len(theirs) {
			t.Fatalf("%+v: %d of %d sent: %v", s, n, len(theirs), err)
		}
		if len(ours) != 1 {
			t.Fatalf("%+v: we made %d frames", s, len(ours))
		}
		got := receive(t, rx, 1)
		if len(got) != 1 || got[0].Len() < f.Len()-4 { // the kernel's timer cut it short: take the rest away
			drain(t, rx)
			continue
		}
		whole++
		k := got[0]
		theirBytes := k.Bytes()
		if k.OuterTPID != 0 {
			theirBytes = append(theirBytes[:12:12], binary.BigEndian.AppendUint16(nil, k.OuterTPID)...)
			theirBytes = append(binary.BigEndian.AppendUint16(theirBytes, k.OuterTCI), k.Bytes()[12:]...)
			k.VNet.CsumStart += 4
		}
		k.VNet.HdrLen = ours[0].VNet.HdrLen // a hint: the kernel says how much is in one piece
		if !bytes.Equal(ours[0].Bytes(), theirBytes) || ours[0].VNet != k.VNet {
			t.Fatalf("%+v\n  ours %+v %x\nkernel %+v %x", s, ours[0].VNet, ours[0].Bytes()[:100], k.VNet, theirBytes[:100])
		}
	}
}

// TestThroughBothSteps: two kernels speak TCP through a cable that cuts every
// superframe and joins the frames again; the data arrives, most of it in
// superframes.
func TestThroughBothSteps(t *testing.T) {
	near, far := newCable(t, "near"), newCable(t, "far")
	near.do(t, 0, func() error { return addAddr(near.dev[0], "192.0.2.1/24") })
	far.do(t, 0, func() error { return addAddr(far.dev[0], "192.0.2.2/24") })
	var ports [2]port.Port
	var senders [2]port.Sender
	ports[0], senders[0] = near.open(t, 1)
	ports[1], senders[1] = far.open(t, 1)
	var cut, joined, refused atomic.Int64
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- cutAndJoin(ports, senders, stop, &cut, &joined, &refused) }()
	defer func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	var ln net.Listener
	far.do(t, 0, func() (err error) { ln, err = net.Listen("tcp", "192.0.2.2:7000"); return err })
	defer ln.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer conn.Close()
		h := sha256.New()
		io.Copy(h, conn)
		got <- h.Sum(nil)
	}()
	data := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	near.do(t, 0, func() error {
		conn, err := net.DialTimeout("tcp", "192.0.2.2:7000", 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = conn.Write(data)
		return err
	})
	want := sha256.Sum256(data)
	select {
	case sum := <-got:
		if !bytes.Equal(sum, want[:]) {
			t.Error("the data did not arrive intact")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the data did not arrive")
	}
	if c, j := cut.Load(), joined.Load(); c < 1000 || j < c*3/4 || refused.Load() > 0 {
		t.Errorf("%d segments cut, %d joined, %d superframes refused", c, j, refused.Load())
	}
}

func addAddr(dev, cidr string) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link, addr)
}

// cutAndJoin forwards between two ports until stop is closed.
func cutAndJoin(ports [2]port.Port, senders [2]port.Sender, stop chan struct{}, cut, joined, refused *atomic.Int64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var fds []unix.PollFd
	for _, p := range ports {
		fds = append(fds, unix.PollFd{Fd: int32(p.FD()), Events: unix.POLLIN})
	}
	var table gso.Table
	batch := make([]port.Frame, 16)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		unix.Poll(fds, 10)
		for i, p := range ports {
			n, err := p.Recv(batch)
			if err != nil {
				return err
			}
			var queue []*port.Frame
			for j := range batch[:n] {
				f := &batch[j]
				if f.VNet.GSOType == port.GSONone {
					if f.Bytes()[12] == 8 && f.Bytes()[13] == 0 && table.Add(f, 14) {
						continue
					}
					queue = append(queue, f)
					continue
				}
				plan, ok := gso.Cut(f.Bytes(), 14, f.VNet)
				if !ok {
					refused.Add(1)
					continue
				}
				for k := range plan.Segments {
					s := &port.Frame{Buf: make([]byte, port.Headroom+port.MaxFrame), Start: port.Headroom}
					s.End = s.Start + plan.Segment(k, s.Buf[s.Start:])
					cut.Add(1)
					if table.Add(s, 14) {
						joined.Add(1)
						continue
					}
					queue = append(queue, s)
				}
			}
			table.Flush()
			senders[1-i].Send(queue)
			p.Release()
		}
	}
}
