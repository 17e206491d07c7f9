package api

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"msee/edge"
)

func (c *Client) Gateways() (v []edge.GatewayStatus, err error) {
	return v, c.call(http.MethodGet, "gateways", &v)
}

// ShowGateways prints what each instance of a gateway passes and may, and what it has
// dropped.
func ShowGateways(w io.Writer, rows []edge.GatewayStatus) error {
	var out [][]string
	for _, g := range rows {
		sku := string(g.SKU)
		if g.ScaleUnits > 0 {
			sku += fmt.Sprintf(" × %d", g.ScaleUnits)
		}
		row := []string{g.VRF, g.State, g.Other, addresses(g.TakesOver), sku,
			fmt.Sprintf("%.0f/%.0f", g.Used.Mbps, g.Limits.Mbps),
			fmt.Sprintf("%.0f/%.0f", g.Used.PacketsPerSecond, g.Limits.PacketsPerSecond),
			fmt.Sprintf("%d/%d", g.Used.Flows, g.Limits.Flows), count(g.Packets), bytesOf(g.Bytes)}
		for _, why := range edge.GatewayDrops {
			row = append(row, count(g.Dropped[why]))
		}
		out = append(out, row)
	}
	return table(w, "VRF STATE OTHER TAKES-OVER SKU MBPS PPS FLOWS PACKETS BYTES DROP-"+strings.ToUpper(strings.Join(edge.GatewayDrops, " DROP-")), out)
}

// addresses lists them in one column.
func addresses(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

func (s *scrape) gateways(d source) error {
	rows, err := d.Gateways()
	for _, g := range rows {
		s.truth(gatewayInService, g.State == "in service", g.VRF)
		if g.Other != "" {
			s.truth(gatewayOther, g.Other == "up", g.VRF)
			put(s, gatewayTaken, len(g.TakesOver), g.VRF)
		}
		s.value(gatewayBandwidth, g.Limits.Mbps*125e3, g.VRF)
		s.value(gatewayPPS, g.Limits.PacketsPerSecond, g.VRF)
		put(s, gatewayFlowLimit, g.Limits.Flows, g.VRF)
		put(s, gatewayFlows, g.Used.Flows, g.VRF)
		put(s, gatewayPackets, g.Packets, g.VRF)
		put(s, gatewayBytes, g.Bytes, g.VRF)
		for _, why := range edge.GatewayDrops {
			put(s, gatewayDrops, g.Dropped[why], g.VRF, why)
		}
	}
	return err
}
