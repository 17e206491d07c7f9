package speaker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/bgp"
	"msee/bgp/evpn"
)

// What FRR 8.4 sent for a VTEP 172.16.0.11, VNI 7001, AS 65011, captured: two MAC/IP
// routes, a multicast route, End-of-RIB, and the two withdrawn.
var frrEVPN = []string{
	"ffffffffffffffffffffffffffffffff009f0200000088900e006300194604ac10000b0002250001ac10000b000200000000000000000000000000003042a4b0f58739200a0a0001001b5902310001ac10000b000200000000000000000000000000003042a4b0f5873980fe8000000000000070a18efffeac1d41001b59400101005002000602010000fdf3c01010030c0000000000080002fdf300001b59",
	"ffffffffffffffffffffffffffffffff0064020000004d900e001c00194604ac10000b0003110001ac10000b00020000000020ac10000b400101005002000602010000fdf3c01010030c0000000000080002fdf300001b59c016090006001b59ac10000b",
	"ffffffffffffffffffffffffffffffff001d0200000006800f03001946",
	"ffffffffffffffffffffffffffffffff00780200000061900f005d00194602250001ac10000b000200000000000000000000000000003042a4b0f58739200a0a000100000002310001ac10000b000200000000000000000000000000003042a4b0f5873980fe8000000000000070a18efffeac1d41000000",
}

func frrUpdate(t testing.TB, i int) []byte {
	t.Helper()
	b, err := hex.DecodeString(frrEVPN[i])
	must(t, err)
	return b
}

func TestFRRsEVPNUpdates(t *testing.T) {
	rd := evpn.NewRD(netip.MustParseAddr("172.16.0.11"), 2)
	mac := evpn.MAC{0x42, 0xa4, 0xb0, 0xf5, 0x87, 0x39}
	attrs := evpn.Attrs{NextHop: netip.MustParseAddr("172.16.0.11"), ASPath: []uint32{65011},
		Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(65011, 7001)}}}
	flood := attrs
	flood.Flood = 7001
	key4 := evpn.Key{Type: evpn.TypeMACIP, RD: rd, MAC: mac, Prefix: netip.MustParsePrefix("10.10.0.1/32")}
	key6 := evpn.Key{Type: evpn.TypeMACIP, RD: rd, MAC: mac, Prefix: netip.MustParsePrefix("fe80::70a1:8eff:feac:1d41/128")}
	for i, want := range []received{
		{evpn: evpn.Update{Announce: []evpn.Route{{Key: key4, VNI: 7001, Attrs: &attrs}, {Key: key6, VNI: 7001, Attrs: &attrs}}}},
		{evpn: evpn.Update{Announce: []evpn.Route{{Key: evpn.Key{Type: evpn.TypeMulticast, RD: rd, Prefix: netip.MustParsePrefix("172.16.0.11/32")}, Attrs: &flood}}}},
		{endOfRIB: true},
		{evpn: evpn.Update{Withdraw: []evpn.Key{key4, key6}}},
	} {
		got, err := parseUpdate(frrUpdate(t, i), l2vpnEVPN, true)
		if err != nil || got.malformed != "" || got.endOfRIB != want.endOfRIB || len(got.evpn.Announce)+len(want.evpn.Announce) > 0 && !reflect.DeepEqual(got.evpn, want.evpn) ||
			len(got.evpn.Withdraw) != len(want.evpn.Withdraw) {
			t.Errorf("UPDATE %d: %+v, %v\nwant %+v", i, got, err, want)
		}
		if got, err := parseUpdate(frrUpdate(t, i), ipv4Unicast, true); err != nil || len(got.announce)+len(got.withdraw)+len(got.evpn.Announce)+len(got.evpn.Withdraw) > 0 || got.endOfRIB {
			t.Errorf("UPDATE %d in an IPv4 session: %+v, %v", i, got, err)
		}
	}
}

