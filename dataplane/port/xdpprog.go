package port

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// XDP's verdicts and the fields of its context, as <linux/bpf.h> has them.
const (
	xdpDrop = 1

	xdpData    = 0
	xdpDataEnd = 4
	xdpRxQueue = 16
)

// vlanTagFunc tells the tag that a device or a far end's stack keeps beside the
// frame (Linux 6.8).
const vlanTagFunc = "bpf_xdp_metadata_rx_vlan_tag"

// attach loads the program and attaches it to the device. It goes by a link,
// which the kernel removes with its last descriptor: nothing is left of a
// process that was killed.
//
// Generic XDP will not do. It runs in the stack, and hands over the superframes
// of a veth's far end without a word of how they are to be cut.
func (p *XDP) attach() error {
	err := p.attachProgram(true)
	if err != nil { // an older kernel, or a driver that does not tell tags
		err = p.attachProgram(false)
		p.mode += ", tags inline only"
	}
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the device's driver has no XDP; type packet does without", err)
	case errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%w: the MTU of the link is too large for its driver's XDP", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: the far end has more transmit queues than this device has receive queues", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: the device has an XDP program already", err)
	}
	return err
}

func (p *XDP) attachProgram(tags bool) error {
	prog, err := p.loadProgram(tags)
	if err != nil {
		return fmt.Errorf("load XDP program: %w", err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: p.ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		prog.Close()
		return fmt.Errorf("attach XDP program: %w", err)
	}
	p.program, p.attached = prog, l
	return nil
}

// loadProgram loads the program: it puts a tag that is beside the frame back
// into it, if the driver tells, and gives the frame to the socket of its queue.
// A frame of a queue without one is dropped; the host gets none.
func (p *XDP) loadProgram(tags bool) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{
		Name: "msee_xdp", Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS,
		// The kernel lends its functions to programs under the GPL only: these
		// few instructions may be had under it too.
		License: "Dual MIT/GPL",
	}
	spec.Instructions = asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	if tags {
		id, err := kernelFunc(vlanTagFunc)
		if err != nil {
			return nil, err
		}
		spec.Ifindex, spec.Flags = uint32(p.ifindex), spec.Flags|unix.BPF_F_XDP_DEV_BOUND_ONLY
		spec.Instructions = append(spec.Instructions, insertTag(id)...)
	}
	spec.Instructions = append(spec.Instructions,
		asm.LoadMapPtr(asm.R1, p.sockets.FD()).WithSymbol("redirect"),
		asm.LoadMem(asm.R2, asm.R6, xdpRxQueue, asm.Word),
		asm.Mov.Imm(asm.R3, xdpDrop),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	)
	return ebpf.NewProgram(spec)
}

// insertTag is the part of the program that puts the tag back. R6 is the
// context.
func insertTag(vlanTag btf.TypeID) asm.Instructions {
	const tpid, tci, headers = -8, -16, 18
	ins := asm.Instructions{
		asm.Mov.Imm(asm.R2, 0),
		asm.StoreMem(asm.RFP, tpid, asm.R2, asm.DWord),
		asm.StoreMem(asm.RFP, tci, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, tpid),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, tci),
		asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(vlanTag)},
		asm.JNE.Imm(asm.R0, 0, "redirect"), // there is none
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, -4),
		asm.FnXdpAdjustHead.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"), // no room
		asm.LoadMem(asm.R2, asm.R6, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, xdpDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, headers),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
	}
	for at := int16(0); at < 12; at += 4 { // the addresses
		ins = append(ins, asm.LoadMem(asm.R1, asm.R2, at+4, asm.Word), asm.StoreMem(asm.R2, at, asm.R1, asm.Word))
	}
	return append(ins,
		asm.LoadMem(asm.R1, asm.RFP, tpid, asm.Half), // in network order
		asm.StoreMem(asm.R2, 12, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, tci, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.StoreMem(asm.R2, 14, asm.R1, asm.Half),
		asm.Ja.Label("redirect"),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	)
}

// attachSilence drops all that is to leave by a device through its queueing
// discipline. It goes with its descriptor, as the XDP program.
func attachSilence(ifindex int) (link.Link, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "msee_silence", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress, License: "Apache-2.0",
		Instructions: dropAllButOurs(),
	})
	if err != nil {
		return nil, fmt.Errorf("load drop program: %w", err)
	}
	defer prog.Close() // the link holds it
	return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
}

// kernelFunc finds a function that the kernel lends to programs.
func kernelFunc(name string) (btf.TypeID, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, fmt.Errorf("read the kernel's types: %w", err)
	}
	var fn *btf.Func
	if err := spec.TypeByName(name, &fn); err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return spec.TypeID(fn)
}
