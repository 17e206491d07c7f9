package test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	mseeSalt  = "0a1b2c3d4e5f60718293a4b5"
	guestSalt = "b5a49382716050f4e3d2c1b0"
	guestSCI  = "0250560000010001"
)

// staticCase is one way to protect a link with static keys.
type staticCase struct {
	cipher  string // msee's name
	kernel  string // the kernel's
	keyLen  int
	xpn     bool
	encrypt bool
	sci     bool // sent; else the guest sends ES and the MSEE neither
	number  int
}

// keys are the case's own: with a key that was used before, packet numbers
// would have to go on.
func (s staticCase) keys() (msee, guest string) {
	key := func(seed byte) string {
		return hex.EncodeToString(bytes.Repeat([]byte{seed, byte(s.number)}, s.keyLen/2))
	}
	return key(0x11), key(0x22)
}

func (s staticCase) String() string {
	name := s.kernel
	if s.encrypt {
		name += "-enc"
	} else {
		name += "-integ"
	}
	if s.sci {
		return name + "-sci"
	}
	return name + "-es"
}

func staticCases() (all []staticCase) {
	for _, c := range []staticCase{
		{cipher: "GcmAes128", kernel: "gcm-aes-128", keyLen: 16},
		{cipher: "GcmAes256", kernel: "gcm-aes-256", keyLen: 32},
		{cipher: "GcmAesXpn128", kernel: "gcm-aes-xpn-128", keyLen: 16, xpn: true},
		{cipher: "GcmAesXpn256", kernel: "gcm-aes-xpn-256", keyLen: 32, xpn: true},
	} {
		for _, c.encrypt = range []bool{true, false} {
			for _, c.sci = range []bool{true, false} {
				c.number = len(all)
				all = append(all, c)
			}
		}
	}
	return all
}

// section is the MSEE's half: it sends with AN 0 and hears AN 2. The packet
// number of XPN suites is where the low half wraps under the first pings.
func (s staticCase) section(c *guestCustomer) string {
	txKey, rxKey := s.keys()
	tx := fmt.Sprintf("an: 0, sakSecretIdentifier: %q", c.secret("tx", txKey))
	rx := fmt.Sprintf("sci: %q, an: 2, sakSecretIdentifier: %q", guestSCI, c.secret("rx", rxKey))
	if s.xpn {
		tx += ", ssci: 1, packetNumber: 4294967292, salt: " + mseeSalt
		rx += ", ssci: 2, packetNumber: 8589934597, salt: " + guestSalt
	}
	out := "cipher: " + s.cipher + "\n"
	if s.sci {
		out += "sciState: Enabled\n"
	}
	if !s.encrypt {
		out += "confidentialityOffset: None\n"
	}
	return out + fmt.Sprintf("staticKeys: {transmit: {%s}, receive: [{%s}]}", tx, rx)
}

// script is the guest's half, with a VLAN on top.
func (s staticCase) script(mseeMAC string) string {
	form, encrypt := "send_sci on", "off"
	if !s.sci {
		form = "send_sci off end_station on"
	}
	if s.encrypt {
		encrypt = "on"
	}
	mseeKey, guestKey := s.keys()
	tx, rx := "pn 1", "pn 1"
	if s.xpn {
		tx, rx = "xpn 8589934597 salt "+guestSalt+" ssci 2", "xpn 4294967292 salt "+mseeSalt+" ssci 1"
	}
	return fmt.Sprintf(`ip link del macsec0 2>/dev/null
set -e
ip link add link eth0 macsec0 type macsec port 1 cipher %[1]s encrypt %[2]s encodingsa 2 %[3]s replay on window 0
ip macsec add macsec0 tx sa 2 %[4]s on key 02 %[5]s
ip macsec add macsec0 rx port 1 address %[6]s
ip macsec add macsec0 rx port 1 address %[6]s sa 0 %[7]s on key 01 %[8]s
ip link set macsec0 up
ip link add link macsec0 macsec0.100 type vlan id 100
ip addr add 192.168.15.17/30 dev macsec0.100
ip link set macsec0.100 up
`, s.kernel, encrypt, form, tx, guestKey, mseeMAC, rx, mseeKey)
}

// guestLost defines lost, how many echo requests of the guest's have no reply yet. The kernel
// counts them, as ping in a guest on a busy host may give up early; answered waits until they
// are as few as before.
const guestLost = `
lost() { nstat -asz IcmpOutEchos IcmpInEchoReps | awk '/Out/ {n += $2} /In/ {n -= $2} END {print n}'; }
answered() {
	for i in $(seq 50); do
		[ $(lost) = $1 ] && return
		sleep 0.1
	done
	echo "lost $1 before, $(lost) after"
	ip -s macsec show
	return 1
}
`

// guestPings sends echo requests of lengths around the boundaries of the
// SecTAG's short length, and full-sized ones, and wants a reply to each.
const guestPings = guestLost + `
for i in $(seq 20); do ping -n -q -c 1 -W 1 192.168.15.18 >/dev/null && break; done # ARP
before=$(lost)
for size in 0 17 18 56 1400 1472; do
	ping -n -q -c 1 -W 2 -s $size 192.168.15.18 >/dev/null
done
answered $before
`

// TestMACsecStaticKeysWithLinux: an MSEE and a Linux kernel understand each
// other with every cipher, encrypted and integrity only, in both forms of the
// SecTAG, and the MSEE says nothing in clear at any time: before the guest has
// keys, with a wrong one, over reloads and at its end.
func TestMACsecStaticKeysWithLinux(t *testing.T) {
	c := startGuest(t, 1600)
	cases := staticCases()
	c.startWiretap()
	first := cases[0]
	wrong := first
	wrong.number = 0x77
	c.configure(wrong.section(c))
	c.run(first.script(c.mac.String()))
	if out, err := c.guest.Run("ping -n -q -c 3 -i 0.2 -W 1 192.168.15.18", 20*time.Second); err == nil {
		t.Errorf("ping with a wrong key:\n%s", out)
	}
	c.run("ip link del macsec0; ip link add link eth0 eth0.100 type vlan id 100; ip addr add 192.168.15.17/30 dev eth0.100; ip link set eth0.100 up")
	if out, err := c.guest.Run("ping -n -q -c 3 -i 0.2 -W 1 192.168.15.18", 20*time.Second); err == nil {
		t.Errorf("ping in clear:\n%s", out)
	}
	c.run("ip link del eth0.100")
	for _, s := range cases {
		t.Run(s.String(), func(t *testing.T) {
			c := *c
			c.t = t
			c.configure(s.section(&c))
			c.run(s.script(c.mac.String()))
			if out, err := c.guest.Run(guestPings, 60*time.Second); err != nil {
				ports, _ := c.inNS(msee(t), "show", "counters", "-d", c.ns)
				t.Fatalf("%v\n%s\n%s\n%s", err, out, ports, c.edgeLog())
			}
			out := c.run("ip -s macsec show macsec0")
			if !strings.Contains(out, "TXSC: "+guestSCI) {
				t.Errorf("the guest's MACsec:\n%s", out)
			}
		})
	}
	c.stopEdge()
	time.Sleep(settle)
	if n := c.endWiretap(); n < 7*len(cases) {
		t.Errorf("only %d protected frames on the wire", n)
	}
}
