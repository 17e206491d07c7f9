package speaker

// queue holds prefixes, or other keys of routes, that something is to be said about,
// with the newest word on each, in the order in which they came: those that came together, which
// share their attributes, leave together. The zero queue is empty.
type queue[K comparable, V any] struct {
	newest map[K]V
	order  []K // of newest, from head on
	head   int
}

func (q *queue[K, V]) len() int { return len(q.newest) }

// set queues p, or changes what is said of it if it waits already.
func (q *queue[K, V]) set(p K, v V) {
	if q.newest == nil {
		q.newest = make(map[K]V)
	}
	n := len(q.newest)
	if q.newest[p] = v; len(q.newest) > n {
		q.order = append(q.order, p)
	}
}

// take removes prefixes, the oldest, and calls fn with each, until what fn says
// that they weigh comes to n.
func (q *queue[K, V]) take(n int, fn func(K, V) (weight int)) {
	for n > 0 && q.head < len(q.order) {
		p := q.order[q.head]
		q.head++
		v := q.newest[p]
		delete(q.newest, p)
		n -= fn(p, v)
	}
	if q.head == len(q.order) {
		*q = queue[K, V]{} // and the memory of a long one with it
	}
}
