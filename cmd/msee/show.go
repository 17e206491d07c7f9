package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/edge"
)

// devices returns clients of the instances called name: by whole name, or by
// the last part of LAB.NODE; all that run if name is "".
func devices(name string) ([]*api.Client, error) {
	running := api.Instances()
	if name != "" {
		match := slices.DeleteFunc(slices.Clone(running), func(i string) bool {
			return i != name && !strings.HasSuffix(i, "."+name)
		})
		if len(match) == 0 {
			return nil, fmt.Errorf("no running instance is called %s; running: %s", name, orNone(running))
		}
		running = match
	}
	if len(running) == 0 {
		if os.Geteuid() != 0 {
			return nil, errors.New("no instance that you may talk to is running; try sudo")
		}
		return nil, errors.New("no instance is running; start one with msee edge, or a whole lab with msee lab up")
	}
	var clients []*api.Client
	for _, i := range running {
		clients = append(clients, api.NewClient(i))
	}
	return clients, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func showCommand() *cobra.Command {
	var device string
	var asJSON bool
	show := &cobra.Command{Use: "show", Short: "Look inside running devices", Args: onlySubcommands,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	show.PersistentFlags().StringVarP(&device, "device", "d", "", "instance, or its last part (msee1 for default.msee1); default: all that run")
	show.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON: an object with a list per instance")

	add := func(use, short string, get func(*api.Client) (any, error), print func(io.Writer, any) error) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			clients, err := devices(device)
			if err != nil {
				return err
			}
			return showAll(os.Stdout, clients, asJSON, get, print)
		}}
		show.AddCommand(c)
		return c
	}
	add("devices", "Whether each is in service, draining or drained, and since when it runs",
		func(c *api.Client) (any, error) {
			v, err := c.Device()
			return []edge.DeviceStatus{v}, err
		},
		func(w io.Writer, v any) error {
			return printer(func(w io.Writer, rows []edge.DeviceStatus) error { return api.ShowDevices(w, rows, time.Now()) })(w, v)
		})
	add("circuits", "Circuits and their peerings",
		func(c *api.Client) (any, error) { return c.Circuits() }, printer(api.ShowCircuits))
	add("peerings", "Subinterfaces: tags, addresses, traffic",
		func(c *api.Client) (any, error) { return c.Peerings() }, printer(api.ShowPeerings))
	add("bgp", "BGP sessions, and why one is down",
		func(c *api.Client) (any, error) { return c.Sessions() },
		func(w io.Writer, v any) error {
			return printer(func(w io.Writer, rows []edge.SessionStatus) error { return api.ShowBGP(w, rows, time.Now()) })(w, v)
		})
	var vrf string
	routes := add("routes", "Routes with every path, used (*), unused and refused (x)",
		func(c *api.Client) (any, error) { return c.Routes(vrf) }, printer(api.ShowRoutes))
	routes.Flags().StringVar(&vrf, "vrf", "", "only this VRF")
	add("arp", "ARP and IPv6 neighbor tables",
		func(c *api.Client) (any, error) { return c.ARP() }, printer(api.ShowARP))
	add("bfd", "BFD sessions: agreed intervals, and what brought one down",
		func(c *api.Client) (any, error) { return c.BFD() }, printer(api.ShowBFD))
	add("ports", "Ports and their counters",
		func(c *api.Client) (any, error) { return c.Ports() }, printer(api.ShowPorts))
	add("meters", "What each peering has carried, and what was above its circuit's bandwidth",
		func(c *api.Client) (any, error) { return c.Meters() }, printer(api.ShowMeters))
	add("gateways", "What each instance of a gateway passes, may by its SKU, and drops",
		func(c *api.Client) (any, error) { return c.Gateways() }, printer(api.ShowGateways))
	add("limits", "How many prefixes each session may announce, and has",
		func(c *api.Client) (any, error) { return c.Sessions() }, printer(api.ShowLimits))
	add("services", "Microsoft's services by community: what is announced, and why not more",
		func(c *api.Client) (any, error) { return c.Services() }, printer(api.ShowServices))
	add("public-prefixes", "Customers' advertisedPublicPrefixes and their validation",
		func(c *api.Client) (any, error) { return c.PublicPrefixes() }, printer(api.ShowPublicPrefixes))
	addDiagnostics(show, &device, &asJSON)
	add("macsec", "MACsec ports: secured or why not, keys in use, counters",
		func(c *api.Client) (any, error) { return c.MACsec() }, printer(api.ShowMACsec))
	add("mka", "MACsec key agreement: CAKs, peers, key server, journal",
		func(c *api.Client) (any, error) { return c.MKA() },
		func(w io.Writer, v any) error {
			return printer(func(w io.Writer, rows []edge.MKAStatus) error { return api.ShowMKA(w, rows, time.Now()) })(w, v)
		})
	var all bool
	counters := add("counters", "What became of each received frame: verdicts by port",
		func(c *api.Client) (any, error) { return c.Ports() },
		func(w io.Writer, v any) error {
			return printer(func(w io.Writer, rows []edge.PortStatus) error { return api.ShowCounters(w, rows, all) })(w, v)
		})
	var now bool
	audit := add("audit", "Whether each FIB is what its RIB says, and what was repaired",
		func(c *api.Client) (any, error) { return c.Audits(now) },
		func(w io.Writer, v any) error {
			return printer(func(w io.Writer, rows []edge.AuditStatus) error { return api.ShowAudits(w, rows, time.Now()) })(w, v)
		})
	audit.Flags().BoolVar(&now, "now", false, "audit first; else it is done every minute")
	counters.Flags().BoolVar(&all, "all", false, "also verdicts that no frame got")
	add("metrics", "The metrics in Prometheus' text format, as GET /metrics on the socket has them",
		func(c *api.Client) (any, error) { return c.Metrics() },
		func(w io.Writer, v any) error {
			_, err := io.WriteString(w, v.(string))
			return err
		})
	addFastPath(show, &device, &asJSON)
	return show
}

