package circuit

import (
	"testing"
	"time"
)

func TestGatewayLimits(t *testing.T) {
	const idle = 4 * time.Minute
	for _, c := range []struct {
		sku   GatewaySKU
		units int
		want  GatewayLimits
	}{
		{"Standard", 0, GatewayLimits{1_000, 100_000, 200_000, idle}},
		{"ErGw1AZ", 0, GatewayLimits{1_000, 100_000, 200_000, idle}},
		{"HighPerformance", 0, GatewayLimits{2_000, 200_000, 400_000, idle}},
		{"ErGw2AZ", 0, GatewayLimits{2_000, 200_000, 400_000, idle}},
		{"UltraPerformance", 0, GatewayLimits{10_000, 1_000_000, 1_000_000, idle}},
		{"ErGw3AZ", 0, GatewayLimits{10_000, 1_000_000, 1_000_000, idle}},
		{"ErGwScale", 1, GatewayLimits{1_000, 100_000, 100_000, idle}},
		{"ErGwScale", 10, GatewayLimits{10_000, 1_000_000, 1_000_000, idle}},
		{"ErGwScale", 11, GatewayLimits{11_000, 1_200_000, 1_100_000, idle}},
		{"ErGwScale", 40, GatewayLimits{40_000, 7_000_000, 4_000_000, idle}},
	} {
		if got := c.sku.Limits(c.units); got != c.want {
			t.Errorf("%s with %d units: %+v, want %+v", c.sku, c.units, got, c.want)
		}
	}
	for _, sku := range GatewaySKUs {
		l := sku.Limits(40)
		if CheckGatewayBandwidth(int64(l.BandwidthInMbps)) != nil || CheckGatewayPackets(int64(l.PacketsPerSecond)) != nil ||
			CheckGatewayFlows(int64(l.Flows)) != nil || CheckFlowIdle(int64(l.FlowIdle/time.Second)) != nil {
			t.Errorf("%s: its own limits %+v are refused", sku, l)
		}
	}
	got, want := GatewayLimits{3, 5, 1, idle}.PerInstance(), GatewayLimits{1, 2, 1, idle}
	if got != want {
		t.Errorf("an instance has %+v, want %+v", got, want)
	}
}
