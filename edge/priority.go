package edge

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A router that is late for BFD is taken for dead, however busy the machine. So
// forwarding threads go before all that is in no hurry; and so does the process
// around them, a little behind: the garbage collector stops all its threads at
// times, forwarding too, for as long as the one that does it is kept waiting.
//
// processNice is behind the forwarding threads', which set their own. Nice values
// rather than a real-time class: threads with too much to do do not lock the
// others out.
const processNice = -15

// Hasten puts the process's threads, and those that they will start, before
// other processes', and its session before others. Without the right to, it changes nothing and says so.
func Hasten() error { return setNice(processNice) }

// Unhasten takes Hasten back, in a child that has inherited it. It stays before
// other sessions' processes, as one with its parent.
func Unhasten() error { return setThreadsNice(0) }

func setNice(nice int) error {
	// Where the kernel groups processes by session, nice values count within a
	// session only, and the group has one of its own (sched(7), autogroup).
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set priority of the session: %w", err)
	}
	return setThreadsNice(nice)
}

func setThreadsNice(nice int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set priority: %w", err)
		}
	}
	return nil
}
