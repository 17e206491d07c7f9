package main

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"msee/lab/vlanshim"
	"msee/netns"
)

// Beds whose router is an `msee gateway` between two subnets.
const (
	untaggedBed = "untagged" // because an MSEE has no untagged interfaces
	tapBed      = "tap"      // because a TAP comes with its process, too late for the lab
)

// tapRows are those of TAP ports, against kernel forwarding on veths.
func tapRows() []*row {
	tcpRow := func(name string, flow tcp) *row {
		return &row{name: name, unit: "Gb/s", baseline: kernelForwarding, bed: tapBed, measure: flow.measure}
	}
	return []*row{
		tcpRow("tcp1_dot1q_fwd_tap", tcp{flows: 1}),
		tcpRow("tcp1_dot1q_rev_tap", tcp{flows: 1, reverse: true}),
		tcpRow("tcp4_dot1q_fwd_tap", tcp{flows: 4}),
		{name: "ping_idle_p50_tap", unit: "µs", smaller: true, baseline: kernelForwarding, bed: tapBed, measure: pingIdle},
	}
}

// plugTaps moves the TAPs of a started MSEE to the ends and gives these their
// VLANs, addresses and routes there. All of it goes with the MSEE.
func plugTaps() error {
	for _, t := range []struct {
		device, node        string
		vlan                uint16
		address, to, router string
	}{
		{"tap1", customer, 100, "10.1.0.10/24", "10.100.1.0/24", "10.1.0.4"},
		{"tap2", vnet, 200, "10.100.1.10/24", "10.1.0.0/24", "10.100.1.4"},
	} {
		far, err := os.Open(netns.Path(t.node))
		if err != nil {
			return fmt.Errorf("move %s: %w", t.device, err)
		}
		err = retry(stopTimeout, func() error { // the MSEE makes it
			return netns.Do(router, func() error {
				link, err := netlink.LinkByName(t.device)
				if err != nil {
					return err
				}
				return netlink.LinkSetNsFd(link, int(far.Fd()))
			})
		})
		far.Close()
		if err != nil {
			return fmt.Errorf("move %s to %s: %w", t.device, t.node, err)
		}
		err = netns.Do(t.node, func() error {
			sub := fmt.Sprintf("%s.%d", t.device, t.vlan)
			_ = removeLink(sub) // a shim of the last TAP's
			if err := setLink(t.device, "", taggedMTU, true); err != nil {
				return err
			}
			link, err := netlink.LinkByName(t.device)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			if _, err := vlanshim.Add(t.device, sub, untaggedMTU, vlanshim.Tag{TPID: vlanshim.TPIDCustomer, VID: t.vlan}); err != nil {
				return err
			}
			if err := setLink(sub, t.address, untaggedMTU, true); err != nil {
				return err
			}
			_, to, err := net.ParseCIDR(t.to)
			if err != nil {
				return err
			}
			return netlink.RouteReplace(&netlink.Route{Dst: to, Gw: net.ParseIP(t.router)})
		})
		if err != nil {
			return fmt.Errorf("set up %s of %s: %w", t.device, t.node, err)
		}
	}
	return nil
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
