package speaker

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"msee/bgp"
	"msee/bgp/evpn"
)

// Path attributes (RFC 4271 §5, RFC 1997, RFC 4760, RFC 6793).
const (
	attrOrigin      = 1
	attrASPath      = 2
	attrNextHop     = 3
	attrMED         = 4
	attrLocalPref   = 5
	attrAtomic      = 6
	attrAggregator  = 7
	attrCommunities = 8
	attrMPReach     = 14
	attrMPUnreach   = 15
	attrExtended    = 16 // RFC 4360
	attrAS4Path     = 17
	attrPMSI        = 22 // RFC 6514

	flagOptional   = 0x80
	flagTransitive = 0x40
	flagExtended   = 0x10
)

// AS_PATH segment types (RFC 4271 §4.3), and the AS that stands for one that
// does not fit two octets (RFC 6793).
const (
	segmentSet      = 1
	segmentSequence = 2
	asTrans         = 23456
)

// received is what an UPDATE says of the session's family.
type received struct {
	announce []netip.Prefix
	withdraw []netip.Prefix
	evpn     evpn.Update // instead, in an EVPN session
	attrs    *bgp.Attrs  // of all that is announced
	endOfRIB bool        // RFC 4724 §2
	// malformed says why announced prefixes are taken as withdrawn
	// (RFC 7606 §2); "" if they are not.
	malformed string
}

// updateError ends the session: what is malformed leaves unclear which
// prefixes are meant (RFC 7606 §3, §5.3).
type updateError struct {
	subcode uint8 // of UPDATE error
	detail  string
}

func (e *updateError) Error() string { return e.detail }

func (e *updateError) notification() notification {
	return notification{code: 3, subcode: e.subcode}
}

// parseUpdate decodes a whole UPDATE, header included, of a session that
// carries that family; fourOctets says that AS numbers in it have four (RFC
// 6793). The only error is an *updateError.
func parseUpdate(b []byte, family uint32, fourOctets bool) (*received, error) {
	body := b[headerLen:]
	if len(body) < 4 {
		return nil, &updateError{1, fmt.Sprintf("an UPDATE of %d octets has no room for its lengths", len(b))}
	}
	withdrawnLen := int(binary.BigEndian.Uint16(body))
	if 4+withdrawnLen > len(body) {
		return nil, &updateError{1, fmt.Sprintf("withdrawn routes of %d octets in %d", withdrawnLen, len(body)-4)}
	}
	withdrawn, rest := body[2:2+withdrawnLen], body[2+withdrawnLen:]
	attrsLen := int(binary.BigEndian.Uint16(rest))
	if 2+attrsLen > len(rest) {
		return nil, &updateError{1, fmt.Sprintf("path attributes of %d octets in %d", attrsLen, len(rest)-2)}
	}
	attrs, nlri := rest[2:2+attrsLen], rest[2+attrsLen:]
	p := updateParser{family: family, as: 2}
	if fourOctets {
		p.as = 4
	}
	p.out.endOfRIB = len(body) == 4 && family == ipv4Unicast
	if err := p.attributes(attrs); err != nil {
		return nil, err
	}
	if err := p.classic(withdrawn, nlri); err != nil {
		return nil, err
	}
	return p.finish(), nil
}

// updateParser collects what the parts of an UPDATE say.
type updateParser struct {
	out    received
	attrs  bgp.Attrs
	evpn   evpn.Attrs // what they say beyond attrs
	family uint32
	as     int    // octets of an AS number
	spoilt string // what is wrong with some EVPN routes, while the others are sound

	seen    [256]bool
	as4Path []uint32
}

// treatAsWithdraw keeps the first fault (RFC 7606 §2).
func (p *updateParser) treatAsWithdraw(format string, args ...any) {
	if p.out.malformed == "" {
		p.out.malformed = fmt.Sprintf(format, args...)
	}
}

