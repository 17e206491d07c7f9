// Package netns makes, enters and removes named network namespaces, as
// `ip netns` does: a name is a bind mount in /run/netns.
//
// Go moves goroutines between threads while a namespace belongs to a thread,
// so everything that must happen inside one goes through Do.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The main thread stays in the namespace that the process was started in, which
// is the one that /proc/PID/ns/net tells: goroutines get other threads.
func init() { runtime.LockOSThread() }

// Dir is where named namespaces are mounted (iproute2's convention).
const Dir = "/run/netns"

// ErrBadName refuses names that iproute2 could not address.
var ErrBadName = errors.New("a namespace name is 1 to 200 characters without '/' and is not '.' or '..'")

// Path returns the file that stands for the namespace called name.
func Path(name string) string { return filepath.Join(Dir, name) }

// Exists reports whether a namespace of that name is mounted.
func Exists(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(Path(name), &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Create makes a new namespace called name with its loopback down. It fails
// with fs.ErrExist if the name is taken.
func Create(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsRune(name, '/') {
		return fmt.Errorf("create namespace %q: %w", name, ErrBadName)
	}
	if err := prepareDir(); err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	f, err := os.OpenFile(Path(name), os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", Path(name), "none", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(Path(name))
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// prepareDir makes Dir a shared mount point, as iproute2 does, so that names
// made here show in other mount namespaces and can be removed from them.
func prepareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", Dir, err)
		}
		err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	return err
}

// Delete removes the name; the namespace itself ends with its last process and
// socket. Deleting what is not there is no error.
func Delete(name string) error {
	if err := unix.Unmount(Path(name), unix.MNT_DETACH); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return nil
}

// Do runs fn inside the namespace called name ("" for the caller's own) on a
// thread of its own. Sockets and files that fn opens stay in the namespace;
// goroutines that fn starts do not.
func Do(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	ns, err := os.Open(Path(name))
	if err != nil {
		return fmt.Errorf("enter namespace %s: %w", name, err)
	}
	defer ns.Close()
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", name, err)
		}
		return fn()
	})
}

// onThread runs fn on a locked thread that is never reused: it dies with its
// goroutine, and the namespace it had entered with it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, see above
		done <- fn()
	}()
	return <-done
}
