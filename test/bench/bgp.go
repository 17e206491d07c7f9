package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
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
	"msee/test/injector"
)

// The rows of the control plane have a bed of their own: a customer, a router,
// a gateway, each in a namespace. The router is msee on VLANs or, as baseline,
// FRR (zebra and bgpd, with the kernel's FIB) on untagged addresses of the same
// links. It begins anew with each run.
const (
	bgpInstance = "benchbgp"
	bgpCustomer = bgpInstance + ".c"
	bgpRouter   = bgpInstance + ".r"
	bgpGateway  = bgpInstance + ".g"

	vrfs         = 200
	vrfRoutes    = 1000
	bgpTimeout   = 3 * time.Minute
	bgpPoll      = 50 * time.Millisecond
	fewPrefixes  = 10_000
	manyPrefixes = 1_000_000
)

func bgpRows() []*row {
	return []*row{
		{name: "bgp_10k_to_fib_s", unit: "s", smaller: true, baseline: "frr_to_frr", measure: tenThousand},
		{name: "bgp_1m_learn_s", unit: "s", smaller: true, baseline: "frr", measure: million},
		{name: "bgp_rss_mb_per_10k", unit: "MB", smaller: true, baseline: "frr", measure: rssPerTenThousand},
		{name: "bgp_200vrf_converge_s", unit: "s", smaller: true, baseline: "target", target: 10, measure: manyVRFs},
	}
}

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

// bgpEdge lifts the limits on prefixes, which are 4,000 or 10,000.
const bgpEdge = `device: {name: benchbgp, role: primary}
bgp: {maximumPrefixes: 0}
ports: [{name: cust, device: eth1}, {name: core, device: eth2}]
circuits:
  - name: er1
    sku: {tier: Premium}
    port: cust
    peerings:
      - {peeringType: AzurePrivatePeering, peerASN: 65001, vlanId: 100, primaryPeerAddressPrefix: 192.168.15.16/30, secondaryPeerAddressPrefix: 192.168.15.20/30}
connections:
  - {name: vnet1, circuit: er1, virtualNetworkGateway: vnet1-gw, port: core, vlanId: 200, gatewaySubnet: 10.100.255.0/27}
`

// tenThousand is the time from the moment that a customer's FRR may announce
// 10,000 prefixes until they are in the router's FIB and in a gateway's FRR.
func tenThousand(ctx context.Context, b *bench, s side) (reading, error) {
	d, err := newBGPBed(b, s)
	if err != nil {
		return reading{}, err
	}
	defer d.close()
	toRouter, fromGateway := "192.168.15.18", "10.100.255.4"
	if s == baseline {
		toRouter, fromGateway = "10.61.0.254", "10.62.0.254"
	}
	var networks strings.Builder
	for _, p := range injector.Slash24s(fewPrefixes) {
		fmt.Fprintf(&networks, "  network %s\n", p)
	}
	err = errors.Join(
		vlan(bgpCustomer, 100, "192.168.15.17/30"), vlan(bgpGateway, 200, "10.100.255.12/27"),
		d.frr(ctx, bgpCustomer, "c", fmt.Sprintf(" bgp router-id 10.61.0.1\n neighbor %[1]s remote-as 12076\n neighbor %[1]s timers connect 1\n address-family ipv4 unicast\n%[2]s  neighbor %[1]s route-map NONE out\n exit-address-family\nroute-map NONE deny 10\n", toRouter, &networks), 65001),
		d.frr(ctx, bgpGateway, "g", fmt.Sprintf(" bgp router-id 10.62.0.1\n neighbor %[1]s remote-as 12076\n neighbor %[1]s timers connect 1\n", fromGateway), 65515),
		d.router(ctx, bgpEdge))
	if err != nil {
		return reading{}, err
	}
	err = await(ctx, "sessions", func() (bool, error) {
		a, err := d.received("c", toRouter)
		b, err2 := d.received("g", fromGateway)
		return a >= 0 && b >= 0, errors.Join(err, err2)
	})
	if err != nil {
		return reading{}, err
	}
	time.Sleep(2 * time.Second) // what bgpd does after a session has come up
	began := time.Now()
	if _, err := d.vtysh("c", "configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no neighbor "+toRouter+" route-map NONE out"); err != nil {
		return reading{}, err
	}
	err = await(ctx, "10,000 prefixes at the gateway", func() (bool, error) {
		n, err := d.received("g", fromGateway)
		return n >= fewPrefixes, err
	})
	if err == nil && s == baseline {
		err = await(ctx, "10,000 routes in the kernel", func() (bool, error) {
			n, err := d.inFIB()
			return n >= fewPrefixes, err
		})
	}
	took := time.Since(began)
	if err == nil && s == subject {
		_, err = d.audit(fewPrefixes)
	}
	return reading{value: took.Seconds()}, err
}