// attributes walks the path attributes (RFC 4271 §4.3).
func (p *updateParser) attributes(b []byte) error {
	for len(b) > 0 {
		if len(b) < 3 {
			p.treatAsWithdraw("%d stray octets after the path attributes", len(b))
			return nil
		}
		flags, code, size, head := b[0], b[1], int(b[2]), 3
		if flags&flagExtended != 0 {
			if len(b) < 4 {
				p.treatAsWithdraw("path attribute %d ends within its length", code)
				return nil
			}
			size, head = int(binary.BigEndian.Uint16(b[2:])), 4
		}
		if head+size > len(b) { // RFC 7606 §4
			p.treatAsWithdraw("path attribute %d of %d octets in %d", code, size, len(b)-head)
			return nil
		}
		if err := p.attribute(flags, code, b[head:head+size]); err != nil {
			return err
		}
		b = b[head+size:]
	}
	return nil
}

// wellKnown are the flags that attributes must have; of others they say nothing
// to us.
var wellKnown = map[uint8]uint8{
	attrOrigin: flagTransitive, attrASPath: flagTransitive, attrNextHop: flagTransitive,
	attrMED: flagOptional, attrLocalPref: flagTransitive, attrAtomic: flagTransitive,
	attrAggregator: flagOptional | flagTransitive, attrCommunities: flagOptional | flagTransitive,
	attrMPReach: flagOptional, attrMPUnreach: flagOptional, attrAS4Path: flagOptional | flagTransitive,
}

// wellKnownEVPN are those that only EVPN has a use for.
var wellKnownEVPN = map[uint8]uint8{
	attrExtended: flagOptional | flagTransitive, attrPMSI: flagOptional | flagTransitive,
}

func (p *updateParser) attribute(flags, code uint8, v []byte) error {
	if p.seen[code] {
		if code == attrMPReach || code == attrMPUnreach { // RFC 7606 §3 (g)
			return &updateError{1, fmt.Sprintf("path attribute %d is there twice", code)}
		}
		return nil // the first counts
	}
	p.seen[code] = true
	want, known := wellKnown[code]
	if !known && p.family == l2vpnEVPN {
		want, known = wellKnownEVPN[code]
	}
	switch {
	case !known && flags&flagOptional == 0:
		return &updateError{2, fmt.Sprintf("path attribute %d is well-known, but not to us", code)}
	case !known:
		return nil
	case flags&(flagOptional|flagTransitive) != want && code != attrAtomic && code != attrAggregator && code != attrLocalPref:
		p.treatAsWithdraw("path attribute %d has flags %#02x, not %#02x", code, flags&(flagOptional|flagTransitive), want) // RFC 7606 §3 (c)
		if code != attrMPReach && code != attrMPUnreach {
			return nil
		}
	}
	switch code {
	case attrOrigin:
		if len(v) != 1 || v[0] > bgp.OriginIncomplete {
			p.treatAsWithdraw("ORIGIN % x is none of 0, 1, 2", v)
			return nil
		}
		p.attrs.Origin = v[0]
	case attrASPath:
		p.attrs.ASPath = p.path(v, p.as)
	case attrAS4Path:
		if p.as == 2 { // else not to be there, and discarded (RFC 6793 §3)
			p.as4Path = p.as4(v)
		}
	case attrNextHop:
		if len(v) != 4 {
			p.treatAsWithdraw("NEXT_HOP of %d octets, not 4", len(v))
			return nil
		}
		if p.family == ipv4Unicast && !p.attrs.NextHop.IsValid() {
			p.attrs.NextHop = netip.AddrFrom4([4]byte(v))
		}
	case attrMED:
		if len(v) != 4 {
			p.treatAsWithdraw("MULTI_EXIT_DISC of %d octets, not 4", len(v))
			return nil
		}
		p.attrs.MED, p.attrs.HasMED = binary.BigEndian.Uint32(v), true
	case attrCommunities:
		if len(v) == 0 || len(v)%4 != 0 { // RFC 7606 §7.8
			p.treatAsWithdraw("COMMUNITIES of %d octets, not a multiple of 4", len(v))
			return nil
		}
		p.attrs.Communities = make([]uint32, 0, len(v)/4)
		for ; len(v) > 0; v = v[4:] {
			p.attrs.Communities = append(p.attrs.Communities, binary.BigEndian.Uint32(v))
		}
	case attrExtended:
		p.extended(v)
	case attrPMSI:
		p.pmsi(v)
	case attrMPReach:
		return p.mpReach(v)
	case attrMPUnreach:
		return p.mpUnreach(v)
	}
	return nil // LOCAL_PREF is not for an external peer to say; the rest only for others
}