// onlySubcommands refuses a word that is none of the command's: cobra would
// print its help and succeed.
func onlySubcommands(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s knows no %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
	}
	return nil
}

// anyNumber is no upper bound of arguments.
const anyNumber = 1 << 30

// arguments wants so many of them, and says what the command takes if there are not.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%d arguments; the command is: %s", len(args), c.UseLine())
		}
		return nil
	}
}

// printer gives a table printer for T the shape that fits all.
func printer[T any](print func(io.Writer, T) error) func(io.Writer, any) error {
	return func(w io.Writer, v any) error { return print(w, v.(T)) }
}

// showAll asks each device and prints its answer under its name. Those that have not what
// is asked about are left out, unless nobody has.
func showAll(w io.Writer, clients []*api.Client, asJSON bool, get func(*api.Client) (any, error), print func(io.Writer, any) error) error {
	answers := map[string]any{}
	var failed, absent error // of one device; the others are shown
	for _, c := range clients {
		v, err := get(c)
		if errors.Is(err, api.ErrNotThere) {
			absent = err // all say the same
			continue
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		answers[c.Instance] = v
		if asJSON {
			continue
		}
		if len(clients) > 1 {
			if len(answers) > 1 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s\n", c.Instance)
		}
		if err := print(w, v); err != nil {
			return err
		}
	}
	if len(answers) == 0 {
		failed = errors.Join(failed, absent)
	}
	if asJSON {
		failed = errors.Join(failed, printJSON(w, answers))
	}
	return failed
}

func reloadCommand() *cobra.Command {
	var device string
	var all, asJSON bool
	c := &cobra.Command{Use: "reload", Short: "Make a running device read its configuration file again", Args: cobra.NoArgs,
		Long: "Make a running device read its configuration file again and apply what has changed.\n" +
			"What has not changed loses no packet and no session; a file with faults changes nothing.",
		RunE: func(*cobra.Command, []string) error {
			clients, err := devices(device)
			if err != nil {
				return err
			}
			if len(clients) > 1 && !all {
				return fmt.Errorf("several devices run: name one with -d, or --all (%s)", orNone(api.Instances()))
			}
			return reloadAll(clients, asJSON)
		}}
	c.Flags().StringVarP(&device, "device", "d", "", "instance, or its last part; default: the one that runs")
	c.Flags().BoolVar(&all, "all", false, "every device that runs")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an object with the changes per instance")
	return c
}

// reloadAll reloads each device, also after one has refused.
func reloadAll(clients []*api.Client, asJSON bool) error {
	var failed error
	done := map[string]api.ReloadResult{}
	for _, c := range clients {
		result, err := c.Reload()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", c.Instance, err))
			continue
		}
		done[c.Instance] = result
		if asJSON {
			continue
		}
		fmt.Printf("%s: %d changes\n", c.Instance, len(result.Changes))
		for _, ch := range result.Changes {
			fmt.Printf("  %s\n", ch)
		}
	}
	if asJSON {
		failed = errors.Join(failed, printJSON(os.Stdout, done))
	}
	return failed
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // for a terminal, where a < is a <
	return enc.Encode(v)
}
