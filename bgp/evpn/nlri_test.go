package evpn

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	gobgp "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What FRR 8.4 says of a VTEP 172.16.0.11 with VNI 7001, AS 65011, captured.
const (
	rd11     = "0001 ac10000b 0002"
	noESI    = "00000000000000000000"
	frrMACIP = "02 25" + rd11 + noESI + "00000000 30 42a4b0f58739 20 0a0a0001 001b59" +
		"02 31" + rd11 + noESI + "00000000 30 42a4b0f58739 80 fe8000000000000070a18efffeac1d41 001b59"
	frrMulticast = "03 11" + rd11 + "00000000 20 ac10000b"
	frrExtended  = "030c000000000008 0002fdf300001b59"
	frrPMSI      = "00 06 001b59 ac10000b"
)

var (
	host11 = MAC{0x42, 0xa4, 0xb0, 0xf5, 0x87, 0x39}
	rd     = NewRD(netip.MustParseAddr("172.16.0.11"), 2)
	single = func(a string) netip.Prefix {
		p := netip.MustParseAddr(a)
		return netip.PrefixFrom(p, p.BitLen())
	}
)

// vectors are NLRI, and the routes that they are.
var vectors = map[string]struct {
	wire   string
	routes []Route
}{
	"FRR's MAC/IP": {frrMACIP, []Route{
		{Key: Key{Type: TypeMACIP, RD: rd, MAC: host11, Prefix: single("10.10.0.1")}, VNI: 7001},
		{Key: Key{Type: TypeMACIP, RD: rd, MAC: host11, Prefix: single("fe80::70a1:8eff:feac:1d41")}, VNI: 7001},
	}},
	"MAC alone": {"02 21" + rd11 + noESI + "00000000 30 42a4b0f58739 00 001b59",
		[]Route{{Key: Key{Type: TypeMACIP, RD: rd, MAC: host11}, VNI: 7001}}},
	"two labels": {"02 28" + rd11 + noESI + "00000005 30 42a4b0f58739 20 0a0a0001 001b59 002329",
		[]Route{{Key: Key{Type: TypeMACIP, RD: rd, Tag: 5, MAC: host11, Prefix: single("10.10.0.1")}, VNI: 7001, Routed: 9001}}},
	"FRR's multicast": {frrMulticast, []Route{{Key: Key{Type: TypeMulticast, RD: rd, Prefix: single("172.16.0.11")}}}},
	"prefix by a gateway": {"05 22" + rd11 + noESI + "00000000 10 0a0a0000 0a0a00fe 000000",
		[]Route{{Key: Key{Type: TypePrefix, RD: rd, Prefix: netip.MustParsePrefix("10.10.0.0/16")}, Gateway: netip.MustParseAddr("10.10.0.254")}}},
	"prefix without": {"05 3a" + rd11 + noESI + "00000000 30 fd000010000000000000000000000000 00000000000000000000000000000000 001b59",
		[]Route{{Key: Key{Type: TypePrefix, RD: rd, Prefix: netip.MustParsePrefix("fd00:10::/48")}, VNI: 7001}}},
}

func TestNLRI(t *testing.T) {
	for name, c := range vectors {
		wire := unhex(t, c.wire)
		p, err := ParseNLRI(wire)
		if err != nil || p.Malformed != nil || !reflect.DeepEqual(p.Routes, c.routes) {
			t.Errorf("%s: parsed as %+v, %v", name, p, err)
		}
		var b []byte
		for _, r := range c.routes {
			b = AppendNLRI(b, &r)
		}
		if !bytes.Equal(b, wire) {
			t.Errorf("%s: built as\n% x, want\n% x", name, b, wire)
		}
		keys, err := ParseWithdrawn(wire)
		if err != nil || len(keys) != len(c.routes) || keys[0] != c.routes[0].Key {
			t.Errorf("%s: withdrawn: %+v, %v", name, keys, err)
		}
	}
}

// TestNLRIAsGoBGP has another implementation read what is built.
func TestNLRIAsGoBGP(t *testing.T) {
	for name, c := range vectors {
		for _, r := range c.routes {
			var n gobgp.EVPNNLRI
			wire := AppendNLRI(nil, &r)
			if err := n.DecodeFromBytes(wire); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			again, err := n.Serialize()
			if err != nil || !bytes.Equal(again, wire) {
				t.Errorf("%s: GoBGP makes % x of % x, %v", name, again, wire, err)
			}
			if got := n.RD().String(); got != r.RD.String() {
				t.Errorf("%s: RD %s, GoBGP says %s", name, r.RD, got)
			}
		}
	}
}

