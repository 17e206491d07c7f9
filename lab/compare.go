package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"msee/lab/internal/strict"
)

// Comparison is what Up measures when the lab is there: the same host by different
// ways through, or past, its VNet's gateway.
type Comparison struct {
	strict.Pos
	From string     `yaml:"from"` // node
	To   netip.Addr `yaml:"to"`
	At   string     `yaml:"at"` // the node that has To
	Ways []Way      `yaml:"ways"`
}

// Way is one of them: the gateway's SKU, at its instances and on every connection of the
// MSEEs, and whether FastPath is asked for.
type Way struct {
	strict.Pos
	SKU    string `yaml:"sku"`
	Bypass bool   `yaml:"expressRouteGatewayBypass"`
}

// Measured is what a Way has shown, the best of its rounds.
type Measured struct {
	SKU    string `json:"sku"`
	Bypass bool   `json:"expressRouteGatewayBypass"`
	// FastPath is how the MSEEs reach the host: "hit: …", or "miss: …" and why.
	FastPath string `json:"fastPath"`
	// Gbps is TCP goodput of compareFlows flows, 10⁹ bit/s, to two decimals. What a
	// gateway's limit lets pass at once, 100 ms of it, is in it.
	Gbps float64 `json:"gbps"`
	P50  float64 `json:"pingP50Milliseconds"`
	P99  float64 `json:"pingP99Milliseconds"`
	// GatewayPackets are those to the VNet that the gateway's instances have had in all
	// rounds, by their own count, dropped ones included.
	GatewayPackets uint64 `json:"gatewayPackets"`
}

// Devices is what a comparison asks of msee daemons, each by its instance.
type Devices interface {
	Reload(instance string) error
	// FastPath says how an MSEE reaches an address: "hit: …" or "miss: …".
	FastPath(instance string, to netip.Addr) (string, error)
	// GatewayPackets counts the packets to the VNet that a gateway has had.
	GatewayPackets(instance string) (uint64, error)
}

const (
	compareRounds  = 3  // each of all ways, as what else the machine does comes and goes
	compareSeconds = 1  // of a round
	compareFlows   = 16 // so that both instances of the gateway get some
	comparePings   = 170
	settleTime     = 10 * time.Second // for hosts to be resolved
)

// Compare measures a lab's ways in turn, and leaves its configuration as it was. The
// doubt says why the machine was too busy for that, if it was.
func Compare(ctx context.Context, lab string, o Options) (rows []Measured, doubt string, err error) {
	st, err := loadState(lab)
	if err != nil {
		return nil, "", err
	}
	t, err := st.loadTopology()
	if err != nil || t.Compare == nil {
		return nil, "", err
	}
	unlock, err := lockLab(lab)
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	c := &comparer{lab: lab, t: t, Comparison: t.Compare, o: o}
	defer func() { err = errors.Join(err, c.configure(nil)) }()
	progress := newProgress(o.Progress)
	load := loadAverage() // without the measuring
	rows = make([]Measured, len(c.Ways))
	for round := range compareRounds {
		for i := range c.Ways {
			way := &c.Ways[i]
			m, err := c.measure(ctx, way)
			if err != nil {
				return nil, "", fmt.Errorf("measure gateway %s, expressRouteGatewayBypass %v: %w", way.SKU, way.Bypass, err)
			}
			progress.step("measured gateway %s, expressRouteGatewayBypass %v, %d of %d", way.SKU, way.Bypass, round+1, compareRounds)
			rows[i].take(m)
		}
	}
	return rows, doubtOf(rows, load, runtime.NumCPU()), nil
}

// take makes m one of the rounds that best is of.
func (best *Measured) take(m Measured) {
	if best.SKU != "" {
		m.Gbps = max(m.Gbps, best.Gbps)
		m.P50, m.P99 = min(m.P50, best.P50), min(m.P99, best.P99)
		m.GatewayPackets += best.GatewayPackets
	}
	*best = m
}

// loadAverage is the machine's of the last minute, processes; 0 if it does not say.
func loadAverage() float64 {
	data, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(data), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// doubtOf returns why rows are not to be relied on: others were at work, or FastPath comes
// out below the gateway that it passes; "" if neither.
func doubtOf(rows []Measured, load float64, cpus int) string {
	const again = "machine busy, measure again: "
	if load > float64(cpus) {
		return fmt.Sprintf("%sload %.1f on %d CPUs", again, load, cpus)
	}
	for _, on := range rows {
		for _, off := range rows {
			if on.SKU == off.SKU && strings.HasPrefix(on.FastPath, "hit") && !off.Bypass && on.Gbps < off.Gbps {
				return fmt.Sprintf("%s%s is faster without FastPath", again, on.SKU)
			}
		}
	}
	return ""
}

type comparer struct {
	*Comparison
	lab string
	t   *Topology
	o   Options
}

func (c *comparer) measure(ctx context.Context, way *Way) (m Measured, err error) {
	m.SKU, m.Bypass = way.SKU, way.Bypass
	if err = c.configure(way); err != nil {
		return m, err
	}
	if m.FastPath, err = c.settled(ctx); err != nil {
		return m, err
	}
	if _, err = ping(ctx, c.lab, c.t.node(c.From), c.To); err != nil {
		return m, fmt.Errorf("ping: %w", err)
	}
	before, err := c.gatewayPackets()
	if err != nil {
		return m, err
	}
	if m.P50, m.P99, err = c.latency(ctx); err != nil {
		return m, err
	}
	probe := &Probe{From: c.From, To: c.To, At: c.At}
	if m.Gbps, err = iperf3Run(ctx, c.lab, c.t, probe, compareSeconds, false, "-P", strconv.Itoa(compareFlows)); err != nil {
		return m, err
	}
	m.Gbps = math.Round(100*m.Gbps) / 100
	after, err := c.gatewayPackets()
	m.GatewayPackets = after - before
	return m, err
}

// configure gives all devices the configuration of a way, or the topology's own back.
func (c *comparer) configure(way *Way) error {
	var failed error
	for n := range c.devices {
		text, err := c.t.DaemonConfig(n)
		if err == nil && way != nil {
			text, err = way.edit(n.Kind, text)
		}
		if err == nil {
			err = os.WriteFile(configFile(c.lab, n), text, 0o600)
		}
		if err == nil {
			err = c.o.Devices.Reload(instance(c.lab, n.Name))
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("configure %s: %w", n.Name, err))
		}
	}
	return failed
}

