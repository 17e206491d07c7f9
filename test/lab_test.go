package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"msee/api"
	"msee/bgp"
	"msee/edge"
	"msee/lab"
	"msee/netns"
)

// testLab is a lab that belongs to one test.
type testLab struct {
	t    testing.TB
	name string
}

// in returns the lab for use in a subtest.
func (l *testLab) in(t testing.TB) *testLab { return &testLab{t, l.name} }

var labCount atomic.Int32

// newLab returns a lab that is not up yet, and removes it with the test.
func newLab(t testing.TB) *testLab {
	t.Helper()
	needsLab(t)
	msee(t)
	l := &testLab{t, fmt.Sprintf("it%d-%d", os.Getpid(), labCount.Add(1))}
	t.Cleanup(func() {
		if t.Failed() {
			l.dumpLogs()
			l.dumpKernels()
		}
		l.checkLogs()
		if out, err := l.msee("lab", "down", l.name); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
		l.nothingLeft()
	})
	return l
}

// startLab brings up the lab of a topology file, and waits for routes if it has
// gateways, see awaitRoutes.
func startLab(t testing.TB, topology string, gateways ...string) *testLab {
	t.Helper()
	l := newLab(t)
	l.up(topology)
	if len(gateways) > 0 {
		l.awaitRoutes(gateways...)
	}
	return l
}

// awaitRoutes waits until gateways know the way on-premises by both MSEEs, and
// until those have heard something in each of their sessions. Lab up waits for
// sessions, and for what FRR is to learn, but not for this.
func (l *testLab) awaitRoutes(gateways ...string) {
	l.t.Helper()
	for _, node := range msees {
		eventually(l.t, 20*time.Second, node, func() error {
			sessions, err := tryShow[edge.SessionStatus](l, node, "bgp")
			for _, s := range sessions {
				if s.Accepted == 0 {
					return fmt.Errorf("session %s is %s with no route accepted", s.Session, s.State)
				}
			}
			return err
		})
	}
	for _, gw := range gateways {
		eventually(l.t, 20*time.Second, gw, func() error {
			routes, err := tryShow[edge.RouteStatus](l, gw, "routes")
			if err != nil {
				return err
			}
			paths := map[string]int{}
			for _, r := range routes {
				for _, p := range r.Paths {
					if p.Resolved && (p.State == bgp.PathBest || p.State == bgp.PathECMP) {
						paths[r.Prefix.String()]++
					}
				}
			}
			if paths["10.1.0.0/16"] != 2 || paths["2001:db8:1::/48"] != 2 {
				return fmt.Errorf("paths are %v, want 2 on-premises, each family", paths)
			}
			return nil
		})
	}
}

// msees are the MSEEs of the topologies that come with msee.
var msees = []string{"msee1", "msee2"}

func (l *testLab) up(topology string, flags ...string) {
	l.t.Helper()
	args := append([]string{"lab", "up", "--measure=false", "--name", l.name}, flags...)
	if out, err := l.msee(append(args, topology)...); err != nil {
		l.t.Fatalf("lab up: %v\n%s", err, out)
	}
}

