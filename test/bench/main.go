// Command bench measures msee against a named baseline and says by how much it
// is ahead or behind: docs/performance.md tells what the rows are.
//
//	go run ./test/bench [-out FILE] [-rounds N] [-seconds N] [-rows REGEXP] [-msee FILE]
//	go run ./test/bench -from FILE,FILE [-out FILE] [-docs DIR]
//
// Subject and baseline are measured in turn (A B A B …), so that a machine that
// gets slower does so for both. What other processes burn meanwhile is noted
// with each run, and a run that they disturbed is made again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"msee/lab/frr"
)

// options are the command's flags.
type options struct {
	out     string
	msee    string
	rounds  int
	seconds int
	retries int
	rows    *regexp.Regexp
	peers   bool
	plot    string
	docs    string
	from    string
	against string
	beds    bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == copierCommand {
		fmt.Fprintln(os.Stderr, "bench copier:", copier(os.Args[2:]))
		os.Exit(1)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, err := parseFlags()
	if err != nil {
		return err
	}
	b := &bench{options: o, progress: os.Stdout, where: thisMachine()}
	if o.from != "" {
		if b.earlier, err = readResults(o.from); err != nil {
			return err
		}
		if o.rows.String() == "" {
			return b.run(ctx, nil)
		}
	}
	all := rows(o.peers)
	if o.against != "" {
		all = againstOther(all)
	}
	var selected []*row
	for _, r := range all {
		if o.rows.MatchString(r.name) {
			selected = append(selected, r)
		}
	}
	if o.beds {
		selected = eachBed(selected)
	}
	if len(selected) == 0 {
		return fmt.Errorf("no row matches %q; there are %s", o.rows, strings.Join(rowNames(), ", "))
	}
	if err := preflight(selected, o); err != nil {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if b.scratch, err = os.MkdirTemp("", "msee-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.scratch)
	return b.run(ctx, selected)
}

func parseFlags() (options, error) {
	var o options
	rows := flag.String("rows", "", "measure only the rows that match this regular expression")
	flag.StringVar(&o.out, "out", "", "write the results here as JSON, after each row")
	flag.StringVar(&o.msee, "msee", "bin/msee", "the msee executable")
	flag.IntVar(&o.rounds, "rounds", 5, "how often subject and baseline are measured in turn")
	flag.IntVar(&o.seconds, "seconds", 2, "how long each run takes; in-process rows take a fifth")
	flag.IntVar(&o.retries, "retries", 3, "how often a run that others disturb is made again")
	flag.BoolVar(&o.peers, "peers", false, "measure against other dataplanes too, in rows of their own")
	flag.StringVar(&o.plot, "plot", "", "draw the ratios here as SVG")
	flag.StringVar(&o.docs, "docs", "", "write table and plot into performance.md and bench.svg in this directory")
	flag.StringVar(&o.from, "from", "", "add to earlier results of these files (with commas between; a later one's rows replace an earlier one's); without -rows nothing is measured")
	flag.StringVar(&o.against, "against", "", "compare with this msee executable, on the same traffic, in place of each row's baseline")
	flag.BoolVar(&o.beds, "beds", false, "measure only the first row of each bed, of each other dataplane and of each kind, to see that all of them work")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.seconds < 1 || o.retries < 0 {
		flag.Usage()
		return o, errors.New("want rounds and seconds of at least 1, and no arguments")
	}
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return o, fmt.Errorf("-rows: %w", err)
	}
	if o.against != "" && o.docs != "" {
		return o, errors.New("-against: its results are not those that -docs writes")
	}
	if o.against != "" {
		if o.against, err = filepath.Abs(o.against); err != nil {
			return o, err
		}
	}
	o.msee, err = filepath.Abs(o.msee)
	return o, err
}

// preflight names everything that is missing for the rows, at once.
func preflight(selected []*row, o options) error {
	var missing []error
	command := func(name string) {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, fmt.Errorf("%s is not installed: make deps", name))
		}
	}
	beds, tests := false, false
	for _, r := range selected {
		beds = beds || r.bed != ""
		tests = tests || r.bed == ""
	}
	if tests {
		command("go")
	}
	if beds {
		if os.Geteuid() != 0 {
			missing = append(missing, errors.New("network namespaces need root: use sudo, or -rows '_ns$' for what does without"))
		}
		if _, err := frr.Daemons(""); err != nil {
			missing = append(missing, fmt.Errorf("%w: make deps", err))
		}
		for file, who := range peerFiles {
			_, err := exec.LookPath(file)
			if err != nil && slices.ContainsFunc(selected, func(r *row) bool { return r.opponent == who }) {
				missing = append(missing, fmt.Errorf("%s is not installed, which %s needs: make bench-peers", file, who))
			}
		}
		command("iperf3")
		command("ping")
		command("ethtool")
		for _, file := range []string{o.msee, o.against} {
			if _, err := os.Stat(file); file != "" && err != nil {
				missing = append(missing, fmt.Errorf("there is no msee executable: make build, or -msee FILE: %w", err))
			}
		}
	}
	return errors.Join(missing...)
}

// lock keeps a second bench away: they would disturb each other, and the bed
// has one name.
func lock() (unlock func(), err error) {
	path := filepath.Join(os.TempDir(), "msee-bench.lock")
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: another bench is running: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// machine is where the figures come from.
type machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
	// TCP is the congestion control of the ends.
	TCP string `json:"tcpCongestionControl,omitempty"`
}

func (m machine) String() string {
	s := fmt.Sprintf("%s, %d CPUs, Linux %s, %s", m.CPU, m.CPUs, m.Kernel, m.Go)
	if m.TCP != "" { // it is not in results from before 2026-11-29
		s += ", TCP with " + m.TCP
	}
	return s
}

var cpuModel = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

func thisMachine() machine {
	m := machine{CPU: "unknown", CPUs: runtime.NumCPU(), Go: runtime.Version(), TCP: congestionControl}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // unknown then
	if model := cpuModel.FindSubmatch(info); model != nil {
		m.CPU = string(model[1])
	}
	return m
}
