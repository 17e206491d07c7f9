package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"msee/edge"
	"msee/macsec"
	"msee/netns"
)

// rolls is how often each kind of key change is made under traffic; more with
// MSEE_ROLLS.
func rolls(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("MSEE_ROLLS"))
	switch {
	case os.Getenv("MSEE_ROLLS") == "":
		return 3
	case err != nil || n < 1:
		t.Fatalf("MSEE_ROLLS=%q: want a number from 1 on", os.Getenv("MSEE_ROLLS"))
	}
	return n
}

// TestMKA has ExpressRoute Direct with MACsec on both links: BGP and TCP pass,
// what is on the wire is sealed, and SAK and CAK change under TCP and probes
// without a frame lost: no SecY lacks a key or refuses one.
func TestMKA(t *testing.T) {
	l := startLab(t, topology(t, "macsec"), "gw0", "gw1")
	nodes := slices.Concat(ends[0][:], ends[1][:])
	for _, node := range nodes {
		l.awaitSecured(node, 20*time.Second)
	}
	t.Run("sealed", func(t *testing.T) { mkaSealed(t, l.in(t)) })
	// A key server, and what it has to do: msee1 is it, by its priority.
	p := l.startProbe("onprem", "vm", "10.100.1.10", probeFlows, 1000)
	p.healthy(t, 20*time.Second)
	stop := l.steadyTCP("onprem", "vm", "10.100.1.10", "50M")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"SAK", []string{"macsec", "rotate", "--sak"}},
		{"CAK", []string{"macsec", "rotate"}},
	} {
		for i := range rolls(t) {
			t.Run(fmt.Sprint(c.name, " ", i), func(t *testing.T) {
				l := l.in(t)
				begin, was := p.now(), map[string]edge.MACsecStatus{} // of each: the links' keys are their own
				for _, node := range nodes {
					was[node] = l.macsec(node)
				}
				refused := l.refused()
				for _, node := range msees {
					if out, err := l.msee(append(c.args, "-d", l.ns(node))...); err != nil {
						t.Fatalf("rotate on %s: %v\n%s", node, err, out)
					}
				}
				for _, node := range nodes {
					eventually(t, 20*time.Second, node, func() error { return changed(l.macsec(node), was[node], c.name == "CAK") })
				}
				time.Sleep(4 * time.Second) // until the old SAK is retired everywhere
				if now := l.refused(); now != refused {
					t.Errorf("the SecYs had refused %d frames, and now %d", refused, now)
				}
				// On a machine that is busy with other things a socket or a
				// ring overflows now and then; a key change that loses frames
				// loses more.
				x := p.since(t, begin)
				if t.Log(x); x.lost*100 > x.sent {
					t.Errorf("probes: %v, want 1 %% at most", x)
				}
			})
		}
	}
	stop()
	t.Run("never in clear", func(t *testing.T) { mkaClear(t, l.in(t)) })
}

// ends are the two ends of each link.
var ends = [][2]string{{"msee1", "bump1"}, {"msee2", "bump2"}}

// refused counts the frames that any SecY had no key for, or did not accept.
func (l *testLab) refused() (n uint64) {
	l.t.Helper()
	for _, link := range ends {
		for _, node := range link {
			c := l.macsec(node).OpenConfig
			n += c["tx-pkts-dropped"] + c["rx-pkts-dropped"]
		}
	}
	return n
}

// changed reports an error unless a port has another SAK than was, and another
// CKN exactly if cak is set.
func changed(s, was edge.MACsecStatus, cak bool) error {
	if s.State != "secured" || sending(s) == sending(was) || (s.CKN.String() != was.CKN.String()) != cak {
		return fmt.Errorf("%s, CKN %s, AN %d; was CKN %s, AN %d", s.State, s.CKN, sending(s), was.CKN, sending(was))
	}
	return nil
}

// sending is the AN in use for transmission, -1 if there is none.
func sending(s edge.MACsecStatus) int {
	for _, sa := range s.SecY.TxSAs {
		if sa.InUse {
			return int(sa.AN)
		}
	}
	return -1
}

func (l *testLab) macsec(node string) edge.MACsecStatus {
	l.t.Helper()
	rows := show[edge.MACsecStatus](l, node, "macsec")
	if len(rows) != 1 {
		l.t.Fatalf("%s has %d ports with MACsec, want 1", node, len(rows))
	}
	return rows[0]
}

func (l *testLab) awaitSecured(node string, within time.Duration) {
	l.t.Helper()
	eventually(l.t, within, node, func() error {
		if s := l.macsec(node); s.State != "secured" {
			return fmt.Errorf("%s: %s", s.State, s.Reason)
		}
		return nil
	})
}

// steadyTCP sends TCP at a rate (iperf3 -b) that no ring drops, until stop is called, which
// wants that something arrived.
func (l *testLab) steadyTCP(from, at, to, rate string) (stop func()) {
	l.t.Helper()
	server := exec.Command("iperf3", "-s", "-B", to)
	if err := netns.Do(l.ns(at), server.Start); err != nil {
		l.t.Fatal(err)
	}
	var out *bytes.Buffer
	var client *exec.Cmd
	eventually(l.t, 10*time.Second, "iperf3", func() error { // the server may not listen yet
		out = new(bytes.Buffer)
		client = exec.Command("iperf3", "-c", to, "-b", rate, "-t", "600", "--forceflush")
		client.Stdout, client.Stderr = out, out
		if err := netns.Do(l.ns(from), client.Start); err != nil {
			return err
		}
		time.Sleep(time.Second)
		if !exited(client) {
			return nil
		}
		_ = client.Wait()
		return errors.New(out.String())
	})
	return func() {
		_ = client.Process.Signal(os.Interrupt) // it then prints its sum
		_ = client.Wait()
		_ = server.Process.Kill()
		_ = server.Wait()
		if !bytes.Contains(out.Bytes(), []byte("sender")) {
			l.t.Errorf("iperf3: %s", out.Bytes())
		}
	}
}

// exited reports whether a process has ended that nobody has waited for.
func exited(c *exec.Cmd) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// mkaSealed looks at a link: there is nothing but MACsec and EAPOL.
func mkaSealed(t *testing.T, l *testLab) {
	wire := l.startCapture(l.ns("bump1"), "eth1")
	l.exec("onprem", "ping", "-c", "20", "-i", "0.1", "10.100.1.10")
	time.Sleep(2500 * time.Millisecond) // a hello time
	kinds := map[uint16]int{}
	for _, f := range wire.end() {
		if tags, etherType, _ := f.parse(); len(tags) > 0 {
			t.Errorf("a tag in clear: %v", tags)
		} else {
			kinds[etherType]++
		}
	}
	for etherType, n := range kinds {
		if etherType != macsec.EtherType && etherType != 0x888e {
			t.Errorf("%d frames of EtherType %#04x in clear", n, etherType)
		}
	}
	if kinds[macsec.EtherType] == 0 || kinds[0x888e] == 0 {
		t.Error(errors.New("not both MACsec and MKA on the wire"), kinds)
	}
}
