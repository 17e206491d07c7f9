package port

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// burstSender sends bursts of small frames through a veth, at about half of what each of
// them costs in a transmit ring. There, and in AF_XDP's, a frame ends with a softirq of its
// own, in which the far end takes it. Here a BPF program sends the whole burst, and
// the softirq comes once, behind the last. BPF_PROG_RUN gives the program a packet and keeps softirqs
// off while it runs; the program writes one frame after the other over that packet, and
// sends a clone of each.
//
// The frames pass the device's queueing discipline, in which they would wait while others
// pass them by. So it is for devices that have none; see others.
type burstSender struct {
	frames  *ebpf.Map // one value: the slots, and the packet
	device  *ebpf.Map // holds the device's index, and nothing when it is gone
	program *ebpf.Program
	mem     []byte // the value
	run     progRun
}

const (
	// burstSlots is how many frames are sent at a time. A veth with NAPI has
	// room for 256, a processor's backlog for 1,000 (net.core.netdev_max_backlog).
	burstSlots = 64
	// burstLeast is how many frames are worth the call, which costs as much as
	// four of them in the ring.
	burstLeast = 6
	// burstMax is the longest frame: one of a usual MTU with all headers that may be around
	// it. The transmit ring takes it too.
	burstMax = 2000
	// burstMin is the shortest, an ARP packet; the kernel refuses to shorten a
	// packet to less than an Ethernet header.
	burstMin = 42

	// A slot: the frame's length, 0 behind the last; what became of it; itself.
	slotLength, slotResult, slotBytes = 0, 4, 8
	slotSize                          = slotBytes + burstMax
	// Behind the slots: the mark that the frames get, and the packet.
	markAt   = burstSlots * slotSize
	packetAt = markAt + 8

	// What a queueing discipline says (NET_XMIT_…). The last is of the one that a device
	// that is down has in place of none.
	netXmitDrop, netXmitCN = 1, 2

	// burstIndex is where on the program's stack it keeps the device's index.
	burstIndex = -8

	// notThere is the program's result if the device is gone, or not in the caller's namespace:
	// its index may be another's there.
	notThere = 1
)

// progRun is union bpf_attr of BPF_PROG_RUN.
type progRun struct {
	fd, result, sizeIn, sizeOut     uint32
	in, out                         uint64
	repeat, duration                uint32
	contextSizeIn, contextSizeOut   uint32
	contextIn, contextOut           uint64
	flags, cpu, batchSize, reserved uint32
}

// openBurst opens one for a device in the caller's network namespace. It
// returns nil if the device is none that it is for, or the kernel is older than
// Linux 6.15.
func openBurst(ifindex int) (_ *burstSender, err error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil || dev.Type() != "veth" || !kernelBursts() {
		return nil, err
	}
	c := &burstSender{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open sender of bursts: %w", err), c.close())
		}
	}()
	page := unix.Getpagesize()
	size := (packetAt + burstMin + page - 1) / page * page
	if c.frames, err = ebpf.NewMap(&ebpf.MapSpec{Name: "msee_frames", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size),
		MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}); err != nil {
		return nil, err
	}
	if c.mem, err = unix.Mmap(c.frames.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map frames: %w", err)
	}
	if c.device, err = ebpf.NewMap(&ebpf.MapSpec{Name: "msee_device", Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return nil, err
	}
	if err = c.device.Put(uint32(0), uint32(ifindex)); err != nil {
		return nil, fmt.Errorf("note device: %w", err)
	}
	cookie, err := namespaceCookie()
	if err != nil {
		return nil, err
	}
	if c.program, err = loadBurst(cookie, c.device, c.frames); err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	packet := &c.mem[packetAt] // zeros, which the first frame overwrites
	c.run = progRun{fd: uint32(c.program.FD()), in: uint64(uintptr(unsafe.Pointer(packet))), sizeIn: burstMin, repeat: 1}
	return c, nil
}

// kernelBursts reports whether the kernel has what it takes: a program that can tell in
// which namespace it runs.
func kernelBursts() bool {
	return !errors.Is(features.HaveProgramHelper(ebpf.SchedCLS, asm.FnGetNetnsCookie), ebpf.ErrNotSupported)
}

// others is what a port's senders have to know of who else sends on its device.
type others struct {
	silent atomic.Bool // they may not; see hostSilence
	queues atomic.Bool // there is a queueing discipline for them, and so no bursts
}

// look looks whether the device has a queueing discipline. The caller is in its namespace.
func (o *others) look(ifindex int) error {
	qdiscs, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}})
	o.queues.Store(err != nil || slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() != "noqueue" && q.Type() != "clsact" }))
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	return nil
}

// namespaceCookie tells the caller's network namespace from all others.
func namespaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("get SO_NETNS_COOKIE: %w", err)
	}
	return cookie, nil
}

