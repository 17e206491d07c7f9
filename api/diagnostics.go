package api

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"msee/edge"
)

// Azure's diagnostics of a peering. The answers have Azure's shape: a list
// stands under "value".
//
//	GET /v1/circuits/{circuit}/peerings/{peering}/routeTables/{path}[?why=true]
//	    …/routeTablesSummary/{path}[?why=true]  …/arpTables/{path}  …/stats
//	GET /v1/services /v1/publicPrefixes

// List is a page of Azure's lists; there is only one.
type List[T any] struct {
	Value []T `json:"value"`
}

func list[T any](r []T, err error) (List[T], error) {
	r, err = rows(r, err)
	return List[T]{r}, err
}

func handleDiagnostics(mux *http.ServeMux, e *edge.Edge) {
	const peering = "GET /v1/circuits/{circuit}/peerings/{peering}/"
	why := func(r *http.Request) bool { return r.URL.Query().Get("why") == "true" }
	mux.HandleFunc(peering+"routeTables/{path}", answer(func(r *http.Request) (any, error) {
		return list(e.RouteTable(r.PathValue("circuit"), r.PathValue("peering"), r.PathValue("path"), why(r)))
	}))
	mux.HandleFunc(peering+"routeTablesSummary/{path}", answer(func(r *http.Request) (any, error) {
		return list(e.RouteTableSummary(r.PathValue("circuit"), r.PathValue("peering"), r.PathValue("path"), why(r)))
	}))
	mux.HandleFunc(peering+"arpTables/{path}", answer(func(r *http.Request) (any, error) {
		return list(e.ARPTable(r.PathValue("circuit"), r.PathValue("peering"), r.PathValue("path")))
	}))
	mux.HandleFunc(peering+"stats", answer(func(r *http.Request) (any, error) {
		return e.Stats(r.PathValue("circuit"), r.PathValue("peering"))
	}))
	mux.HandleFunc("GET /v1/services", answer(func(*http.Request) (any, error) { return rows(e.Services()) }))
	mux.HandleFunc("GET /v1/publicPrefixes", answer(func(*http.Request) (any, error) { return rows(e.PublicPrefixes()) }))
}

// Peering names a peering, and one of the two paths to it.
type Peering struct {
	Circuit, Type string
	Path          string // primary or secondary
}

func (p Peering) resource(what string) string {
	return "circuits/" + url.PathEscape(p.Circuit) + "/peerings/" + url.PathEscape(p.Type) + "/" + what
}

func (c *Client) RouteTable(p Peering, why bool) (v List[edge.RouteTableRow], err error) {
	return v, c.call(http.MethodGet, p.resource("routeTables/"+p.Path+"?why="+strconv.FormatBool(why)), &v)
}
func (c *Client) RouteTableSummary(p Peering, why bool) (v List[edge.SummaryRow], err error) {
	return v, c.call(http.MethodGet, p.resource("routeTablesSummary/"+p.Path+"?why="+strconv.FormatBool(why)), &v)
}
func (c *Client) ARPTable(p Peering) (v List[edge.ARPTableRow], err error) {
	return v, c.call(http.MethodGet, p.resource("arpTables/"+p.Path), &v)
}
func (c *Client) Stats(p Peering) (v edge.PeeringStats, err error) {
	return v, c.call(http.MethodGet, p.resource("stats"), &v)
}
func (c *Client) Services() (v []edge.ServiceStatus, err error) {
	return v, c.call(http.MethodGet, "services", &v)
}
func (c *Client) PublicPrefixes() (v []edge.PublicPrefixes, err error) {
	return v, c.call(http.MethodGet, "publicPrefixes", &v)
}

// ShowRouteTable prints Azure's columns, and what it never shows if the rows
// have it.
func ShowRouteTable(w io.Writer, l List[edge.RouteTableRow]) error {
	header := "Network NextHop LocPrf Weight Path"
	var out [][]string
	for _, r := range l.Value {
		row := []string{r.Network, r.NextHop, r.LocPrf, strconv.Itoa(r.Weight), r.Path}
		if d := r.Detail; d != nil {
			header = "Network NextHop LocPrf Weight Path STATE WHY BEHIND"
			why := d.Why
			if !d.Resolved && d.Behind != "Microsoft's services" && d.State != "refused" {
				why += "; next hop not resolved"
			}
			row = append(row, string(d.State), why, d.Behind)
		}
		out = append(out, row)
	}
	return table(w, header, out)
}

