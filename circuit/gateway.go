package circuit

import "time"

// What a gateway carries. In Azure that is the way from on-premises into the VNet
// alone, as hosts answer past it; and of that only what FastPath does not take.

// GatewayMTU is the longest IP packet that passes a gateway, octets.
const GatewayMTU = 1400

// GatewayLimits are a gateway's, or those of one of its instances. Azure states them
// by SKU and for the gateway as a whole.
type GatewayLimits struct {
	BandwidthInMbps  int
	PacketsPerSecond int
	Flows            int
	// FlowIdle is how long a flow is remembered that has no packets. Azure does not
	// say; the default is ours.
	FlowIdle time.Duration
}

// defaultFlowIdle is FlowIdle of every SKU.
const defaultFlowIdle = 4 * time.Minute

// Limits are those of a gateway of that SKU and, if it is ErGwScale, that size.
func (s GatewaySKU) Limits(scaleUnits int) GatewayLimits {
	l := GatewayLimits{1_000, 100_000, 200_000, defaultFlowIdle}
	switch s {
	case "HighPerformance", "ErGw2AZ":
		l = GatewayLimits{2_000, 200_000, 400_000, defaultFlowIdle}
	case "UltraPerformance", "ErGw3AZ":
		l = GatewayLimits{10_000, 1_000_000, 1_000_000, defaultFlowIdle}
	case "ErGwScale":
		// From the eleventh on a unit has twice the packets per second.
		l = GatewayLimits{1_000 * scaleUnits, 100_000*scaleUnits + 100_000*max(0, scaleUnits-minScaleUnits), 100_000 * scaleUnits, defaultFlowIdle}
	}
	return l
}

// PerInstance is the share of each of a gateway's two instances. The MSEEs spread
// flows over both, and neither knows what the other carries.
func (l GatewayLimits) PerInstance() GatewayLimits {
	half := func(n int) int { return max(1, n/2) }
	return GatewayLimits{half(l.BandwidthInMbps), half(l.PacketsPerSecond), half(l.Flows), l.FlowIdle}
}

// Bounds of limits that a configuration gives in place of its SKU's.
const (
	maxGatewayMbps = 100_000
	maxGatewayPPS  = 100_000_000
	maxGatewayFlow = 4_000_000 // 32 octets of memory each
)

// CheckGatewayBandwidth checks a gateway's bandwidth, in Mbit/s.
func CheckGatewayBandwidth(n int64) *Violation {
	if n < 2 || n > maxGatewayMbps {
		return &Violation{"not a bandwidth of a gateway in Mbit/s", "2 to 100000; each instance has half"}
	}
	return nil
}

// CheckGatewayPackets checks how many packets a second a gateway passes.
func CheckGatewayPackets(n int64) *Violation {
	if n < 2 || n > maxGatewayPPS {
		return &Violation{"not a number of packets per second", "2 to 100000000; each instance has half"}
	}
	return nil
}

// CheckGatewayFlows checks how many flows a gateway has.
func CheckGatewayFlows(n int64) *Violation {
	if n < 2 || n > maxGatewayFlow {
		return &Violation{"not a number of flows", "2 to 4000000; each instance has half"}
	}
	return nil
}

// CheckFlowIdle checks how long a gateway remembers an idle flow, in seconds.
func CheckFlowIdle(n int64) *Violation {
	if n < 2 || n > 3600 {
		return &Violation{"not a time that an idle flow is remembered", "2 to 3600 seconds"}
	}
	return nil
}
