package lab

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it); got:\n%s", file, got)
	}
}

func TestDiagram(t *testing.T) {
	topo, err := Load("default")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Diagram(&out, topo); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/default.diagram", out.String())
}

func TestMermaid(t *testing.T) {
	topo, err := Load("default")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Mermaid(&out, topo); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/default.mermaid", out.String())
}

// TestOddDiagrams draws what does not fit into layers.
func TestOddDiagrams(t *testing.T) {
	topo := parse(t, `
name: odd
nodes: [{name: a, kind: host}, {name: b, kind: host}, {name: c, kind: host}, {name: alone, kind: host}]
links: [{ends: [a:x, b:x]}, {ends: [a:y, c:x]}, {ends: [b:z, c:z]}, {ends: [a:p, a:q]}]
`)
	var out strings.Builder
	if err := Diagram(&out, topo); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"alone · host", "also b:z ─ c:z", "also a:p ─ a:q"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
