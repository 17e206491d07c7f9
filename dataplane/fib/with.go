package fib

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// With returns a table in which the changes are made, in order: of several for
// one prefix the last counts. Invalid prefixes are ignored. t stays as it is;
// the two share all that no change touched.
func (t *Table[V]) With(changes []Change[V]) *Table[V] {
	next := &Table[V]{numbers: t.numbers.clone()}
	four := edit[V]{numbers: next.numbers, trie: t.routes4}
	six := edit[V]{numbers: next.numbers, trie: t.routes6}
	for _, c := range last(changes) {
		if c.Prefix.Addr().Is4() {
			four.add(c)
		} else {
			six.add(c)
		}
	}
	if len(four.changed)+len(six.changed) == 0 {
		return t
	}
	next.routes4 = apply(t.routes4, new(bart.Table[uint32]), &four)
	next.routes6 = apply(t.routes6, new(bart.Fast[uint32]), &six)
	if next.numbers.sparse() {
		return New[V]().With(next.setAll())
	}
	next.compile(t, four.changed)
	return next
}

// setAll returns the changes that make t from nothing.
func (t *Table[V]) setAll() []Change[V] {
	out := make([]Change[V], 0, t.Len4()+t.Len6())
	for prefix, v := range t.All() {
		out = append(out, Change[V]{Prefix: prefix, Value: v})
	}
	return out
}

// compile makes t's part for lookups from old's and the IPv4 prefixes that changed,
// in order.
func (t *Table[V]) compile(old *Table[V], changed []netip.Prefix) {
	t.values = slices.Clone(t.numbers.list)
	if n, ok := t.routes4.Get(defaultRoute); ok {
		t.values[0], t.hasDefault = t.values[n], true
	}
	switch {
	case len(t.values) > maxNumber+1:
	case old.pages == nil:
		t.pages = emptyPages.with(t.routes4, prefixesOf(t.routes4.AllSorted4()))
	default:
		t.pages = old.pages.with(t.routes4, changed)
	}
}

func prefixesOf(routes iter.Seq2[netip.Prefix, uint32]) []netip.Prefix {
	var out []netip.Prefix
	for prefix := range routes {
		out = append(out, prefix)
	}
	return out
}

var defaultRoute = netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 0)

// last returns the changes that count, the last one of each valid prefix, in the
// prefixes' order: what is close together in the tries comes one after the other.
func last[V comparable](changes []Change[V]) []Change[V] {
	type nth struct {
		Change[V]
		n int
	}
	sorted := make([]nth, 0, len(changes))
	for i, c := range changes {
		if c.Prefix = c.Prefix.Masked(); c.Prefix.IsValid() {
			sorted = append(sorted, nth{c, i})
		}
	}
	slices.SortFunc(sorted, func(a, b nth) int { return cmp.Or(a.Prefix.Compare(b.Prefix), a.n-b.n) })
	out := make([]Change[V], 0, len(sorted))
	for i, c := range sorted {
		if i == len(sorted)-1 || sorted[i+1].Prefix != c.Prefix {
			out = append(out, c.Change)
		}
	}
	return out
}

// edit is what changes in one of the tries: numbers to be set, and prefixes to be
// deleted, none of which is in both.
type edit[V comparable] struct {
	numbers *numbers[V]
	trie    prefixes // as it was

	sets    []numbered
	dels    []netip.Prefix
	changed []netip.Prefix // both, in order
}

type numbered struct {
	netip.Prefix
	number uint32
}

// add enters a change, if it is one.
func (e *edit[V]) add(c Change[V]) {
	old, had := e.trie.Get(c.Prefix)
	if !c.Delete {
		if n := e.numbers.take(c.Value); !had || n != old {
			e.sets = append(e.sets, numbered{c.Prefix, n})
			e.changed = append(e.changed, c.Prefix)
		}
	} else if had {
		e.dels = append(e.dels, c.Prefix)
		e.changed = append(e.changed, c.Prefix)
	}
	if had {
		e.numbers.release(old)
	}
}

// trie is what is needed of bart.Table and bart.Fast.
type trie[T any] interface {
	Size() int
	Clone() T
	Insert(netip.Prefix, uint32)
	Delete(netip.Prefix)
	DeletePersist(netip.Prefix) T
	Union(T)
	UnionPersist(T) T
}

// apply returns old with an edit; sets is an empty one of the kind.
func apply[V comparable, T trie[T]](old, sets T, e *edit[V]) T {
	next := old
	if len(e.dels)*copyRatio > old.Size() {
		next = old.Clone()
		for _, p := range e.dels {
			next.Delete(p)
		}
	} else {
		for _, p := range e.dels {
			next = next.DeletePersist(p)
		}
	}
	if len(e.sets) == 0 {
		return next
	}
	for _, s := range e.sets {
		sets.Insert(s.Prefix, s.number)
	}
	// A union copies each node on the way to a change once, not once for every
	// change below it as InsertPersist does.
	if next.Size() == 0 {
		return sets
	}
	return next.UnionPersist(sets)
}

// copyRatio is how many routes are copied in about the time of one persistent
// deletion, which copies every node from the root down. Beyond that the whole trie
// is copied once and changed in place.
const copyRatio = 64
