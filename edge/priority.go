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
// other processes'. Without the right to, it changes nothing and says so.
//
// Where the kernel groups processes by session, this counts within a session
// only (sched(7), autogroup). The session's own group is left alone: put before
// others, a forwarding thread that gives way with sched_yield while it looks for
// the next batch gives way to nobody, and one TCP flow on two processors cost
// 1.7 times as much CPU and lost a quarter of its rate.
func Hasten() error { return setThreadsNice(processNice) }

// Unhasten takes Hasten back, in a child that has inherited it.
func Unhasten() error { return setThreadsNice(0) }

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
