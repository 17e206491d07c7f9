package dataplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"msee/dataplane/fib"
	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

func TestGleanGoesToTheEgressTAP(t *testing.T) {
	r := newRouter(t, vlan.TPIDQ)
	kernel := r.withKernel(r.subs["core.200"])
	in := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.255.20", 64, 100)...)
	if v := r.receive(in); v != PuntGlean {
		t.Fatal(v)
	}
	got := read(t, kernel)
	if port.MAC(got[:6]) != coreMAC || !bytes.Equal(got[14:], in[18:]) {
		t.Errorf("the kernel got % x", got)
	}
	last := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", "10.100.255.20", 1, 100)...)
	if v := r.receive(last); v != DropTTL {
		t.Errorf("the last hop of a packet: %v", v)
	}
}

// TestGleanOfSuperframes: the kernel gets the packets that a superframe stands for,
// as it would not send the whole on.
func TestGleanOfSuperframes(t *testing.T) {
	for _, tt := range []struct {
		v6           bool
		payload, mss int
		want         Verdict
		segments     int
	}{
		{false, 20000, 1460, PuntGlean, 14}, {true, 20000, 1440, PuntGlean, 14}, {false, 20000, 100, PuntGlean, 200},
		{false, 20000, 1461, DropTooBig, 0}, {true, 20000, 1441, DropTooBig, 0}, {false, 20000, 0, DropMalformed, 0},
	} {
		r := newRouter(t, vlan.TPIDQ)
		kernel := r.withKernel(r.subs["core.200"])
		b, meta := superframe(t, tt.v6, tt.payload, tt.mss, port.VNetNeedsCsum)
		snap := *r.engine.Snapshot()
		snap.VRFs = append([]VRF{}, snap.VRFs...)
		glean := &NextHopGroup{Kind: Glean, Out: r.subs["core.200"]}
		snap.VRFs[0].FIB = snap.VRFs[0].FIB.With([]fib.Change[*NextHopGroup]{
			{Prefix: netip.MustParsePrefix("10.100.1.0/24"), Value: glean}, {Prefix: netip.MustParsePrefix("fd00:100::/64"), Value: glean}})
		r.engine.snap.Store(&snap)
		l4 := 34
		if tt.v6 {
			l4 = 54
		}
		for i := range b[l4+20:] {
			b[l4+20+i] = byte(i * i >> 3)
		}
		gso.LeaveChecksum(b, 14, new(port.VNetHdr))
		whole := bytes.Clone(b)
		if v := r.receive(b, meta); v != tt.want {
			t.Errorf("%+v: %v", tt, v)
			continue
		}
		if errors := len(r.customer.tx); errors != 0 != (tt.want == DropTooBig) {
			t.Errorf("%+v: %d ICMP errors", tt, errors)
		}
		var data []byte
		for range tt.segments {
			got := read(t, kernel)
			if port.MAC(got[:6]) != coreMAC || len(got) > 14+1500 {
				t.Errorf("%+v: the kernel got %d octets to %x", tt, len(got), got[:6])
			}
			addrs := got[l4-8 : l4]
			if tt.v6 {
				addrs = got[l4-32 : l4]
			}
			if gso.Fold(gso.Sum(got[l4:], gso.Sum(addrs, protoTCP+uint64(len(got)-l4)))) != 0xffff {
				t.Errorf("%+v: a wrong checksum", tt)
			}
			data = append(data, got[l4+20:]...)
		}
		if n := min(tt.payload, tt.segments*tt.mss); !bytes.Equal(data, whole[l4+20:][:n]) {
			t.Errorf("%+v: the kernel got %d octets of payload, want the first %d", tt, len(data), n)
		}
		if _, err := unix.Read(kernel, make([]byte, 2000)); err == nil {
			t.Errorf("%+v: the kernel got more", tt)
		}
	}
}

// TestHeld: of what comes at once for one neighbor that the kernel looks for, it gets all
// that it can hold; of what comes for many neighbors it gets what may begin them.
func TestHeld(t *testing.T) {
	for _, tt := range []struct {
		name          string
		hosts, frames int
		after         time.Duration // of all but the first
		want          int
	}{
		{"one neighbor", 1, 2000, 0, 2000},
		{"more than it holds", 1, heldPerSecond, 0, heldPerSecond / 2},
		{"the same, later", 1, 2000, 2 * lookFor, 2000},
		{"many neighbors", 1000, 1000, 0, gleanPerSecond / 2},
	} {
		r := newRouter(t, vlan.TPIDQ)
		kernel := r.withKernel(r.subs["core.200"])
		snap := *r.engine.Snapshot()
		snap.VRFs = append([]VRF{}, snap.VRFs...)
		snap.VRFs[0].FIB = snap.VRFs[0].FIB.With([]fib.Change[*NextHopGroup]{
			{Prefix: netip.MustParsePrefix("10.100.0.0/16"), Value: &NextHopGroup{Kind: Glean, Out: r.subs["core.200"]}}})
		r.engine.snap.Store(&snap)
		w := r.worker
		w.adopt(&snap)
		w.now = time.Hour
		got := 0
		for i := range tt.frames {
			to := fmt.Sprintf("10.100.%d.%d", 1+i%tt.hosts/250, 1+i%tt.hosts%250)
			b := frame(t, mseeMAC, tags(100), q, udp4("10.1.0.1", to, 64, 100)...)
			w.forward([]port.Frame{{Buf: append(make([]byte, port.Headroom), b...), Start: port.Headroom, End: port.Headroom + len(b)}})
			if w.packets[0].verdict == PuntGlean {
				read(t, kernel)
				got++
			}
			if i == 0 {
				w.now += tt.after
			}
		}
		if got != tt.want {
			t.Errorf("%s: the kernel got %d of %d, want %d", tt.name, got, tt.frames, tt.want)
		}
	}
}
