package test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"msee/netns"
)

// probe sends numbered UDP datagrams in several flows to an echo server, at a
// steady rate, and notes which come back. Several flows, as routers with equal
// paths choose by flow.
type probe struct {
	flows   []*net.UDPConn
	echo    *net.UDPConn
	every   time.Duration
	stop    chan struct{}
	sender  sync.WaitGroup
	readers sync.WaitGroup

	mu     sync.Mutex
	sent   []time.Time // by sequence number; flow = number modulo flows
	got    []bool
	strays int // with a number that was never sent, or on another flow
}

const probePort = 7 // echo, RFC 862

// startProbe sends perSecond datagrams per second from node from to the address
// to of node at, spread over flows. It ends with the test.
func (l *testLab) startProbe(from, at, to string, flows, perSecond int) *probe {
	l.t.Helper()
	p := &probe{every: time.Second / time.Duration(perSecond), stop: make(chan struct{})}
	server := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), probePort))
	err := netns.Do(l.ns(at), func() (err error) {
		p.echo, err = net.ListenUDP("udp", server)
		return err
	})
	if err != nil {
		l.t.Fatalf("listen for probes at %s: %v", at, err)
	}
	for range flows {
		err := netns.Do(l.ns(from), func() error {
			conn, err := net.DialUDP("udp", nil, server)
			p.flows = append(p.flows, conn)
			return err
		})
		if err != nil {
			l.t.Fatalf("send probes from %s: %v", from, err)
		}
	}
	p.readers.Go(p.answer)
	for i, conn := range p.flows {
		p.readers.Go(func() { p.receive(i, conn) })
	}
	p.sender.Go(p.send)
	l.t.Cleanup(p.end)
	return p
}

func (p *probe) end() {
	close(p.stop)
	p.sender.Wait()
	p.echo.Close()
	for _, c := range p.flows {
		c.Close()
	}
	p.readers.Wait()
}

func (p *probe) answer() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.echo.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.echo.WriteToUDPAddrPort(buf[:n], from) // a loss that is counted
		}
	}
}

func (p *probe) receive(flow int, conn *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue // ICMP errors come up here: the path is down for now
		}
		seq := int(binary.BigEndian.Uint64(buf))
		p.mu.Lock()
		if seq < len(p.got) && seq%len(p.flows) == flow {
			p.got[seq] = true
		} else {
			p.strays++
		}
		p.mu.Unlock()
	}
}

func (p *probe) send() {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	payload := make([]byte, 64)
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		seq := len(p.sent)
		p.sent, p.got = append(p.sent, time.Now()), append(p.got, false)
		p.mu.Unlock()
		binary.BigEndian.PutUint64(payload, uint64(seq))
		_, _ = p.flows[seq%len(p.flows)].Write(payload) // a loss that is counted
	}
}

// straggler is how long an answer may take before its probe counts as lost.
const straggler = 500 * time.Millisecond

// now returns the number of the next probe, to count from.
func (p *probe) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// healthy waits until, from now on, nothing was lost on any flow for a second.
func (p *probe) healthy(t testing.TB, within time.Duration) {
	t.Helper()
	good := p.now() // the first of a series without loss
	eventually(t, within, "all probes answered", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for seq := good; seq < len(p.sent); seq++ {
			age := time.Since(p.sent[seq])
			switch {
			case age < straggler:
				return fmt.Errorf("last lost: probe %d of flow %d", good-1, (good-1)%len(p.flows))
			case !p.got[seq]:
				good = seq + 1
			case p.sent[seq].Sub(p.sent[good]) >= time.Second && seq-good >= len(p.flows):
				return nil
			}
		}
		return errors.New("none sent")
	})
}

// losses are probes that were not answered.
type losses struct {
	sent, lost  int
	first, last time.Time // when the first and the last lost one were sent
	flows       map[int]bool
}

// outage is the time between the first and the last loss.
func (x losses) outage() time.Duration { return x.last.Sub(x.first) }

func (x losses) String() string {
	if x.lost == 0 {
		return fmt.Sprintf("none of %d lost", x.sent)
	}
	return fmt.Sprintf("%d of %d lost, on %d flows, first at %s, over %v", x.lost, x.sent,
		len(x.flows), x.first.Format("15:04:05.000"), x.outage().Round(time.Millisecond))
}

// since counts the losses among probes from number begin to now, once their
// answers have had time to come.
func (p *probe) since(t testing.TB, begin int) losses {
	t.Helper()
	end := p.now()
	time.Sleep(straggler) // an answer that is not there yet cannot be polled for
	p.mu.Lock()
	defer p.mu.Unlock()
	x := losses{sent: end - begin, flows: map[int]bool{}}
	for seq := begin; seq < end; seq++ {
		if p.got[seq] {
			continue
		}
		if x.lost == 0 {
			x.first = p.sent[seq]
		}
		x.lost++
		x.last = p.sent[seq]
		x.flows[seq%len(p.flows)] = true
	}
	if p.strays > 0 {
		t.Errorf("%d answers to probes that were never sent", p.strays)
	}
	return x
}
