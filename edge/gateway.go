package edge

import (
	"net/netip"
	"time"

	"msee/circuit"
	"msee/config"
	"msee/dataplane"
)

// A gateway instance's limits: made from its configuration, measured by the clock.

// gateway is what a VRF's packets from on-premises pass, on an instance of a gateway.
type gateway struct {
	cfg config.Gateway
	dp  *dataplane.Gateway
	// What had passed, and at which time since the engine's epoch, two samples ago
	// and at the last; they are some seconds apart.
	before, last gatewaySample
}

type gatewaySample struct {
	at              time.Duration
	packets, octets uint64
}

// sampleEvery is the time between two samples, in seconds: rates are of so long, and
// idle flows go so late.
const sampleEvery = 2

// setGateway gives the VRF the gateway that its configuration asks for: the one that it
// has, if nothing has changed. It reports whether it is another.
func (e *Edge) setGateway(v *vrf, c *config.Gateway) bool {
	switch {
	case c == nil && v.gateway == nil, c != nil && v.gateway != nil && *c == v.gateway.cfg:
		return false
	case c == nil:
		v.gateway = nil
		return true
	}
	g := &gateway{cfg: *c}
	var before *dataplane.Gateway
	if v.gateway != nil {
		before, g.before, g.last = v.gateway.dp, v.gateway.before, v.gateway.last
	}
	l := c.Limits
	g.dp = dataplane.NewGateway(dataplane.GatewayLimits{MTU: circuit.GatewayMTU, Mbps: l.BandwidthInMbps,
		PacketsPerSecond: l.PacketsPerSecond, Flows: l.Flows, FlowIdle: l.FlowIdle}, before)
	v.gateway = g
	return true
}

// gatewayOf is what a subinterface's packets pass.
func (v *vrf) gatewayOf(s config.Subinterface) *dataplane.Gateway {
	if v.gateway == nil || s.Side != config.SideCore {
		return nil
	}
	return v.gateway.dp
}

// tick is every second.
func (g *gateway) tick(now time.Duration) {
	if g == nil || now-g.last.at < sampleEvery*time.Second {
		return
	}
	g.dp.Sweep(now)
	g.before, g.last = g.last, gatewaySample{now, g.dp.Passed.Packets.Load(), g.dp.Passed.Bytes.Load()}
}

// GatewayStatus is what an instance of a gateway passes into its VNet, and may.
type GatewayStatus struct {
	VRF string `json:"vrf"`
	// State is "in service", "waits for MSEEs", "draining" or "drained".
	State string `json:"state"`
	// Other is the gateway's other instance as seen in the VNet: up or down; "" if
	// nobody watches it.
	Other string `json:"other,omitempty"`
	// TakesOver are those of its addresses that this one has.
	TakesOver  []netip.Addr       `json:"takesOver,omitempty"`
	SKU        circuit.GatewaySKU `json:"sku"`
	ScaleUnits int                `json:"scaleUnits,omitempty"`
	MTU        int                `json:"mtu"`
	// Limits are this instance's, half of the gateway's.
	Limits GatewayNumbers `json:"limits"`
	// Used is what it has of them: rates of the last seconds.
	Used    GatewayNumbers `json:"used"`
	Packets uint64         `json:"packets"` // passed
	Bytes   uint64         `json:"bytes"`   // of IP packets, passed
	// Dropped are packets by why: fragment, too-big, flows, pps, bandwidth.
	Dropped map[string]uint64 `json:"dropped"`
}

// GatewayNumbers are a gateway's bandwidth, packets per second and flows.
type GatewayNumbers struct {
	Mbps             float64 `json:"bandwidthInMbps"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	Flows            int     `json:"flows"`
}

// GatewayDrops names why a gateway drops, in the order that it looks.
var GatewayDrops = []string{
	dataplane.GatewayDropFragment: "fragment", dataplane.GatewayDropTooBig: "too-big", dataplane.GatewayDropFlows: "flows",
	dataplane.GatewayDropPackets: "pps", dataplane.GatewayDropBandwidth: "bandwidth",
}

// Gateways lists the VRFs that are a gateway's.
func (e *Edge) Gateways() (rows []GatewayStatus, err error) {
	err = e.do(func() {
		for _, v := range e.sortedVRFs() {
			if v.gateway != nil {
				g := v.gateway.status(v.cfg.Name)
				g.State, g.Other, g.TakesOver = instanceState(e.maintenance, e.pair.ready), e.other(), e.takesOver()
				rows = append(rows, g)
			}
		}
	})
	return rows, err
}

// instanceState says what an instance is up to.
func instanceState(m Maintenance, ready bool) string {
	switch {
	case m == Draining:
		return "draining"
	case m == Drained:
		return "drained"
	case !ready:
		return "waits for MSEEs"
	default:
		return "in service"
	}
}

// other says how the other instance is.
func (e *Edge) other() string {
	switch {
	case len(e.pairLinks()) == 0:
		return ""
	case e.otherServes():
		return "up"
	default:
		return "down"
	}
}

func (g *gateway) status(vrf string) GatewayStatus {
	l := g.cfg.Limits
	s := GatewayStatus{VRF: vrf, SKU: g.cfg.SKU, ScaleUnits: g.cfg.ScaleUnits, MTU: circuit.GatewayMTU,
		Limits:  GatewayNumbers{float64(l.BandwidthInMbps), float64(l.PacketsPerSecond), l.Flows},
		Used:    GatewayNumbers{Flows: g.dp.Flows()},
		Packets: g.dp.Passed.Packets.Load(), Bytes: g.dp.Passed.Bytes.Load(), Dropped: map[string]uint64{}}
	if seconds := (g.last.at - g.before.at).Seconds(); seconds > 0 {
		s.Used.Mbps = float64(g.last.octets-g.before.octets) * 8 / 1e6 / seconds
		s.Used.PacketsPerSecond = float64(g.last.packets-g.before.packets) / seconds
	}
	for i, why := range GatewayDrops {
		s.Dropped[why] = g.dp.Dropped[i].Load()
	}
	return s
}
