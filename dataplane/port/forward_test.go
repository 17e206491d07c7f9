package port

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cable forwards between two ports, unchanged, until stop is closed: the
// smallest worker there is.
type cable struct {
	ports   [2]Port
	senders [2]Sender
	longest atomic.Int64
	frames  atomic.Int64
	octets  atomic.Int64
	lost    atomic.Int64
	stop    atomic.Bool
	done    chan error
}

func startCable(t testing.TB, a, b Port) *cable {
	t.Helper()
	c := &cable{ports: [2]Port{a, b}, done: make(chan error, 1)}
	for i, p := range c.ports {
		c.senders[i] = newTestSender(t, p)
	}
	go func() { c.done <- c.run() }()
	t.Cleanup(func() {
		c.stop.Store(true)
		if err := <-c.done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cable) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fds := []unix.PollFd{{Fd: int32(c.ports[0].FD()), Events: unix.POLLIN}, {Fd: int32(c.ports[1].FD()), Events: unix.POLLIN}}
	batch, out := make([]Frame, BatchSize), make([]*Frame, BatchSize)
	for i := range batch {
		out[i] = &batch[i]
	}
	for !c.stop.Load() {
		busy := false
		for i, p := range c.ports {
			n, err := p.Recv(batch)
			if err != nil {
				return err
			}
			for _, f := range out[:n] {
				c.longest.Store(max(c.longest.Load(), int64(f.Len())))
				c.octets.Add(int64(f.Len()))
			}
			sent := 0
			if n > 0 {
				sent, _ = c.senders[1-i].Send(out[:n])
			}
			c.frames.Add(int64(n))
			c.lost.Add(int64(n - sent))
			p.Release()
			busy = busy || n > 0
		}
		if !busy {
			unix.Poll(fds, 100)
		}
	}
	return nil
}

// TestSuperframesForwardedWhole: two kernels speak TCP through two packet
// ports; the data arrives intact, in frames far longer than the MTU.
func TestSuperframesForwardedWhole(t *testing.T) {
	nsA, nsR, nsB := testNS(t, "a"), testNS(t, "r"), testNS(t, "b")
	testVeth(t, nsA, "a0", nsR, "r0")
	testVeth(t, nsB, "b0", nsR, "r1")
	in(t, nsA, func() error { return addAddr("a0", "192.0.2.1/24") })
	in(t, nsB, func() error { return addAddr("b0", "192.0.2.2/24") })
	p := testPacket(t, nsR, PacketConfig{Device: "r0"})
	q := testPacket(t, nsR, PacketConfig{Device: "r1"})
	c := startCable(t, p, q)

	transfer(t, nsA, nsB)
	if n := c.longest.Load(); n < 20000 {
		t.Errorf("the longest frame had %d octets, want more than 20000", n)
	}
}

// transfer sends 32 MiB by TCP from one namespace to 192.0.2.2 in another, and
// expects them there, intact.
func transfer(t *testing.T, nsA, nsB string) {
	t.Helper()
	var ln net.Listener
	in(t, nsB, func() (err error) { ln, err = net.Listen("tcp", "192.0.2.2:7000"); return err })
	defer ln.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer conn.Close()
		h := sha256.New()
		io.Copy(h, conn)
		got <- h.Sum(nil)
	}()
	data := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	in(t, nsA, func() error {
		conn, err := net.DialTimeout("tcp", "192.0.2.2:7000", 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		_, err = conn.Write(data)
		return err
	})
	want := sha256.Sum256(data)
	select {
	case sum := <-got:
		if !bytes.Equal(sum, want[:]) {
			t.Error("the data did not arrive intact")
		}
	case <-time.After(time.Minute):
		t.Fatal("the data did not arrive")
	}
}

// datagrams sends by UDP from one namespace to 192.0.2.2 in another, one at a
// time, and expects all of them there.
func datagrams(t *testing.T, nsA, nsB string) {
	t.Helper()
	var far net.PacketConn
	in(t, nsB, func() (err error) { far, err = net.ListenPacket("udp4", "192.0.2.2:7001"); return err })
	defer far.Close()
	far.SetDeadline(time.Now().Add(20 * time.Second))
	var near net.Conn
	in(t, nsA, func() (err error) { near, err = net.Dial("udp4", "192.0.2.2:7001"); return err })
	defer near.Close()
	got := make([]byte, 2000)
	for size := range 200 { // even and odd
		want := bytes.Repeat([]byte{byte(size) + 1}, size*7%1400)
		if _, err := near.Write(want); err != nil {
			t.Fatal(err)
		}
		n, _, err := far.ReadFrom(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("datagram of %d octets: got %d, %v", len(want), n, err)
		}
	}
}
