package circuit

import (
	"net/netip"
	"testing"

	"msee/rpsl"
)

func TestValidate(t *testing.T) {
	route := func(prefix string, origin uint32, source string) rpsl.Route {
		return rpsl.Route{Prefix: netip.MustParsePrefix(prefix), Origin: origin, Source: source}
	}
	registered := []rpsl.Route{route("198.51.100.0/22", 3, "RIPE"), route("198.51.100.0/24", 5, "RADB"), route("203.0.113.0/25", 3, "ARIN")}
	for _, c := range []struct {
		name, prefix string
		origin       uint32
		registry     string
		manual       bool
		want         ValidationState
	}{
		{"by a shorter one", "198.51.100.0/24", 3, "", false, Configured},
		{"exactly", "198.51.100.0/24", 5, "NONE", false, Configured},
		{"a longer one does not count", "203.0.113.0/24", 3, "NONE", false, ValidationNeeded},
		{"another's", "198.51.100.0/24", 7, "NONE", false, AsnValidationFailed},
		{"not in that registry", "198.51.100.0/24", 3, "RADB", false, AsnValidationFailed},
		{"in that registry", "198.51.100.0/24", 5, "RADB", false, Configured},
		{"RIPE NCC's source is RIPE", "198.51.100.0/24", 3, "RIPENCC", false, Configured},
		{"no such prefix", "192.0.2.0/24", 3, "NONE", false, ValidationNeeded},
		{"registry that knows nothing", "198.51.100.0/24", 3, "LACNIC", false, ValidationNeeded},
		{"private AS", "198.51.100.0/24", 65001, "NONE", false, ManualValidationNeeded},
		{"by hand", "192.0.2.0/24", 65001, "NONE", true, Configured},
	} {
		m := &MicrosoftPeeringConfig{RoutingRegistryName: c.registry, ManuallyValidated: c.manual}
		if got := m.Validate(netip.MustParsePrefix(c.prefix), c.origin, registered); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for want, states := range map[ValidationState][]ValidationState{
		NotConfigured: nil, Configured: {Configured, Configured}, ValidationNeeded: {Configured, AsnValidationFailed}} {
		if got := Overall(states); got != want {
			t.Errorf("%v: %s, want %s", states, got, want)
		}
	}
	p := &Peering{PeerASN: 65001}
	if p.OriginASN(&MicrosoftPeeringConfig{}) != 65001 || p.OriginASN(&MicrosoftPeeringConfig{CustomerASN: 3}) != 3 {
		t.Error("OriginASN")
	}
}

func TestCustomerASN(t *testing.T) {
	for asn, want := range map[int64]string{0: "not an AS number", 3: "", 64511: "", 64512: "a private AS number", 65536: "",
		4200000000: "a private AS number", 1 << 32: "not an AS number", ASNMSEE: "the ASN of the MSEE itself"} {
		if got := verdict(CheckCustomerASN(asn)); got != want {
			t.Errorf("%d: %q, want %q", asn, got, want)
		}
	}
}
