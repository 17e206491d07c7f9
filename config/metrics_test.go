package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestMetrics(t *testing.T) {
	for _, name := range []string{"edge.yaml", "gateway.yaml"} {
		file := readFile(t, name)
		without := mustParse(t, file)
		if without.Metrics.IsValid() {
			t.Errorf("%s: metrics are served at %v by default", name, without.Metrics)
		}
		with := mustParse(t, file+"metrics: {listenAddress: \"[::1]:9100\"}\n")
		if want := netip.MustParseAddrPort("[::1]:9100"); with.Metrics != want {
			t.Errorf("%s: metrics at %v, want %v", name, with.Metrics, want)
		}
		got := Diff(without, with)
		if len(got) != 1 || !strings.HasSuffix(got[0].String(), ": Metrics none → [::1]:9100") {
			t.Errorf("%s: differences %v", name, got)
		}
	}
	file := readFile(t, "edge.yaml")
	for _, c := range []struct{ section, fault string }{
		{"{}", "metrics.listenAddress: missing"},
		{"{listenAddress: 127.0.0.1}", "metrics.listenAddress: not an address and port to listen at (got 127.0.0.1; want ADDRESS:PORT"},
		{"{listenAddress: localhost:9100}", "metrics.listenAddress: not an address and port"},
		{"{listenAddress: 127.0.0.1:0}", "metrics.listenAddress: not an address and port"},
		{`{listenAddress: "[fe80::1%eth0]:9100"}`, "metrics.listenAddress: not an address and port"},
		{`{listenAddress: "[::ffff:127.0.0.1]:9100"}`, "metrics.listenAddress: not an address and port"},
		{"{listenAddress: 9100}", "metrics.listenAddress: wrong type"},
		{"{listenAddress: 127.0.0.1:9100, path: /}", "metrics.path: unknown key"},
	} {
		_, err := Parse("edge.yaml", []byte(file+"metrics: "+c.section+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("metrics: %s: error %v, want %q", c.section, err, c.fault)
		}
	}
}
