package vlanshim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

const trunk = "trunk"

var cables atomic.Int32

// cable makes two namespaces with a trunk between them and returns their names.
func cable(t *testing.T) (left, right string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and BPF need root")
	}
	n := cables.Add(1)
	left = fmt.Sprintf("vlanshim-%d-%d-l", os.Getpid(), n)
	right = fmt.Sprintf("vlanshim-%d-%d-r", os.Getpid(), n)
	for _, name := range []string{left, right} {
		if err := netns.Create(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netns.Delete(name) })
	}
	file, err := os.Open(netns.Path(right))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in(t, left, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: named(trunk, 9000), PeerName: trunk, PeerMTU: 9000,
			PeerNamespace: netlink.NsFd(file.Fd()),
		})
	})
	for _, name := range []string{left, right} {
		in(t, name, func() error {
			err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
			if err != nil {
				return err
			}
			if err := disableIPv6(trunk); err != nil {
				return err
			}
			_, err = up(trunk)
			return err
		})
	}
	return left, right
}

func in(t *testing.T, ns string, fn func() error) {
	t.Helper()
	if err := netns.Do(ns, fn); err != nil {
		t.Fatal(err)
	}
}

// eachMethod runs a test with both methods; many kernels of test machines have
// no 8021q.
func eachMethod(t *testing.T, test func(t *testing.T, method Method)) {
	t.Run(string(BPF), func(t *testing.T) { test(t, BPF) })
	t.Run(string(Kernel), func(t *testing.T) {
		if os.Geteuid() == 0 && !kernelHas8021q() {
			t.Skip("this kernel has no 8021q")
		}
		test(t, Kernel)
	})
}

// sub adds a subinterface with addresses.
func sub(t *testing.T, method Method, ns, name string, tags []Tag, addrs ...string) {
	t.Helper()
	in(t, ns, func() error {
		if err := AddWith(method, trunk, name, 1500, tags...); err != nil {
			return err
		}
		return address(name, addrs...)
	})
}

func address(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return nil
}

