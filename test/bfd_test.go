package test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"msee/api"
	"msee/bfd"
	"msee/bgp"
	"msee/edge"
	"msee/lab"
	"msee/netns"
	"msee/test/probing"
)

// frrBFD is what bfdd says of a peer.
type frrBFD struct {
	Peer     string `json:"peer"`
	Status   string `json:"status"`
	ID       uint32 `json:"id"`
	RemoteID uint32 `json:"remote-id"`
	RxMS     int    `json:"receive-interval"`
	TxMS     int    `json:"transmit-interval"`
	RemoteRx int    `json:"remote-receive-interval"`
	RemoteTx int    `json:"remote-transmit-interval"`
	In       uint64 `json:"control-packet-input"`
	Out      uint64 `json:"control-packet-output"`
	EchoIn   uint64 `json:"echo-packet-input"`
	EchoOut  uint64 `json:"echo-packet-output"`
}

func (l *testLab) frrBFD(command string) map[string]frrBFD {
	l.t.Helper()
	var rows []frrBFD
	if err := json.Unmarshal([]byte(l.vtysh("ce", command)), &rows); err != nil {
		l.t.Fatal(err)
	}
	all := map[string]frrBFD{}
	for _, r := range rows {
		all[r.Peer] = r
	}
	return all
}

// bfdTo returns a device's BFD sessions by their peer.
func (l *testLab) bfdTo(node string) map[string]edge.BFDStatus {
	l.t.Helper()
	rows, err := api.NewClient(l.ns(node)).BFD()
	if err != nil {
		l.t.Fatal(err)
	}
	all := map[string]edge.BFDStatus{}
	for _, r := range rows {
		all[r.Peer.String()] = r
	}
	return all
}

func (l *testLab) awaitBFD(want bfd.State, within time.Duration, peers ...string) {
	l.t.Helper()
	eventually(l.t, within, fmt.Sprintf("BFD is %v", want), func() error {
		now := l.bfdTo("msee1")
		for _, p := range peers {
			if now[p].State != want {
				return fmt.Errorf("BFD with %s is %v (%v)", p, now[p].State, now[p].Diag)
			}
		}
		return nil
	})
}

// TestBFDWithFRR: sessions of both families with FRR's bfdd come up with the
// intervals that follow from both sides' wishes, both count the same packets, the
// wire shows those intervals and who polled, packets that are not the neighbor's or
// name no session change nothing, and a peer that falls silent is noticed in its
// detection time.
func TestBFDWithFRR(t *testing.T) {
	l := startLab(t, "default")
	peers := map[string]string{"192.168.15.17": "192.168.15.18", "2001:db8:0:10::1": "2001:db8:0:10::2"} // the CE's address, ours
	both := []string{"192.168.15.17", "2001:db8:0:10::1"}
	l.awaitBFD(bfd.Up, 20*time.Second, both...)

	// The customer wants 750 ms, then 100 ms: it can lengthen, not shorten.
	for _, ms := range []int{750, 100, 300} {
		l.exec("ce", "vtysh", "-c", "configure terminal", "-c", "bfd", "-c", "profile msee",
			"-c", fmt.Sprintf("receive-interval %d", ms), "-c", fmt.Sprintf("transmit-interval %d", ms))
		want := bfd.Millis(time.Duration(max(ms, 300)) * time.Millisecond)
		eventually(t, 20*time.Second, fmt.Sprintf("intervals follow from %d and 300 ms", ms), func() error {
			theirs, ours := l.frrBFD("show bfd peers json"), l.bfdTo("msee1")
			for ce, us := range peers {
				o, f := ours[ce], theirs[us]
				if o.State != bfd.Up || f.Status != "up" || o.MyDiscriminator != f.RemoteID || o.RemoteDiscr != f.ID {
					return fmt.Errorf("%s: ours %v %d/%d, theirs %s %d/%d", ce, o.State, o.MyDiscriminator, o.RemoteDiscr, f.Status, f.RemoteID, f.ID)
				}
				if o.TxInterval != want || o.RxInterval != want || o.DetectionTime != 3*want {
					return fmt.Errorf("%s: send every %v, receive every %v, detect in %v", ce, o.TxInterval, o.RxInterval, o.DetectionTime)
				}
				if f.RemoteRx != 300 || f.RemoteTx != 300 || f.RxMS != ms {
					return fmt.Errorf("%s: FRR has %+v", ce, f)
				}
			}
			return nil
		})
	}

	// Of two answers of ours with FRR's between them, one has less and one more. Packets in
	// flight, and of before the other side was there, may differ.
	before, theirs, after := l.bfdTo("msee1"), l.frrBFD("show bfd peers counters json"), l.bfdTo("msee1")
	for ce, us := range peers {
		b, f, a := before[ce].Counters, theirs[us], after[ce].Counters
		if f.In+8 < b.Tx || f.In > a.Tx {
			t.Errorf("%s: we had sent %d packets, and then %d; FRR has %d", ce, b.Tx, a.Tx, f.In)
		}
		if b.Rx > f.Out+4 || a.Rx+4 < f.Out {
			t.Errorf("%s: FRR sent %d packets; we had %d, and then %d", ce, f.Out, b.Rx, a.Rx)
		}
	}

	t.Run("on the wire", func(t *testing.T) { intervalsOnTheWire(t, l.in(t), peers) })
	t.Run("hostile", func(t *testing.T) { hostilePackets(t, l.in(t), peers) })
	t.Run("silent", func(t *testing.T) { silentPeer(t, l.in(t), both) })
}

