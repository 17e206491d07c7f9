package dataplane

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
	"msee/vlan"
)

// TestPolicerRate offers twice the rate for some seconds of a made-up clock and
// compares what passes with the rate.
func TestPolicerRate(t *testing.T) {
	for mbps, seconds := range map[int]time.Duration{50: 10, 100: 10, 1000: 3, 10000: 2} {
		for name, size := range map[string]int32{"small UDP": 46, "1500": 1500, "superframes": 65226 + 44*52} {
			p := NewPolicer(mbps)
			rate := float64(mbps) * 1e6 / 8
			gap := time.Duration(float64(size) / (2 * rate) * 1e9)
			batch := max(1, int(10*time.Microsecond/max(gap, 1)))
			charges := make([]charge, batch)
			r := rand.New(rand.NewPCG(1, 2))
			now := time.Hour // of uptime
			var passed float64
			for end := now + seconds*time.Second; now < end; {
				for i := range charges {
					charges[i] = charge{octets: size}
				}
				now += time.Duration(float64(gap) * float64(batch) * (0.5 + r.Float64()))
				p.police(now, charges)
				for _, c := range charges {
					if !c.drop {
						passed += float64(c.octets)
					}
				}
			}
			if miss := passed/(rate*float64(seconds)) - 1; miss < -0.01 || miss > 0.01 {
				t.Errorf("%d Mbit/s, %s: %+.2f %% of the rate passed too much", mbps, name, 100*miss)
			}
		}
	}
}

// TestPolicerBelowItsRate drops nothing of what keeps to the rate, even if a
// quarter of a second's worth of a superframe's time passes between superframes.
func TestPolicerBelowItsRate(t *testing.T) {
	p := NewPolicer(50)
	now := time.Duration(0)
	for range 1000 {
		c := []charge{{octets: 65000}}
		now += time.Duration(65000 * 8 * 1000 / 50)
		if p.police(now, c); c[0].drop {
			t.Fatalf("a superframe is dropped at %v", now)
		}
	}
}

// TestPolicerIsShared has many goroutines use one policer: together they get the
// rate, once.
func TestPolicerIsShared(t *testing.T) {
	p := NewPolicer(1000)
	const workers, each = 8, 20000
	now := 5 * time.Second
	var passed [workers]int64
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			for i := range each {
				c := []charge{{octets: 1000}, {octets: 500}}
				p.police(now+time.Duration(i)*time.Microsecond, c)
				for _, c := range c {
					if !c.drop {
						passed[w] += int64(c.octets)
					}
				}
			}
		})
	}
	done.Wait()
	var total int64
	for _, n := range passed {
		total += n
	}
	most := p.burst + int64(p.granted(each*time.Microsecond))
	if total > most || total < most*99/100 {
		t.Errorf("%d octets passed, want %d", total, most)
	}
	if offered := int64(workers * each * 1500); total+int64(p.DroppedBytes.Load()) != offered {
		t.Errorf("passed %d and dropped %d are not the %d offered", total, p.DroppedBytes.Load(), offered)
	}
}

// TestDirectPolicer acts above 120 % only, and then to 100 %.
func TestDirectPolicer(t *testing.T) {
	p := NewDirectPolicer(1000)
	now := time.Duration(0)
	// offer sends at a rate for some seconds, and returns what share passes in
	// the last one.
	offer := func(mbps float64, seconds int) float64 {
		sent, passed := 0, 0
		for end := now + time.Duration(seconds)*time.Second; now < end; now += time.Duration(1500 * 8 * 1e3 / mbps) {
			c := []charge{{octets: 1500}}
			p.police(now, c)
			if now > end-time.Second {
				sent++
				if !c[0].drop {
					passed++
				}
			}
		}
		return float64(passed) / float64(sent)
	}
	for _, step := range []struct{ mbps, passes float64 }{{1000, 1}, {1150, 1}, {1500, 1000.0 / 1500}, {1100, 1}} {
		if got := offer(step.mbps, 5); got < step.passes-0.02 || got > step.passes+0.02 {
			t.Errorf("at %v Mbit/s %.2f passes, want %.2f", step.mbps, got, step.passes)
		}
	}
}

