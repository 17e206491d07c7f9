package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"msee/circuit"
)

// fastPath reads what a connection says of FastPath.
func (r *reader) fastPath(o *object) circuit.FastPath {
	f := circuit.FastPath{
		ExpressRouteGatewayBypass: toggle(o, "expressRouteGatewayBypass", false),
		EnablePrivateLinkFastPath: toggle(o, "enablePrivateLinkFastPath", false),
		GatewaySKU:                defaultGatewaySKU,
	}
	if s, ok := o.section("virtualNetworkGatewaySku", optional, "name"); ok {
		f.GatewaySKU, f.ScaleUnits = r.gatewaySKU(s)
	}
	if f.EnablePrivateLinkFastPath && !f.ExpressRouteGatewayBypass {
		r.fault(o.child("enablePrivateLinkFastPath"), "true", "without expressRouteGatewayBypass", "both, or neither")
	}
	return f
}

const defaultGatewaySKU = circuit.GatewaySKU("ErGw1AZ")

// gatewaySKU reads a gateway's SKU and, of one that scales, its size.
func (r *reader) gatewaySKU(o *object) (circuit.GatewaySKU, int) {
	defer o.done()
	sku := word(o, "name", required, circuit.GatewaySKUs...)
	units := int(value(o, "scaleUnits", optional, number, circuit.CheckScaleUnits))
	if o.has("scaleUnits") && sku != "" && sku != "ErGwScale" {
		r.fault(o.child("scaleUnits"), fmt.Sprint(units), "on "+article(sku), "none: only an ErGwScale has scale units")
	}
	if sku == "ErGwScale" && units == 0 {
		units = 1
	}
	return sku, units
}

// article is a SKU's name with its article.
func article(sku circuit.GatewaySKU) string {
	if strings.HasPrefix(string(sku), "ErGw") {
		return "an " + string(sku)
	}
	return "a " + string(sku)
}

// endpoint is an endpoint as configured.
type endpointSpec struct {
	Endpoint
	path string
}

func (r *reader) endpoint(o *object) endpointSpec {
	e := endpointSpec{path: o.path}
	e.Addr = value(o, "address", required, address, checkHost)
	e.Host = value(o, "host", required, address, checkHost)
	e.Kind = word(o, "kind", optional, circuit.EndpointKinds...)
	return e
}

func checkHost(a netip.Addr) *circuit.Violation {
	const want = "a host's address"
	if !a.IsValid() {
		return &circuit.Violation{Problem: "no address", Want: want}
	}
	if v := circuit.CheckUnicast(netip.PrefixFrom(a, a.BitLen())); v != nil {
		return &circuit.Violation{Problem: v.Problem, Want: want}
	}
	return nil
}

// checkEndpoints checks that endpoints are in the VNet's subnets, each once, and
// their hosts where the MSEEs can reach them.
func (r *reader) checkEndpoints(f *gatewayFile) {
	var subnets, cores []netip.Prefix
	for _, s := range f.vnet.Subnets {
		subnets = append(subnets, s.AddressPrefixes...)
	}
	for _, c := range f.connections {
		cores = append(cores, c.gatewaySubnets()...)
	}
	if slices.Contains(subnets, netip.Prefix{}) || slices.Contains(cores, netip.Prefix{}) {
		return // refused by themselves
	}
	seen := registry{}
	for _, e := range f.endpoints {
		if e.Addr.IsValid() {
			r.unique(seen, e.Addr.String(), e.path+".address", "endpoint")
			if !contains(subnets, e.Addr) {
				r.fault(e.path+".address", e.Addr.String(), "in no subnet of the VNet", "an address of one of its subnets")
			}
			for _, s := range subnets {
				for instance := range 2 {
					if e.Addr == circuit.SubnetGatewayAddress(s, instance) {
						r.fault(e.path+".address", e.Addr.String(), fmt.Sprintf("the gateway's own, of instance %d", instance), "a host's address")
					}
				}
			}
		}
		switch {
		case !e.Host.IsValid():
		case !contains(cores, e.Host):
			r.fault(e.path+".host", e.Host.String(), "not on a GatewaySubnet", "an address that the MSEEs reach by a connection's gatewaySubnet")
		case e.Addr.IsValid() && e.Addr.Is4() != e.Host.Is4():
			r.fault(e.path+".host", e.Host.String(), "not of the address's family", "the host's address in the family of the endpoint")
		}
	}
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
