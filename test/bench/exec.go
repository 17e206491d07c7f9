package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"msee/netns"
)

// output runs a command in a node and returns what it printed, also if it
// failed.
func output(ctx context.Context, node string, argv ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := netns.Do(node, cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("run %s: %w", argv[0], err)
	}
	return out.Bytes(), nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// congestionControl is TCP's of all that iperf3 sends, whoever forwards. The host's own
// may be BBR, and that paces a flow by its model of the path: the row would say more of
// the model than of the router.
const congestionControl = "cubic"

// iperf runs iperf3 from the customer to the VNet, on the addresses of p, for
// that many seconds, with a server of its own.
func iperf(ctx context.Context, p path, seconds int, args ...string) (*iperfReport, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+20)*time.Second)
	defer cancel()
	server := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-B", p.to)
	if err := netns.Do(vnet, server.Start); err != nil {
		return nil, fmt.Errorf("start iperf3 server: %w", err)
	}
	defer server.Wait() // killed by cancel, if it still waits for a client
	defer cancel()
	argv := append([]string{"iperf3", "-J", "-c", p.to, "-B", p.from, "-t", fmt.Sprint(seconds)}, args...)
	if !slices.Contains(args, "-u") {
		argv = append(argv, "-C", congestionControl) // the far end hears of it
	}
	for {
		out, runErr := output(ctx, customer, argv...)
		report, err := parseIperf(out)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errRefused): // the server does not listen yet
			time.Sleep(20 * time.Millisecond)
		case err != nil || runErr != nil:
			return nil, errors.Join(err, runErr)
		default:
			return report, nil
		}
	}
}

// autogroupNice is how /proc/PID/autogroup ends.
var autogroupNice = regexp.MustCompile(`nice (-?\d+)\s*$`)

// joinGroup gives a process's session the precedence that ours has. Where the kernel
// groups processes by session (sched(7), autogroup), a router that is started in one
// of its own would else stand behind, or before, the senders and receivers.
func joinGroup(pid int) error {
	ours, err := os.ReadFile("/proc/self/autogroup")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it does not
	}
	if err != nil {
		return err
	}
	nice, err := parseAutogroup(ours)
	if nice == nil || err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), nice, 0)
}

// parseAutogroup reads the precedence from what /proc/PID/autogroup says, nil if it
// says nothing: what has never left the session of process 1 is in no such group.
func parseAutogroup(text []byte) (nice []byte, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	m := autogroupNice.FindSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("read /proc/self/autogroup: %q, want \"/autogroup-N nice N\"", text)
	}
	return m[1], nil
}