// TestMalformedNLRI says which faults withdraw a route, and which leave unclear what
// is meant.
func TestMalformedNLRI(t *testing.T) {
	const mac = "02 25" + rd11 + noESI + "00000000"
	for name, c := range map[string]struct {
		wire      string
		routes    int
		malformed string // "" if none is
		err       string // "" if there is none
	}{
		"nothing":                {"", 0, "", ""},
		"unknown types":          {"01 19" + rd11 + noESI + "00000000 000000" + "04 01 00" + frrMulticast, 1, "", ""},
		"no length":              {"02", 0, "", "within its length"},
		"cut":                    {"02 25" + rd11, 0, "", "within its length"},
		"cut behind a whole one": {frrMulticast + "03 11 00", 0, "", "within its length"},
		"short MAC/IP":           {"02 08" + rd11, 0, "", "of type 2: 8 octets"},
		"MAC of 40 bits":         {mac + "28 42a4b0f58739 20 0a0a0001 001b59", 0, "", "MAC address of 40 bits"},
		"IP of 24 bits":          {mac + "30 42a4b0f58739 18 0a0a0001 001b59", 0, "", "IP address of 24 bits"},
		"IP longer than it is":   {mac + "30 42a4b0f58739 80 0a0a0001 001b59", 0, "", "IP address of 128 bits"},
		"half a label":           {"02 26" + rd11 + noESI + "00000000 30 42a4b0f58739 20 0a0a0001 001b59 00", 0, "", "38 octets"},
		"a group's MAC":          {mac + "30 01a4b0f58739 20 0a0a0001 001b59" + frrMulticast, 1, "is a group", ""},
		"no MAC":                 {mac + "30 000000000000 20 0a0a0001 001b59", 0, "without address", ""},
		"a group's IP":           {mac + "30 42a4b0f58739 20 e0000001 001b59", 0, "host address 224.0.0.1", ""},
		"an originator cut":      {"03 10" + rd11 + "00000000 20 ac1000", 0, "", "of type 3: 16 octets"},
		"an originator's length": {"03 11" + rd11 + "00000000 18 ac10000b", 0, "", "of type 3"},
		"prefix of 33 bits":      {"05 22" + rd11 + noESI + "00000000 21 0a0a0000 0a0a00fe 000000", 0, "", "prefix of 33 bits"},
		"prefix of odd length":   {"05 23" + rd11 + noESI + "00000000 10 0a0a0000 0a0a00fe 00000000", 0, "", "35 octets"},
		"segment and gateway":    {"05 22" + rd11 + "00000000000000000001 00000000 10 0a0a0000 0a0a00fe 000000", 0, "Ethernet segment", ""},
		"a group as gateway":     {"05 22" + rd11 + noESI + "00000000 10 0a0a0000 e0000001 000000", 0, "gateway 224.0.0.1", ""},
		"host bits":              {"05 22" + rd11 + noESI + "00000000 10 0a0affff 0a0a00fe 000000", 1, "", ""},
	} {
		p, err := ParseNLRI(unhex(t, c.wire))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || len(p.Routes) != c.routes || (p.Why == "") != (c.malformed == "") || !strings.Contains(p.Why, c.malformed) ||
			len(p.Malformed) != min(1, len(c.malformed)) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// FuzzNLRI shows that what is accepted is built again as it came, but for what means
// nothing, and that no input does more than be refused.
func FuzzNLRI(f *testing.F) {
	for _, c := range vectors {
		f.Add(unhex(f, c.wire))
	}
	f.Add(unhex(f, "01 19"+rd11+noESI+"00000000 000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseNLRI(b)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range p.Routes {
			again = AppendNLRI(again, &r)
		}
		q, err := ParseNLRI(again)
		if err != nil || !slices.Equal(p.Routes, q.Routes) || q.Malformed != nil {
			t.Errorf("% x: %+v, then %+v, %v", b, p, q, err)
		}
	})
}
