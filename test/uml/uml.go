// Package uml boots Debian's user-mode-linux as a customer's router: a real
// Linux kernel as a process, with MACsec, 802.1Q, 802.1ad and VRFs that the
// host's own kernel may lack. Its root is the host's, read-only under an
// overlay, so that it has the host's programs (wpa_supplicant, FRR); its eth0 is
// a TAP of the caller's network namespace. It takes some 4 s to boot, and 60 MB.
package uml

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed init.sh
var initScript []byte

const (
	kernel  = "linux.uml"
	modules = "/usr/lib/uml/modules"
)

// Available says why a guest cannot run here, if so.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("user-mode-linux needs root for its TAP")
	}
	if _, err := exec.LookPath(kernel); err != nil {
		return errors.New("no user-mode-linux (Debian: scripts/deps.sh --test)")
	}
	if _, err := os.Stat(modules); err != nil {
		return fmt.Errorf("user-mode-linux without its modules: %w", err)
	}
	return nil
}

// Guest is a running kernel.
type Guest struct {
	MAC net.HardwareAddr // of eth0

	dir  string
	cmd  *exec.Cmd
	line *os.File // its serial line
	jobs int
	dead chan struct{}
}

const (
	bootTime = 120 * time.Second // a busy machine's; 4 s if it has nothing else to do
	memory   = "256M"
)

// ErrProcessor is why no guest runs where the processor has AMX: the tiles make its
// floating-point state longer by 8 KiB than what user-mode-linux has room for (6.1
// has not), so that it cannot give a guest's process its registers back.
var ErrProcessor = errors.New("user-mode-linux cannot keep this processor's floating-point state (AMX)")

// Start boots a guest whose eth0 is at the other end of a TAP device, made in
// the calling thread's network namespace with an MTU; it goes with the guest.
// The TAP carries finished frames, without offloads, like a wire.
func Start(tap string, mac net.HardwareAddr, mtu int) (*Guest, error) {
	dir, err := os.MkdirTemp("", "msee-uml-")
	if err != nil {
		return nil, err
	}
	g := &Guest{MAC: mac, dir: dir, dead: make(chan struct{})}
	if err := g.boot(tap, mtu); err != nil {
		g.Stop()
		return nil, err
	}
	return g, nil
}

func (g *Guest) boot(tap string, mtu int) error {
	if err := os.Mkdir(filepath.Join(g.dir, "jobs"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(g.dir, "init.sh"), initScript, 0o700); err != nil {
		return err
	}
	dev, err := openTap(tap, mtu)
	if err != nil {
		return fmt.Errorf("make TAP %s: %w", tap, err)
	}
	defer dev.Close()
	hear, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hear.Close()
	g.line = say
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	console, err := os.Create(filepath.Join(g.dir, "console"))
	if err != nil {
		return err
	}
	defer console.Close()
	g.cmd = exec.Command(kernel, "mem="+memory, "rootfstype=hostfs", "rootflags=/", "ro",
		"init="+filepath.Join(g.dir, "init.sh"), "con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:4", "quiet",
		"umid=guest", "uml_dir="+g.dir, "UML_DIR="+g.dir, "UML_MODULES="+modules,
		fmt.Sprintf("vec0:transport=fd,fd=5,vec=0,depth=128,mtu=%d,mac=%s", mtu, g.MAC))
	g.cmd.Dir = "/"
	g.cmd.Stdout, g.cmd.Stderr = console, console
	g.cmd.ExtraFiles = []*os.File{hear, null, dev} // 3, 4, 5
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := g.cmd.Start(); err != nil {
		return err
	}
	go func() { g.cmd.Wait(); close(g.dead) }() // ends with the guest
	if err := g.await("ready", bootTime); err != nil {
		out, _ := os.ReadFile(console.Name())
		if bytes.Contains(out, []byte("ptrace set fp regs failed")) {
			return ErrProcessor
		}
		return fmt.Errorf("boot: %w; console:\n%s", err, out)
	}
	return nil
}

// openTap makes a TAP device without virtio-net headers, and sets it up with
// the host's IPv6 off it.
func openTap(name string, mtu int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) // a kernel without IPv6 has none
	out, err := exec.Command("ip", "link", "set", name, "mtu", strconv.Itoa(mtu), "up").CombinedOutput()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("set up: %w: %s", err, out)
	}
	return f, nil
}

// await waits for a file among the jobs.
func (g *Guest) await(name string, most time.Duration) error {
	for began := time.Now(); time.Since(began) < most; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(g.dir, "jobs", name)); err == nil {
			return nil
		}
		select {
		case <-g.dead:
			return errors.New("the guest has ended")
		default:
		}
	}
	return fmt.Errorf("not within %v", most)
}

// Begin starts a shell script in the guest and returns a function that waits
// for its end and returns what it printed, with an error if it failed.
func (g *Guest) Begin(script string) (wait func(most time.Duration) (string, error), err error) {
	g.jobs++
	name := strconv.Itoa(g.jobs)
	path := filepath.Join(g.dir, "jobs", name)
	if err := os.WriteFile(path+".sh", []byte(script+"\n"), 0o600); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(g.line, name); err != nil {
		return nil, err
	}
	return func(most time.Duration) (string, error) {
		if err := g.await(name+".status", most); err != nil {
			out, _ := os.ReadFile(path + ".out")
			return string(out), fmt.Errorf("job %q: %w", firstLine(script), err)
		}
		out, err := os.ReadFile(path + ".out")
		if err != nil {
			return "", err
		}
		status, err := os.ReadFile(path + ".status")
		if s := strings.TrimSpace(string(status)); err == nil && s != "0" {
			err = fmt.Errorf("job %q ended with status %s:\n%s", firstLine(script), s, out)
		}
		return string(out), err
	}, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// Run runs a shell script in the guest to its end. A fork and exec in the guest
// takes 20 ms: one script is better than many.
func (g *Guest) Run(script string, most time.Duration) (string, error) {
	wait, err := g.Begin(script)
	if err != nil {
		return "", err
	}
	return wait(most)
}

// Stop ends the guest, and its TAP with it. It may be called again.
func (g *Guest) Stop() {
	if g.line != nil {
		fmt.Fprintln(g.line, "off")
		g.line.Close()
		g.line = nil
	}
	if g.cmd != nil && g.cmd.Process != nil {
		select {
		case <-g.dead:
		case <-time.After(3 * time.Second):
			syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) // its group: the guest's processes are processes here
			<-g.dead
		}
		g.cmd = nil
	}
	os.RemoveAll(g.dir)
}
