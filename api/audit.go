package api

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"msee/edge"
)

// Audits asks what the audits of FIB against RIB have found; with now set, after
// another one of every VRF.
func (c *Client) Audits(now bool) (v []edge.AuditStatus, err error) {
	if now {
		return v, c.call(http.MethodPost, "audit", &v)
	}
	return v, c.call(http.MethodGet, "audit", &v)
}

// ShowAudits prints them, and below what the last audit with findings found.
func ShowAudits(w io.Writer, rows []edge.AuditStatus, now time.Time) error {
	var out [][]string
	var below strings.Builder
	for _, a := range rows {
		ago := ""
		if !a.Last.IsZero() {
			ago = now.Sub(a.Last).Round(time.Second).String()
		}
		out = append(out, []string{a.VRF, strconv.Itoa(a.Audits), ago, a.Took.Round(10 * time.Microsecond).String(),
			strconv.Itoa(a.Prefixes), strconv.Itoa(a.Repaired)})
		for _, f := range a.Findings {
			fmt.Fprintf(&below, "%s: %s\n", a.VRF, f)
		}
	}
	if err := table(w, "VRF AUDITS LAST-AGO TOOK PREFIXES REPAIRED", out); err != nil {
		return err
	}
	_, err := io.WriteString(w, below.String())
	return err
}
