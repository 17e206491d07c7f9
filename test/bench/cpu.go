package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuUse is how much CPU time everything on the machine has had at one time.
type cpuUse struct {
	at      time.Time
	busy    float64 // of all CPUs, seconds
	steal   float64 // taken by the hypervisor, seconds
	foreign float64 // of processes that are not ours, seconds
}

// ticksPerSecond is USER_HZ, the unit of /proc, on every Linux that Go runs on.
const ticksPerSecond = 100

// takeCPU reads the counters.
func takeCPU() (cpuUse, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuUse{}, fmt.Errorf("read CPU times: %w", err)
	}
	u := cpuUse{at: time.Now()}
	if u.busy, u.steal, err = parseStat(string(stat)); err != nil {
		return cpuUse{}, err
	}
	procs, err := readProcesses()
	if err != nil {
		return cpuUse{}, err
	}
	u.foreign = foreignTime(procs, os.Getpid())
	return u, nil
}

// foreignUntil returns how many cores others used from u until later, the
// hypervisor included.
func (u cpuUse) foreignUntil(later cpuUse) float64 {
	used := later.foreign - u.foreign + later.steal - u.steal
	return max(0, used) / later.at.Sub(u.at).Seconds()
}

// busyUntil returns how many cores were busy, with whatever.
func (u cpuUse) busyUntil(later cpuUse) float64 {
	return (later.busy - u.busy) / later.at.Sub(u.at).Seconds()
}

// parseStat reads the line of all CPUs from /proc/stat (proc(5)), in seconds.
func parseStat(stat string) (busy, steal float64, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("read CPU times: unexpected %q", line)
	}
	var v [8]float64 // user nice system idle iowait irq softirq steal
	for i := range v {
		if v[i], err = strconv.ParseFloat(fields[i+1], 64); err != nil {
			return 0, 0, fmt.Errorf("read CPU times: %w", err)
		}
	}
	return (v[0] + v[1] + v[2] + v[5] + v[6]) / ticksPerSecond, v[7] / ticksPerSecond, nil
}

// process is what /proc/PID/stat says of one.
type process struct {
	parent int
	// time is its own and that of children it has waited for, seconds. A child
	// that ends moves its time to the parent: the sum over all stays.
	time float64
}

// readProcesses reads all that there are; those that end meanwhile are missing.
func readProcesses() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	procs := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parseProcess(data); ok {
			procs[pid] = p
		}
	}
	return procs, nil
}

// parseProcess reads a /proc/PID/stat. The command's name, in brackets, may
// have anything in it, so fields count from the last bracket.
func parseProcess(stat []byte) (process, bool) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const parent, utime, cstime = 4 - 3, 14 - 3, 17 - 3 // proc(5) counts from 1
	if len(fields) <= cstime {
		return process{}, false
	}
	var p process
	var err error
	if p.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return process{}, false
	}
	for _, f := range fields[utime : cstime+1] {
		ticks, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return process{}, false
		}
		p.time += ticks / ticksPerSecond
	}
	return p, true
}

// kthreadd is the parent of the kernel's threads. Their work is whoever's
// traffic it is, ours for the most part.
const kthreadd = 2

// foreignTime adds up the processes that neither are nor descend from self.
func foreignTime(procs map[int]process, self int) float64 {
	ours := descendants(procs, self)
	var sum float64
	for pid, p := range procs {
		if !ours[pid] && pid != kthreadd && p.parent != kthreadd {
			sum += p.time
		}
	}
	return sum
}

// descendants returns root and all below it.
func descendants(procs map[int]process, root int) map[int]bool {
	children := map[int][]int{}
	for pid, p := range procs {
		children[p.parent] = append(children[p.parent], pid)
	}
	found := map[int]bool{}
	for todo := []int{root}; len(todo) > 0; {
		pid := todo[0]
		todo = todo[1:]
		if !found[pid] {
			found[pid] = true
			todo = append(todo, children[pid]...)
		}
	}
	return found
}

// processCPU returns the CPU time that a process has had, all its threads
// together, to the nanosecond: /proc counts ticks.
func processCPU(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
