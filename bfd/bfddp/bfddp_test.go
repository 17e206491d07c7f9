package bfddp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"msee/bfd"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden are messages as FRR 8.4 lays them out in memory (bfddp_packet.h on a
// 64-bit machine), written down octet by octet.
var golden = []struct {
	name, wire string
	message    Message
}{
	{"echo request", "01 00 0000 0000 0018 0000000000000001 0000000000000000",
		Message{Version: 1, Type: EchoRequest, Echo: Echo{DataPlane: 1}}},
	{"add session", "01 00 0002 0000 008c 00000004" +
		"c0a80f12" + strings.Repeat("00", 12) + "c0a80f11" + strings.Repeat("00", 12) +
		"00001001 000493e0 000493e0 0000c350 0000c350 00000000 ff 03 0000 00000002" +
		hex.EncodeToString([]byte("link1.100")) + strings.Repeat("00", 64-9),
		Message{Version: 1, Type: AddSession, Session: Session{Flags: ControlIndependent,
			Local: netip.MustParseAddr("192.168.15.18"), Peer: netip.MustParseAddr("192.168.15.17"), Discr: 0x1001,
			MinTx: 300 * time.Millisecond, MinRx: 300 * time.Millisecond, EchoTx: 50 * time.Millisecond, EchoRx: 50 * time.Millisecond,
			MinTTL: 255, DetectMult: 3, InterfaceIndex: 2, Interface: "link1.100"}}},
	{"delete session, IPv6, version 2", "02 00 0003 0000 0164 00000050" +
		"20010db8000000100000000000000002" + "20010db8000000100000000000000001" +
		"00001002 00002710 00002710 00000000 00000000 000003e8 ff 05 0000 00000000" + strings.Repeat("00", 64) +
		"02 01 0000 00000007" + strings.Repeat("00", 348-132-8),
		Message{Version: 2, Type: DeleteSession, Session: Session{Flags: IPv6 | Shutdown,
			Local: netip.MustParseAddr("2001:db8:0:10::2"), Peer: netip.MustParseAddr("2001:db8:0:10::1"), Discr: 0x1002,
			MinTx: 10 * time.Millisecond, MinRx: 10 * time.Millisecond, HoldTime: time.Second, MinTTL: 255, DetectMult: 5,
			Mode: 2, Encap: 1, KnownRemoteDiscr: 7}}},
	{"state change", "01 00 0004 0000 0024 00001001 00002002 00000003 000b71b0 000493e0 0000c350 03 01 05 00",
		Message{Version: 1, Type: StateChange, Change: Change{Discr: 0x1001, RemoteDiscr: 0x2002,
			RemoteControlIndependent: true, RemoteDemand: true,
			RemoteMinTx: 750 * time.Millisecond, RemoteMinRx: 300 * time.Millisecond, RemoteMinEchoRx: 50 * time.Millisecond,
			State: bfd.Up, RemoteDiag: bfd.DiagTimeExpired, RemoteDetectMult: 5}}},
	{"request for counters", "01 00 0005 0007 000c 00001001",
		Message{Version: 1, Type: RequestCounters, ID: 7, Discr: 0x1001}},
	{"counters", "01 00 0006 0007 0050 00001001 00000000" +
		"0000000000000018 0000000000000001 0000000000000030 0000000000000002" +
		"0000000000000010 0000000000000003 0000000000000020 0000000000000004",
		Message{Version: 1, Type: SessionCounters, ID: 7, Counters: Counters{Discr: 0x1001,
			In: Count{24, 1}, Out: Count{48, 2}, EchoIn: Count{16, 3}, EchoOut: Count{32, 4}}}},
}

func TestGolden(t *testing.T) {
	for _, c := range golden {
		wire := unhex(t, c.wire)
		if got := c.message.Append(nil); !bytes.Equal(got, wire) {
			t.Errorf("%s: written as\n%x, want\n%x", c.name, got, wire)
		}
		got, n, err := Parse(append(wire[:len(wire):len(wire)], 1, 2, 3))
		if err != nil || n != len(wire) || !reflect.DeepEqual(got, c.message) {
			t.Errorf("%s: read as\n%+v, %d octets, %v, want\n%+v", c.name, got, n, err, c.message)
		}
		for short := range wire {
			if _, n, err := Parse(wire[:short]); n != 0 || err != nil {
				t.Fatalf("%s: %d of %d octets: a message of %d, %v", c.name, short, len(wire), n, err)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct{ wire, want string }{
		{"00 00 0000 0000 0018", "version 0"},
		{"03 00 0000 0000 0018", "version 3"},
		{"01 00 0007 0000 0018", "type 7"},
		{"01 00 0000 0000 0017", "echo request of 23 octets"},
		{"01 00 0002 0000 008b", "add session of 139 octets"},
		{"02 00 0002 0000 008c", "add session of 140 octets"},
		{"01 00 0005 0000 0000", "request counters of 0 octets"},
		{"01 00 0005 0000 0401", "request counters of 1025 octets"},
	} {
		_, n, err := Parse(unhex(t, c.wire))
		if n != 0 || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d, %v, want %q", c.wire, n, err, c.want)
		}
	}
}

// FuzzParse: whatever comes, what is read is within bounds, and read again from
// what is written of it the same.
func FuzzParse(f *testing.F) {
	for _, c := range golden {
		f.Add(unhex(f, c.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := Parse(b)
		if n < 0 || n > len(b) || n > MaxLen || err != nil && n != 0 {
			t.Fatalf("%d of %d octets, %v", n, len(b), err)
		}
		if n == 0 {
			return
		}
		if len(m.Session.Interface) > interfaceLen {
			t.Fatalf("an interface name of %d octets", len(m.Session.Interface))
		}
		wire := m.Append(nil)
		again, k, err := Parse(wire)
		if err != nil || k != len(wire) || k > n || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v, written and read again: %+v, %v", m, again, err)
		}
	})
}
