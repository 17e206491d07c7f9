package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"msee/api"
	"msee/lab/vlanshim"
	"msee/netns"
)

// bgpBed is what runs in the three namespaces.
type bgpBed struct {
	msee string
	dir  string
	side side
	pid  int // of msee
	stop []func()
}

func newBGPBed(b *bench, s side) (*bgpBed, error) {
	dir, err := os.MkdirTemp("", "bgp") // short: it holds unix sockets
	if err != nil {
		return nil, err
	}
	d := &bgpBed{msee: b.msee, dir: dir, side: s}
	d.onStop(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), d.links()); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *bgpBed) onStop(f func()) { d.stop = append(d.stop, f) }

func (d *bgpBed) close() {
	for i := len(d.stop) - 1; i >= 0; i-- {
		d.stop[i]()
	}
}

// links makes c:eth1 – r:eth1 and r:eth2 – g:eth1.
func (d *bgpBed) links() error {
	for _, ns := range []string{bgpCustomer, bgpRouter, bgpGateway} {
		netns.Delete(ns) // a killed run's
		if err := netns.Create(ns); err != nil {
			return err
		}
		d.onStop(func() { netns.Delete(ns) })
	}
	join := func(a, device, b string) error {
		f, err := os.Open(netns.Path(b))
		if err != nil {
			return err
		}
		defer f.Close()
		return netns.Do(a, func() error {
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", MTU: taggedMTU}, PeerName: device, PeerNamespace: netlink.NsFd(f.Fd())})
		})
	}
	err := errors.Join(join(bgpCustomer, "eth1", bgpRouter), join(bgpGateway, "eth2", bgpRouter))
	if err != nil {
		return err
	}
	for _, l := range []struct{ ns, device, address string }{
		{bgpCustomer, "lo", ""}, {bgpRouter, "lo", ""}, {bgpGateway, "lo", ""},
		{bgpCustomer, "eth1", "10.61.0.1/24"}, {bgpRouter, "eth1", "10.61.0.254/24"},
		{bgpRouter, "eth2", "10.62.0.254/24"}, {bgpGateway, "eth1", "10.62.0.1/24"},
	} {
		if err := netns.Do(l.ns, func() error { return address(l.device, l.address) }); err != nil {
			return fmt.Errorf("set up %s of %s: %w", l.device, l.ns, err)
		}
	}
	return nil
}

// address gives a device of this namespace an address, if any, and sets it up.
func address(device string, addresses ...string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if a == "" {
			continue
		}
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = syscall.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// vlan makes a tagged subinterface with addresses.
func vlan(ns string, id uint16, addresses ...string) error {
	return netns.Do(ns, func() error {
		name := fmt.Sprint("v", id)
		if _, err := vlanshim.Add("eth1", name, untaggedMTU, vlanshim.Tag{TPID: vlanshim.TPIDCustomer, VID: id}); err != nil {
			return err
		}
		return address(name, addresses...)
	})
}

// start runs a program in a namespace until the bed closes.
func (d *bgpBed) start(ns, log string, argv ...string) (*exec.Cmd, error) {
	f, err := os.Create(filepath.Join(d.dir, log+".log"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	if err := netns.Do(ns, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	if err := joinGroup(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		return nil, err
	}
	d.onStop(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
	})
	return cmd, nil
}

// router starts the router: msee with that file, or FRR.
func (d *bgpBed) router(ctx context.Context, config string) error {
	if d.side == baseline {
		return d.frr(ctx, bgpRouter, "r", ` bgp router-id 10.61.0.254
 neighbor 10.61.0.1 remote-as 65001
 neighbor 10.62.0.1 remote-as 65515
`, 12076)
	}
	file := filepath.Join(d.dir, "edge.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	cmd, err := d.start(bgpRouter, "edge", d.msee, "edge", "--config", file, "--instance", bgpInstance, "--state", "")
	if err != nil {
		return err
	}
	d.pid = cmd.Process.Pid
	return await(ctx, "msee", func() (bool, error) {
		_, err := api.NewClient(bgpInstance).Device()
		return err == nil, nil
	})
}

// frr runs zebra and bgpd in a namespace, with all of their files in a directory
// of their own.
func (d *bgpBed) frr(ctx context.Context, ns, name, neighbours string, as int) error {
	dir := filepath.Join(d.dir, name)
	u, err := user.Lookup("frr") // the daemons drop to it
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	conf := filepath.Join(dir, "bgpd.conf")
	text := fmt.Sprintf("router bgp %d\n no bgp ebgp-requires-policy\n no bgp network import-check\n%s", as, neighbours)
	err = errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(conf, []byte(text), 0o644), os.WriteFile(filepath.Join(dir, "zebra.conf"), nil, 0o644), os.Chown(dir, uid, gid))
	if err != nil {
		return err
	}
	zserv := filepath.Join(dir, "zserv")
	for _, daemon := range []string{"zebra", "bgpd"} {
		if _, err := d.start(ns, name+"-"+daemon, "/usr/lib/frr/"+daemon, "-f", filepath.Join(dir, daemon+".conf"), "-z", zserv,
			"-i", filepath.Join(dir, daemon+".pid"), "--vty_socket", dir, "-P", "0"); err != nil {
			return err
		}
		err := await(ctx, daemon, func() (bool, error) {
			_, err := os.Stat(filepath.Join(dir, daemon+".vty"))
			return err == nil, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// vtysh runs commands in one of the FRRs.
func (d *bgpBed) vtysh(name string, commands ...string) ([]byte, error) {
	args := []string{"--vty_socket", filepath.Join(d.dir, name)}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("vtysh %s: %w: %s", strings.Join(commands, "; "), err, lastLine(out))
	}
	return out, nil
}

// received returns how many prefixes an FRR has of a neighbour, -1 if the
// session is not up.
func (d *bgpBed) received(name, neighbour string) (int, error) {
	out, err := d.vtysh(name, "show bgp ipv4 unicast summary json")
	if err != nil {
		return 0, err
	}
	var v struct {
		Peers map[string]struct {
			State  string
			PfxRcd int
		}
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return 0, err
	}
	if v.Peers[neighbour].State != "Established" {
		return -1, nil
	}
	return v.Peers[neighbour].PfxRcd, nil
}

// inFIB returns how many of zebra's routes are in the kernel.
func (d *bgpBed) inFIB() (int, error) {
	out, err := d.vtysh("r", "show ip route summary json")
	if err != nil {
		return 0, err
	}
	var v struct{ RoutesTotalFib int }
	return v.RoutesTotalFib, json.Unmarshal(out, &v)
}

// await polls until ok says so.
func await(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, bgpTimeout)
	defer cancel()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(bgpPoll):
		}
	}
}
