package test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/bfd"
	"msee/dataplane"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/edge"
	"msee/netns"
	"msee/vlan"
)

// TestTurnOnTheWire: a router on real links, all of whose routes lead to one neighbor with
// another one behind it, loses the first while numbered frames pass. From the moment that
// it says so on the wire, none leaves there any more, but what a worker had in hand, and not
// one is lost; with 100 routes as with 100,000. How long that took is logged.
func TestTurnOnTheWire(t *testing.T) {
	needsLab(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 4))
	if err := edge.Hasten(); err != nil {
		t.Fatal(err)
	}
	defer edge.Unhasten()
	for _, routes := range []int{100, 100_000} {
		t.Run(fmt.Sprint(routes), func(t *testing.T) {
			w := newTurnWire(t, routes)
			w.run(t)
		})
	}
}

// turnWire is that router, with its neighbors' ends of the links in a namespace.
type turnWire struct {
	far     string // the namespace
	engines [2]*dataplane.Engine
	mine    *dataplane.BFDSession
	in      port.MAC
	to      [4]byte // where the frames go
}

// The links: frames come in by the first, and leave by the second as long as its
// neighbor lives.
var turnDevices = []string{"turn0", "turn1", "turn2"}

func newTurnWire(t *testing.T, routes int) *turnWire {
	w := &turnWire{far: "turn.far", to: [4]byte{100, 0, byte(routes / 2 >> 8), byte(routes / 2)}}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ip("netns", "add", w.far)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", w.far).Run() })
	var ports [3]port.Port
	var far [3]port.MAC
	var live port.Port // of the neighbor that will die
	for i, dev := range turnDevices {
		ip("link", "add", "name", dev, "type", "veth", "peer", "name", dev, "netns", w.far)
		t.Cleanup(func() { exec.Command("ip", "link", "del", dev).Run() })
		ip("link", "set", dev, "up")
		ip("-n", w.far, "link", "set", dev, "up")
		err := netns.Do(w.far, func() error {
			d, err := net.InterfaceByName(dev)
			if err == nil {
				far[i] = port.MAC(d.HardwareAddr)
			}
			if err == nil && i == 1 {
				live, err = port.OpenPacket(port.PacketConfig{Device: dev})
			}
			return err
		})
		if err == nil {
			ports[i], err = port.OpenPacket(port.PacketConfig{Device: dev})
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ports[i].Close() })
	}
	t.Cleanup(func() { live.Close() })
	w.in = ports[0].MAC()

	var subs []*dataplane.Subinterface
	var neighbors []*dataplane.Adjacency
	for i := range ports {
		s, a := turnNeighbor(i, 1, ports[i].MAC(), far[i])
		subs, neighbors = append(subs, s), append(neighbors, a)
	}
	group := &dataplane.NextHopGroup{Kind: dataplane.Forward, Members: neighbors[1:2], Backup: neighbors[2:3]}
	var changes []fib.Change[*dataplane.NextHopGroup]
	for n := range routes {
		a := netip.AddrFrom4([4]byte{100, byte(n >> 16), byte(n >> 8), byte(n)})
		changes = append(changes, fib.Change[*dataplane.NextHopGroup]{Prefix: netip.PrefixFrom(a, 32), Value: group})
	}
	w.engines[0], w.mine = turnEngine(t, ports[:], subs, neighbors[1], 1, changes)
	s, a := turnNeighbor(1, 2, live.MAC(), ports[1].MAC())
	s.Port = 0
	w.engines[1], _ = turnEngine(t, []port.Port{live}, []*dataplane.Subinterface{s}, a, 0, nil)
	return w
}

// turnNeighbor is the end with that host number on link i, and the neighbor at its other.
func turnNeighbor(i, host int, mac, far port.MAC) (*dataplane.Subinterface, *dataplane.Adjacency) {
	addr := netip.AddrFrom4([4]byte{172, 30, byte(i), byte(host)})
	s := &dataplane.Subinterface{Name: turnDevices[i], Port: i, MTU: 1500, Addr4: addr, Subnet4: netip.PrefixFrom(addr, 30).Masked(),
		Counters: new(dataplane.Counters)}
	a := dataplane.NewAdjacency(s.Name, netip.AddrFrom4([4]byte{172, 30, byte(i), byte(3 - host)}))
	a.Resolve(&dataplane.Rewrite{Out: s, Header: vlan.NewHeader(far, mac, vlan.TPIDQ, 0, 0)})
	return s, a
}