// TestMalformedEVPN says what withdraws one route, what all of an UPDATE, and what
// ends the session.
func TestMalformedEVPN(t *testing.T) {
	const group, path = "42a4b0f58739200a0a0001", "5002000602010000fdf3"
	for name, c := range map[string]struct {
		old, new string // in the first UPDATE of FRR's
		announce int
		withdraw int
		words    string
		subcode  uint8
	}{
		"sound":                    {"", "", 2, 0, "", 0},
		"a group's MAC":            {group, "43a4b0f58739200a0a0001", 1, 1, "is a group", 0},
		"a length of IP":           {group, "42a4b0f58739210a0a0001", 0, 0, "IP address of 33 bits", 10},
		"a route's length":         {"02310001ac10", "02ff0001ac10", 0, 0, "within its length", 10},
		"the next hop's length":    {"00194604ac10000b", "00194605ac10000b", 0, 0, "next hop of 5 octets", 9},
		"no AS_PATH":               {path, "d063000602010000fdf3", 0, 2, "no path attribute 2", 0},
		"an AS_SET":                {path, "5002000601010000fdf3", 0, 2, "AS_SET", 0},
		"extended communities cut": {"c01010030c0000000000080002fdf300001b59", "c01007030c0000000000c06306000000000000", 0, 2, "EXTENDED_COMMUNITIES of 7 octets", 0},
		"their flags":              {"c01010030c", "801010030c", 0, 2, "path attribute 16 has flags", 0},
		"a tunnel cut":             {"c01010030c000000000008", "c01601ffc00c0603000000", 0, 2, "PMSI_TUNNEL of 1 octets", 0},
	} {
		b, err := hex.DecodeString(strings.Replace(frrEVPN[0], c.old, c.new, 1))
		must(t, err)
		if c.old != "" && hex.EncodeToString(b) == frrEVPN[0] {
			t.Errorf("%s: %q is not in it", name, c.old)
		}
		u, err := parseUpdate(b, l2vpnEVPN, true)
		var e *updateError
		switch {
		case c.subcode != 0:
			if !errors.As(err, &e) || e.subcode != c.subcode || !strings.Contains(e.detail, c.words) {
				t.Errorf("%s: %v, want subcode %d, %q", name, err, c.subcode, c.words)
			}
		case err != nil || len(u.evpn.Announce) != c.announce || len(u.evpn.Withdraw) != c.withdraw || (u.malformed == "") != (c.words == "") || !strings.Contains(u.malformed, c.words):
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

func evpnRoute(vtep string, mac byte, vni uint32) evpn.Route {
	a := netip.MustParseAddr(vtep)
	return evpn.Route{Key: evpn.Key{Type: evpn.TypeMACIP, RD: evpn.NewRD(a, 1), MAC: evpn.MAC{2, 0, 0, 0, 0, mac}, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, 0, mac}), 32)},
		VNI: vni, Attrs: &evpn.Attrs{NextHop: a, Communities: []uint32{65515<<16 | 5000}, Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(65011, vni)}, Sequence: uint32(mac)}}}
}

// readEVPN reads the only UPDATE that announces those routes, with that next hop.
func readEVPN(t *testing.T, hop string, routes ...evpn.Route) *received {
	t.Helper()
	w := &updateWriter{as: theirAS, fourOctets: true}
	b, err := w.announceEVPN(nil, routes, &evpn.Attrs{NextHop: netip.MustParseAddr(hop), Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(65011, 7001)}}})
	must(t, err)
	u, err := parseUpdate(b, l2vpnEVPN, true)
	must(t, err)
	return u
}

// TestEVPNNextHop: what cannot be the end of a tunnel withdraws.
func TestEVPNNextHop(t *testing.T) {
	r := evpnRoute("172.16.0.11", 1, 7001)
	for _, hop := range []string{"172.16.0.11", "10.0.0.0", "2001:db8::1", "fd00::1"} {
		if u := readEVPN(t, hop, r); len(u.evpn.Announce) != 1 || len(u.evpn.Withdraw) != 0 || u.malformed != "" {
			t.Errorf("%s: %+v", hop, u)
		}
	}
	for _, hop := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.0.1", "::", "::1", "ff02::1", "fe80::1", "::ffff:1.2.3.4"} {
		if u := readEVPN(t, hop, r); len(u.evpn.Announce) != 0 || !reflect.DeepEqual(u.evpn.Withdraw, []evpn.Key{r.Key}) || !strings.Contains(u.malformed, "next hop "+hop) {
			t.Errorf("%s: %+v", hop, u)
		}
	}
}

// TestEVPNTwice: a route that one UPDATE has sound and malformed is withdrawn.
func TestEVPNTwice(t *testing.T) {
	sound := evpn.Route{Key: evpn.Key{Type: evpn.TypePrefix, RD: evpn.NewRD(netip.MustParseAddr("172.16.0.11"), 1), Prefix: netip.MustParsePrefix("10.20.0.0/16")},
		Gateway: netip.MustParseAddr("10.10.0.1")}
	bad, other := sound, sound
	bad.Gateway = netip.MustParseAddr("127.0.0.1")
	other.Tag = 1
	for _, routes := range [][]evpn.Route{{sound, other, bad}, {bad, other, sound}} {
		u := readEVPN(t, "172.16.0.11", routes...)
		if len(u.evpn.Announce) != 1 || u.evpn.Announce[0].Key != other.Key || !reflect.DeepEqual(u.evpn.Withdraw, []evpn.Key{sound.Key}) || u.malformed == "" {
			t.Errorf("%+v", u)
		}
	}
}

