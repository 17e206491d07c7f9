package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"msee/bfd"
	"msee/bfd/bfddp"
	"msee/bgp"
	"msee/lab/frr"
	"msee/netns"
)

// besideFRR is an FRR that runs in the namespace of an MSEE's VRF, as an operator
// has it for what msee does not speak: zebra and bfdd, whose BFD sessions msee runs.
type besideFRR struct {
	t         *testing.T
	namespace string
	dir       string // its configuration
	zebra     *exec.Cmd
	bfdd      *exec.Cmd
	argv      []string // bfdd's
}

func startBesideFRR(t *testing.T, namespace, config string) *besideFRR {
	t.Helper()
	dir, err := os.MkdirTemp("", "msee-frr-") // not t.TempDir, which user frr may not enter
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "bfdd.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	daemons, err := frr.DaemonsWithBFD("", file)
	if err != nil {
		t.Fatal(err)
	}
	f := &besideFRR{t: t, namespace: namespace, dir: dir}
	for _, d := range daemons {
		switch d.Name {
		case "zebra":
			// Directories of its own, where the host's FRR would have its.
			f.zebra = exec.Command("unshare", append([]string{"-m", "sh", "-c",
				`mkdir -p "$0" && mount -t tmpfs tmpfs "$0" && chown frr:frr "$0" && exec "$@"`, frr.RunDir}, d.Argv...)...)
			f.start(f.zebra)
			eventually(t, 20*time.Second, "zebra", func() error {
				return f.in("test", "-S", frr.RunDir+"/zserv.api").Run()
			})
		case "bfdd":
			f.argv = append(d.Argv, "--dplaneaddr", fmt.Sprintf("ipv4:127.0.0.1:%d", bfddp.Port))
			f.startBFDD()
		}
	}
	return f
}

func (f *besideFRR) start(cmd *exec.Cmd) {
	f.t.Helper()
	log, err := os.OpenFile(filepath.Join(f.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	if err := netns.Do(f.namespace, cmd.Start); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if f.t.Failed() && cmd == f.bfdd {
			text, _ := os.ReadFile(filepath.Join(f.dir, "log"))
			f.t.Logf("FRR says:\n%s", text)
		}
	})
}

// in is a command where zebra is.
func (f *besideFRR) in(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-m", "-n", "-t", fmt.Sprint(f.zebra.Process.Pid), "--"}, argv...)...)
}

func (f *besideFRR) startBFDD() {
	f.t.Helper()
	f.bfdd = f.in(f.argv...)
	f.start(f.bfdd)
}

func (f *besideFRR) vtysh(commands ...string) (string, error) {
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := f.in(append([]string{"vtysh"}, args...)...).CombinedOutput()
	return string(out), err
}

func (f *besideFRR) configure(commands ...string) {
	f.t.Helper()
	if out, err := f.vtysh(append([]string{"configure terminal", "bfd"}, commands...)...); err != nil {
		f.t.Fatalf("configure bfdd: %v\n%s", err, out)
	}
}

func (f *besideFRR) peers(command string) (map[string]frrBFD, error) {
	out, err := f.vtysh(command)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var rows []frrBFD
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", command, err, out)
	}
	all := map[string]frrBFD{}
	for _, r := range rows {
		all[r.Peer] = r
	}
	return all, nil
}

