package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"msee/lab/frr"
)

// stateDisabled is a session that its configuration keeps down.
const stateDisabled = "Disabled"

// survey is what all nodes say of their sessions and routes at one time.
type survey struct {
	Sessions []SessionState
	Tables   []TableState
	// Missing says, a line each, what keeps the lab from being converged.
	Missing []string
	// Silent says, a line each, which Established sessions have told nothing.
	Silent []string
	// Dead says, a line each, which daemons have ended.
	Dead []string
}

func (s *survey) miss(format string, args ...any) {
	s.Missing = append(s.Missing, fmt.Sprintf(format, args...))
}

// established counts the sessions that are, and those that should be.
func (s *survey) established() (up, want int) {
	for _, x := range s.Sessions {
		if x.State == frr.Established {
			up++
		}
		if x.State != stateDisabled {
			want++
		}
	}
	return up, want
}

// takeSurvey asks every node.
func takeSurvey(ctx context.Context, st *state, t *Topology, o *Options) *survey {
	s := &survey{}
	for _, p := range st.Processes {
		if !p.alive() {
			s.Dead = append(s.Dead, fmt.Sprintf("%s on %s has ended: %s", p.Name, p.Node, lastLog(st.Lab, p)))
		}
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		switch {
		case n.Kind == KindFRR && n.BGP != nil:
			s.frr(ctx, st.Lab, n)
		case n.Kind == KindMSEE || n.Kind == KindGateway:
			s.device(st.Lab, t, n, o)
		}
	}
	return s
}

// lastLog returns the last line that a daemon wrote.
func lastLog(lab string, p process) string {
	file := logFile(lab, p.Node, p.Name)
	data, _ := os.ReadFile(file) // a missing log is an empty one
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return fmt.Sprintf("%q (see %s)", lines[len(lines)-1], file)
}

func (s *survey) frr(ctx context.Context, lab string, n *Node) {
	run := frrRunner(lab, n)
	sessions, err := frr.Sessions(ctx, run)
	if err != nil {
		s.miss("%s: %v", n.Name, err)
		return
	}
	for _, x := range sessions {
		state := SessionState{Node: n.Name, Peer: x.Peer, PeerAS: x.PeerAS, State: x.State,
			Up: x.Up, Received: x.Received, Sent: x.Sent}
		if x.State != frr.Established {
			state.Reason = diagnose(lab, n, x)
			s.miss("%s: session to %s is %s: %s", n.Name, x.Peer, x.State, state.Reason)
		}
		s.Sessions = append(s.Sessions, state)
	}
	if len(sessions) < len(n.BGP.Neighbors) {
		s.miss("%s: bgpd knows %d of %d neighbours", n.Name, len(sessions), len(n.BGP.Neighbors))
	}
	s.frrRoutes(ctx, n, run)
}

func (s *survey) frrRoutes(ctx context.Context, n *Node, run frr.Runner) {
	paths := map[netip.Prefix]int{}
	table := TableState{Node: n.Name}
	for _, ipv6 := range []bool{false, true} {
		family, err := frr.Paths(ctx, run, ipv6)
		if err != nil {
			s.miss("%s: %v", n.Name, err)
			return
		}
		for prefix, count := range family {
			paths[prefix] = count
		}
		if ipv6 {
			table.IPv6 = len(family)
		} else {
			table.IPv4 = len(family)
		}
	}
	s.Tables = append(s.Tables, table)
	for _, e := range n.BGP.Expect {
		if want := max(e.Paths, 1); paths[e.Prefix] < want {
			s.miss("%s: %d of %d paths to %s", n.Name, paths[e.Prefix], want, e.Prefix)
		}
	}
}

// device asks an msee daemon, if there is a way to.
func (s *survey) device(lab string, t *Topology, n *Node, o *Options) {
	if o.Status == nil {
		return
	}
	sessions, err := o.Status(instance(lab, n.Name))
	if err != nil {
		s.miss("%s: %v", n.Name, err)
		return
	}
	if len(sessions) == 0 && t.isRouter(n) {
		s.miss("%s: no BGP sessions yet", n.Name)
	}
	for _, x := range sessions {
		x.Node = n.Name
		s.Sessions = append(s.Sessions, x)
		if x.State != frr.Established && x.State != stateDisabled {
			s.miss("%s: session to %s (%s) is %s: %s", n.Name, x.Peer, x.VRF, x.State, orUnknown(x.Reason))
		} else if x.State == frr.Established && x.Received == 0 {
			s.Silent = append(s.Silent, fmt.Sprintf("%s: nothing learnt from %s (%s)", n.Name, x.Peer, x.VRF))
		}
	}
	if o.Routes == nil {
		return
	}
	tables, err := o.Routes(instance(lab, n.Name))
	if err != nil {
		s.miss("%s: %v", n.Name, err)
		return
	}
	for _, x := range tables {
		x.Node = n.Name
		s.Tables = append(s.Tables, x)
	}
}

func orUnknown(reason string) string {
	if reason == "" {
		return "no reason known"
	}
	return reason
}

// silentFor is how long a lab that has all else waits for a first route of each
// session of a daemon's: most peers have one to tell, but need not.
const silentFor = 5 * time.Second

// converge waits until nothing is missing.
func (b *builder) converge(ctx context.Context) error {
	timeout := b.o.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	deadline := time.After(timeout)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	last := ""
	var silent time.Time // since when only the silent are waited for
	for {
		s := takeSurvey(ctx, b.state, b.t, &b.o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(s.Dead) > 0 {
			return b.notConverged(s.Dead)
		}
		up, want := s.established()
		if len(s.Missing) == 0 && silent.IsZero() {
			silent = time.Now()
		}
		if len(s.Missing) == 0 && (len(s.Silent) == 0 || time.Since(silent) > silentFor) {
			b.progress.step("%d of %d BGP sessions Established, all expected prefixes learnt", up, want)
			return nil
		}
		if now := fmt.Sprintf("%d of %d BGP sessions Established", up, want); now != last {
			b.progress.step("waiting: %s; next: %s", now, slices.Concat(s.Missing, s.Silent)[0])
			last = now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return b.notConverged(slices.Concat(s.Missing, s.Silent))
		case <-b.exited:
		case <-tick.C:
		}
	}
}

func (b *builder) notConverged(why []string) error {
	return fmt.Errorf("lab %s: %w:\n  %s\nit is left standing: look with msee lab status, msee lab exec, %s; "+
		"take it down with msee lab down %s",
		b.lab, ErrNotConverged, strings.Join(why, "\n  "), labDir(b.lab)+"/log", b.lab)
}

// Converged reports, as an error, what a lab lacks now.
func Converged(ctx context.Context, lab string, o Options) error {
	st, err := loadState(lab)
	if err != nil {
		return err
	}
	t, err := st.loadTopology()
	if err != nil {
		return err
	}
	s := takeSurvey(ctx, st, t, &o)
	var errs []error
	for _, line := range append(s.Dead, s.Missing...) {
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}
