package speaker

import (
	"bytes"
	"encoding/gob"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/server"

	"msee/bgp"
)

func TestPrivateFields(t *testing.T) {
	s := server.NewBgpServer(server.LoggerOption(&logHook{}))
	if _, err := injectAcceptCh(s); err != nil {
		t.Error(err)
	}
	if err := setIdentity(s, 1, netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Error(err)
	}
}

func TestNotificationText(t *testing.T) {
	for want, n := range map[string]notification{
		"Cease / administrative shutdown (6/2)":              {code: 6, subcode: 2},
		`Cease / administrative shutdown (6/2): "bye"`:       {code: 6, subcode: 2, data: []byte("\x03bye")},
		"Cease / administrative reset (6/4)":                 {code: 6, subcode: 4, data: []byte("\x09bye")},
		"hold timer expired (4/0)":                           {code: 4},
		"OPEN error / bad peer AS (2/2)":                     {code: 2, subcode: 2},
		"OPEN error (2/99)":                                  {code: 2, subcode: 99},
		"NOTIFICATION (77/1)":                                {code: 77, subcode: 1},
		"Cease / connection collision resolution (6/7)":      ceaseCollision,
		"OPEN error / unacceptable hold time (2/6)":          badHoldTime,
		"Cease / maximum number of prefixes reached (6/1)":   {code: 6, subcode: 1, data: []byte{0, 1, 1}},
		"UPDATE error / malformed AS_PATH (3/11)":            {code: 3, subcode: 11},
		"Cease / BFD down (6/10)":                            {code: 6, subcode: 10},
		"message header error / bad message length (1/2)":    {code: 1, subcode: 2},
		"FSM error / unexpected message in OpenSent (5/1)":   {code: 5, subcode: 1},
		"ROUTE-REFRESH error / invalid message length (7/1)": {code: 7, subcode: 1},
	} {
		if got := n.String(); got != want {
			t.Errorf("%+v: %q, want %q", n, got, want)
		}
		back, err := parseNotification(n.marshal())
		if size, _ := messageLen(n.marshal()); err != nil || back.code != n.code || back.subcode != n.subcode || !bytes.Equal(back.data, n.data) || size != len(n.marshal()) {
			t.Errorf("%+v came back as %+v, %v", n, back, err)
		}
	}
}

// openMessage is an OPEN of AS 65001 (four-octet 4200000000 if four is set).
func openMessage(hold uint16, params ...byte) []byte {
	b := bytes.Repeat([]byte{0xff}, 16)
	b = append(b, 0, byte(headerLen+10+len(params)), typeOpen, 4, 0xfd, 0xe9, byte(hold>>8), byte(hold), 10, 0, 0, 9, byte(len(params)))
	return append(b, params...)
}

