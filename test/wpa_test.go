package test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMKAWithWPASupplicant: wpa_supplicant agrees with an MSEE on a key, as key
// server and as member, with CAKs of both lengths and CKNs of few and of many
// octets, encrypting and integrity only.
func TestMKAWithWPASupplicant(t *testing.T) {
	c := startGuest(t, 1600)
	c.startWiretap()
	for i, s := range []struct {
		cak, ckn  string
		priority  int // the guest's; the MSEE has 16
		integrity bool
	}{
		{strings.Repeat("0123456789abcdef", 2), "00010203", 8, false},
		{strings.Repeat("fedcba9876543210", 4), strings.Repeat("a5", 32), 200, false},
		{strings.Repeat("00112233445566ff", 2), strings.Repeat("5a", 32), 200, true},
	} {
		t.Run(fmt.Sprintf("cak%d-ckn%d-priority%d-integrity-%v", len(s.cak)*4, len(s.ckn)/2, s.priority, s.integrity), func(t *testing.T) {
			c := *c
			c.t = t
			section, integ := "", 0
			if s.integrity {
				section, integ = "confidentialityOffset: None\n", 1
			}
			c.configure(section + fmt.Sprintf("cipher: GcmAes128\nsciState: Enabled\ncknSecretIdentifier: %q\ncakSecretIdentifier: %q\n",
				c.secret(fmt.Sprintf("ckn%d", i), s.ckn), c.secret(fmt.Sprintf("cak%d", i), s.cak)))
			c.run(fmt.Sprintf(`[ ! -e /tmp/wpa.pid ] || kill $(cat /tmp/wpa.pid); sleep 0.5; ip link del macsec0 2>/dev/null
cat >/tmp/wpa.conf <<END
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
END
wpa_supplicant -B -t -d -P/tmp/wpa.pid -Dmacsec_linux -ieth0 -c/tmp/wpa.conf -f/tmp/wpa.log || exit 1
for i in $(seq 100); do ip macsec show 2>/dev/null | grep -q 'RXSC.*state on' && ip link set macsec0 up 2>/dev/null && ip link show macsec0 | grep -q LOWER_UP && break; sleep 0.2; done
ip link add link macsec0 macsec0.100 type vlan id 100 && ip addr add 192.168.15.17/30 dev macsec0.100 && ip link set macsec0.100 up`, integ, s.cak, s.ckn, s.priority))
			if out, err := c.guest.Run(guestPings, 60*time.Second); err != nil {
				log, _ := c.guest.Run("tail -60 /tmp/wpa.log; ip macsec show", 10*time.Second)
				t.Fatalf("%v\n%s\n%s\n%s", err, out, log, c.edgeLog())
			}
		})
	}
	c.stopEdge()
	c.endWiretap()
}
