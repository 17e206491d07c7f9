package test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/netns"
)

// TestOverlap has two customers with the same addresses, peering subnets and
// VLANs. Each works, and nothing of one ever shows at the other.
func TestOverlap(t *testing.T) {
	l := startLab(t, topology(t, "overlap"), "gw-a0", "gw-a1", "gw-b0", "gw-b1")
	t.Run("both work", func(t *testing.T) { bothWork(t, l.in(t)) })
	t.Run("a unseen at b", func(t *testing.T) { unseen(t, l.in(t), "a", "b", 201) })
	t.Run("b unseen at a", func(t *testing.T) { unseen(t, l.in(t), "b", "a", 200) })
	t.Run("fragments", func(t *testing.T) { fragments(t, l.in(t)) })
}

// bothWork probes both customers' VNets at once; an answer to the other's probe
// would count as a stray.
func bothWork(t *testing.T, l *testLab) {
	a := l.startProbe("onprem-a", "vm-a", "10.100.1.10", probeFlows, probeRate)
	b := l.startProbe("onprem-b", "vm-b", "10.100.1.10", probeFlows, probeRate)
	a.healthy(t, 20*time.Second)
	b.healthy(t, 20*time.Second)
	for name, p := range map[string]*probe{"a": a, "b": b} {
		if x := p.since(t, p.now()-probeRate); x.lost > 0 {
			t.Errorf("customer %s: %v", name, x)
		}
	}
}

// unseen sends a marker over all of customer from's network, and captures all of
// customer at's links. coreVLAN is the VLAN of at's VNet between MSEEs and
// gateways, on a switch that both share.
func unseen(t *testing.T, l *testLab, from, at string, coreVLAN uint16) {
	marker := make([]byte, 16) // as much as ping takes
	rand.Read(marker)
	arrived := map[string]*capture{}
	for _, node := range []string{"onprem-", "ce-", "vm-"} {
		arrived[node+from] = l.startCapture(l.ns(node+from), "")
	}
	never := map[string]*capture{}
	port := map[string]string{"a": "eth1", "b": "eth2"}[at]
	for _, where := range []struct{ ns, device string }{
		{"onprem-" + at, ""}, {"ce-" + at, ""}, {"vnet-" + at, ""}, {"vm-" + at, ""},
		{"msee1", port}, {"msee2", port}, {"msee1.er-" + at + "-private", ""}, {"msee2.er-" + at + "-private", ""},
		{"gw-" + at + "0", "eth2"}, {"gw-" + at + "1", "eth2"},
		{"gw-" + at + "0.vnet-" + at, ""}, {"gw-" + at + "1.vnet-" + at, ""},
	} {
		never[where.ns+" "+where.device] = l.startCapture(l.ns(where.ns), where.device)
	}
	core := l.startCapture(l.ns("core"), "")

	sendMarker(t, l, from, marker)
	time.Sleep(settle)

	for node, c := range arrived {
		if marked, _ := with(c.end(), marker); marked == 0 {
			t.Errorf("nothing of it was captured at %s, where it should be", node)
		}
	}
	for node, c := range never {
		if marked, echoes := with(c.end(), marker); marked > 0 || echoes > 0 {
			t.Errorf("LEAK: %d frames with the marker and %d echo messages at %s", marked, echoes, node)
		}
	}
	for _, f := range core.end() {
		if tags, _, _ := f.parse(); len(tags) == 1 && tags[0].vid == coreVLAN && bytes.Contains(f.data, marker) {
			t.Errorf("LEAK: a frame with the marker in VLAN %d", coreVLAN)
			break
		}
	}
}

// sendMarker makes echo messages, UDP and TCP of one customer, to its VNet and
// to the MSEEs, that all have the marker in them.
func sendMarker(t *testing.T, l *testLab, customer string, marker []byte) {
	pattern := hex.EncodeToString(marker)
	for _, c := range []struct{ from, to, size string }{
		{"onprem-", "10.100.1.10", "56"}, {"onprem-", "fd00:100:0:1::10", "56"}, {"vm-", "10.1.0.10", "56"},
		{"ce-", "192.168.15.18", "4000"}, // in fragments
		{"ce-", "192.168.15.18", "56"}, {"ce-", "192.168.15.22", "56"}, {"ce-", "2001:db8:0:10::2", "56"},
	} {
		l.pings(c.from+customer, c.to, "-p", pattern, "-s", c.size)
	}
	// Fragments cross the MSEEs and end at the gateways: no answer comes.
	_, _ = l.try("onprem-"+customer, "ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", "-p", pattern, "-s", "4000", "10.100.1.10")
	tcpMarker(t, l, customer, bytes.Repeat(marker, 1<<18)) // 4 MiB, in superframes
	to := netip.MustParseAddrPort("10.100.1.10:9")         // discard, RFC 863
	err := netns.Do(l.ns("onprem-"+customer), func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range 50 {
			_, _ = conn.Write(marker) // the VM's ICMP errors come back here
		}
		return nil
	})
	if err != nil {
		t.Errorf("send UDP: %v", err)
	}
}

