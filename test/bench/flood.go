package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// flood is a sender of small UDP frames that is faster than any router: an XDP
// program makes them in place, in memory that the kernel uses again and again,
// and hands them to the device. Nothing is allocated and no stack is passed.
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
	// floodBatch is how many frames the kernel makes at a time, floodRepeat how
	// many in a call: each sets up memory. With a rate to keep it is fewer.
	floodBatch  = 64
	floodRepeat = 1 << 16
	floodPaced  = 1 << 12
	// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES: what the program returns is
	// done with the frame.
	liveFrames = 1 << 1
	// floodCPU is where the sender runs, and with it, in its softirq, what the
	// kernel does for the router's device.
	floodCPU = 0
)

// run sends until the context ends, and returns how many frames a second were
// offered.
func (f flood) run(ctx context.Context) (rate float64, err error) {
	err = netns.Do(f.node, func() error { // on a thread that is not used again
		var set unix.CPUSet
		set.Set(floodCPU)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("bind sender to processor %d: %w", floodCPU, err)
		}
		link, err := netlink.LinkByName(f.device)
		if err != nil {
			return err
		}
		frame := f.frame(link.Attrs().HardwareAddr)
		prog, err := f.program(frame, link.Attrs().Index)
		if err != nil {
			return err
		}
		defer prog.Close()
		rate, err = f.send(ctx, prog, frame)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("flood from %s of %s: %w", f.device, f.node, err)
	}
	return rate, nil
}

func (f flood) send(ctx context.Context, prog *ebpf.Program, frame []byte) (rate float64, err error) {
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		repeat := floodRepeat
		if f.perSecond > 0 {
			due := f.perSecond*time.Since(began).Seconds() - float64(sent)
			if due < floodBatch {
				time.Sleep(50 * time.Microsecond)
				continue
			}
			repeat = min(floodPaced, int(due))
		}
		_, err := prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(repeat), Flags: liveFrames, BatchSize: floodBatch})
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("run program: %w", err)
		}
		sent += repeat
	}
	return float64(sent) / time.Since(began).Seconds(), nil
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
// the frame out of the device.
func (f flood) program(frame []byte, ifindex int) (*ebpf.Program, error) {
	udp := 14 + 20
	if f.ctag != 0 {
		udp += 4
	}
	headers := (udp + 10 + 3) &^ 3
	ins := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R7),
		asm.Add.Imm(asm.R4, int32(headers)),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
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
