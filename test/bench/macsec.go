package main

// macsecRows are MACsec's: a frame sealed and opened in process, beside the bare
// AEAD on the same octets.
func macsecRows() []*row {
	inProcess := func(name, bench string) *row {
		return &row{name: name, unit: "ns", smaller: true, baseline: "aead",
			measure: goBench{pkg: "msee/macsec", bench: bench, unit: "ns/op", sides: [2]string{"macsec", "aead"}}.measure}
	}
	return []*row{
		inProcess("macsec_seal_1450_ns", "Seal/1450"),
		inProcess("macsec_open_1450_ns", "Open/1450"),
		inProcess("macsec_seal_64_ns", "Seal/64"),
	}
}
