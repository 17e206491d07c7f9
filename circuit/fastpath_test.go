package circuit

import (
	"strings"
	"testing"
)

func TestFastPathRefuses(t *testing.T) {
	on := FastPath{ExpressRouteGatewayBypass: true, GatewaySKU: "ErGw3AZ"}
	direct, private := on, on
	direct.DirectGbps = 10
	private.EnablePrivateLinkFastPath = true
	directPrivate := private
	directPrivate.DirectGbps = 100
	with := func(sku GatewaySKU, units int) FastPath { f := on; f.GatewaySKU, f.ScaleUnits = sku, units; return f }
	for name, c := range map[string]struct {
		f    FastPath
		kind EndpointKind
		want string // part of the refusal; "" for none
	}{
		"VM":                               {on, EndpointVirtualMachine, ""},
		"off":                              {FastPath{GatewaySKU: "ErGw3AZ"}, EndpointVirtualMachine, "off"},
		"UltraPerformance":                 {with("UltraPerformance", 0), EndpointVirtualMachine, ""},
		"ErGw1AZ":                          {with("ErGw1AZ", 0), EndpointVirtualMachine, "SKU ErGw1AZ"},
		"ErGw2AZ":                          {with("ErGw2AZ", 0), EndpointVirtualMachine, "SKU ErGw2AZ"},
		"9 scale units":                    {with("ErGwScale", 9), EndpointVirtualMachine, "9 scale units"},
		"10 scale units":                   {with("ErGwScale", 10), EndpointVirtualMachine, ""},
		"peered":                           {on, EndpointPeeredVirtualMachine, "Direct only"},
		"peered on Direct":                 {direct, EndpointPeeredVirtualMachine, ""},
		"user-defined route":               {on, EndpointUserDefinedRoute, "Direct only"},
		"user-defined route on Direct":     {direct, EndpointUserDefinedRoute, ""},
		"private endpoint":                 {direct, EndpointPrivateEndpoint, "enablePrivateLinkFastPath"},
		"private endpoint by provider":     {private, EndpointPrivateEndpoint, "Direct only"},
		"private endpoint on Direct":       {directPrivate, EndpointPrivateEndpoint, ""},
		"load balancer in a spoke":         {directPrivate, EndpointPeeredLoadBalancer, "always"},
		"PaaS in a spoke":                  {directPrivate, EndpointPeeredPaaS, "always"},
		"DNS private resolver in a spoke":  {directPrivate, EndpointPeeredDNSResolver, "always"},
		"global peering":                   {directPrivate, EndpointGlobalPeered, "always"},
		"Basic load balancer":              {directPrivate, EndpointBasicLoadBalancer, "always"},
		"NetApp Files with basic features": {directPrivate, EndpointNetAppBasic, "always"},
	} {
		got := string(c.f.Refuses(c.kind))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestFastPathLimit(t *testing.T) {
	for gbps, want := range map[int]int{0: 25_000, 10: 100_000, 100: 200_000, 400: 200_000} {
		if got := FastPathLimit(gbps); got != want {
			t.Errorf("%d Gbit/s: %d, want %d", gbps, got, want)
		}
	}
}
