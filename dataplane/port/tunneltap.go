package port

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunnelTap is the way out for superframes in tunnels. AF_PACKET's virtio-net
// header cannot say where the inner packet begins; a TAP's can, since Linux 6.17
// (VIRTIO 1.4 §5.1.6, VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO). So they are written to a
// TAP of our own, whose every frame a BPF program at once sends out of the device.
type tunnelTap struct{ fd int }

const (
	tunFUDPTunnelGSO = 0x80 // TUN_F_UDP_TUNNEL_GSO

	gsoTunnelIPv4 = 0x20 // VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4
	gsoTunnelIPv6 = 0x40
	gsoTunnel     = gsoTunnelIPv4 | gsoTunnelIPv6

	// tunnelHdrLen is the length of virtio_net_hdr_v1_hash_tunnel, and the
	// offsets of its last two fields.
	tunnelHdrLen   = 24
	tunnelOuterL4  = 20
	tunnelInnerL3  = 22
	tunnelTapName  = "mseevx%d"
	tunnelMaxOuter = 65535 // octets of the outer IP packet
)

// openTunnelTap makes the TAP, in the caller's network namespace, for a device
// there.
func openTunnelTap(ifindex int) (_ *tunnelTap, err error) {
	t := &tunnelTap{fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(tunnelTapName)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, fmt.Errorf("make TAP: %w", err)
	}
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, offloads|tunFUDPTunnelGSO); err != nil {
		return nil, fmt.Errorf("set offload of tunnels, which takes Linux 6.17: %w", err)
	}
	if err := unix.IoctlSetPointerInt(t.fd, unix.TUNSETVNETHDRSZ, tunnelHdrLen); err != nil {
		return nil, fmt.Errorf("set virtio-net header length: %w", err)
	}
	if err := redirect(ifr.Name(), ifindex); err != nil {
		return nil, err
	}
	return t, nil
}

// redirect sends all that comes in by the device called name out of another, and
// sets the device up.
func redirect(name string, to int) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	link, err := handle.LinkByName(name)
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "msee_redirect",
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(to)),
			asm.Mov.Imm(asm.R2, 0), // egress
			asm.FnRedirect.Call(),
			asm.Return(),
		},
		License: "Apache-2.0",
	})
	if err != nil {
		return fmt.Errorf("load redirect program: %w", err)
	}
	defer prog.Close() // the filter holds it
	index := link.Attrs().Index
	if err := handle.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	err = handle.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          prog.FD(), Name: "msee-redirect", DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add redirect filter: %w", err)
	}
	return handle.LinkSetUp(link)
}

// takesTunnelled reports whether a frame can go this way whole.
func takesTunnelled(f *Frame) bool {
	return f.Inner != 0 && f.VNet.Flags&VNetNeedsCsum != 0 && f.Len() <= tunnelMaxOuter &&
		f.Start >= tunnelHdrLen && f.VNet.GSOType != GSONone && f.VNet.GSOType&^GSOECN != GSOUDP
}

// send writes frames that takesTunnelled. errno is the first that kept one from
// leaving; more says whether it makes sense to go on with others.
func (t *tunnelTap) send(frames []*Frame) (sent int, more bool, errno unix.Errno) {
	for _, f := range frames {
		if e := t.write(f); e == 0 {
			sent++
		} else if errno == 0 {
			errno = e
		}
	}
	return sent, true, errno
}

func (t *tunnelTap) write(f *Frame) unix.Errno {
	frame := f.Bytes()
	inner := f.Inner - f.Start
	const udpToInner = 8 + 8 + 14 // UDP, VXLAN, Ethernet
	outer := inner - udpToInner
	if outer < 14+20 {
		return unix.EINVAL
	}
	h := f.VNet
	h.HdrLen = h.headerLen(frame)
	h.Flags &= VNetNeedsCsum
	if outer >= 14+40 && frame[outer-40]>>4 == 6 {
		h.GSOType |= gsoTunnelIPv6
	} else {
		h.GSOType |= gsoTunnelIPv4
	}
	b := f.Buf[f.Start-tunnelHdrLen : f.End]
	clear(b[:tunnelHdrLen])
	h.Encode(b)
	binary.LittleEndian.PutUint16(b[tunnelOuterL4:], uint16(outer))
	binary.LittleEndian.PutUint16(b[tunnelInnerL3:], uint16(inner))
	// As in sendmmsg, the scheduler need not know.
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(t.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return errno
}

func (t *tunnelTap) close() error {
	if t.fd < 0 {
		return nil
	}
	fd := t.fd
	t.fd = -1
	return unix.Close(fd)
}
