package speaker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"msee/bgp"
)

// updateMessage makes an UPDATE of withdrawn routes, attributes and NLRI.
func updateMessage(withdrawn, attrs, nlri []byte) []byte {
	b := appendHeader(nil, typeUpdate)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(withdrawn))), withdrawn...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(attrs))), attrs...)
	b = append(b, nlri...)
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)))
	return b
}

// Well-formed attributes: ORIGIN IGP, AS_PATH 65001, NEXT_HOP 192.0.2.1.
var (
	goodOrigin = []byte{0x40, 1, 1, 0}
	goodPath   = []byte{0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9}
	goodHop    = []byte{0x40, 3, 4, 192, 0, 2, 1}
	net10      = []byte{8, 10}
)

func attrs(parts ...[]byte) []byte { return slices.Concat(parts...) }

// TestMalformedUpdate goes through RFC 7606: what is withdrawn, what is
// ignored, what ends the session.
func TestMalformedUpdate(t *testing.T) {
	good := attrs(goodOrigin, goodPath, goodHop)
	reach6 := attrs([]byte{0x80, 14, 23, 0, 2, 1, 16}, make([]byte, 16), []byte{0, 8, 0xfd})
	for name, c := range map[string]struct {
		family   uint32
		b        []byte
		announce int
		withdraw int
		words    string // of the fault; "" if there is none
		subcode  uint8  // of the NOTIFICATION; 0 if there is none
	}{
		"good":                    {ipv4Unicast, updateMessage(nil, good, net10), 1, 0, "", 0},
		"host bits":               {ipv4Unicast, updateMessage(nil, good, []byte{12, 10, 31}), 1, 0, "", 0},
		"withdrawal":              {ipv4Unicast, updateMessage(net10, nil, nil), 0, 1, "", 0},
		"unknown optional":        {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0xc0, 99, 1, 7}), net10), 1, 0, "", 0},
		"the first of two counts": {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0x40, 1, 1, 9}), net10), 1, 0, "", 0},
		"other family ignored":    {ipv4Unicast, updateMessage(nil, reach6, nil), 0, 0, "", 0},
		"bad LOCAL_PREF ignored":  {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0x40, 5, 1, 1}), net10), 1, 0, "", 0},

		"no ORIGIN":             {ipv4Unicast, updateMessage(nil, attrs(goodPath, goodHop), net10), 0, 1, "no path attribute 1", 0},
		"no AS_PATH":            {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, goodHop), net10), 0, 1, "no path attribute 2", 0},
		"no NEXT_HOP":           {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, goodPath), net10), 0, 1, "no NEXT_HOP", 0},
		"ORIGIN 3":              {ipv4Unicast, updateMessage(nil, attrs([]byte{0x40, 1, 1, 3}, goodPath, goodHop), net10), 0, 1, "ORIGIN 03", 0},
		"ORIGIN of two octets":  {ipv4Unicast, updateMessage(nil, attrs([]byte{0x40, 1, 2, 0, 0}, goodPath, goodHop), net10), 0, 1, "ORIGIN 00 00", 0},
		"ORIGIN optional":       {ipv4Unicast, updateMessage(nil, attrs([]byte{0xc0, 1, 1, 0}, goodPath, goodHop), net10), 0, 1, "flags 0xc0, not 0x40", 0},
		"short NEXT_HOP":        {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, goodPath, []byte{0x40, 3, 3, 1, 2, 3}), net10), 0, 1, "NEXT_HOP of 3", 0},
		"MED of 3":              {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0x80, 4, 3, 1, 2, 3}), net10), 0, 1, "MULTI_EXIT_DISC of 3", 0},
		"COMMUNITIES of 0":      {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0xc0, 8, 0}), net10), 0, 1, "COMMUNITIES of 0", 0},
		"confederation segment": {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, []byte{0x40, 2, 6, 3, 1, 0, 0, 0, 1}, goodHop), net10), 0, 1, "segment of type 3", 0},
		"AS_SET":                {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, []byte{0x40, 2, 12, 2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 1}, goodHop), net10), 0, 1, "AS_PATH: an AS_SET", 0},
		"empty segment":         {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, []byte{0x40, 2, 2, 2, 0}, goodHop), net10), 0, 1, "empty segment", 0},
		"segment overruns":      {ipv4Unicast, updateMessage(nil, attrs(goodOrigin, []byte{0x40, 2, 4, 2, 9, 0, 0}, goodHop), net10), 0, 1, "segment of 9 AS numbers in 2 octets", 0},
		"attribute overruns":    {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0xc0, 8, 9, 1}), net10), 0, 1, "path attribute 8 of 9 octets in 1", 0},
		"attribute cut":         {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0xd0, 8, 9}), net10), 0, 1, "ends within its length", 0},
		"stray octet":           {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0xd0}), net10), 0, 1, "1 stray octets", 0},

		"unknown well-known":      {ipv4Unicast, updateMessage(nil, attrs(good, []byte{0x40, 99, 0}), net10), 0, 0, "99 is well-known", 2},
		"prefix of 33 bits":       {ipv4Unicast, updateMessage(nil, good, []byte{33, 1, 2, 3, 4, 5}), 0, 0, "33 bits", 10},
		"prefix cut":              {ipv4Unicast, updateMessage(nil, good, []byte{24, 10}), 0, 0, "24 bits in 1", 10},
		"withdrawn prefix cut":    {ipv4Unicast, updateMessage([]byte{24, 10}, nil, nil), 0, 0, "withdrawn routes", 10},
		"MP_REACH_NLRI twice":     {ipv6Unicast, updateMessage(nil, attrs(goodOrigin, goodPath, reach6, reach6), nil), 0, 0, "twice", 1},
		"next hop overruns":       {ipv6Unicast, updateMessage(nil, []byte{0x80, 14, 5, 0, 2, 1, 16, 0}, nil), 0, 0, "next hop of 16 octets in 0", 9},
		"next hop of 5 octets":    {ipv6Unicast, updateMessage(nil, []byte{0x80, 14, 10, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0}, nil), 0, 0, "next hop of 5", 9},
		"MP_UNREACH_NLRI cut":     {ipv6Unicast, updateMessage(nil, []byte{0x80, 15, 2, 0, 2}, nil), 0, 0, "MP_UNREACH_NLRI of 2", 9},
		"IPv6 prefix of 129 bits": {ipv6Unicast, updateMessage(nil, attrs([]byte{0x80, 15, 4, 0, 2, 1, 129}), nil), 0, 0, "129 bits", 10},
		"IPv6":                    {ipv6Unicast, updateMessage(nil, attrs(goodOrigin, goodPath, reach6), nil), 1, 0, "", 0},
		"IPv6 without AS_PATH":    {ipv6Unicast, updateMessage(nil, attrs(goodOrigin, reach6), nil), 0, 1, "no path attribute 2", 0},
	} {
		u, err := parseUpdate(c.b, c.family, true)
		if c.subcode != 0 {
			var e *updateError
			if !errors.As(err, &e) || e.subcode != c.subcode || !strings.Contains(e.detail, c.words) {
				t.Errorf("%s: %v, %+v; want 3/%d with %q", name, err, u, c.subcode, c.words)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(u.announce) != c.announce || len(u.withdraw) != c.withdraw || (c.words == "") != (u.malformed == "") || !strings.Contains(u.malformed, c.words) {
			t.Errorf("%s: %+v", name, u)
		}
	}
	// Lengths that contradict each other end the session.
	for _, b := range [][]byte{updateMessage(nil, nil, nil)[:headerLen+2], {headerLen: 0, 1, 0, 0}, {headerLen: 0, 0, 0, 1}} {
		var e *updateError
		if _, err := parseUpdate(b, ipv4Unicast, true); !errors.As(err, &e) || e.subcode != 1 {
			t.Errorf("% x: %v", b, err)
		}
	}
}

// randomTable makes routes for a session of that family.
func randomTable(r *rand.Rand, v6 bool) map[netip.Prefix]*bgp.Attrs {
	table := map[netip.Prefix]*bgp.Attrs{}
	var a *bgp.Attrs
	for range r.IntN(2000) {
		if a == nil || r.IntN(50) == 0 {
			a = &bgp.Attrs{Origin: uint8(r.IntN(3)), NextHop: netip.MustParseAddr("192.0.2.7"), HasMED: r.IntN(2) == 0}
			if v6 {
				a.NextHop = netip.MustParseAddr("2001:db8::7")
			}
			if a.HasMED {
				a.MED = r.Uint32()
			}
			for range r.IntN(400) >> r.IntN(9) {
				a.ASPath = append(a.ASPath, 1+r.Uint32N(100000))
			}
			for range r.IntN(100) >> r.IntN(7) {
				a.Communities = append(a.Communities, r.Uint32())
			}
		}
		var octets [16]byte
		binary.BigEndian.PutUint64(octets[:], r.Uint64())
		addr, bits := netip.AddrFrom4([4]byte(octets[:])), r.IntN(33)
		if v6 {
			addr, bits = netip.AddrFrom16(octets), r.IntN(129)
		}
		table[netip.PrefixFrom(addr, bits).Masked()] = a
	}
	return table
}

// TestUpdateRoundTrip encodes random tables and decodes them again, with AS
// numbers of two octets and of four.
func TestUpdateRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := &updateWriter{local: netip.MustParseAddr(v4a), as: ourAS, fourOctets: seed%2 == 0}
		family := uint32(ipv4Unicast)
		if seed%4 > 1 {
			w.local, family = netip.MustParseAddr(v6a), ipv6Unicast
		}
		table := randomTable(r, family == ipv6Unicast)
		groups, all := map[*bgp.Attrs][]netip.Prefix{}, []netip.Prefix{}
		for p, a := range table {
			groups[a], all = append(groups[a], p), append(all, p)
		}
		var b []byte
		for a, prefixes := range groups {
			var err error
			b, err = w.announce(b, prefixes, a)
			must(t, err)
		}
		got := map[netip.Prefix]*bgp.Attrs{}
		each(t, b, func(m []byte) {
			u, err := parseUpdate(m, family, w.fourOctets)
			if err != nil || u.malformed != "" || u.endOfRIB {
				t.Fatalf("seed %d: %v, %+v", seed, err, u)
			}
			for _, p := range u.announce {
				got[p] = u.attrs
			}
		})
		if len(got) != len(table) {
			t.Fatalf("seed %d: %d prefixes of %d", seed, len(got), len(table))
		}
		for p, a := range table {
			want := *a
			want.ASPath = append([]uint32{ourAS}, a.ASPath...)
			if !equal(got[p], &want) {
				t.Fatalf("seed %d: %v came back with\n%+v, want\n%+v", seed, p, got[p], want)
			}
		}
		n := 0
		each(t, w.endOfRIB(w.withdraw(nil, all)), func(m []byte) {
			u, err := parseUpdate(m, family, true)
			must(t, err)
			n += len(u.withdraw)
			if u.endOfRIB != (n == len(all) && len(u.withdraw) == 0) {
				t.Fatalf("seed %d: End-of-RIB %v after %d", seed, u.endOfRIB, n)
			}
		})
		if n != len(all) {
			t.Fatalf("seed %d: %d withdrawn of %d", seed, n, len(all))
		}
	}
}

