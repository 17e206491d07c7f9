package test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"msee/edge"
	"msee/netns"
	"msee/test/probing"
)

// TestToggleFastPath: FastPath goes on and off under a load of TCP, and nothing of a
// stream of 1,000 packets a second is lost.
func TestToggleFastPath(t *testing.T) {
	t.Run("VLAN", func(t *testing.T) { testToggleFastPath(t, "fastpath") })
	t.Run("VXLAN", func(t *testing.T) { testToggleFastPath(t, "vxlan") })
}

func testToggleFastPath(t *testing.T, of string) {
	const toggles = 10
	l := startLab(t, topology(t, of, ofSKU, ofSKU+boundless), "gw0", "gw1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	for _, gw := range gateways {
		eventually(t, 30*time.Second, gw+" knows the VM before anything comes for it", func() error { return l.knowsVM(gw) })
	}
	p := l.startProbe("onprem", "vm", fastPathVM, probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	if l.mayLoad(of) {
		defer l.steadyTCP("onprem", "vm", fastPathVM, "300M")()
	}
	gatewayBefore, before, begin := l.atGateway(), l.drops(), p.now()
	var when strings.Builder
	for i := range toggles {
		on := i%2 == 1 // it is on to begin with
		fmt.Fprintf(&when, " %s", time.Now().Format("05.000"))
		l.reload(msees, func(cfg map[string]any) {
			cfg["connections"].([]any)[0].(map[string]any)["expressRouteGatewayBypass"] = on
		})
		want := "expressRouteGatewayBypass is off"
		if on {
			want = "hit: host"
		}
		for _, node := range msees {
			l.awaitLookup(node, want)
		}
		time.Sleep(200 * time.Millisecond)
	}
	x := p.answered(begin)
	t.Logf("%d times: %v", toggles, x)
	if x.lost > 0 {
		t.Errorf("%v; switched at (seconds)%s; meanwhile:%s", x, when.String(), l.drops().since(before))
	}
	after := l.atGateway()
	var drops []string
	for why, n := range after {
		if why != "passed" && why != "too-big" && n != gatewayBefore[why] { // too big until TCP knows the gateway's MTU
			drops = append(drops, fmt.Sprintf("%d %s", n-gatewayBefore[why], why))
		}
	}
	if len(drops) > 0 || after["passed"] == gatewayBefore["passed"] {
		t.Errorf("the gateways passed %d packets and dropped %s", after["passed"]-gatewayBefore["passed"], strings.Join(drops, ", "))
	}
}

// TestBurstToUnknownHost: of what comes at once for a host that the gateways have to
// find first, nothing is lost.
func TestBurstToUnknownHost(t *testing.T) {
	l := startLab(t, topology(t, "fastpath", ofSKU, ofSKU+boundless,
		"expressRouteGatewayBypass: true", "expressRouteGatewayBypass: false"), "gw0", "gw1")
	l.exec("ce", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	const burst = 1000
	before := l.drops()
	for range 5 {
		for _, gw := range gateways {
			l.forgetVM(gw)
		}
		if received := l.burst(burst, 1400); received != burst {
			t.Fatalf("%d of %d packets arrive; meanwhile:%s", received, burst, l.drops().since(before))
		}
	}
}

// burst sends so many packets of length octets to the VM, of 32 flows, and returns how
// many arrive.
func (l *testLab) burst(packets, length int) (received int) {
	l.t.Helper()
	vm := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(fastPathVM), 9))
	var sink *net.UDPConn
	var from []*net.UDPConn
	err := errors.Join(
		netns.Do(l.ns("vm"), func() (err error) {
			if sink, err = net.ListenUDP("udp", vm); err == nil {
				err = probing.HoldAll(sink) // all of it: nobody reads before all is sent
			}
			return err
		}),
		netns.Do(l.ns("onprem"), func() (err error) {
			from, err = dialUDP(vm, 32)
			return err
		}))
	if err != nil {
		l.t.Fatal(err)
	}
	defer sink.Close()
	for i := range packets {
		if _, err := from[i%len(from)].Write(make([]byte, length-28)); err != nil {
			l.t.Fatal(err)
		}
	}
	buf := make([]byte, 2048)
	for received < packets {
		sink.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := sink.Read(buf); err != nil {
			break
		}
		received++
	}
	for _, c := range from {
		c.Close()
	}
	return received
}

// knowsVM says whether a gateway has the VM's MAC.
func (l *testLab) knowsVM(gw string) error {
	routes, err := tryShow[edge.RouteStatus](l, gw, "routes")
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Prefix == netip.PrefixFrom(netip.MustParseAddr(fastPathVM), 32) && len(r.Paths) == 1 && r.Paths[0].Resolved {
			return nil
		}
	}
	return errors.New("it does not")
}

// forgetVM has a gateway lose the VM's MAC.
func (l *testLab) forgetVM(gw string) {
	l.t.Helper()
	vnet := netip.MustParseAddr(fastPathVM)
	for _, p := range show[edge.PeeringStatus](l, gw, "peerings") {
		for _, a := range p.Addresses {
			if a.Contains(vnet) {
				out, err := exec.Command("ip", "-n", p.Namespace, "neigh", "flush", "to", fastPathVM, "dev", p.Interface).CombinedOutput()
				if err != nil {
					l.t.Fatalf("%s: %v\n%s", gw, err, out)
				}
			}
		}
	}
	eventually(l.t, 20*time.Second, gw+" forgets the VM", func() error {
		if l.knowsVM(gw) == nil {
			return errors.New("it knows it yet")
		}
		return nil
	})
}
