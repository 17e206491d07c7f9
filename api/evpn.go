package api

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"msee/edge"
)

func (c *Client) EVPN() (v []edge.EVPNStatus, err error) {
	return v, c.call(http.MethodGet, "evpn", &v)
}

// ShowEVPN prints a line per route; the best for its station or address is marked.
func ShowEVPN(w io.Writer, routes []edge.EVPNStatus) error {
	var out [][]string
	for _, r := range routes {
		state := ""
		if r.Best {
			state = "best"
		}
		if r.Stale {
			state = strings.TrimPrefix(state+", stale", ", ")
		}
		sequence := strconv.FormatUint(uint64(r.Sequence), 10)
		if r.Sticky {
			sequence = "sticky"
		}
		out = append(out, []string{strconv.FormatUint(uint64(r.VNI), 10), strconv.Itoa(int(r.Type)), r.MAC, r.Prefix, r.VTEP.String(),
			r.Destination, sequence, r.RD, strings.Join(r.Targets, " "), r.Session, state})
	}
	return table(w, "VNI TYPE MAC PREFIX VTEP TO-MAC SEQUENCE RD TARGETS SESSION STATE", out)
}
