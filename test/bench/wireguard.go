package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"msee/netns"
)

// wireguardGo is the WireGuard implementation in Go: a tunnel in userspace with
// superframes on both of its sides, between the nodes that otherwise have MACsec.
const wireguardGo forwarder = "wireguard_go"

// wireguardModule pins its version. It is built for the bench alone.
const wireguardModule, wireguardPackage = "test/bench/wireguard", "golang.zx2c4.com/wireguard"

// bump is the node at the far end of the link with MACsec.
const bump = labName + ".bump"

// wireguardEnd is one end of the tunnel.
type wireguardEnd struct {
	node, tunnel string
	underlay     string // address on the link with the other end, /24
	to           string // what is behind the other end
	key          *ecdh.PrivateKey
}

// wireguardPort is where both ends listen.
const wireguardPort = 51820

// buildWireguard builds it, once.
func (b *bench) buildWireguard(ctx context.Context) (string, error) {
	file := filepath.Join(b.scratch, "wireguard-go")
	out, err := exec.CommandContext(ctx, "go", "build", "-C", wireguardModule, "-o", file, wireguardPackage).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build wireguard-go: %w: %s", err, lastLine(out))
	}
	return file, nil
}

// startWireguard starts both ends and routes by the tunnel. The tunnel takes
// what the customer sends in packets of untaggedMTU, as the link with MACsec
// does; the link's own MTU has room for what is around them.
func (d *bed) startWireguard() (err error) {
	if d.peer, err = newPeer(d.scratch); err != nil {
		return err
	}
	ends := []*wireguardEnd{
		{node: bump, tunnel: "bench-wg0", underlay: "10.63.0.1", to: "10.62.0.0/24"},
		{node: router, tunnel: "bench-wg1", underlay: "10.63.0.2", to: "10.61.0.0/24"},
	}
	for _, e := range ends {
		if e.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
		if err := netns.Do(e.node, func() error { return setLink("eth1", e.underlay+"/24", taggedMTU, true) }); err != nil {
			return err
		}
		if _, err := d.peer.startIn(e.node, d.wireguard, "-f", e.tunnel); err != nil {
			return err
		}
	}
	for i, e := range ends {
		if err := e.configure(ends[1-i]); err != nil {
			return fmt.Errorf("configure wireguard-go of %s: %w", e.node, err)
		}
	}
	return nil
}

// configure tells an end its key and the other, by its socket (WireGuard's
// cross-platform userspace API), and routes by it.
func (e *wireguardEnd) configure(other *wireguardEnd) error {
	var c net.Conn
	err := retry(5*time.Second, func() (err error) {
		c, err = net.Dial("unix", "/var/run/wireguard/"+e.tunnel+".sock")
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, "set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=0.0.0.0/0\n\n",
		e.key.Bytes(), wireguardPort, other.key.PublicKey().Bytes(), other.underlay, wireguardPort)
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "errno=0" {
		return errors.Join(err, fmt.Errorf("it answers %q", answer))
	}
	return netns.Do(e.node, func() error {
		link, err := netlink.LinkByName(e.tunnel)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetMTU(link, untaggedMTU), netlink.LinkSetUp(link)); err != nil {
			return err
		}
		_, dst, err := net.ParseCIDR(e.to)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst})
	})
}

// stopWireguard ends both; their tunnels go with them.
func (d *bed) stopWireguard() error {
	d.peer.stop()
	d.peer = nil
	return errors.Join(
		netns.Do(bump, func() error { return setLink("eth1", "10.63.0.1/24", taggedMTU, false) }),
		netns.Do(router, func() error { return setLink("eth1", "10.63.0.2/24", taggedMTU, false) }))
}
