package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"msee/netns"
)

const (
	isolationPackets = 20
	isolationWait    = time.Second // for stragglers, after the last packet
)

// isolation sends UDP packets with a random payload and looks for it on every
// interface of the nodes that must never see it, and of the one that must.
func isolation(ctx context.Context, lab string, t *Topology, c *Probe) (string, error) {
	token := []byte(rand.Text())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watchers := map[string]<-chan int{}
	for _, name := range append([]string{c.At}, c.Not...) {
		seen, err := watch(ctx, instance(lab, name), token)
		if err != nil {
			return "", fmt.Errorf("capture on %s: %w", name, err)
		}
		watchers[name] = seen
	}
	if err := sendTokens(ctx, instance(lab, c.From), c.To, token); err != nil {
		return "", err
	}
	select {
	case <-ctx.Done():
	case <-time.After(isolationWait):
	}
	stop()
	if <-watchers[c.At] == 0 {
		return "", fmt.Errorf("nothing arrived at %s", c.At)
	}
	var leaks []string
	for _, name := range c.Not {
		if n := <-watchers[name]; n > 0 {
			leaks = append(leaks, fmt.Sprintf("%d frames at %s", n, name))
		}
	}
	if len(leaks) > 0 {
		return "", errors.New("LEAK: " + strings.Join(leaks, ", "))
	}
	return fmt.Sprintf("arrived at %s, never seen at %s", c.At, strings.Join(c.Not, ", ")), nil
}

func sendTokens(ctx context.Context, ns string, to netip.Addr, token []byte) error {
	var conn net.Conn
	err := netns.Do(ns, func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discardPort)))
		return err
	})
	if err != nil {
		return fmt.Errorf("send probes to %s: %w", to, err)
	}
	defer conn.Close()
	for range isolationPackets {
		// ICMP's port unreachable comes back here; it is not ours to judge.
		_, _ = conn.Write(token)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

const discardPort = 9 // RFC 863

// watch counts the frames of a namespace, in or out of any interface, that have
// the token in them. The count is sent when ctx ends.
func watch(ctx context.Context, ns string, token []byte) (<-chan int, error) {
	var fd int
	err := netns.Do(ns, func() (err error) {
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		return err
	})
	if err != nil {
		return nil, err
	}
	timeout := unix.Timeval{Usec: 50_000} // how soon ctx is noticed
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, err
	}
	seen := make(chan int, 1)
	go func() {
		defer unix.Close(fd)
		count, frame := 0, make([]byte, 65536)
		for ctx.Err() == nil {
			n, _, err := unix.Recvfrom(fd, frame, 0)
			if err == nil && bytes.Contains(frame[:n], token) {
				count++
			}
		}
		seen <- count
	}()
	return seen, nil
}
