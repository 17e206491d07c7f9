package vlanshim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TC verdicts (<linux/pkt_cls.h>) of a direct-action classifier.
const (
	tcUnspec = -1 // not ours: the next filter, then the stack
	tcShot   = 2
)

// Offsets in struct __sk_buff (<linux/bpf.h>).
const (
	skbVLANPresent = 20
	skbVLANTCI     = 24
	skbVLANProto   = 28
)

const (
	vidMask = 0x0fff
	macLen  = 12 // both MAC addresses: where a tag in the frame begins
)

// addBPF makes the veth pair NAME ⇄ NAMEp and the two programs between NAMEp
// and the trunk.
func addBPF(trunk netlink.Link, name string, mtu int, tags []Tag) (err error) {
	sub := &netlink.Veth{LinkAttrs: named(name, mtu), PeerName: name + "p", PeerMTU: uint32(mtu)}
	sub.HardwareAddr = trunk.Attrs().HardwareAddr
	if err := netlink.LinkAdd(sub); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, netlink.LinkDel(sub))
		}
	}()
	// The far end must say nothing itself: it would be heard on NAME.
	if err := disableIPv6(name + "p"); err != nil {
		return err
	}
	far, err := up(name + "p")
	if err != nil {
		return err
	}
	farIndex := far.Attrs().Index
	if err := attach(farIndex, 1, "push", push(trunk.Attrs().Index, tags)); err != nil {
		return err
	}
	// The handle tells the filters of several subinterfaces apart.
	if err := attach(trunk.Attrs().Index, uint32(farIndex), "pop", pop(farIndex, tags)); err != nil {
		return err
	}
	_, err = up(name)
	return err
}

// disableIPv6 keeps a link from getting a link-local address. A kernel without
// IPv6 has nothing to disable.
func disableIPv6(link string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// attach loads a program and hooks it to a link's ingress. clsact rather than
// tcx: kernel 6.1 has only that.
func attach(link int, handle uint32, name string, insns asm.Instructions) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vlan_" + name, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns,
	})
	if err != nil {
		return fmt.Errorf("load %s program: %w", name, err)
	}
	defer prog.Close() // the filter holds it from here on
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: handle, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "vlan_" + name, DirectAction: true,
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("add %s filter: %w", name, err)
	}
	return nil
}

// push tags every frame, inner tag first, and sends it out of the trunk.
func push(trunk int, tags []Tag) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for i := len(tags) - 1; i >= 0; i-- {
		insns = append(insns,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, netOrder(tags[i].TPID)),
			asm.Mov.Imm(asm.R3, int32(tags[i].VID)),
			asm.FnSkbVlanPush.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		)
	}
	return append(insns, redirect(trunk)...)
}

// pop takes the tags off frames that carry exactly them and hands the rest to
// the stack unchanged: the inner tag is looked at before the outer one goes.
func pop(far int, tags []Tag) asm.Instructions {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		// The kernel moves the outer tag out of the frame before this hook.
		asm.LoadMem(asm.R2, asm.R6, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "pass"),
		asm.LoadMem(asm.R2, asm.R6, skbVLANProto, asm.Word),
		asm.JNE.Imm(asm.R2, netOrder(tags[0].TPID), "pass"),
		asm.LoadMem(asm.R2, asm.R6, skbVLANTCI, asm.Word),
		asm.And.Imm(asm.R2, vidMask),
		asm.JNE.Imm(asm.R2, int32(tags[0].VID), "pass"),
	}
	if len(tags) == 2 {
		insns = append(insns, matchInner(tags[1])...)
	}
	for range tags {
		insns = append(insns,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnSkbVlanPop.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		)
	}
	insns = append(insns, redirect(far)...)
	return append(insns,
		asm.Mov.Imm(asm.R0, tcUnspec).WithSymbol("pass"),
		asm.Return(),
	)
}

// matchInner compares the tag that still stands in the frame.
func matchInner(tag Tag) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, macLen),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"), // a runt
		asm.LoadMem(asm.R2, asm.RFP, -8, asm.Half),
		asm.JNE.Imm(asm.R2, netOrder(tag.TPID), "pass"),
		asm.LoadMem(asm.R2, asm.RFP, -6, asm.Half),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.And.Imm(asm.R2, vidMask),
		asm.JNE.Imm(asm.R2, int32(tag.VID), "pass"),
	}
}

// redirect ends a program: out of the link, or dropped if it came by "drop".
func redirect(link int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(link)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcShot).WithSymbol("drop"),
		asm.Return(),
	}
}

// netOrder is v as the kernel keeps a __be16, seen as a number of this machine.
func netOrder(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}
