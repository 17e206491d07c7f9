package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
	"msee/vlan"
)

// keepingPort is a fakePort that knows which frames are out, and spoils those that
// were given back.
type keepingPort struct {
	fakePort
	t   *testing.T
	out []port.Frame
}

func (p *keepingPort) Recv(batch []port.Frame) (int, error) {
	n, err := p.fakePort.Recv(batch)
	p.out = append(p.out, batch[:n]...)
	return n, err
}

func (p *keepingPort) More() bool { return false }

func (p *keepingPort) Resize(port.PacketConfig) error {
	if len(p.out) > 0 {
		p.t.Errorf("a new ring while %d frames of the old one are out", len(p.out))
	}
	return nil
}

func (p *keepingPort) ReleaseOldest(n int) {
	if n > len(p.out) {
		p.t.Fatalf("%d frames given back of %d", n, len(p.out))
	}
	for _, f := range p.out[:n] {
		clear(f.Buf)
	}
	p.out = p.out[n:]
}

// newKeepingRouter is newRouter whose customer port keeps frames.
func newKeepingRouter(t *testing.T) (*router, *keepingPort) {
	r := newRouter(t, vlan.TPIDQ)
	keeping := &keepingPort{fakePort: fakePort{mac: mseeMAC}, t: t}
	snap := *r.engine.Snapshot()
	ports := append([]*Port(nil), snap.Ports...)
	customer := *ports[0]
	customer.Port = keeping
	ports[0] = &customer
	snap.Ports = ports
	r.engine.snap.Store(&snap)
	r.worker = testWorker(t, r.engine, 0, keeping)
	return r, keeping
}

// numbered is the n-th frame of a TCP flow with so many octets of payload; more than a
// segment of them make a superframe.
func numbered(t *testing.T, flow, n, payload int) port.Frame {
	ip := layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 1, 0, 1}, DstIP: []byte{10, 100, 1, 1}}
	tcp := layers.TCP{SrcPort: layers.TCPPort(flow), DstPort: 5201, Seq: uint32(n), ACK: true}
	tcp.SetNetworkLayerForChecksum(&ip)
	b := frame(t, mseeMAC, tags(100), q, &ip, &tcp, gopacket.Payload(make([]byte, payload)))
	f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom}
	f.End = len(f.Buf)
	if payload > 1448 {
		f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1448, CsumStart: 18 + 20, CsumOffset: 16}
	}
	return f
}

// numberOf returns flow and number of a frame that was sent.
func numberOf(f *port.Frame) (flow, n int) {
	tcp := f.Bytes()[18+20:]
	return int(binary.BigEndian.Uint16(tcp)), int(binary.BigEndian.Uint32(tcp[4:]))
}

func TestShortFramesOvertakeLong(t *testing.T) {
	r, p := newKeepingRouter(t)
	const long = 60000
	for n := range 40 {
		p.rx = append(p.rx, numbered(t, 1, n, long))
	}
	p.rx = append(p.rx, numbered(t, 1, 40, 0), numbered(t, 2, 0, 0))
	r.worker.step()
	if len(r.core.tx) == 0 || len(r.core.tx) > 2+bulkBudget/long {
		t.Fatalf("%d frames left in the first turn", len(r.core.tx))
	}
	if flow, _ := numberOf(&r.core.tx[0]); flow != 2 {
		t.Errorf("a frame of flow %d went ahead of the short one of flow 2", flow)
	}
	before := len(r.core.tx)
	p.rx = append(p.rx, numbered(t, 3, 0, 100))
	r.worker.step()
	if flow, _ := numberOf(&r.core.tx[before]); flow != 3 {
		t.Errorf("a short frame that came while others waited had to wait for flow %d", flow)
	}
	for r.worker.step() > 0 {
	}
	next := 0
	for i := range r.core.tx {
		if flow, n := numberOf(&r.core.tx[i]); flow == 1 {
			if n != next {
				t.Fatalf("frame %d of flow 1 where %d was to be", n, next)
			}
			next++
		}
	}
	if sent := r.counters().Verdicts[Transmit].Load(); next != 41 || sent != 43 || len(p.out) != 0 {
		t.Errorf("%d of 41 frames of flow 1 sent, %d counted of 43, %d not given back", next, sent, len(p.out))
	}
}

