package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"msee/lab/frr"
)

// The integration tests run msee as a user does: a topology file, the lab
// commands, show --json. Each test has a lab of its own name and leaves
// nothing behind; see lab_test.go.

// buildDir holds what is built for this run.
var buildDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "msee-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return m.Run()
}

// builtMsee builds the program under test once. MSEE_RACE=1 builds it with the
// race detector, which is too slow for the throughput that some tests want.
var builtMsee = sync.OnceValues(func() (string, error) {
	file := filepath.Join(buildDir, "msee")
	args := []string{"build", "-buildvcs=false", "-o", file}
	if racing() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "../cmd/msee")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build msee: %w\n%s", err, out)
	}
	return file, nil
})

func racing() bool { return os.Getenv("MSEE_RACE") == "1" }

// msee returns the path of the program under test.
func msee(t testing.TB) string {
	t.Helper()
	file, err := builtMsee()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// needsLab skips a test where labs cannot run; in CI that is a failure, as a
// test that never runs proves nothing.
func needsLab(t testing.TB) {
	t.Helper()
	if err := labPossible(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("under CI: %v", err)
		}
		t.Skip(err)
	}
}

var labPossible = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root")
	}
	if _, err := frr.Daemons(""); err != nil {
		return err
	}
	for _, tool := range []string{"vtysh", "iperf3", "ping", "traceroute", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (Debian and Ubuntu: scripts/deps.sh --test)", err)
		}
	}
	return nil
})
