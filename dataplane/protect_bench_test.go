package dataplane

import (
	"testing"

	"msee/dataplane/port"
)

// BenchmarkProtect cuts and seals superframes of 45 segments, up to the call
// that would send them: what a protected port adds to one that is not.
func BenchmarkProtect(b *testing.B) {
	const payload, mss = 45 * 1448, 1448
	frame, edit := coreSuperframe(b, false, payload, mss)
	tx, rx := testSecY(b, mseeSCI), testSecY(b, ceSCI)
	key(b, rx, tx, mseeSCI, 0, 0x11)
	q := &egressQueue{port: &Port{SecY: tx, Counters: new(PortCounters)}, sender: discardSender{}}
	f := port.Frame{Buf: append(make([]byte, port.Headroom), frame...), Start: port.Headroom, End: port.Headroom + len(frame)}
	edit(&f)
	queue := []*port.Frame{nil}
	b.SetBytes(payload)
	for b.Loop() {
		g := f
		queue[0] = &g
		if r := q.send(queue); r.sent != 1 {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(payload/mss), "ns/frame")
}
