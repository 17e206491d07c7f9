package test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"msee/edge"
)

// linuxMKA is a customer with wpa_supplicant.
type linuxMKA struct {
	name          string
	cak, ckn      string // hexadecimal digits
	priority      int    // of the guest; the MSEE's is 16
	integrityOnly bool
}

const (
	cak128 = "0123456789abcdef0123456789abcdef"
	cak256 = "0123456789abcdef0123456789abcdef00112233445566778899aabbccddeeff"
	ckn4   = "01020304"
	ckn32  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

// section is the MSEE's half. Debian's wpa_supplicant knows GCM-AES-128 only.
func (m linuxMKA) section(c *guestCustomer) string {
	offset := `"0"`
	if m.integrityOnly {
		offset = "None"
	}
	return fmt.Sprintf("cipher: GcmAes128\nsciState: Enabled\nconfidentialityOffset: %s\ncknSecretIdentifier: %s\ncakSecretIdentifier: %s",
		offset, c.secret("ckn", m.ckn), c.secret("cak", m.cak))
}

// start is the guest's half: it ends the wpa_supplicant that runs, starts
// another one, and waits until that has made its MACsec interface.
func (m linuxMKA) start() string {
	integrity := 0
	if m.integrityOnly {
		integrity = 1
	}
	return fmt.Sprintf(`[ ! -e /tmp/wpa.pid ] || kill $(cat /tmp/wpa.pid) 2>/dev/null
for i in $(seq 50); do [ -e /tmp/wpa.pid ] || break; sleep 0.1; done
ip link del macsec0 2>/dev/null
ip link set eth0 up
cat >/tmp/wpa.conf <<EOF
eapol_version=3
ap_scan=0
network={
 key_mgmt=NONE
 eapol_flags=0
 macsec_policy=1
 macsec_integ_only=%d
 mka_cak=%s
 mka_ckn=%s
 mka_priority=%d
}
EOF
wpa_supplicant -B -P /tmp/wpa.pid -Dmacsec_linux -ieth0 -c/tmp/wpa.conf || exit 1
for i in $(seq 100); do ip link show macsec0 >/dev/null 2>&1 && break; sleep 0.1; done
set -e
ip link set macsec0 up
ip link add link macsec0 macsec0.100 type vlan id 100
ip addr add 192.168.15.17/30 dev macsec0.100
ip link set macsec0.100 up
`, integrity, m.cak, m.ckn, m.priority)
}

func (c *guestCustomer) macsec() (edge.MACsecStatus, error) {
	out, err := c.inNS(msee(c.t), "show", "macsec", "--json", "-d", c.ns)
	if err != nil {
		return edge.MACsecStatus{}, fmt.Errorf("%w: %s", err, out)
	}
	var all map[string][]edge.MACsecStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all[c.ns]) != 1 {
		return edge.MACsecStatus{}, fmt.Errorf("%v: %s", err, out)
	}
	return all[c.ns][0], nil
}

// awaitMACsec waits until the MSEE says this of its port.
func (c *guestCustomer) awaitMACsec(what string, check func(edge.MACsecStatus) bool) {
	c.t.Helper()
	eventually(c.t, 25*time.Second, what, func() error {
		s, err := c.macsec()
		if err == nil && !check(s) {
			err = fmt.Errorf("%s: %s; CKN %s, key server %s, self %v\n%s", s.State, s.Reason, s.CKN, s.KeyServer, s.Self, c.edgeLog())
		}
		return err
	})
}

// TestMKAWithLinux has an MSEE and wpa_supplicant agree on keys: either as key
// server, with CAKs and CKNs of different lengths, encrypting and integrity
// only; through SAK changes under traffic and a restart of the customer. With
// another CAK or CKN the MSEE says so, and nothing ever is in clear.
func TestMKAWithLinux(t *testing.T) {
	c := startGuest(t, 1600)
	c.startWiretap()
	first := linuxMKA{"MSEE is key server", cak128, ckn4, 255, false}
	for _, m := range []linuxMKA{
		first,
		{"guest is key server", cak128, ckn4, 1, false},
		{"MSEE is key server, CAK of 256 bits, CKN of 32 octets", cak256, ckn32, 255, false},
		{"guest is key server, CAK of 256 bits, CKN of 32 octets", cak256, ckn32, 1, false},
		{"MSEE is key server, integrity only", cak128, ckn4, 255, true},
		{"guest is key server, integrity only", cak128, ckn4, 1, true},
	} {
		t.Run(m.name, func(t *testing.T) {
			c := *c
			c.t = t
			c.configure(m.section(&c))
			c.run(m.start())
			c.awaitMACsec("secured", func(s edge.MACsecStatus) bool {
				return s.State == "secured" && s.CKN.String() == m.ckn && s.Self == (m.priority == 255)
			})
			c.run(guestPings)
			if m == first {
				c.rekeyUnderTraffic()
			}
		})
	}
	for _, tags := range []struct {
		name string
		qinq bool
	}{{"BGP, BFD and TCP over Dot1Q", false}, {"BGP, BFD and TCP over QinQ", true}} {
		t.Run(tags.name, func(t *testing.T) {
			c := *c
			c.t, c.qinq = t, tags.qinq
			c.configure(first.section(&c))
			c.run(first.start())
			if tags.qinq {
				c.run(doubleTag)
			}
			c.awaitMACsec("secured", func(s edge.MACsecStatus) bool { return s.State == "secured" })
			c.run(guestPings)
			c.routes()
		})
	}
	t.Run("restart", func(t *testing.T) {
		c := *c
		c.t = t
		c.configure(first.section(&c))
		for range 2 {
			c.run(first.start())
			c.awaitMACsec("secured", func(s edge.MACsecStatus) bool { return s.State == "secured" })
			c.run(guestPings)
		}
	})
	for _, wrong := range []struct {
		name, reason string
		guest        linuxMKA
	}{
		{"wrong CAK", "has CKN 01020304 with another CAK", linuxMKA{cak: "f" + cak128[1:], ckn: ckn4, priority: 255}},
		{"wrong CKN", "has CKN 0a0b0c0d, which is not configured here", linuxMKA{cak: cak128, ckn: "0a0b0c0d", priority: 255}},
	} {
		t.Run(wrong.name, func(t *testing.T) {
			c := *c
			c.t = t
			c.configure(first.section(&c))
			c.run(wrong.guest.start())
			c.awaitMACsec(wrong.reason, func(s edge.MACsecStatus) bool {
				return s.State == "failed" && strings.Contains(s.Reason, wrong.reason)
			})
			if out, err := c.guest.Run("ping -n -q -c 3 -i 0.2 -W 1 192.168.15.18", 20*time.Second); err == nil {
				t.Errorf("ping:\n%s", out)
			}
		})
	}
	c.stopEdge()
	time.Sleep(settle)
	if n := c.endWiretap(); n < 50 {
		t.Errorf("only %d protected frames on the wire", n)
	}
}

