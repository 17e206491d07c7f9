package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"msee/bgp"
)

// exitCode returns a command's exit status, 0 without error.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// TestCLI wants commands to end as their callers expect, and to say why.
func TestCLI(t *testing.T) {
	l := startLab(t, "testdata/small.yaml")
	before, err := l.session("msee1", "er1-private", "192.168.1.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string // part of what it prints
	}{
		{"show bgp -d LAB.msee1", 0, "192.168.1.1"},
		{"show bgp -d LAB.msee9", 1, "no running instance is called LAB.msee9; running: "},
		{"show circuits -d LAB.msee1", 0, "er1"},
		{"show metrics -d LAB.msee1", 0, `msee_bgp_session_up{neighbor="192.168.1.1",side="customer",vrf="er1-private"} 1`},
		{"show everything", 1, ""},
		{"lab exec --lab LAB ce -- true", 0, ""},
		{"lab exec --lab LAB ce true", 0, ""},
		{"lab exec --lab LAB ce -- sh -c exit${IFS}7", 7, ""},
		{"lab exec --lab LAB ce -- vtysh -H /dev/null -c show${IFS}version", 0, "FRR"},
		{"lab exec --lab LAB msee1.er1-private -- ip addr show cust.100", 0, "192.168.1.2/30"},
		{"lab exec --lab LAB nosuch -- true", 1, `no node "nosuch"`},
		{"lab exec --lab LAB ce -- nosuchcommand", 1, "nosuchcommand"},
		{"lab exec --lab nosuchlab ce -- true", 1, "there is no such lab"},
		{"lab check nosuchlab", 1, "there is no such lab"},
		{"lab up nosuchtopology", 1, "nosuchtopology"},
		{"lab status", 0, "LAB"},
		{"reload -d LAB.msee1", 0, "LAB.msee1: 0 changes"},
		{"reload -d LAB.nosuch", 1, "no running instance"},
		{"gateway --config CONFIG", 1, "run msee edge"},
		{"lab exec --lab LAB msee1 -- MSEE edge --config CONFIG --instance LAB.msee1", 1, "running already"}, // see below
		{"edge", 1, "config"},
		{"frobnicate", 1, "unknown command"},
	} {
		t.Run(c.args, func(t *testing.T) {
			var args []string
			fill := strings.NewReplacer("LAB", l.name, "MSEE", msee(t), "CONFIG", l.configFile("msee1"), "${IFS}", " ")
			for _, a := range strings.Fields(c.args) {
				args = append(args, fill.Replace(a))
			}
			out, err := l.in(t).msee(args...)
			if got, says := exitCode(err), fill.Replace(c.says); got != c.code || !strings.Contains(out, says) {
				t.Errorf("exit status %d, want %d and %q; it says:\n%s", got, c.code, says, out)
			}
			if strings.Contains(out, "panic:") || strings.Contains(out, "goroutine ") {
				t.Errorf("it crashed:\n%s", out)
			}
		})
	}
	// The second edge of that name must have left the first alone.
	l.pings("ce", "192.168.1.2")
	l.pings("msee1.er1-private", "192.168.1.1")
	if s, err := l.session("msee1", "er1-private", "192.168.1.1"); err != nil || s.State != bgp.StateEstablished || s.Flaps != before.Flaps {
		t.Errorf("session: %v, %+v; want it Established as before: %+v", err, s, before)
	}
	for range 2 {
		if out, err := l.msee("lab", "down", l.name); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
	}
	if out, err := l.msee("show", "bgp", "-d", l.ns("msee1")); exitCode(err) != 1 || !strings.Contains(out, "no running instance") {
		t.Errorf("show of a device that has stopped: %v\n%s", err, out)
	}
}

// TestNothingRuns asks where no device can be.
func TestNothingRuns(t *testing.T) {
	needsLab(t)
	// A mount namespace with an empty /run/msee: others' labs may be running.
	script := `mount -t tmpfs none /run && exec "$0" "$@"`
	for _, args := range [][]string{{"show", "bgp"}, {"show", "routes", "--json"}, {"reload"}} {
		cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, msee(t)}, args...)...)
		out, err := cmd.CombinedOutput()
		if exitCode(err) != 1 || !strings.Contains(string(out), "no instance is running") || !strings.Contains(string(out), "msee lab up") {
			t.Errorf("msee %s: %v, want exit status 1 and what to do; it says:\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestCheckCommand runs msee check, and an edge, over bad files: each fault is
// told with its place, all at once. Package config has the whole catalogue.
func TestCheckCommand(t *testing.T) {
	good, err := os.ReadFile(filepath.Join("..", "config", "testdata", "edge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		replace []string // in the good file: old, new, …
		faults  []string // what stands in the line, and part of what is said of it
	}{
		{"good", nil, nil},
		{"unknown key", []string{"bandwidthInMbps: 1000", "bandwithInMbps: 1000"}, []string{"bandwithInMbps", "unknown key"}},
		{"reserved ASN", []string{"peerASN: 4200000001", "peerASN: 65515"}, []string{"peerASN: 65515", "reserved"}},
		{"VLAN clash", []string{"vlanId: 101", "vlanId: 100 #"}, []string{"vlanId: 100 #", "used twice"}},
		{"key", []string{"sharedKey: abc123", "sharedKey: abc-123"}, []string{"sharedKey: abc-123", "special character"}},
		{"prefix", []string{"primaryPeerAddressPrefix: 203.0.113.0/30", "primaryPeerAddressPrefix: 203.0.113.1/30"},
			[]string{"203.0.113.1/30", "want 203.0.113.0/30"}},
		{"not YAML", []string{"ports:", "ports: ["}, []string{"", ""}},
		{"all at once", []string{"role: primary", "role: first", "peerASN: 4200000001", "peerASN: 12076",
			"vlanId: 200", "vlanId: 4095", "bandwidthInMbps: 1000", "bandwidthInMbps: 7"},
			[]string{"role: first", "first", "bandwidthInMbps: 7", "got 7", "peerASN: 12076", "12076", "vlanId: 4095", "4095"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := string(good)
			for i := 0; i < len(c.replace); i += 2 {
				if !strings.Contains(text, c.replace[i]) {
					t.Fatalf("the good file has no %q", c.replace[i])
				}
				text = strings.ReplaceAll(text, c.replace[i], c.replace[i+1])
			}
			file := filepath.Join(t.TempDir(), "edge.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			checkFaults(t, file, c.faults, "check", file)
			if c.faults != nil {
				checkFaults(t, file, c.faults, "edge", "--config", file)
			}
		})
	}
}

func checkFaults(t *testing.T, file string, faults []string, args ...string) {
	t.Helper()
	cmd := exec.Command(msee(t), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	want := 0
	if faults != nil {
		want = 1
	}
	if got := exitCode(err); got != want {
		t.Errorf("msee %s: exit status %d, want %d", args[0], got, want)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(faults); i += 2 {
		line := `\d+`
		if faults[i] != "" {
			line = strconv.Itoa(1 + strings.Count(string(text[:strings.Index(string(text), faults[i])]), "\n"))
		}
		at := regexp.MustCompile(regexp.QuoteMeta(file) + ":" + line + `:\d+: .*` + regexp.QuoteMeta(faults[i+1]))
		if !at.MatchString(stderr.String()) {
			t.Errorf("msee %s: no fault in line %s with %q:\n%s", args[0], line, faults[i+1], stderr.String())
		}
	}
}
