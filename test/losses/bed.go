package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"msee/api"
	"msee/bfd"
	"msee/bgp"
	"msee/edge"
	"msee/lab"
	"msee/netns"
	"msee/test/probing"
)

// bed is the default lab, or that with MACsec, with other BFD intervals and more routes, and probes
// through it both ways.
type bed struct {
	o      options
	name   string // as a lab: `msee lab down NAME` removes it if this program was killed
	dir    string
	routes int
	probes map[string]*probing.Probe // by direction
	downs  *downs
	// What killNode has ended.
	stopped string
	argv    []string
}

const toCustomer = "vm-onprem"

var directions = []string{"onprem-vm", toCustomer}

// labs counts the beds of this run.
var labs atomic.Int32

func newBed(o options, topologyName string, b bfdSetting, routes int) (*bed, error) {
	dir, err := os.MkdirTemp("", "msee-losses-")
	if err != nil {
		return nil, err
	}
	bed := &bed{o: o, name: fmt.Sprintf("losses%d", labs.Add(1)), dir: dir, routes: routes, probes: map[string]*probing.Probe{}}
	file := filepath.Join(dir, bed.name+".yaml")
	text, err := topology(filepath.Join(o.topologies, topologyName+".yaml"), bed.name, b, routes)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err == nil {
		err = bed.msee("lab", "up", "--force", "--name", bed.name, file)
	}
	if err == nil {
		err = bed.prepare()
	}
	if err != nil {
		return nil, errors.Join(err, bed.down())
	}
	return bed, nil
}

// topology is a lab's with these settings. The customer's prefixes
// are documentation's and others that nobody here uses.
func topology(file, name string, b bfdSetting, routes int) ([]byte, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var t map[string]any
	if err := yaml.Unmarshal(source, &t); err != nil {
		return nil, err
	}
	intervals := map[string]any{"intervalMilliseconds": b.interval, "multiplier": b.multiplier}
	// The same fault again and again is no flapping here.
	ours := map[string]any{"intervalMilliseconds": b.interval, "multiplier": b.multiplier, "holdDownSeconds": 0}
	shared := t["shared"].(map[string]any)
	for _, kind := range []string{"msee", "gateway"} {
		shared[kind].(map[string]any)["bfd"] = ours
	}
	circuit := shared["msee"].(map[string]any)["circuits"].([]any)[0].(map[string]any)
	circuit["sku"] = map[string]any{"tier": "Premium"} // 10,000 routes
	// The VNet's prefix, which the customer sends back, counts as well.
	shared["msee"].(map[string]any)["bgp"].(map[string]any)["maximumPrefixes"] = 0
	for _, n := range t["nodes"].([]any) {
		n := n.(map[string]any)
		if n["name"] != "ce" {
			continue
		}
		bgp := n["bgp"].(map[string]any)
		bgp["bfd"] = intervals
		networks := bgp["networks"].([]any) // one IPv4 prefix is there already
		for i := range routes - 1 {
			networks = append(networks, fmt.Sprintf("172.%d.%d.%d/28", 16+i>>12, i>>4&0xff, i<<4&0xff))
		}
		bgp["networks"] = networks
	}
	t["name"] = name
	delete(t, "checks")
	return yaml.Marshal(t)
}

// prepare waits until all is well, and starts the probes.
func (b *bed) prepare() error {
	for _, node := range []string{"ce", "vm"} {
		// By default Linux chooses among equal paths by addresses alone.
		if err := b.run(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy"); err != nil {
			return err
		}
	}
	onprem, vm := netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("10.100.1.10")
	for _, d := range []struct {
		name, from, at string
		to             netip.Addr
	}{{directions[0], "onprem", "vm", vm}, {directions[1], "vm", "onprem", onprem}} {
		p, err := probing.Start(probing.Config{From: b.ns(d.from), At: b.ns(d.at), To: d.to, Port: 9000, Flows: 32, PerSecond: b.o.rate})
		b.probes[d.name] = p // down ends it
		if err != nil {
			return err
		}
	}
	var err error
	if b.downs, err = watchDowns(b.ns("ce"), "link1"); err != nil {
		return err
	}
	return b.settle(60 * time.Second)
}

func (b *bed) down() error {
	for _, p := range b.probes {
		p.End()
	}
	if b.downs != nil {
		b.downs.end()
	}
	return errors.Join(b.msee("lab", "down", b.name), os.RemoveAll(b.dir))
}

// loss is what did not arrive of one direction in one run.
type loss struct {
	packets int
	dark    time.Duration // from the first lost to the last, and one interval
	// afterDetection is how long after the MSEE's BFD had noticed the last one lost
	// was sent, if it has noticed; negative if none was lost after that.
	afterDetection time.Duration
	detected       bool
}

