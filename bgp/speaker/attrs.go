package speaker

import (
	"bytes"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"msee/bgp"
)

// received turns the paths of one UPDATE into an Update. All paths with the
// same attributes share one Attrs. A path that makes no sense as a route is
// taken as withdrawn if its prefix is known (RFC 7606 §2), else left out.
func received(session string, paths []*api.Path) bgp.Update {
	u := bgp.Update{Session: session}
	var last *bgp.Attrs
	var lastRaw []*anypb.Any
	for _, p := range paths {
		prefix, ok := prefixOf(p)
		if !ok {
			continue
		}
		if p.GetIsWithdraw() {
			u.Withdraw = append(u.Withdraw, prefix)
			continue
		}
		if last == nil || !sameAttrs(lastRaw, p.GetPattrs()) {
			last, lastRaw = attrsOf(p.GetPattrs()), p.GetPattrs()
		}
		if last.NextHop.Is4() != prefix.Addr().Is4() || !last.NextHop.IsValid() {
			u.Withdraw = append(u.Withdraw, prefix)
			continue
		}
		u.Announce = append(u.Announce, bgp.Route{Prefix: prefix, Attrs: last})
	}
	return u
}

// prefixOf reads the prefix of an IPv4 or IPv6 unicast path.
func prefixOf(p *api.Path) (netip.Prefix, bool) {
	var n api.IPAddressPrefix
	if p.GetNlri().UnmarshalTo(&n) != nil {
		return netip.Prefix{}, false
	}
	a, err := netip.ParseAddr(n.Prefix)
	if err != nil || int(n.PrefixLen) > a.BitLen() {
		return netip.Prefix{}, false
	}
	a = a.Unmap().WithZone("")
	prefix, err := a.Prefix(int(n.PrefixLen))
	return prefix, err == nil
}

// sameAttrs compares encodings. MP_REACH_NLRI differs with every prefix, so
// only its next hop is looked at.
func sameAttrs(a, b []*anypb.Any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].GetTypeUrl() != b[i].GetTypeUrl() {
			return false
		}
		if bytes.Equal(a[i].GetValue(), b[i].GetValue()) {
			continue
		}
		var x, y api.MpReachNLRIAttribute
		if a[i].UnmarshalTo(&x) != nil || b[i].UnmarshalTo(&y) != nil || len(x.NextHops) == 0 || len(y.NextHops) == 0 || x.NextHops[0] != y.NextHops[0] {
			return false
		}
	}
	return true
}

// attrsOf keeps what bgp.Attrs has room for and skips what it cannot read.
func attrsOf(raw []*anypb.Any) *bgp.Attrs {
	a := &bgp.Attrs{Origin: bgp.OriginIncomplete}
	for _, r := range raw {
		m, err := r.UnmarshalNew()
		if err != nil {
			continue
		}
		switch v := m.(type) {
		case *api.OriginAttribute:
			a.Origin = uint8(v.Origin)
		case *api.AsPathAttribute:
			a.ASPath = flatten(v.Segments)
		case *api.NextHopAttribute:
			a.NextHop = address(v.NextHop)
		case *api.MpReachNLRIAttribute:
			if len(v.NextHops) > 0 { // a second one is the link-local (RFC 2545 §3)
				a.NextHop = address(v.NextHops[0])
			}
		case *api.MultiExitDiscAttribute:
			a.MED, a.HasMED = v.Med, true
		case *api.CommunitiesAttribute:
			a.Communities = v.Communities
		}
	}
	return a
}

func address(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func flatten(segments []*api.AsSegment) []uint32 {
	var path []uint32
	for _, s := range segments {
		switch s.Type {
		case api.AsSegment_AS_SEQUENCE:
			path = append(path, s.Numbers...)
		case api.AsSegment_AS_SET:
			path = append(path, s.Numbers[:min(1, len(s.Numbers))]...)
		}
	}
	return path
}

// maxSegment is the most AS numbers a segment can count (RFC 4271 §4.3).
const maxSegment = 255

// encodeAttrs makes the path attributes of an advertisement; nextHop is used
// where a has none. GoBGP puts the local AS in front when it sends.
func encodeAttrs(a *bgp.Attrs, nextHop netip.Addr) ([]*anypb.Any, error) {
	if a.NextHop.IsValid() {
		nextHop = a.NextHop
	}
	path := &api.AsPathAttribute{}
	for rest := a.ASPath; len(rest) > 0; {
		n := min(len(rest), maxSegment)
		path.Segments = append(path.Segments, &api.AsSegment{Type: api.AsSegment_AS_SEQUENCE, Numbers: rest[:n]})
		rest = rest[n:]
	}
	attrs := []proto.Message{
		&api.OriginAttribute{Origin: uint32(a.Origin)},
		path,
		&api.NextHopAttribute{NextHop: nextHop.String()},
	}
	if a.HasMED {
		attrs = append(attrs, &api.MultiExitDiscAttribute{Med: a.MED})
	}
	if len(a.Communities) > 0 {
		attrs = append(attrs, &api.CommunitiesAttribute{Communities: a.Communities})
	}
	out := make([]*anypb.Any, 0, len(attrs))
	for _, m := range attrs {
		v, err := anypb.New(m)
		if err != nil {
			return nil, fmt.Errorf("encode path attribute: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

// encodePath makes the path of an advertisement, or of a withdrawal if attrs is
// nil.
func encodePath(p netip.Prefix, attrs []*anypb.Any) *api.Path {
	octets := p.Addr().AsSlice()[:(p.Bits()+7)/8]
	return &api.Path{
		Family:     family(p.Addr()),
		NlriBinary: append([]byte{byte(p.Bits())}, octets...),
		Pattrs:     attrs,
		IsWithdraw: attrs == nil,
	}
}
