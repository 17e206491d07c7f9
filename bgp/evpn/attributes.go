package evpn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RT is a route target (RFC 4360 §4), an extended community that says which VPNs a
// route is for.
type RT [8]byte

// NewRT returns the target of a network that has its VNI for a number. An AS of
// four octets leaves only two for that (RFC 5668): it is AS_TRANS then.
func NewRT(as, vni uint32) (rt RT) {
	const asTrans = 23456
	if as > 0xffff {
		as = asTrans
	}
	rt[1] = subtypeTarget
	binary.BigEndian.PutUint16(rt[2:], uint16(as))
	binary.BigEndian.PutUint32(rt[4:], vni)
	return rt
}

// VNI returns the one that a target stands for if it was derived from it: AS and
// VNI, as most do it, or with the marks of RFC 8365 §5.1.2.1 in front of the VNI.
// 0: none.
func (rt RT) VNI() uint32 {
	const automatic, vxlan = 0x80, 0x10 // the first is 0 for "automatic"
	if rt[0] != typeAS2 || rt[4] != 0 && rt[4]&(automatic|0x70) != vxlan {
		return 0
	}
	return vni(rt[5:])
}

// ParseRT is the inverse of String: a number behind an AS of two octets, or a shorter one
// behind an AS of four or an IPv4 address (RFC 4360 §4, RFC 5668).
func ParseRT(s string) (rt RT, err error) {
	const want = "route target %q: want AS:NUMBER, or IPv4:NUMBER, of six octets in all"
	head, tail, _ := strings.Cut(s, ":")
	bits := 16
	rt[1] = subtypeTarget
	if a, err := netip.ParseAddr(head); err == nil && a.Is4() {
		rt[0] = typeIPv4
		copy(rt[2:], a.AsSlice())
	} else {
		as, err := strconv.ParseUint(head, 10, 32)
		switch {
		case err != nil:
			return RT{}, fmt.Errorf(want, s)
		case as > 0xffff:
			rt[0] = typeAS4
			binary.BigEndian.PutUint32(rt[2:], uint32(as))
		default:
			bits = 32
			binary.BigEndian.PutUint16(rt[2:], uint16(as))
		}
	}
	n, err := strconv.ParseUint(tail, 10, bits)
	if err != nil {
		return RT{}, fmt.Errorf(want, s)
	}
	if bits == 32 {
		binary.BigEndian.PutUint32(rt[4:], uint32(n))
	} else {
		binary.BigEndian.PutUint16(rt[6:], uint16(n))
	}
	return rt, nil
}

// MarshalText is String.
func (rt RT) MarshalText() ([]byte, error) { return []byte(rt.String()), nil }

func (rt RT) String() string {
	switch rt[0] {
	case typeAS2:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(rt[2:]), binary.BigEndian.Uint32(rt[4:]))
	case typeIPv4:
		return fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(rt[2:6])), binary.BigEndian.Uint16(rt[6:]))
	}
	return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(rt[2:]), binary.BigEndian.Uint16(rt[6:]))
}

// Types and subtypes of extended communities (RFC 4360, RFC 5668, RFC 7153).
const (
	typeAS2    = 0x00
	typeIPv4   = 0x01
	typeAS4    = 0x02
	typeOpaque = 0x03
	typeEVPN   = 0x06

	subtypeTarget        = 0x02 // of the first three
	subtypeEncapsulation = 0x0c // of opaque: RFC 9012 §4.1
	subtypeMobility      = 0x00 // of EVPN: RFC 7432 §7.7
	subtypeRouterMAC     = 0x03 // of EVPN: RFC 9135 §6.2

	sticky = 1 // flag of mobility

	encapsulationVXLAN = 8 // RFC 8365 §11
)

// Extended are the extended communities that mean something here.
type Extended struct {
	Targets []RT
	// Sequence counts a station's moves (RFC 7432 §15); one that is not to move is
	// Sticky.
	Sequence uint32
	Sticky   bool
	// RouterMAC takes packets that are routed to the sender; zero if there is none.
	RouterMAC MAC
	// Other says that the sender can be reached by other encapsulations than VXLAN
	// only.
	Other bool
}