// path decodes AS_PATH with AS numbers of that many octets (RFC 7606 §7.2).
func (p *updateParser) path(v []byte, octets int) []uint32 {
	path, fault := segments(v, octets)
	if fault != "" {
		p.treatAsWithdraw("AS_PATH: %s", fault)
	}
	return path
}

// as4 decodes AS4_PATH, which is discarded if malformed (RFC 6793 §6).
func (p *updateParser) as4(v []byte) []uint32 {
	path, fault := segments(v, 4)
	switch fault {
	case "":
		return path
	case hasSet:
		p.treatAsWithdraw("AS4_PATH: %s", fault)
	}
	return nil
}

// hasSet is the fault of a path with an AS_SET: which ASes it has passed is not
// known, nor, without its members, whether ours is among them.
const hasSet = "an AS_SET, which no route may have any more (RFC 9774)"

// segments joins AS_PATH segments as [bgp.Attrs] has them.
func segments(v []byte, octets int) (path []uint32, fault string) {
	for len(v) > 0 {
		if len(v) < 2 {
			return nil, "a stray octet at its end"
		}
		kind, n := v[0], int(v[1])
		switch {
		case kind == segmentSet:
			return nil, hasSet
		case kind != segmentSequence:
			return nil, fmt.Sprintf("segment of type %d from an external peer", kind) // RFC 5065 §5 for confederations
		case n == 0:
			return nil, "empty segment"
		case 2+n*octets > len(v):
			return nil, fmt.Sprintf("segment of %d AS numbers in %d octets", n, len(v)-2)
		}
		for i := range n {
			if octets == 4 {
				path = append(path, binary.BigEndian.Uint32(v[2+4*i:]))
			} else {
				path = append(path, uint32(binary.BigEndian.Uint16(v[2+2*i:])))
			}
		}
		v = v[2+n*octets:]
	}
	return path, ""
}

// mpReach takes MP_REACH_NLRI (RFC 4760 §3). That of another family than the
// session's was not negotiated and is ignored.
func (p *updateParser) mpReach(v []byte) error {
	if len(v) < 5 {
		return &updateError{9, fmt.Sprintf("MP_REACH_NLRI of %d octets", len(v))}
	}
	family, n := uint32(binary.BigEndian.Uint16(v))<<16|uint32(v[2]), int(v[3])
	if family != p.family {
		return nil
	}
	if 5+n > len(v) { // RFC 7606 §7.11: the prefixes cannot be found
		return &updateError{9, fmt.Sprintf("MP_REACH_NLRI: next hop of %d octets in %d", n, len(v)-5)}
	}
	hop, nlri := v[4:4+n], v[5+n:]
	switch {
	case (family == ipv4Unicast || family == l2vpnEVPN) && n == 4:
		p.attrs.NextHop = netip.AddrFrom4([4]byte(hop))
	case family == l2vpnEVPN && n == 16, family == ipv6Unicast && (n == 16 || n == 32): // the second is link-local (RFC 2545 §3)
		p.attrs.NextHop = netip.AddrFrom16([16]byte(hop[:16]))
	default:
		return &updateError{9, fmt.Sprintf("MP_REACH_NLRI: next hop of %d octets", n)}
	}
	if family == l2vpnEVPN {
		return p.reachEVPN(nlri)
	}
	var err error
	p.out.announce, err = p.prefixes(p.out.announce, nlri, "MP_REACH_NLRI")
	return err
}

