package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// runCheck runs one check; what goes wrong is in the result.
func runCheck(ctx context.Context, lab string, t *Topology, c *Probe) CheckResult {
	r := CheckResult{Type: c.Type, From: c.From, To: c.To}
	var err error
	switch c.Type {
	case CheckPing:
		r.Detail, err = ping(ctx, lab, t.node(c.From), c.To)
	case CheckTraceroute:
		r.Detail, err = traceroute(ctx, lab, t.node(c.From), c)
	case CheckIperf3:
		r.Gbps, r.Detail, err = iperf3(ctx, lab, t, c)
	case CheckIsolation:
		r.Detail, err = isolation(ctx, lab, t, c)
	}
	if err != nil {
		r.Detail = err.Error()
		var missing *exec.Error
		if errors.As(err, &missing) {
			r.Detail += fmt.Sprintf(" (Debian and Ubuntu: apt-get install %s)", aptPackage[missing.Name])
		}
	}
	r.OK = err == nil
	return r
}

var aptPackage = map[string]string{"ping": "iputils-ping", "traceroute": "traceroute", "iperf3": "iperf3"}

var (
	pingLoss = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
	pingRTT  = regexp.MustCompile(`rtt min/avg/max/mdev = [\d.]+/([\d.]+)/`)
)

// pingWarmUp is how many lone echo requests may go unanswered while every hop
// resolves the next one's address.
const pingWarmUp = 6

// ping warms the path up, then wants each of five echo requests answered.
func ping(ctx context.Context, lab string, from *Node, to netip.Addr) (string, error) {
	for try := 1; ; try++ {
		_, err := output(ctx, lab, from, "ping", "-n", "-c", "1", "-W", "1", to.String())
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || ctx.Err() != nil {
			return "", err
		}
		if try == pingWarmUp {
			return "", fmt.Errorf("none of %d answered", try)
		}
	}
	out, err := output(ctx, lab, from, "ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", to.String())
	loss := pingLoss.FindSubmatch(out)
	if loss == nil {
		return "", cmpOr(err, errors.New("ping printed no statistics"))
	}
	detail := fmt.Sprintf("%s of %s answered", loss[2], loss[1])
	if string(loss[2]) != string(loss[1]) {
		return "", errors.New(detail)
	}
	if rtt := pingRTT.FindSubmatch(out); rtt != nil {
		detail += fmt.Sprintf(", %s ms", rtt[1])
	}
	return detail, nil
}

// traceroute wants one of the check's via addresses among the hops.
func traceroute(ctx context.Context, lab string, from *Node, c *Probe) (string, error) {
	out, err := output(ctx, lab, from, "traceroute", "-n", "-q", "2", "-w", "1", "-m", "8", c.To.String())
	if err != nil {
		return "", err
	}
	hops := parseHops(string(out))
	if len(hops) == 0 {
		return "", errors.New("traceroute printed no hops")
	}
	path, arrived, seen := strings.Join(hops, " → "), hops[len(hops)-1] == c.To.String(), false
	for _, via := range c.Via {
		for _, hop := range hops {
			seen = seen || hop == via.String()
		}
	}
	if !arrived || !seen {
		return "", fmt.Errorf("%s: want %s after one of %v", path, c.To, c.Via)
	}
	return path, nil
}

// parseHops returns the first address of each line of traceroute's, "*" if no
// router answered.
func parseHops(out string) (hops []string) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if _, err := strconv.Atoi(fields[0]); err != nil {
			continue // the headline
		}
		hop := "*"
		for _, f := range fields[1:] {
			if addr, err := netip.ParseAddr(f); err == nil {
				hop = addr.String()
				break
			}
		}
		hops = append(hops, hop)
	}
	return hops
}

const defaultIperfSeconds = 2

// iperf3 measures TCP from the check's From to its At, and back.
func iperf3(ctx context.Context, lab string, t *Topology, c *Probe) (gbps []float64, detail string, err error) {
	seconds := c.Seconds
	if seconds == 0 {
		seconds = defaultIperfSeconds
	}
	for _, reverse := range []bool{false, true} {
		rate, err := iperf3Run(ctx, lab, t, c, seconds, reverse)
		if err != nil {
			return nil, "", err
		}
		gbps = append(gbps, rate)
	}
	return gbps, fmt.Sprintf("TCP %.2f Gb/s, back %.2f Gb/s", gbps[0], gbps[1]), nil
}

// iperf3Run starts a server for one test and a client.
func iperf3Run(ctx context.Context, lab string, t *Topology, c *Probe, seconds int, reverse bool, options ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+15)*time.Second)
	defer cancel()
	server := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-B", c.To.String())
	if err := enter(lab, t.node(c.At), server.Start); err != nil {
		return 0, err
	}
	defer server.Wait() // killed by cancel, if it still waits for a client
	defer cancel()
	argv := append([]string{"iperf3", "-J", "-c", c.To.String(), "-t", strconv.Itoa(seconds)}, options...)
	if reverse {
		argv = append(argv, "-R")
	}
	for try := 0; ; try++ {
		out, err := output(ctx, lab, t.node(c.From), argv...)
		rate, parseErr := parseIperf3(out)
		if parseErr == nil && err == nil {
			return rate, nil
		}
		// The server may not listen yet.
		refused := parseErr != nil && strings.Contains(parseErr.Error(), "refused")
		if !refused || try == 20 || ctx.Err() != nil {
			return 0, cmpOr(parseErr, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func cmpOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// parseIperf3 returns the received rate in 10⁹ bit/s, or iperf3's own error.
func parseIperf3(data []byte) (float64, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(data, &report); err != nil {
		return 0, fmt.Errorf("read iperf3 report: %w", err)
	}
	if report.Error != "" {
		return 0, errors.New("iperf3: " + report.Error)
	}
	rate := report.End.SumReceived.BitsPerSecond / 1e9
	if rate <= 0 {
		return 0, errors.New("iperf3: nothing arrived")
	}
	return rate, nil
}
