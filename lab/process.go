package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"msee/netns"
)

// process is one that a lab started. PIDs are used again, so the start time is
// part of who it is.
type process struct {
	Node      string `json:"node"`
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks since boot
}

// startTime reads when a process started; 0 if there is none or it is a zombie,
// which needs no killing.
func startTime(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// proc(5): "pid (comm) state ppid …", the start time is field 22; comm may
	// have spaces and brackets in it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 22 - 3
	if len(fields) <= start || fields[state][0] == 'Z' || fields[state][0] == 'X' {
		return 0
	}
	t, _ := strconv.ParseUint(string(fields[start]), 10, 64) // 0 is right for nonsense
	return t
}

func (p process) alive() bool {
	return p.StartTime != 0 && startTime(p.PID) == p.StartTime
}

// signal reaches p or nobody: the descriptor pins the process while its
// identity is checked.
func (p process) signal(sig unix.Signal) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if p.alive() {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0) // gone, or it is not ours to kill
	}
}

// killGrace is how long processes have between SIGTERM and SIGKILL.
const killGrace = 5 * time.Second

// endProcesses ends all processes that find returns, and waits for that; find
// is asked again as they go, for what they started meanwhile. It reports those
// that are still there at the end.
func endProcesses(ctx context.Context, find func() []process) []process {
	told := map[process]bool{}
	for began := time.Now(); ; {
		left := find()
		if len(left) == 0 || time.Since(began) > 2*killGrace || ctx.Err() != nil {
			return left
		}
		for _, p := range left {
			switch {
			case time.Since(began) > killGrace:
				p.signal(unix.SIGKILL)
			case !told[p]:
				told[p] = true
				p.signal(unix.SIGTERM)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

type nsID struct{ dev, ino uint64 }

func namespaceID(path string) (nsID, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nsID{}, false
	}
	return nsID{uint64(st.Dev), st.Ino}, true
}

// residents returns the processes whose network namespace is one of those
// named, except the caller.
func residents(namespaces []string) []process {
	ids := map[nsID]bool{}
	for _, name := range namespaces {
		if id, ok := namespaceID(netns.Path(name)); ok {
			ids[id] = true
		}
	}
	// A name that is not mounted is a file in the host's filesystem and matches
	// nothing; the host's own namespace under a lab's name must not either.
	for _, own := range []string{"/proc/1/ns/net", "/proc/thread-self/ns/net"} {
		if id, ok := namespaceID(own); ok {
			delete(ids, id)
		}
	}
	entries, _ := os.ReadDir("/proc")
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if id, ok := namespaceID("/proc/" + e.Name() + "/ns/net"); ok && ids[id] {
			if p := (process{PID: pid, StartTime: startTime(pid)}); p.StartTime != 0 {
				out = append(out, p)
			}
		}
	}
	return out
}

// labNamespaces returns every namespace of a lab: those named LAB.something,
// which the daemons' own LAB.NODE.VRF are too.
func labNamespaces(lab string) []string {
	entries, _ := os.ReadDir(netns.Dir)
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), lab+".") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}
