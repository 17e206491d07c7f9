package dataplane

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/dataplane/port"
	"msee/vlan"
)

// TestBudget has a few that flood and one that does not share a budget: all of
// them have it and no more, and the quiet one has its own.
func TestBudget(t *testing.T) {
	const perSecond, floods, sure = 1000, 40, 20
	var b budget
	b.init(perSecond)
	shares := make([]share, floods+1)
	for i := range shares {
		shares[i] = newShare(200, sure)
	}
	now, granted, asked, quiet := time.Hour, 0, 0, 0
	const step, steps = time.Millisecond, 10_000
	for i := range steps {
		now += step
		for f := range floods {
			if b.take(&shares[f], now) {
				granted++
			}
		}
		if i%100 == 0 {
			asked++
			if b.take(&shares[floods], now) {
				quiet++
			}
		}
	}
	if quiet != asked {
		t.Errorf("the quiet one got %d of the %d that it asked for", quiet, asked)
	}
	seconds := int(steps * step / time.Second)
	if all := granted + quiet; all > perSecond*(seconds+1) || all < perSecond*seconds*99/100 {
		t.Errorf("%d tokens in %d s of %d a second", all, seconds, perSecond)
	}
}

// TestManyFlood: what a thread hands to the kernel, what ICMP errors it sends and
// how many neighbors the device looks for is bounded however many subinterfaces
// want it, and one that is quiet still has its part.
func TestManyFlood(t *testing.T) {
	const n = 400
	r := newRouter(t, vlan.TPIDQ)
	core := r.withKernel(r.subs["core.200"])
	base := r.subs["cust.100"]
	var all []*Subinterface
	var kernel []int
	for i := range n {
		s := *base
		s.Name, s.Outer, s.limits, s.Counters = fmt.Sprintf("cust.%d", 1000+i), uint16(1000+i), nil, new(Counters)
		kernel = append(kernel, r.withKernel(&s))
		all = append(all, &s)
	}
	snap := *r.engine.Snapshot()
	snap.Ports = []*Port{NewPort(0, "cust", r.customer, vlan.TPIDQ, new(PortCounters), all, nil), snap.Ports[1]}
	r.engine.snap.Store(&snap)

	w := r.worker
	w.adopt(&snap)
	w.now = time.Hour
	// deliver takes a frame through the pipeline, at a time that stands still.
	deliver := func(b []byte) Verdict {
		f := port.Frame{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}
		w.forward([]port.Frame{f})
		w.transmit()
		w.replies = w.replies[:0]
		return w.packets[0].verdict
	}
	drain := func(fds ...int) {
		b := make([]byte, 2048)
		for _, fd := range fds {
			for _, err := unix.Read(fd, b); err == nil; {
				_, err = unix.Read(fd, b)
			}
		}
	}
	errors := func() (n int) {
		for _, s := range all {
			n += int(s.Counters.Generated.Load())
		}
		return n
	}
	sought := 0
	for _, tt := range []struct {
		name   string
		frame  func(vlan uint16) []byte
		each   int // frames of each that floods: together more than the budget
		budget *budget
		most   int
		passed func(Verdict) bool
	}{
		{"ours", func(v uint16) []byte {
			return frame(t, mseeMAC, tags(v), q, udp4("192.168.15.17", "192.168.15.18", 1, 0)...)
		}, 200, &w.thread.punts[PuntLocal], puntLocalPerThread, func(v Verdict) bool { return v == PuntLocal }},
		{"ARP", func(v uint16) []byte {
			b := arpFrame(t, mseeMAC, "192.168.15.17")
			b[14], b[15] = byte(v>>8), byte(v)
			return b
		}, 40, &w.thread.punts[PuntARP], puntNeighborsPerThread, func(v Verdict) bool { return v == PuntARP }},
		{"neighbors sought", func(v uint16) []byte {
			sought++
			return frame(t, mseeMAC, tags(v), q, udp4("10.1.0.1", fmt.Sprintf("10.100.255.%d", 20+sought%10), 64, 0)...)
		}, 5, &r.engine.gleans, gleanPerDevice, func(v Verdict) bool { return v == PuntGlean }},
		{"link-local senders", func(v uint16) []byte {
			l := udp6(fmt.Sprintf("fe80::%d", rand.Uint32N(1000)+1), "fe80::ffff", 1, 0)
			return frame(t, mseeMAC, tags(v), q, l...)
		}, 1, &r.engine.gleans, gleanPerDevice, func(v Verdict) bool { return v == PuntLinkLocal }},
		{"ICMP errors", func(v uint16) []byte {
			return frame(t, mseeMAC, tags(v), q, udp4("10.1.0.1", "10.100.1.1", 1, 0)...)
		}, 40, &w.thread.errors, icmpPerThread, func(v Verdict) bool { return v == DropTTL }},
	} {
		w.now += time.Minute
		passed, sent := 0, errors()
		for i := range n - 1 {
			for range tt.each {
				if tt.passed(deliver(tt.frame(uint16(1000 + i)))) {
					passed++
				}
			}
			drain(kernel[i], core)
		}
		if tt.name == "ICMP errors" {
			passed = errors() - sent
		}
		if passed > tt.most || passed < tt.most/2 {
			t.Errorf("%s: %d passed in a moment, of %d a second", tt.name, passed, tt.most)
		}
		// One that is quiet waits for one token, not for half of all.
		w.now += 2 * tt.budget.cost
		sent = errors()
		if v := deliver(tt.frame(uint16(1000 + n - 1))); !tt.passed(v) || v == DropTTL && errors() == sent {
			t.Errorf("%s of a quiet subinterface: %v", tt.name, v)
		}
	}
}
