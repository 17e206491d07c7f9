// Losses measures what a fault costs: packets lost and milliseconds dark, each
// way, between an on-premises host and a VM behind the default lab's pair of
// MSEEs, at a steady rate of numbered packets. Each setting of BFD and of routes
// has a lab of its own, of which some may run at the same time.
//
//	go run ./test/losses -out out/losses.json -docs docs
//
// Root is needed, and FRR, and nft to silence BFD without cutting a link.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
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
	// AfterDetection is, where the MSEE's BFD is what notices, when the last packet
	// lost was sent, counted from its noticing.
	AfterDetection *Spread `json:"after_detection_ms,omitempty"`
}

// Spread is what n runs came to.
type Spread struct {
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
	Max    float64 `json:"max"`
}

// spread takes percentiles by nearest rank: of 20 values p95 is the 19th.
func spread(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	at := func(percent int) float64 { return v[(percent*len(v)+99)/100-1] }
	return Spread{at(50), at(95), v[len(v)-1]}
}

type options struct {
	binary, out, docs string
	summary           string
	topologies        string
	keep              bool
	n, rate, jobs     int
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
	flag.StringVar(&o.topologies, "topologies", "lab/topologies", "directory of the labs' topologies")
	flag.IntVar(&o.jobs, "jobs", 1, "labs at a time")
	flag.StringVar(&o.out, "out", "out/losses.json", "where the results go")
	flag.StringVar(&o.docs, "docs", "", "directory of failover.md, which gets the figures, and of failover.svg; none if empty")
	flag.BoolVar(&o.keep, "keep", false, "keep the rows that -out has already and this run does not measure")
	flag.IntVar(&o.n, "n", 20, "runs of each fault")
	flag.IntVar(&o.rate, "rate", 1000, "packets per second, each way")
	summary := flag.String("summary", "", "only print what that file, losses.json of a run before, has")
	only := flag.String("faults", "", "faults to try, separated by commas; default: all")
	bfds := flag.String("bfd", "300x3,50x3", "BFD settings, milliseconds x multiplier")
	routes := flag.String("routes", "100,10000", "how many routes the customer announces")
	flag.Parse()
	o.summary = *summary
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
	if o.n < 1 || o.jobs < 1 || len(o.faults) == 0 {
		return o, fmt.Errorf("nothing to do: -n %d, -jobs %d, %d faults", o.n, o.jobs, len(o.faults))
	}
	return o, nil
}

func run() error {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	if o.summary != "" {
		return summarize(o.summary)
	}
	all := &collection{o: o}
	if o.keep {
		if all.results, err = readResults(o.out); err != nil {
			return err
		}
	}
	var running sync.WaitGroup
	free := make(chan struct{}, o.jobs)
	for _, bfd := range o.bfds {
		for _, routes := range o.routes {
			running.Go(func() {
				free <- struct{}{}
				defer func() { <-free }()
				for _, topology := range []string{"default", "macsec"} {
					if err := measureAll(o, topology, bfd, routes, all.add); err != nil {
						all.failed(fmt.Errorf("BFD %v, %d routes: %w", bfd, routes, err))
					}
				}
			})
		}
	}
	running.Wait()
	return all.err
}

// collection is what there is so far. It is written after each fault, should a
// later one fail.
type collection struct {
	o       options
	mu      sync.Mutex
	results []Result
	err     error
}

func (c *collection) add(rows ...Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		fmt.Println(r)
		c.results = slices.DeleteFunc(c.results, r.sameCase)
	}
	c.results = append(c.results, rows...)
	c.err = errors.Join(c.err, write(c.o, c.results))
}

// sameCase tells whether two results are of one measurement, made twice.
func (r Result) sameCase(of Result) bool {
	return r.Fault == of.Fault && r.Direction == of.Direction && r.BFD == of.BFD && r.Routes == of.Routes
}

func (c *collection) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errors.Join(c.err, err)
}

// summarize prints a table of a run before, if there was one.
func summarize(file string) error {
	results, err := readResults(file)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("what faults cost: not measured on this machine yet (sudo make losses; docs/failover.md has a run)")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Printf("what faults cost, milliseconds dark (median of n; longest), as measured %s (make losses):\n", modified(file))
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tDIRECTION\tBFD\tROUTES\tN\tMEDIAN\tMAX\tPACKETS")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%.0f\t%.0f\t%.0f\n", r.Fault, r.Direction, r.BFD, r.Routes, r.N, r.LostMS.Median, r.LostMS.Max, r.LostPackets.Median)
	}
	return w.Flush()
}

func readResults(file string) (results []Result, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &results); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return results, nil
}

func modified(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return "some time ago"
	}
	return info.ModTime().Format("2006-01-02 15:04")
}

// measureAll runs all faults of a topology in one lab.
func measureAll(o options, topology string, bfd bfdSetting, routes int, add func(...Result)) (err error) {
	wanted := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return f.topology() != topology || !slices.Contains(o.faults, f.name)
	})
	if len(wanted) == 0 {
		return nil
	}
	b, err := newBed(o, topology, bfd, routes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.down()) }()
	for _, f := range wanted {
		ms, packets, after := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for range o.n {
			lost, err := b.once(f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			for direction, l := range lost {
				ms[direction] = append(ms[direction], milliseconds(l.dark))
				packets[direction] = append(packets[direction], float64(l.packets))
				if l.detected {
					after[direction] = append(after[direction], milliseconds(l.afterDetection))
				}
			}
		}
		for _, direction := range directions {
			r := Result{f.name, direction, bfd.String(), routes, o.n, spread(ms[direction]), spread(packets[direction]), nil}
			// Towards the customer it is the MSEE that turns; the other way his edge.
			if a := after[direction]; f.name == linkDark && direction == toCustomer && len(a) > 0 {
				s := spread(a)
				r.AfterDetection = &s
			}
			add(r)
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Millisecond)*100) / 100
}

func (r Result) String() string {
	s := fmt.Sprintf("%-16s %-9s bfd %-6s routes %5d n %2d: dark ms median %6.0f p95 %6.0f max %6.0f, packets %5.0f %5.0f %5.0f",
		r.Fault, r.Direction, r.BFD, r.Routes, r.N, r.LostMS.Median, r.LostMS.P95, r.LostMS.Max,
		r.LostPackets.Median, r.LostPackets.P95, r.LostPackets.Max)
	if a := r.AfterDetection; a != nil {
		s += fmt.Sprintf(", last lost %.1f (p95 %.1f, max %.1f) ms after detection", a.Median, a.P95, a.Max)
	}
	return s
}

func write(o options, results []Result) error {
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(faultOrder(a.Fault), faultOrder(b.Fault)), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.BFD, b.BFD), cmp.Compare(a.Routes, b.Routes)) // 300x3 before 50x3: as text
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
