package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// What a tcx program returns.
const (
	tcxNext = -1
	tcxDrop = 2
)

// dropAll keeps a router's host stack from seeing what another dataplane takes.
func dropAll() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, tcxDrop), asm.Return()}
}

// dropFlood drops what a flood sends, as the first thing that a device does
// with it, so that the receiver costs as little as may be. The device has
// counted it by then.
func dropFlood() asm.Instructions {
	const ip, udp = 14, 14 + 20
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), // what LoadAbs reads from
		asm.LoadAbs(12, asm.Half),   // the kernel has taken a tag off
		asm.JNE.Imm(asm.R0, unix.ETH_P_IP, "next"),
		asm.LoadAbs(ip+9, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_UDP, "next"),
		asm.LoadAbs(udp+2, asm.Half),
		asm.JNE.Imm(asm.R0, floodPort, "next"),
		asm.Mov.Imm(asm.R0, tcxDrop),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
		asm.Return(),
	}
}

// atIngress runs a program first on all that enters a device, until the link is
// closed.
func atIngress(node, device string, program asm.Instructions) (l link.Link, err error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress,
		Instructions: program, License: "Apache-2.0"})
	if err != nil {
		return nil, fmt.Errorf("load program for %s of %s: %w", device, node, err)
	}
	defer prog.Close() // the link holds it
	err = netns.Do(node, func() error {
		dev, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		l, err = link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: prog,
			Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach program to %s of %s: %w", device, node, err)
	}
	return l, nil
}
