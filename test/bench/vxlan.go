package main

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// vxlanBed is the one whose VNet is on a VXLAN network.
const vxlanBed = "vxlan"

// vxlanRows are those of TCP into a tunnel and out of one, against a kernel that
// forwards between a link and a VXLAN device of its own.
func vxlanRows() []*row {
	return []*row{
		{name: "vxlan_tcp1", unit: "Gb/s", baseline: "kernel_vxlan_forwarding", bed: vxlanBed, measure: tcp{flows: 1}.measure},
		{name: "vxlan_tcp1_rev", unit: "Gb/s", baseline: "kernel_vxlan_forwarding", bed: vxlanBed, measure: tcp{flows: 1, reverse: true}.measure},
	}
}

// path is how traffic goes on a side in this bed.
func (d *bed) path(s side) path {
	if d.name == vxlanBed && s == baseline {
		return path{"10.61.0.1", "10.63.0.1"}
	}
	return paths[s]
}

// kernelVXLAN gives the router's kernel a device on the VXLAN network, or takes
// it away.
func kernelVXLAN(on bool) error {
	const name = "vx"
	err := netns.Do(router, func() error {
		if !on {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, untaggedMTU
		link := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 5001, SrcAddr: net.IPv4(10, 62, 0, 254), Group: net.IPv4(10, 62, 0, 1), Port: 4789, Learning: true}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.63.0.254/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	if err != nil && err != unix.ENODEV {
		return fmt.Errorf("set up VXLAN in the router's kernel: %w", err)
	}
	return nil
}
