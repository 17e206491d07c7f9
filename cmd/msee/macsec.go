package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/edge"
)

func macsecCommand() *cobra.Command {
	c := &cobra.Command{Use: "macsec", Short: "Act on the MACsec keys of running devices", Args: onlySubcommands,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(rotateCommand())
	return c
}

func rotateCommand() *cobra.Command {
	var device, ckn string
	var sakOnly, all, asJSON bool
	c := &cobra.Command{Use: "rotate [PORT]", Short: "Change to another CAK, or to a new SAK, without losing a frame", Args: arguments(0, 1),
		Long: "Change a port, or all ports with MKA, to another CAK that is in force, and make a SAK under it.\n" +
			"It is refused, for all ports, unless on each all peers are live under that CAK already: nobody\n" +
			"loses a frame. Only the key server can do it; a member says who that is.",
		RunE: func(_ *cobra.Command, args []string) error {
			port := ""
			if len(args) > 0 {
				port = args[0]
			}
			if sakOnly && ckn != "" {
				return errors.New("--sak makes a new SAK under the CAK in use: leave out --ckn")
			}
			clients, err := devices(device)
			if err != nil {
				return err
			}
			if len(clients) > 1 && !all {
				return fmt.Errorf("several devices run: name one with -d, or --all (%s)", orNone(api.Instances()))
			}
			return rotateAll(clients, port, ckn, sakOnly, asJSON)
		}}
	c.Flags().StringVarP(&device, "device", "d", "", "instance, or its last part; default: the one that runs")
	c.Flags().StringVar(&ckn, "ckn", "", "name of the CAK to change to, hexadecimal; default: any other than the one in use")
	c.Flags().BoolVar(&sakOnly, "sak", false, "keep the CAK, and make a new SAK under it")
	c.Flags().BoolVar(&all, "all", false, "every device that runs")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an object with a list per instance")
	return c
}

// rotateAll rotates on each device, also after one has refused.
func rotateAll(clients []*api.Client, port, ckn string, sakOnly, asJSON bool) error {
	var failed error
	done := map[string][]edge.Rotation{}
	for _, c := range clients {
		rows, err := c.RotateMACsec(port, ckn, sakOnly)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", c.Instance, err))
			continue
		}
		done[c.Instance] = rows
		if asJSON {
			continue
		}
		for _, r := range rows {
			if r.From.String() == r.To.String() {
				fmt.Printf("%s: port %s: new SAK under CKN %s\n", c.Instance, r.Port, r.To)
			} else {
				fmt.Printf("%s: port %s: CKN %s, was %s\n", c.Instance, r.Port, r.To, r.From)
			}
		}
	}
	if asJSON {
		failed = errors.Join(failed, printJSON(os.Stdout, done))
	}
	return failed
}
