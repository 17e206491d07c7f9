package circuit

import "fmt"

// FastPath: traffic from on-premises goes past the gateway straight to the host
// of an endpoint, where the connection asks for it and these rules allow it.

// EndpointKind is what an address in a VNet belongs to.
type EndpointKind string

const (
	EndpointVirtualMachine       EndpointKind = "VirtualMachine" // of the hub VNet, as its load balancers and NICs
	EndpointPeeredVirtualMachine EndpointKind = "PeeredVirtualMachine"
	EndpointUserDefinedRoute     EndpointKind = "UserDefinedRoute" // a route of the GatewaySubnet's table leads through an appliance
	EndpointPrivateEndpoint      EndpointKind = "PrivateEndpoint"
	EndpointPeeredLoadBalancer   EndpointKind = "PeeredInternalLoadBalancer"
	EndpointPeeredPaaS           EndpointKind = "PeeredPaaS"
	EndpointPeeredDNSResolver    EndpointKind = "PeeredDNSPrivateResolver"
	EndpointGlobalPeered         EndpointKind = "GlobalPeeredVirtualMachine"
	EndpointBasicLoadBalancer    EndpointKind = "BasicLoadBalancer"
	EndpointNetAppBasic          EndpointKind = "NetAppBasicFeatures"
)

// EndpointKinds are all kinds. A kind's place in the list is its number between
// gateway and MSEE, so new ones come last.
var EndpointKinds = []EndpointKind{
	EndpointVirtualMachine, EndpointPeeredVirtualMachine, EndpointUserDefinedRoute, EndpointPrivateEndpoint,
	EndpointPeeredLoadBalancer, EndpointPeeredPaaS, EndpointPeeredDNSResolver, EndpointGlobalPeered,
	EndpointBasicLoadBalancer, EndpointNetAppBasic,
}

// FastPath is what a connection and its circuit allow of it.
type FastPath struct {
	ExpressRouteGatewayBypass bool // switches it on
	EnablePrivateLinkFastPath bool // for private endpoints too
	GatewaySKU                GatewaySKU
	ScaleUnits                int // of an ErGwScale gateway
	// DirectGbps is the bandwidth of the ExpressRoute Direct port the circuit
	// is on; 0 if it is a provider's.
	DirectGbps int
}

// minScaleUnits is the size from which an ErGwScale gateway has FastPath.
const minScaleUnits = 10

// Refusal says why an endpoint goes by the gateway; "" if it need not.
type Refusal string

// Refusals that rest on the connection, not on the endpoint.
const (
	RefusedOff   Refusal = "expressRouteGatewayBypass is off"
	RefusedLimit Refusal = "limit of the port reached"
)

// Refuses says why FastPath does not take an endpoint of that kind. The port's
// limit is not looked at.
func (f FastPath) Refuses(kind EndpointKind) Refusal {
	if !f.ExpressRouteGatewayBypass {
		return RefusedOff
	}
	switch f.GatewaySKU {
	case "UltraPerformance", "ErGw3AZ":
	case "ErGwScale":
		if f.ScaleUnits < minScaleUnits {
			return Refusal(fmt.Sprintf("gateway SKU ErGwScale with %d scale units: FastPath needs %d", f.ScaleUnits, minScaleUnits))
		}
	default:
		return Refusal("gateway SKU " + string(f.GatewaySKU) + ": FastPath needs UltraPerformance, ErGw3AZ or ErGwScale")
	}
	switch kind {
	case EndpointVirtualMachine:
		return ""
	case EndpointPeeredVirtualMachine, EndpointUserDefinedRoute:
		return f.onDirect(kind)
	case EndpointPrivateEndpoint:
		if !f.EnablePrivateLinkFastPath {
			return "enablePrivateLinkFastPath is off"
		}
		return f.onDirect(kind)
	}
	return Refusal(string(kind) + " always goes by the gateway")
}

func (f FastPath) onDirect(kind EndpointKind) Refusal {
	if f.DirectGbps == 0 {
		return Refusal(string(kind) + " has FastPath on ExpressRoute Direct only")
	}
	return ""
}

// FastPathLimit is how many endpoints all circuits of a port may have together,
// by the bandwidth of the ExpressRoute Direct port, 0 for a provider's.
func FastPathLimit(directGbps int) int {
	switch {
	case directGbps == 0:
		return 25_000
	case directGbps < 100:
		return 100_000
	}
	return 200_000
}

// CheckDirectBandwidth checks the bandwidth of an ExpressRoute Direct port.
func CheckDirectBandwidth(gbps int64) *Violation {
	if gbps != 10 && gbps != 100 && gbps != 400 {
		return &Violation{"not a bandwidth of ExpressRoute Direct", "10, 100 or 400, or none on a provider's port"}
	}
	return nil
}

// CheckScaleUnits checks the size of an ErGwScale gateway.
func CheckScaleUnits(n int64) *Violation {
	if n < 1 || n > 40 {
		return &Violation{"not a number of scale units", "1 to 40"}
	}
	return nil
}
