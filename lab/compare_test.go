package lab

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestWayEdit: a way sets the SKU at both ends and FastPath at the MSEEs, and nothing
// else.
func TestWayEdit(t *testing.T) {
	topo, err := Load("fastpath")
	if err != nil {
		t.Fatal(err)
	}
	way := &Way{SKU: "ErGw2AZ", Bypass: false}
	for _, c := range []struct{ node, want string }{
		{"msee1", "expressRouteGatewayBypass: false"}, {"gw0", "name: ErGw2AZ"},
	} {
		n := topo.node(c.node)
		before, err := topo.DaemonConfig(n)
		if err != nil {
			t.Fatal(err)
		}
		after, err := way.edit(n.Kind, before)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(after), c.want) || !strings.Contains(string(after), "ErGw2AZ") || strings.Contains(string(after), "ErGw3AZ") {
			t.Errorf("%s: want %q and ErGw2AZ in\n%s", c.node, c.want, after)
		}
		own := &Way{SKU: "ErGw3AZ", Bypass: true} // as the topology has it
		if after, err = own.edit(n.Kind, before); err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		if err := errors.Join(yaml.Unmarshal(before, &a), yaml.Unmarshal(after, &b)); err != nil {
			t.Fatal(err)
		}
		x, _ := yaml.Marshal(a)
		if y, _ := yaml.Marshal(b); string(x) != string(y) {
			t.Errorf("%s: its own way changes it:\n%s\n%s", c.node, x, y)
		}
	}
}

// saying are devices of which each says the next of these.
type saying struct {
	Devices
	said []string
}

func (s *saying) FastPath(string, netip.Addr) (string, error) {
	next := s.said[0]
	if len(s.said) > 1 {
		s.said = s.said[1:]
	}
	return next, nil
}

// TestSettled: a host that is being looked for is waited for, and MSEEs that differ.
func TestSettled(t *testing.T) {
	topo, err := Load("fastpath")
	if err != nil {
		t.Fatal(err)
	}
	const host, hit = "miss: host 10.100.255.20 is not resolved", "hit: host 10.100.255.20 on core.200"
	devices := &saying{said: []string{"miss: not an endpoint that a gateway has told of", host, host, hit, hit}}
	c := &comparer{Comparison: topo.Compare, t: topo, o: Options{Devices: devices}}
	if got, err := c.settled(context.Background()); err != nil || got != hit {
		t.Errorf("%q, %v; want %q", got, err, hit)
	}
	devices.said = []string{host, host}
	ended, end := context.WithCancel(context.Background())
	end()
	if _, err := c.settled(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("when interrupted: %v", err)
	}
}

func TestWriteComparison(t *testing.T) {
	c := &Comparison{From: "onprem", To: netip.MustParseAddr("10.0.0.1")}
	rows := []Measured{
		{SKU: "ErGw1AZ", Bypass: true, FastPath: "miss: gateway SKU ErGw1AZ", Gbps: 0.7, P50: 0.1, P99: 2, GatewayPackets: 5},
		{SKU: "ErGw3AZ", Bypass: true, FastPath: "hit: host 10.0.0.9 on core.200", Gbps: 6.5, P50: 0.05, P99: 0.125},
	}
	var out strings.Builder
	if err := WriteComparison(&out, c, rows, "machine busy"); err != nil {
		t.Fatal(err)
	}
	const want = `
ONPREM → 10.0.0.1 BY ITS GATEWAY AND PAST IT
  gateway  bypass  TCP Gb/s  ping p50 ms  p99 ms  packets at gateway  FastPath
  ErGw1AZ  on      0.70      0.100        2.000   5                   miss: gateway SKU ErGw1AZ
  ErGw3AZ  on      6.50      0.050        0.125   0                   hit: host 10.0.0.9 on core.200
  machine busy
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	if err := WriteComparisonJSON(&out, "x", nil, ""); err != nil || !strings.Contains(out.String(), `"comparison": []`) || strings.Contains(out.String(), "doubt") {
		t.Errorf("JSON of nothing: %s, %v", &out, err)
	}
}

func TestMeasuredTake(t *testing.T) {
	var best Measured
	for _, m := range []Measured{
		{SKU: "a", Gbps: 2, P50: 3, P99: 9, GatewayPackets: 1},
		{SKU: "a", Gbps: 5, P50: 4, P99: 7, GatewayPackets: 1},
		{SKU: "a", FastPath: "hit", Gbps: 1, P50: 5, P99: 8, GatewayPackets: 1},
	} {
		best.take(m)
	}
	if want := (Measured{SKU: "a", FastPath: "hit", Gbps: 5, P50: 3, P99: 7, GatewayPackets: 3}); best != want {
		t.Errorf("%+v, want %+v", best, want)
	}
}

// TestDoubt: a busy machine is named by its load, or by what cannot be.
func TestDoubt(t *testing.T) {
	row := func(sku, fastPath string, gbps float64) Measured {
		return Measured{SKU: sku, Bypass: fastPath != "", FastPath: cmp.Or(fastPath, "miss: off"), Gbps: gbps}
	}
	off, on, slow := row("x", "", 5), row("x", "hit: host", 6), row("x", "hit: host", 4.9)
	for name, c := range map[string]struct {
		load float64
		rows []Measured
		want string
	}{
		"quiet":               {2, []Measured{off, on}, ""},
		"load":                {2.1, []Measured{off, on}, "machine busy, measure again: load 2.1 on 2 CPUs"},
		"on below off":        {0, []Measured{off, slow}, "machine busy, measure again: x is faster without FastPath"},
		"of different ones":   {0, []Measured{row("y", "", 9), slow}, ""},
		"FastPath is refused": {0, []Measured{off, row("x", "miss: SKU", 4)}, ""},
	} {
		if got := doubtOf(c.rows, c.load, 2); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