func (p *updateParser) mpUnreach(v []byte) error {
	if len(v) < 3 {
		return &updateError{9, fmt.Sprintf("MP_UNREACH_NLRI of %d octets", len(v))}
	}
	if uint32(binary.BigEndian.Uint16(v))<<16|uint32(v[2]) != p.family {
		return nil
	}
	p.out.endOfRIB = len(v) == 3
	if p.family == l2vpnEVPN {
		return p.unreachEVPN(v[3:])
	}
	var err error
	p.out.withdraw, err = p.prefixes(p.out.withdraw, v[3:], "MP_UNREACH_NLRI")
	return err
}

// classic takes the parts of an UPDATE that are for IPv4 alone (RFC 4271 §4.3).
// A peer of another session has not negotiated them.
func (p *updateParser) classic(withdrawn, nlri []byte) (err error) {
	if p.family != ipv4Unicast {
		return nil
	}
	if p.out.withdraw, err = p.prefixes(p.out.withdraw, withdrawn, "withdrawn routes"); err != nil {
		return err
	}
	p.out.announce, err = p.prefixes(p.out.announce, nlri, "NLRI")
	return err
}

// prefixes appends those that b encodes (RFC 4271 §4.3).
func (p *updateParser) prefixes(list []netip.Prefix, b []byte, where string) ([]netip.Prefix, error) {
	most := 32
	if p.family == ipv6Unicast {
		most = 128
	}
	for len(b) > 0 {
		bits := int(b[0])
		n := (bits + 7) / 8
		if bits > most || 1+n > len(b) { // RFC 7606 §5.3
			return nil, &updateError{10, fmt.Sprintf("%s: prefix of %d bits in %d octets", where, bits, len(b)-1)}
		}
		var a netip.Addr
		if most == 32 {
			var octets [4]byte
			copy(octets[:], b[1:1+n])
			a = netip.AddrFrom4(octets)
		} else {
			var octets [16]byte
			copy(octets[:], b[1:1+n])
			a = netip.AddrFrom16(octets)
		}
		list = append(list, netip.PrefixFrom(a, bits).Masked()) // trailing bits mean nothing
		b = b[1+n:]
	}
	return list, nil
}

// finish settles what the whole UPDATE means.
func (p *updateParser) finish() *received {
	out := &p.out
	out.endOfRIB = out.endOfRIB && len(out.announce)+len(out.withdraw)+len(out.evpn.Announce)+len(out.evpn.Withdraw) == 0
	if len(out.announce)+len(out.evpn.Announce) == 0 {
		out.malformed = cmp.Or(out.malformed, p.spoilt)
		return out
	}
	for _, code := range []uint8{attrOrigin, attrASPath} {
		if !p.seen[code] { // RFC 7606 §3 (d)
			p.treatAsWithdraw("no path attribute %d", code)
		}
	}
	if !p.attrs.NextHop.IsValid() {
		p.treatAsWithdraw("no NEXT_HOP")
	}
	if out.malformed != "" {
		out.withdraw, out.announce = append(out.withdraw, out.announce...), nil
		p.withdrawEVPN()
		return out
	}
	out.malformed = p.spoilt
	p.mergeAS4Path()
	p.shareEVPN()
	a := p.attrs
	out.attrs = &a
	return out
}

// mergeAS4Path puts the end of AS4_PATH in place of that of a longer AS_PATH,
// whose beginning are the speakers that know no four octets (RFC 6793 §4.2.3).
func (p *updateParser) mergeAS4Path() {
	if n := len(p.attrs.ASPath) - len(p.as4Path); len(p.as4Path) > 0 && n >= 0 {
		p.attrs.ASPath = append(p.attrs.ASPath[:n:n], p.as4Path...)
	}
}

// update turns what was received into a change of the Adj-RIB-In. A prefix that
// is withdrawn and announced is announced (RFC 4271 §4.3).
func (r *received) update(session string) *bgp.Update {
	u := &bgp.Update{Session: session, Withdraw: r.withdraw}
	if len(r.announce) > 0 {
		u.Announce = make([]bgp.Route, len(r.announce))
		for i, p := range r.announce {
			u.Announce[i] = bgp.Route{Prefix: p, Attrs: r.attrs}
		}
	}
	return u
}