func TestPoliceAndMeter(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	in, meterIn, meterOut := r.subs["cust.100"], new(Meter), new(Meter)
	limit := NewPolicer(50)
	in.Ingress = &Direction{limit, meterIn}
	r.subs["core.200"].Egress = &Direction{nil, meterOut}
	r.sumUp()
	// A packet of 1,000 octets, and a superframe of 3 segments.
	if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 972)...)); v != Transmit {
		t.Fatal(v)
	}
	big, meta := superframe(t, false, 2500, 1000, port.VNetNeedsCsum)
	if v := r.receive(big, meta); v != Transmit {
		t.Fatal(v)
	}
	const want = 1000 + 2500 + 3*40
	for name, m := range map[string]*Meter{"in": meterIn, "out": meterOut} {
		if m.Packets.Load() != 4 || m.Bytes.Load() != want {
			t.Errorf("%s: metered %d packets, %d octets, want 4, %d", name, m.Packets.Load(), m.Bytes.Load(), want)
		}
	}
	// To the kernel, or nowhere: neither metered nor policed.
	limit.used.Store(1 << 62)
	r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "192.168.15.18", 64, 100)...))
	r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "172.16.0.1", 64, 100)...))
	if v := r.receive(frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 972)...)); v != DropPoliced {
		t.Errorf("without tokens: %v", v)
	}
	if v := r.receive(frame(t, mseeMAC, tags(101), q, udp4("10.1.0.1", "10.100.1.1", 64, 972)...)); v != Transmit {
		t.Errorf("another circuit's: %v", v)
	}
	if meterIn.Packets.Load() != 4 || limit.DroppedFrames.Load() != 1 || limit.DroppedBytes.Load() != 1000 {
		t.Errorf("metered %d, dropped %d of %d octets", meterIn.Packets.Load(), limit.DroppedFrames.Load(), limit.DroppedBytes.Load())
	}
	r.checkSum(6)
}

// TestOnlyWhatGoesOnIsPoliced: what ends here takes no tokens, is not metered and does
// not count as policed. What leaves in pieces is one packet.
func TestOnlyWhatGoesOnIsPoliced(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	in, out := new(Meter), new(Meter)
	limit := NewPolicer(50)
	r.subs["cust.100"].Ingress = &Direction{limit, in}
	r.subs["core.200"].Egress = &Direction{nil, out}
	r.sumUp()
	last := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 1, 1000)...)
	long := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.1.1", 64, 1473)...)
	big, meta := superframe(t, false, 30000, 1461, port.VNetNeedsCsum)
	for range int(limit.burst)/30000 + 1 { // of each more than there are tokens
		for range 30 {
			if v := r.receive(last); v != DropTTL {
				t.Fatal(v)
			}
			if v := r.receive(long); v != DropTooBig {
				t.Fatal(v)
			}
		}
		if v := r.receive(big, meta); v != DropTooBig {
			t.Fatal(v)
		}
	}
	if n, m, used := in.Packets.Load(), out.Packets.Load(), limit.used.Load(); n != 0 || m != 0 || limit.DroppedFrames.Load() != 0 {
		t.Errorf("of what ended here %d packets are metered in, %d out, and %d octets used", n, m, used)
	}
	l := udp4("10.1.0.1", "10.100.1.1", 64, 3000)
	l[0].(*layers.IPv4).Flags = 0
	cut := frame(t, mseeMAC, tags(100), q, l...)
	if v := r.receive(cut); v != Fragmented {
		t.Fatal(v)
	}
	for name, m := range map[string]*Meter{"in": in, "out": out} {
		if m.Packets.Load() != 1 || m.Bytes.Load() != 3028 {
			t.Errorf("%s: metered %d packets, %d octets, want 1, 3028", name, m.Packets.Load(), m.Bytes.Load())
		}
	}
	limit.used.Store(1 << 62)
	r.core.tx = nil
	if v := r.receive(cut); v != DropPoliced || len(r.core.tx) != 0 {
		t.Errorf("without tokens: %v, %d pieces left", v, len(r.core.tx))
	}
}
