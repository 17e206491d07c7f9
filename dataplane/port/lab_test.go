package port

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

func byteName(n int) string { return strconv.Itoa(n) + "B" }

// testNS makes a namespace for one test and returns its name.
func testNS(t testing.TB, suffix string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and packet sockets need root")
	}
	name := fmt.Sprintf("port-%d-%s", os.Getpid(), suffix)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(name) })
	return name
}

// in runs fn in a namespace and fails the test on its error.
func in(t testing.TB, ns string, fn func() error) {
	t.Helper()
	if err := netns.Do(ns, fn); err != nil {
		t.Fatal(err)
	}
}

// testVeth makes a cable between devices in two namespaces, up.
func testVeth(t testing.TB, ns1, dev1, ns2, dev2 string) {
	t.Helper()
	testVethQueues(t, ns1, dev1, ns2, dev2, 1)
}

// testVethQueues is testVeth, with so many queues each way.
func testVethQueues(t testing.TB, ns1, dev1, ns2, dev2 string, queues int) {
	t.Helper()
	in(t, ns1, func() error {
		peer, err := os.Open(netns.Path(ns2))
		if err != nil {
			return err
		}
		defer peer.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = dev1, queues, queues
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: dev2, PeerNamespace: netlink.NsFd(peer.Fd()),
			PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues)})
	})
	for ns, dev := range map[string]string{ns1: dev1, ns2: dev2} {
		in(t, ns, func() error {
			// No frames of the host's own: tests count.
			os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6", []byte("1"), 0)
			return setUp(dev, true)
		})
	}
}

func setUp(dev string, up bool) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	if up {
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
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

// testMTU sets the MTU of devices, by namespace.
func testMTU(t testing.TB, mtu int, devices map[string]string) {
	t.Helper()
	for ns, dev := range devices {
		in(t, ns, func() error {
			link, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, mtu)
		})
	}
}

func testPacket(t testing.TB, ns string, cfg PacketConfig) *Packet {
	t.Helper()
	var p *Packet
	in(t, ns, func() (err error) { p, err = OpenPacket(cfg); return err })
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rawSocket is a plain packet socket, the far end a test can trust.
func rawSocket(t testing.TB, ns, dev string) int {
	t.Helper()
	var fd int
	in(t, ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		tv := unix.Timeval{Sec: 2}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return bindPacket(fd, unix.ETH_P_ALL, link.Attrs().Index)
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// ethtoolSet switches one offload of a device (legacy ethtool commands).
func ethtoolSet(dev string, cmd, value uint32) error {
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

// testFrame is an Ethernet frame of n octets, 60 at least, to a stranger, so
// that only a promiscuous device takes it, of an EtherType without protocol.
func testFrame(n int) *Frame {
	b := append([]byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, make([]byte, n-14)...)
	for i := range b[14:] {
		b[14+i] = byte(i * 7)
	}
	return newFrame(b)
}

// superframe is a TCP/IPv4 GSO frame with the given tags inline.
func superframe(payload int, tags ...uint32) *Frame {
	b := []byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1}
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint32(b, tag)
	}
	b = append(b, 8, 0)
	ip := len(b)
	b = append(b, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	binary.BigEndian.PutUint16(b[ip+2:], uint16(40+payload))
	b = append(b, 0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0)
	for i := range payload {
		b = append(b, byte(i*3+i>>8))
	}
	f := newFrame(b)
	f.VNet = VNetHdr{
		Flags: VNetNeedsCsum, GSOType: GSOTCPv4, GSOSize: 1400, HdrLen: uint16(len(b)),
		CsumStart: uint16(ip + 20), CsumOffset: 16,
	}
	return f
}
