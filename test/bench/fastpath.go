package main

// fastPathRows are those of FastPath's exact match: a hit against the same frame
// by the longest prefix match, and what changes cost.
func fastPathRows() []*row {
	hit := func(name, baseline string) goBench {
		return goBench{pkg: "msee/dataplane", bench: "FastPath", unit: "ns/frame", sides: [2]string{name, baseline}}
	}
	return []*row{
		{name: "fastpath_hit_10k_ns", unit: "ns", smaller: true, baseline: "lpm_10k_ns", measure: hit("hit_10k", "lpm_10k").measure},
		{name: "fastpath_hit_10k_ecmp_ns", unit: "ns", smaller: true, baseline: "lpm_10k_ecmp_ns", measure: hit("hit_10k", "lpm_10k_ecmp").measure},
		{name: "fastpath_hit_200k_ns", unit: "ns", smaller: true, baseline: "target", target: 60, measure: hit("hit_200k", "lpm_10k").measure},
		{name: "fastpath_update_per_s", unit: "1/s", baseline: "target", target: 100_000,
			measure: goBench{pkg: "msee/fastpath", bench: "UpdateUnderLoad", unit: "updates/s"}.measure},
		{name: "fastpath_program_200k_s", unit: "s", smaller: true, baseline: "target", target: 5,
			measure: goBench{pkg: "msee/edge", bench: "Program200k", unit: "s"}.measure},
	}
}
