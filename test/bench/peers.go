package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/netns"
)

// Other userspace dataplanes, each in the configuration that is its best for
// the rows it is measured in. They forward between the untagged addresses.
const (
	// packetCopy is the copier: what AF_PACKET costs anybody.
	packetCopy forwarder = "af_packet_copy"
	// ovsTSO is Open vSwitch's userspace datapath over AF_PACKET, with
	// superframes.
	ovsTSO forwarder = "ovs_tso"
	// ovsXDP is the same over AF_XDP, native with copies, a thread of its own.
	ovsXDP forwarder = "ovs_afxdp"
	// dpdkXDP is testpmd over AF_XDP: it rewrites the addresses and does
	// nothing of what a router does besides.
	dpdkXDP forwarder = "dpdk_testpmd_afxdp"
)

// peerNotes say what exactly each is, for the results.
var peerNotes = map[forwarder]string{
	packetCopy: "this bench's own (`test/bench/copier.go`): one thread, TPACKET_V2 in, sendmmsg out, virtio-net headers both ways; sets the addresses and the TTL",
	ovsTSO:     "Open vSwitch of Debian (3.1), userspace datapath, DPDK's build for `userspace-tso-enable=true`, AF_PACKET ports with buffers of 8 MiB, as msee's have (its own of 208 KiB lose superframes by the ten thousand), the main thread forwards; two OpenFlow rules that set the addresses and the TTL",
	ovsXDP:     "Open vSwitch of Debian (3.1), userspace datapath, afxdp ports, `xdp-mode=native` (copying: veth has no zero-copy here), one queue, a PMD thread on processor 1 that polls always; the same rules",
	dpdkXDP:    "testpmd of Debian's DPDK (22.11), net_af_xdp with `force_copy=1`, one forwarding core, processor 1, which polls always; `--forward-mode=mac`: sets the addresses, looks nothing up. No row of TCP: neither AF_XDP nor net_af_packet carries superframes there",
}

// Where Debian has what it does not put into PATH.
const (
	ovsSchema   = "/usr/share/openvswitch/vswitch.ovsschema"
	vswitchd    = "/usr/lib/openvswitch-switch/ovs-vswitchd"
	vswitchdTSO = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk" // only this build has it
	testpmd     = "dpdk-testpmd"
)

// peerFiles are the programs that are not there without `make bench-peers`.
var peerFiles = map[string]forwarder{vswitchdTSO: ovsTSO, vswitchd: ovsXDP, testpmd: dpdkXDP}

// peer is a running one.
type peer struct {
	dir       string
	processes []*exec.Cmd // the last is the one that forwards
	stdin     io.Closer   // of testpmd, which ends with it
	host      []link.Link // what keeps frames from the host's stack
}

func (p *peer) pid() int { return p.processes[len(p.processes)-1].Process.Pid }

// startPeer starts f between the router's links.
func (d *bed) startPeer(f forwarder) (err error) {
	if d.peer, err = newPeer(d.scratch); err != nil {
		return err
	}
	ends, err := d.fixNeighbors()
	if err != nil {
		return err
	}
	for _, device := range []string{"eth1", "eth2"} {
		l, err := atIngress(router, device, dropAll())
		if err != nil {
			return err
		}
		d.peer.host = append(d.peer.host, l)
	}
	switch f {
	case packetCopy:
		return d.peer.copier(ends)
	case ovsTSO, ovsXDP:
		return d.peer.ovs(ends, f == ovsXDP)
	case dpdkXDP:
		return d.peer.testpmd(ends)
	}
	return fmt.Errorf("no peer is called %s", f)
}

func newPeer(scratch string) (*peer, error) {
	dir, err := os.MkdirTemp(scratch, "peer-")
	return &peer{dir: dir}, err
}

// addresses are the MACs on both links.
type addresses struct{ cust, rtr1, rtr2, vnet [6]byte }

// fixNeighbors tells the ends the router's addresses: a peer answers no ARP.
func (d *bed) fixNeighbors() (a addresses, err error) {
	for _, l := range []struct {
		mac          *[6]byte
		node, device string
	}{{&a.cust, customer, "eth1"}, {&a.rtr1, router, "eth1"}, {&a.rtr2, router, "eth2"}, {&a.vnet, vnet, "eth1"}} {
		if *l.mac, err = macOf(l.node, l.device); err != nil {
			return a, err
		}
	}
	for _, n := range []struct {
		node, ip string
		mac      [6]byte
	}{{customer, "10.61.0.254", a.rtr1}, {vnet, "10.62.0.254", a.rtr2}} {
		err := netns.Do(n.node, func() error {
			dev, err := netlink.LinkByName("eth1")
			if err != nil {
				return err
			}
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, State: netlink.NUD_PERMANENT,
				IP: net.ParseIP(n.ip), HardwareAddr: n.mac[:]})
		})
		if err != nil {
			return a, fmt.Errorf("set neighbor of %s: %w", n.node, err)
		}
	}
	return a, nil
}

// start starts a process in the router's namespace.
func (p *peer) start(argv ...string) (*exec.Cmd, error) { return p.startIn(router, argv...) }