// transfer sends n octets by TCP from one namespace to an address of another.
func transfer(t *testing.T, from, to, addr string, n int64) {
	t.Helper()
	var ln net.Listener
	in(t, to, func() (err error) {
		ln, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	defer ln.Close()
	got := make(chan int64, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer conn.Close()
		m, _ := io.Copy(io.Discard, conn)
		got <- m
	}()
	in(t, from, func() error {
		conn, err := net.DialTimeout("tcp", ln.Addr().String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		chunk := make([]byte, 1<<20)
		for left := n; left > 0; left -= int64(len(chunk)) {
			if _, err := conn.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
				return err
			}
		}
		return nil
	})
	select {
	case m := <-got:
		if m != n {
			t.Errorf("TCP to %s: %d octets arrived of %d", addr, m, n)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("TCP to %s: not done after 10 s", addr)
	}
}

// tap opens an AF_PACKET socket on the trunk that also tells the outer tag,
// which the kernel keeps out of the frame.
func tap(t *testing.T, ns string) (fd int) {
	t.Helper()
	in(t, ns, func() error {
		link, err := netlink.LinkByName(trunk)
		if err != nil {
			return err
		}
		all := uint16(netOrder(unix.ETH_P_ALL))
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		timeout := unix.Timeval{Sec: 2}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// receive returns the next ARP frame that comes in before the socket's timeout,
// all tags in it.
func receive(t *testing.T, fd int) ([]byte, error) {
	t.Helper()
	for {
		frame, oob := make([]byte, 2048), make([]byte, 128)
		n, oobn, _, from, err := unix.Recvmsg(fd, frame, oob, 0)
		if err != nil {
			return nil, err
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		frame = restoreTag(t, frame[:n], oob[:oobn])
		if etherType := afterTags(frame); etherType == unix.ETH_P_ARP {
			return frame, nil
		}
	}
}

func restoreTag(t *testing.T, frame, oob []byte) []byte {
	t.Helper()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
		tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(append(append([]byte{}, frame[:12]...), tag...), frame[12:]...)
	}
	return frame
}

func afterTags(frame []byte) uint16 {
	for frame = frame[12:]; len(frame) >= 6; frame = frame[4:] {
		if e := binary.BigEndian.Uint16(frame); e != TPIDCustomer && e != TPIDService {
			return e
		}
	}
	return 0
}

var tagCases = []struct {
	name string
	tags []Tag
	wire []byte // what stands between the MAC addresses and the EtherType
}{
	{"dot1q", []Tag{{TPIDCustomer, 100}}, []byte{0x81, 0, 0, 100}},
	{"qinq-azure", []Tag{{TPIDCustomer, 100}, {TPIDCustomer, 10}}, []byte{0x81, 0, 0, 100, 0x81, 0, 0, 10}},
	{"qinq-802.1ad", []Tag{{TPIDService, 4094}, {TPIDCustomer, 1}}, []byte{0x88, 0xa8, 0x0f, 0xfe, 0x81, 0, 0, 1}},
}

// TestTagsOnTheWire asks the subinterface's kernel for its address with a
// hand-made tagged ARP request and looks at the tags of its answer; a request
// with any other tags must get none.
func TestTagsOnTheWire(t *testing.T) { eachMethod(t, testTagsOnTheWire) }

func testTagsOnTheWire(t *testing.T, method Method) {
	for _, c := range tagCases {
		t.Run(c.name, func(t *testing.T) {
			left, right := cable(t)
			sub(t, method, left, "sub", c.tags, "192.0.2.1/24")
			in(t, left, func() error { // Linux answers ARP for every address on every link
				return os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0)
			})
			fd := tap(t, right)
			for _, wrong := range wrongTags(c.wire) {
				send(t, fd, arpRequest(wrong, "192.0.2.1"))
			}
			send(t, fd, arpRequest(c.wire, "192.0.2.1"))
			answer, err := receive(t, fd)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if got := answer[12 : len(answer)-(28+2)]; string(got) != string(c.wire) {
				t.Errorf("tags of the answer: got %x, want %x", got, c.wire)
			}
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
			if frame, err := receive(t, fd); err == nil {
				t.Errorf("a second answer, %x: a frame with other tags got in", frame)
			}
		})
	}
}

// wrongTags are tag stacks that differ from wire in one thing.
func wrongTags(wire []byte) [][]byte {
	out := [][]byte{nil, append([]byte{0x81, 0, 0, 7}, wire...)}
	for at := 0; at < len(wire); at += 4 {
		otherVID := append([]byte{}, wire...)
		otherVID[at+3] ^= 2
		otherTPID := append([]byte{}, wire...)
		copy(otherTPID[at:], map[byte][]byte{0x81: {0x88, 0xa8}, 0x88: {0x81, 0x00}}[wire[at]])
		out = append(out, otherVID, otherTPID)
	}
	if len(wire) > 4 {
		out = append(out, wire[:4])
	} else {
		out = append(out, append(append([]byte{}, wire...), 0x81, 0, 0, 10))
	}
	return out
}

func arpRequest(tags []byte, target string) []byte {
	src := []byte{2, 0, 0, 0, 0, 9}
	frame := append([]byte{255, 255, 255, 255, 255, 255}, src...)
	frame = append(append(frame, tags...), 0x08, 0x06)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, src...), 192, 0, 2, 9)
	return append(append(frame, make([]byte, 6)...), netip.MustParseAddr(target).AsSlice()...)
}

func send(t *testing.T, fd int, frame []byte) {
	t.Helper()
	if _, err := unix.Write(fd, frame); err != nil {
		t.Fatal(err)
	}
}

// TestSuperframes sends TCP between two shims, both families, and wants the
// trunk to carry it in superframes.
func TestSuperframes(t *testing.T) { eachMethod(t, testSuperframes) }

func testSuperframes(t *testing.T, method Method) {
	for _, c := range tagCases {
		t.Run(c.name, func(t *testing.T) {
			left, right := cable(t)
			sub(t, method, left, "sub", c.tags, "192.0.2.1/24", "2001:db8::1/64")
			sub(t, method, right, "sub", c.tags, "192.0.2.2/24", "2001:db8::2/64")
			for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
				before := received(t, right)
				transfer(t, left, right, addr, 32<<20)
				after := received(t, right)
				mean := (after.RxBytes - before.RxBytes) / (after.RxPackets - before.RxPackets)
				t.Logf("to %s: mean frame %d octets", addr, mean)
				if mean < 20_000 {
					t.Errorf("to %s: mean frame on the trunk %d octets, want at least 20000", addr, mean)
				}
			}
		})
	}
}

func received(t *testing.T, ns string) (stats netlink.LinkStatistics) {
	t.Helper()
	in(t, ns, func() error {
		link, err := netlink.LinkByName(trunk)
		if err == nil {
			stats = *link.Attrs().Statistics
		}
		return err
	})
	return stats
}

// TestManyOnOneTrunk runs single- and double-tagged subinterfaces and untagged
// traffic side by side, with the same addresses in each VLAN but the last.
func TestManyOnOneTrunk(t *testing.T) { eachMethod(t, testManyOnOneTrunk) }

func testManyOnOneTrunk(t *testing.T, method Method) {
	left, right := cable(t)
	vlans := []struct {
		name string
		tags []Tag
	}{
		{"t.100", []Tag{{TPIDCustomer, 100}}},
		{"t.200", []Tag{{TPIDCustomer, 200}}},
		{"t.300.10", []Tag{{TPIDCustomer, 300}, {TPIDCustomer, 10}}},
		{"t.300.11", []Tag{{TPIDCustomer, 300}, {TPIDCustomer, 11}}},
	}
	for i, v := range vlans {
		sub(t, method, left, v.name, v.tags, fmt.Sprintf("198.51.%d.1/24", i))
		sub(t, method, right, v.name, v.tags, fmt.Sprintf("198.51.%d.2/24", i))
	}
	in(t, left, func() error { return address(trunk, "203.0.113.1/24") })
	in(t, right, func() error { return address(trunk, "203.0.113.2/24") })
	for i := range vlans {
		transfer(t, left, right, fmt.Sprintf("198.51.%d.2", i), 1<<20)
		transfer(t, right, left, fmt.Sprintf("198.51.%d.1", i), 1<<20)
	}
	transfer(t, left, right, "203.0.113.2", 1<<20)
}

func TestMTUAndMAC(t *testing.T) { eachMethod(t, testMTUAndMAC) }

func testMTUAndMAC(t *testing.T, method Method) {
	left, _ := cable(t)
	sub(t, method, left, "sub", []Tag{{TPIDCustomer, 100}})
	in(t, left, func() error {
		parent, err := netlink.LinkByName(trunk)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName("sub")
		if err != nil {
			return err
		}
		if link.Attrs().MTU != 1500 {
			t.Errorf("MTU: got %d, want 1500", link.Attrs().MTU)
		}
		if got, want := link.Attrs().HardwareAddr.String(), parent.Attrs().HardwareAddr.String(); got != want {
			t.Errorf("MAC: got %s, want the trunk's, %s", got, want)
		}
		return nil
	})
}

// TestAdd takes whatever this kernel has.
func TestAdd(t *testing.T) {
	left, right := cable(t)
	tags := []Tag{{TPIDCustomer, 100}, {TPIDCustomer, 10}}
	for i, ns := range []string{left, right} {
		in(t, ns, func() error {
			method, err := Add(trunk, "trunk.100.10", 1500, tags...)
			if err != nil {
				return err
			}
			t.Logf("made by %s", method)
			return address("trunk.100.10", fmt.Sprintf("192.0.2.%d/24", i+1))
		})
	}
	transfer(t, left, right, "192.0.2.2", 1<<20)
}

func TestRefused(t *testing.T) {
	ok := Tag{TPIDCustomer, 100}
	for _, tags := range [][]Tag{nil, {ok, ok, ok}, {{TPIDCustomer, 0}}, {{TPIDCustomer, 4095}}, {{0x9100, 1}}, {ok, {0, 1}}} {
		if err := AddWith(BPF, "lo", "sub", 1500, tags...); !errors.Is(err, ErrBadTags) {
			t.Errorf("tags %v: got %v, want ErrBadTags", tags, err)
		}
	}
	for _, name := range []string{"", "fifteen.letters"} {
		if err := AddWith(BPF, "lo", name, 1500, ok); err == nil {
			t.Errorf("name %q: no error", name)
		}
	}
}
