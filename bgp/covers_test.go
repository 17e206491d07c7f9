package bgp

import (
	"net/netip"
	"testing"
)

// TestCovers: only what the session itself has announced, and what was not
// refused, counts.
func TestCovers(t *testing.T) {
	peers := []Peer{
		{Name: "a", AS: ASGateway, Side: SideGateway, Local: netip.MustParseAddr("10.100.255.4"), Addr: netip.MustParseAddr("10.100.255.12"), Subnet: netip.MustParsePrefix("10.100.255.0/27")},
		{Name: "b", AS: ASGateway, Side: SideGateway, Local: netip.MustParseAddr("10.100.255.4"), Addr: netip.MustParseAddr("10.100.255.13"), Subnet: netip.MustParsePrefix("10.100.255.0/27")},
	}
	r := NewRIB(Policy{}, peers)
	announce := func(session, prefix string, as uint32) {
		r.Apply(Update{Session: session, Announce: []Route{{Prefix: netip.MustParsePrefix(prefix),
			Attrs: &Attrs{NextHop: r.peer(session).cfg.Addr, ASPath: []uint32{as}}}}})
	}
	announce("a", "10.100.0.0/16", ASGateway)
	announce("a", "10.102.0.0/16", 64999) // not its own AS
	announce("b", "10.101.0.0/16", ASGateway)
	for addr, want := range map[string]bool{"10.100.1.1": true, "10.101.1.1": false, "10.102.1.1": false, "192.0.2.1": false} {
		if got := r.Covers("a", netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	r.Down("a")
	if r.Covers("a", netip.MustParseAddr("10.100.1.1")) {
		t.Error("a session that has ended covers something")
	}
}