// audit makes sure that the FIBs have so many prefixes at least, and are what
// the RIBs say.
func (d *bgpBed) audit(want int) (took time.Duration, err error) {
	rows, err := api.NewClient(bgpInstance).Audits(true)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, a := range rows {
		n += a.Prefixes
		took += a.Took
		if a.Repaired > 0 {
			return 0, fmt.Errorf("the FIB of %s was not what the RIB says: %v", a.VRF, a.Findings)
		}
	}
	if n < want {
		return 0, fmt.Errorf("%d prefixes are in the FIB, want %d", n, want)
	}
	return took, nil
}

// learnt is what a million prefixes cost.
type learnt struct {
	took  time.Duration
	cpu   float64 // seconds
	rss   float64 // MB
	audit time.Duration
}

func million(ctx context.Context, b *bench, s side) (reading, error) {
	l, err := learnMillion(ctx, b, s)
	return reading{l.took.Seconds(), map[string]float64{"cpuSeconds": l.cpu, "rssMB": l.rss, "auditSeconds": l.audit.Seconds()}}, err
}

func rssPerTenThousand(ctx context.Context, b *bench, s side) (reading, error) {
	l, err := learnMillion(ctx, b, s)
	return reading{value: l.rss * fewPrefixes / manyPrefixes}, err
}

// learnMillion has an injector announce a million prefixes, 500 with the same
// path, and waits until they are in the router's FIB.
func learnMillion(ctx context.Context, b *bench, s side) (l learnt, err error) {
	d, err := newBGPBed(b, s)
	if err != nil {
		return l, err
	}
	defer d.close()
	i := &injector.Injector{AS: 65001, Local: netip.MustParseAddr("192.168.15.17"), Peer: netip.MustParseAddr("192.168.15.18")}
	if s == baseline {
		i.Local, i.Peer = netip.MustParseAddr("10.61.0.1"), netip.MustParseAddr("10.61.0.254")
	}
	if err := errors.Join(vlan(bgpCustomer, 100, "192.168.15.17/30"), d.router(ctx, bgpEdge)); err != nil {
		return l, err
	}
	if err := i.Connect(ctx, bgpCustomer); err != nil {
		return l, err
	}
	defer i.Close()
	pids := d.routerPIDs()
	cpu, rss := cpuOf(pids), rssOf(pids)
	began := time.Now()
	if err := i.Announce(injector.Slash24s(manyPrefixes)); err != nil {
		return l, err
	}
	err = await(ctx, "a million prefixes", func() (bool, error) {
		if s == baseline {
			n, err := d.inFIB()
			return n >= manyPrefixes, err
		}
		return d.accepted(manyPrefixes), nil
	})
	l.took = time.Since(began)
	l.cpu, l.rss = cpuOf(pids)-cpu, rssOf(pids)-rss
	if err == nil && s == subject {
		l.audit, err = d.audit(manyPrefixes)
	}
	return l, err
}

// accepted reports whether the sessions of msee have so many prefixes together.
// One that is too busy to say has not.
func (d *bgpBed) accepted(want int) bool {
	rows, err := api.NewClient(bgpInstance).Sessions()
	n := 0
	for _, r := range rows {
		n += r.Accepted
	}
	return err == nil && n >= want
}

