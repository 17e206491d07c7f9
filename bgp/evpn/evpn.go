// Package evpn is Ethernet VPN over VXLAN (RFC 7432, RFC 8365, RFC 9136): its
// routes on the wire, and the table of who is behind which end of a tunnel. It
// is pure: no sockets, no clock; sessions are package speaker's.
//
// Known are MAC/IP routes (type 2), inclusive multicast routes (type 3, ingress
// replication) and IP prefix routes (type 5). Not known is multihoming: types 1
// and 4 are discarded, and an Ethernet segment in a route means nothing.
package evpn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Route types (RFC 7432 §7, RFC 9136 §3).
const (
	TypeMACIP     = 2
	TypeMulticast = 3
	TypePrefix    = 5
)

// MAC is a station's address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// RD is a route distinguisher (RFC 4364 §4.2), which keeps apart what is equal
// otherwise.
type RD [8]byte

// NewRD returns the distinguisher of a network of a router, of type 1 as RFC 7432
// §7.9 asks; router is IPv4.
func NewRD(router netip.Addr, number uint16) (rd RD) {
	a := router.As4()
	rd[1] = 1
	copy(rd[2:], a[:])
	binary.BigEndian.PutUint16(rd[6:], number)
	return rd
}

func (rd RD) String() string {
	switch binary.BigEndian.Uint16(rd[:]) {
	case 0:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(rd[2:]), binary.BigEndian.Uint32(rd[4:]))
	case 1:
		return fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(rd[2:6])), binary.BigEndian.Uint16(rd[6:]))
	case 2:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(rd[2:]), binary.BigEndian.Uint16(rd[6:]))
	}
	return fmt.Sprintf("%x", rd[:])
}

// Key tells one route of a session's from another (RFC 7432 §7.2, §7.3; RFC 9136
// §3.1). It is comparable.
type Key struct {
	Type uint8
	RD   RD
	Tag  uint32 // Ethernet tag
	MAC  MAC    // of type 2
	// Prefix is the host's address of type 2, or none; the originating router's
	// of type 3; the prefix of type 5.
	Prefix netip.Prefix
}

// Route is a route with its attributes, which many share.
type Route struct {
	Key
	// VNI is that of a type 2 or 5 route's network (RFC 8365 §5.1.3); of type 3 it
	// is in the attributes.
	VNI uint32
	// Routed is the VNI of the VRF, where a MAC/IP route has one as well: the
	// sender takes packets that are routed to its own MAC (RFC 9135 §4); 0: none.
	Routed uint32
	// Gateway is the address that a type 5 route's packets are sent to, as the
	// type 2 route for it says (RFC 9136 §3.2); invalid: the next hop itself.
	Gateway netip.Addr
	Attrs   *Attrs
}

// Equal reports whether r says of its key what s says.
func (r *Route) Equal(s *Route) bool {
	return r.VNI == s.VNI && r.Routed == s.Routed && r.Gateway == s.Gateway && r.Attrs.Equal(s.Attrs)
}

// Attrs are the path attributes that the table and the edge look at. They are
// shared by the routes of an UPDATE and never changed after they were made.
type Attrs struct {
	NextHop     netip.Addr // the end of the tunnel
	ASPath      []uint32
	Communities []uint32 // RFC 1997
	Extended    Extended
	// Flood is the VNI that type 3 routes ask frames for everybody to be sent in, by
	// ingress replication (RFC 7432 §11.2); 0: not to be sent.
	Flood uint32
}

// Update is a change of what a session has told, or is to be told. An
// announcement replaces what there was of its key.
type Update struct {
	Session  string
	Announce []Route
	Withdraw []Key
}
