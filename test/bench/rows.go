package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// row is one line of the results: what is measured, and against what.
type row struct {
	name, unit string
	// smaller says that a smaller value is better. The ratio is turned over
	// then, so that a larger one always is.
	smaller bool
	// baseline names what the subject is compared with. If target is not 0, it
	// is that value, and nothing is measured for it.
	baseline string
	target   float64
	// opponent is who forwards for the baseline, "" for the kernel.
	opponent forwarder
	// without says that the MSEE is stopped during the row.
	without bool
	// bed is the topology (testdata/BED.yaml) that the row needs, "" for none.
	bed string
	// measure makes one run.
	measure func(ctx context.Context, b *bench, s side) (reading, error)
}

// side is which of the two a run measures.
type side int

const (
	subject side = iota
	baseline
)

// reading is what one run measured.
type reading struct {
	value float64 // in the row's unit
	// extra is what explains the value; its keys go into the results.
	extra map[string]float64
}

// kernelForwarding is the Linux kernel's own forwarding between untagged
// addresses on the same links: no tags to handle is an advantage it keeps.
const kernelForwarding = "kernel_forwarding"

// rows returns all rows in the order of measurement: those of a bed together.
func rows(peers bool) []*row {
	tcpRow := func(name, bed string, flow tcp) *row {
		return &row{name: name, unit: "Gb/s", baseline: kernelForwarding, bed: bed, measure: flow.measure}
	}
	lookup := func(name, pkg, bench string) *row {
		return &row{name: name, unit: "ns", smaller: true, baseline: "bart_table",
			measure: goBench{pkg: pkg, bench: bench, unit: "ns/op", sides: [2]string{"fib", "bart_table"}}.measure}
	}
	list := slices.Concat(fastPathRows(), bfdRows(), []*row{
		{name: "pipeline_dot1q_10k_ns", unit: "ns", smaller: true, baseline: "target", target: 50,
			measure: goBench{pkg: "msee/dataplane", bench: "PipelineDot1Q10k", unit: "ns/frame"}.measure},
		{name: "pipeline_dot1q_10k_policed_ns", unit: "ns", smaller: true, baseline: "target", target: 65,
			measure: goBench{pkg: "msee/dataplane", bench: "PipelineDot1Q10kPoliced", unit: "ns/frame"}.measure},
		{name: "policer_error_percent", unit: "%", smaller: true, baseline: "target", target: 1,
			measure: goBench{pkg: "msee/dataplane", bench: "PolicerError", unit: "percent"}.measure},
		lookup("lookup4_10k_ns", "msee/dataplane/fib", "Lookup4/10k"),
		lookup("lookup4_200k_ns", "msee/dataplane/fib", "Lookup4/200k"),
		lookup("lookup4_1m_ns", "msee/dataplane/fib", "Lookup4/1m"),
		lookup("lookup6_10k_ns", "msee/dataplane/fib", "Lookup6/10k"),

		tcpRow("tcp1_dot1q_fwd", "dot1q", tcp{flows: 1}),
		tcpRow("tcp1_dot1q_rev", "dot1q", tcp{flows: 1, reverse: true}),
		tcpRow("tcp4_dot1q_fwd", "dot1q", tcp{flows: 4}),
		tcpRow("tcp4_dot1q_rev", "dot1q", tcp{flows: 4, reverse: true}),
		{name: "udp1400_dot1q", unit: "Mpps", baseline: kernelForwarding, bed: "dot1q", measure: udp{octets: 1400}.measure},
		{name: "udp64_dot1q", unit: "Mpps", baseline: kernelForwarding, bed: "bound", measure: udpFlood{octets: 64, flows: 1}.measure},
		{name: "udp64_flows_dot1q", unit: "Mpps", baseline: kernelForwarding, bed: "bound", measure: udpFlood{octets: 64, flows: floodFlows}.measure},
		{name: "sender_steady_percent", unit: "%", baseline: "target", target: 90, without: true, bed: "bound", measure: udpFlood{octets: 64, flows: 1}.steady},
		{name: "udp512_dot1q", unit: "Mpps", baseline: kernelForwarding, bed: "bound", measure: udpFlood{octets: 512, flows: 1}.measure},
		{name: "udp64_overload", unit: "%", baseline: "target", target: 95, bed: "bound", measure: udpFlood{octets: 64, flows: floodFlows}.overload},
		{name: "ping_idle_p50", unit: "µs", smaller: true, baseline: kernelForwarding, bed: "dot1q", measure: pingIdle},
		{name: "ping_load_p99", unit: "µs", smaller: true, baseline: kernelForwarding, bed: "dot1q", measure: pingLoad},
		{name: "idle_cpu_percent", unit: "%", smaller: true, baseline: "target", target: 2, bed: "dot1q", measure: idleCPU},

		tcpRow("tcp1_qinq_fwd", "qinq", tcp{flows: 1}),
		tcpRow("tcp1_qinq_rev", "qinq", tcp{flows: 1, reverse: true}),
		tcpRow("tcp4_qinq_fwd", "qinq", tcp{flows: 4}),

		tcpRow("tcp1_untagged_fwd", untaggedBed, tcp{flows: 1}),
		tcpRow("tcp1_untagged_rev", untaggedBed, tcp{flows: 1, reverse: true}),
		tcpRow("tcp4_untagged_fwd", untaggedBed, tcp{flows: 4}),

		// The same with ports of type xdp.
		{name: "udp64_dot1q_xdp", unit: "Mpps", baseline: kernelForwarding, bed: "bound_xdp", measure: udpFlood{octets: 64, flows: 1}.measure},
		{name: "udp64_flows_dot1q_xdp", unit: "Mpps", baseline: kernelForwarding, bed: "bound_xdp", measure: udpFlood{octets: 64, flows: floodFlows}.measure},
		{name: "udp64_overload_xdp", unit: "%", baseline: "target", target: 95, bed: "bound_xdp", measure: udpFlood{octets: 64, flows: floodFlows}.overload},
		tcpRow("tcp1_dot1q_fwd_xdp", "dot1q_xdp", tcp{flows: 1}),
		tcpRow("tcp1_dot1q_rev_xdp", "dot1q_xdp", tcp{flows: 1, reverse: true}),
		tcpRow("tcp4_dot1q_fwd_xdp", "dot1q_xdp", tcp{flows: 4}),
		{name: "ping_idle_p50_xdp", unit: "µs", smaller: true, baseline: kernelForwarding, bed: "dot1q_xdp", measure: pingIdle},
		{name: "ping_load_p99_xdp", unit: "µs", smaller: true, baseline: kernelForwarding, bed: "dot1q_xdp", measure: pingLoad},
	}, tapRows(), vxlanRows(), bgpRows(), macsecRows())
	more := peerRows(list, copierRows)
	if peers {
		more = append(more, peerRows(list, otherRows)...)
	}
	return append(list, more...)
}

