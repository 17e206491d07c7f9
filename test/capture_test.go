package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"msee/netns"
)

// capture keeps every frame that a namespace's devices receive or send.
type capture struct {
	fd   int
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	frames []captured
	until  time.Time // when it was ended; zero before
}

// captured is a frame as it was on the wire, tags included.
type captured struct {
	at       time.Time // by the kernel's clock
	outgoing bool
	data     []byte
}

// startCapture captures in a namespace on one device, or on all if device is "".
// What an MSEE or gateway sends does not show in its own namespace, as its
// ports bypass the queueing discipline; it does at the other end of the link.
func (l *testLab) startCapture(ns, device string) *capture {
	l.t.Helper()
	c := &capture{stop: make(chan struct{})}
	err := netns.Do(ns, func() (err error) {
		at := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}
		if device != "" {
			dev, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			at.Ifindex = dev.Index
		}
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(c.fd, &at)
	})
	if err != nil {
		l.t.Fatalf("capture in %s: %v", ns, err)
	}
	for _, err := range []error{
		unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
	} {
		if err != nil {
			l.t.Fatalf("capture in %s: %v", ns, err)
		}
	}
	c.done.Go(c.read)
	l.t.Cleanup(func() { c.end() })
	return c
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// end stops the capture and returns its frames. It may be called again.
func (c *capture) end() []captured {
	c.mu.Lock()
	select {
	case <-c.stop:
	default:
		c.until = time.Now()
		close(c.stop)
	}
	c.mu.Unlock()
	c.done.Wait()
	return c.frames
}

// with counts the frames that have the marker in them, and that are echo
// messages.
func with(frames []captured, marker []byte) (marked, echoes int) {
	for _, f := range frames {
		if bytes.Contains(f.data, marker) {
			marked++
		}
		if _, etherType, payload := f.parse(); echo(etherType, payload) != "" {
			echoes++
		}
	}
	return marked, echoes
}

func (c *capture) read() {
	defer unix.Close(c.fd)
	buf, control := make([]byte, 128<<10), make([]byte, 256)
	for {
		n, controlLen, _, from, err := unix.Recvmsg(c.fd, buf, control, 0)
		if err != nil || n < 12 {
			select {
			case <-c.stop:
				return // after the queue has run dry
			default:
				continue
			}
		}
		at, _ := from.(*unix.SockaddrLinklayer)
		f := captured{outgoing: at.Pkttype == unix.PACKET_OUTGOING}
		f.data, f.at = withTag(buf[:n], control[:controlLen])
		c.mu.Lock()
		over := !c.until.IsZero() && f.at.After(c.until) // the queue may never run dry
		if !over {
			c.frames = append(c.frames, f)
		}
		c.mu.Unlock()
		if over {
			return
		}
	}
}

// withTag copies a frame and puts the tag back in that the kernel took out
// (packet(7), PACKET_AUXDATA). It also returns when the kernel had the frame.
func withTag(frame, control []byte) (out []byte, when time.Time) {
	out = bytes.Clone(frame)
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return out, when
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			when = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA ||
			len(m.Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, aux.Vlan_tpid)
		tag = binary.BigEndian.AppendUint16(tag, aux.Vlan_tci)
		out = append(append(bytes.Clone(frame[:12]), tag...), frame[12:]...)
	}
	return out, when
}

// tag is an 802.1Q tag.
type tag struct{ tpid, vid uint16 }

func (t tag) String() string { return fmt.Sprintf("%#04x/%d", t.tpid, t.vid) }

// parse splits a frame into its tags, the EtherType behind them and the rest.
func (f captured) parse() (tags []tag, etherType uint16, payload []byte) {
	at := 12
	for ; at+4 <= len(f.data); at += 4 {
		tpid := binary.BigEndian.Uint16(f.data[at:])
		if tpid != 0x8100 && tpid != 0x88a8 {
			break
		}
		tags = append(tags, tag{tpid, binary.BigEndian.Uint16(f.data[at+2:]) & 0xfff})
	}
	if at+2 > len(f.data) {
		return tags, 0, nil
	}
	return tags, binary.BigEndian.Uint16(f.data[at:]), f.data[at+2:]
}

// echo returns the type of an ICMP or ICMPv6 echo message in an IP packet
// without extension headers: "request", "reply", or "" if it is something else.
func echo(etherType uint16, ip []byte) string {
	kinds := map[byte]string{}
	at := 0
	switch {
	case etherType == 0x0800 && len(ip) >= 20 && ip[9] == 1:
		at, kinds = int(ip[0]&15)*4, map[byte]string{8: "request", 0: "reply"}
	case etherType == 0x86dd && len(ip) >= 40 && ip[6] == 58:
		at, kinds = 40, map[byte]string{128: "request", 129: "reply"}
	}
	if at == 0 || at >= len(ip) {
		return ""
	}
	return kinds[ip[at]]
}

// settle is how long a frame on its way may take to show at a capture.
const settle = 300 * time.Millisecond
