package fib

// maxNumber is the largest number that fits beside blockFlag.
const maxNumber = blockFlag - 1

// blockFlag marks an entry of a chunk that is the index of a block.
const blockFlag = 1 << 15

// pages is the compiled form of the IPv4 routes, by the first octet. No pointer
// in it is nil, and nothing in it ever changes.
type pages [256]*page

// page is the compiled form of the routes of one /8, by the second octet.
type page struct {
	chunks [256]*chunk
	bases  [256]uint16 // numbers of the longest prefixes of /1 to /16
}

// chunk is the compiled form of the routes of one /16 that are longer than that.
type chunk struct {
	// entries has by the third octet the number of the longest prefix of /17
	// to /24, or with blockFlag set an index of blocks.
	entries [256]uint16
	blocks  []*block
}

// What has no routes is shared by all tables.
var (
	emptyChunk chunk
	emptyPage  = func() (p page) {
		for i := range p.chunks {
			p.chunks[i] = &emptyChunk
		}
		return p
	}()
	emptyPages = func() (p pages) {
		for i := range p {
			p[i] = &emptyPage
		}
		return p
	}()
)

// at returns where the /16 of an address is. (Inlined.)
func (p *pages) at(addr uint32) (*page, *chunk) {
	page := p[addr>>24]
	return page, page.chunks[addr>>16&0xff]
}

// more is 1 if a chunk's entry is not yet the result, n == 0 or n >= blockFlag, and
// else 0. (Inlined.)
func more(n uint16) int { return int(n>>15 | uint16((uint32(n)-1)>>31)) }

// lookupMore is the rest of a lookup, where c's entry n is not yet the result. It
// returns 0 if no prefix covers addr but perhaps the default route.
func (p *page) lookupMore(c *chunk, n uint16, addr uint32) uint16 {
	if n != 0 {
		n = c.blocks[n-blockFlag].lookup(uint8(addr))
	}
	if n == 0 {
		n = p.bases[addr>>16&0xff]
	}
	return n
}
