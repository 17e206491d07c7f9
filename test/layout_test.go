package test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "msee"

// house is the block diagram of docs/design.md, top to bottom. A package may
// import those in rows below its own, and in its own row those to its right.
var house = [][]string{
	{"cmd/msee"},
	{"lab", "lab/frr", "lab/vlanshim", "lab/internal/strict", "web"},
	{"api"},
	{"edge"},
	{"config", "circuit"},
	{"bgp/speaker", "bgp", "bgp/evpn", "macsec/mka"},
	{"dataplane"},
	{"bfd/bfddp", "bfd", "fastpath", "dataplane/fib", "dataplane/gso", "dataplane/guard", "dataplane/port", "macsec", "vlan", "vxlan"},
	{"netns"},
	{"community", "rpsl"}, // what communities mean, and who owns prefixes
}

// tests may import whatever they need; nothing may import them.
var tests = []string{"test", "test/bench", "test/injector", "test/uml", "test/losses", "test/probing", "test/svg"}

// control and forwarding meet in assembly, and nowhere else. Package macsec is
// neither: frames go through it, and the KaY gives it keys. Nor is dataplane/guard,
// which is another process's most of the time.
var (
	control    = []string{"bgp", "bgp/evpn", "bgp/speaker", "macsec/mka"}
	forwarding = []string{"dataplane", "dataplane/fib", "dataplane/gso", "dataplane/port", "fastpath"}
	assembly   = "edge"
)

// strangers are imports that the rows alone would allow.
var strangers = []struct{ from, to, why string }{
	{"lab", "dataplane", "the lab runs msee as a user does, as a process"},
	{"lab", "dataplane/fib", "the lab runs msee as a user does, as a process"},
	{"lab", "dataplane/port", "the lab runs msee as a user does, as a process"},
	{"lab", "bgp/speaker", "the lab runs msee as a user does, as a process"},
}

// libraries says which packages may use which modules outside their tests.
var libraries = map[string][]string{
	"github.com/cilium/ebpf":              {"lab/vlanshim", "edge", "bgp/speaker", "dataplane/port"},
	"github.com/gaissmai/bart":            {"dataplane/fib"},
	"github.com/google/gopacket":          {"lab", "edge", "dataplane"},
	"github.com/prometheus/client_golang": {"api"},
	"github.com/prometheus/common":        {}, // its parser, for tests
	"github.com/prometheus/client_model":  {"api"},
	"golang.org/x/net":                    {"api"},
	"github.com/osrg/gobgp/v3":            {"bgp/speaker"},
	"github.com/songgao/water":            {"edge"},
	"github.com/spf13/cobra":              {"cmd/msee"},
	"github.com/vishvananda/netlink":      {"lab", "lab/vlanshim", "edge", "bgp/speaker", "dataplane/port"},
	"go.yaml.in/yaml/v3":                  {"config", "lab", "lab/internal/strict"},
	"golang.org/x/sys":                    {"lab", "lab/vlanshim", "api", "edge", "bgp/speaker", "dataplane", "dataplane/guard", "dataplane/port", "netns", "cmd/msee"},
	"github.com/vishvananda/netns":        {"edge", "lab", "lab/vlanshim"}, // for netlink handles; package netns does the rest
}

// hotFiles run for every frame: they decode by offset, never into gopacket's
// layer objects.
var hotFiles = []string{"dataplane/pipeline.go", "dataplane/worker.go"}

// source is what this test looks at of a Go file.
type source struct {
	name    string // path in the module, with slashes
	imports []string
}

func (s source) pkg() string  { return path.Dir(s.name) }
func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// TestImportDirection keeps the directory list a block diagram.
func TestImportDirection(t *testing.T) {
	sources, err := readSources("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults(sources) {
		t.Error(fault)
	}
}

