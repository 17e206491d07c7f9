package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// flood is a sender of small UDP frames that is faster than any router: an XDP
// program makes them in place, in memory that the kernel uses again and again,
// and hands them to the device. Nothing is allocated and no stack is passed.
//
// A run is one call into the kernel, which a signal ends: to begin and to end one
// costs tens of milliseconds in which nothing is sent (it waits for RCU). A rate is
// held by the program, frame by frame. The row sender_steady_percent shows that
// what it offers is smooth.
type flood struct {
	node, device string
	to           [6]byte // the router's address
	from, dst    netip.Addr
	ctag         uint16 // 0: untagged
	octets       int    // of a frame, tag included
	flows        int    // a power of two: so many source ports, at random
	// perSecond bounds what is sent; 0 is as much as the device takes.
	perSecond float64
}

const (
	// floodPort is where the frames go: discard (RFC 863), dropped at the sink.
	floodPort = 9
	// floodBatch is how many frames the kernel makes at a time, with softirqs
	// in between.
	floodBatch = 64
	// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES: what the program returns is
	// done with the frame.
	liveFrames = 1 << 1
	// floodCPU is where the sender runs, and with it, in its softirq, what the
	// kernel does for the router's device.
	floodCPU = 0
	// floodLag is how far a sender that holds a rate may be behind it and still
	// make up for it. What is later than that is not sent.
	floodLag = time.Millisecond
)

// sending is a flood that runs.
type sending struct {
	stop  context.CancelFunc
	done  chan error
	state *ebpf.Map
}

