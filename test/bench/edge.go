package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"msee/api"
	"msee/lab"
	"msee/netns"
)

// stopTimeout is how long an MSEE may take to end.
const stopTimeout = 10 * time.Second

func (d *bed) stopMSEE() (err error) {
	for _, node := range d.nodes {
		err = errors.Join(err, stopMSEE(node))
	}
	return err
}

func stopMSEE(node string) error {
	pid, err := pidOf(node)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("stop msee: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("stop msee: %w", err)
	}
	for deadline := time.Now().Add(stopTimeout); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("stop msee: process %d does not end", pid)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n == 1 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("stop msee: %w", err)
		}
	}
}

// startMSEE starts it as the lab did.
func (d *bed) startMSEE() (err error) {
	for _, node := range d.nodes {
		err = errors.Join(err, d.startNode(node))
	}
	if d.name == tapBed {
		err = errors.Join(err, plugTaps())
	}
	return err
}

func (d *bed) startNode(node string) error {
	dir, short := filepath.Join(lab.RunDir, "lab", labName), strings.TrimPrefix(node, labName+".")
	log, err := os.OpenFile(filepath.Join(dir, "log", short+".edge.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start msee: %w", err)
	}
	defer log.Close()
	command := "edge"
	if d.gateway() {
		command = "gateway"
	}
	file := d.msee
	if d.router == otherMSEE {
		file = d.other
	}
	cmd := exec.Command(file, command, "--config", filepath.Join(dir, "conf", short+".yaml"), "--instance", node, "--state", "")
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env = append(os.Environ(), d.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	if err := netns.Do(node, cmd.Start); err != nil {
		return fmt.Errorf("start msee: %w", err)
	}
	go cmd.Wait() // only so that it is no zombie
	return joinGroup(cmd.Process.Pid)
}

// gateway reports whether the bed's MSEE is an instance of a gateway.
func (d *bed) gateway() bool { return d.name == untaggedBed || d.name == tapBed }

// pid asks the MSEE who it is.
func (d *bed) pid() (int, error) { return pidOf(router) }

func pidOf(node string) (int, error) {
	status, err := api.NewClient(node).Device()
	return status.PID, err
}
