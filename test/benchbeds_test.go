package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBenchBeds makes one short run on each of the bench's beds, and beside each
// other dataplane that is installed, so that no row rots: a row through which
// nothing comes fails. What it measures says nothing.
func TestBenchBeds(t *testing.T) {
	needsLab(t)
	bench, out := filepath.Join(t.TempDir(), "bench"), filepath.Join(t.TempDir(), "out.json")
	if text, err := exec.Command("go", "build", "-buildvcs=false", "-o", bench, "./bench").CombinedOutput(); err != nil {
		t.Fatalf("build the bench: %v\n%s", err, text)
	}
	args := []string{"-msee", msee(t), "-beds", "-rounds", "1", "-seconds", "1", "-retries", "0", "-out", out}
	if _, err := exec.LookPath("dpdk-testpmd"); err == nil {
		args = append(args, "-peers")
	}
	if !canBuildWireguard() {
		t.Log("not beside wireguard-go: its module cannot be had here")
		args = append(args, "-rows", "^[^m]")
	}
	cmd := exec.Command(bench, args...)
	cmd.Dir = ".." // as make runs it
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var results []struct{ Name string }
	if err := json.Unmarshal(data, &results); err != nil {
		t.Fatal(err)
	}
	if len(results) < 10 {
		t.Errorf("only the rows %v", results)
	}
}

// canBuildWireguard reports whether the module is in the cache or can be fetched.
func canBuildWireguard() bool {
	return exec.Command("go", "list", "-C", "bench/wireguard", "-deps", "golang.zx2c4.com/wireguard").Run() == nil
}
