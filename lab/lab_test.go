package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"msee/lab/frr"
	"msee/netns"
)

// upEnv makes the test binary a child that brings up a lab of that name, to be
// killed meanwhile.
const upEnv = "MSEE_TEST_LAB_UP"

func TestMain(m *testing.M) {
	name := os.Getenv(upEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	topo, err := Load("testdata/pair.yaml")
	if err == nil {
		err = Up(context.Background(), topo, Options{Name: name})
	}
	fmt.Fprintln(os.Stderr, err)
}

// testLab returns a name of this process's own for a lab, and sees to it that
// nothing of it is left.
func testLab(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root")
	}
	if _, err := frr.Daemons(""); err != nil {
		t.Skip(err)
	}
	name := fmt.Sprintf("labtest-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	t.Cleanup(func() {
		if err := Down(context.Background(), name); err != nil {
			t.Error(err)
		}
		nothingLeft(t, name)
	})
	return name
}

func nothingLeft(t *testing.T, lab string) {
	t.Helper()
	if left := labNamespaces(lab); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
	if _, err := os.Stat(labDir(lab)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left (%v)", labDir(lab), err)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, p := range procs { // FRR's daemons have the lab's directories mounted
		if data, _ := os.ReadFile(p); strings.Contains(string(data), "/lab/"+lab+"/") {
			t.Errorf("a process is left: %s", p)
		}
	}
}