// start sends until stop is called or the context ends.
func (f flood) start(ctx context.Context) (*sending, error) {
	fail := func(err error) (*sending, error) {
		return nil, fmt.Errorf("flood from %s of %s: %w", f.device, f.node, err)
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Name: "flood", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &sending{stop: cancel, done: make(chan error, 1), state: state}
	began := make(chan error, 1)
	go func() {
		s.done <- netns.Do(f.node, func() error { // on a thread that is not used again
			prog, frame, err := f.prepare(state)
			began <- err
			if err != nil {
				return err
			}
			defer prog.Close()
			return send(ctx, prog, frame)
		})
	}()
	select {
	case err = <-began:
	case err = <-s.done: // it did not get into the namespace
	}
	if err != nil {
		cancel()
		state.Close()
		return fail(err)
	}
	return s, nil
}

// offered returns how many frames the device has been given.
func (s *sending) offered() (frames uint64, err error) {
	var v [2]uint64
	if err := s.state.Lookup(uint32(0), &v); err != nil {
		return 0, fmt.Errorf("read what was sent: %w", err)
	}
	return v[0], nil
}

// end stops it, and returns when it has.
func (s *sending) end() error {
	s.stop()
	err := <-s.done
	return errors.Join(err, s.state.Close())
}

// prepare binds the thread to its processor and loads the program.
func (f flood) prepare(state *ebpf.Map) (*ebpf.Program, []byte, error) {
	var set unix.CPUSet
	set.Set(floodCPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, nil, fmt.Errorf("bind sender to processor %d: %w", floodCPU, err)
	}
	link, err := netlink.LinkByName(f.device)
	if err != nil {
		return nil, nil, err
	}
	frame := f.frame(link.Attrs().HardwareAddr)
	prog, err := f.program(frame, link.Attrs().Index, state)
	return prog, frame, err
}

// send runs the program until the context ends.
func send(ctx context.Context, prog *ebpf.Program, frame []byte) error {
	thread, over := unix.Gettid(), make(chan struct{})
	defer close(over)
	go func() {
		<-ctx.Done()
		for { // a signal that comes before the call is lost
			unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // Go's own, which means nothing
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	for ctx.Err() == nil {
		if err := runLive(prog, frame); err != nil && err != unix.EINTR {
			return fmt.Errorf("run program: %w", err)
		}
	}
	return nil
}

// runLive runs a program as often as it can be said, or until a signal comes
// (EINTR). The library would go on then.
func runLive(prog *ebpf.Program, frame []byte) error {
	const cmdProgRun = 10 // BPF_PROG_TEST_RUN
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&frame[0])
	attr := struct { // union bpf_attr, test
		fd, _, sizeIn, sizeOut uint32
		in, out                uint64
		repeat, _, _, _        uint32
		_, _                   uint64
		flags, _, batch, _     uint32
	}{fd: uint32(prog.FD()), in: uint64(uintptr(unsafe.Pointer(&frame[0]))), sizeIn: uint32(len(frame)),
		repeat: math.MaxUint32, flags: liveFrames, batch: floodBatch}
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmdProgRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}

// The base values of the two fields that tell flows apart. Their sum is the
// same for each flow, and so is the checksum.
const (
	floodSource = 0x8000
	floodMark   = 0xf000
	floodFlows  = 1 << 12 // at most
)

// frame returns the first flow's frame: Ethernet, tag, IPv4, UDP with its
// checksum, two octets that vary with the flow, zeros.
func (f flood) frame(mac []byte) []byte {
	b := make([]byte, f.octets)
	copy(b, f.to[:])
	copy(b[6:], mac)
	at := 12
	if f.ctag != 0 {
		binary.BigEndian.PutUint16(b[at:], unix.ETH_P_8021Q)
		binary.BigEndian.PutUint16(b[at+2:], f.ctag)
		at += 4
	}
	binary.BigEndian.PutUint16(b[at:], unix.ETH_P_IP)
	ip := b[at+2:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[6] = 0x40 // don't fragment
	copy(ip[12:], f.from.AsSlice())
	copy(ip[16:], f.dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, floodSource)
	binary.BigEndian.PutUint16(udp[2:], floodPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[8:], floodMark)
	pseudo := uint32(unix.IPPROTO_UDP + len(udp))
	binary.BigEndian.PutUint16(udp[6:], checksum(pseudo, ip[12:20], udp))
	return b
}

// checksum is the Internet's (RFC 1071) over parts of even length.
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// program returns the XDP program: it writes the headers anew, as the memory is
// that of a frame which a router has changed since, chooses a flow, and sends
// the frame out of the device. In state it counts them, and keeps when the next is
// due (ns); until then it drops what it is asked for.
func (f flood) program(frame []byte, ifindex int, state *ebpf.Map) (*ebpf.Program, error) {
	udp := 14 + 20
	if f.ctag != 0 {
		udp += 4
	}
	headers := (udp + 10 + 3) &^ 3
	const sent, due = 0, 8 // in state
	ins := asm.Instructions{
		asm.LoadMapValue(asm.R8, state.FD(), 0),
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R7),
		asm.Add.Imm(asm.R4, int32(headers)),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
	}
	if f.perSecond > 0 {
		ins = append(ins,
			asm.FnKtimeGetNs.Call(),
			asm.LoadMem(asm.R1, asm.R8, due, asm.DWord),
			asm.JLT.Reg(asm.R0, asm.R1, "drop"),
			asm.Sub.Imm(asm.R0, int32(floodLag)),
			asm.JGE.Reg(asm.R1, asm.R0, "in time"),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.Add.Imm(asm.R1, int32(math.Round(1e9/f.perSecond))).WithSymbol("in time"),
			asm.StoreMem(asm.R8, due, asm.R1, asm.DWord),
		)
	}
	for i := 0; i < headers; i += 4 {
		ins = append(ins, asm.StoreImm(asm.R7, int16(i), int64(int32(binary.NativeEndian.Uint32(frame[i:]))), asm.Word))
	}
	if f.flows > 1 {
		ins = append(ins,
			asm.FnGetPrandomU32.Call(),
			asm.And.Imm(asm.R0, int32(min(f.flows, floodFlows)-1)),
			asm.Mov.Imm(asm.R1, floodSource),
			asm.Add.Reg(asm.R1, asm.R0),
			asm.HostTo(asm.BE, asm.R1, asm.Half),
			asm.StoreMem(asm.R7, int16(udp), asm.R1, asm.Half),
			asm.Mov.Imm(asm.R1, floodMark),
			asm.Sub.Reg(asm.R1, asm.R0),
			asm.HostTo(asm.BE, asm.R1, asm.Half),
			asm.StoreMem(asm.R7, int16(udp+8), asm.R1, asm.Half),
		)
	}
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.R8, sent, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R8, sent, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
		asm.Return(),
	)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "flood", Type: ebpf.XDP, Instructions: ins, License: "Apache-2.0"})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	return prog, nil
}