// ShowRouteTableSummary prints Azure's columns, and what it never shows if the
// rows have it.
func ShowRouteTableSummary(w io.Writer, l List[edge.SummaryRow]) error {
	header := "Neighbor V AS UpDown StatePfxRcd"
	var out [][]string
	for _, r := range l.Value {
		row := []string{r.Neighbor, strconv.Itoa(r.V), strconv.FormatUint(uint64(r.AS), 10), r.UpDown, r.StatePfxRcd}
		if d := r.Detail; d != nil {
			header = "Neighbor V AS UpDown StatePfxRcd REFUSED SENT LIMIT HEADROOM BEHIND REASON"
			headroom := ""
			if d.Prefixes.Limit > 0 {
				headroom = strconv.Itoa(d.Prefixes.Headroom)
			}
			row = append(row, strconv.Itoa(d.Refused), strconv.Itoa(d.Advertised), number(d.Prefixes.Limit), headroom, d.Behind, d.Reason)
		}
		out = append(out, row)
	}
	return table(w, header, out)
}

// ShowARPTable prints Azure's columns.
func ShowARPTable(w io.Writer, l List[edge.ARPTableRow]) error {
	var out [][]string
	for _, r := range l.Value {
		out = append(out, []string{strconv.Itoa(r.Age), r.Interface, r.IPAddress, r.MACAddress})
	}
	return table(w, "Age InterfaceProperty IpAddress MacAddress", out)
}

// ShowStats prints Azure's columns.
func ShowStats(w io.Writer, s edge.PeeringStats) error {
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return table(w, "PrimaryBytesIn PrimaryBytesOut SecondaryBytesIn SecondaryBytesOut",
		[][]string{{text(s.PrimaryBytesIn), text(s.PrimaryBytesOut), text(s.SecondaryBytesIn), text(s.SecondaryBytesOut)}})
}

// ShowServices prints what each Microsoft peering announces, and why not more.
func ShowServices(w io.Writer, services []edge.ServiceStatus) error {
	var out [][]string
	for _, s := range services {
		out = append(out, []string{s.VRF, s.Community.String(), s.Name, strconv.Itoa(s.Prefixes), strconv.Itoa(s.Advertised), s.Why})
	}
	return table(w, "VRF COMMUNITY NAME PREFIXES ADVERTISED WHY", out)
}

// ShowPublicPrefixes prints the validation states.
func ShowPublicPrefixes(w io.Writer, peerings []edge.PublicPrefixes) error {
	var out [][]string
	for _, p := range peerings {
		for _, x := range p.Prefixes {
			out = append(out, []string{p.VRF, x.Prefix.String(), string(x.State)})
		}
		out = append(out, []string{p.VRF, fmt.Sprintf("= all %d", len(p.Prefixes)), string(p.State)})
	}
	return table(w, "VRF PREFIX VALIDATION-STATE", out)
}

// ShowLimits prints how near each session is to its limit.
func ShowLimits(w io.Writer, sessions []edge.SessionStatus) error {
	var out [][]string
	for _, s := range sessions {
		l := s.Prefixes
		if l.Limit == 0 {
			out = append(out, []string{s.VRF, s.Peer.String(), strconv.Itoa(s.Received), "none", "", "", string(l.State), strconv.Itoa(l.Exceeded)})
			continue
		}
		out = append(out, []string{s.VRF, s.Peer.String(), strconv.Itoa(s.Received), strconv.Itoa(l.Limit), strconv.Itoa(l.Headroom),
			fmt.Sprintf("%d%%", 100*s.Received/l.Limit), string(l.State), strconv.Itoa(l.Exceeded)})
	}
	return table(w, "VRF NEIGHBOR PREFIXES LIMIT HEADROOM USED STATE EXCEEDED", out)
}