// What comes at random is all sent, each flow in its order, whatever waits; also when
// tables change meanwhile.
func TestFlowsStayInOrder(t *testing.T) {
	r, p := newKeepingRouter(t)
	random := rand.New(rand.NewPCG(1, 2))
	var sent, next [6]int
	total := 0
	for range 120 {
		for range random.IntN(30) * (1 + random.IntN(8)/7*9) { // now and then more than there is room for
			flow := random.IntN(len(sent))
			payload := []int{0, 700, 20000, 60000}[random.IntN(4)]
			p.rx = append(p.rx, numbered(t, flow, sent[flow], payload))
			sent[flow]++
			total++
		}
		switch random.IntN(20) {
		case 0:
			snap := *r.engine.Snapshot()
			r.engine.snap.Store(&snap)
		case 1, 2:
			r.worker.mail <- func(*Worker) {} // which sends
		case 3:
			r.worker.mail <- func(w *Worker) { w.resize(port.PacketConfig{}) }
		}
		before := len(p.rx)
		n := r.worker.step()
		if read := before - len(p.rx); n != max(read, min(n, 1)) {
			t.Fatalf("a step says that it has taken %d frames, of %d", n, read)
		}
		if !r.worker.more && len(p.rx) > 0 {
			t.Fatalf("%d frames left in a port said to be empty", len(p.rx))
		}
		if r.worker.bulk.waiting == 0 && len(p.out) > 0 {
			t.Fatalf("%d frames out, and none waits", len(p.out))
		}
	}
	for r.worker.step() > 0 {
	}
	for i := range r.core.tx {
		flow, n := numberOf(&r.core.tx[i])
		if n != next[flow] {
			t.Fatalf("frame %d of flow %d where %d was to be", n, flow, next[flow])
		}
		next[flow]++
	}
	if got := r.counters().Verdicts[Transmit].Load(); next != sent || got != uint64(total) || len(p.out) != 0 {
		t.Errorf("%v of %v frames sent, %d counted of %d, %d not given back", next, sent, got, total, len(p.out))
	}
}

// What waits may leave by the way, and is given back then too: the kernel says that a
// ring has something to read for as long as frames of it are out.
func TestIdlePortKeepsNothing(t *testing.T) {
	r, p := newKeepingRouter(t)
	for n := range 8 {
		p.rx = append(p.rx, numbered(t, 1, n, 60000))
	}
	r.worker.step()
	if r.worker.bulk.waiting == 0 {
		t.Fatal("nothing waits")
	}
	for len(r.core.tx) < 8 {
		r.worker.mail <- func(*Worker) {}
		r.worker.readMail()
	}
	if n := r.worker.step(); n != 0 || len(p.out) != 0 {
		t.Errorf("a step without work took %d frames, and %d are out", n, len(p.out))
	}
	if sent := r.counters().Verdicts[Transmit].Load(); sent != 8 {
		t.Errorf("%d frames counted of 8", sent)
	}
}

// A worker that ends sends what waits.
func TestStopSendsWhatWaits(t *testing.T) {
	r, p := newKeepingRouter(t)
	for n := range 40 {
		p.rx = append(p.rx, numbered(t, 1, n, 60000))
	}
	r.worker.step()
	th := r.worker.thread
	th.workers, th.ports = []*Worker{r.worker}, 2 // another goes on
	go func() { (<-th.orders)() }()
	th.stop(r.worker)
	if sent := r.counters().Verdicts[Transmit].Load(); sent != 40 || len(r.core.tx) != 40 || len(p.out) != 0 {
		t.Errorf("%d of 40 frames sent, %d counted, %d not given back", len(r.core.tx), sent, len(p.out))
	}
}

// A datagram that is cut goes behind the superframes of its flow, and ahead of what
// comes after.
func TestPiecesWaitForTheirFlow(t *testing.T) {
	r, p := newKeepingRouter(t)
	datagram := func(n, payload int) {
		ip := layers.IPv4{Version: 4, TTL: 64, Id: uint16(n), Protocol: layers.IPProtocolUDP, SrcIP: []byte{10, 1, 0, 1}, DstIP: []byte{10, 100, 1, 1}}
		udp := layers.UDP{SrcPort: 7, DstPort: 5201}
		udp.SetNetworkLayerForChecksum(&ip)
		b := frame(t, mseeMAC, tags(100), q, &ip, &udp, gopacket.Payload(make([]byte, payload)))
		f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom}
		f.End = len(f.Buf)
		if payload > 2000 {
			f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, GSOType: port.GSOUDPL4, GSOSize: 1400, CsumStart: 18 + 20, CsumOffset: 6}
		}
		p.rx = append(p.rx, f)
	}
	var want []int
	for n := range 30 {
		switch n % 10 {
		case 9: // cut in two
			datagram(n, 2000)
			want = append(want, n, n)
		default:
			datagram(n, 60000)
			want = append(want, n)
		}
		if n%12 == 11 {
			r.worker.step()
		}
	}
	for r.worker.step() > 0 {
	}
	var got []int
	for i := range r.core.tx {
		got = append(got, int(binary.BigEndian.Uint16(r.core.tx[i].Bytes()[18+4:])))
	}
	if !slices.Equal(got, want) {
		t.Errorf("left in the order %v, want %v", got, want)
	}
}