// devices yields the msee and gateway nodes.
func (c *comparer) devices(yield func(*Node) bool) {
	for i := range c.t.Nodes {
		if n := &c.t.Nodes[i]; (n.Kind == KindMSEE || n.Kind == KindGateway) && !yield(n) {
			return
		}
	}
}

// edit changes a device's configuration to that of the way.
func (way *Way) edit(kind Kind, text []byte) ([]byte, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	sku := map[string]any{"name": way.SKU}
	if g, ok := doc["virtualNetworkGateway"].(map[string]any); ok && kind == KindGateway {
		g["sku"] = sku
	}
	if all, ok := doc["connections"].([]any); ok && kind == KindMSEE {
		for _, one := range all {
			if m, ok := one.(map[string]any); ok {
				m["virtualNetworkGatewaySku"], m["expressRouteGatewayBypass"] = sku, way.Bypass
			}
		}
	}
	return yaml.Marshal(doc)
}

// settled waits until the MSEEs know how to reach the host, and returns what they say.
func (c *comparer) settled(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(settleTime); ; {
		var said []string
		for n := range c.devices {
			if n.Kind != KindMSEE {
				continue
			}
			s, err := c.o.Devices.FastPath(instance(c.lab, n.Name), c.To)
			if err != nil {
				return "", fmt.Errorf("%s: %w", n.Name, err)
			}
			said = append(said, s)
		}
		said = slices.Compact(said)
		waits := slices.ContainsFunc(said, func(s string) bool {
			return strings.HasPrefix(s, "miss: host") || strings.HasPrefix(s, "miss: not an endpoint")
		})
		if len(said) == 1 && !waits || time.Now().After(deadline) {
			return strings.Join(said, "; "), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *comparer) gatewayPackets() (sum uint64, err error) {
	for n := range c.devices {
		if n.Kind == KindGateway {
			packets, err := c.o.Devices.GatewayPackets(instance(c.lab, n.Name))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", n.Name, err)
			}
			sum += packets
		}
	}
	return sum, nil
}

var pingTime = regexp.MustCompile(`time=([\d.]+) ms`)

// latency returns the median and the 99th percentile of ping's round trips on the idle
// lab, ms.
func (c *comparer) latency(ctx context.Context) (p50, p99 float64, err error) {
	out, err := output(ctx, c.lab, c.t.node(c.From), "ping", "-n", "-c", strconv.Itoa(comparePings), "-i", "0.002", "-W", "1", c.To.String())
	var times []float64
	for _, m := range pingTime.FindAllSubmatch(out, -1) {
		ms, _ := strconv.ParseFloat(string(m[1]), 64) // the expression has seen to it
		times = append(times, ms)
	}
	if len(times) < comparePings*9/10 {
		return 0, 0, cmpOr(err, fmt.Errorf("ping: %d of %d answered", len(times), comparePings))
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100], nil
}

// WriteComparison prints what [Compare] returns as a table.
func WriteComparison(w io.Writer, c *Comparison, rows []Measured, doubt string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%s → %s BY ITS GATEWAY AND PAST IT\n", strings.ToUpper(c.From), c.To)
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "  gateway\tbypass\tTCP Gb/s\tping p50 ms\tp99 ms\tpackets at gateway\tFastPath\n")
	for _, m := range rows {
		bypass := "off"
		if m.Bypass {
			bypass = "on"
		}
		fmt.Fprintf(tab, "  %s\t%s\t%.2f\t%.3f\t%.3f\t%d\t%s\n", m.SKU, bypass, m.Gbps, m.P50, m.P99, m.GatewayPackets, m.FastPath)
	}
	tab.Flush()
	if doubt != "" {
		fmt.Fprintf(&b, "  %s\n", doubt)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteComparisonJSON prints the same for scripts.
func WriteComparisonJSON(w io.Writer, lab string, rows []Measured, doubt string) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(struct {
		Lab        string     `json:"lab"`
		Comparison []Measured `json:"comparison"`
		Doubt      string     `json:"doubt,omitempty"`
	}{lab, append([]Measured{}, rows...), doubt})
}