// TestEchoesOfFRR: the customer's FRR sends echoes, gets all of them back but for those
// under way, and has its sessions up, which it would not without.
func TestEchoesOfFRR(t *testing.T) {
	l := startLab(t, "default")
	peers := map[string]string{"192.168.15.17": "192.168.15.18", "2001:db8:0:10::1": "2001:db8:0:10::2"} // the CE's address, ours
	l.awaitBFD(bfd.Up, 20*time.Second, "192.168.15.17", "2001:db8:0:10::1")
	l.vtysh("ce", "configure terminal", "bfd", "profile msee", "echo transmit-interval 300", "echo receive-interval 300", "echo-mode")
	eventually(t, 30*time.Second, "echoes come back", func() error {
		theirs, ours := l.frrBFD("show bfd peers counters json"), l.bfdTo("msee1")
		for ce, us := range peers {
			f, o := theirs[us], ours[ce]
			if o.State != bfd.Up || f.EchoIn < 10 || f.EchoOut-f.EchoIn > 4 || o.Echoes < f.EchoIn {
				return fmt.Errorf("%s: %v; FRR has sent %d echoes and %d came back; we have sent %d back", ce, o.State, f.EchoOut, f.EchoIn, o.Echoes)
			}
		}
		return nil
	})
}

// frrDaemon returns the process of a node's FRR daemon.
func (l *testLab) frrDaemon(node, name string) int {
	l.t.Helper()
	data, err := os.ReadFile(filepath.Join(lab.RunDir, "lab", l.name, "frr", node, "run", name+".pid"))
	if err != nil {
		l.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		l.t.Fatal(err)
	}
	return pid
}

// TestDrainLosesNothing: traffic leaves a drained device, which then takes its
// sessions down, and comes back afterwards; no packet is lost.
func TestDrainLosesNothing(t *testing.T) {
	l := startLab(t, "default")
	p := startProbes(l)
	begin := p.now()
	out, err := l.msee("drain", "-d", l.ns("msee1"))
	if err != nil || !strings.Contains(out, "frames/s") {
		t.Fatalf("drain: %v\n%s", err, out)
	}
	eventually(t, 20*time.Second, "the session is down, and says why", func() error {
		s, err := l.session("msee1", "er1-private", "192.168.15.17")
		if err == nil && (s.State != bgp.StateIdle || s.Reason != "drained for maintenance") {
			err = fmt.Errorf("it is %s: %s", s.State, s.Reason)
		}
		return err
	})
	for args, says := range map[string]string{"show devices -d ": string(edge.Drained), "drain -d ": "drained already"} {
		if out, err := l.msee(strings.Fields(args + l.ns("msee1"))...); err != nil || !strings.Contains(out, says) {
			t.Errorf("%s of a drained device: %v\n%s", args, err, out)
		}
	}
	if out, err = l.msee("undrain", "-d", l.ns("msee1")); err != nil {
		t.Fatalf("undrain: %v\n%s", err, out)
	}
	l.awaitSessions(30*time.Second, "msee1", "msee2", "gw0", "gw1")
	p.healthy(t, 20*time.Second)
	if x := p.since(t, begin); x.lost > 0 {
		t.Errorf("drain and undrain: %v", x)
	}
}