func TestParseOpen(t *testing.T) {
	o, err := parseOpen(openMessage(90, 2, 14, 1, 4, 0, 2, 0, 1, 65, 4, 0xfa, 0x56, 0xea, 0x00, 2, 0))
	if err != nil {
		t.Fatal(err)
	}
	if o.as != 4200000000 || o.hold != 90*time.Second || o.id != netip.MustParseAddr("10.0.0.9") || !o.carries(ipv6Unicast) || o.carries(ipv4Unicast) {
		t.Errorf("%+v", o)
	}
	o, err = parseOpen(openMessage(3))
	if err != nil || o.as != 65001 || !o.carries(ipv4Unicast) || o.carries(ipv6Unicast) {
		t.Errorf("no capabilities: %+v, %v", o, err)
	}
	if o.preserves(ipv4Unicast); o.restart != nil {
		t.Errorf("no graceful restart, but %+v", o.restart)
	}
	// What is not known of here (70) does not come back; the rest does.
	o, err = parseOpen(openMessage(90, 2, 24, 1, 4, 0, 1, 0, 1, 70, 2, 9, 9, 65, 4, 0, 0, 0xfd, 0xe9, 64, 6, 0x80, 120, 0, 1, 1, 0x80))
	if err != nil {
		t.Fatal(err)
	}
	if wait, preserved := o.preserves(ipv4Unicast); wait != 2*time.Minute || !preserved || !o.restart.restarting {
		t.Errorf("graceful restart: %+v", o.restart)
	}
	if wait, _ := o.preserves(ipv6Unicast); wait != 0 {
		t.Errorf("IPv6 kept for %v", wait)
	}
	back, err := parseOpen(o.marshal())
	if err != nil || !reflect.DeepEqual(back, o) {
		t.Errorf("%+v came back as %+v, %v", o, back, err)
	}
	for _, bad := range [][]byte{nil, openMessage(3)[:28], openMessage(3, 2), openMessage(3, 2, 9, 1), openMessage(3, 2, 2, 1, 4), append(openMessage(3), 0)} {
		if _, err := parseOpen(bad); err == nil {
			t.Errorf("% x: accepted", bad)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(openMessage(90, 2, 6, 1, 4, 0, 2, 0, 1))
	f.Add(ceaseShutdown.marshal())
	f.Add(notification{6, 2, []byte("\x03bye")}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := messageLen(b); err == nil && n > maxMessage {
			t.Errorf("length %d", n)
		}
		if o, err := parseOpen(b); err == nil {
			o.preserves(ipv4Unicast)
			o.families = o.families[:min(len(o.families), maxFamilies)]
			if o.restart != nil && len(o.restart.families) > maxFamilies {
				o.restart = nil // never sent on
			}
			if back, err := parseOpen(o.marshal()); err != nil || !reflect.DeepEqual(back, o) {
				t.Errorf("%+v came back as %+v, %v", o, back, err)
			}
		}
		if n, err := parseNotification(b); err == nil {
			_ = n.String()
		}
	})
}

func TestNegotiate(t *testing.T) {
	s := time.Second
	for _, c := range []struct{ hold, keepalive, peer, wantHold, wantKeepalive time.Duration }{
		{180 * s, 60 * s, 180 * s, 180 * s, 60 * s},
		{180 * s, 60 * s, 240 * s, 180 * s, 60 * s},
		{180 * s, 60 * s, 10 * s, 10 * s, 3 * s},
		{180 * s, 60 * s, 3 * s, 3 * s, s},
		{10 * s, 3 * s, 180 * s, 10 * s, 3 * s},
	} {
		if h, k := negotiate(c.hold, c.keepalive, c.peer); h != c.wantHold || k != c.wantKeepalive {
			t.Errorf("%+v: %v, %v", c, h, k)
		}
	}
}

func TestMD5Words(t *testing.T) {
	c := parseNetstat([]byte("TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPMinTTLDrop\nTcpExt: 0 1 2 3 4\nIpExt: InNoRoutes\nIpExt: 9\n"))
	if c != (md5Counts{1, 2, 3, 4}) {
		t.Fatalf("%+v", c)
	}
	for _, bad := range []string{"", "TcpExt:", "TcpExt: TCPMD5Failure\n", "TcpExt: TCPMD5Failure\nTcpExt: x y z\n"} {
		if c := parseNetstat([]byte(bad)); c != (md5Counts{}) {
			t.Errorf("%q: %+v", bad, c)
		}
	}
	base := md5Counts{1, 2, 3, 4}
	for _, x := range []struct {
		before, now md5Counts
		key         bool
		down        int
		want        string
	}{
		{base, base, true, 0, ""},
		{md5Counts{1, 2, 9, 4}, md5Counts{2, 2, 9, 4}, true, 0, "sends no TCP-MD5 (TCPMD5NotFound +1)"}, // the later one
		{base, md5Counts{1, 2, 10, 4}, true, 0, "fail our sharedKey (TCPMD5Failure +7)"},
		{base, md5Counts{1, 2, 10, 4}, false, 0, ""},
		{base, md5Counts{2, 2, 3, 4}, true, 0, "sends no TCP-MD5 (TCPMD5NotFound +1)"},
		{base, md5Counts{1, 2, 3, 9}, true, 0, "arrive with a TTL below 255 (TCPMinTTLDrop +5)"},
		{base, md5Counts{1, 3, 3, 4}, false, 2, "no sharedKey is set here [the namespace's count; 2 more"},
	} {
		if got := explainMD5(base, x.before, x.now, x.key, true, x.down); !strings.Contains(got, x.want) || (x.want == "") != (got == "") {
			t.Errorf("%+v: %q", x, got)
		}
	}
}

func TestOutbox(t *testing.T) {
	o := newOutbox()
	est := bgp.SessionStatus{Session: "s", State: bgp.StateEstablished}
	idle := bgp.SessionStatus{Session: "s", State: bgp.StateIdle}
	a, b := announce("s", &bgp.Attrs{MED: 1}, "10.0.0.0/8"), announce("s", &bgp.Attrs{MED: 2}, "10.0.0.0/8")
	o.status(est)
	o.update(&a)
	o.update(&b)
	o.endOfRIB("s")
	o.status(idle) // voids what came before
	o.status(est)
	o.update(&b)
	o.endOfRIB("s")
	var got []string
	for e, ok := o.pop(); ok; e, ok = o.pop() {
		switch {
		case e.Status != nil:
			got = append(got, string(e.Status.State))
		case e.Update != nil:
			if len(e.Update.Announce) != 1 || e.Update.Announce[0].Attrs.MED != 2 {
				t.Errorf("%+v", e.Update)
			}
			got = append(got, "update")
		case e.EndOfRIB != "":
			got = append(got, "EoR")
		}
	}
	if s := strings.Join(got, " "); s != "Idle Established update EoR" {
		t.Errorf("told: %s", s)
	}
	o.update(&a)
	o.restart()
	if e, ok := o.pop(); !ok || !e.Restarted {
		t.Errorf("after restart: %+v", e)
	}
	if e, ok := o.pop(); ok {
		t.Errorf("left over after restart: %+v", e)
	}
}

func TestWire(t *testing.T) {
	u := announce("s", &bgp.Attrs{MED: 1}, "10.0.0.0/8", "fd00::/8")
	u.Withdraw = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	var b bytes.Buffer
	must(t, gob.NewEncoder(&b).Encode(report{Routes: pack(&u)}))
	var r report
	must(t, newDecoder(&b).decode(&r))
	back := r.Routes.unpack()
	if len(back.Announce) != 2 || back.Announce[0].Attrs != back.Announce[1].Attrs || len(back.Withdraw) != 1 {
		t.Errorf("%+v", back)
	}
	for _, p := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.1/8")} {
		if err := gob.NewEncoder(&b).Encode(report{Routes: &routes{Withdraw: prefixList{p}}}); err == nil {
			t.Errorf("%v sent", p)
		}
	}
	for _, bad := range [][]byte{{4}, {4, 8}, {4, 33, 1, 2, 3, 4, 5}, {5, 8, 10}, {4, 7, 1}, {4, 0, 6}} {
		if err := new(prefixList).UnmarshalBinary(bad); err == nil {
			t.Errorf("% x accepted", bad)
		}
	}
	if err := newDecoder(bytes.NewReader(append([]byte{0xfc, 0x3f, 0xff, 0xff, 0xff}, make([]byte, 32<<20)...))).decode(&r); err == nil {
		t.Error("a value of 1 GB was accepted")
	}
}