// ParseExtended decodes the attribute EXTENDED_COMMUNITIES. What is malformed is
// its length (RFC 7606 §7.14): its routes are then to be withdrawn.
func ParseExtended(b []byte) (e Extended, err error) {
	if len(b) == 0 || len(b)%8 != 0 {
		return e, fmt.Errorf("EXTENDED_COMMUNITIES of %d octets, not a multiple of 8", len(b))
	}
	moved, vxlan := false, false
	for ; len(b) > 0; b = b[8:] {
		switch kind, sub := b[0], b[1]; {
		case (kind == typeAS2 || kind == typeIPv4 || kind == typeAS4) && sub == subtypeTarget:
			e.Targets = append(e.Targets, RT(b))
		case kind == typeOpaque && sub == subtypeEncapsulation:
			vxlan = vxlan || binary.BigEndian.Uint16(b[6:]) == encapsulationVXLAN
			e.Other = !vxlan
		case kind == typeEVPN && sub == subtypeMobility && !moved: // the first counts
			moved, e.Sticky, e.Sequence = true, b[2]&sticky != 0, binary.BigEndian.Uint32(b[4:])
		case kind == typeEVPN && sub == subtypeRouterMAC && e.RouterMAC == MAC{} && b[2]&1 == 0:
			e.RouterMAC = MAC(b[2:])
		}
	}
	return e, nil
}

// AppendExtended appends the value of EXTENDED_COMMUNITIES, with VXLAN as the
// encapsulation.
func AppendExtended(b []byte, e Extended) []byte {
	for _, rt := range e.Targets {
		b = append(b, rt[:]...)
	}
	b = append(b, typeOpaque, subtypeEncapsulation, 0, 0, 0, 0, 0, encapsulationVXLAN)
	if e.Sequence != 0 || e.Sticky {
		b = append(b, typeEVPN, subtypeMobility, 0, 0)
		if e.Sticky {
			b[len(b)-2] = sticky
		}
		b = binary.BigEndian.AppendUint32(b, e.Sequence)
	}
	if e.RouterMAC != (MAC{}) {
		b = append(append(b, typeEVPN, subtypeRouterMAC), e.RouterMAC[:]...)
	}
	return b
}

// Equal reports whether a and b say the same.
func (a *Attrs) Equal(b *Attrs) bool {
	x, y := &a.Extended, &b.Extended
	return a == b || a.NextHop == b.NextHop && a.Flood == b.Flood && slices.Equal(a.ASPath, b.ASPath) &&
		slices.Equal(a.Communities, b.Communities) && slices.Equal(x.Targets, y.Targets) && x.Sequence == y.Sequence &&
		x.Sticky == y.Sticky && x.RouterMAC == y.RouterMAC && x.Other == y.Other
}

// ingressReplication is the tunnel type by which everybody sends to everybody
// (RFC 7432 §11.2).
const ingressReplication = 6

// ParsePMSI decodes the attribute PMSI_TUNNEL (RFC 6514 §5) into the VNI that frames
// for everybody are to be sent in, 0 if not by ingress replication. What is
// malformed is its length: its routes are then to be withdrawn.
func ParsePMSI(b []byte) (uint32, error) {
	if len(b) < 5 {
		return 0, fmt.Errorf("PMSI_TUNNEL of %d octets", len(b))
	}
	if b[1] != ingressReplication {
		return 0, nil
	}
	if n := len(b) - 5; n != 4 && n != 16 {
		return 0, fmt.Errorf("PMSI_TUNNEL: address of %d octets", n)
	}
	return vni(b[2:]), nil
}

// AppendPMSI appends the value of PMSI_TUNNEL: ingress replication to vtep.
func AppendPMSI(b []byte, vni uint32, vtep netip.Addr) []byte {
	b = appendVNI(append(b, 0, ingressReplication), vni)
	return append(b, vtep.AsSlice()...)
}