func pair(t *testing.T) *Topology {
	t.Helper()
	topo, err := Load("testdata/pair.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// TestLab goes through a lab's whole life.
func TestLab(t *testing.T) {
	lab := testLab(t)
	var log strings.Builder
	if err := Up(t.Context(), pair(t), Options{Name: lab, Progress: &log}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if !strings.Contains(log.String(), "4 of 4 BGP sessions Established") {
		t.Errorf("progress does not tell of the sessions:\n%s", log.String())
	}
	t.Run("again", func(t *testing.T) {
		if err := Up(t.Context(), pair(t), Options{Name: lab}); !errors.Is(err, ErrRunning) {
			t.Errorf("second Up: got %v, want ErrRunning", err)
		}
		if err := Converged(t.Context(), lab, Options{}); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
	t.Run("check", func(t *testing.T) { checkReport(t, lab) })
	t.Run("table", func(t *testing.T) { checkTable(t, lab) })
	t.Run("exec", func(t *testing.T) { checkExec(t, lab) })
	t.Run("device", func(t *testing.T) { checkSurveyWithDevices(t, lab) })
	t.Run("dead daemon", func(t *testing.T) { killDaemon(t, lab) })
}

func checkReport(t *testing.T, lab string) {
	var out strings.Builder
	if err := Check(t.Context(), lab, &out, true, Options{}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	var r Report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || len(r.Sessions) != 4 || len(r.Tables) != 2 || len(r.Checks) != 6 {
		t.Errorf("got %+v", r)
	}
	for _, c := range r.Checks {
		if c.Type == CheckIperf3 && (len(c.Gbps) != 2 || c.Gbps[0] <= 0) {
			t.Errorf("iperf3: got %v", c.Gbps)
		}
	}
}

// checkTable runs probes that must fail, and wants that to show.
func checkTable(t *testing.T, lab string) {
	topo := pair(t)
	for _, c := range []struct {
		probe Probe
		want  string
	}{
		{Probe{Type: CheckPing, From: "h1", To: netip.MustParseAddr("10.2.0.99")}, "none of 6 answered"},
		{Probe{Type: CheckTraceroute, From: "h1", To: netip.MustParseAddr("10.2.0.10"),
			Via: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}, "after one of [9.9.9.9]"},
		{Probe{Type: CheckIsolation, From: "h1", To: netip.MustParseAddr("10.2.0.10"), At: "h2",
			Not: []string{"h3", "r1"}}, "LEAK"},
		{Probe{Type: CheckIsolation, From: "h1", To: netip.MustParseAddr("10.2.0.10"), At: "h3",
			Not: []string{"h2"}}, "nothing arrived at h3"},
	} {
		if r := runCheck(t.Context(), lab, topo, &c.probe); r.OK || !strings.Contains(r.Detail, c.want) {
			t.Errorf("%s: got ok=%v %q, want %q", c.probe.Type, r.OK, r.Detail, c.want)
		}
	}
	var out strings.Builder
	if err := Status(&out); err != nil || !strings.Contains(out.String(), lab) {
		t.Errorf("status: got %v\n%s", err, out.String())
	}
}

func checkExec(t *testing.T, lab string) {
	for _, c := range []struct {
		node string
		argv []string
		want int
	}{
		{"r1", []string{"vtysh", "-H", "/dev/null", "-c", "show version"}, 0},
		{"r1", []string{"sh", "-c", `test "$(hostname)" = r1 && test -e /sys/class/net/wan.100.10`}, 0},
		{"h1", []string{"sh", "-c", `test "$(hostname)" = h1 && ! test -e /etc/frr/bgpd.conf`}, 0},
		{"h2", []string{"sh", "-c", "exit 7"}, 7},
	} {
		if code, err := Exec(lab, c.node, c.argv); err != nil || code != c.want {
			t.Errorf("%s %v: got %d, %v, want %d", c.node, c.argv, code, err, c.want)
		}
	}
	if _, err := Exec(lab, "h9", []string{"true"}); err == nil || !strings.Contains(err.Error(), "it has h1, h2") {
		t.Errorf("unknown node: got %v", err)
	}
}

// checkSurveyWithDevices lets the survey ask about msee nodes that it is told of.
func checkSurveyWithDevices(t *testing.T, lab string) {
	st, err := loadState(lab)
	if err != nil {
		t.Fatal(err)
	}
	topo := parse(t, "name: x\nnodes: [{name: m, kind: msee, config: {}}]")
	state := SessionState{VRF: "er1", Peer: netip.MustParseAddr("192.0.2.1"), State: "Active", Reason: "wrong key"}
	o := &Options{
		Status: func(instance string) ([]SessionState, error) {
			if instance != lab+".m" {
				t.Errorf("asked for %s", instance)
			}
			return []SessionState{state, {State: stateDisabled}}, nil
		},
		Routes: func(string) ([]TableState, error) { return []TableState{{VRF: "er1", IPv4: 3}}, nil },
	}
	s := takeSurvey(t.Context(), st, topo, o)
	want := "m: session to 192.0.2.1 (er1) is Active: wrong key"
	if len(s.Missing) != 1 || s.Missing[0] != want {
		t.Errorf("missing: got %q, want %q", s.Missing, want)
	}
	if len(s.Tables) != 1 || s.Tables[0] != (TableState{Node: "m", VRF: "er1", IPv4: 3}) {
		t.Errorf("tables: got %+v", s.Tables)
	}
	if up, want := s.established(); up != 0 || want != 1 {
		t.Errorf("sessions: got %d of %d, want 0 of 1", up, want)
	}
}

// killDaemon ends with a lab that is broken, which check must tell.
func killDaemon(t *testing.T, lab string) {
	st, err := loadState(lab)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(st.Processes, func(p process) bool { return p.Node == "r2" && p.Name == "bgpd" })
	p := st.Processes[i]
	endProcesses(t.Context(), func() []process {
		if p.alive() {
			return []process{p}
		}
		return nil
	})
	err = Converged(t.Context(), lab, Options{})
	if err == nil || !strings.Contains(err.Error(), "bgpd on r2 has ended") {
		t.Errorf("got %v, want the dead daemon", err)
	}
	var out strings.Builder
	if err := Status(&out); err != nil || !strings.Contains(out.String(), "3 of 4 (ended: r2 bgpd)") {
		t.Errorf("status: got %v\n%s", err, out.String())
	}
}

// TestWrongKey wants the session to stay down and Up to say why.
func TestWrongKey(t *testing.T) {
	lab := testLab(t)
	topo := pair(t)
	topo.node("r1").BGP.Neighbors[0].Password = "other"
	err := Up(t.Context(), topo, Options{Name: lab, Timeout: 10 * time.Second})
	if !errors.Is(err, ErrNotConverged) || !strings.Contains(err.Error(), "MD5") ||
		!strings.Contains(err.Error(), "r1: session to 192.0.2.2") {
		t.Errorf("got %v, want ErrNotConverged that names the session and MD5", err)
	}
	if len(labNamespaces(lab)) == 0 {
		t.Error("the lab was not left standing")
	}
}

// TestInterrupt ends the context while Up waits.
func TestInterrupt(t *testing.T) {
	lab := testLab(t)
	topo := pair(t)
	topo.node("r1").BGP.Expect[0].Paths = 9 // never
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := Up(ctx, topo, Options{Name: lab}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	nothingLeft(t, lab)
}

// TestBuildFails has a step go wrong in the middle.
func TestBuildFails(t *testing.T) {
	lab := testLab(t)
	topo := pair(t)
	topo.node("h2").Sysctls = map[string]string{"net.nosuch.thing": "1"}
	err := Up(t.Context(), topo, Options{Name: lab})
	if err == nil || !strings.Contains(err.Error(), "net.nosuch.thing") {
		t.Errorf("got %v, want the sysctl", err)
	}
	nothingLeft(t, lab)
}

// TestDownAfterCrash kills Up at several points of its work.
func TestDownAfterCrash(t *testing.T) {
	for name, reached := range map[string]func(lab string) bool{
		"namespaces": func(lab string) bool { return len(labNamespaces(lab)) >= 3 },
		"daemons": func(lab string) bool {
			s, err := loadState(lab)
			return err == nil && len(s.Processes) >= 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := testLab(t)
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), upEnv+"="+lab)
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(time.Minute); !reached(lab) && time.Now().Before(deadline); {
				time.Sleep(2 * time.Millisecond)
			}
			child.Process.Kill()
			child.Wait()
			if !reached(lab) {
				t.Fatal("Up did not get that far in a minute")
			}
			if _, err := loadState(lab); err != nil {
				t.Errorf("no state after the crash: %v", err)
			}
			if err := Down(t.Context(), lab); err != nil {
				t.Error(err)
			}
			nothingLeft(t, lab)
		})
	}
}

// TestDownKillsOnlyItsOwn leaves a process alone whose PID the state has with
// another start time, and ends one that lives in a namespace unrecorded.
func TestDownKillsOnlyItsOwn(t *testing.T) {
	lab := testLab(t)
	innocent, stray := exec.Command("sleep", "60"), exec.Command("sleep", "60")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		innocent.Process.Kill()
		innocent.Wait()
	}()
	unlock, err := lockLab(lab)
	if err != nil {
		t.Fatal(err)
	}
	pid := innocent.Process.Pid
	st := &state{Lab: lab, BootID: bootID(), Processes: []process{{PID: pid, StartTime: startTime(pid) - 1}}}
	if err := st.save(); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), lab); err == nil {
		t.Error("Down took a lab that is locked")
	}
	unlock()
	if err := netns.Create(lab + ".node.vrf"); err != nil {
		t.Fatal(err)
	}
	if err := netns.Do(lab+".node.vrf", stray.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	if err := Down(t.Context(), lab); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, lab)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stray process lives")
	}
	if startTime(pid) == 0 {
		t.Error("the innocent process is dead")
	}
}

