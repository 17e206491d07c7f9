package fib

// batch is how many lookups go side by side.
const batch = 64

// LookupBatch4 sets out[i] to the value of [Table.Lookup4] of addrs[i], V's zero
// value for no route. out must be at least as long as addrs. It does not allocate.
//
// The lookups go step by step side by side, so that the processor waits for many
// cache misses at once.
func (t *Table[V]) LookupBatch4(addrs []uint32, out []V) {
	out = out[:len(addrs)]
	if t.pages == nil {
		for i, a := range addrs {
			out[i], _ = t.lookupTrie4(a)
		}
		return
	}
	for len(addrs) > 0 {
		n := min(len(addrs), batch)
		var numbers [batch]uint16
		t.pages.lookupBatch(addrs[:n], &numbers)
		for i, n := range numbers[:n] {
			out[i] = t.values[n]
		}
		addrs, out = addrs[n:], out[n:]
	}
}

// lookupBatch is lookup of up to batch addresses.
func (p *pages) lookupBatch(addrs []uint32, numbers *[batch]uint16) {
	var chunks [batch]*chunk
	for i, a := range addrs[:min(len(addrs), batch)] {
		_, chunks[i] = p.at(a)
	}
	for i, a := range addrs[:min(len(addrs), batch)] {
		numbers[i] = chunks[i].entries[a>>8&0xff]
	}
	for i, a := range addrs[:min(len(addrs), batch)] {
		if n := numbers[i]; needsMore(n) {
			page, chunk := p.at(a)
			numbers[i] = page.lookupMore(chunk, n, a)
		}
	}
}
