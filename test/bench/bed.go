package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/api"
	"msee/lab"
	"msee/netns"
)

//go:embed testdata/*.yaml
var topologies embed.FS

// labName is the bed's name as a lab: `msee lab down bench` removes it if the
// bench was killed.
const labName = "bench"

// The bed's nodes, as in testdata.
const (
	customer = labName + ".cust"
	router   = labName + ".rtr"
	vnet     = labName + ".vnet"
)

// path is how traffic goes from customer to vnet on a side: the addresses
// choose it, as both are always there.
type path struct{ from, to string }

var paths = map[side]path{
	subject:  {"10.1.0.10", "10.100.1.10"}, // tagged, routes learned by BGP
	baseline: {"10.61.0.1", "10.62.0.1"},   // untagged, static routes
}

// A bed's links that the router forwards between, and its addresses for the kernel.
type links []struct{ node, device, address string }

var (
	oneRouter = links{
		{customer, "eth1", ""},
		{router, "eth1", "10.61.0.254/24"},
		{router, "eth2", "10.62.0.254/24"},
		{vnet, "eth1", ""},
	}
	withBump = links{
		{customer, "eth1", ""},
		{bump, "eth0", "10.61.0.254/24"},
		{router, "eth2", "10.62.0.254/24"},
		{vnet, "eth1", ""},
	}
)

// macsecBed is the bed with a bump.
const macsecBed = "macsec"

// MTUs of the links: room for tags, or the same for the untagged addresses as
// the subinterfaces have.
const (
	taggedMTU   = 9000
	untaggedMTU = 1500
)

// bed is a lab of one router between two FRRs. The router is msee or the kernel.
type bed struct {
	name        string
	msee, other string // executables; other is for -against
	// router is who forwards. It is the MSEE when the lab comes up.
	router  forwarder
	peer    *peer  // unless it is the MSEE or the kernel
	scratch string // directory for peers
	// nodes are those that are msee's, or the kernel's with it stopped.
	nodes     []string
	links     links
	env       []string // of msee
	wireguard string   // executable
}

// forwarder is what can forward between the bed's ends.
type forwarder string

const (
	msee   forwarder = "msee"
	kernel forwarder = "kernel"
	// otherMSEE is the one of -against.
	otherMSEE forwarder = "other_msee"
)

// isMSEE reports whether f is an msee of either executable.
func (f forwarder) isMSEE() bool { return f == msee || f == otherMSEE }

// forwarder returns who forwards on a side.
func (r *row) forwarder(s side) forwarder {
	switch {
	case s == subject && !r.without:
		return msee
	case r.opponent != "":
		return r.opponent
	}
	return kernel
}

