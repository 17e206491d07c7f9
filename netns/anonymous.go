package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Anonymous is a network namespace without a name: it ends with its last
// descriptor and socket, and so with its process.
type Anonymous struct{ f *os.File }

// NewAnonymous makes one, with its loopback down.
func NewAnonymous() (*Anonymous, error) {
	var a Anonymous
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		a.f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// Do is [Do] inside a.
func (a *Anonymous) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(a.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter anonymous namespace: %w", err)
		}
		return fn()
	})
}

// Close forgets the namespace; its sockets live on.
func (a *Anonymous) Close() error { return a.f.Close() }
