package fib

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// with returns the pages of routes, in which the changed prefixes are not as they
// were when p was made; they are in order. Pages and chunks without changes are shared.
func (p *pages) with(routes *bart.Table[uint32], changed []netip.Prefix) *pages {
	if len(changed) > 0 && changed[0].Bits() == 0 {
		changed = changed[1:] // the default route is no base, but values[0]
	}
	if len(changed) == 0 {
		return p
	}
	next := *p
	c := compiler{routes: routes, pages: &next}
	for len(changed) > 0 {
		n := 1
		if prefix := changed[0]; prefix.Bits() <= 16 {
			c.rebase(prefix)
		} else {
			i := index16(prefix.Addr())
			for n < len(changed) && changed[n].Bits() > 16 && index16(changed[n].Addr()) == i {
				n++
			}
			c.repaint(i, changed[:n])
		}
		changed = changed[n:]
	}
	for i, copied := range c.copied {
		if copied && *next[i] == emptyPage {
			next[i] = &emptyPage
		}
	}
	return &next
}

// compiler derives pages.
type compiler struct {
	routes   *bart.Table[uint32]
	pages    *pages
	copied   [256]bool // of the pages, those that may be changed
	painting painting  // of one /16 after the other
}

// page returns a page that may be changed.
func (c *compiler) page(octet int) *page {
	if !c.copied[octet] {
		page := *c.pages[octet]
		c.pages[octet], c.copied[octet] = &page, true
	}
	return c.pages[octet]
}

// rebase sets the bases of all that prefix, of /1 to /16, covers.
func (c *compiler) rebase(prefix netip.Prefix) {
	first := index16(prefix.Addr())
	for i := first; i < first+1<<(16-prefix.Bits()); i++ {
		c.page(i >> 8).bases[i&0xff] = c.longest(slash16(i), 1)
	}
}

// longest returns the number of the longest prefix of at least minBits that
// covers all of prefix, 0 for none.
func (c *compiler) longest(prefix netip.Prefix, minBits int) uint16 {
	found, n, ok := c.routes.LookupPrefixLPM(prefix)
	if !ok || found.Bits() < minBits {
		return 0
	}
	return uint16(n)
}

// fewChanges is up to how many changes in a /16 are made one by one, not by
// painting all of it.
const fewChanges = 4

// repaint brings the chunk of the /16 of that index up to date after changes of
// longer prefixes.
func (c *compiler) repaint(i int, changed []netip.Prefix) {
	if len(changed) > fewChanges {
		changed = []netip.Prefix{slash16(i)}
	}
	page := c.page(i >> 8)
	c.painting.open(page.chunks[i&0xff])
	for _, prefix := range changed {
		prefix = netip.PrefixFrom(prefix.Addr(), min(prefix.Bits(), 24)).Masked()
		c.painting.repaint(prefix, c.longest(prefix, 17), c.routes.Subnets(prefix))
	}
	page.chunks[i&0xff] = c.painting.chunk()
}

// index16 is an address's first two octets, slash16 the prefix of such an index.
func index16(a netip.Addr) int {
	b := a.As4()
	return int(b[0])<<8 | int(b[1])
}

func slash16(i int) netip.Prefix { return netip.PrefixFrom(addr4(uint32(i)<<16), 16) }
