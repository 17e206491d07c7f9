// Package frr writes FRR's configuration, finds its daemons and asks bgpd what
// it knows. It runs nothing itself but vtysh, through a Runner.
//
// Addresses and static routes are the kernel's in a lab, so bgpd and bfdd alone
// have a configuration. That keeps to what FRR 8 to 10 read alike.
package frr

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Config is what bgpd shall do.
type Config struct {
	Hostname         string
	ASN              uint32
	RouterID         netip.Addr
	KeepaliveSeconds int // 0: FRR's default, as with the next two
	HoldSeconds      int
	MaximumPaths     int
	Networks         []netip.Prefix
	Neighbors        []Neighbor
	BFD              *BFD   // of all neighbours; nil: none
	Extra            string // lines put behind what is generated
}

// Neighbor carries the family of its address, or EVPN.
type Neighbor struct {
	Address  netip.Addr
	RemoteAS uint32
	Password string
	EVPN     bool
}

// BFD is how bfdd watches neighbours; 0 is FRR's default.
type BFD struct {
	IntervalMilliseconds int // both ways
	Multiplier           int
}

// bfdProfile names the intervals in bfdd, for bgpd.
const bfdProfile = "msee"

// BFDD returns the text of bfdd.conf.
func (c *Config) BFDD() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("hostname %s", c.Hostname)
	if c.BFD == nil {
		return b.String()
	}
	line("bfd")
	line(" profile %s", bfdProfile)
	if c.BFD.Multiplier != 0 {
		line("  detect-multiplier %d", c.BFD.Multiplier)
	}
	if ms := c.BFD.IntervalMilliseconds; ms != 0 {
		line("  receive-interval %d", ms)
		line("  transmit-interval %d", ms)
	}
	line(" exit")
	line("exit")
	return b.String()
}

// connectSeconds is how long bgpd waits between dials; FRR's 120 would make a
// lab slow to come up.
const connectSeconds = 3

// BGPD returns the text of bgpd.conf.
func (c *Config) BGPD() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("hostname %s", c.Hostname)
	if c.ASN != 0 {
		line("router bgp %d", c.ASN)
		line(" bgp router-id %s", c.RouterID)
		line(" bgp log-neighbor-changes")
		// RFC 8212 wants policies; an MSEE's peer has none by default.
		line(" no bgp ebgp-requires-policy")
		line(" no bgp default ipv4-unicast")
		line(" no bgp network import-check")
		for _, n := range c.Neighbors {
			c.neighbor(line, n)
		}
		c.family(line, "ipv4", netip.Addr.Is4)
		c.family(line, "ipv6", netip.Addr.Is6)
		c.evpn(line)
		line("exit")
	}
	if c.Extra != "" {
		b.WriteString(strings.TrimRight(c.Extra, "\n") + "\n")
	}
	return b.String()
}

func (c *Config) neighbor(line func(string, ...any), n Neighbor) {
	line(" neighbor %s remote-as %d", n.Address, n.RemoteAS)
	if n.Password != "" {
		line(" neighbor %s password %s", n.Address, n.Password)
	}
	if c.HoldSeconds != 0 {
		line(" neighbor %s timers %d %d", n.Address, c.KeepaliveSeconds, c.HoldSeconds)
	}
	line(" neighbor %s timers connect %d", n.Address, connectSeconds)
	if c.BFD != nil {
		line(" neighbor %s bfd", n.Address)
		line(" neighbor %s bfd profile %s", n.Address, bfdProfile)
	}
}

func (c *Config) family(line func(string, ...any), name string, is func(netip.Addr) bool) {
	line(" address-family %s unicast", name)
	for _, p := range c.Networks {
		if is(p.Addr()) {
			line("  network %s", p)
		}
	}
	for _, n := range c.Neighbors {
		if is(n.Address) && !n.EVPN {
			line("  neighbor %s activate", n.Address)
			line("  neighbor %s soft-reconfiguration inbound", n.Address)
		}
	}
	if c.MaximumPaths != 0 {
		line("  maximum-paths %d", c.MaximumPaths)
	}
	line(" exit-address-family")
}

// evpn has bgpd tell of the kernel's VXLAN networks, and of our addresses on their bridges.
func (c *Config) evpn(line func(string, ...any)) {
	if !slices.ContainsFunc(c.Neighbors, func(n Neighbor) bool { return n.EVPN }) {
		return
	}
	line(" address-family l2vpn evpn")
	for _, n := range c.Neighbors {
		if n.EVPN {
			line("  neighbor %s activate", n.Address)
		}
	}
	line("  advertise-all-vni")
	line("  advertise-svi-ip")
	line(" exit-address-family")
}

// ErrNotInstalled says that FRR is not there.
var ErrNotInstalled = errors.New("FRR is not installed (Debian and Ubuntu: apt-get install frr)")

// binDirs are where distributions and source builds put the daemons.
var binDirs = []string{"/usr/lib/frr", "/usr/libexec/frr", "/usr/local/sbin", "/usr/sbin"}

// Daemon is a program with its arguments.
type Daemon struct {
	Name string
	Argv []string
}

// Daemons returns what must be started, in order, to run bgpd with the given
// configuration file in the foreground. All else is at FRR's default paths
// (RunDir, EtcDir, LibDir): each instance sees directories of its own there.
func Daemons(bgpdConf string) ([]Daemon, error) { return daemons(bgpdConf, "") }

// DaemonsWithBFD is Daemons with bfdd.
func DaemonsWithBFD(bgpdConf, bfddConf string) ([]Daemon, error) { return daemons(bgpdConf, bfddConf) }

func daemons(bgpdConf, bfddConf string) ([]Daemon, error) {
	for _, dir := range binDirs {
		if _, err := os.Stat(filepath.Join(dir, "bgpd")); err != nil {
			continue
		}
		common := []string{"--log", "stdout", "--log-level", "informational", "-A", "127.0.0.1"}
		daemon := func(name string, args ...string) Daemon {
			return Daemon{name, append(append([]string{filepath.Join(dir, name)}, common...), args...)}
		}
		var out []Daemon
		// FRR 9 moved part of zebra's configuration into mgmtd.
		if _, err := os.Stat(filepath.Join(dir, "mgmtd")); err == nil {
			out = append(out, daemon("mgmtd"))
		}
		out = append(out, daemon("zebra"))
		if bfddConf != "" {
			out = append(out, daemon("bfdd", "-f", bfddConf))
		}
		return append(out, daemon("bgpd", "-f", bgpdConf)), nil
	}
	return nil, ErrNotInstalled
}

// FRR's directories: sockets and PIDs, configuration, state (FRR 10).
const (
	RunDir = "/var/run/frr"
	EtcDir = "/etc/frr"
	LibDir = "/var/lib/frr"
)