// TestImportDirectionRules shows every rule a file that breaks it, and the
// nearest one that does not.
func TestImportDirectionRules(t *testing.T) {
	for _, c := range []struct {
		file, imports string
		fault         string // part of the message; "" for none
	}{
		{"dataplane/worker.go", "msee/vlan", ""},
		{"vlan/vlan.go", "msee/dataplane", "imports upwards"},
		{"config/file.go", "msee/circuit", ""},
		{"circuit/rules.go", "msee/config", "imports upwards"},
		{"edge/edge.go", "msee/bgp msee/dataplane", ""},
		{"bgp/rib.go", "msee/dataplane", "only edge"},
		{"api/api.go", "msee/bgp msee/dataplane/fib", "only edge"},
		{"macsec/mka/kay.go", "msee/dataplane", "only edge"},
		{"api/api_test.go", "msee/bgp msee/dataplane/fib", "only edge"},
		{"lab/up.go", "msee/dataplane/port", "as a process"},
		{"cmd/msee/main.go", "msee/bgp/speaker msee/edge", ""},
		{"attic/attic.go", "fmt", "not in the table"},
		{"edge/edge.go", "msee/attic", "not in the table"},
		{"edge/edge.go", "msee/test", "not in the table"},
		{"test/edge_test.go", "msee/bgp/speaker msee/dataplane", ""},
		{"edge/edge.go", "github.com/osrg/gobgp/v3/pkg/server", "not allowed"},
		{"bgp/speaker/pool.go", "github.com/osrg/gobgp/v3/pkg/server", ""},
		{"bgp/speaker/pool.go", "github.com/osrg/gobgp/v4/pkg/server", "unknown module"},
		{"vlan/vlan.go", "github.com/google/gopacket/layers", "not allowed"},
		{"vlan/vlan_test.go", "github.com/google/gopacket/layers", ""},
		{"dataplane/icmp.go", "github.com/google/gopacket", ""},
		{"dataplane/pipeline.go", "github.com/google/gopacket", "every frame"},
	} {
		got := faults([]source{{c.file, strings.Fields(c.imports)}})
		switch {
		case c.fault == "" && len(got) > 0:
			t.Errorf("%s with %s: unexpected fault %q", c.file, c.imports, got)
		case c.fault != "" && !strings.Contains(strings.Join(got, "\n"), c.fault):
			t.Errorf("%s with %s: faults %q, want one with %q", c.file, c.imports, got, c.fault)
		}
	}
}

// faults returns what breaks the rules, in the order of the files.
func faults(sources []source) []string {
	var out []string
	sides := map[string][2]bool{} // package → sees control, sees forwarding
	for _, s := range sources {
		if slices.Contains(tests, s.pkg()) {
			continue
		}
		if rank(s.pkg()) < 0 {
			out = append(out, fmt.Sprintf("%s: package %s is not in the table of test/layout_test.go; add it where it belongs", s.name, s.pkg()))
			continue
		}
		side := sides[s.pkg()]
		for _, imp := range append(s.imports, module+"/"+s.pkg()) {
			name, own := strings.CutPrefix(imp, module+"/")
			side[0] = side[0] || own && slices.Contains(control, name)
			side[1] = side[1] || own && slices.Contains(forwarding, name)
		}
		sides[s.pkg()] = side
		for _, imp := range s.imports {
			if fault := importFault(s, imp); fault != "" {
				out = append(out, s.name+": "+fault)
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(sides)) {
		if sides[pkg] == [2]bool{true, true} && pkg != assembly {
			out = append(out, fmt.Sprintf("package %s sees both control and forwarding; only %s may", pkg, assembly))
		}
	}
	return out
}

// importFault says what is wrong with one import, "" if nothing is.
func importFault(s source, imp string) string {
	name, own := strings.CutPrefix(imp, module+"/")
	switch {
	case own:
		return ownFault(s.pkg(), name)
	case strings.Contains(strings.Split(imp, "/")[0], "."):
		return libraryFault(s, imp)
	}
	return "" // standard library
}

func ownFault(from, to string) string {
	if from == to { // an external test of the package
		return ""
	}
	if rank(to) < 0 {
		return fmt.Sprintf("imports %s, which is not in the table of test/layout_test.go", to)
	}
	if rank(to) < rank(from) {
		return fmt.Sprintf("%s imports upwards, from %s", from, to)
	}
	for _, r := range strangers {
		if r.from == from && r.to == to {
			return fmt.Sprintf("%s imports %s: %s", from, to, r.why)
		}
	}
	return ""
}

func libraryFault(s source, imp string) string {
	for lib, users := range libraries {
		if imp != lib && !strings.HasPrefix(imp, lib+"/") {
			continue
		}
		switch {
		case s.isTest():
			return ""
		case !slices.Contains(users, s.pkg()):
			return fmt.Sprintf("%s is not allowed in %s; only in %v", imp, s.pkg(), users)
		case lib == "github.com/google/gopacket" && slices.Contains(hotFiles, s.name):
			return imp + " in a file that runs for every frame"
		}
		return ""
	}
	return fmt.Sprintf("%s is of an unknown module; add it to libraries in test/layout_test.go with the packages that may use it", imp)
}

// rank is a package's place in the house, -1 if it has none.
func rank(pkg string) int {
	return slices.Index(slices.Concat(house...), pkg)
}

// readSources parses the imports of every Go file under root.
func readSources(root string) ([]source, error) {
	var out []source
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "out") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("parse imports: %w", err)
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		s := source{name: filepath.ToSlash(rel)}
		for _, imp := range parsed.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: import %s: %w", file, imp.Path.Value, err)
			}
			s.imports = append(s.imports, name)
		}
		out = append(out, s)
		return nil
	})
	return out, err
}