// topology returns the path of a topology: one that comes with msee, changed
// by replacing strings (old, new, old, new, …), each of which must be there.
func topology(t testing.TB, name string, replace ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "lab", "topologies", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("topology %s has no %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	file := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// commandTime bounds every command of a test.
const commandTime = 2 * time.Minute

// msee runs the program under test and returns what it printed, both streams.
func (l *testLab) msee(args ...string) (string, error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, msee(l.t), args...)
	cmd.WaitDelay = time.Second // what it started may hold the pipe
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// try runs a command in a node.
func (l *testLab) try(node string, argv ...string) (string, error) {
	l.t.Helper()
	return l.msee(append([]string{"lab", "exec", "--lab", l.name, node}, argv...)...)
}

// exec runs a command in a node that must succeed.
func (l *testLab) exec(node string, argv ...string) string {
	l.t.Helper()
	out, err := l.try(node, argv...)
	if err != nil {
		l.t.Fatalf("%s: %s: %v\n%s", node, strings.Join(argv, " "), err, out)
	}
	return out
}

// vtysh runs commands of FRR's shell in a node.
func (l *testLab) vtysh(node string, commands ...string) string {
	l.t.Helper()
	argv := []string{"vtysh", "-H", "/dev/null"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	return l.exec(node, argv...)
}

// ns names the namespace of a node, which is also its instance's name.
func (l *testLab) ns(node string) string { return l.name + "." + node }

// show returns what msee show says of one device, e.g. show[edge.PortStatus](l,
// "msee1", "ports").
func show[T any](l *testLab, node string, what ...string) []T {
	l.t.Helper()
	rows, err := tryShow[T](l, node, what...)
	if err != nil {
		l.t.Fatal(err)
	}
	return rows
}

func tryShow[T any](l *testLab, node string, what ...string) ([]T, error) {
	l.t.Helper()
	args := append([]string{"show", "--json", "-d", l.ns(node)}, what...)
	out, err := l.msee(args...)
	if err != nil {
		return nil, fmt.Errorf("msee %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	var answers map[string][]T
	if err := json.Unmarshal([]byte(out), &answers); err != nil {
		return nil, fmt.Errorf("msee %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	if len(answers) != 1 || answers[l.ns(node)] == nil {
		return nil, fmt.Errorf("msee %s: not one answer, of %s:\n%s", strings.Join(args, " "), l.ns(node), out)
	}
	return answers[l.ns(node)], nil
}

// eventually waits until check returns nil and fails the test with its last
// error if that takes longer than within, which is there to end the test, not to
// measure: a busy machine has time until then.
func eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitSessions waits until all sessions of devices are Established, and that they have some.
func (l *testLab) awaitSessions(within time.Duration, nodes ...string) {
	l.t.Helper()
	for _, node := range nodes {
		eventually(l.t, within, node, func() error {
			sessions, err := tryShow[edge.SessionStatus](l, node, "bgp")
			for _, s := range sessions {
				if s.State != bgp.StateEstablished {
					return fmt.Errorf("session %s is %s: %s", s.Session, s.State, s.Reason)
				}
			}
			if err == nil && len(sessions) == 0 {
				err = errors.New("it has no session yet")
			}
			return err
		})
	}
}

// session returns what a device says of its session with a peer.
func (l *testLab) session(node, vrf, peer string) (edge.SessionStatus, error) {
	l.t.Helper()
	rows, err := tryShow[edge.SessionStatus](l, node, "bgp")
	if err != nil {
		return edge.SessionStatus{}, err
	}
	for _, s := range rows {
		if s.VRF == vrf && s.Peer.String() == peer {
			return s, nil
		}
	}
	return edge.SessionStatus{}, fmt.Errorf("%s has no session with %s in %s", node, peer, vrf)
}

// awaitState waits until a session is in a state.
func (l *testLab) awaitState(node, vrf, peer string, want bgp.State, within time.Duration) {
	l.t.Helper()
	eventually(l.t, within, fmt.Sprintf("%s: %s %s", node, vrf, peer), func() error {
		s, err := l.session(node, vrf, peer)
		if err == nil && s.State != want {
			err = fmt.Errorf("session is %s (%s), want %s", s.State, s.Reason, want)
		}
		return err
	})
}

// configFile is the daemon's configuration that the lab wrote.
func (l *testLab) configFile(node string) string {
	return filepath.Join(lab.RunDir, "lab", l.name, "conf", node+".yaml")
}

// editConfig changes a device's configuration file.
func (l *testLab) editConfig(node string, change func(map[string]any)) {
	l.t.Helper()
	data, err := os.ReadFile(l.configFile(node))
	if err != nil {
		l.t.Fatal(err)
	}
	var cfg map[string]any
	if err := yaml.Unmarshal(data, &cfg); err != nil {
		l.t.Fatal(err)
	}
	change(cfg)
	if data, err = yaml.Marshal(cfg); err != nil {
		l.t.Fatal(err)
	}
	l.writeConfig(node, data)
}

func (l *testLab) writeConfig(node string, data []byte) {
	l.t.Helper()
	if err := os.WriteFile(l.configFile(node), data, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// pid returns the process of a device.
func (l *testLab) pid(node string) int {
	l.t.Helper()
	d, err := api.NewClient(l.ns(node)).Device()
	if err != nil {
		l.t.Fatal(err)
	}
	return d.PID
}

// kill sends a device's process a signal and returns its command line, to be
// started again with.
func (l *testLab) kill(node string, sig syscall.Signal) []string {
	l.t.Helper()
	pid := l.pid(node)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		l.t.Fatal(err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		l.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
}

// start runs a daemon in a node, as the lab does. It ends with the lab.
func (l *testLab) start(node string, argv ...string) {
	l.t.Helper()
	log, err := os.OpenFile(filepath.Join(lab.RunDir, "lab", l.name, "log", node+".edge.log"),
		os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := netns.Do(l.ns(node), cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	go cmd.Wait() // so that it is no zombie
}

// logs returns the daemons' logs by file name.
func (l *testLab) logs() map[string]string {
	files, _ := filepath.Glob(filepath.Join(lab.RunDir, "lab", l.name, "log", "*"))
	logs := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			l.t.Error(err)
		}
		logs[filepath.Base(f)] = string(data)
	}
	return logs
}

// crash is what no daemon may ever print.
var crash = regexp.MustCompile(`(?m)^(panic:|fatal error:|WARNING: DATA RACE)`)

func (l *testLab) checkLogs() {
	for name, text := range l.logs() {
		if at := crash.FindStringIndex(text); at != nil {
			l.t.Errorf("%s: %s", name, text[at[0]:min(at[0]+4000, len(text))])
		}
	}
}

// dumpLogs helps to find out why a test has failed.
func (l *testLab) dumpLogs() {
	for name, text := range l.logs() {
		if strings.HasSuffix(name, ".zebra.log") {
			continue
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		l.t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	for _, i := range api.Instances() {
		if strings.HasPrefix(i, l.name+".") {
			out, err := l.msee("show", "bgp", "-d", i)
			l.t.Logf("show bgp of %s: %v\n%s", i, err, out)
		}
	}
}

// dumpKernels logs what the kernels of a lab's namespaces know of neighbors and of ends of
// tunnels: where all sessions are up and nothing arrives, it is one of these that is missing.
func (l *testLab) dumpKernels() {
	entries, _ := os.ReadDir(netns.Dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), l.name+".") {
			continue
		}
		neighbors, _ := exec.Command("ip", "-n", e.Name(), "neigh").CombinedOutput()
		fdb, _ := exec.Command("bridge", "-n", e.Name(), "fdb").CombinedOutput()
		var tunnels []string
		for line := range strings.Lines(string(fdb)) {
			if strings.Contains(line, " dst ") {
				tunnels = append(tunnels, line)
			}
		}
		if len(neighbors)+len(tunnels) > 0 {
			l.t.Logf("%s:\n%s%s", e.Name(), neighbors, strings.Join(tunnels, ""))
		}
	}
}

// nothingLeft looks for what lab down should have removed.
func (l *testLab) nothingLeft() {
	l.t.Helper()
	for _, dir := range []string{netns.Dir, lab.RunDir} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), l.name+".") {
				l.t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
	dir := filepath.Join(lab.RunDir, "lab", l.name)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		l.t.Errorf("left behind: %s (%v)", dir, err)
	}
	// Those that were killed need a moment to be gone.
	eventually(l.t, 20*time.Second, "all processes end", func() error {
		if left := l.processes(); len(left) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// processes lists those that run the program under test, or have the lab's name
// on their command line or among their mounts.
func (l *testLab) processes() []string {
	var out []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		exe, _ := os.Readlink(dir + "/exe")
		line, _ := os.ReadFile(dir + "/cmdline")
		mounts, _ := os.ReadFile(dir + "/mountinfo")
		if dir != fmt.Sprintf("/proc/%d", os.Getpid()) && exe == msee(l.t) ||
			slices.ContainsFunc([]string{l.name + ".", "/" + l.name + "/"}, func(s string) bool {
				return bytes.Contains(line, []byte(s)) || bytes.Contains(mounts, []byte(s))
			}) {
			out = append(out, filepath.Base(dir)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}
