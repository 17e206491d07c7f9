package evpn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Octets of the parts of a route (RFC 7432 §7).
const (
	rdLen    = 8
	esiLen   = 10
	tagLen   = 4
	labelLen = 3
)

// Parsed is an NLRI field.
type Parsed struct {
	Routes []Route // without attributes
	// Malformed are routes whose key is clear and the rest is not: they are
	// withdrawn (RFC 7606 §2). Why says what is wrong with the first.
	Malformed []Key
	Why       string
}

// fault is what is wrong with a route whose key is clear.
type fault string

// ParseNLRI decodes the NLRI of MP_REACH_NLRI. Routes of types that are not known
// here are discarded (RFC 7606 §5.4). The error says that it is not clear which
// routes are meant, and ends a session (§2).
func ParseNLRI(b []byte) (p Parsed, err error) {
	for len(b) > 0 {
		if len(b) < 2 || 2+int(b[1]) > len(b) {
			return p, fmt.Errorf("EVPN route ends within its length: %d octets left", len(b))
		}
		kind, body := b[0], b[2:2+int(b[1])]
		b = b[2+len(body):]
		var r Route
		var f fault
		switch kind {
		case TypeMACIP:
			r, f, err = parseMACIP(body)
		case TypeMulticast:
			r, err = parseMulticast(body)
		case TypePrefix:
			r, f, err = parsePrefix(body)
		default:
			continue
		}
		switch {
		case err != nil:
			return p, fmt.Errorf("EVPN route of type %d: %w", kind, err)
		case f != "":
			p.Malformed = append(p.Malformed, r.Key)
			if p.Why == "" {
				p.Why = fmt.Sprintf("EVPN route of type %d: %s", kind, f)
			}
		default:
			p.Routes = append(p.Routes, r)
		}
	}
	return p, nil
}

// ParseWithdrawn decodes the NLRI of MP_UNREACH_NLRI, of which only keys count:
// labels, for one, are whatever the sender likes.
func ParseWithdrawn(b []byte) ([]Key, error) {
	p, err := ParseNLRI(b)
	keys := p.Malformed
	for _, r := range p.Routes {
		keys = append(keys, r.Key)
	}
	return keys, err
}

