package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/lab/vlanshim"
	"msee/netns"
)

const bridgeName = "br0"

// prepareNamespace gives a new namespace its sysctls, a loopback and, in a
// switch, the bridge. It runs inside.
func prepareNamespace(n *Node) error {
	forwarding := "0"
	if n.Kind == KindFRR {
		forwarding = "1"
	}
	defaults := []struct{ key, value string }{
		// The host's own settings would be inherited, Docker's forwarding for one.
		{"net.ipv4.conf.all.forwarding", forwarding},
		{"net.ipv6.conf.all.forwarding", forwarding},
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		// Interfaces without addresses, trunks above all, shall be silent.
		{"net.ipv6.conf.default.disable_ipv6", "1"},
		// Flows spread over ECMP next hops by ports, and only over those that
		// answer ARP.
		{"net.ipv4.fib_multipath_hash_policy", "1"},
		{"net.ipv6.fib_multipath_hash_policy", "1"},
		{"net.ipv4.fib_multipath_use_neigh", "1"},
	}
	for _, d := range defaults {
		if err := sysctl(d.key, d.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for key, value := range n.Sysctls {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}
	if err := setUp("lo"); err != nil {
		return err
	}
	if n.Kind != KindSwitch {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	off := false // snooping would hold back neighbour discovery; VLAN filtering is off by itself
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	return setUp(bridgeName)
}

func sysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", key, err)
	}
	return nil
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// addLink makes a cable between two nodes and plugs it into bridges.
func addLink(lab string, t *Topology, l *Link) error {
	a, b := l.Ends[0], l.Ends[1]
	far, err := os.Open(netns.Path(instance(lab, b.Node)))
	if err != nil {
		return fmt.Errorf("add link %s — %s: %w", a, b, err)
	}
	defer far.Close()
	err = netns.Do(instance(lab, a.Node), func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = a.Interface, l.mtu()
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: b.Interface, PeerMTU: uint32(l.mtu()),
			PeerNamespace: netlink.NsFd(far.Fd()),
		})
	})
	for _, e := range l.Ends {
		if err == nil {
			err = netns.Do(instance(lab, e.Node), func() error { return plugIn(t.node(e.Node), e.Interface) })
		}
	}
	if err != nil {
		return fmt.Errorf("add link %s — %s: %w", a, b, err)
	}
	return nil
}

func plugIn(n *Node, name string) error {
	if n.Kind == KindSwitch {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		port, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return err
		}
	}
	return setUp(name)
}

// configure makes a node's subinterfaces, addresses and routes. It runs inside
// and returns how subinterfaces were made, "" if there are none.
func configure(n *Node) (method vlanshim.Method, err error) {
	for i := range n.Interfaces {
		f := &n.Interfaces[i]
		if f.VLAN != nil {
			if method, err = vlanshim.Add(f.VLAN.Parent, f.Name, f.vlanMTU(), f.VLAN.tags()...); err != nil {
				return "", err
			}
		}
		if f.VXLAN != nil {
			if err := addVXLAN(f); err != nil {
				return "", fmt.Errorf("add %s: %w", f.Name, err)
			}
		}
		if err := address(f); err != nil {
			return "", fmt.Errorf("configure %s: %w", f.Name, err)
		}
	}
	for i := range n.Routes {
		if err := addRoute(&n.Routes[i]); err != nil {
			return "", err
		}
	}
	return method, nil
}

// vxlanPort is IANA's; the kernel's default is another.
const vxlanPort = 4789

// addVXLAN makes the device of a VXLAN network, which floods to all other ends and
// learns what is behind which. Where EVPN tells both it is a port of a bridge, which then
// is the interface, as FRR wants it.
func addVXLAN(f *Interface) error {
	attrs, told := netlink.NewLinkAttrs(), len(f.VXLAN.Remotes) == 0
	attrs.Name, attrs.MTU = f.Name, f.vlanMTU()
	if told {
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		attrs.Name, attrs.MasterIndex = f.VXLAN.device(), bridge.Attrs().Index
	}
	link := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(f.VXLAN.VNI), SrcAddr: f.VXLAN.Local.AsSlice(), Port: vxlanPort,
		Learning: !told, UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	if told {
		if err := setUp(attrs.Name); err != nil {
			return err
		}
	}
	for _, to := range f.VXLAN.Remotes {
		err := netlink.NeighAppend(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
			Flags: netlink.NTF_SELF, HardwareAddr: make(net.HardwareAddr, 6), IP: to.AsSlice()})
		if err != nil {
			return fmt.Errorf("add end %s of its tunnels: %w", to, err)
		}
	}
	return setUp(f.Name)
}

// device names the one of the network where the interface is a bridge over it.
func (x *VXLAN) device() string { return fmt.Sprintf("vx%d", x.VNI) }

func address(f *Interface) error {
	link, err := netlink.LinkByName(f.Name)
	if err != nil {
		return err
	}
	if f.MTU != 0 {
		if err := netlink.LinkSetMTU(link, f.MTU); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		path := "/proc/sys/net/ipv6/conf/" + f.Name + "/disable_ipv6" // the name may have dots
		if err := os.WriteFile(path, []byte("0"), 0); err != nil {
			return err
		}
	}
	for _, p := range f.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return nil
}

func addRoute(r *Route) error {
	route := &netlink.Route{Dst: ipNet(r.To), Src: r.Src.AsSlice()}
	if len(r.Via) == 1 {
		route.Gw = r.Via[0].AsSlice()
	} else {
		for _, via := range r.Via {
			route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{Gw: via.AsSlice()})
		}
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %s: %w", r.To, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
