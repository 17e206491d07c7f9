package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"msee/netns"
)

// Exec runs a command in a node, on the caller's terminal, and returns its exit
// status; -1 with an error if it could not be run. On FRR nodes vtysh and all
// else of FRR find the node's own daemons. NODE may also be a namespace of a
// daemon's, NODE.VRF.
func Exec(lab, node string, argv []string) (int, error) {
	st, err := loadState(lab)
	if err != nil {
		return -1, err
	}
	t, err := st.loadTopology()
	if err != nil {
		return -1, err
	}
	if err := requireRoot(); err != nil {
		return -1, err
	}
	if len(argv) == 0 {
		return -1, errors.New("run a command: none is given")
	}
	n, err := execNode(t, lab, node)
	if err != nil {
		return -1, err
	}
	// Ctrl-C is the command's; we live on to return its exit status. (Ignored,
	// it would be ignored in the command too.)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGINT, unix.SIGQUIT)
	defer signal.Stop(caught)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := enter(lab, n, func() error { return startWithSys(n, cmd) }); err != nil {
		return -1, fmt.Errorf("run %s on %s: %w", argv[0], node, err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1, fmt.Errorf("run %s on %s: %w", argv[0], node, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

func execNode(t *Topology, lab, name string) (*Node, error) {
	if n := t.node(name); n != nil {
		return n, nil
	}
	owner, _, isVRF := strings.Cut(name, ".")
	if isVRF && t.node(owner) != nil && netns.Exists(instance(lab, name)) {
		return &Node{Name: name, Kind: t.node(owner).Kind}, nil
	}
	var names []string
	for _, ns := range labNamespaces(lab) {
		names = append(names, strings.TrimPrefix(ns, lab+"."))
	}
	return nil, fmt.Errorf("lab %s has no node %q: it has %s", lab, name, strings.Join(names, ", "))
}

// startWithSys starts a command that sees the namespace's own /sys, as
// `ip netns exec` has it (/sys/class/net would list the host's links), and the
// node's name as its host's, for prompts.
func startWithSys(n *Node, cmd *exec.Cmd) error {
	if n.Kind != KindFRR { // enter has done it there
		if err := isolate(n.Name); err != nil {
			return err
		}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return cmd.Start()
}