func TestDownOfNothing(t *testing.T) {
	lab := testLab(t)
	for range 2 {
		if err := Down(t.Context(), lab); err != nil {
			t.Error(err)
		}
	}
	if err := Check(t.Context(), lab, nil, false, Options{}); !errors.Is(err, ErrNoLab) {
		t.Errorf("Check: got %v, want ErrNoLab", err)
	}
	for _, bad := range []string{"", "..", "a/b", "a.b"} {
		if err := Down(t.Context(), bad); err == nil {
			t.Errorf("Down(%q): no error", bad)
		}
	}
}

func TestParseIperf3(t *testing.T) {
	rate, err := parseIperf3([]byte(`{"end":{"sum_received":{"bits_per_second":2.5e9}}}`))
	if err != nil || rate != 2.5 {
		t.Errorf("got %v, %v", rate, err)
	}
	for _, bad := range []string{"", "{}", `{"error":"unable to connect"}`} {
		if _, err := parseIperf3([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseHops(t *testing.T) {
	got := parseHops("traceroute to 10.2.0.10 (10.2.0.10), 8 hops max\n 1  10.1.0.1  0.1 ms  0.1 ms\n 2  * *\n 3  * 10.2.0.10  1 ms !N\n")
	if want := []string{"10.1.0.1", "*", "10.2.0.10"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
