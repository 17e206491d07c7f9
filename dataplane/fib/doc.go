// Package fib is the forwarding table of a VRF: longest-prefix match (LPM) over
// IPv4 and IPv6, immutable once made. A writer derives the next table with
// [Table.With] and publishes it through an atomic pointer; readers take the
// pointer once per batch and need no lock, as what they hold never changes.
//
// The routes are in tries (bart, whose persistent updates copy only what changes),
// and those of IPv4 also compiled for lookups. Both hold small numbers instead of
// values: the many routes of a VRF share few next-hop groups.
//
// # The compiled form
//
// It is a sparse DIR-24-8 (Gupta, Lin, McKeown: "Routing Lookups in Hardware at
// Memory Access Speeds", INFOCOM 1998): the first 24 bits of the address are an
// index, in three steps, so that what has no routes takes no memory. Where a /24
// has longer prefixes, its 256 results are stored as runs of equal ones, found by
// counting bits (as in Asai, Ohara: "Poptrie", SIGCOMM 2015).
//
//	pages   by the 1st octet: a page
//	page    by the 2nd: a chunk, and a base: the number of the longest prefix of
//	        /1 to /16 that covers the whole /16
//	chunk   by the 3rd: the number of the longest prefix of /17 to /24, 0 for none,
//	        or with blockFlag the index of a block
//	block   by the 4th: the number of the longest prefix of /17 to /32, 0 for none
//	values  by number
//
// Where chunk or block have 0, base counts; where that is 0 too, the default route
// does, as values[0]. So a change stays small: a route longer than /16 makes one new
// chunk, one of up to /16 new bases, the default route neither; with them go the page
// and the array of pages. All else is shared with the table before.
//
// With the routes 0.0.0.0/0 → A, 10.0.0.0/8 → B, 10.1.2.0/23 → C and
// 10.1.3.64/26 → D, the values are [A A B C D], and of page 10
//
//	bases         are all 2
//	chunks        are all the empty one, but [1] has [2] = 3, [3] = block 0, else 0
//	its block 0   has runs from 0, 64 and 128: numbers 3, 4, 3
//
//	10.1.3.70 → chunk 1, entry 3: block 0; of the starts 64 and 128 one is not
//	            above 70: numbers[1] = 4 → D
//	10.9.9.9  → the empty chunk, 0: base 2 → B
//	11.0.0.1  → the empty page, 0: base 0 → A
//
// Memory: pages take 2 KB, a page 2.6 KB, a chunk 0.6 KB, a block some 0.1 KB; the
// trie some 60 octets per route. So
//
//	six routes of a small VRF                          2 + 2 · 2.6 + 2 · 0.6 + …   = 11 KB
//	10,000 routes of /16 to /32 in 10.0.0.0/8          2 + 2.6 + 256 · 0.6 + …     = 1.1 MB
//	200,000 routes all over the Internet               2 + 222 · 2.6 + 54 k · 0.6 + … = 44 MB
//	most, without blocks and trie                      2 + 256 · 2.6 + 65 k · 0.6  = 38 MB
//
// What else was tried, and the figures, are in docs/performance.md. In short:
// poptrie and DXR (Zec, Rizzo, Mikuc: "DXR: Towards a Billion Routing Lookups per
// Second in Software", CCR 2012) take a fifth of the memory or less for a full
// table, and poptrie is ahead with a million random destinations on 200,000 routes.
// With fewer, as VRFs have, this is about as quick, and simpler to change: a change
// costs 20 to 80 µs, wherever it is, but one of a /1 to /8 some 0.1 µs for each /16 it
// covers.
package fib