// parseMACIP decodes RFC 7432 §7.2: RD, ESI, tag, the MAC and the IP address each
// behind its length in bits, one or two labels.
func parseMACIP(b []byte) (r Route, f fault, err error) {
	const mac = rdLen + esiLen + tagLen
	const ip = mac + 1 + 6
	if len(b) < ip+1+labelLen {
		return r, "", fmt.Errorf("%d octets", len(b))
	}
	if b[mac] != 48 {
		return r, "", fmt.Errorf("MAC address of %d bits", b[mac])
	}
	n := int(b[ip]) / 8
	labels := len(b) - ip - 1 - n
	if b[ip] != 0 && b[ip] != 32 && b[ip] != 128 || labels != labelLen && labels != 2*labelLen {
		return r, "", fmt.Errorf("%d octets, IP address of %d bits", len(b), b[ip])
	}
	r.Key = Key{Type: TypeMACIP, RD: RD(b), Tag: binary.BigEndian.Uint32(b[rdLen+esiLen:]), MAC: MAC(b[mac+1:])}
	if n > 0 {
		a, _ := netip.AddrFromSlice(b[ip+1 : ip+1+n])
		r.Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	rest := b[ip+1+n:]
	r.VNI = vni(rest)
	if labels == 2*labelLen {
		r.Routed = vni(rest[labelLen:])
	}
	switch {
	case r.MAC[0]&1 != 0:
		f = fault("station " + r.MAC.String() + " is a group")
	case r.MAC == MAC{}:
		f = "a station without address"
	case n > 0 && !isHost(r.Prefix.Addr()):
		f = fault("host address " + r.Prefix.Addr().String())
	}
	return r, f, nil
}

// isHost reports whether a station can have that address.
func isHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// IsVTEP reports whether the end of a tunnel can have that address: a host's, and not
// one of a link alone or of this machine.
func IsVTEP(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6()
}

// parseMulticast decodes RFC 7432 §7.3: RD, tag, the originator's address.
func parseMulticast(b []byte) (r Route, err error) {
	const ip = rdLen + tagLen
	if len(b) != ip+1+4 && len(b) != ip+1+16 || int(b[ip]) != 8*(len(b)-ip-1) {
		return r, fmt.Errorf("%d octets", len(b))
	}
	a, _ := netip.AddrFromSlice(b[ip+1:])
	r.Key = Key{Type: TypeMulticast, RD: RD(b), Tag: binary.BigEndian.Uint32(b[rdLen:]), Prefix: netip.PrefixFrom(a, a.BitLen())}
	return r, nil
}

// parsePrefix decodes RFC 9136 §3.1: RD, ESI, tag, the prefix in as many octets as
// an address, the gateway's address, a label. Its length tells the family.
func parsePrefix(b []byte) (r Route, f fault, err error) {
	const ip = rdLen + esiLen + tagLen
	n := 4
	switch len(b) {
	case ip + 1 + 4 + 4 + labelLen:
	case ip + 1 + 16 + 16 + labelLen:
		n = 16
	default:
		return r, "", fmt.Errorf("%d octets", len(b))
	}
	bits := int(b[ip])
	if bits > 8*n {
		return r, "", fmt.Errorf("prefix of %d bits in %d octets", bits, n)
	}
	a, _ := netip.AddrFromSlice(b[ip+1 : ip+1+n])
	gateway, _ := netip.AddrFromSlice(b[ip+1+n : ip+1+2*n])
	r.Key = Key{Type: TypePrefix, RD: RD(b), Tag: binary.BigEndian.Uint32(b[rdLen+esiLen:]), Prefix: netip.PrefixFrom(a, bits).Masked()}
	r.VNI = vni(b[ip+1+2*n:])
	if !gateway.IsUnspecified() {
		r.Gateway = gateway
	}
	switch {
	case !allZero(b[rdLen : rdLen+esiLen]):
		f = "by Ethernet segment" // with a gateway it is malformed (§3.1); without, not known here
	case a.Is4In6() && bits >= 96:
		f = fault("prefix " + r.Prefix.String())
	case r.Gateway.IsValid() && !isHost(gateway):
		f = fault("gateway " + gateway.String())
	}
	return r, f, nil
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(o byte) bool { return o != 0 }) }

// vni decodes a label field, whole a VNI (RFC 8365 §5.1.3).
func vni(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

func appendVNI(b []byte, vni uint32) []byte {
	return append(b, byte(vni>>16), byte(vni>>8), byte(vni))
}

// AppendNLRI appends a route as NLRI. Ethernet segments are all zero.
func AppendNLRI(b []byte, r *Route) []byte {
	start := len(b)
	b = append(b, r.Type, 0)
	b = append(b, r.RD[:]...)
	if r.Type != TypeMulticast {
		b = append(b, make([]byte, esiLen)...)
	}
	b = binary.BigEndian.AppendUint32(b, r.Tag)
	switch r.Type {
	case TypeMACIP:
		b = append(append(b, 48), r.MAC[:]...)
		b = appendAddr(b, r.Prefix)
		if b = appendVNI(b, r.VNI); r.Routed != 0 {
			b = appendVNI(b, r.Routed)
		}
	case TypeMulticast:
		b = appendAddr(b, r.Prefix)
	case TypePrefix:
		b = appendAddr(b, r.Prefix)
		if r.Gateway.IsValid() {
			b = append(b, r.Gateway.AsSlice()...)
		} else {
			b = append(b, make([]byte, r.Prefix.Addr().BitLen()/8)...)
		}
		b = appendVNI(b, r.VNI)
	}
	b[start+1] = byte(len(b) - start - 2)
	return b
}

// AppendWithdrawn appends a route as NLRI that withdraws it.
func AppendWithdrawn(b []byte, k Key) []byte { return AppendNLRI(b, &Route{Key: k}) }

// appendAddr appends a length in bits and the whole address; only the first if there
// is none.
func appendAddr(b []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return append(b, 0)
	}
	return append(append(b, byte(p.Bits())), p.Addr().AsSlice()...)
}
