package bgp

import (
	"math/rand/v2"
	"net/netip"

	"msee/community"
)

// Communities to play with.
const (
	storage = community.AS<<16 | 52015
	sql     = community.AS<<16 | 53015
	vnet15  = community.AS<<16 | 50015
	custom  = community.AS<<16 | 20031
)

// world is a kind of VRF to play in.
type world struct {
	policy   Policy
	peers    []Peer
	prefixes []netip.Prefix
}

func worlds() []world {
	prefixes := pfxs("0.0.0.0/0", "10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "127.0.0.0/8", "203.0.113.0/24",
		"203.0.113.4/30", "2001:db8:1::/48", "::/0", "2001:db8:2::/48")
	lowerA1, heavyB := gatewayA1, gatewayB0
	lowerA1.Addr, heavyB.Weight = addr("10.255.0.11"), 10
	return []world{
		{PrivatePeering(), []Peer{customer4, customer6, gatewayA0, lowerA1, heavyB}, prefixes},
		{MicrosoftPeering(pfxs("203.0.113.0/24", "2001:db8::/32")), []Peer{customer4, customer6, network4}, prefixes},
		{Gateway(), []Peer{msee0, msee1}, prefixes},
	}
}

func randomAttrs(r *rand.Rand, p Peer) *Attrs {
	a := &Attrs{NextHop: p.Addr, Origin: uint8(r.IntN(2)), ASPath: []uint32{p.AS}}
	for range r.IntN(3) {
		a.ASPath = append(a.ASPath, []uint32{p.AS, ASMSEE, 64512, 3}[r.IntN(4)])
	}
	switch r.IntN(12) {
	case 0:
		a.ASPath[0] = 7
	case 1:
		a.NextHop = addr("192.0.2.1")
	case 2:
		a.NextHop = gatewayA0.Addr
	case 3:
		a.Communities = [][]uint32{{r.Uint32()}, {vnet15}, {custom, vnet15}, {custom}}[r.IntN(4)]
	case 4:
		a.MED, a.HasMED = r.Uint32N(2), true
	}
	return a
}

// several says whose routes come by Replace.
func several(session string) bool { return session == gatewayB0.Name || session == msee1.Name }

// randomPaths are up to three routes to each of some prefixes.
func randomPaths(r *rand.Rand, w world, peer Peer) (all []Paths) {
	for range r.IntN(4) {
		x := Paths{Prefix: w.prefixes[r.IntN(len(w.prefixes))]}
		for range r.IntN(4) {
			a := randomAttrs(r, peer)
			if r.IntN(2) == 0 {
				a.NextHop = peer.Addr.Next()
			}
			x.Attrs = append(x.Attrs, a)
		}
		all = append(all, x)
	}
	return all
}
