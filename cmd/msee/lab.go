package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/bgp"
	"msee/lab"
)

// labOptions are the flags that lab commands share.
type labOptions struct {
	name    string
	force   bool
	timeout time.Duration
}

func labCommand() *cobra.Command {
	c := &cobra.Command{Use: "lab", Short: "Build topologies of network namespaces around MSEEs", Args: onlySubcommands,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.Long = c.Short + ".\n\nTopologies that come with msee: " + strings.Join(lab.Topologies(), ", ") +
		". A YAML file of your own does as well."
	c.AddCommand(labUp(), labDown(), labStatus(), labCheck(), labExec(), labDiagram())
	return c
}

// defaultTopology is what commands mean without a name.
const defaultTopology = "default"

func nameOf(args []string) string {
	if len(args) == 0 {
		return defaultTopology
	}
	return args[0]
}

// interruptible ends with Ctrl-C or SIGTERM.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

func labUp() *cobra.Command {
	var o labOptions
	var asJSON, measure bool
	c := &cobra.Command{Use: "up [TOPOLOGY|FILE]", Short: "Build a lab and wait until it has converged", Args: arguments(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := lab.Load(nameOf(args))
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			opts := options(o)
			if asJSON {
				opts.Progress = os.Stderr
			}
			if err := lab.Up(ctx, t, opts); err != nil {
				return err
			}
			return compare(ctx, t, opts, measure, asJSON)
		}}
	c.Flags().BoolVar(&measure, "measure", true, "measure what the topology compares (fastpath: by the gateway and past it)")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was measured as JSON, and progress to standard error")
	c.Flags().StringVar(&o.name, "name", "", "name of the lab (default: the topology's)")
	c.Flags().BoolVar(&o.force, "force", false, "take down a lab of that name first")
	c.Flags().DurationVar(&o.timeout, "timeout", lab.DefaultTimeout, "how long to wait for sessions and routes")
	return c
}

// compare prints what a lab's topology compares.
func compare(ctx context.Context, t *lab.Topology, o lab.Options, measure, asJSON bool) (err error) {
	name := cmp.Or(o.Name, t.Name)
	var rows []lab.Measured
	var doubt string
	if measure && t.Compare != nil {
		if rows, doubt, err = lab.Compare(ctx, name, o); err != nil {
			return fmt.Errorf("lab %s is up, but: %w", name, err)
		}
	}
	switch {
	case asJSON:
		return lab.WriteComparisonJSON(os.Stdout, name, rows, doubt)
	case len(rows) > 0:
		return lab.WriteComparison(os.Stdout, t.Compare, rows, doubt)
	}
	return nil
}

// running asks running devices.
type running struct{}

func (running) Reload(instance string) error {
	_, err := api.NewClient(instance).Reload()
	return err
}

func (running) FastPath(instance string, to netip.Addr) (string, error) {
	rows, err := api.NewClient(instance).Lookup("", to)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0].FastPath, nil
}

func (running) GatewayPackets(instance string) (sum uint64, err error) {
	rows, err := api.NewClient(instance).Gateways()
	for _, g := range rows {
		sum += g.Packets
		for _, n := range g.Dropped {
			sum += n
		}
	}
	return sum, err
}

func options(o labOptions) lab.Options {
	return lab.Options{Name: o.name, Force: o.force, Timeout: o.timeout, Progress: os.Stdout,
		Status: deviceSessions, Routes: deviceTables, Devices: running{}}
}

// deviceSessions tells the lab what a device says of its sessions.
func deviceSessions(instance string) ([]lab.SessionState, error) {
	rows, err := api.NewClient(instance).Sessions()
	var states []lab.SessionState
	for _, s := range rows {
		st := lab.SessionState{VRF: s.VRF, Peer: s.Peer, PeerAS: s.AS, State: string(s.State),
			Received: s.Accepted, Sent: s.Advertised, Reason: s.Reason}
		if s.State == bgp.StateEstablished {
			st.Up = time.Since(s.Since)
		}
		states = append(states, st)
	}
	return states, err
}

// deviceTables tells the lab how many prefixes a device forwards by.
func deviceTables(instance string) ([]lab.TableState, error) {
	rows, err := api.NewClient(instance).Routes("")
	var tables []lab.TableState
	for _, r := range rows {
		if r.Source != "bgp" {
			continue
		}
		if len(tables) == 0 || tables[len(tables)-1].VRF != r.VRF {
			tables = append(tables, lab.TableState{VRF: r.VRF})
		}
		t := &tables[len(tables)-1]
		if r.Prefix.Addr().Is4() {
			t.IPv4++
		} else {
			t.IPv6++
		}
	}
	return tables, err
}

func labDown() *cobra.Command {
	var all bool
	c := &cobra.Command{Use: "down [LAB]", Short: "Remove a lab and all that belongs to it", Args: arguments(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			if all {
				return lab.DownAll(ctx)
			}
			return lab.Down(ctx, nameOf(args))
		}}
	c.Flags().BoolVar(&all, "all", false, "remove every lab")
	return c
}

func labStatus() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "List the labs that there are", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return lab.Status(os.Stdout) }}
}

func labCheck() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "check [LAB]", Short: "Prove that a lab works: sessions, prefixes, ping, traceroute, iperf3", Args: arguments(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			return lab.Check(ctx, nameOf(args), os.Stdout, asJSON, options(labOptions{}))
		}}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func labExec() *cobra.Command {
	var name string
	c := &cobra.Command{Use: "exec NODE -- COMMAND [ARGUMENT...]", Short: "Run a command in a node of a lab",
		Args: arguments(2, anyNumber),
		RunE: func(_ *cobra.Command, args []string) error {
			node, command := args[0], args[1:]
			if command[0] == "--" { // pflag leaves it where flags end at the first argument
				command = command[1:]
			}
			if name == "" {
				name = meantLab(lab.Names())
			}
			status, err := lab.Exec(name, node, command)
			if err != nil {
				return err
			}
			if status != 0 {
				return exitError(status)
			}
			return nil
		}}
	c.Flags().StringVar(&name, "lab", "", "the lab; default: the only one that is up, else "+defaultTopology)
	c.Flags().SetInterspersed(false)
	return c
}

// meantLab is the lab that a command means without a name.
func meantLab(up []string) string {
	if len(up) == 1 {
		return up[0]
	}
	return defaultTopology
}

func labDiagram() *cobra.Command {
	var mermaid bool
	c := &cobra.Command{Use: "diagram [TOPOLOGY|FILE]", Short: "Draw a topology", Args: arguments(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := lab.Load(nameOf(args))
			if err != nil {
				return err
			}
			if mermaid {
				return lab.Mermaid(os.Stdout, t)
			}
			return lab.Diagram(os.Stdout, t)
		}}
	c.Flags().BoolVar(&mermaid, "mermaid", false, "as a Mermaid flowchart")
	return c
}
