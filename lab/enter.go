package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"msee/lab/frr"
	"msee/netns"
)

// enter calls fn where a node's programs run: in its network namespace and, on
// FRR nodes, with the node's own directories mounted where FRR looks. That
// leaves daemons and vtysh with their default paths, the same in every version,
// and keeps them away from an FRR that the host runs itself. What fn starts
// stays there.
func enter(lab string, n *Node, fn func() error) error {
	return netns.Do(instance(lab, n.Name), func() error {
		if n.Kind == KindFRR {
			if err := isolate(n.Name); err != nil {
				return fmt.Errorf("enter node %s: %w", n.Name, err)
			}
			if err := mountFRR(lab, n.Name); err != nil {
				return fmt.Errorf("enter node %s: %w", n.Name, err)
			}
		}
		return fn()
	})
}

// isolate gives the calling thread, which must be a locked one that nobody
// uses again, mounts and a host name of its own. The mounts are slaves of the
// host's: a namespace that is removed there must not live on here.
func isolate(hostname string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

func frrDir(lab, node, what string) string {
	return filepath.Join(labDir(lab), "frr", node, what)
}

// frrMounts says which of a node's directories stands for which of FRR's.
var frrMounts = []struct{ what, at string }{
	{"run", frr.RunDir}, {"etc", frr.EtcDir}, {"lib", frr.LibDir},
}

// mountFRR mounts a node's directories over FRR's; the calling thread must have
// mounts of its own.
func mountFRR(lab, node string) error {
	for _, m := range frrMounts {
		err := unix.Mount(frrDir(lab, node, m.what), m.at, "", unix.MS_BIND, "")
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && m.what == "lib") { // FRR 8 has none
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

// makeFRRDirs makes a node's FRR directories with its bgpd.conf, owned by the
// user that the daemons become.
func makeFRRDirs(lab string, n *Node) error {
	uid, gid, err := frrUser()
	if err != nil {
		return err
	}
	for _, m := range frrMounts {
		dir := frrDir(lab, n.Name, m.what)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make FRR's directories: %w", err)
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return fmt.Errorf("make FRR's directories: %w", err)
		}
	}
	// The mount points are the package's; /run's may not have been made yet.
	for _, at := range []string{frr.RunDir, frr.EtcDir} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("make FRR's directories: %w", err)
		}
	}
	for name, text := range map[string]string{
		"bgpd.conf":  frrConfig(n).BGPD(),
		"bfdd.conf":  frrConfig(n).BFDD(),
		"vtysh.conf": "no service integrated-vtysh-config\n",
	} {
		file := filepath.Join(frrDir(lab, n.Name, "etc"), name)
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			return fmt.Errorf("write %s of %s: %w", name, n.Name, err)
		}
		if err := os.Chown(file, uid, gid); err != nil {
			return fmt.Errorf("write %s of %s: %w", name, n.Name, err)
		}
	}
	return nil
}

func frrUser() (uid, gid int, err error) {
	u, err := user.Lookup("frr")
	if err != nil {
		return 0, 0, frr.ErrNotInstalled
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

func frrConfig(n *Node) *frr.Config {
	c := &frr.Config{Hostname: n.Name, Extra: n.FRRConfig}
	b := n.BGP
	if b == nil {
		return c
	}
	c.ASN, c.RouterID, c.Networks = b.ASN, b.RouterID, b.Networks
	c.KeepaliveSeconds, c.HoldSeconds, c.MaximumPaths = b.KeepaliveSeconds, b.HoldSeconds, b.MaximumPaths
	if b.BFD != nil {
		c.BFD = &frr.BFD{IntervalMilliseconds: b.BFD.IntervalMilliseconds, Multiplier: b.BFD.Multiplier}
	}
	for _, p := range b.Neighbors {
		c.Neighbors = append(c.Neighbors, frr.Neighbor{Address: p.Address, RemoteAS: p.RemoteAS, Password: p.Password, EVPN: p.EVPN})
	}
	return c
}

// output runs a command in a node and returns what it printed. A command that
// fails is an error with what it complained about.
func output(ctx context.Context, lab string, n *Node, argv ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, "/"
	if err := enter(lab, n, cmd.Start); err != nil {
		return nil, fmt.Errorf("run %s on %s: %w", argv[0], n.Name, err)
	}
	if err := cmd.Wait(); err != nil {
		said := bytes.TrimSpace(stderr.Bytes())
		if len(said) == 0 {
			said = bytes.TrimSpace(stdout.Bytes())
		}
		return stdout.Bytes(), fmt.Errorf("run %s on %s: %w: %s", argv[0], n.Name, err, said)
	}
	return stdout.Bytes(), nil
}

// frrRunner runs vtysh where a node's FRR is.
func frrRunner(lab string, n *Node) frr.Runner {
	return func(ctx context.Context, argv ...string) ([]byte, error) {
		return output(ctx, lab, n, argv...)
	}
}
