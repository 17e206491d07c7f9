package fib

import (
	"math/bits"
	"slices"
)

// What the compiled form was chosen against: static tables, without updates,
// that know up to 32,767 values. They are built from the routes of all /24s.

// flat is a full DIR-24-8: what each /24 leads to, or with deepFlag set an index
// of deep.
type flat struct {
	entries []uint32
	deep    [][256]uint32
}

const deepFlag = 1 << 31

func newFlat(changes []Change[*int], number map[*int]uint32) *flat {
	changes = slices.Clone(changes)
	slices.SortFunc(changes, func(a, b Change[*int]) int { return a.Prefix.Bits() - b.Prefix.Bits() })
	f := &flat{entries: make([]uint32, 1<<24)}
	for _, c := range changes {
		first, n := raw4(c.Prefix.Addr()), number[c.Value]
		if c.Prefix.Bits() <= 24 {
			for i := first >> 8; i < first>>8+1<<(24-c.Prefix.Bits()); i++ {
				f.entries[i] = n
			}
			continue
		}
		if e := f.entries[first>>8]; e&deepFlag == 0 {
			f.entries[first>>8] = deepFlag | uint32(len(f.deep))
			f.deep = append(f.deep, [256]uint32(slices.Repeat([]uint32{e}, 256)))
		}
		deep := &f.deep[f.entries[first>>8]&^deepFlag]
		for i := first & 0xff; i < first&0xff+1<<(32-c.Prefix.Bits()); i++ {
			deep[i] = n
		}
	}
	return f
}

// poptrie is Asai and Ohara's with 18 bits of direct index, one node of 6 bits,
// and for the last 8 bits what flat has.
type poptrie struct {
	direct []uint32 // a node, or with deepFlag set a number
	nodes  []poptrieNode
	leaves []uint32
	deep   [][256]uint32
}

type poptrieNode struct {
	starts uint64 // bit i: leaf i+1 differs from leaf i
	base   uint32
}

func newPoptrie(f *flat) *poptrie {
	p := &poptrie{direct: make([]uint32, 1<<18), deep: f.deep}
	for i := range p.direct {
		of := f.entries[i<<6:][:64]
		node := poptrieNode{base: uint32(len(p.leaves))}
		leaves := of[:1:1]
		for j := 1; j < 64; j++ {
			if of[j] != of[j-1] {
				node.starts |= 1 << (j - 1)
				leaves = append(leaves, of[j])
			}
		}
		if len(leaves) == 1 && of[0]&deepFlag == 0 {
			p.direct[i] = deepFlag | of[0]
			continue
		}
		p.direct[i] = uint32(len(p.nodes))
		p.nodes, p.leaves = append(p.nodes, node), append(p.leaves, leaves...)
	}
	p.nodes, p.leaves = slices.Clone(p.nodes), slices.Clone(p.leaves)
	return p
}

func (p *poptrie) lookup(a uint32) uint32 {
	e := p.direct[a>>14]
	if e >= deepFlag {
		return e &^ deepFlag
	}
	node := &p.nodes[e]
	e = p.leaves[node.base+uint32(bits.OnesCount64(node.starts<<(64-a>>8&63)))]
	if e >= deepFlag {
		e = p.deep[e&^deepFlag][a&0xff]
	}
	return e
}

// dxr is Zec, Rizzo and Mikuc's with 16 bits of direct index and ranges of the
// other 16 that are searched by halves.
type dxr struct {
	direct  []uint64 // first range, number of ranges
	starts  []uint16
	numbers []uint16
}

func newDXR(f *flat) *dxr {
	d := &dxr{direct: make([]uint64, 1<<16)}
	for i := range d.direct {
		first, last := len(d.starts), ^uint32(0)
		add := func(start int, n uint32) {
			if n != last {
				d.starts, d.numbers, last = append(d.starts, uint16(start)), append(d.numbers, uint16(n)), n
			}
		}
		for j, e := range f.entries[i<<8:][:256] {
			if e < deepFlag {
				add(j<<8, e)
				continue
			}
			for k, n := range f.deep[e&^deepFlag] {
				add(j<<8|k, n)
			}
		}
		d.direct[i] = uint64(first)<<32 | uint64(len(d.starts)-first)
	}
	d.starts, d.numbers = slices.Clone(d.starts), slices.Clone(d.numbers)
	return d
}

func (d *dxr) lookup(a uint32) uint16 {
	first, n := uint32(d.direct[a>>16]>>32), uint32(d.direct[a>>16])
	for n > 1 {
		half := n / 2
		if d.starts[first+half] <= uint16(a) {
			first += half
		}
		n -= half
	}
	return d.numbers[first]
}