// rekeyUnderTraffic makes new SAKs while the guest pings: it must miss nothing.
func (c *guestCustomer) rekeyUnderTraffic() {
	c.t.Helper()
	wait, err := c.guest.Begin(guestLost + "before=$(lost); ping -n -q -i 0.01 -c 1200 192.168.15.18; answered $before")
	if err != nil {
		c.t.Fatal(err)
	}
	for range 3 {
		was, err := c.macsec()
		if err != nil {
			c.t.Fatal(err)
		}
		if out, err := c.inNS(msee(c.t), "macsec", "rotate", "--sak", "-d", c.ns); err != nil {
			c.t.Fatalf("%v: %s", err, out)
		}
		c.awaitMACsec("another SAK", func(s edge.MACsecStatus) bool { return s.State == "secured" && sending(s) != sending(was) })
		time.Sleep(4 * time.Second) // until the old SAK is retired
	}
	out, err := wait(60 * time.Second)
	if err != nil || !strings.Contains(out, "1200 packets transmitted") {
		c.t.Errorf("%v:\n%s", err, out)
	}
}

// doubleTag puts the guest's address behind two tags.
const doubleTag = `set -e
ip link del macsec0.100
ip link add link macsec0 outer type vlan id 100
ip link set outer up
ip link add link outer macsec0.100 type vlan id 10
ip addr add 192.168.15.17/30 dev macsec0.100
ip link set macsec0.100 mtu 1500 up
`

// bird has the guest's BIRD speak BGP and BFD with the MSEE. BFD is as slow as a
// guest without a processor of its own.
const bird = `pkill -x bird; rm -f /tmp/bird.ctl
cat >/tmp/bird.conf <<EOF
router id 10.1.0.1;
protocol device {}
protocol static { ipv4; route 10.1.0.0/16 blackhole; }
protocol bfd { interface "macsec0.100" { min rx interval 1 s; min tx interval 1 s; multiplier 10; }; }
protocol bgp msee {
 local 192.168.15.17 as 65001;
 neighbor 192.168.15.18 as 12076;
 connect retry time 2; error wait time 1, 5;
 bfd;
 ipv4 { import all; export all; };
}
EOF
bird -c /tmp/bird.conf -s /tmp/bird.ctl`

// routes has the guest speak BGP and BFD over MACsec, and TCP in both directions.
func (c *guestCustomer) routes() {
	c.t.Helper()
	c.run(bird)
	eventually(c.t, 90*time.Second, "BGP and BFD", func() error {
		out, err := c.guest.Run(`birdc -s /tmp/bird.ctl show protocols msee; birdc -s /tmp/bird.ctl show bfd sessions`, 20*time.Second)
		if err != nil || !strings.Contains(out, "Established") || !strings.Contains(out, "Up ") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		ours, err := c.inNS(msee(c.t), "show", "routes", "-d", c.ns)
		if err != nil || !strings.Contains(ours, "10.1.0.0/16") {
			return fmt.Errorf("%v\n%s\n%s", err, ours, c.edgeLog())
		}
		return nil
	})
	// The VRF's namespace has its name in the edge's mount namespace alone.
	server := exec.Command("nsenter", "-t", fmt.Sprint(c.edge.Process.Pid), "-m",
		"ip", "netns", "exec", c.ns+".er1-private", "iperf3", "-s", "-B", "192.168.15.18")
	if err := server.Start(); err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	eventually(c.t, 60*time.Second, "iperf3", func() error { // the server may not listen yet
		out, err := c.guest.Run("iperf3 -c 192.168.15.18 -n 500K --connect-timeout 3000 && iperf3 -c 192.168.15.18 -n 500K -R --connect-timeout 3000", 50*time.Second)
		if err != nil || strings.Count(out, "receiver") != 2 {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
	c.run("birdc -s /tmp/bird.ctl down; ip link del outer 2>/dev/null; true")
}