// opponents are measured in rows of their own, which end in suffix, beside those
// of the kernel.
type opponents struct {
	suffix string
	peer   forwarder
	rows   *regexp.Regexp
}

var (
	copierRows = []opponents{{"_copy", packetCopy, regexp.MustCompile(`^(tcp._dot1q_fwd|tcp1_dot1q_rev|tcp1_untagged_(fwd|rev)|udp64_dot1q|ping_idle_p50|ping_load_p99)$`)}}
	otherRows  = []opponents{
		{"_ovs", ovsTSO, regexp.MustCompile(`^(tcp._dot1q_(fwd|rev)|udp1400_dot1q|ping_idle_p50)$`)},
		{"_ovs", ovsXDP, regexp.MustCompile(`^udp64(_flows)?_dot1q(_xdp)?$`)},
		{"_dpdk", dpdkXDP, regexp.MustCompile(`^udp64(_flows)?_dot1q(_xdp)?$`)},
	}
)

// peerRows are those of list that opponents are measured for too.
func peerRows(list []*row, against []opponents) (more []*row) {
	for _, p := range against {
		for _, r := range list {
			if p.rows.MatchString(r.name) {
				copied := *r
				copied.name, copied.baseline, copied.opponent = r.name+p.suffix, string(p.peer), p.peer
				more = append(more, &copied)
			}
		}
	}
	return more
}

// againstOther are those of list that a router is in, with the msee of -against for
// the baseline.
func againstOther(list []*row) (against []*row) {
	for _, r := range list {
		if r.bed != "" && r.opponent == "" && !r.without {
			copied := *r
			copied.baseline, copied.opponent, copied.target = string(otherMSEE), otherMSEE, 0
			against = append(against, &copied)
		}
	}
	return against
}

// eachBed are those of list that are the first of their bed and opponent, or of
// their kind, which a name begins with. Rows without a bed are not among them.
func eachBed(list []*row) (first []*row) {
	seen := map[string]bool{}
	for _, r := range list {
		kind := r.name[:strings.IndexAny(r.name, "_0123456789")]
		on := r.bed + " " + string(r.opponent)
		if r.bed != "" && (!seen[on] || !seen[kind]) {
			first = append(first, r)
			seen[on], seen[kind] = true, true
		}
	}
	return first
}

func rowNames() []string {
	var names []string
	for _, r := range rows(true) {
		names = append(names, r.name)
	}
	return names
}

// sides are those of a row that are measured.
func (r *row) sides() []side {
	if r.target != 0 {
		return []side{subject}
	}
	return []side{subject, baseline}
}

// label names a side.
func (r *row) label(s side) string {
	if s == subject {
		return "msee"
	}
	return r.baseline
}

// ratio compares values so that larger is better for us; 0 if that says nothing.
func (r *row) ratio(ours, theirs float64) float64 {
	if r.smaller {
		ours, theirs = theirs, ours
	}
	if theirs == 0 {
		return 0
	}
	return ours / theirs
}
