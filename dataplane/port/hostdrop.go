package port

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Our filter's name and handle, by which a later process knows it again if this
// one dies without Close.
const (
	hostDropName   = "msee-host-drop"
	hostDropHandle = 0x6d736565 // "msee"
	// hostDropPriority is the first to run: a filter before ours could accept
	// the frame, and the host would answer what the dataplane forwards.
	hostDropPriority = 1
)

// hostDrop is a filter at a device's clsact ingress or egress that drops every
// frame. At the ingress, packet sockets get theirs before it, the host's stack
// nothing after it. At the egress, what the host would say stops there. Our senders
// bypass the queueing discipline and so the filter, but for bursts, which it knows by ownMark.
type hostDrop struct {
	netlink  *netlink.Handle
	filter   netlink.BpfFilter
	ownQdisc bool
}

// attachHostDrop adds the filter at parent, HANDLE_MIN_INGRESS or _EGRESS, or
// takes over one that a process which crashed has left. detach uses handle too.
func attachHostDrop(handle *netlink.Handle, ifindex int, parent uint32) (*hostDrop, error) {
	prog, err := loadHostDrop(parent)
	if err != nil {
		return nil, fmt.Errorf("load drop program: %w", err)
	}
	defer prog.Close() // the filter holds it
	d := &hostDrop{netlink: handle, filter: netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    parent,
			Handle:    hostDropHandle,
			Priority:  hostDropPriority,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           prog.FD(),
		Name:         hostDropName,
		DirectAction: true,
	}}
	if err := d.addQdisc(); err != nil {
		return nil, err
	}
	if err := handle.FilterReplace(&d.filter); err != nil {
		return nil, errors.Join(fmt.Errorf("add drop filter: %w", err), d.detach())
	}
	return d, nil
}

// hostSilence keeps a device's host from sending on it.
type hostSilence struct {
	netlink *netlink.Handle
	drop    *hostDrop // nil: the host may send
}

// set begins or ends it. The caller is in the device's namespace.
func (s *hostSilence) set(ifindex int, on bool) (err error) {
	switch {
	case on == (s.drop != nil):
		return nil
	case !on:
		err := s.drop.detach()
		s.netlink.Close()
		*s = hostSilence{}
		return err
	}
	if s.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if s.drop, err = attachHostDrop(s.netlink, ifindex, netlink.HANDLE_MIN_EGRESS); err != nil {
		s.netlink.Close()
	}
	return err
}

// endSilence removes what a process that crashed has left of its silence: it would
// keep from leaving what we send through the queueing discipline.
func endSilence(handle *netlink.Handle, ifindex int) error {
	d := hostDrop{netlink: handle, filter: netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex,
		Parent: netlink.HANDLE_MIN_EGRESS, Handle: hostDropHandle, Priority: hostDropPriority, Protocol: unix.ETH_P_ALL}}}
	return d.detach()
}

// ownMark is on the bursts of our senders while a host may not send. Who could guess it
// needs CAP_NET_ADMIN to set it, with which the filter can be taken away.
var ownMark = rand.Uint32() | 1 // not 0, which all others have

// Where a program finds a packet's mark and queue, 0 for none (struct __sk_buff).
const skbMark, skbQueueMapping = 8, 12

// loadHostDrop loads the program for ingress or egress.
func loadHostDrop(parent uint32) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Name: "msee_host_drop", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_SHOT)), asm.Return()}}
	if parent == netlink.HANDLE_MIN_EGRESS {
		spec.Instructions = dropAllButOurs()
	}
	return ebpf.NewProgram(spec)
}

// dropAllButOurs is the program at an egress, for cls_bpf and tcx alike.
func dropAllButOurs() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, skbMark, asm.Word),
		asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_SHOT)),
		asm.JNE.Imm32(asm.R1, int32(ownMark), "drop"),
		asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_UNSPEC)),
		asm.Return().WithSymbol("drop"),
	}
}

// addQdisc adds the clsact qdisc if the device has none. One that carries a
// filter of ours already was added by a predecessor or for it, and so is ours to
// remove.
func (d *hostDrop) addQdisc() error {
	err := d.netlink.QdiscAdd(d.qdisc())
	if err == nil {
		d.ownQdisc = true
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := d.netlink.FilterList(d.link(), parent)
		if err != nil {
			return fmt.Errorf("list filters: %w", err)
		}
		for _, f := range filters {
			if bpf, ok := f.(*netlink.BpfFilter); ok && bpf.Name == hostDropName && bpf.Handle == hostDropHandle {
				d.ownQdisc = true
			}
		}
	}
	return nil
}

// detach removes the filter, and the qdisc if it is ours and nobody else has
// hung a filter on it since. A device that is gone took both with it.
func (d *hostDrop) detach() error {
	if err := d.netlink.FilterDel(&d.filter); err != nil && !isGone(err) {
		return fmt.Errorf("remove drop filter: %w", err)
	}
	if !d.ownQdisc {
		return nil
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := d.netlink.FilterList(d.link(), parent)
		if err != nil && !isGone(err) {
			return fmt.Errorf("list filters: %w", err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	if err := d.netlink.QdiscDel(d.qdisc()); err != nil && !isGone(err) {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

func (d *hostDrop) qdisc() netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: d.filter.LinkIndex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// link is the device as far as netlink's calls look at it.
func (d *hostDrop) link() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.filter.LinkIndex}}
}

// isGone reports what the kernel says when the device (ENODEV), the qdisc
// (EINVAL) or the filter (ENOENT) is not there.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}