func (p *peer) startIn(node string, argv ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(p.dir, filepath.Base(argv[0])+".out"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), p.environment()...), p.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = in
	if err := netns.Do(node, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p.processes = append(p.processes, cmd)
	return cmd, joinGroup(cmd.Process.Pid)
}

func (p *peer) environment() []string {
	var env []string
	for _, v := range []string{"OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"} {
		env = append(env, v+"="+p.dir)
	}
	return env
}

// run runs a command to its end.
func (p *peer) run(argv ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), p.environment()...), p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", argv[0], err, lastLine(out))
	}
	return nil
}

// ovs starts Open vSwitch with one flow each way.
func (p *peer) ovs(a addresses, xdp bool) error {
	db, sock := filepath.Join(p.dir, "conf.db"), "unix:"+filepath.Join(p.dir, "db.sock")
	if err := p.run("ovsdb-tool", "create", db, ovsSchema); err != nil {
		return err
	}
	if _, err := p.start("ovsdb-server", db, "--remote=p"+sock); err != nil {
		return err
	}
	vsctl := func(args ...string) error {
		return p.run(append([]string{"ovs-vsctl", "--timeout=15", "--db=" + sock}, args...)...)
	}
	if err := retry(5*time.Second, func() error { return vsctl("--no-wait", "init") }); err != nil {
		return err
	}
	daemon, setting, options := vswitchdTSO, "other_config:userspace-tso-enable=true", []string(nil)
	if xdp {
		daemon, setting = vswitchd, "other_config:pmd-cpu-mask=0x2"
		options = []string{"type=afxdp", "options:n_rxq=1", "options:xdp-mode=native"}
	}
	if err := vsctl("--no-wait", "set", "Open_vSwitch", ".", setting); err != nil {
		return err
	}
	if _, err := p.start(daemon, sock); err != nil {
		return err
	}
	if err := vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"); err != nil {
		return err
	}
	for i, device := range []string{"eth1", "eth2"} {
		args := append([]string{"add-port", "br0", device, "--", "set", "interface", device,
			fmt.Sprintf("ofport_request=%d", i+1)}, options...)
		if err := vsctl(args...); err != nil {
			return err
		}
	}
	bridge := "unix:" + filepath.Join(p.dir, "br0.mgmt")
	if err := p.run("ovs-ofctl", "del-flows", bridge); err != nil {
		return err
	}
	return errors.Join(
		p.run("ovs-ofctl", "add-flow", bridge, fmt.Sprintf("in_port=1,ip,actions=mod_dl_src:%s,mod_dl_dst:%s,dec_ttl,output:2", mac(a.rtr2), mac(a.vnet))),
		p.run("ovs-ofctl", "add-flow", bridge, fmt.Sprintf("in_port=2,ip,actions=mod_dl_src:%s,mod_dl_dst:%s,dec_ttl,output:1", mac(a.rtr1), mac(a.cust))))
}

// copier starts this command's own.
func (p *peer) copier(a addresses) error {
	self, err := os.Executable()
	if err == nil {
		_, err = p.start(self, copierCommand, "eth1="+mac(a.cust), "eth2="+mac(a.vnet))
	}
	return err
}

// testpmd starts DPDK's forwarder on processor 1.
func (p *peer) testpmd(a addresses) error {
	_, err := p.start(testpmd, "--no-huge", "-m", "1024", "--file-prefix", "msee-bench", "--no-pci", "--no-telemetry",
		"--iova-mode=va", "-l", "0,1", "--main-lcore", "0",
		"--vdev=net_af_xdp0,iface=eth1,force_copy=1", "--vdev=net_af_xdp1,iface=eth2,force_copy=1",
		"--", "--nb-cores=1", "--forward-mode=mac", "--auto-start", "--total-num-mbufs=32768",
		"--eth-peer=0,"+mac(a.cust), "--eth-peer=1,"+mac(a.vnet))
	return err
}

func mac(a [6]byte) string { return net.HardwareAddr(a[:]).String() }

// retry calls f until it succeeds.
func retry(limit time.Duration, f func() error) error {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if err := f(); err == nil || time.Since(began) > limit {
			return err
		}
	}
}

// stopPeer ends its processes, the forwarding one first, and removes what they
// leave on the devices.
func (d *bed) stopPeer() error {
	p := d.peer
	d.peer = nil
	if p == nil {
		return nil
	}
	p.stop()
	var errs []error
	for _, l := range p.host {
		errs = append(errs, l.Close())
	}
	for _, device := range []string{"eth1", "eth2"} {
		errs = append(errs, netns.Do(router, func() error {
			dev, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			return netlink.LinkSetXdpFd(dev, -1)
		}))
	}
	return errors.Join(errs...)
}

// stop ends the processes, the forwarding one first.
func (p *peer) stop() {
	if p.stdin != nil {
		p.stdin.Close()
	}
	for i := len(p.processes) - 1; i >= 0; i-- {
		cmd := p.processes[i]
		cmd.Process.Signal(unix.SIGTERM)
		gone := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait() // how it ends says nothing
		gone.Stop()
	}
}
