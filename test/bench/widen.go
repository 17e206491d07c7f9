package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peerBuffer is what an MSEE's packet sockets have for sending, octets.
const peerBuffer = 8 << 20

// widen gives a process's packet sockets large buffers, from outside: Open vSwitch
// leaves them at the system's default of 208 KiB, which holds three superframes,
// and loses the rest. It fails if the process has none.
func widen(pid int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("widen buffers of process %d: %w", pid, err)
	}
	defer unix.Close(process)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("widen buffers: %w", err)
	}
	found := 0
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(target, "socket:") {
			continue // closed meanwhile, or no socket
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(process, n, 0)
		if err != nil {
			return fmt.Errorf("widen buffers: take descriptor %d of process %d: %w", n, pid, err)
		}
		if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_PACKET {
			found++
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, peerBuffer),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, peerBuffer))
			if err != nil {
				unix.Close(fd)
				return fmt.Errorf("widen buffers: %w", err)
			}
		}
		unix.Close(fd)
	}
	if found == 0 {
		return fmt.Errorf("widen buffers: process %d has no packet socket", pid)
	}
	return nil
}