// enterBed makes sure that the bed called name is up, and no other.
func (b *bench) enterBed(ctx context.Context, name string) error {
	if b.bed != nil && b.bed.name == name {
		return nil
	}
	if err := b.leaveBed(ctx); err != nil || name == "" {
		return err
	}
	t, err := topology(name)
	if err != nil {
		return err
	}
	b.bed = &bed{name: name, msee: b.msee, other: b.against, router: msee, scratch: b.scratch, nodes: []string{router}, links: oneRouter}
	if name == macsecBed {
		b.bed.nodes, b.bed.links = []string{bump, router}, withBump
		if b.bed.wireguard, err = b.buildWireguard(ctx); err != nil {
			b.bed = nil
			return err
		}
	}
	for name, value := range t.Environment {
		b.bed.env = append(b.bed.env, name+"="+value)
	}
	if err := lab.Up(ctx, t, lab.Options{Name: labName, Binary: b.msee, Force: true, Progress: b.progress}); err != nil {
		return err
	}
	for _, node := range b.bed.nodes {
		err := retry(stopTimeout, func() error { // it may not answer yet
			pid, err := pidOf(node)
			if err == nil {
				err = joinGroup(pid)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if name == tapBed {
		return plugTaps()
	}
	return nil
}

// xdpBed is behind the name of a bed whose ports are of type xdp.
const xdpBed = "_xdp"

// topology reads the one that a bed is built after.
func topology(bed string) (*lab.Topology, error) {
	name, xdp := strings.CutSuffix(bed, xdpBed)
	file := "testdata/" + name + ".yaml"
	text, err := topologies.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if xdp {
		text = portDevice.ReplaceAll(text, []byte("$0, type: xdp"))
	}
	return lab.Parse(file, text)
}

// portDevice is a port's device in a topology.
var portDevice = regexp.MustCompile(`device: eth\d`)

// leaveBed removes the bed that is up, if any.
func (b *bench) leaveBed(ctx context.Context) error {
	if b.bed == nil {
		return nil
	}
	if b.bed.router == wireguardGo {
		b.bed.leave(wireguardGo) // all of the bed goes, whatever comes of this
	}
	err := b.bed.stopPeer()
	b.bed = nil
	return errors.Join(err, lab.Down(ctx, labName))
}

// use makes f the router. The MSEE is not there while another forwards: its
// rings and its filter would be in the way. So each of its runs is of a fresh
// start, and the median one over starts.
func (d *bed) use(ctx context.Context, f forwarder) error {
	if d.router != f {
		if err := d.leave(d.router); err != nil {
			return fmt.Errorf("stop %s: %w", d.router, err)
		}
		d.router = f
		if err := d.enter(f); err != nil {
			return fmt.Errorf("start %s: %w", f, err)
		}
	}
	if err := d.await(ctx); err != nil {
		return err
	}
	if f == ovsTSO { // it has opened all that it sends by now
		return widen(d.peer.pid())
	}
	return nil
}

func (d *bed) enter(f forwarder) error {
	switch f {
	case msee, otherMSEE:
		return d.startMSEE()
	case kernel:
		if d.name == vxlanBed {
			return errors.Join(d.untagged(true), kernelVXLAN(true), d.forwarding(true))
		}
		return errors.Join(d.untagged(true), d.forwarding(true))
	case wireguardGo:
		return errors.Join(d.untagged(true), d.forwarding(true), d.startWireguard())
	}
	return errors.Join(d.untagged(true), d.startPeer(f))
}

func (d *bed) leave(f forwarder) error {
	switch f {
	case msee, otherMSEE:
		return d.stopMSEE()
	case kernel:
		if d.name == vxlanBed {
			return errors.Join(d.forwarding(false), kernelVXLAN(false), d.untagged(false))
		}
		return errors.Join(d.forwarding(false), d.untagged(false))
	case wireguardGo:
		return errors.Join(d.stopWireguard(), d.forwarding(false), d.untagged(false))
	}
	return errors.Join(d.stopPeer(), d.untagged(false))
}

// routerPID is the process whose CPU time is the router's, 0 for the kernel.
func (d *bed) routerPID() (int, error) {
	switch d.router {
	case msee, otherMSEE:
		return d.pid()
	case kernel:
		return 0, nil
	}
	return d.peer.pid(), nil
}

// forwarding has the kernel of the nodes forward, or not.
func (d *bed) forwarding(on bool) (err error) {
	value := "0"
	if on {
		value = "1"
	}
	for _, node := range d.nodes {
		err = errors.Join(err, netns.Do(node, func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0)
		}))
	}
	return err
}

// untagged makes the links ready for a router between the untagged addresses,
// or puts things back.
func (d *bed) untagged(on bool) error {
	mtu := taggedMTU
	if d.name == untaggedBed || on && d.name != vxlanBed { // there the VXLAN devices have the same MTU
		mtu = untaggedMTU
	}
	for _, l := range d.links {
		if err := netns.Do(l.node, func() error { return setLink(l.device, l.address, mtu, on) }); err != nil {
			return fmt.Errorf("set up %s of %s: %w", l.device, l.node, err)
		}
	}
	return nil
}

func setLink(device, address string, mtu int, on bool) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil || address == "" {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if on {
		return netlink.AddrReplace(link, addr)
	}
	if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}

// awaitTimeout is how long sessions and neighbours may take after a start.
const awaitTimeout = 60 * time.Second

// await returns when packets go both ways.
func (d *bed) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	p := d.path(baseline)
	if d.router.isMSEE() {
		p = d.path(subject)
	}
	for {
		out, err := output(ctx, customer, "ping", "-n", "-c", "1", "-W", "1", "-I", p.from, p.to)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s to answer: %w: %s", p.to, ctx.Err(), lastLine(out))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ingress returns the frames and octets that have entered the router by the
// device that the data comes in by: the customer's, or the core's in reverse.
// The MSEE counts them itself.
func (d *bed) ingress(reverse bool) (frames, octets uint64, err error) {
	device, port := "eth1", "cust"
	if reverse {
		device, port = "eth2", "core"
	}
	if !d.router.isMSEE() {
		return linkReceived(router, device)
	}
	ports, err := api.NewClient(router).Ports()
	for _, p := range ports {
		if p.Name == port {
			return p.RxFrames, p.RxBytes, nil
		}
	}
	return 0, 0, errors.Join(fmt.Errorf("read counters: msee has no port %s", port), err)
}

// drops returns what the MSEE lost for want of room, in and out.
func (d *bed) drops() (lost uint64, err error) {
	ports, err := api.NewClient(router).Ports()
	for _, p := range ports {
		lost += p.RxDropped + p.TxDrops
	}
	return lost, err
}

// linkReceived reads a device's own counters.
func linkReceived(node, device string) (frames, octets uint64, err error) {
	err = netns.Do(node, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		s := link.Attrs().Statistics
		frames, octets = s.RxPackets, s.RxBytes
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read counters: %s of %s: %w", device, node, err)
	}
	return frames, octets, nil
}

// benchVLAN is the peering's tag in testdata/dot1q.yaml.
const benchVLAN = 100

// macOf returns a device's MAC.
func macOf(node, device string) (mac [6]byte, err error) {
	err = netns.Do(node, func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			mac = [6]byte(link.Attrs().HardwareAddr)
		}
		return err
	})
	if err != nil {
		return mac, fmt.Errorf("find address of %s of %s: %w", device, node, err)
	}
	return mac, nil
}
