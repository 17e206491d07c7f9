package fib

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/gaissmai/bart"
)

// The benchmarks that performance is followed by: lookups of 65,536 random
// addresses within the routes, beside bart.Table. Each table is made only if it
// is asked for. BenchmarkCompare is for choosing.

// sizes are those of the lookup benchmarks.
var sizes = []struct {
	name string
	n    int
}{{"1k", 1_000}, {"10k", 10_000}, {"200k", 200_000}, {"1m", 1_000_000}}

var sink *int

func BenchmarkLookup4(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w := newWorkload(spread, size.n, 1<<16)
			b.Run("addr", w.benchmarkFIB)
			b.Run("fib", w.benchmarkRaw) // as the pipeline does it
			b.Run("batch", w.benchmarkBatch)
			b.Run("bart_table", w.benchmarkBART)
		})
	}
}

func BenchmarkLookup6(b *testing.B) {
	for _, size := range sizes[:3] {
		b.Run(size.name, func(b *testing.B) {
			w := newWorkload(spread6, size.n, 1<<16)
			b.Run("fib", w.benchmarkFIB)
			b.Run("bart_table", w.benchmarkBART)
		})
	}
}

// workload is a table's routes and what is looked up.
type workload struct {
	changes []Change[*int]
	addrs   []netip.Addr // within the routes; a power of two of them
	raw     []uint32     // the same if they are IPv4
}

func newWorkload(routes func(*rand.Rand, int) []netip.Prefix, n, addrs int) *workload {
	r := rand.New(rand.NewPCG(7, 1))
	prefixes := routes(r, n)
	w := &workload{changes: setAll(prefixes, hops())}
	for range addrs {
		a := within(r, prefixes[r.IntN(n)])
		w.addrs = append(w.addrs, a)
		if a.Is4() {
			w.raw = append(w.raw, raw4(a))
		}
	}
	return w
}

func (w *workload) benchmarkFIB(b *testing.B) {
	table, addrs := New[*int]().With(w.changes), w.addrs
	start(b)
	for i := 0; b.Loop(); i++ {
		sink, _ = table.Lookup(addrs[i&(len(addrs)-1)])
	}
}

func (w *workload) benchmarkRaw(b *testing.B) {
	table, addrs := New[*int]().With(w.changes), w.raw
	start(b)
	for i := 0; b.Loop(); i++ {
		sink, _ = table.Lookup4(addrs[i&(len(addrs)-1)])
	}
}

// benchmarkBatch looks up many at a time; an operation is one lookup here too.
func (w *workload) benchmarkBatch(b *testing.B) {
	table, addrs := New[*int]().With(w.changes), w.raw
	var values [Batch]*int
	start(b)
	for i := 0; b.Loop(); i++ {
		if at := i & (len(addrs) - 1); at%Batch == 0 {
			table.LookupAll4((*[Batch]uint32)(addrs[at:]), &values, Batch)
		}
	}
}

func (w *workload) benchmarkBART(b *testing.B) {
	table, addrs := new(bart.Table[*int]), w.addrs
	for _, c := range w.changes {
		table.Insert(c.Prefix, c.Value)
	}
	start(b)
	for i := 0; b.Loop(); i++ {
		sink, _ = table.Lookup(addrs[i&(len(addrs)-1)])
	}
}

// start gets the garbage of building a table out of the measurement.
func start(b *testing.B) {
	runtime.GC()
	b.ReportAllocs()
}

func BenchmarkWith(b *testing.B) {
	for _, shape := range []struct {
		name   string
		routes func(*rand.Rand, int) []netip.Prefix
		n      int
	}{{"spread", spread, 10_000}, {"spread", spread, 200_000}, {"private", private, 200_000}, {"spread6", spread6, 200_000}} {
		prefixes := shape.routes(rand.New(rand.NewPCG(7, 1)), shape.n)
		sets := setAll(prefixes, hops())
		table := New[*int]().With(sets)
		other := new(int)
		for _, k := range []int{1, 100, 10_000} {
			for _, del := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/routes=%d/changes=%d/delete=%v", shape.name, shape.n, k, del), func(b *testing.B) {
					// Other routes each time, as one may cost more than another.
					var changes []Change[*int]
					for i := 0; b.Loop(); i++ {
						changes = changes[:0]
						for j := range k {
							changes = append(changes, Change[*int]{sets[(i*k+j)%len(sets)].Prefix, other, del})
						}
						table.With(changes)
					}
				})
			}
		}
		b.Run(fmt.Sprintf("%s/routes=%d/new", shape.name, shape.n), func(b *testing.B) {
			for b.Loop() {
				New[*int]().With(sets)
			}
		})
		if prefixes[0].Addr().Is4() {
			b.Run(fmt.Sprintf("%s/routes=%d/default", shape.name, shape.n), func(b *testing.B) {
				change := []Change[*int]{{Prefix: defaultRoute, Value: other}}
				for b.Loop() {
					table.With(change)
				}
			})
		}
	}
}
