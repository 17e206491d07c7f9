package fib

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// FuzzWith makes changes, some at a time, and compares each table with the slow
// twin at all the changed prefixes' edges; and in the end the first ones again.
func FuzzWith(f *testing.F) {
	// An octet with flags and a value, one with the length, four of the address.
	f.Add([]byte("\x00\x08\x0a\x00\x00\x00" + "\x01\x17\x0a\x01\x02\x00" + "\x82\x1a\x0a\x01\x03\x40")) // the package comment's
	f.Add([]byte("\x00\x00\x00\x00\x00\x00" + "\x80\x20\xff\xff\xff\xff" + "\xc0\x00\x00\x00\x00\x00")) // default and last host; no default
	f.Add([]byte("\x20\x40\x20\x01\x0d\xb8" + "\xa1\x7f\x20\x01\x0d\xb8" + "\xe0\x40\x20\x01\x0d\xb8")) // IPv6
	f.Add([]byte("\x80\x18\x0a\x00\x00\x00" + "\x81\x19\x0a\x00\x00\x80" + "\xc0\x18\x0a\x00\x00\x00")) // a /24 from under a /25
	f.Fuzz(func(t *testing.T, data []byte) {
		table, g := New[int](), golden{}
		var tables []*Table[int]
		var twins []golden
		var changes []Change[int]
		var addrs []netip.Addr
		for ; len(data) >= 6 && len(addrs) < 100; data = data[6:] {
			changes = append(changes, fuzzChange(data))
			addrs = append(addrs, edges(changes[len(changes)-1].Prefix.Masked())...)
			if data[0]&0x80 == 0 {
				continue
			}
			table, g = table.With(changes), g.apply(changes)
			changes = changes[:0]
			checkLookups(t, table, g, addrs)
			tables, twins = append(tables, table), append(twins, g)
		}
		for i := range min(3, len(tables)) {
			checkLookups(t, tables[i], twins[i], addrs)
		}
	})
}

// fuzzChange makes a change of six octets. The first one's bits are: 7, a table is
// made after it; 6, delete; 5, IPv6; 0 to 4, the value.
func fuzzChange(data []byte) Change[int] {
	addr := addr4(binary.BigEndian.Uint32(data[2:]))
	if data[0]&0x20 != 0 {
		addr = netip.AddrFrom16([16]byte{0: data[2], 1: data[3], 8: data[4], 15: data[5]})
	}
	return Change[int]{
		Prefix: netip.PrefixFrom(addr, int(data[1])%(addr.BitLen()+1)),
		Value:  int(data[0] & 0x1f),
		Delete: data[0]&0x40 != 0,
	}
}

func checkLookups(t *testing.T, table *Table[int], g golden, addrs []netip.Addr) {
	t.Helper()
	var raw []uint32
	var wants []int
	for _, a := range addrs {
		_, want, wantOK := g.lookup(a)
		if v, ok := table.Lookup(a); v != want || ok != wantOK {
			t.Fatalf("Lookup %v = %d, %v, want %d, %v", a, v, ok, want, wantOK)
		}
		if a.Is4() {
			raw, wants = append(raw, raw4(a)), append(wants, want)
		}
	}
	checkAll4(t, table, raw, wants)
	checkNumbers(t, table)
}
