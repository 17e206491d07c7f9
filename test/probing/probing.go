// Package probing measures what a path loses: it sends numbered datagrams at a
// steady rate and notes which arrive.
package probing

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

// Config is what a Probe does.
type Config struct {
	From, At  string // network namespaces of the sender and of the receiver
	To        netip.Addr
	Port      uint16
	Flows     int // several, as routers with equal paths choose by flow
	PerSecond int
	// Echo has the receiver send all back, and counts what the sender gets: the way
	// there and the way back.
	Echo bool
}

// Probe is a series of datagrams. Its methods are safe for concurrent use.
type Probe struct {
	flows   []*net.UDPConn
	sink    *net.UDPConn
	every   time.Duration
	stop    chan struct{}
	sender  sync.WaitGroup
	readers sync.WaitGroup

	mu     sync.Mutex
	sent   []time.Time // by number; flow = number modulo flows
	got    []bool
	strays int
}

const (
	// Straggler is how long a datagram may take before it counts as lost.
	Straggler = 500 * time.Millisecond
	// sinkBuffer holds what arrives while this process gets no processor for seconds;
	// the default, of 0.3 s, would have losses of ours counted as the path's.
	sinkBuffer = 16 << 20
	// catchUp bounds the burst with which the sender makes good a pause of its own.
	catchUp = 100 * time.Millisecond
)

// Start begins to send. The caller ends it, also if there is an error.
func Start(c Config) (*Probe, error) {
	p := &Probe{every: time.Second / time.Duration(c.PerSecond), stop: make(chan struct{})}
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.To, c.Port))
	err := netns.Do(c.At, func() (err error) {
		if p.sink, err = net.ListenUDP("udp", addr); err == nil {
			err = HoldAll(p.sink)
		}
		return err
	})
	for range c.Flows {
		if err != nil {
			return p, fmt.Errorf("start probe to %s: %w", c.To, err)
		}
		err = netns.Do(c.From, func() error {
			conn, err := net.DialUDP("udp", nil, addr)
			if err != nil {
				return err
			}
			p.flows = append(p.flows, conn)
			return HoldAll(conn)
		})
	}
	if err != nil {
		return p, fmt.Errorf("start probe to %s: %w", c.To, err)
	}
	if c.Echo {
		p.readers.Go(p.answer)
		for i, conn := range p.flows {
			p.readers.Go(func() { p.receive(conn, i) })
		}
	} else {
		p.readers.Go(func() { p.receive(p.sink, anyFlow) })
	}
	p.sender.Go(p.send)
	return p, nil
}

// HoldAll gives a socket a receive buffer of 16 MiB, whatever the system allows others.
func HoldAll(c *net.UDPConn) error {
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

// End stops sending, and returns when nothing of the probe runs any more.
func (p *Probe) End() {
	close(p.stop)
	p.sender.Wait()
	if p.sink != nil {
		p.sink.Close()
	}
	for _, c := range p.flows {
		c.Close()
	}
	p.readers.Wait()
}

// send keeps to the clock: after a pause of ours it catches up, if that was short.
func (p *Probe) send() {
	due := time.Now()
	payload := make([]byte, 64)
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(time.Until(due)):
		}
		now := time.Now()
		if now.Sub(due) > catchUp {
			due = now
		}
		for ; !due.After(now); due = due.Add(p.every) {
			p.mu.Lock()
			n := len(p.sent)
			p.sent, p.got = append(p.sent, time.Now()), append(p.got, false)
			p.mu.Unlock()
			binary.BigEndian.PutUint64(payload, uint64(n))
			_, _ = p.flows[n%len(p.flows)].Write(payload) // a loss that is counted
		}
	}
}

func (p *Probe) answer() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.sink.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.sink.WriteToUDPAddrPort(buf[:n], from) // a loss that is counted
		}
	}
}

const anyFlow = -1

// receive notes what arrives on a socket, for a flow alone or for all.
func (p *Probe) receive(conn *net.UDPConn, flow int) {
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue // ICMP errors come up here: the path is down for now
		}
		seq := binary.BigEndian.Uint64(buf)
		p.mu.Lock()
		if seq < uint64(len(p.got)) && (flow == anyFlow || int(seq)%len(p.flows) == flow) {
			p.got[seq] = true
		} else {
			p.strays++
		}
		p.mu.Unlock()
	}
}

// Next returns the number of the next datagram, to count from.
func (p *Probe) Next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// Strays counts what came with a number that was never sent, or on another flow.
func (p *Probe) Strays() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.strays
}

// RecentLosses counts those lost of the last d whose time is over.
func (p *Probe) RecentLosses(d time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.sent) - 1; i >= 0 && time.Since(p.sent[i]) < d+Straggler; i-- {
		if !p.got[i] && time.Since(p.sent[i]) > Straggler {
			n++
		}
	}
	return n
}

// Losses is what did not arrive.
type Losses struct {
	Sent, Lost  int
	First, Last time.Time // when the first and the last lost one were sent
	Flows       map[int]bool
}

// Outage is the time between the first and the last loss.
func (x Losses) Outage() time.Duration { return x.Last.Sub(x.First) }

func (x Losses) String() string {
	if x.Lost == 0 {
		return fmt.Sprintf("none of %d lost", x.Sent)
	}
	return fmt.Sprintf("%d of %d lost, on %d flows, first at %s, over %v", x.Lost, x.Sent,
		len(x.Flows), x.First.Format("15:04:05.000"), x.Outage().Round(time.Millisecond))
}

// Lost counts what did not arrive from number from until now, or may yet: such
// as are younger than Straggler are not counted, as sent or lost.
func (p *Probe) Lost(from int) Losses {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := from
	for to < len(p.sent) && time.Since(p.sent[to]) > Straggler {
		to++
	}
	return p.missing(from, to)
}

// Overtaken reports whether of each flow a datagram has arrived that was sent Straggler or
// more after number end was: what is missing then of those before end is lost.
func (p *Probe) Overtaken(end int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	flows := map[int]bool{}
	for i := len(p.sent) - 1; i >= end && p.sent[i].Sub(p.sent[end]) >= Straggler; i-- {
		if p.got[i] {
			flows[i%len(p.flows)] = true
		}
	}
	return len(flows) == len(p.flows)
}

// Missing counts what has not arrived yet of those with numbers from from to before to.
func (p *Probe) Missing(from, to int) Losses {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.missing(from, to)
}

func (p *Probe) missing(from, to int) Losses {
	x := Losses{Flows: map[int]bool{}}
	for i := from; i < to; i++ {
		if x.Sent++; p.got[i] {
			continue
		}
		if x.Lost++; x.Lost == 1 {
			x.First = p.sent[i]
		}
		x.Last = p.sent[i]
		x.Flows[i%len(p.flows)] = true
	}
	return x
}