// routerPIDs are the processes of the router.
func (d *bgpBed) routerPIDs() (pids []int) {
	if d.side == subject {
		procs, _ := readProcesses()
		for pid := range descendants(procs, d.pid) {
			pids = append(pids, pid)
		}
		return pids
	}
	for _, daemon := range []string{"zebra", "bgpd"} {
		b, _ := os.ReadFile(filepath.Join(d.dir, "r", daemon+".pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cpuOf(pids []int) (seconds float64) {
	for _, pid := range pids {
		t, _ := processCPU(pid)
		seconds += t.Seconds()
	}
	return seconds
}

// rssOf is the resident memory of processes in MB.
func rssOf(pids []int) (mb float64) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
				mb += kb / 1024
			}
		}
	}
	return mb
}

// manyVRFs is the time that 200 VRFs, each with an IPv4 and an IPv6 session,
// take to learn 1,000 routes by each of them, from the moment when all 400
// sessions are up.
func manyVRFs(ctx context.Context, b *bench, s side) (reading, error) {
	d, err := newBGPBed(b, s)
	if err != nil {
		return reading{}, err
	}
	defer d.close()
	var config strings.Builder
	config.WriteString("device: {name: benchbgp, role: primary}\nbgp: {maximumPrefixes: 0}\nports: [{name: cust, device: eth1}]\ncircuits:\n")
	var injectors []*injector.Injector
	for i := range vrfs {
		low := netip.AddrFrom4([4]byte{172, 16, byte(i), 0})
		fmt.Fprintf(&config, `  - name: c%d
    port: cust
    peerings:
      - {peeringType: AzurePrivatePeering, peerASN: 65001, vlanId: %d, primaryPeerAddressPrefix: %s/30, secondaryPeerAddressPrefix: 172.16.%d.4/30, ipv6PeeringConfig: {primaryPeerAddressPrefix: "fd00:%x::/126", secondaryPeerAddressPrefix: "fd00:%x::4/126"}}
`, i, 100+i, low, i, i+1, i+1)
		us6 := netip.MustParseAddr(fmt.Sprintf("fd00:%x::1", i+1))
		if err := vlan(bgpCustomer, uint16(100+i), low.Next().String()+"/30", us6.String()+"/126"); err != nil {
			return reading{}, err
		}
		injectors = append(injectors,
			&injector.Injector{AS: 65001, Local: low.Next(), Peer: low.Next().Next()},
			&injector.Injector{AS: 65001, Local: us6, Peer: us6.Next()})
	}
	began := time.Now()
	if err := d.router(ctx, config.String()); err != nil {
		return reading{}, err
	}
	made := time.Since(began)
	connected := make(chan error)
	for _, i := range injectors {
		go func() { connected <- i.Connect(ctx, bgpCustomer) }()
		defer i.Close()
	}
	for range injectors {
		err = errors.Join(err, <-connected)
	}
	if err != nil {
		return reading{}, err
	}
	up := time.Since(began)
	pids := d.routerPIDs()
	cpu := cpuOf(pids)
	began = time.Now()
	for _, i := range injectors {
		go func() {
			if i.Local.Is4() {
				connected <- i.Announce(injector.Slash24s(vrfRoutes))
			} else {
				connected <- i.Announce(injector.Slash64s(vrfRoutes))
			}
		}()
	}
	for range injectors {
		err = errors.Join(err, <-connected)
	}
	if err == nil {
		err = await(ctx, "all routes", func() (bool, error) { return d.accepted(len(injectors) * vrfRoutes), nil })
	}
	took := time.Since(began)
	if err == nil {
		_, err = d.audit(len(injectors) * vrfRoutes)
	}
	return reading{took.Seconds(), map[string]float64{"cpuSeconds": cpuOf(pids) - cpu, "rssMB": math.Round(rssOf(pids)),
		"startSeconds": made.Seconds(), "sessionsUpSeconds": up.Seconds()}}, err
}
