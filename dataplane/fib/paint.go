package fib

import (
	"iter"
	"net/netip"
	"slices"
)

// painting is the chunk of a /16 in the making: over each /24 the shorter prefixes
// are painted first, so that in the end the longest shows.
type painting struct {
	entries [256]uint16
	blocks  [256]*block // by entry, which counts no more if there is one

	// fine is the /24 (by its third octet) whose longer prefixes are being
	// painted, -1 for none.
	fine   int
	octets [256]uint16 // its numbers by the last octet
}

// open begins with what c has.
func (p *painting) open(c *chunk) {
	p.entries, p.fine = c.entries, -1
	clear(p.blocks[:])
	for i, e := range p.entries {
		if e >= blockFlag {
			p.blocks[i] = c.blocks[e-blockFlag]
		}
	}
}

// chunk returns the result.
func (p *painting) chunk() *chunk {
	var blocks []*block
	for i, b := range p.blocks {
		if b != nil {
			p.entries[i] = blockFlag | uint16(len(blocks))
			blocks = append(blocks, b)
		}
	}
	if p.entries == emptyChunk.entries {
		return &emptyChunk
	}
	return &chunk{p.entries, slices.Clone(blocks)}
}

// repaint paints all of prefix, a /16 to /24, anew: ground first, then the routes
// within. What covers others comes before them, and what is in one /24 together.
func (p *painting) repaint(prefix netip.Prefix, ground uint16, routes iter.Seq2[netip.Prefix, uint32]) {
	p.coarse(prefix, ground)
	for route, n := range routes {
		switch {
		case route.Bits() > 24:
			p.inFine(route, uint16(n))
		case route.Bits() > 16:
			p.coarse(route, uint16(n))
		}
	}
	p.endFine()
}

// coarse paints a prefix of /16 to /24.
func (p *painting) coarse(prefix netip.Prefix, n uint16) {
	first := int(prefix.Addr().As4()[2])
	for i := first; i < first+1<<(24-prefix.Bits()); i++ {
		p.entries[i], p.blocks[i] = n, nil
	}
}

// inFine paints a prefix longer than /24.
func (p *painting) inFine(prefix netip.Prefix, n uint16) {
	a := prefix.Addr().As4()
	if int(a[2]) != p.fine {
		p.endFine()
		p.fine = int(a[2])
		for i := range p.octets {
			p.octets[i] = p.entries[p.fine]
		}
	}
	first := int(a[3])
	for i := first; i < first+1<<(32-prefix.Bits()); i++ {
		p.octets[i] = n
	}
}

// endFine makes a block of the /24 that was painted, if it takes one.
func (p *painting) endFine() {
	if p.fine < 0 {
		return
	}
	if b := newBlock(&p.octets); len(b.numbers) > 1 {
		p.blocks[p.fine] = b
	} else {
		p.entries[p.fine] = b.numbers[0]
	}
	p.fine = -1
}
