package config

import (
	"net/netip"

	"msee/circuit"
)

// metrics reads the section metrics, Device.Metrics.
func (r *reader) metrics(o *object) netip.AddrPort {
	m, ok := o.section("metrics", optional, "listenAddress")
	if !ok {
		return netip.AddrPort{}
	}
	defer m.done()
	return value(m, "listenAddress", required, listenAddress, func(netip.AddrPort) *circuit.Violation { return nil })
}

// listenAddress decodes an address and port to listen at.
func listenAddress(r *reader, it item) (netip.AddrPort, bool) {
	s, ok := text(r, it)
	if !ok {
		return netip.AddrPort{}, false
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().Is4In6() || a.Addr().Zone() != "" {
		r.refuse(it, &circuit.Violation{Problem: "not an address and port to listen at",
			Want: `ADDRESS:PORT, e.g. 127.0.0.1:9100 or "[::1]:9100"`})
		return netip.AddrPort{}, false
	}
	return a, true
}
