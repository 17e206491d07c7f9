package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"msee/netns"
)

// probe sends numbered datagrams one way at a steady rate, in several flows, as
// routers with equal paths choose by flow, and notes which arrive.
type probe struct {
	flows  []*net.UDPConn
	sink   *net.UDPConn
	every  time.Duration
	stop   chan struct{}
	sender sync.WaitGroup
	reader sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time // by number
	got  []bool
}

const (
	probePort  = 9000
	probeFlows = 32
	// straggler is how long a datagram may take before it counts as lost.
	straggler = 300 * time.Millisecond
)

func startProbe(from, at string, to netip.Addr, rate int) (*probe, error) {
	p := &probe{every: time.Second / time.Duration(rate), stop: make(chan struct{})}
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, probePort))
	err := netns.Do(at, func() (err error) {
		if p.sink, err = net.ListenUDP("udp", addr); err != nil {
			return err
		}
		return holdAll(p.sink)
	})
	for range probeFlows {
		if err != nil {
			return nil, fmt.Errorf("start probe to %s: %w", to, err)
		}
		err = netns.Do(from, func() error {
			c, err := net.DialUDP("udp", nil, addr)
			p.flows = append(p.flows, c)
			return err
		})
	}
	p.reader.Go(p.receive)
	p.sender.Go(p.send)
	return p, err
}

// sinkBuffer holds what arrives while this process gets no processor for seconds;
// the default, of 0.3 s, would have losses of ours counted as the router's.
const sinkBuffer = 16 << 20

// holdAll gives a socket that buffer, whatever the system allows others.
func holdAll(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer)
	})
	return errors.Join(err, failed)
}

func (p *probe) end() {
	close(p.stop)
	p.sender.Wait()
	p.sink.Close()
	for _, c := range p.flows {
		c.Close()
	}
	p.reader.Wait()
}

// send keeps to the clock: after a pause of ours it catches up.
func (p *probe) send() {
	began := time.Now()
	payload := make([]byte, 64)
	for n := 0; ; {
		select {
		case <-p.stop:
			return
		case <-time.After(p.every):
		}
		for ; time.Duration(n)*p.every < time.Since(began); n++ {
			p.mu.Lock()
			p.sent, p.got = append(p.sent, time.Now()), append(p.got, false)
			p.mu.Unlock()
			binary.BigEndian.PutUint64(payload, uint64(n))
			_, _ = p.flows[n%len(p.flows)].Write(payload) // a loss that is counted
		}
	}
}

func (p *probe) receive() {
	buf := make([]byte, 128)
	for {
		n, err := p.sink.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue
		}
		seq := binary.BigEndian.Uint64(buf)
		p.mu.Lock()
		if seq < uint64(len(p.got)) {
			p.got[seq] = true
		}
		p.mu.Unlock()
	}
}

// next returns the number of the next datagram.
func (p *probe) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// recentLosses counts those lost of the last d whose time is over.
func (p *probe) recentLosses(d time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.sent) - 1; i >= 0 && time.Since(p.sent[i]) < d+straggler; i-- {
		if !p.got[i] && time.Since(p.sent[i]) > straggler {
			n++
		}
	}
	return n
}

// loss is what did not arrive.
type loss struct {
	packets int
	dark    time.Duration // from the first lost to the last, and one interval
	last    time.Time     // the last lost was sent
	// afterDetection is how long after the MSEE's BFD had noticed the last one lost
	// was sent, if it has noticed; negative if none was lost after that.
	afterDetection time.Duration
	detected       bool
}

// lost counts what did not arrive from number from on.
func (p *probe) lost(from int) (l loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for i := from; i < len(p.sent); i++ {
		if p.got[i] || time.Since(p.sent[i]) < straggler {
			continue
		}
		if l.packets++; l.packets == 1 {
			first = p.sent[i]
		}
		l.last = p.sent[i]
	}
	if l.packets > 0 {
		l.dark = l.last.Sub(first) + p.every
	}
	return l
}
