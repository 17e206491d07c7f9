package config

import (
	"strings"
	"testing"
)

func TestCrossConnect(t *testing.T) {
	const good = `device: {name: bump, role: primary}
ports:
  - {name: line, device: eth1, crossConnect: host}
  - {name: host, device: eth0, crossConnect: line}
  - {name: cust, device: eth2}
`
	d, err := Parse("f", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Ports {
		if want := map[string]string{"line": "host", "host": "line"}[p.Name]; p.CrossConnect != want {
			t.Errorf("port %s is connected with %q, want %q", p.Name, p.CrossConnect, want)
		}
	}
	for _, c := range []struct{ old, new, want string }{
		{"crossConnect: host", "crossConnect: hosts", "ports[0].crossConnect: no such port (got hosts; want cust, host or line)"},
		{"crossConnect: host", "crossConnect: line", "ports[0].crossConnect: the port itself (got line; want another port)"},
		{", crossConnect: line", "", "ports[0].crossConnect: the other port does not say so (got host; want crossConnect: line on port host)"},
		{"ports:", `circuits:
  - name: er1
    port: line
    peerings: []
ports:`, "circuits[0].port: a port with crossConnect: its frames are not the router's (got line; want another port)"},
	} {
		_, err := Parse("f", []byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q", c.new, c.old, err, c.want)
		}
	}
}