// TestEVPNUpdates writes routes of one set of attributes, as many as it takes, and reads
// them; attributes that leave no room are refused.
func TestEVPNUpdates(t *testing.T) {
	for _, c := range []struct {
		routes, path, messages int
		fourOctets             bool
	}{{1, 2, 1, true}, {67, 2, 2, true}, {60, 2, 1, false}, {10, 900, 2, true}, {1, 990, 0, true}} {
		w := &updateWriter{local: netip.MustParseAddr("172.16.0.1"), as: ourAS, fourOctets: c.fourOctets}
		var routes []evpn.Route
		for i := range c.routes {
			routes = append(routes, evpn.Route{Key: evpn.Key{Type: evpn.TypePrefix, RD: evpn.NewRD(w.local, 1), Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 16)}, VNI: 7001})
		}
		a := &evpn.Attrs{ASPath: slices.Repeat([]uint32{4200000000}, c.path), Extended: evpn.Extended{Targets: []evpn.RT{evpn.NewRT(ourAS, 7001)}, RouterMAC: evpn.MAC{2, 1}}}
		b, err := w.announceEVPN(nil, routes, a)
		if (err != nil) != (c.messages == 0) {
			t.Errorf("%+v: %v", c, err)
		}
		b = w.withdrawEVPN(b, []evpn.Key{routes[0].Key})
		var got, gone, messages int
		for r := bytes.NewReader(b); r.Len() > 0; messages++ {
			m, err := readMessage(r, make([]byte, maxMessage))
			must(t, err)
			u, err := parseUpdate(m, l2vpnEVPN, c.fourOctets)
			if err != nil || u.malformed != "" {
				t.Fatalf("%+v: %+v, %v", c, u, err)
			}
			for _, r := range u.evpn.Announce {
				want := *a
				want.NextHop, want.ASPath = w.local, append([]uint32{ourAS}, a.ASPath...)
				if r.Key != routes[got].Key || r.VNI != 7001 || !r.Attrs.Equal(&want) {
					t.Errorf("%+v: read %+v with %+v", c, r, r.Attrs)
				}
				got++
			}
			gone += len(u.evpn.Withdraw)
		}
		if want := c.routes * min(c.messages, 1); got != want || gone != 1 || messages != c.messages+1 {
			t.Errorf("%+v: %d announced in %d messages, %d withdrawn", c, got, messages-1, gone)
		}
	}
}

func TestEVPNWire(t *testing.T) {
	u := &evpn.Update{Session: "h11", Announce: []evpn.Route{evpnRoute("172.16.0.11", 1, 7001), evpnRoute("172.16.0.11", 2, 7001)},
		Withdraw: []evpn.Key{evpnRoute("172.16.0.11", 3, 7001).Key}}
	u.Announce[1].Attrs = u.Announce[0].Attrs
	p := packEVPN(u)
	got, err := p.unpack()
	if err != nil || !reflect.DeepEqual(got, u) || len(p.Groups) != 1 {
		t.Errorf("%+v, %v; want %+v", got, err, u)
	}
}

// TestEVPNSession has two speakers exchange routes, one that is there before the
// session and one that comes later; a restart of one keeps them.
func TestEVPNSession(t *testing.T) {
	t.Parallel()
	nsA, nsB := link(t)
	a, b := newEdge(t), newEdge(t)
	ca := ourSession(nsA, v4a, v4b)
	ca.EVPN = true
	cb := theirSession(ca, nsB)
	one, two := evpnRoute(v4b, 1, 7001), evpnRoute(v4b, 2, 7001)
	two.Attrs = one.Attrs
	b.Configure([]bgp.SessionConfig{cb})
	b.ReplaceEVPN(cb.Name, []evpn.Route{one})
	a.Configure([]bgp.SessionConfig{ca})
	a.untilState(ca.Name, bgp.StateEstablished, 20*time.Second)
	a.until("the first route and End-of-RIB", 10*time.Second, func() bool { return a.evpn[one.Key].Attrs != nil && a.eors > 0 })
	if got := a.evpnOf(one.Key); got.VNI != 7001 || got.Attrs.NextHop.String() != v4b || !reflect.DeepEqual(got.Attrs.ASPath, []uint32{theirAS}) {
		t.Errorf("received %+v, %+v", got, got.Attrs)
	}
	b.ReplaceEVPN(cb.Name, []evpn.Route{two})
	a.until("the second route instead", 10*time.Second, func() bool { return a.evpn[one.Key].Attrs == nil && a.evpn[two.Key].Attrs != nil })
	three := evpnRoute(v4b, 3, 7001)
	b.AdvertiseEVPN(evpn.Update{Session: cb.Name, Announce: []evpn.Route{three}})
	a.until("a third", 10*time.Second, func() bool { return a.evpn[two.Key].Attrs != nil && a.evpn[three.Key].Attrs != nil })
	b.AdvertiseEVPN(evpn.Update{Session: cb.Name, Withdraw: []evpn.Key{two.Key}})
	a.until("the third alone", 10*time.Second, func() bool { return a.evpn[two.Key].Attrs == nil && a.evpn[three.Key].Attrs != nil })
}
