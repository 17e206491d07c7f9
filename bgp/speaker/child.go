package speaker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endGrace is how long a speaker whose socket closed may say goodbye to its
// peers.
const endGrace = 2 * time.Second

// child is a running speaker.
type child struct {
	conn net.Conn     // ours
	kill func()       // a speaker that hangs
	end  func() error // closes conn, waits for the speaker, says how it ended
}

// launchProcess starts argv with a socket on FD. The calling thread must
// outlive the process.
func launchProcess(argv []string) (*child, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs} // becomes FD
	// A process group of its own: Ctrl-C is for the edge, which ends sessions
	// in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start speaker: %w", err)
	}
	return &child{conn: ours, kill: func() { cmd.Process.Kill() }, end: func() error {
		ours.Close()
		killer := time.AfterFunc(endGrace, func() { cmd.Process.Kill() })
		defer killer.Stop()
		return cmd.Wait()
	}}, nil
}

// launchHere runs a speaker on goroutines.
func launchHere(log *slog.Logger) (*child, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("make speaker socket: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(conn, log) }()
	return &child{conn: ours, kill: func() { ours.Close() }, end: func() error {
		ours.Close()
		return <-done
	}}, nil
}

func socketpair() (net.Conn, *os.File, error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make speaker socket: %w", err)
	}
	our, their := os.NewFile(uintptr(fd[0]), "speaker"), os.NewFile(uintptr(fd[1]), "edge")
	conn, err := net.FileConn(our)
	err = errors.Join(err, our.Close())
	if err != nil {
		their.Close()
		return nil, nil, fmt.Errorf("make speaker socket: %w", err)
	}
	return conn, their, nil
}
