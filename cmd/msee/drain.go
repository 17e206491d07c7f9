package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/edge"
)

// quietFrames is how many frames a second a drained device may still forward:
// what remains is probes, not traffic.
const quietFrames = 10

func drainCommand() *cobra.Command {
	var device string
	var wait time.Duration
	var force bool
	c := &cobra.Command{Use: "drain", Short: "Take a device out of service: longer paths, wait until its traffic is gone, sessions down",
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			c, err := oneDevice(device)
			if err != nil {
				return err
			}
			now, err := c.SetMaintenance(edge.Draining, force)
			if err != nil {
				return hintForce(err)
			}
			if now.Maintenance == edge.Drained {
				fmt.Printf("%s: is drained already; msee undrain -d %s brings it back\n", c.Instance, c.Instance)
				return nil
			}
			fmt.Printf("%s: draining: its AS stands eight times more in front of every path\n", c.Instance)
			if err := awaitQuiet(c, wait); err != nil {
				return err
			}
			if _, err := c.SetMaintenance(edge.Drained, force); err != nil {
				return hintForce(err)
			}
			fmt.Printf("%s: drained: its sessions are down; msee undrain -d %s brings it back\n", c.Instance, c.Instance)
			return nil
		}}
	c.Flags().StringVarP(&device, "device", "d", "", "instance, or its last part; needed if several run")
	c.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long traffic may take to go; sessions stay up if it does not")
	c.Flags().BoolVar(&force, "force", false, "also a gateway's instance whose other one is not in service")
	return c
}

// hintForce says of a refusal what else may be done.
func hintForce(err error) error {
	if strings.Contains(err.Error(), edge.ErrNoOther.Error()) {
		return fmt.Errorf("%w; --force drains anyway", err)
	}
	return err
}

func undrainCommand() *cobra.Command {
	var device string
	c := &cobra.Command{Use: "undrain", Short: "Put a drained device back into service", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := oneDevice(device)
			if err != nil {
				return err
			}
			if _, err = c.SetMaintenance(edge.InService, false); err == nil {
				fmt.Printf("%s: in service\n", c.Instance)
			}
			return err
		}}
	c.Flags().StringVarP(&device, "device", "d", "", "instance, or its last part; needed if several run")
	return c
}

func oneDevice(name string) (*api.Client, error) {
	clients, err := devices(name)
	if err != nil {
		return nil, err
	}
	if len(clients) > 1 {
		return nil, errors.New("several instances run: say which with -d")
	}
	return clients[0], nil
}

// awaitQuiet prints each second what the device forwards, until that is next to
// nothing for two of them.
func awaitQuiet(c *api.Client, wait time.Duration) error {
	last, err := forwarded(c)
	if err != nil {
		return err
	}
	quiet := 0
	for began := time.Now(); quiet < 2; {
		time.Sleep(time.Second)
		now, err := forwarded(c)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d frames/s\n", c.Instance, now-last)
		if quiet++; now-last > quietFrames {
			quiet = 0
		}
		last = now
		if quiet == 0 && time.Since(began) > wait {
			return fmt.Errorf("%s still forwards after %v: some peer does not choose by path length; its sessions stay up. msee undrain takes it back", c.Instance, wait)
		}
	}
	return nil
}

// forwarded counts the frames that have left through a port for a port.
func forwarded(c *api.Client) (n uint64, err error) {
	ports, err := c.Ports()
	for _, p := range ports {
		n += p.Verdicts["transmit"] + p.Verdicts["fragmented"]
	}
	return n, err
}