// each calls fn with every message of b.
func each(t *testing.T, b []byte, fn func([]byte)) {
	t.Helper()
	r, buf := bytes.NewReader(b), make([]byte, maxMessage)
	for r.Len() > 0 {
		m, err := readMessage(r, buf)
		must(t, err)
		fn(m)
	}
}

func TestAttrsTooLong(t *testing.T) {
	w := &updateWriter{local: netip.MustParseAddr(v4a), as: ourAS, fourOctets: true}
	b, err := w.announce(nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, &bgp.Attrs{ASPath: make([]uint32, 1100)})
	if !errors.Is(err, errAttrsTooLong) || len(b) != 0 {
		t.Errorf("%v, %d octets", err, len(b))
	}
}

func TestAS4Path(t *testing.T) {
	trans := func(n int) []byte {
		return append([]byte{0x40, 2, byte(2 + 2*n), 2, byte(n)}, bytes.Repeat([]byte{0x5b, 0xa0}, n)...)
	}
	as4 := []byte{0xc0, 17, 10, 2, 2, 0, 1, 0, 0, 0, 2, 0, 0}
	for n, want := range map[int]string{3: "[23456 65536 131072]", 2: "[65536 131072]", 1: "[23456]"} { // RFC 6793 §4.2.3
		u, err := parseUpdate(updateMessage(nil, attrs(goodOrigin, trans(n), goodHop, as4), net10), ipv4Unicast, false)
		must(t, err)
		if got := fmt.Sprint(u.attrs.ASPath); got != want {
			t.Errorf("path of %d: %s, want %s", n, got, want)
		}
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(updateMessage(nil, attrs(goodOrigin, goodPath, goodHop), net10), uint8(0))
	f.Add(updateMessage(net10, nil, nil), uint8(1))
	w := &updateWriter{local: netip.MustParseAddr(v6a), as: ourAS}
	v6, err := w.announce(nil, []netip.Prefix{netip.MustParsePrefix("fd00::/8")}, &bgp.Attrs{Communities: []uint32{1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v6, uint8(2))
	mapped, err := w.announce(nil, []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}, &bgp.Attrs{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mapped, uint8(3))
	for i := range frrEVPN {
		f.Add(frrUpdate(f, i), uint8(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		m, err := readMessage(bytes.NewReader(b), make([]byte, maxMessage))
		if err != nil || m[18] != typeUpdate {
			return
		}
		family := uint32(ipv4Unicast)
		if kind&2 != 0 {
			family = ipv6Unicast
		} else if kind&4 != 0 {
			family = l2vpnEVPN
		}
		u, err := parseUpdate(m, family, kind&1 != 0)
		var e *updateError
		if err != nil {
			if !errors.As(err, &e) || e.detail == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, p := range slices.Concat(u.announce, u.withdraw) {
			if !usable(p) || p.Addr().Is4() != (family == ipv4Unicast) {
				t.Fatalf("prefix %v", p)
			}
		}
		if len(u.announce) > 0 && (u.attrs == nil || !u.attrs.NextHop.IsValid() || u.malformed != "") {
			t.Fatalf("%+v", u)
		}
		for _, r := range u.evpn.Announce {
			if r.Attrs == nil || !r.Attrs.NextHop.IsValid() {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// TestEndOfRIBAlone: an UPDATE that withdraws nothing in MP_UNREACH_NLRI is the
// End-of-RIB only if it says nothing else (RFC 4724 §2).
func TestEndOfRIBAlone(t *testing.T) {
	unreach := []byte{flagOptional, attrMPUnreach, 3, 0, 1, 1}
	u, err := parseUpdate(updateMessage(nil, attrs(unreach, goodOrigin, goodPath, goodHop), net10), ipv4Unicast, true)
	must(t, err)
	if u.endOfRIB || len(u.announce) != 1 {
		t.Errorf("%+v", u)
	}
	u, err = parseUpdate(updateMessage(nil, attrs(unreach), nil), ipv4Unicast, true)
	must(t, err)
	if !u.endOfRIB {
		t.Error("an End-of-RIB in MP_UNREACH_NLRI is none")
	}
}
