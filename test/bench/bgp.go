package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"msee/api"
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
