package speaker

import (
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// peek calls got with the next whole BGP message of c, leaving it to be read by
// GoBGP. It returns when it has the connection's read lock; got is called on
// another goroutine, before any other reader sees a byte of the message, and
// with an error if there is none to come.
//
// GoBGP tells nobody what the peer's OPEN said, and forgets the NOTIFICATION
// that answers ours; the operator needs both, and a connection collision cannot
// be resolved without the peer's identifier (RFC 4271 §6.8).
func peek(c *net.TCPConn, got func(message []byte, err error)) {
	locked := make(chan struct{})
	go func() {
		var m []byte
		var err error
		first := true
		raw, rawErr := c.SyscallConn()
		if rawErr != nil {
			close(locked)
			got(nil, fmt.Errorf("peek at connection: %w", rawErr))
			return
		}
		rawErr = raw.Read(func(fd uintptr) bool {
			if first {
				first = false
				close(locked)
			}
			var done bool
			if m, done, err = peekFD(int(fd)); done {
				got(m, err)
			}
			return done // false: wait for more to arrive
		})
		if rawErr == nil {
			return
		}
		if first {
			close(locked)
		}
		got(nil, fmt.Errorf("peek at connection: %w", rawErr))
	}()
	<-locked
}

// peekFD looks for a whole message at the head of the receive queue.
func peekFD(fd int) (m []byte, done bool, err error) {
	buf := make([]byte, maxMessage)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil, false, nil
		case err != nil:
			return nil, true, fmt.Errorf("peek at connection: %w", err)
		case n == 0:
			return nil, true, io.EOF
		}
		size, err := messageLen(buf[:n])
		if err != nil {
			return nil, true, err
		}
		if size == 0 || n < size {
			return nil, false, nil
		}
		return buf[:size], true, nil
	}
}
