package api

import (
	"fmt"
	"io"

	"msee/edge"
)

// ShowMeters prints what each peering has carried, and what its circuit's
// policers have dropped.
func ShowMeters(w io.Writer, rows []edge.MeterStatus) error {
	var out [][]string
	for _, m := range rows {
		limit := ""
		switch {
		case m.Direct:
			limit = fmt.Sprintf("%d (Direct)", m.LimitInMbps)
		case m.LimitInMbps > 0:
			limit = number(m.LimitInMbps)
		}
		out = append(out, []string{m.Circuit, m.Peering, m.Direction, count(m.Packets), bytesOf(m.Bytes), limit,
			count(m.DroppedPackets), bytesOf(m.DroppedBytes)})
	}
	return table(w, "CIRCUIT PEERING DIRECTION PACKETS BYTES LIMIT-MBPS CIRCUIT-DROPS CIRCUIT-DROPPED", out)
}
