package main

// macsecRows are MACsec's: one TCP flow through a link with it, beside a tunnel of
// wireguard-go in its place; and a frame sealed and opened in process, beside the
// bare AEAD on the same octets.
func macsecRows() []*row {
	inProcess := func(name, bench string) *row {
		return &row{name: name, unit: "ns", smaller: true, baseline: "aead",
			measure: goBench{pkg: "msee/macsec", bench: bench, unit: "ns/op", sides: [2]string{"macsec", "aead"}}.measure}
	}
	return []*row{
		{name: "macsec_tcp1", unit: "Gb/s", baseline: string(wireguardGo), opponent: wireguardGo, bed: macsecBed, measure: tcp{flows: 1}.measure},
		inProcess("macsec_seal_1450_ns", "Seal/1450"),
		inProcess("macsec_open_1450_ns", "Open/1450"),
		inProcess("macsec_seal_64_ns", "Seal/64"),
	}
}