// once causes a fault, waits, cures it, and returns what was lost from the cause
// until the fault was over: what the cure costs is counted as well.
func (b *bed) once(f fault) (map[string]loss, error) {
	if err := b.settle(90 * time.Second); err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	from, began := map[string]int{}, time.Now()
	for d, p := range b.probes {
		from[d] = p.Next()
	}
	if err := f.cause(b); err != nil {
		return nil, fmt.Errorf("cause: %w", err)
	}
	time.Sleep(f.last)
	if f.cure != nil {
		if err := f.cure(b); err != nil {
			return nil, fmt.Errorf("cure: %w", err)
		}
	}
	if err := b.settle(90 * time.Second); err != nil {
		return nil, fmt.Errorf("after: %w", err)
	}
	out := map[string]loss{}
	for d, p := range b.probes {
		x := p.Lost(from[d])
		l := loss{packets: x.Lost}
		if x.Lost > 0 {
			l.dark = x.Outage() + time.Second/time.Duration(b.o.rate)
			if at := b.downs.since(began); !at.IsZero() {
				l.afterDetection, l.detected = x.Last.Sub(at), true
			}
		}
		out[d] = l
	}
	return out, nil
}

// settle waits until every session is up, every route known, and the probes
// have come through for a while.
func (b *bed) settle(within time.Duration) error {
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = b.well(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("not settled within %v: %w", within, err)
}

// wellFor is how long probes must have come through.
const wellFor = time.Second

func (b *bed) well() error {
	for _, node := range []string{"msee1", "msee2", "gw0", "gw1"} {
		c := api.NewClient(b.ns(node))
		sessions, err := c.Sessions()
		if err != nil {
			return err
		}
		for _, s := range sessions {
			if s.State != bgp.StateEstablished {
				return fmt.Errorf("%s: session %s is %s: %s", node, s.Session, s.State, s.Reason)
			}
			want := 1
			if s.Peer.Is4() && (s.Side == "customer" || strings.HasPrefix(node, "gw")) {
				want = b.routes
			}
			if s.Accepted < want {
				return fmt.Errorf("%s: %d of %d routes from %s", node, s.Accepted, want, s.Session)
			}
		}
		rows, err := c.BFD()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(rows, func(r edge.BFDStatus) bool { return r.State != bfd.Up }); i >= 0 {
			return fmt.Errorf("%s: BFD with %s is %v", node, rows[i].Peer, rows[i].State)
		}
		rows = slices.DeleteFunc(rows, func(r edge.BFDStatus) bool { return r.Pair })
		if len(rows) != len(sessions) {
			return fmt.Errorf("%s: %d BFD sessions for %d of BGP", node, len(rows), len(sessions))
		}
	}
	// Both links must carry again before the next fault: the customer has two
	// ways to the VNet.
	if out, err := b.output("ce", "ip", "route", "show", "10.100.0.0/16"); err != nil || strings.Count(out, "via") != 2 {
		return fmt.Errorf("ce has not two ways to the VNet: %q (%v)", out, err)
	}
	for d, p := range b.probes {
		if n := p.RecentLosses(wellFor); n > 0 {
			return fmt.Errorf("%s: %d probes lost in the last %v", d, n, wellFor)
		}
	}
	return nil
}

func (b *bed) ns(node string) string { return b.name + "." + node }

func (b *bed) configFile(node string) string {
	return filepath.Join(lab.RunDir, "lab", b.name, "conf", node+".yaml")
}

// msee runs the program under test.
func (b *bed) msee(args ...string) error {
	out, err := exec.Command(b.o.binary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("msee %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// run runs a command in a node, where its FRR is.
func (b *bed) run(node string, argv ...string) error {
	_, err := b.output(node, argv...)
	return err
}

func (b *bed) output(node string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.o.binary, append([]string{"lab", "exec", "--lab", b.name, node, "--"}, argv...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w: %s", node, strings.Join(argv, " "), err, out)
	}
	return string(out), nil
}

// pid returns the process of a device.
func (b *bed) pid(node string) (int, error) {
	d, err := api.NewClient(b.ns(node)).Device()
	return d.PID, err
}

// daemon returns the process of an FRR daemon by its PID file.
func (b *bed) daemon(node, name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(lab.RunDir, "lab", b.name, "frr", node, "run", name+".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func commandLine(pid int) []string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // none: it has ended
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
}

func children(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(data)) {
			if p, err := strconv.Atoi(f); err == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

// zombie says that a process has ended and waits for its parent.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// start runs a daemon in a node, as the lab does. It ends with the lab.
func (b *bed) start(node string, argv []string) error {
	log, err := os.OpenFile(filepath.Join(lab.RunDir, "lab", b.name, "log", node+".again.log"),
		os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	attr := &syscall.SysProcAttr{Setsid: true}
	if node == "ce" { // FRR's daemons need the node's mounts as well
		argv = append([]string{b.o.binary, "lab", "exec", "--lab", b.name, node, "--"}, argv...)
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attr
		if err := cmd.Start(); err != nil {
			return err
		}
		go cmd.Wait()
		return nil
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.SysProcAttr = log, log, "/", attr
	if err := netns.Do(b.ns(node), cmd.Start); err != nil {
		return err
	}
	go cmd.Wait() // so that it is no zombie
	return nil
}
