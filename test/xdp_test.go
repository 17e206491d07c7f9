package test

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"msee/edge"
)

// TestXDP runs the QinQ lab with all ports of type xdp: on most cables both
// ends. Customers' stacks leave checksums and outer tags to their devices,
// which AF_XDP does not tell us of.
func TestXDP(t *testing.T) {
	needsXDP(t)
	l := startLab(t, topology(t, "qinq", "type: packet", "type: xdp",
		"device: eth1}", "device: eth1, type: xdp}", "device: eth2}", "device: eth2, type: xdp}"), "gw0", "gw1")
	for _, node := range []string{"msee1", "gw0"} {
		for _, p := range show[edge.PortStatus](l, node, "ports") {
			if p.Type != "xdp" || p.Mode != "copy" {
				t.Errorf("%s: port %s is of type %s, mode %q", node, p.Name, p.Type, p.Mode)
			}
		}
	}
	wire := l.startCapture(l.ns("ce"), "")
	for _, to := range []string{"10.100.1.10", "fd00:100:0:1::10"} {
		l.pings("onprem", to)
	}
	time.Sleep(settle)
	checkTags(t, wire.end(), []tag{{0x8100, 100}, {0x8100, 10}})
	l.pings("ce", "192.168.15.18", "-s", "4000") // the kernel's side, in fragments
	for _, args := range [][]string{nil, {"-u", "-b", "50M", "-l", "1300"}} {
		for _, reverse := range []bool{false, true} {
			if rate := l.iperf3("onprem", "vm", "10.100.1.10", reverse, args...); rate < 0.02 {
				t.Errorf("iperf3 %v, reverse %v: %.3f Gb/s", args, reverse, rate)
			}
		}
	}
	if rate := l.iperf3("onprem", "vm", "fd00:100:0:1::10", false); rate < 0.02 {
		t.Errorf("iperf3 over IPv6: %.3f Gb/s", rate)
	}
}

// needsXDP skips a test where the kernel has no AF_XDP, or does not tell XDP
// programs the tag beside a frame: customers would have to switch that off.
func needsXDP(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("the kernel has no AF_XDP")
	}
	if err == nil {
		unix.Close(fd)
	}
	kernel, err := btf.LoadKernelSpec()
	var tell *btf.Func
	if err != nil || kernel.TypeByName("bpf_xdp_metadata_rx_vlan_tag", &tell) != nil {
		t.Skip("the kernel does not tell tags to XDP programs (Linux 6.8)")
	}
}
