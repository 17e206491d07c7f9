package config

import (
	"strings"
	"testing"
	"time"

	"msee/circuit"
)

// TestGatewayLimits: each instance has half of the SKU's limits, or of what the file
// says instead.
func TestGatewayLimits(t *testing.T) {
	file := readFile(t, "gateway.yaml")
	for _, c := range []struct {
		sku  string
		want Gateway
	}{
		{"sku: {name: ErGw3AZ}", Gateway{"ErGw3AZ", 0, circuit.GatewayLimits{BandwidthInMbps: 5_000, PacketsPerSecond: 500_000, Flows: 500_000, FlowIdle: 4 * time.Minute}}},
		{"sku: {name: ErGwScale, scaleUnits: 4}", Gateway{"ErGwScale", 4, circuit.GatewayLimits{BandwidthInMbps: 2_000, PacketsPerSecond: 200_000, Flows: 200_000, FlowIdle: 4 * time.Minute}}},
		{"sku: {name: ErGw2AZ}, limits: {bandwidthInMbps: 50}", Gateway{"ErGw2AZ", 0, circuit.GatewayLimits{BandwidthInMbps: 25, PacketsPerSecond: 100_000, Flows: 200_000, FlowIdle: 4 * time.Minute}}},
		{"limits: {packetsPerSecond: 1001, flows: 200, flowIdleSeconds: 3}", Gateway{"ErGw1AZ", 0, circuit.GatewayLimits{BandwidthInMbps: 500, PacketsPerSecond: 500, Flows: 100, FlowIdle: 3 * time.Second}}},
	} {
		d := mustParse(t, strings.Replace(file, "sku: {name: ErGw1AZ}", c.sku, 1))
		if got := *d.VRFs[0].Gateway; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.sku, got, c.want)
		}
	}
	if g := mustParse(t, readFile(t, "edge.yaml")).VRFs[0].Gateway; g != nil {
		t.Errorf("an MSEE's VRF has a gateway: %+v", g)
	}
}
