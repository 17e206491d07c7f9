package main

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"msee/bfd"
	"msee/netns"
)

// downs notes when the MSEE says on the customer's link that a neighbor's
// detection time is over. It says so the moment that it knows; so what is lost of
// packets sent after that is what turning the traffic cost.
type downs struct {
	fd   int
	stop chan struct{}
	done sync.WaitGroup

	mu sync.Mutex
	at []time.Time // by the kernel's clock, as they arrived
}

// watchDowns looks at what arrives on a device. That comes before any filter,
// so that a link which nft makes dark is seen all the same.
func watchDowns(ns, device string) (*downs, error) {
	d := &downs{stop: make(chan struct{})}
	err := netns.Do(ns, func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if d.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return errors.Join(
			unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptTimeval(d.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(d.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}))
	})
	if err != nil {
		return nil, err
	}
	d.done.Go(d.read)
	return d, nil
}

func (d *downs) end() {
	close(d.stop)
	d.done.Wait()
	unix.Close(d.fd)
}

// since returns the first moment after that one that a session went down at; zero
// if none did.
func (d *downs) since(from time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.at {
		if at.After(from) {
			return at
		}
	}
	return time.Time{}
}

func (d *downs) read() {
	var frame [256]byte
	var control [128]byte
	for {
		select {
		case <-d.stop:
			return
		default:
		}
		n, oob, _, from, err := unix.Recvmsg(d.fd, frame[:], control[:], 0)
		if err != nil || !saysTimeExpired(frame[:n]) {
			continue
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue // the customer's own
		}
		at := time.Now()
		if messages, err := unix.ParseSocketControlMessage(control[:oob]); err == nil {
			for _, m := range messages {
				if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
					at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
				}
			}
		}
		d.mu.Lock()
		d.at = append(d.at, at)
		d.mu.Unlock()
	}
}

// saysTimeExpired reports whether a frame has a BFD packet over IPv4 that says
// Down, detection time expired. The VLAN's tag may be there or be in metadata.
func saysTimeExpired(b []byte) bool {
	const ethernet, ipv4, udp = 14, 20, 8
	if len(b) > ethernet+4 && binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_8021Q {
		b = b[4:]
	}
	if len(b) < ethernet+ipv4+udp || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP || b[ethernet] != 0x45 ||
		b[ethernet+9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[ethernet+ipv4+2:]) != bfd.ControlPort {
		return false
	}
	p, reason := bfd.Parse(b[ethernet+ipv4+udp:])
	return reason == bfd.Accepted && p.State == bfd.Down && p.Diag == bfd.DiagTimeExpired
}
