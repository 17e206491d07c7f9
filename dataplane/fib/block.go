package fib

import (
	"math/bits"
	"slices"
)

// block has the longest prefixes of one /24 by the last octet, of those longer
// than /16, as runs of octets with the same result.
type block struct {
	starts  [4]uint64 // bit o%64 of starts[o/64]: a run starts at octet o > 0
	before  [4]uint8  // starts in the words before
	numbers []uint16  // by run
}

func newBlock(numbers *[256]uint16) *block {
	b := &block{numbers: []uint16{numbers[0]}}
	for o := 1; o < 256; o++ {
		if o%64 == 0 {
			b.before[o/64] = uint8(len(b.numbers) - 1)
		}
		if numbers[o] != numbers[o-1] {
			b.starts[o/64] |= 1 << (o % 64)
			b.numbers = append(b.numbers, numbers[o])
		}
	}
	b.numbers = slices.Clone(b.numbers) // without the room to grow
	return b
}

func (b *block) lookup(octet uint8) uint16 {
	word := octet / 64
	run := int(b.before[word]) + bits.OnesCount64(b.starts[word]<<(63-octet%64))
	return b.numbers[run]
}
