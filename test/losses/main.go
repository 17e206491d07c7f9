// Losses measures what a fault costs: packets lost and milliseconds dark, each
// way, between an on-premises host and a VM behind the default lab's pair of
// MSEEs, at a steady rate of numbered packets.
//
//	go run ./test/losses -out out/losses.json -docs docs
//
// Root is needed, and FRR, and nft to silence BFD without cutting a link.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result is one row of losses.json.
type Result struct {
	Fault       string `json:"fault"`
	Direction   string `json:"direction"` // onprem-vm or vm-onprem
	BFD         string `json:"bfd"`       // milliseconds × multiplier
	Routes      int    `json:"routes"`    // that the customer announces
	N           int    `json:"n"`
	LostMS      Spread `json:"lost_ms"` // from the first packet lost to the last
	LostPackets Spread `json:"lost_packets"`
}

// Spread is what n runs came to.
type Spread struct {
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
	Max    float64 `json:"max"`
}

func spread(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 { return v[min(int(q*float64(len(v))), len(v)-1)] }
	return Spread{at(0.5), at(0.95), v[len(v)-1]}
}

type options struct {
	binary, out, docs string
	topology          string
	n, rate           int
	faults            []string
	bfds              []bfdSetting
	routes            []int
}

type bfdSetting struct{ interval, multiplier int }

func (b bfdSetting) String() string { return fmt.Sprintf("%dx%d", b.interval, b.multiplier) }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "losses:", err)
		os.Exit(1)
	}
}

func parseOptions() (o options, err error) {
	flag.StringVar(&o.binary, "binary", "bin/msee", "the program under test")
	flag.StringVar(&o.topology, "topology", "lab/topologies/default.yaml", "the lab")
	flag.StringVar(&o.out, "out", "out/losses.json", "where the results go")
	flag.StringVar(&o.docs, "docs", "", "directory for failover-losses.md and failover.svg; none if empty")
	flag.IntVar(&o.n, "n", 20, "runs of each fault")
	flag.IntVar(&o.rate, "rate", 1000, "packets per second, each way")
	only := flag.String("faults", "", "faults to try, separated by commas; default: all")
	bfds := flag.String("bfd", "300x3,50x3", "BFD settings, milliseconds x multiplier")
	routes := flag.String("routes", "100,10000", "how many routes the customer announces")
	flag.Parse()
	for _, f := range faults {
		if *only == "" || slices.Contains(strings.Split(*only, ","), f.name) {
			o.faults = append(o.faults, f.name)
		}
	}
	for _, s := range strings.Split(*bfds, ",") {
		var b bfdSetting
		if _, err := fmt.Sscanf(s, "%dx%d", &b.interval, &b.multiplier); err != nil {
			return o, fmt.Errorf("-bfd %q: want MILLISECONDSxMULTIPLIER", s)
		}
		o.bfds = append(o.bfds, b)
	}
	for _, s := range strings.Split(*routes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 10000 {
			return o, fmt.Errorf("-routes %q: want 1 to 10000", s)
		}
		o.routes = append(o.routes, n)
	}
	if o.n < 1 || len(o.faults) == 0 {
		return o, fmt.Errorf("nothing to do: -n %d, %d faults", o.n, len(o.faults))
	}
	return o, nil
}

func run() error {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	var results []Result
	for _, bfd := range o.bfds {
		for _, routes := range o.routes {
			got, err := measureAll(o, bfd, routes)
			results = append(results, got...)
			if err != nil {
				return err
			}
			if err := write(o, results); err != nil { // what there is, should the next bed fail
				return err
			}
		}
	}
	return nil
}

// measureAll runs all faults in one lab.
func measureAll(o options, bfd bfdSetting, routes int) (results []Result, err error) {
	b, err := newBed(o, bfd, routes)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := b.down(); err == nil {
			err = e
		}
	}()
	for _, f := range faults {
		if !slices.Contains(o.faults, f.name) {
			continue
		}
		ms, packets := map[string][]float64{}, map[string][]float64{}
		for range o.n {
			lost, err := b.once(f)
			if err != nil {
				return results, fmt.Errorf("%s: %w", f.name, err)
			}
			for direction, l := range lost {
				ms[direction] = append(ms[direction], float64(l.dark)/float64(time.Millisecond))
				packets[direction] = append(packets[direction], float64(l.packets))
			}
		}
		for _, direction := range directions {
			r := Result{f.name, direction, bfd.String(), routes, o.n, spread(ms[direction]), spread(packets[direction])}
			results = append(results, r)
			fmt.Println(r)
		}
	}
	return results, nil
}

func (r Result) String() string {
	return fmt.Sprintf("%-16s %-9s bfd %-6s routes %5d n %2d: dark ms median %6.0f p95 %6.0f max %6.0f, packets %5.0f %5.0f %5.0f",
		r.Fault, r.Direction, r.BFD, r.Routes, r.N, r.LostMS.Median, r.LostMS.P95, r.LostMS.Max,
		r.LostPackets.Median, r.LostPackets.P95, r.LostPackets.Max)
}

func write(o options, results []Result) error {
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(faultOrder(a.Fault), faultOrder(b.Fault)), cmp.Compare(a.Direction, b.Direction))
	})
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.out, append(data, '\n'), 0o644); err != nil {
		return err
	}
	if o.docs == "" {
		return nil
	}
	return writeDocs(o.docs, results)
}
