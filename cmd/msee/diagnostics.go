package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/circuit"
	"msee/config"
	"msee/edge"
)

// peeringFlags name a peering as `az network express-route` does.
type peeringFlags struct{ circuit, peering, path string }

func (f *peeringFlags) add(c *cobra.Command, hasPath bool) {
	c.Flags().StringVar(&f.circuit, "circuit", "", "circuit; default: the one there is")
	c.Flags().StringVar(&f.peering, "peering", string(circuit.AzurePrivatePeering), "AzurePrivatePeering or MicrosoftPeering")
	if hasPath {
		c.Flags().StringVar(&f.path, "path", string(circuit.RolePrimary), "primary or secondary: which MSEE")
	}
}

// addDiagnostics adds Azure's diagnostics to show.
func addDiagnostics(show *cobra.Command, device *string, asJSON *bool) {
	add := func(use, short string, hasWhy bool, run func(f peeringFlags, why bool) error) {
		var f peeringFlags
		var why bool
		hasPath := use != "stats"
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			if hasPath && f.path != string(circuit.RolePrimary) && f.path != string(circuit.RoleSecondary) {
				return fmt.Errorf("--path is %q; want primary or secondary", f.path)
			}
			return run(f, why)
		}}
		f.add(c, hasPath)
		if hasWhy {
			c.Flags().BoolVar(&why, "why", false, "also what Azure never shows: reasons, limits, who is behind a next hop, refused routes")
		}
		show.AddCommand(c)
	}
	add("route-table", "A peering's routes, as Azure shows them", true, func(f peeringFlags, why bool) error {
		return onPath(*device, f, *asJSON, func(c *api.Client, p api.Peering) (any, error) { return c.RouteTable(p, why) }, printer(api.ShowRouteTable))
	})
	add("route-table-summary", "A peering's BGP sessions, as Azure shows them", true, func(f peeringFlags, why bool) error {
		return onPath(*device, f, *asJSON, func(c *api.Client, p api.Peering) (any, error) { return c.RouteTableSummary(p, why) }, printer(api.ShowRouteTableSummary))
	})
	add("arp-table", "The two ends of a peering's link, as Azure shows them", false, func(f peeringFlags, _ bool) error {
		return onPath(*device, f, *asJSON, func(c *api.Client, p api.Peering) (any, error) { return c.ARPTable(p) }, printer(api.ShowARPTable))
	})
	add("stats", "A peering's octets on both paths, as Azure shows them", false, func(f peeringFlags, _ bool) error {
		return showStats(*device, f, *asJSON)
	})
}

// paths returns the clients of the MSEEs that have a circuit, by their paths,
// and the circuit's name.
func paths(device, wanted string) (map[string]*api.Client, string, error) {
	clients, err := devices(device)
	if err != nil {
		return nil, "", err
	}
	found := map[string]map[string]*api.Client{}
	for _, c := range clients {
		d, err := c.Device()
		if err != nil {
			return nil, "", err
		}
		if d.Kind != config.KindEdge {
			continue
		}
		circuits, err := c.Circuits()
		if err != nil {
			return nil, "", err
		}
		for _, x := range circuits {
			if found[x.Name] == nil {
				found[x.Name] = map[string]*api.Client{}
			}
			if other := found[x.Name][d.Role]; other != nil {
				return nil, "", fmt.Errorf("both %s and %s have circuit %s and are %s: name one with -d", other.Instance, c.Instance, x.Name, d.Role)
			}
			found[x.Name][d.Role] = c
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	switch {
	case wanted == "" && len(names) == 1:
		wanted = names[0]
	case wanted == "":
		return nil, "", fmt.Errorf("name a circuit with --circuit: %s", orNone(names))
	case found[wanted] == nil:
		return nil, "", fmt.Errorf("no running MSEE has circuit %s; there are: %s", wanted, orNone(names))
	}
	return found[wanted], wanted, nil
}

// onPath asks the MSEE of one path.
func onPath(device string, f peeringFlags, asJSON bool, get func(*api.Client, api.Peering) (any, error), print func(io.Writer, any) error) error {
	clients, name, err := paths(device, f.circuit)
	if err != nil {
		return err
	}
	c := clients[f.path]
	if c == nil {
		return fmt.Errorf("no running MSEE has the %s path of circuit %s", f.path, name)
	}
	v, err := get(c, api.Peering{Circuit: name, Type: f.peering, Path: f.path})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(os.Stdout, v)
	}
	return print(os.Stdout, v)
}

// showStats adds up both paths, or those that run.
func showStats(device string, f peeringFlags, asJSON bool) error {
	clients, name, err := paths(device, f.circuit)
	if err != nil {
		return err
	}
	var sum edge.PeeringStats
	var failed error
	for _, c := range clients {
		s, err := c.Stats(api.Peering{Circuit: name, Type: f.peering})
		failed = errors.Join(failed, err)
		sum.PrimaryBytesIn += s.PrimaryBytesIn
		sum.PrimaryBytesOut += s.PrimaryBytesOut
		sum.SecondaryBytesIn += s.SecondaryBytesIn
		sum.SecondaryBytesOut += s.SecondaryBytesOut
	}
	if failed != nil {
		first, _, _ := strings.Cut(failed.Error(), "\n") // both say the same
		return errors.New(first)
	}
	if asJSON {
		return printJSON(os.Stdout, sum)
	}
	return api.ShowStats(os.Stdout, sum)
}