// TestDistributedBFD: a real FRR beside an MSEE hands its BFD sessions to the
// MSEE's dataplane, which runs them with the customer's FRR, tells the first how
// they are and what they count, and keeps them while it restarts.
func TestDistributedBFD(t *testing.T) {
	for _, tool := range []string{"nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	l := startLab(t, "default")
	const four, six = "192.168.15.17", "2001:db8:0:10::1" // the customer
	ours := map[string]string{four: "192.168.15.18", six: "2001:db8:0:10::2"}
	l.awaitBFD(bfd.Up, 20*time.Second, four, six)
	subinterface := l.bfdTo("msee1")[four].Interface
	l.editConfig("msee1", func(cfg map[string]any) {
		cfg["bfd"] = map[string]any{"dataPlanePort": bfddp.Port}
		peeringOf(cfg, "er1")["bfd"] = map[string]any{"state": "Disabled"}
	})
	if out, err := l.msee("reload", "-d", l.ns("msee1")); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	namespace := l.ns("msee1") + ".er1-private"
	f := startBesideFRR(t, namespace, "bfd\n"+
		" profile x\n  receive-interval 300\n  transmit-interval 300\n exit\n"+
		" peer "+four+"\n  profile x\n  no shutdown\n exit\n"+
		" peer "+six+" local-address "+ours[six]+" interface "+subinterface+"\n  profile x\n  no shutdown\n exit\n"+
		"exit\n")

	up := func(what string, ms int) {
		t.Helper()
		eventually(t, 30*time.Second, what, func() error {
			theirs, err := f.peers("show bfd peers json")
			if err != nil {
				return err
			}
			customer, dataplane := l.frrBFD("show bfd peers json"), l.bfdTo("msee1")
			for peer, us := range ours {
				x, c, d := theirs[peer], customer[us], dataplane[peer]
				if x.Status != "up" || c.Status != "up" || d.State != bfd.Up {
					return fmt.Errorf("%s: FRR has it %s, the customer %s, the dataplane %v", peer, x.Status, c.Status, d.State)
				}
				if d.MyDiscriminator != x.ID || c.RemoteID != x.ID || x.RemoteID != c.ID {
					return fmt.Errorf("%s: FRR has %d/%d, the customer %d/%d, the dataplane %d", peer, x.ID, x.RemoteID, c.ID, c.RemoteID, d.MyDiscriminator)
				}
				if x.RemoteRx != 300 || x.RemoteTx != 300 || d.Session != "" {
					return fmt.Errorf("%s: FRR has the customer's intervals as %d and %d; session %q", peer, x.RemoteRx, x.RemoteTx, d.Session)
				}
				if want := bfd.Millis(time.Duration(max(ms, 300)) * time.Millisecond); d.TxInterval != want || d.DetectionTime != 3*want || c.RemoteTx != ms {
					return fmt.Errorf("%s: every %v, detection in %v, the customer has %d", peer, time.Duration(d.TxInterval), time.Duration(d.DetectionTime), c.RemoteTx)
				}
			}
			return nil
		})
	}
	up("FRR's sessions are up", 300)
	f.configure("profile x", "receive-interval 600", "transmit-interval 600")
	up("FRR's sessions with other intervals", 600)
	f.configure("profile x", "receive-interval 300", "transmit-interval 300")
	up("FRR's sessions as before", 300)

	eventually(t, 20*time.Second, "FRR's counters are the dataplane's", func() error {
		before := l.bfdTo("msee1")
		theirs, err := f.peers("show bfd peers counters json")
		after := l.bfdTo("msee1")
		if err != nil {
			return err
		}
		for peer := range ours {
			x, a, b := theirs[peer], before[peer].Counters, after[peer].Counters
			if x.In < a.Rx || x.In > b.Rx || x.Out < a.Tx || x.Out > b.Tx || a.RxBytes != 24*a.Rx || a.TxBytes != 24*a.Tx {
				return fmt.Errorf("%s: FRR has %d in, %d out; the dataplane before %+v, after %+v", peer, x.In, x.Out, a, b)
			}
		}
		return nil
	})

	// The customer falls silent: FRR hears it from the dataplane, which has turned
	// by then.
	customer := l.frrDaemon("ce", "bfdd")
	if err := syscall.Kill(customer, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(customer, syscall.SIGCONT)
	eventually(t, 20*time.Second, "FRR hears of the silence", func() error {
		theirs, err := f.peers("show bfd peers json")
		if err != nil {
			return err
		}
		for peer, d := range l.bfdTo("msee1") {
			if _, foreign := ours[peer]; foreign && (theirs[peer].Status != "down" || d.InUse || d.Diag != bfd.DiagTimeExpired) {
				return fmt.Errorf("%s: FRR has it %s; %v, in use %v", peer, theirs[peer].Status, d.Diag, d.InUse)
			}
		}
		return nil
	})
	if err := syscall.Kill(customer, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	up("FRR's sessions after a silence", 300)
	l.awaitState("msee1", "er1-private", four, bgp.StateEstablished, 30*time.Second)

	// FRR's operator shuts one down: that is no failure of the neighbor.
	f.configure("peer "+four, "shutdown")
	eventually(t, 20*time.Second, "the customer knows that it is shut down", func() error {
		d := l.bfdTo("msee1")[four]
		if c := l.frrBFD("show bfd peers json")[ours[four]]; d.State != bfd.AdminDown || !d.InUse || c.Status != "down" {
			return fmt.Errorf("the customer has it %s, the dataplane %v, in use %v", c.Status, d.State, d.InUse)
		}
		return nil
	})
	f.configure("peer "+four, "no shutdown")
	up("FRR's sessions after a shutdown", 300)

	// FRR's control plane dies: its sessions live, as a new one may come.
	before := l.bfdTo("msee1")
	f.bfdd.Process.Kill()
	f.bfdd.Wait()
	time.Sleep(2 * time.Second) // twice the detection time
	now, theirs := l.bfdTo("msee1"), l.frrBFD("show bfd peers json")
	for peer, us := range ours {
		if now[peer].State != bfd.Up || now[peer].Counters.Ups != before[peer].Counters.Ups || theirs[us].Status != "up" {
			t.Errorf("%s without bfdd: %v, at the customer %s", peer, now[peer].State, theirs[us].Status)
		}
	}
	hostileDaemon(t, namespace, l)
	f.startBFDD()
	up("sessions of the next bfdd", 300)

	// BGP's own BFD comes first.
	l.editConfig("msee1", func(cfg map[string]any) { delete(peeringOf(cfg, "er1"), "bfd") })
	if out, err := l.msee("reload", "-d", l.ns("msee1")); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	eventually(t, 30*time.Second, "the dataplane has BGP's sessions again", func() error {
		theirs, err := f.peers("show bfd peers json")
		if err != nil {
			return err
		}
		for peer, d := range l.bfdTo("msee1") {
			if _, foreign := ours[peer]; foreign && (d.State != bfd.Up || d.Session == "" || theirs[peer].Status != "down") {
				return fmt.Errorf("%s: %v of %q; FRR has it %s", peer, d.State, d.Session, theirs[peer].Status)
			}
		}
		return nil
	})
}

// hostileDaemon is a daemon that asks for what cannot be, and speaks nonsense.
func hostileDaemon(t *testing.T, namespace string, l *testLab) {
	t.Helper()
	var listener *net.TCPListener
	if err := netns.Do(namespace, func() (err error) {
		listener, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bfddp.Port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	good := bfddp.Session{Local: netip.MustParseAddr("192.168.15.18"), Peer: netip.MustParseAddr("192.168.15.17"), Discr: 0x7001,
		MinTx: 300 * time.Millisecond, MinRx: 300 * time.Millisecond, DetectMult: 3}
	var wire []byte
	for _, edit := range []func(*bfddp.Session){
		func(s *bfddp.Session) { s.Discr = 0 },
		func(s *bfddp.Session) { s.Flags = bfddp.Multihop },
		func(s *bfddp.Session) { s.Flags = bfddp.Demand },
		func(s *bfddp.Session) { s.DetectMult = 0 },
		func(s *bfddp.Session) { s.MinTx = time.Microsecond },
		func(s *bfddp.Session) { s.Peer = s.Local },
		func(s *bfddp.Session) { s.Peer = netip.MustParseAddr("192.0.2.1") },
		func(s *bfddp.Session) { s.Interface = "nowhere" },
		func(s *bfddp.Session) { s.Discr = l.bfdTo("msee1")["10.100.255.12"].MyDiscriminator }, // a gateway's
	} {
		s := good
		edit(&s)
		m := bfddp.Message{Version: 1, Type: bfddp.AddSession, Session: s}
		wire = m.Append(wire)
	}
	echo := bfddp.Message{Version: 1, Type: bfddp.EchoRequest, ID: 9, Echo: bfddp.Echo{Daemon: 77}}
	wire = echo.Append(wire)
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	var buf [bfddp.MaxLen]byte
	for have := 0; ; {
		m, n, err := bfddp.Parse(buf[:have])
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			if n, err = conn.Read(buf[have:]); err != nil {
				t.Fatalf("the echo's answer: %v", err)
			}
			have += n
			continue
		}
		if have = copy(buf[:], buf[n:have]); m.Type == bfddp.EchoReply {
			if m.ID != 9 || m.Echo.Daemon != 77 || m.Echo.DataPlane == 0 || m.Version != 1 {
				t.Errorf("the echo's answer is %+v", m)
			}
			break
		}
	}
	for peer, d := range l.bfdTo("msee1") {
		if d.State != bfd.Up || d.MyDiscriminator == good.Discr {
			t.Errorf("after a hostile daemon: %s is %v as %d", peer, d.State, d.MyDiscriminator)
		}
	}
	if _, err := conn.Write([]byte(strings.Repeat("\xff", 64))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a daemon that speaks nonsense was not hung up on: %v", err)
	}
}
