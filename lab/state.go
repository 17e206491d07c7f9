package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// state is what Down and the others must know of a lab, kept in state.json.
type state struct {
	Lab        string    `json:"lab"`
	Topology   string    `json:"topology"` // file name, for messages
	Started    time.Time `json:"started"`
	BootID     string    `json:"bootId"` // PIDs and start times mean nothing in another
	Ready      bool      `json:"ready"`  // it has converged once
	Namespaces []string  `json:"namespaces"`
	Processes  []process `json:"processes"`
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // "" matches "" only
	return strings.TrimSpace(string(id))
}

// save replaces state.json in one step, so that a crash leaves the old or the
// new one.
func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state of lab %s: %w", s.Lab, err)
	}
	file := filepath.Join(labDir(s.Lab), "state.json")
	if err := os.WriteFile(file+".new", append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write state of lab %s: %w", s.Lab, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write state of lab %s: %w", s.Lab, err)
	}
	return nil
}

// loadState reads a lab's state; ErrNoLab if there is none.
func loadState(lab string) (*state, error) {
	if err := CheckName(lab); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(labDir(lab), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s: %w", lab, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of lab %s: %w", lab, err)
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read state of lab %s: %w", lab, err)
	}
	return s, nil
}

// loadTopology reads back what a lab was made from.
func (s *state) loadTopology() (*Topology, error) {
	data, err := os.ReadFile(filepath.Join(labDir(s.Lab), "topology.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read topology of lab %s: %w", s.Lab, err)
	}
	return Parse(s.Topology, data)
}

// Names returns the labs that have left anything in the run directory.
func Names() []string {
	entries, _ := os.ReadDir(labsDir()) // none if it is not there
	var names []string
	for _, e := range entries {
		if e.IsDir() && nameRE.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// lockLab takes the lab for the caller alone and makes its directory. The lock
// ends with unlock or the process; a child that the process was just starting
// when it was killed keeps it until its exec, so a little patience is in order.
func lockLab(lab string) (unlock func(), err error) {
	dir := labDir(lab)
	for patience := time.Now().Add(time.Second); ; {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("lock lab %s: %w", lab, err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another's Down took it away in between
		}
		if err != nil {
			return nil, fmt.Errorf("lock lab %s: %w", lab, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if time.Now().Before(patience) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return nil, fmt.Errorf("lock lab %s: another msee lab command is building or removing it", lab)
		}
		if sameFile(f, dir) {
			return func() { f.Close() }, nil
		}
		f.Close() // we locked one that Down has removed meanwhile
	}
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