func FuzzReport(f *testing.F) {
	u := announce("s", &bgp.Attrs{MED: 1}, "10.0.0.0/8")
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(report{Routes: pack(&u)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDecoder(bytes.NewReader(in))
		for {
			var r report
			if d.decode(&r) != nil {
				return
			}
			if r.Routes == nil {
				continue
			}
			for _, a := range r.Routes.unpack().Announce {
				if a.Attrs == nil || !usable(a.Prefix) {
					t.Fatalf("%+v", a)
				}
			}
		}
	})
}

// TestGarbageFromSpeaker: an edge whose speaker talks nonsense starts another.
func TestGarbageFromSpeaker(t *testing.T) {
	launches := make(chan net.Conn, 10)
	s := start(t.Context(), logger(t), func() (*child, error) {
		a, b := net.Pipe()
		launches <- b
		return &child{conn: a, end: func() error { return a.Close() }}, nil
	})
	s.Configure([]bgp.SessionConfig{{Name: "s"}})
	drain := func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}
	c := <-launches
	go drain(c)
	c.Write([]byte("\x05hello"))
	c2 := <-launches
	go drain(c2)
	for e := range s.Events() {
		if e.Restarted {
			break
		}
	}
}

// TestMappedPrefix: a prefix of IPv4-mapped addresses, which a peer of IPv6 may
// send, is for the RIB to refuse. It must not end the socket to the edge.
func TestMappedPrefix(t *testing.T) {
	for _, text := range []string{"::ffff:0:0/96", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1/128"} {
		prefix := netip.MustParsePrefix(text)
		w := &updateWriter{local: netip.MustParseAddr(v6b), as: theirAS, fourOctets: true}
		m, err := w.announce(nil, []netip.Prefix{prefix}, &bgp.Attrs{})
		must(t, err)
		u, err := parseUpdate(m, ipv6Unicast, true)
		must(t, err)
		var b bytes.Buffer
		must(t, gob.NewEncoder(&b).Encode(&report{Routes: pack(u.update("s"))}))
		var r report
		must(t, newDecoder(&b).decode(&r))
		if got := r.Routes.unpack().Announce; len(got) != 1 || got[0].Prefix != prefix {
			t.Errorf("%v, want %v", got, prefix)
		}
	}
}

// TestLongestPaths: a customer's 4,000 routes, each with as long a path as a
// message holds, fit into the values between edge and speaker, both ways.
func TestLongestPaths(t *testing.T) {
	const routes = 4000
	u := bgp.Update{Session: "s"}
	for i := range routes {
		path := slices.Repeat([]uint32{4_200_000_000}, 1010)
		path[1] = uint32(i)
		u.Announce = append(u.Announce, bgp.Route{
			Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			Attrs:  &bgp.Attrs{NextHop: netip.MustParseAddr(v4b), ASPath: path},
		})
	}
	out := newOutbox()
	out.update(&u)
	reports := 0
	for e, ok := out.pop(); ok; e, ok = out.pop() {
		var b bytes.Buffer
		must(t, gob.NewEncoder(&b).Encode(&report{Routes: pack(e.Update)}))
		var r report
		must(t, newDecoder(&b).decode(&r))
		reports += len(r.Routes.unpack().Announce)
	}
	s := &Speaker{wake: make(chan struct{}, 1), routes: map[string]map[netip.Prefix]*bgp.Attrs{}, dirty: map[string]*queue[netip.Prefix, struct{}]{}}
	s.Advertise(u)
	commands := 0
	for c, ok := s.nextCommand(); ok; c, ok = s.nextCommand() {
		var b bytes.Buffer
		must(t, gob.NewEncoder(&b).Encode(c))
		var got command
		must(t, newDecoder(&b).decode(&got))
		commands += len(got.Routes.unpack().Announce)
	}
	if reports != routes || commands != routes {
		t.Errorf("%d routes reported and %d commanded of %d", reports, commands, routes)
	}
}
