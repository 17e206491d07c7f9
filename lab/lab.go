// Package lab builds topologies of network namespaces around the msee binary:
// customer edges with FRR, MSEEs, VNet gateways, hosts and switches, and proves
// that traffic runs between them.
//
// A lab is known by its name; a node NODE of lab LAB is the network namespace
// LAB.NODE. All that exists of a lab is in its namespaces and below
// /run/msee/lab/LAB, so that Down can remove it whatever happened before:
//
//	state.json         what was made, written before it is made
//	topology.yaml      from what
//	conf/NODE.yaml     configuration of msee and gateway nodes
//	frr/NODE/{run,etc,lib}  what a node's FRR sees as /run/frr, /etc/frr, /var/lib/frr
//	log/NODE.DAEMON.log
//
// One process at a time changes a lab (a lock on its directory); any number may
// look. Root is needed throughout.
package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// RunDir is where daemons and labs keep what does not outlive a boot.
const RunDir = "/run/msee"

// Options say how a lab is built and looked at. The zero value is useful.
type Options struct {
	// Name is the lab's name, "" for the topology's.
	Name string
	// Binary is the msee executable, "" for the running one.
	Binary string
	// Force takes a lab of that name down first.
	Force bool
	// Timeout is how long Up waits for convergence, 0 for DefaultTimeout.
	Timeout time.Duration
	// Progress gets a line per step, nil for none.
	Progress io.Writer
	// Status and Routes ask msee daemons; without them only FRR is asked.
	Status DeviceStatus
	Routes DeviceRoutes
	// Devices is for Compare.
	Devices Devices
}

// DefaultTimeout is how long Up waits for all sessions and prefixes.
const DefaultTimeout = 90 * time.Second

// DeviceStatus asks the msee daemon called instance for its BGP sessions.
type DeviceStatus func(instance string) ([]SessionState, error)

// SessionState is one BGP session of a device.
type SessionState struct {
	Node     string        `json:"node"`          // filled in by the lab
	VRF      string        `json:"vrf,omitempty"` // "" on FRR
	Peer     netip.Addr    `json:"peer"`
	PeerAS   uint32        `json:"peerAS"`
	State    string        `json:"state"` // RFC 4271 §8.2.2; "Disabled" is not waited for
	Up       time.Duration `json:"up"`    // since it is Established, nanoseconds
	Received int           `json:"received"`
	Sent     int           `json:"sent"`
	Reason   string        `json:"reason,omitempty"` // why it is not Established
}

// DeviceRoutes asks the msee daemon called instance for the sizes of its tables.
type DeviceRoutes func(instance string) ([]TableState, error)

// TableState is how many prefixes a routing table has.
type TableState struct {
	Node string `json:"node"`          // filled in by the lab
	VRF  string `json:"vrf,omitempty"` // "" on FRR
	IPv4 int    `json:"ipv4"`
	IPv6 int    `json:"ipv6"`
}

// Errors that callers tell apart.
var (
	ErrRunning      = errors.New("the lab is already there")
	ErrNoLab        = errors.New("there is no such lab")
	ErrNotConverged = errors.New("the lab did not converge")
	ErrCheckFailed  = errors.New("checks failed")
)

func labsDir() string { return filepath.Join(RunDir, "lab") }

func labDir(lab string) string { return filepath.Join(labsDir(), lab) }

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root: namespaces, links and raw sockets (use sudo)")
	}
	return nil
}

// progress writes a line per step with the time since the beginning.
type progress struct {
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress {
	if w == nil {
		w = io.Discard
	}
	return &progress{w, time.Now()}
}

func (p *progress) step(format string, args ...any) {
	fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}