// loadBurst loads the program: R6 is the packet, R7 the slot, R8 counts, R9 is the
// packet's length. On the stack is the device's index.
func loadBurst(cookie uint64, device, frames *ebpf.Map) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: "msee_burst", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R1, int64(cookie), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "not there"),
		asm.StoreImm(asm.RFP, burstIndex, 0, asm.Word), // the key
		asm.LoadMapPtr(asm.R1, device.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, burstIndex),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "not there"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, burstIndex, asm.R1, asm.Word),
		asm.LoadMapValue(asm.R7, frames.FD(), markAt),
		asm.LoadMem(asm.R1, asm.R7, 0, asm.Word),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		// The queue of the processor, as packet sockets do, or a flow's bursts and its other
		// frames would take different ones of a veth that has several.
		asm.FnGetSmpProcessorId.Call(),
		asm.Add.Imm(asm.R0, 1),
		asm.StoreMem(asm.R6, skbQueueMapping, asm.R0, asm.Word),
		asm.LoadMapValue(asm.R7, frames.FD(), 0),
		asm.Mov.Imm(asm.R8, burstSlots),
		asm.Mov.Imm(asm.R9, burstMin),

		asm.LoadMem(asm.R2, asm.R7, slotLength, asm.Word).WithSymbol("next"),
		asm.JLT.Imm(asm.R2, burstMin, "done"),
		asm.JGT.Imm(asm.R2, burstMax, "done"),
		asm.JEq.Reg(asm.R2, asm.R9, "write"),
		asm.Mov.Reg(asm.R9, asm.R2),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkbChangeTail.Call(),
		asm.JEq.Imm(asm.R0, 0, "write"),
		asm.Mov.Imm(asm.R9, 0), // the length is not known
		asm.Ja.Label("sent"),

		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("write"),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, slotBytes),
		asm.Mov.Reg(asm.R4, asm.R9),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "sent"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R2, asm.RFP, burstIndex, asm.Word),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnCloneRedirect.Call(),

		asm.StoreMem(asm.R7, slotResult, asm.R0, asm.Word).WithSymbol("sent"),
		asm.Add.Imm(asm.R7, slotSize),
		asm.Sub.Imm(asm.R8, 1),
		asm.JNE.Imm(asm.R8, 0, "next"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("done"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, notThere).WithSymbol("not there"),
		asm.Return(),
	}})
}

// takes reports whether a frame may go this way.
func (c *burstSender) takes(f *Frame) bool {
	n := f.Len()
	if f.VNet.Flags&VNetNeedsCsum != 0 && (n > finishMax || !f.VNet.canFinish(n)) {
		return false
	}
	return f.VNet.GSOType == GSONone && n >= burstMin && n <= burstMax
}

// put fills a slot.
func (c *burstSender) put(i int, f *Frame) {
	slot := c.mem[i*slotSize : (i+1)*slotSize : (i+1)*slotSize]
	n := copy(slot[slotBytes:], f.Bytes())
	if f.VNet.Flags&VNetNeedsCsum != 0 {
		finishChecksum(slot[slotBytes:slotBytes+n], &f.VNet)
	}
	binary.NativeEndian.PutUint32(slot[slotLength:], uint32(n))
	binary.NativeEndian.PutUint32(slot[slotResult:], 0)
}

// send sends a burst of frames that it takes, burstSlots at most, and returns how many
// left. errno is the first that kept one from leaving, 0 if that was a full queue; ok is
// false, and nothing was sent, if this thread cannot send so. silent says that the
// host may not send on the device (see hostSilence).
func (c *burstSender) send(frames []*Frame, silent bool) (sent int, errno unix.Errno, ok bool) {
	mark := uint32(0)
	if silent {
		mark = ownMark
	}
	binary.NativeEndian.PutUint32(c.mem[markAt:], mark)
	for i, f := range frames {
		c.put(i, f)
	}
	if len(frames) < burstSlots {
		binary.NativeEndian.PutUint32(c.mem[len(frames)*slotSize+slotLength:], 0)
	}
	c.run.sizeOut = 0 // the kernel has written how long the packet was, and would take it for a limit
	const cmdProgRun = 10
	if _, _, e := unix.RawSyscall(unix.SYS_BPF, cmdProgRun, uintptr(unsafe.Pointer(&c.run)), unsafe.Sizeof(c.run)); e != 0 || c.run.result != 0 {
		return 0, e, false
	}
	for i := range frames {
		switch r := int32(binary.NativeEndian.Uint32(c.mem[i*slotSize+slotResult:])); {
		case r == 0:
			sent++
		case r == netXmitDrop: // the far end is full
		case errno == 0 && r == netXmitCN:
			errno = unix.ENETDOWN
		case errno == 0 && r < 0:
			errno = unix.Errno(-r)
		}
	}
	return sent, errno, true
}

func (c *burstSender) close() error {
	var errs []error
	if c.mem != nil {
		errs = append(errs, unix.Munmap(c.mem))
	}
	if c.program != nil {
		errs = append(errs, c.program.Close())
	}
	for _, m := range []*ebpf.Map{c.frames, c.device} {
		errs = append(errs, m.Close()) // of nil, nothing
	}
	return errors.Join(errs...)
}