// tcpMarker sends data from on-premises to the VM and back.
func tcpMarker(t *testing.T, l *testLab, customer string, data []byte) {
	t.Helper()
	addr := netip.MustParseAddrPort("10.100.1.10:7001")
	var listener *net.TCPListener
	err := netns.Do(l.ns("vm-"+customer), func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer listener.Close()
	var server sync.WaitGroup
	defer server.Wait()
	server.Go(func() {
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // the client checks what comes back
		}
	})
	var conn *net.TCPConn
	err = netns.Do(l.ns("onprem-"+customer), func() (err error) {
		conn, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		t.Errorf("dial: %v", err)
		listener.Close()
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		_, _ = conn.Write(data) // the reader below misses what is not written
		conn.CloseWrite()
	}()
	if back, err := io.ReadAll(conn); err != nil || !bytes.Equal(back, data) {
		t.Errorf("TCP: %d of %d octets came back as they were: %v", len(back), len(data), err)
	}
}

// fragments sends echo requests of both customers to the same address of the
// MSEE, in fragments with the same identification, in turn. Reassembled in one
// place they would mix.
func fragments(t *testing.T, l *testLab) {
	a, b := newFragmenter(t, l, "ce-a", 'A'), newFragmenter(t, l, "ce-b", 'B')
	l.pings("ce-a", "192.168.15.18")
	l.pings("ce-b", "192.168.15.18")
	const rounds = 50
	for id := range uint16(rounds) {
		a.send(t, id, 0)
		b.send(t, id, 0)
		b.send(t, id, 1)
		a.send(t, id, 1)
		a.await(t, int(id)+1)
		b.await(t, int(id)+1)
	}
	// Halves of two different customers are no whole.
	a.send(t, rounds, 0)
	b.send(t, rounds, 1)
	time.Sleep(settle)
	if n, _ := a.replies(); n != rounds {
		t.Errorf("LEAK: an echo request was made of two customers' fragments")
	}
	if n, _ := b.replies(); n != rounds {
		t.Errorf("LEAK: an echo request was made of two customers' fragments")
	}
	a.send(t, rounds, 1) // the first half did arrive
	a.await(t, rounds+1)
	for _, f := range []*fragmenter{a, b} {
		if _, foreign := f.replies(); foreign > 0 {
			t.Errorf("LEAK: %d echo replies with octets other than %q", foreign, f.fill)
		}
	}
}

// fragmenter sends fragments of echo requests from a CE to the MSEE's peering
// address, and counts the replies.
type fragmenter struct {
	fd   int
	fill byte

	mu      sync.Mutex
	count   int // replies
	foreign int // those that are not all fill
}

var peering = struct{ ce, msee [4]byte }{[4]byte{192, 168, 15, 17}, [4]byte{192, 168, 15, 18}}

const (
	echoID   = 0x4d53
	echoData = 2392 // octets, so that the two halves are multiples of eight
)

func newFragmenter(t *testing.T, l *testLab, node string, fill byte) *fragmenter {
	t.Helper()
	f := &fragmenter{fill: fill}
	var replies net.PacketConn
	err := netns.Do(l.ns(node), func() (err error) {
		if replies, err = net.ListenPacket("ip4:icmp", "0.0.0.0"); err != nil {
			return err
		}
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() { f.read(replies) })
	t.Cleanup(func() {
		replies.Close()
		reader.Wait()
		unix.Close(f.fd)
	})
	return f
}

// send sends the first (0) or second (1) half of the request number id.
func (f *fragmenter) send(t *testing.T, id uint16, half int) {
	t.Helper()
	icmp := []byte{8, 0, 0, 0}
	icmp = binary.BigEndian.AppendUint16(icmp, echoID)
	icmp = binary.BigEndian.AppendUint16(icmp, id)
	icmp = append(icmp, bytes.Repeat([]byte{f.fill}, echoData)...)
	binary.BigEndian.PutUint16(icmp[2:], internetChecksum(icmp))
	payload, offset, more := icmp[:len(icmp)/2], 0, 0x2000
	if half == 1 {
		payload, offset, more = icmp[len(icmp)/2:], len(icmp)/2/8, 0
	}
	ip := []byte{0x45, 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(payload)))
	ip = binary.BigEndian.AppendUint16(ip, 0x1000+id) // not 0, which the kernel would replace
	ip = binary.BigEndian.AppendUint16(ip, uint16(offset|more))
	ip = append(ip, 64, unix.IPPROTO_ICMP, 0, 0) // the kernel fills in the checksum
	ip = append(ip, peering.ce[:]...)
	ip = append(ip, peering.msee[:]...)
	if err := unix.Sendto(f.fd, append(ip, payload...), 0, &unix.SockaddrInet4{Addr: peering.msee}); err != nil {
		t.Fatalf("send fragment: %v", err)
	}
}

// internetChecksum is RFC 1071's, of an even number of octets.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (f *fragmenter) read(replies net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := replies.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		if n < 8 || buf[0] != 0 || binary.BigEndian.Uint16(buf[4:]) != echoID {
			continue // not one of ours
		}
		f.mu.Lock()
		f.count++
		if !bytes.Equal(buf[8:n], bytes.Repeat([]byte{f.fill}, echoData)) {
			f.foreign++
		}
		f.mu.Unlock()
	}
}

// replies returns how many there were, and those of them with others' octets.
func (f *fragmenter) replies() (all, foreign int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count, f.foreign
}

func (f *fragmenter) await(t *testing.T, want int) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("reply %d to %q", want, f.fill), func() error {
		if got, _ := f.replies(); got != want {
			return fmt.Errorf("%d replies", got)
		}
		return nil
	})
}
