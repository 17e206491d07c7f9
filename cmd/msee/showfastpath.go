package main

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"msee/api"
)

// addFastPath adds what shows FastPath: its state, its endpoints, how one address
// is reached, and what EVPN tells.
func addFastPath(show *cobra.Command, device *string, asJSON *bool) {
	fast := &cobra.Command{Use: "fastpath", Short: "FastPath: entries, hits, limits, and what goes by the gateway and why", Args: cobra.NoArgs}
	fast.Long = fast.Short + ".\n\nA miss is each frame of the customer's that is for no endpoint: the BGP that it speaks to the MSEE, too."
	var endpoints bool
	var vrf string
	fast.Flags().BoolVar(&endpoints, "endpoints", false, "list the endpoints")
	fast.Flags().StringVar(&vrf, "vrf", "", "with --endpoints: only this VRF")
	fast.RunE = func(*cobra.Command, []string) error {
		clients, err := devices(*device)
		if err != nil {
			return err
		}
		if endpoints {
			return showAll(os.Stdout, clients, *asJSON, func(c *api.Client) (any, error) { return c.Endpoints(vrf) }, printer(api.ShowEndpoints))
		}
		return showAll(os.Stdout, clients, *asJSON, func(c *api.Client) (any, error) { return c.FastPath() }, printer(api.ShowFastPath))
	}
	route := &cobra.Command{Use: "route ADDRESS", Short: "How an address is reached: FastPath hit or miss and why, longest match", Args: arguments(1, 1)}
	var in string
	route.Flags().StringVar(&in, "vrf", "", "only this VRF")
	route.RunE = func(_ *cobra.Command, args []string) error {
		addr, err := netip.ParseAddr(args[0])
		if err != nil {
			return fmt.Errorf("%q is not an address", args[0])
		}
		clients, err := devices(*device)
		if err != nil {
			return err
		}
		return showAll(os.Stdout, clients, *asJSON, func(c *api.Client) (any, error) { return c.Lookup(in, addr) }, printer(api.ShowLookup))
	}
	evpn := &cobra.Command{Use: "evpn", Short: "EVPN: routes received, who is behind which VTEP, MAC mobility", Args: cobra.NoArgs}
	evpn.RunE = func(*cobra.Command, []string) error {
		clients, err := devices(*device)
		if err != nil {
			return err
		}
		return showAll(os.Stdout, clients, *asJSON, func(c *api.Client) (any, error) { return c.EVPN() }, printer(api.ShowEVPN))
	}
	show.AddCommand(fast, route, evpn)
}
