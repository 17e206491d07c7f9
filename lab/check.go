package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"msee/lab/frr"
)

// Report is what Check found out.
type Report struct {
	Lab      string         `json:"lab"`
	OK       bool           `json:"ok"`
	Sessions []SessionState `json:"sessions"`
	Tables   []TableState   `json:"tables"`
	Missing  []string       `json:"missing"` // what keeps the lab from being converged
	Checks   []CheckResult  `json:"checks"`
}

// CheckResult is how one check of the topology went.
type CheckResult struct {
	Type   CheckType  `json:"type"`
	From   string     `json:"from"`
	To     netip.Addr `json:"to"`
	OK     bool       `json:"ok"`
	Detail string     `json:"detail"` // what was measured, or what went wrong
	// Gbps is iperf3's TCP goodput, 10⁹ bit/s: From to To, and back.
	Gbps []float64 `json:"gbps,omitempty"`
}

// Check runs the checks of a lab's topology and writes tables of all sessions,
// routes and results, or a Report as JSON. It fails with ErrCheckFailed if
// anything is not as it should be.
func Check(ctx context.Context, lab string, w io.Writer, asJSON bool, o Options) error {
	st, err := loadState(lab)
	if err != nil {
		return err
	}
	if err := requireRoot(); err != nil {
		return err
	}
	t, err := st.loadTopology()
	if err != nil {
		return err
	}
	s := takeSurvey(ctx, st, t, &o)
	r := &Report{Lab: lab, Sessions: s.Sessions, Tables: s.Tables, Missing: append(append([]string{}, s.Dead...), s.Missing...)}
	if !asJSON {
		r.writeState(w)
		fmt.Fprintln(w, "\nCHECKS")
	}
	r.OK = len(r.Missing) == 0
	for i := range t.Checks {
		result := runCheck(ctx, lab, t, &t.Checks[i])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.OK = r.OK && result.OK
		r.Checks = append(r.Checks, result)
		if !asJSON {
			result.write(w) // at once: iperf3 takes its time
		}
	}
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		if err := out.Encode(r); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	} else {
		writeHints(w, lab, t)
	}
	if !r.OK {
		return fmt.Errorf("lab %s: %w", lab, ErrCheckFailed)
	}
	return nil
}

func (r *Report) writeState(w io.Writer) {
	fmt.Fprintln(w, "BGP SESSIONS")
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "  node\tVRF\tpeer\tAS\tstate\tup\treceived\tsent\t")
	for _, s := range r.Sessions {
		state, up := s.State, "-"
		if s.State == frr.Established {
			up = s.Up.Round(time.Second).String()
		}
		fmt.Fprintf(tab, "  %s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t\n",
			s.Node, orDash(s.VRF), s.Peer, s.PeerAS, state, up, s.Received, s.Sent)
	}
	tab.Flush()
	fmt.Fprintln(w, "\nPREFIXES")
	fmt.Fprintln(tab, "  node\tVRF\tIPv4\tIPv6\t")
	for _, t := range r.Tables {
		fmt.Fprintf(tab, "  %s\t%s\t%d\t%d\t\n", t.Node, orDash(t.VRF), t.IPv4, t.IPv6)
	}
	tab.Flush()
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "\nMISSING\n  %s\n", strings.Join(r.Missing, "\n  "))
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *CheckResult) write(w io.Writer) {
	mark := "ok  "
	if !c.OK {
		mark = "FAIL"
	}
	fmt.Fprintf(w, "  %s  %-10s  %-29s  %s\n", mark, c.Type, c.From+" → "+c.To.String(), c.Detail)
}

// writeHints says how to look further, with nodes that the lab has.
func writeHints(w io.Writer, lab string, t *Topology) {
	first := map[Kind]string{}
	for i := range t.Nodes {
		if n := &t.Nodes[i]; first[n.Kind] == "" {
			first[n.Kind] = n.Name
		}
	}
	fmt.Fprintln(w, "\nLOOK FURTHER")
	option := ""
	if lab != DefaultTopology {
		option = "--lab " + lab + " "
	}
	print := func(command, what string) { fmt.Fprintf(w, "  %-66s %s\n", command, what) }
	hint := func(kind Kind, command, what string) {
		if node := first[kind]; node != "" {
			print(strings.NewReplacer("MSEE", os.Args[0], "NODE", node, "LAB", lab, "OPT ", option).Replace(command), what)
		}
	}
	hint(KindFRR, "MSEE lab exec OPT NODE -- vtysh -c 'show bgp summary'", "the customer's side")
	hint(KindMSEE, "MSEE show bgp -d LAB.NODE", "the MSEE's side")
	hint(KindFRR, "MSEE lab exec OPT NODE -- tcpdump -eni link1", "tags on the wire")
	hint(KindHost, "MSEE lab exec OPT NODE -- bash", "a shell on a host")
	print(os.Args[0]+" lab diagram "+t.Name, "what there is")
	print("tail -F "+labDir(lab)+"/log/*", "all daemons' logs")
	print(os.Args[0]+" lab down "+lab, "remove all of it")
}