// TestLocalRepair: the customer's BFD falls silent on one link while the gateways
// do not hear of it, as what msee1 tells them by BGP is lost. What they go on sending
// to the wrong MSEE reaches the customer by the other one: at once, while msee1 takes
// over a configuration that has its tables made anew, and while the link flaps.
func TestLocalRepair(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	// The gateways hold a silent session for so long that a busy machine is done.
	l := startLab(t, topology(t, "default", "holdSeconds: 10}", "holdSeconds: 60}"))
	p := startProbes(l)
	const customer = "192.168.15.17"
	silence := func() {
		l.exec("ce", "nft", "table inet x {\nchain out {\ntype filter hook output priority 0\noifname link1.100 udp dport 3784 drop\n}\n}")
	}
	speak := func() { l.exec("ce", "nft", "flush ruleset") }
	for _, c := range []struct {
		name string
		then func(l *testLab) // after the first Down
	}{
		{"cut", func(*testLab) {}},
		{"reload", func(l *testLab) {
			l.editConfig("msee1", func(cfg map[string]any) { peeringOf(cfg, "er1")["mtu"] = 1492 })
			if out, err := l.msee("reload", "-d", l.ns("msee1")); err != nil {
				l.t.Fatalf("reload: %v\n%s", err, out)
			}
		}},
		{"flap", func(l *testLab) {
			speak()
			l.awaitBFD(bfd.Up, 20*time.Second, customer)
			silence()
			l.awaitBFD(bfd.Down, 20*time.Second, customer)
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.awaitSessions(60*time.Second, "msee1", "msee2", "gw0", "gw1")
			p.healthy(t, 20*time.Second)
			begin := p.now()
			l.muteBGP(true)
			silence()
			defer speak()
			defer l.muteBGP(false)
			l.awaitBFD(bfd.Down, 20*time.Second, customer)
			c.then(l)
			before := show[edge.PortStatus](l, "msee1", "ports")
			time.Sleep(1500 * time.Millisecond)
			after := show[edge.PortStatus](l, "msee1", "ports")
			x := p.since(t, begin)
			t.Logf("%v; msee1 has forwarded %d frames at the end", x, forwardedBy(after)-forwardedBy(before))
			if x.lost > 2 {
				t.Errorf("the gateways' traffic to the wrong MSEE: %v", x)
			}
			if n := forwardedBy(after) - forwardedBy(before); n < 30 {
				t.Errorf("msee1 has forwarded %d frames: the gateways have moved, and nothing was proved", n)
			}
		})
		if !ok {
			return
		}
	}
	l.awaitSessions(60*time.Second, "msee1", "msee2", "gw0", "gw1")
}

// TestLocalRepairWithoutBFD: where nobody speaks BFD, what the gateways go on sending to the
// MSEE whose link to the customer has lost its carrier reaches him by the other one too.
func TestLocalRepairWithoutBFD(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const off = "\n    bfd: {state: Disabled}"
	l := startLab(t, topology(t, "default", "holdSeconds: 10}", "holdSeconds: 60}"+off, "holdSeconds: 180}", "holdSeconds: 180}"+off,
		"      bfd: {intervalMilliseconds: 300, multiplier: 3}\n", ""), "gw0", "gw1")
	if n := len(l.bfdTo("msee1")); n != 0 {
		t.Fatalf("%d BFD sessions", n)
	}
	l.exec("vm", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
	// One way: the customer's edge, whose VLAN has a carrier of its own, takes seconds to notice.
	sender, err := probing.Start(probing.Config{From: l.ns("vm"), At: l.ns("onprem"), To: netip.MustParseAddr("10.1.0.10"), Port: 9000,
		Flows: probeFlows, PerSecond: probeRate})
	t.Cleanup(sender.End)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{sender}
	p.healthy(t, 20*time.Second)
	l.muteBGP(true)
	defer l.muteBGP(false)
	l.exec("ce", "ip", "link", "set", "link1", "down")
	defer l.exec("ce", "ip", "link", "set", "link1", "up")
	eventually(t, 20*time.Second, "msee1 has no link", func() error {
		for _, port := range show[edge.PortStatus](l, "msee1", "ports") {
			if port.Name == "cust" && port.Link != "down" {
				return fmt.Errorf("it is %s", port.Link)
			}
		}
		return nil
	})
	begin := p.now() // the kernel may keep its word of the link for a second, if it has told of others
	before := show[edge.PortStatus](l, "msee1", "ports")
	time.Sleep(2 * time.Second)
	after := show[edge.PortStatus](l, "msee1", "ports")
	x := p.since(t, begin)
	n := forwardedBy(after) - forwardedBy(before)
	t.Logf("%v; msee1 has forwarded %d frames at the end", x, n)
	if x.lost > 2 { // unrepaired half of all
		t.Errorf("the gateways' traffic to the wrong MSEE: %v", x)
	}
	if n < 30 {
		t.Errorf("msee1 has forwarded %d frames: the gateways have moved, and nothing was proved", n)
	}
}

// muteBGP has what msee1 tells the gateways lost, or not any more: TCP brings it
// then.
func (l *testLab) muteBGP(mute bool) {
	l.t.Helper()
	rules := []string{"flush", "ruleset"}
	if mute {
		rules = []string{"table inet x {\nchain out {\ntype filter hook output priority 0\noifname core.200 tcp dport 179 drop\noifname core.200 tcp sport 179 drop\n}\n}"}
	}
	err := netns.Do(l.ns("msee1")+".er1-private", func() error {
		if out, err := exec.Command("nft", rules...).CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func forwardedBy(ports []edge.PortStatus) (n uint64) {
	for _, p := range ports {
		n += p.Verdicts["transmit"]
	}
	return n
}
