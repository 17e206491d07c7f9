package circuit

import (
	"net/netip"

	"msee/rpsl"
)

// ValidationState says whether a prefix of a Microsoft peering is known to be
// the customer's.
type ValidationState string

// The states that a prefix, or all of a peering, can have here.
const (
	NotConfigured          ValidationState = "NotConfigured" // there is no prefix
	Configured             ValidationState = "Configured"
	ValidationNeeded       ValidationState = "ValidationNeeded" // no registry knows the prefix
	AsnValidationFailed    ValidationState = "AsnValidationFailed"
	ManualValidationNeeded ValidationState = "ManualValidationNeeded"
)

// RoutingRegistryNames are the values of routingRegistryName; NONE is any.
var RoutingRegistryNames = []string{"NONE", "ARIN", "APNIC", "AFRINIC", "LACNIC", "RIPENCC", "RADB", "ALTDB"}

// OriginASN is the AS that a Microsoft peering's prefixes are to be registered
// for.
func (p *Peering) OriginASN(m *MicrosoftPeeringConfig) uint32 {
	if m.CustomerASN != 0 {
		return m.CustomerASN
	}
	return p.PeerASN
}

// Validate looks for a prefix in the routing registries: for a route object of
// it, or of a shorter one, with that origin. routes need only have those that
// contain the prefix.
func (m *MicrosoftPeeringConfig) Validate(prefix netip.Prefix, origin uint32, routes []rpsl.Route) ValidationState {
	if m.ManuallyValidated {
		return Configured
	}
	if isPrivateASN(origin) {
		return ManualValidationNeeded // nobody can register for it
	}
	state := ValidationNeeded
	for _, r := range routes {
		if !within(prefix, r.Prefix) || !m.asks(r.Source) {
			continue
		}
		if r.Origin == origin {
			return Configured
		}
		state = AsnValidationFailed
	}
	return state
}

// asks reports whether a registry counts for the peering.
func (m *MicrosoftPeeringConfig) asks(source string) bool {
	switch m.RoutingRegistryName {
	case "", "NONE", source:
		return true
	case "RIPENCC":
		return source == "RIPE" || source == "RIPE-NONAUTH"
	}
	return false
}

// Overall is the state of all of a peering's prefixes together.
func Overall(states []ValidationState) ValidationState {
	if len(states) == 0 {
		return NotConfigured
	}
	for _, s := range states {
		if s != Configured {
			return ValidationNeeded
		}
	}
	return Configured
}

// isPrivateASN reports whether asn is for private use (RFC 6996) or nobody's
// (RFC 7300).
func isPrivateASN(asn uint32) bool { return asn >= 64512 && asn <= 65535 || asn >= 4200000000 }

// CheckCustomerASN checks the AS that originates the prefixes where it is not
// the peer.
func CheckCustomerASN(asn int64) *Violation {
	const want = "a public AS number"
	switch {
	case asn < 1 || asn > 0xffff_ffff:
		return &Violation{"not an AS number", want}
	case isPrivateASN(uint32(asn)):
		return &Violation{"a private AS number", want}
	case asn == ASNMSEE:
		return &Violation{"the ASN of the MSEE itself", want}
	}
	return nil
}
