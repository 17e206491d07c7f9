package test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"time"

	"msee/netns"
)

// iperf3 sends TCP from one node to another for two seconds, or back if reverse
// is set, and returns the rate at the receiver, 10⁹ bit/s.
func (l *testLab) iperf3(from, at, to string, reverse bool, args ...string) float64 {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-B", to)
	if err := netns.Do(l.ns(at), server.Start); err != nil {
		l.t.Fatalf("iperf3 server at %s: %v", at, err)
	}
	defer server.Wait() // killed by cancel, if it still waits for a client
	defer cancel()
	argv := append([]string{"iperf3", "-J", "-t", "2", "-c", to}, args...)
	if reverse {
		argv = append(argv, "-R")
	}
	var report struct {
		Error string `json:"error"`
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	eventually(l.t, 20*time.Second, "iperf3 server", func() error {
		out, err := l.try(from, argv...)
		if strings.Contains(out, "Connection refused") {
			return errors.New(out) // it does not listen yet
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &report)
		}
		if err != nil || report.Error != "" {
			l.t.Fatalf("iperf3 %s → %s: %v\n%s", from, to, err, out)
		}
		return nil
	})
	rate := report.End.SumReceived.BitsPerSecond / 1e9
	if rate <= 0 {
		l.t.Fatalf("iperf3 %s → %s: nothing arrived", from, to)
	}
	return rate
}
