// Package vlanshim makes VLAN subinterfaces (IEEE 802.1Q, one tag or two) on a
// trunk: with the kernel's 8021q where it has it, else with two BPF programs
// around a veth pair.
//
// The BPF form of NAME on TRUNK:
//
//	NAME ── NAMEp ─[push tags]→ TRUNK egress
//	NAMEp egress ←[pop tags, if they match]─ TRUNK ingress
//
// NAME carries the addresses and, as with 8021q, the trunk's MAC. Frames with
// other tags, or none, go on to the stack. GSO superframes and checksum
// offload pass both forms untouched. What the BPF form leaves out: NAME does
// not lose its carrier with the trunk, and priority bits are sent as 0.
//
// Everything happens in the calling thread's network namespace (see package
// netns); there is no state to keep, the parts go with their links.
package vlanshim

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// TPIDs of IEEE 802.1Q §9.6.
const (
	TPIDCustomer = 0x8100 // C-tag; Azure uses it for the outer tag too
	TPIDService  = 0x88a8 // S-tag
)

// Tag is one VLAN tag.
type Tag struct {
	TPID uint16
	VID  uint16 // 1 to 4094
}

// Method is how a subinterface was made.
type Method string

// The two ways.
const (
	Kernel Method = "8021q"
	BPF    Method = "bpf"
)

// MaxNameLen is the longest name a subinterface can have: one character of
// IFNAMSIZ is for the far end of the shim.
const MaxNameLen = unix.IFNAMSIZ - 2

// ErrBadTags refuses anything but one or two tags of legal values.
var ErrBadTags = errors.New("a subinterface has one or two tags, each with a TPID of 0x8100 or 0x88a8 and a VLAN of 1 to 4094")

// Add makes the subinterface name on trunk, with the better method of the
// running kernel, and sets it up. Tags are given outermost first; mtu is the IP
// MTU in octets and must leave the tags room on the trunk.
func Add(trunk, name string, mtu int, tags ...Tag) (Method, error) {
	method := BPF
	if kernelHas8021q() {
		method = Kernel
	}
	return method, AddWith(method, trunk, name, mtu, tags...)
}

// AddWith is Add with a method of the caller's choice.
func AddWith(method Method, trunk, name string, mtu int, tags ...Tag) error {
	err := check(name, tags)
	if err == nil {
		var parent netlink.Link
		if parent, err = netlink.LinkByName(trunk); err == nil {
			if method == Kernel {
				err = addKernel(parent, name, mtu, tags)
			} else {
				err = addBPF(parent, name, mtu, tags)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("add subinterface %s to %s by %s: %w", name, trunk, method, err)
	}
	return nil
}

func check(name string, tags []Tag) error {
	if len(name) == 0 || len(name) > MaxNameLen {
		return fmt.Errorf("the name must have 1 to %d characters", MaxNameLen)
	}
	if len(tags) < 1 || len(tags) > 2 {
		return ErrBadTags
	}
	for _, t := range tags {
		if t.VID < 1 || t.VID > 4094 || (t.TPID != TPIDCustomer && t.TPID != TPIDService) {
			return ErrBadTags
		}
	}
	return nil
}

// kernelHas8021q tries, once, in a namespace of its own: only that tells, as
// asking for the link type is what loads the module.
var kernelHas8021q = sync.OnceValue(func() bool {
	name := fmt.Sprintf("msee-probe-%d", unix.Getpid())
	if err := netns.Create(name); err != nil {
		return false
	}
	defer netns.Delete(name)
	return netns.Do(name, func() error {
		// The loopback refuses VLANs, so it takes a veth to try.
		veth := &netlink.Veth{LinkAttrs: named("t", 1500), PeerName: "u"}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addVLAN(veth.Index, "t.1", 1500, Tag{TPIDCustomer, 1})
	}) == nil
})

// addKernel stacks one vlan device per tag; the outer one of two is called
// NAME's trunk and S-tag would be, "TRUNK.VID", and is shared by all its inner
// VLANs.
func addKernel(trunk netlink.Link, name string, mtu int, tags []Tag) error {
	parent := trunk
	if len(tags) == 2 {
		outer := fmt.Sprintf("%s.%d", trunk.Attrs().Name, tags[0].VID)
		if outer == name {
			return fmt.Errorf("the name %s is needed for the outer VLAN", name)
		}
		err := addVLAN(trunk.Attrs().Index, outer, trunk.Attrs().MTU, tags[0])
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", outer, err)
		}
		if parent, err = up(outer); err != nil {
			return err
		}
	}
	if err := addVLAN(parent.Attrs().Index, name, mtu, tags[len(tags)-1]); err != nil {
		return err
	}
	_, err := up(name)
	return err
}

func addVLAN(parent int, name string, mtu int, tag Tag) error {
	attrs := named(name, mtu)
	attrs.ParentIndex = parent
	return netlink.LinkAdd(&netlink.Vlan{
		LinkAttrs:    attrs,
		VlanId:       int(tag.VID),
		VlanProtocol: netlink.VlanProtocol(tag.TPID),
	})
}

func up(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return link, nil
}

func named(name string, mtu int) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	return attrs
}
