package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fault is something that goes wrong, and how it is put right again.
type fault struct {
	name  string
	what  string
	cause func(*bed) error
	// last is how long to look after the cause, at least, before the cure.
	last time.Duration
	cure func(*bed) error
	// bed is the topology that it needs; "" is the default one.
	bed string
}

// topology names the lab of a fault.
func (f fault) topology() string { return cmp.Or(f.bed, "default") }

const linkDark = "link-dark"

// faults are all in msee1's or gw0's part of the default lab. What ends by itself has
// no cure.
var faults = []fault{
	{"link-cut", "the customer's link loses its carrier", setLink("down"), 2 * time.Second, setLink("up"), ""},
	{linkDark, "the customer's link carries nothing more, with its carrier up", darken, 2500 * time.Millisecond, lighten, ""},
	{"bfd-silent", "the customer's BFD falls silent on a link that still carries", silence, 2500 * time.Millisecond, lighten, ""},
	{"bgp-reset", "the customer resets its BGP session", clearBGP, 1500 * time.Millisecond, nil, ""},
	{"bgpd-killed", "the customer's bgpd is killed, and started again", killBGPD, 1500 * time.Millisecond, nil, ""},
	{"speaker-killed", "the MSEE's BGP process is killed", killSpeaker, 1500 * time.Millisecond, nil, ""},
	{"edge-killed", "the MSEE is killed (SIGKILL)", killNode("msee1", syscall.SIGKILL), 2500 * time.Millisecond, startNode, ""},
	{"edge-restarted", "the MSEE is stopped and started", restart("msee1"), 1500 * time.Millisecond, nil, ""},
	{"drained", "the MSEE is drained and put back into service", drain("msee1"), time.Second, undrain("msee1"), ""},
	{"gateway-killed", "a gateway instance is killed (SIGKILL)", killNode("gw0", syscall.SIGKILL), 4 * time.Second, startNode, ""},
	{"gateway-restarted", "a gateway instance is stopped and started", restart("gw0"), 1500 * time.Millisecond, nil, ""},
	{"gateway-drained", "a gateway instance is drained and put back into service", drain("gw0"), time.Second, undrain("gw0"), ""},
	{"reload", "the MSEE's configuration is reloaded with a change", reload, time.Second, nil, ""},
	{"macsec-key-roll", "the MSEE's link changes to another CAK and SAK", rollKeys, time.Second, nil, "macsec"},
}

func faultOrder(name string) int {
	return slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
}

func setLink(state string) func(*bed) error {
	return func(b *bed) error { return b.run("ce", "ip", "link", "set", "link1", state) }
}

// The customer's end of the link to msee1.
const link1 = "link1.100"

// nft replaces the filter of the customer's edge.
func (b *bed) nft(rules ...string) error {
	if err := b.run("ce", "nft", "flush", "ruleset"); err != nil {
		return err
	}
	if len(rules) == 0 {
		return nil
	}
	return b.run("ce", "nft", "table inet losses {\n"+strings.Join(rules, "\n")+"\n}")
}

func chain(hook string, priority int, rule string) string {
	return fmt.Sprintf("chain %s {\ntype filter hook %s priority %d\n%s\n}", hook, hook, priority, rule)
}

func darken(b *bed) error {
	return b.nft(chain("prerouting", -300, "iifname "+link1+" drop"), chain("postrouting", 300, "oifname "+link1+" drop"))
}

func silence(b *bed) error {
	return b.nft(chain("output", 0, "oifname "+link1+" udp dport 3784 drop"))
}

func lighten(b *bed) error { return b.nft() }

func clearBGP(b *bed) error {
	for _, peer := range []string{"192.168.15.18", "2001:db8:0:10::2"} {
		if err := b.run("ce", "vtysh", "-c", "clear bgp "+peer); err != nil {
			return err
		}
	}
	return nil
}

// killBGPD kills the customer's bgpd and starts it again a second later, as
// watchfrr would.
func killBGPD(b *bed) error {
	p, err := b.daemon("ce", "bgpd")
	if err != nil {
		return err
	}
	argv := commandLine(p)
	if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return b.start("ce", argv)
}

func killSpeaker(b *bed) error {
	parent, err := b.pid("msee1")
	if err != nil {
		return err
	}
	for _, p := range children(parent) {
		if slices.Contains(commandLine(p), "speaker") {
			return syscall.Kill(p, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("msee1 has no speaker")
}

func killNode(node string, sig syscall.Signal) func(*bed) error {
	return func(b *bed) error {
		pid, err := b.pid(node)
		if err != nil {
			return err
		}
		b.stopped, b.argv = node, commandLine(pid)
		if err := syscall.Kill(pid, sig); err != nil {
			return err
		}
		for ; syscall.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(10 * time.Millisecond) {
		}
		return nil
	}
}

func startNode(b *bed) error { return b.start(b.stopped, b.argv) }

func restart(node string) func(*bed) error {
	return func(b *bed) error {
		if err := killNode(node, syscall.SIGTERM)(b); err != nil {
			return err
		}
		return startNode(b)
	}
}

func drain(node string) func(*bed) error {
	return func(b *bed) error { return b.msee("drain", "-d", b.ns(node)) }
}

func undrain(node string) func(*bed) error {
	return func(b *bed) error { return b.msee("undrain", "-d", b.ns(node)) }
}

func rollKeys(b *bed) error { return b.msee("macsec", "rotate", "-d", b.ns("msee1")) }

// reload changes the routing weight of msee1's connection there and back.
func reload(b *bed) error {
	file := b.configFile("msee1")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const one, other = "gatewaySubnet:", "routingWeight: 7\n      gatewaySubnet:"
	changed := strings.Replace(string(text), other, one, 1)
	if changed == string(text) {
		changed = strings.Replace(changed, one, other, 1)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	return b.msee("reload", "-d", b.ns("msee1"))
}
