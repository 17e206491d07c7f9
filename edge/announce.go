package edge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/netns"
)

// Who has an address in a VNet is said here, by ARP (RFC 826) and neighbor
// discovery (RFC 4861): unasked when an address passes from one gateway instance to
// the other, and asked for those taken over. The kernel does not know these, as it
// has to go on resolving the MAC of the other instance; so they are answered for on
// a packet socket beside it, on the subinterface's TAP.

// announcer is that socket. Its methods are safe for concurrent use.
type announcer struct {
	file *os.File
	mac  port.MAC
	done sync.WaitGroup

	mu    sync.Mutex
	taken []netip.Addr // answered for
}

// newAnnouncer opens the socket on a TAP in a namespace.
func newAnnouncer(namespace string, t *tap) (*announcer, error) {
	a := &announcer{mac: t.mac}
	err := netns.Do(namespace, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		a.file = os.NewFile(uintptr(fd), "announcer")
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: t.link.Attrs().Index})
	})
	if err != nil {
		if a.file != nil {
			a.file.Close()
		}
		return nil, fmt.Errorf("open packet socket on TAP %s in namespace %s: %w", t.link.Attrs().Name, namespace, err)
	}
	a.done.Go(a.answer)
	return a, nil
}

func (a *announcer) close() {
	if a == nil {
		return
	}
	a.file.Close()
	a.done.Wait()
}

// take makes these the addresses that are answered for.
func (a *announcer) take(addrs []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = slices.Clone(addrs)
}

// announce tells all hosts that these addresses are at our MAC.
func (a *announcer) announce(addrs []netip.Addr) error {
	for _, addr := range addrs {
		if _, err := a.file.Write(announcement(a.mac, addr)); err != nil {
			return fmt.Errorf("announce %s: %w", addr, err)
		}
	}
	return nil
}

// answer answers for what is taken, until the socket is closed.
func (a *announcer) answer() {
	var frame [256]byte
	for {
		n, err := a.file.Read(frame[:])
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // the TAP is down, or gone: then another socket takes our place
			time.Sleep(watchAgain)
			continue
		}
		q, ok := parseQuestion(frame[:n])
		if !ok {
			continue
		}
		a.mu.Lock()
		ours := slices.Contains(a.taken, q.target)
		a.mu.Unlock()
		if ours {
			a.file.Write(reply(a.mac, q)) // one that is lost is asked again
		}
	}
}

// question asks who has target. asker is unspecified in a probe for duplicates.
type question struct {
	mac           port.MAC // of who asks
	asker, target netip.Addr
}

const (
	ethLen = 14
	arpLen = 28
	// Of ICMPv6, the addresses of a solicitation: its header and the target.
	ipv6Len, ndLen = 40, 24

	arpRequest, arpReply = 1, 2
	ndSolicitation       = 135
	ndAdvertisement      = 136
)

// Flags of a neighbor advertisement (RFC 4861 §4.4).
const (
	ndRouter    = 0x80
	ndSolicited = 0x40
	ndOverride  = 0x20
)

// arpHead is what an ARP packet for IPv4 over Ethernet begins with (RFC 826).
var arpHead = [6]byte{0, 1, 0x08, 0x00, 6, 4}

// parseQuestion reads an ARP request or a neighbor solicitation, Ethernet header
// included. What says itself that it has the address asks nothing.
func parseQuestion(b []byte) (q question, ok bool) {
	if len(b) < ethLen {
		return q, false
	}
	q.mac = port.MAC(b[6:12])
	etherType, b := binary.BigEndian.Uint16(b[12:]), b[ethLen:]
	switch {
	case etherType == unix.ETH_P_ARP && len(b) >= arpLen && [6]byte(b) == arpHead && binary.BigEndian.Uint16(b[6:]) == arpRequest:
		q.mac = port.MAC(b[8:14])
		q.asker, q.target = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	case etherType == unix.ETH_P_IPV6 && len(b) >= ipv6Len+ndLen && b[0]>>4 == 6 && b[6] == unix.IPPROTO_ICMPV6 &&
		b[7] == 255 && b[ipv6Len] == ndSolicitation && b[ipv6Len+1] == 0: // hop limit and code: RFC 4861 §7.1.1
		q.asker, q.target = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[ipv6Len+8:ipv6Len+24]))
	default:
		return q, false
	}
	return q, q.asker != q.target
}

// reply answers a question: mac has the target.
func reply(mac port.MAC, q question) []byte {
	if q.target.Is4() {
		return arp(arpReply, mac, q.target, q.mac, q.mac, q.asker)
	}
	if q.asker.IsUnspecified() { // RFC 4861 §7.2.4
		return advertisement(mac, q.target, allNodesMAC, netip.IPv6LinkLocalAllNodes(), ndRouter|ndOverride)
	}
	return advertisement(mac, q.target, q.mac, q.asker, ndRouter|ndSolicited|ndOverride)
}

var (
	broadcastMAC = port.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodesMAC  = port.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// announcement tells everybody that mac has addr (RFC 5227 §2.3, RFC 4861 §7.2.6).
func announcement(mac port.MAC, addr netip.Addr) []byte {
	if addr.Is4() {
		return arp(arpRequest, mac, addr, broadcastMAC, port.MAC{}, addr)
	}
	return advertisement(mac, addr, allNodesMAC, netip.IPv6LinkLocalAllNodes(), ndRouter|ndOverride)
}

// arp is an ARP packet in a frame to dest.
func arp(op uint16, mac port.MAC, sender netip.Addr, dest, targetMAC port.MAC, target netip.Addr) []byte {
	b := slices.Concat(dest[:], mac[:], []byte{0x08, 0x06}, arpHead[:])
	b = binary.BigEndian.AppendUint16(b, op)
	return slices.Concat(b, mac[:], sender.AsSlice(), targetMAC[:], target.AsSlice())
}

// advertisement is a neighbor advertisement in a frame to dest.
func advertisement(mac port.MAC, target netip.Addr, dest port.MAC, to netip.Addr, flags byte) []byte {
	icmp := []byte{ndAdvertisement, 0, 0, 0, flags, 0, 0, 0}
	icmp = slices.Concat(icmp, target.AsSlice(), []byte{2, 1}, mac[:]) // option: target link-layer address
	pseudo := slices.Concat(target.AsSlice(), to.AsSlice())
	sum := gso.Sum(pseudo, uint64(len(icmp))+unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], ^gso.Fold(gso.Sum(icmp, sum)))
	ip := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255}
	return slices.Concat(dest[:], mac[:], []byte{0x86, 0xdd}, ip, pseudo, icmp)
}
