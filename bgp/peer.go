package bgp

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"

	"msee/bgp/evpn"
)

// Side says what a BGP peer is to us, and so which policy its routes meet.
type Side string

const (
	SideCustomer Side = "customer" // a CE, on an MSEE
	SideGateway  Side = "gateway"  // a VNet gateway instance, on an MSEE
	SideMSEE     Side = "msee"     // an MSEE, on a gateway instance
	// SideMicrosoft is Microsoft's own network, on an MSEE's Microsoft peering.
	SideMicrosoft Side = "microsoft"
	SideLocal     Side = "local" // this device: not a peer's side, but the side of routes it originates
)

// Peer is what the RIB needs to know of a session.
type Peer struct {
	Name        string // of the session, unique in the RIB
	Side        Side
	AS          uint32     // the peer's
	Local, Addr netip.Addr // ours and the peer's; the family of Local is the only one the session carries
	// Subnet is the peering's or the core's, on which a next hop other than
	// Addr may be (RFC 4271 §5.1.3). If it is zero only Addr may be one.
	Subnet netip.Prefix
	// Underlay, of a peer whose routes come by EVPN, is our end of its tunnels with
	// the subnet of the others: a next hop with a MAC is one of these. Addr is the
	// neighbour that tells them, Local our address inside.
	Underlay netip.Prefix
	// Beyond are prefixes in which others of them are, beyond routers of the underlay's.
	Beyond     []netip.Prefix
	RouterID   netip.Addr // ours
	Connection string     // "" unless the session belongs to one
	Weight     int        // routingWeight of the connection
	// MaxPrefixes is how many prefixes the session may announce, refused ones
	// included; 0 is any number.
	MaxPrefixes int
}

// sameSession reports whether p and q are one TCP session, so that routes
// learned over p are still good over q.
func (p *Peer) sameSession(q *Peer) bool {
	return p.Name == q.Name && p.AS == q.AS && p.Local == q.Local && p.Addr == q.Addr
}

// carries reports whether the session is for prefixes of that family.
func (p *Peer) carries(prefix netip.Prefix) bool {
	return p.Local.Is4() == prefix.Addr().Is4()
}

// refusesNextHop says why frames cannot be sent to that next hop, if so.
func (p *Peer) refusesNextHop(hop netip.Addr, mac evpn.MAC) Reason {
	tunnel := mac != evpn.MAC{}
	switch {
	case tunnel && hop == p.Underlay.Addr():
		return ReasonNextHopOurs
	case tunnel && p.Underlay.IsValid() && p.isVTEP(hop):
		return ""
	case tunnel:
		return ReasonVTEP
	case hop == p.Local:
		return ReasonNextHopOurs
	case hop == p.Addr && !p.Underlay.IsValid(), isHost(p.Subnet, hop):
		return ""
	}
	return ReasonNextHop
}

// isVTEP reports whether there is a way to that end of a tunnel.
func (p *Peer) isVTEP(hop netip.Addr) bool {
	if subnet := p.Underlay.Masked(); subnet.Contains(hop) {
		return isHost(subnet, hop)
	}
	return slices.ContainsFunc(p.Beyond, func(b netip.Prefix) bool { return b.Contains(hop) })
}

// equal reports whether p and q are alike in all.
func (p *Peer) equal(q *Peer) bool { return reflect.DeepEqual(p, q) }

// isHost reports whether addr is in subnet and not its network or broadcast
// address, which no neighbour resolves.
func isHost(subnet netip.Prefix, addr netip.Addr) bool {
	if !subnet.Contains(addr) {
		return false
	}
	if addr.Is6() || subnet.Bits() >= 31 {
		return true
	}
	octets := addr.As4()
	hosts := ^uint32(0) >> subnet.Bits()
	host := binary.BigEndian.Uint32(octets[:]) & hosts
	return host != 0 && host != hosts
}
