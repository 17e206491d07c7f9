package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
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

// Measured is what a Way has shown.
type Measured struct {
	SKU    string `json:"sku"`
	Bypass bool   `json:"expressRouteGatewayBypass"`
	// FastPath is how the MSEEs reach the host: "hit: …", or "miss: …" and why.
	FastPath string  `json:"fastPath"`
	Gbps     float64 `json:"gbps"` // TCP goodput of compareFlows flows, 10⁹ bit/s
	P50      float64 `json:"pingP50Milliseconds"`
	P99      float64 `json:"pingP99Milliseconds"`
	// GatewayPackets are those to the VNet that the gateway's instances have had, by
	// their own count, dropped ones included.
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
	compareSeconds = 3
	compareFlows   = 16 // so that both instances of the gateway get some
	comparePings   = 500
	settleTime     = 10 * time.Second // for hosts to be resolved
)

// Compare measures a lab's ways in turn, and leaves its configuration as it was.
func Compare(ctx context.Context, lab string, o Options) (rows []Measured, err error) {
	st, err := loadState(lab)
	if err != nil {
		return nil, err
	}
	t, err := st.loadTopology()
	if err != nil || t.Compare == nil {
		return nil, err
	}
	unlock, err := lockLab(lab)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := &comparer{lab: lab, t: t, Comparison: t.Compare, o: o}
	defer func() { err = errors.Join(err, c.configure(nil)) }()
	progress := newProgress(o.Progress)
	for i := range c.Ways {
		way := &c.Ways[i]
		m, err := c.measure(ctx, way)
		if err != nil {
			return nil, fmt.Errorf("measure gateway %s, expressRouteGatewayBypass %v: %w", way.SKU, way.Bypass, err)
		}
		progress.step("measured gateway %s, expressRouteGatewayBypass %v", way.SKU, way.Bypass)
		rows = append(rows, m)
	}
	return rows, nil
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

// WriteComparison prints what was measured as a table.
func WriteComparison(w io.Writer, c *Comparison, rows []Measured) error {
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
	_, err := w.Write(b.Bytes())
	return err
}

// WriteComparisonJSON prints the same for scripts.
func WriteComparisonJSON(w io.Writer, lab string, rows []Measured) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(struct {
		Lab        string     `json:"lab"`
		Comparison []Measured `json:"comparison"`
	}{lab, append([]Measured{}, rows...)})
}
