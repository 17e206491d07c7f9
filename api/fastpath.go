package api

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"msee/edge"
)

// FastPath and the lookup of one address.

func (c *Client) FastPath() (v []edge.FastPathStatus, err error) {
	return v, c.call(http.MethodGet, "fastpath", &v)
}
func (c *Client) Endpoints(vrf string) (v []edge.EndpointStatus, err error) {
	return v, c.call(http.MethodGet, "endpoints?vrf="+url.QueryEscape(vrf), &v)
}
func (c *Client) Lookup(vrf string, addr netip.Addr) (v []edge.RouteLookup, err error) {
	return v, c.call(http.MethodGet, "lookup?vrf="+url.QueryEscape(vrf)+"&address="+url.QueryEscape(addr.String()), &v)
}

func handleFastPath(mux *http.ServeMux, e *edge.Edge) {
	mux.HandleFunc("GET /v1/fastpath", answer(func(*http.Request) (any, error) { return rows(e.FastPath()) }))
	mux.HandleFunc("GET /v1/endpoints", answer(func(r *http.Request) (any, error) {
		return rows(e.Endpoints(r.URL.Query().Get("vrf")))
	}))
	mux.HandleFunc("GET /v1/lookup", answer(func(r *http.Request) (any, error) {
		addr, err := netip.ParseAddr(r.URL.Query().Get("address"))
		if err != nil {
			return nil, err
		}
		return rows(e.Lookup(r.URL.Query().Get("vrf"), addr.Unmap()))
	}))
}

// ShowFastPath prints a line per VRF, and below why endpoints go by the gateway.
func ShowFastPath(w io.Writer, rows []edge.FastPathStatus) error {
	var out [][]string
	var notes []string
	for _, r := range rows {
		hit := ""
		if r.Hits+r.Misses > 0 {
			hit = fmt.Sprintf("%.1f%%", 100*float64(r.Hits)/float64(r.Hits+r.Misses))
		}
		out = append(out, []string{r.VRF, r.Port, strconv.Itoa(r.Programmed), strconv.Itoa(r.Endpoints - r.Programmed), strconv.Itoa(r.Hosts),
			count(r.Hits), count(r.Misses), hit, strconv.Itoa(r.PortCount), strconv.Itoa(r.Limit), strconv.Itoa(r.Limit - r.PortCount)})
		for _, c := range r.Connections {
			notes = append(notes, r.VRF+" connection "+c)
		}
		for _, why := range slices.Sorted(maps.Keys(r.Refused)) {
			notes = append(notes, fmt.Sprintf("%s %d by the gateway: %s", r.VRF, r.Refused[why], why))
		}
		if r.Alert != "" {
			notes = append(notes, "ALERT "+r.Alert)
		}
	}
	if err := table(w, "VRF PORT ENTRIES REFUSED HOSTS HITS MISSES HIT-RATE PORT-ENTRIES LIMIT HEADROOM", out); err != nil {
		return err
	}
	for _, n := range slices.Compact(notes) {
		if _, err := fmt.Fprintln(w, n); err != nil {
			return err
		}
	}
	return nil
}

// ShowEndpoints prints the endpoints, those in the exact match with a *.
func ShowEndpoints(w io.Writer, rows []edge.EndpointStatus) error {
	var out [][]string
	for _, r := range rows {
		mark, note := " ", r.Refused
		if r.Programmed {
			mark = "*"
			if !r.Resolved {
				note = "host not resolved"
			}
		}
		out = append(out, []string{mark, r.VRF, r.Addr.String(), string(r.Kind), r.Host.String(), r.Interface, note})
	}
	return table(w, " VRF ADDRESS KIND HOST INTERFACE NOTE", out)
}

// ShowLookup prints how an address is reached.
func ShowLookup(w io.Writer, rows []edge.RouteLookup) error {
	var out [][]string
	for _, r := range rows {
		out = append(out, []string{r.VRF, r.Addr.String(), r.FastPath, r.Prefix, r.Kind, strings.Join(r.Hops, ", ")})
	}
	return table(w, "VRF ADDRESS FASTPATH PREFIX KIND NEXT-HOPS", out)
}
