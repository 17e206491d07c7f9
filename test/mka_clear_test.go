package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"msee/edge"
	"msee/macsec"
	"msee/netns"
)

// mkaClear goes through all that may happen to a protected link, while the customer
// edge has something to say on it all the time, and listens at both of its ends:
// there is never anything in clear but EAPOL.
func mkaClear(t *testing.T, l *testLab) {
	for name, value := range map[string]string{ // of the topology, for what is started here
		"MACSEC_CKN1": "01020304", "MACSEC_CAK1": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		"MACSEC_CKN2": "0a0b0c0d0e0f", "MACSEC_CAK2": "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100",
	} {
		t.Setenv(name, value)
	}
	l.keepPinging("ce", "192.168.15.18")
	ends := []string{"bump1", "msee1"}
	var wires []*capture
	listen := func() {
		wires = nil
		for _, node := range ends {
			wires = append(wires, l.startCapture(l.ns(node), "eth1"))
		}
	}
	// silent wants nothing in clear since listen, and something sealed if asked.
	silent := func(what string, sealed bool) {
		t.Helper()
		if sealed {
			time.Sleep(said)
		}
		time.Sleep(settle)
		n := 0
		for i, w := range wires {
			for _, f := range w.end() {
				tags, etherType, _ := f.parse()
				if etherType == macsec.EtherType && len(tags) == 0 {
					n++
				} else if etherType != 0x888e || len(tags) > 0 {
					t.Errorf("%s: at %s in clear: % x", what, ends[i], f.data[:min(len(f.data), 40)])
					break
				}
			}
		}
		if sealed && n == 0 {
			t.Errorf("%s: nothing sealed", what)
		}
		t.Logf("%s: %d sealed frames, none in clear", what, n)
	}
	stop := func(node string, sig syscall.Signal) []string {
		t.Helper()
		pid := l.pid(node)
		argv := l.kill(node, sig)
		eventually(t, 30*time.Second, node+" ends", func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
				return fmt.Errorf("process %d is there", pid)
			}
			return nil
		})
		return argv
	}
	secured := func() {
		t.Helper()
		for _, node := range ends {
			eventually(t, 30*time.Second, node, func() error {
				rows, err := tryShow[edge.MACsecStatus](l, node, "macsec")
				if err == nil && (len(rows) != 1 || rows[0].State != "secured") {
					err = fmt.Errorf("%+v", rows)
				}
				return err
			})
		}
	}
	section := func(change func(macsec map[string]any)) func(map[string]any) {
		return func(cfg map[string]any) {
			change(cfg["ports"].([]any)[0].(map[string]any)["macsec"].(map[string]any))
		}
	}
	reload := func(node string, change func(map[string]any)) {
		t.Helper()
		l.editConfig(node, change)
		if out, err := l.msee("reload", "-d", l.ns(node)); err != nil {
			t.Fatalf("reload of %s: %v\n%s", node, err, out)
		}
	}
	failed := func() {
		t.Helper()
		eventually(t, 30*time.Second, "msee1 is not secured", func() error {
			if s := l.macsec("msee1"); s.State == "secured" {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		time.Sleep(time.Second) // with probes that have nowhere to go
	}

	listen()
	argv := stop("msee1", syscall.SIGTERM)
	time.Sleep(time.Second)
	l.start("msee1", argv...)
	secured()
	silent("stop and start", true)

	listen()
	l.exec("msee1", "ip", "addr", "add", "198.51.100.1/24", "dev", "eth1")
	l.try("msee1", "ping", "-c", "2", "-i", "0.2", "-W", "1", "198.51.100.2") // the host asks by ARP
	l.exec("msee1", "ip", "addr", "del", "198.51.100.1/24", "dev", "eth1")
	silent("an address on the device", true)

	listen()
	var fallback any
	reload("bump1", section(func(m map[string]any) {
		fallback = m["fallback"]
		delete(m, "fallback")
		m["cakSecretIdentifier"] = "env:MACSEC_CAK2"
	}))
	failed()
	reload("bump1", section(func(m map[string]any) {
		m["fallback"], m["cakSecretIdentifier"] = fallback, "env:MACSEC_CAK1"
	}))
	secured()
	silent("another CAK, and back", true)

	listen()
	argv = stop("bump1", syscall.SIGKILL)
	failed()
	l.start("bump1", argv...)
	secured()
	silent("loss of the peer", true)

	listen()
	for _, node := range ends {
		reload(node, section(func(m map[string]any) { m["cipher"] = "GcmAes128" }))
	}
	eventually(t, 30*time.Second, "another cipher", func() error {
		if s := l.macsec("msee1"); s.State != "secured" || s.Cipher != "GcmAes128" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	secured()
	silent("another cipher", true)

	// Without MACsec in the file it is the operator's will that all is in clear;
	// with it again, from the end of the reload on nothing is.
	var was any
	without := func(cfg map[string]any) {
		p := cfg["ports"].([]any)[0].(map[string]any)
		was = p["macsec"]
		delete(p, "macsec")
	}
	with := func(cfg map[string]any) { cfg["ports"].([]any)[0].(map[string]any)["macsec"] = was }
	for _, node := range ends {
		reload(node, without)
		listen()
		time.Sleep(said + settle)
		clear := false
		for _, w := range wires {
			for _, f := range w.end() {
				_, etherType, _ := f.parse()
				clear = clear || etherType != macsec.EtherType && etherType != 0x888e
			}
		}
		if !clear && node == ends[1] {
			t.Error("without MACsec nothing is in clear: the test proves nothing")
		}
		if node == ends[0] {
			reload(node, with)
			continue
		}
		reload(node, with)
		listen()
		secured()
		silent("MACsec removed and added", true)
	}

	listen()
	stop("msee1", syscall.SIGTERM)
	time.Sleep(time.Second)
	silent("shutdown", false)
}

// said is how long it takes at most until one who pings all the time has said
// something: the kernel asks for a lost neighbour once a second (ARP).
const said = 2 * time.Second

// keepPinging pings from a node until the test ends, whether there are answers or not.
func (l *testLab) keepPinging(from, to string) {
	l.t.Helper()
	ping := exec.Command("ping", "-q", "-n", "-i", "0.1", to)
	if err := netns.Do(l.ns(from), ping.Start); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = ping.Process.Kill()
		_ = ping.Wait()
	})
}
