package fib

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gaissmai/bart"
)

var compare = flag.Bool("compare", false, "compare the table with others, for docs/performance.md")

// TestCompare prints how long lookups take with the table and with others, and
// what memory they take. All take turns in one process, so that what disturbs the
// machine disturbs all:
//
//	go test -run TestCompare -v -compare ./dataplane/fib
func TestCompare(t *testing.T) {
	if !*compare {
		t.Skip("a measurement, not a test: -compare was not given")
	}
	for _, shape := range []struct {
		name   string
		routes func(*rand.Rand, int) []netip.Prefix
		sizes  []int
	}{
		{"IPv4", spread, []int{100, 1_000, 10_000, 200_000, 1_000_000}},
		{"private", private, []int{10_000, 200_000}},
		{"IPv6", spread6, []int{100, 10_000, 200_000}},
	} {
		for _, n := range shape.sizes {
			t.Run(fmt.Sprintf("%s/%d", shape.name, n), func(t *testing.T) {
				for _, addrs := range []int{1 << 12, 1 << 16, 1 << 20} {
					if addrs < 1<<20 || n >= 200_000 {
						t.Logf("%d addresses:\n%s", addrs, newContest(newWorkload(shape.routes, n, addrs)))
					}
				}
			})
		}
	}
}

// contest is candidates that look up the same.
type contest struct {
	w    *workload
	rows []*candidate
}

type candidate struct {
	name   string
	lookup func(from, to int) // of the workload's addresses
	memory uint64             // octets; 0 if shared with another row
	ns     []float64          // per lookup, by turn
}

func newContest(w *workload) *contest {
	c := &contest{w: w}
	c.addTables()
	c.addBART()
	if w.raw != nil {
		c.addRivals()
	}
	runtime.GC()
	for range 9 {
		for _, row := range c.rows {
			// Long enough that what the last one left in the caches counts little.
			const lookups = 1 << 18
			start := time.Now()
			for at := 0; at < max(lookups, len(w.addrs)); at += 256 {
				from := at & (len(w.addrs) - 1)
				row.lookup(from, from+256)
			}
			row.ns = append(row.ns, float64(time.Since(start).Nanoseconds())/float64(max(lookups, len(w.addrs))))
		}
	}
	return c
}

func (c *contest) String() string {
	var b strings.Builder
	for _, row := range c.rows {
		slices.Sort(row.ns)
		fmt.Fprintf(&b, "%-14s min %6.1f  median %6.1f ns  %8.1f kB\n", row.name, row.ns[0], row.ns[len(row.ns)/2], float64(row.memory)/1e3)
	}
	return b.String()
}

func (c *contest) add(name string, memory uint64, lookup func(from, to int)) {
	c.rows = append(c.rows, &candidate{name: name, memory: memory, lookup: lookup})
}

func (c *contest) addTables() {
	table, memory := sized(func() *Table[*int] { return New[*int]().With(c.w.changes) })
	c.add("fib Lookup", memory, func(from, to int) {
		for _, a := range c.w.addrs[from:to] {
			sink, _ = table.Lookup(a)
		}
	})
	if c.w.raw == nil {
		return
	}
	c.add("fib Lookup4", 0, func(from, to int) {
		for _, a := range c.w.raw[from:to] {
			sink, _ = table.Lookup4(a)
		}
	})
	c.add("fib batch", 0, func(from, to int) {
		var values [Batch]*int
		for ; from < to; from += Batch {
			table.LookupAll4((*[Batch]uint32)(c.w.raw[from:]), &values, Batch)
		}
	})
}

func (c *contest) addBART() {
	fast, memory := sized(func() *bart.Fast[*int] {
		f := new(bart.Fast[*int])
		for _, ch := range c.w.changes {
			f.Insert(ch.Prefix, ch.Value)
		}
		return f
	})
	c.add("bart.Fast", memory, func(from, to int) {
		for _, a := range c.w.addrs[from:to] {
			sink, _ = fast.Lookup(a)
		}
	})
	table, memory := sized(func() *bart.Table[*int] {
		f := new(bart.Table[*int])
		for _, ch := range c.w.changes {
			f.Insert(ch.Prefix, ch.Value)
		}
		return f
	})
	c.add("bart.Table", memory, func(from, to int) {
		for _, a := range c.w.addrs[from:to] {
			sink, _ = table.Lookup(a)
		}
	})
}

func (c *contest) addRivals() {
	values, number := []*int{nil}, map[*int]uint32{}
	for _, ch := range c.w.changes {
		if number[ch.Value] == 0 {
			number[ch.Value] = uint32(len(values))
			values = append(values, ch.Value)
		}
	}
	f := newFlat(c.w.changes, number)
	pop, memory := sized(func() *poptrie { return newPoptrie(f) })
	c.add("poptrie", memory, func(from, to int) {
		for _, a := range c.w.raw[from:to] {
			sink = values[pop.lookup(a)]
		}
	})
	ranges, memory := sized(func() *dxr { return newDXR(f) })
	c.add("DXR", memory, func(from, to int) {
		for _, a := range c.w.raw[from:to] {
			sink = values[ranges.lookup(a)]
		}
	})
}

// sized returns what build made and the memory that is in use now and was not
// before.
func sized[T any](build func() T) (T, uint64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	t := build()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return t, max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
}
