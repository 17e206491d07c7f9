package lab

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"msee/lab/internal/strict"
)

//go:embed topologies/*.yaml
var builtin embed.FS

// DefaultTopology is the one taken when none is named.
const DefaultTopology = "default"

// Topologies returns the names of those that are built in.
func Topologies() []string {
	files, _ := fs.Glob(builtin, "topologies/*.yaml") // the pattern is good
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), ".yaml")
	}
	return files
}

// Load reads a topology: a built-in name, a file, or "" for the default. What
// has a slash or ends in .yaml is a file.
func Load(nameOrFile string) (*Topology, error) {
	if nameOrFile == "" {
		nameOrFile = DefaultTopology
	}
	if strings.Contains(nameOrFile, "/") || strings.HasSuffix(nameOrFile, ".yaml") {
		data, err := os.ReadFile(nameOrFile)
		if err != nil {
			return nil, fmt.Errorf("read topology: %w", err)
		}
		return Parse(nameOrFile, data)
	}
	data, err := builtin.ReadFile("topologies/" + nameOrFile + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("no topology is called %q: there are %s; a file is given by its path",
			nameOrFile, strings.Join(Topologies(), ", "))
	}
	return Parse(nameOrFile+".yaml", data)
}

// Parse reads and checks a topology; file is only for messages. The error
// joins all faults, each with file, line and column.
func Parse(file string, data []byte) (*Topology, error) {
	t := &Topology{file: file, source: data}
	if err := strict.Decode(file, data, t); err != nil {
		return nil, err
	}
	v := &validator{t: t}
	v.topology()
	if len(v.faults) > 0 {
		return nil, errors.Join(v.faults...)
	}
	return t, nil
}
