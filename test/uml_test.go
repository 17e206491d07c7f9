package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/netns"
	"msee/test/uml"
)

// needsGuest skips a test where no Linux guest can run; in CI that is a failure.
func needsGuest(t testing.TB) {
	t.Helper()
	if err := uml.Available(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("under CI: %v", err)
		}
		t.Skip(err)
	}
}

// guestCustomer is an MSEE with a Linux guest as its customer: namespace ns has
// the MSEE, whose port is the TAP that leads to the guest's eth0.
type guestCustomer struct {
	t     *testing.T
	guest *uml.Guest
	ns    string
	dir   string
	edge  *exec.Cmd
	log   *os.File
	mac   net.HardwareAddr // of the MSEE's port
	qinq  bool             // the peering is in VLAN 100, 10; else in VLAN 100
}

const guestTap = "cust0"

// startGuest boots the guest; the edge is started by run.
func startGuest(t *testing.T, mtu int) *guestCustomer {
	t.Helper()
	needsGuest(t)
	c := &guestCustomer{t: t, ns: fmt.Sprintf("msee-uml-%d", os.Getpid()), dir: t.TempDir()}
	if err := netns.Create(c.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(c.ns) })
	err := netns.Do(c.ns, func() (err error) {
		runtime.LockOSThread() // the TAP is of the thread's namespace
		defer runtime.UnlockOSThread()
		if c.guest, err = uml.Start(guestTap, net.HardwareAddr{2, 0x50, 0x56, 0, 0, 1}, mtu); err != nil {
			return err
		}
		dev, err := net.InterfaceByName(guestTap)
		if err == nil {
			c.mac = dev.HardwareAddr
		}
		return err
	})
	if errors.Is(err, uml.ErrProcessor) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.guest.Stop)
	return c
}

// run runs a script in the guest.
func (c *guestCustomer) run(script string) string {
	c.t.Helper()
	out, err := c.guest.Run(script, 60*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// secret writes a key to a file that msee accepts.
func (c *guestCustomer) secret(name, hex string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	os.Remove(path)
	if err := os.WriteFile(path, []byte(hex), 0o400); err != nil {
		c.t.Fatal(err)
	}
	return "file:" + path
}

// configure gives the edge its configuration: on a port with the section
// macsec, a private peering. It starts the edge or reloads it.
func (c *guestCustomer) configure(macsec string) {
	c.t.Helper()
	port, circuit, vlan := "", "", 100
	if c.qinq {
		port, circuit, vlan = "    encapsulation: QinQ\n", "    stag: 100\n", 10
	}
	file := "device: {name: " + c.ns + ", role: primary}\nports:\n  - name: cust\n    device: " + guestTap + "\n" + port +
		"    macsec:\n      " + strings.ReplaceAll(strings.TrimSpace(macsec), "\n", "\n      ") + `
circuits:
  - name: er1
    port: cust
` + circuit + `    peerings:
      - peeringType: AzurePrivatePeering
        peerASN: 65001
        vlanId: ` + fmt.Sprint(vlan) + `
        primaryPeerAddressPrefix: 192.168.15.16/30
        secondaryPeerAddressPrefix: 192.168.15.20/30
`
	path := filepath.Join(c.dir, "edge.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if c.edge == nil {
		c.startEdge(path)
		return
	}
	if out, err := c.inNS(msee(c.t), "reload", "-d", c.ns); err != nil {
		c.t.Fatalf("reload: %v\n%s\n%s", err, out, c.edgeLog())
	}
}

func (c *guestCustomer) startEdge(path string) {
	c.t.Helper()
	var err error
	if c.log, err = os.Create(filepath.Join(c.dir, "edge.log")); err != nil {
		c.t.Fatal(err)
	}
	c.edge = exec.Command("ip", "netns", "exec", c.ns, msee(c.t), "edge", "-c", path, "--state", c.dir)
	c.edge.Stdout, c.edge.Stderr = c.log, c.log
	if err := c.edge.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.stopEdge)
	eventually(c.t, 15*time.Second, "edge", func() error {
		out, err := c.inNS(msee(c.t), "show", "ports", "-d", c.ns)
		if err != nil {
			return fmt.Errorf("%w: %s\n%s", err, out, c.edgeLog())
		}
		return nil
	})
}

func (c *guestCustomer) stopEdge() {
	if c.edge == nil {
		return
	}
	c.edge.Process.Signal(syscall.SIGTERM)
	c.edge.Wait()
	c.edge = nil
	c.log.Close()
}

func (c *guestCustomer) edgeLog() string {
	out, _ := os.ReadFile(filepath.Join(c.dir, "edge.log"))
	return string(out)
}

func (c *guestCustomer) inNS(argv ...string) (string, error) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", c.ns}, argv...)...).CombinedOutput()
	return string(out), err
}

// startWiretap captures on the guest's end of the cable, as what an MSEE sends
// does not show at its own.
func (c *guestCustomer) startWiretap() {
	c.t.Helper()
	c.run(fmt.Sprintf(`tcpdump -i eth0 -U -w /tmp/wire.pcap ether src %s >/tmp/tcpdump.log 2>&1 &
echo $! >/tmp/tcpdump.pid
for i in $(seq 100); do grep -q listening /tmp/tcpdump.log && exit 0; sleep 0.05; done
cat /tmp/tcpdump.log; exit 1`, c.mac))
}

// endWiretap fails the test if the MSEE has sent anything in clear but EAPOL,
// and returns how many protected frames it has sent.
func (c *guestCustomer) endWiretap() (protected int) {
	c.t.Helper()
	out := c.run(`kill $(cat /tmp/tcpdump.pid); sleep 0.3
tcpdump -r /tmp/wire.pcap ether proto 0x88e5 2>/dev/null | wc -l
tcpdump -n -e -r /tmp/wire.pcap not ether proto 0x88e5 and not ether proto 0x888e 2>/dev/null`)
	count, clear, _ := strings.Cut(out, "\n")
	if clear != "" {
		c.t.Errorf("the MSEE sent in clear:\n%s", clear)
	}
	protected, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil {
		c.t.Errorf("wiretap: %q", out)
	}
	return protected
}
