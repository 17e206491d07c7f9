package fib

import (
	"maps"
	"slices"
)

// numbers gives values small numbers, and takes them back when no route has them
// any more. Number 0 is never given. Tables have their own, as they never change.
type numbers[V comparable] struct {
	list  []V      // by number; V's zero value if not given
	users []uint32 // by number: the routes that have it
	free  []uint32 // below len(list), not given
	of    map[V]uint32
	// ownMap tells that of is no earlier table's: it is copied only when a
	// value comes or goes, which few changes bring about.
	ownMap bool
}

func newNumbers[V comparable]() *numbers[V] {
	return &numbers[V]{list: make([]V, 1), users: make([]uint32, 1), of: map[V]uint32{}, ownMap: true}
}

// clone returns a copy that can be changed.
func (n *numbers[V]) clone() *numbers[V] {
	return &numbers[V]{list: slices.Clone(n.list), users: slices.Clone(n.users), free: slices.Clone(n.free), of: n.of}
}

// take returns the number of v for one more route.
func (n *numbers[V]) take(v V) uint32 {
	number, ok := n.of[v]
	if !ok {
		n.own()
		if last := len(n.free) - 1; last >= 0 {
			number, n.free = n.free[last], n.free[:last]
			n.list[number] = v
		} else {
			number = uint32(len(n.list))
			n.list, n.users = append(n.list, v), append(n.users, 0)
		}
		n.of[v] = number
	}
	n.users[number]++
	return number
}

// release takes back what one route had.
func (n *numbers[V]) release(number uint32) {
	if n.users[number]--; n.users[number] > 0 {
		return
	}
	n.own()
	delete(n.of, n.list[number])
	var none V
	n.list[number] = none
	n.free = append(n.free, number)
}

// sparse reports whether so many numbers are free that it is worth giving new ones
// to all routes.
func (n *numbers[V]) sparse() bool { return len(n.list) > 1024 && len(n.of) < len(n.list)/4 }

func (n *numbers[V]) own() {
	if !n.ownMap {
		n.of, n.ownMap = maps.Clone(n.of), true
	}
}