// turnEngine forwards between ports, with a BFD session with a neighbor on one of them.
func turnEngine(t *testing.T, ports []port.Port, subs []*dataplane.Subinterface, neighbor *dataplane.Adjacency, on int,
	routes []fib.Change[*dataplane.NextHopGroup]) (*dataplane.Engine, *dataplane.BFDSession) {
	e := dataplane.NewEngine(slog.New(slog.DiscardHandler))
	t.Cleanup(e.Close)
	snap := &dataplane.Snapshot{}
	for i, p := range ports {
		if err := e.AddPort(i, p, dataplane.AnyCPU); err != nil {
			t.Fatal(err)
		}
		snap.Ports = append(snap.Ports, dataplane.NewPort(i, p.Name(), p, vlan.TPIDQ, new(dataplane.PortCounters), subs[i:i+1], nil))
		routes = append(routes, fib.Change[*dataplane.NextHopGroup]{Prefix: netip.PrefixFrom(subs[i].Addr4, 32), Value: &dataplane.NextHopGroup{Kind: dataplane.Local}})
	}
	snap.VRFs = []dataplane.VRF{{Name: "turn", FIB: fib.New[*dataplane.NextHopGroup]().With(routes)}}
	e.Publish(snap)
	const interval = 100 * time.Millisecond
	s := dataplane.NewBFDSession(dataplane.BFDSession{Name: subs[on].Name, Interface: subs[on].Name, Local: subs[on].Addr4, Peer: neighbor.Addr,
		Adjacency: neighbor, Config: bfd.Config{MyDiscriminator: dataplane.NewDiscriminator(), DesiredMinTx: interval, RequiredMinRx: interval, DetectMult: 3}})
	if err := e.SetBFD(on, []*dataplane.BFDSession{s}); err != nil {
		t.Fatal(err)
	}
	return e, s
}

func (w *turnWire) run(t *testing.T) {
	eventually(t, 20*time.Second, "BFD at full rate", func() error {
		for _, st := range w.engines[0].BFDStatus(1) {
			if st.State == bfd.Up && st.DetectionTime == bfd.Millis(300*time.Millisecond) {
				return nil
			}
		}
		return fmt.Errorf("%+v", w.mine.Report())
	})
	l := &testLab{t: t}
	first, second := l.startCapture(w.far, turnDevices[1]), l.startCapture(w.far, turnDevices[2])
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sent := 0
	sender.Go(func() { sent = w.send(t, stop) })
	time.Sleep(200 * time.Millisecond)
	w.engines[1].Close() // without a word
	eventually(t, 20*time.Second, "the neighbor is missed", func() error {
		if r := w.mine.Report(); r.State != bfd.Down || r.Diag != bfd.DiagTimeExpired {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	time.Sleep(200 * time.Millisecond)
	close(stop)
	sender.Wait()
	time.Sleep(settle)

	var said time.Time
	dying := first.end()
	for _, p := range bfdOf(dying) {
		if p.ours && p.State == bfd.Down && p.Diag == bfd.DiagTimeExpired && said.IsZero() {
			said = p.at
		}
	}
	if said.IsZero() {
		t.Fatal("it has not said that the neighbor is down")
	}
	came := map[uint32]int{}
	by := func(frames []captured) (at []time.Time) {
		for _, f := range frames {
			if _, etherType, b := f.parse(); etherType == 0x0800 && len(b) >= 32 && [4]byte(b[16:20]) == w.to && !f.outgoing {
				came[binary.BigEndian.Uint32(b[28:])]++
				at = append(at, f.at)
			}
		}
		return at
	}
	before, after := by(dying), by(second.end())
	if len(before) == 0 || len(after) == 0 {
		t.Fatalf("of %d frames %d left by the neighbor that died and %d by the other", sent, len(before), len(after))
	}
	late := 0
	for _, at := range before {
		if at.After(said) {
			late++
		}
	}
	t.Logf("%d frames, one each %v; the last by the neighbor that died left %v after it was said to be down, the first by the other %v", sent,
		(after[len(after)-1].Sub(before[0]) / time.Duration(sent)).Round(time.Microsecond), before[len(before)-1].Sub(said), after[0].Sub(said))
	if late > port.BatchSize {
		t.Errorf("%d frames left by the neighbor after it was said to be down, want %d at most, which a worker takes at once", late, port.BatchSize)
	}
	if len(came) != sent || len(before)+len(after) != sent {
		t.Errorf("%d frames sent, %d came, %d of them different ones", sent, len(before)+len(after), len(came))
	}
}

// send sends numbered frames until stop, and returns how many.
func (w *turnWire) send(t *testing.T, stop <-chan struct{}) (n int) {
	f := append(append(w.in[:], 2, 0, 0, 0, 0xaa, 1), 8, 0)
	h := []byte{0x45, 0, 0, 20 + 8 + 4, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0, 172, 30, 0, 2}
	h = append(h, w.to[:]...)
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	f = append(append(f, h...), 0x30, 0, 0x30, 0, 0, 12, 0, 0, 0, 0, 0, 0) // UDP without a checksum, and the number
	err := netns.Do(w.far, func() error {
		dev, err := net.InterfaceByName(turnDevices[0])
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		pause := unix.NsecToTimespec(int64(200 * time.Microsecond))
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			binary.BigEndian.PutUint32(f[len(f)-4:], uint32(n))
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
				return err
			}
			n++
			unix.Nanosleep(&pause, nil)
		}
	})
	if err != nil {
		t.Errorf("send: %v", err)
	}
	return n
}
