package test

import (
	"slices"
	"testing"
	"time"
)

// TestQinQ looks at the wire for both tags, with Azure's TPIDs (0x8100 twice)
// and with the standard's (0x88a8 outside).
func TestQinQ(t *testing.T) {
	for _, c := range []struct {
		name     string
		topology string
		tags     []tag
	}{
		{"0x8100", topology(t, "qinq"), []tag{{0x8100, 100}, {0x8100, 10}}},
		{"0x88a8", topology(t, "qinq", `etherType: "0x8100"`, `etherType: "0x88a8"`,
			"etherType: 0x8100", "etherType: 0x88a8"), []tag{{0x88a8, 100}, {0x8100, 10}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := startLab(t, c.topology, "gw0", "gw1")
			wire := l.startCapture(l.ns("ce"), "")
			for _, to := range []string{"10.100.1.10", "fd00:100:0:1::10"} {
				l.pings("onprem", to)
			}
			l.exec("ce", "ping", "-n", "-c", "2", "-i", "0.2", "192.168.15.18") // the kernel's side
			time.Sleep(settle)
			checkTags(t, wire.end(), c.tags)
			if rate := l.iperf3("onprem", "vm", "10.100.1.10", false); rate < 0.1 {
				t.Errorf("iperf3: %.3f Gb/s", rate)
			}
		})
	}
}

// pings sends five echo requests, of which the first may be lost to address
// resolution.
func (l *testLab) pings(from, to string, args ...string) {
	l.t.Helper()
	argv := append([]string{"ping", "-n", "-c", "5", "-i", "0.2", "-W", "2"}, args...)
	if out, err := l.try(from, append(argv, to)...); err != nil {
		l.t.Errorf("ping %s → %s: %v\n%s", from, to, err, out)
	}
}

// checkTags wants every echo message on the CE's trunks to have the tags, and
// some in each direction.
func checkTags(t *testing.T, frames []captured, want []tag) {
	t.Helper()
	seen := map[bool]int{}
	for _, f := range frames {
		tags, etherType, payload := f.parse()
		if echo(etherType, payload) == "" || len(tags) == 0 {
			continue // not ours, or on the LAN or a subinterface
		}
		if !slices.Equal(tags, want) {
			t.Errorf("tags %v, want %v (outgoing %v)", tags, want, f.outgoing)
		}
		seen[f.outgoing]++
	}
	if seen[false] < 8 || seen[true] < 8 {
		t.Errorf("echo messages with tags %v: %d in, %d out; want 8 of each", want, seen[false], seen[true])
	}
}
