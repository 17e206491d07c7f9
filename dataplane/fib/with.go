package fib

import "github.com/gaissmai/bart"

// With returns a table in which the changes are made, in order: of several for
// one prefix the last counts. Invalid prefixes are ignored. t stays as it is;
// the two share all that no change touched.
func (t *Table[V]) With(changes []Change[V]) *Table[V] {
	sets, deletes := fold(changes)
	next := t.t
	if deletes.Size()*copyRatio > next.Size() {
		next = next.Clone()
		for p := range deletes.All() {
			next.Delete(p)
		}
		next.Union(sets)
	} else {
		for p := range deletes.All() {
			next = next.DeletePersist(p)
		}
		// A union copies each node on the way to a change once, not once for
		// every change below it: 1 k sets in 200 k routes take a quarter of
		// the time of 1 k InsertPersist, 10 k sets a seventh.
		next = next.UnionPersist(sets)
	}
	if next == t.t {
		return t
	}
	return &Table[V]{t: next}
}

// copyRatio is how many routes are copied in the time of one persistent
// deletion, which copies every node from the root down (measured: 20 µs against
// 0.3 µs). Beyond that the whole table is copied once and changed in place.
const copyRatio = 64

// fold reduces changes to what is to be deleted, and what is to be set after
// that.
func fold[V any](changes []Change[V]) (sets *bart.Fast[V], deletes *bart.Lite) {
	sets, deletes = new(bart.Fast[V]), new(bart.Lite)
	for _, c := range changes {
		if c.Delete {
			sets.Delete(c.Prefix)
			deletes.Insert(c.Prefix)
		} else {
			sets.Insert(c.Prefix, c.Value)
		}
	}
	return sets, deletes
}
