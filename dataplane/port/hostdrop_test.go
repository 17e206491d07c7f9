package port

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestHostSeesNothing: while the port is open the host's stack gets no frame,
// neither ARP nor ping; after Close it answers again.
func TestHostSeesNothing(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	in(t, a, func() error { return addAddr("dev0", "192.0.2.1/24") })
	in(t, b, func() error { return addAddr("far0", "192.0.2.2/24") })
	const soon, once = 200 * time.Millisecond, 10 * time.Second // if not, and if it should
	if !hostAnswers(t, b, once) {
		t.Fatal("no answer before the port is open: the test proves nothing")
	}
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	if hostAnswers(t, b, soon) {
		t.Error("the host answers while the port is open")
	}
	if len(collect(t, p, 1)) == 0 {
		t.Error("the port received nothing either")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !hostAnswers(t, b, once) {
		t.Error("no answer after Close")
	}
}

// TestSilenceHost: what goes through the queueing discipline, as all does that
// the host sends by itself, does not leave; what our senders send does, small and
// large. Later the host is heard again, and also after a crash.
func TestSilenceHost(t *testing.T) {
	a, b := testNS(t, "a"), testNS(t, "b")
	testVeth(t, a, "dev0", b, "far0")
	p := testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	host, far := rawSocket(t, a, "dev0"), rawSocket(t, b, "far0")
	// arrived waits for as many as are wanted, and for one too many for a moment.
	arrived := func(want int) (n int) {
		buf := make([]byte, 2000)
		poll := []unix.PollFd{{Fd: int32(far), Events: unix.POLLIN}}
		for {
			patience := 200 // ms
			if n < want {
				patience = 10_000
			}
			ready, err := unix.Poll(poll, patience)
			if err == unix.EINTR {
				continue
			}
			if ready < 1 {
				return n
			}
			if got, err := unix.Read(far, buf); err == nil && got >= 60 {
				n++
			}
		}
	}
	heard := func() bool {
		unix.Write(host, testFrame(60).Bytes())
		return arrived(1) == 1
	}
	says := func() bool { // where it should not
		unix.Write(host, testFrame(60).Bytes()) // the error that it was dropped is none here
		return arrived(0) > 0
	}
	if !heard() {
		t.Fatal("the host is not heard at the beginning: the test proves nothing")
	}
	for range 2 { // the second time is no change
		in(t, a, func() error { return p.SilenceHost(true) })
	}
	if says() {
		t.Error("the host is heard")
	}
	sender, err := p.NewSender()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if sent, err := sender.Send([]*Frame{testFrame(60), testFrame(1514)}); sent != 2 || err != nil {
		t.Errorf("sent %d, %v", sent, err)
	}
	if n := arrived(2); n != 2 {
		t.Errorf("of two frames of ours %d arrived", n)
	}
	in(t, a, func() error { return p.SilenceHost(false) })
	if !heard() {
		t.Error("the host is still silent")
	}
	// The process crashes: the filter stays until the next one opens the port.
	if _, err := attachHostDrop(p.netlink, p.ifindex, netlink.HANDLE_MIN_EGRESS); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if says() {
		t.Error("the filter did not outlive the process: the test proves nothing")
	}
	p = testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8})
	if !heard() {
		t.Error("the host is silenced by what a crashed process has left")
	}
	if _, err := attachHostDrop(p.netlink, p.ifindex, netlink.HANDLE_MIN_EGRESS); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = testPacket(t, a, PacketConfig{Device: "dev0", RingFrames: 8, Silent: true})
	if says() {
		t.Error("the host is heard on a port that is to be silent")
	}
	in(t, a, func() error { return p.SilenceHost(false) })
	if !heard() {
		t.Error("the host is silent for good")
	}
}

// hostAnswers sends a UDP packet to a port where nobody listens, and reports
// whether the host at the other end said so (ICMP port unreachable) within that time.
func hostAnswers(t *testing.T, ns string, within time.Duration) bool {
	t.Helper()
	answered := false
	in(t, ns, func() error {
		c, err := net.Dial("udp", "192.0.2.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(within))
		_, err = c.Read(make([]byte, 1))
		nerr, ok := err.(net.Error)
		answered = ok && !nerr.Timeout()
		return nil
	})
	return answered
}

func TestHostDropLifecycle(t *testing.T) {
	ns := testNS(t, "a")
	testVeth(t, ns, "dev0", testNS(t, "b"), "far0")
	in(t, ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("dev0")
		if err != nil {
			return err
		}
		ifindex := link.Attrs().Index
		attach := func() *hostDrop {
			d, err := attachHostDrop(h, ifindex, netlink.HANDLE_MIN_INGRESS)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		expect := func(when string, filters int, qdisc bool) {
			t.Helper()
			var n int
			var has bool
			qdiscs, _ := h.QdiscList(link)
			for _, q := range qdiscs {
				has = has || q.Type() == "clsact"
			}
			if has {
				list, _ := h.FilterList(link, netlink.HANDLE_MIN_INGRESS)
				n = len(list)
			}
			if n != filters || has != qdisc {
				t.Errorf("%s: %d filters, clsact %v; want %d, %v", when, n, has, filters, qdisc)
			}
		}

		attach() // and the process crashes
		d := attach()
		expect("over a crashed predecessor", 1, true)
		if err := d.detach(); err != nil {
			t.Error(err)
		}
		expect("after it", 0, false)

		if err := h.QdiscAdd(d.qdisc()); err != nil { // somebody else's
			return err
		}
		d = attach()
		if err := d.detach(); err != nil {
			t.Error(err)
		}
		expect("on a foreign clsact", 0, true)
		if err := h.QdiscDel(d.qdisc()); err != nil {
			return err
		}

		d = attach()
		foreign := d.filter
		foreign.Handle, foreign.Priority, foreign.Name, foreign.Parent = 1, 7, "foreign", netlink.HANDLE_MIN_EGRESS
		prog, err := loadHostDrop(netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return err
		}
		defer prog.Close()
		foreign.Fd = prog.FD()
		if err := h.FilterReplace(&foreign); err != nil {
			return err
		}
		if err := d.detach(); err != nil {
			t.Error(err)
		}
		expect("beside a foreign filter", 0, true)

		d = attach()
		if err := h.LinkDel(link); err != nil {
			return err
		}
		if err := d.detach(); err != nil {
			t.Errorf("after the device was removed: %v", err)
		}
		return nil
	})
}
