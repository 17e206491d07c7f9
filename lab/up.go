package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"msee/lab/frr"
	"msee/lab/vlanshim"
	"msee/netns"
)

// Up builds a topology and waits until it has converged. If ctx ends or the
// lab cannot be built, what was made is removed again; a lab that is built but
// does not converge stays (ErrNotConverged), to be looked at.
func Up(ctx context.Context, t *Topology, o Options) error {
	lab := o.Name
	if lab == "" {
		lab = t.Name
	}
	p := newProgress(o.Progress)
	b := &builder{lab: lab, t: t, o: o, progress: p, exited: make(chan struct{}, 1)}
	if err := b.preflight(); err != nil {
		return fmt.Errorf("lab %s: %w", lab, err)
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	err := b.converge(ctx)
	if ctx.Err() != nil {
		p.step("interrupted: taking down lab %s", lab)
		return errors.Join(ctx.Err(), Down(context.WithoutCancel(ctx), lab))
	}
	if err != nil {
		return err
	}
	b.state.Ready = true
	if err := b.state.save(); err != nil {
		return err
	}
	p.step("lab %s is up", lab)
	return nil
}

// builder makes one lab.
type builder struct {
	lab      string
	t        *Topology
	o        Options
	progress *progress
	state    *state
	daemons  []daemonConfig
	exited   chan struct{} // wakes converge when a child ends
}

// daemonConfig is what to start in a node.
type daemonConfig struct {
	node *Node
	frr.Daemon
}

// preflight finds what would fail later before anything is made.
func (b *builder) preflight() error {
	if err := CheckName(b.lab); err != nil {
		return err
	}
	if err := requireRoot(); err != nil {
		return err
	}
	if b.o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the msee executable: %w", err)
		}
		b.o.Binary = self
	}
	for i := range b.t.Nodes {
		n := &b.t.Nodes[i]
		switch n.Kind {
		case KindFRR:
			daemons, err := frrDaemons(n)
			if err != nil {
				return err
			}
			for _, d := range daemons {
				b.daemons = append(b.daemons, daemonConfig{n, d})
			}
		case KindMSEE:
			b.daemons = append(b.daemons, daemonConfig{n, b.msee(n, "edge")})
		case KindGateway:
			b.daemons = append(b.daemons, daemonConfig{n, b.msee(n, "gateway")})
		}
	}
	return nil
}

func frrDaemons(n *Node) ([]frr.Daemon, error) {
	bgpd, bfdd := filepath.Join(frr.EtcDir, "bgpd.conf"), filepath.Join(frr.EtcDir, "bfdd.conf")
	if n.BGP != nil && n.BGP.BFD != nil {
		return frr.DaemonsWithBFD(bgpd, bfdd)
	}
	return frr.Daemons(bgpd)
}

func (b *builder) msee(n *Node, command string) frr.Daemon {
	return frr.Daemon{Name: command, Argv: []string{
		b.o.Binary, command, "--config", configFile(b.lab, n), "--instance", instance(b.lab, n.Name), "--state", "",
	}}
}

func configFile(lab string, n *Node) string {
	return filepath.Join(labDir(lab), "conf", n.Name+".yaml")
}

// build makes everything, under the lab's lock, and removes it again if that
// fails.
func (b *builder) build(ctx context.Context) error {
	unlock, err := lockLab(b.lab)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.makeRoom(ctx); err != nil {
		return err
	}
	for _, step := range []func() error{
		b.files, b.namespaces, b.links, b.addresses, b.start,
	} {
		if err = ctx.Err(); err == nil {
			err = step()
		}
		if err != nil {
			b.progress.step("taking down what there is of lab %s", b.lab)
			err = fmt.Errorf("build lab %s: %w", b.lab, err)
			return errors.Join(err, remove(context.WithoutCancel(ctx), b.lab))
		}
	}
	return nil
}

// makeRoom removes the last lab of that name if Force says so, and leftovers
// that have no state in any case.
func (b *builder) makeRoom(ctx context.Context) error {
	_, err := loadState(b.lab)
	if !errors.Is(err, ErrNoLab) && !b.o.Force {
		return fmt.Errorf("lab %s: %w: take it down first (msee lab down %s) or force it", b.lab, ErrRunning, b.lab)
	}
	if err := clearLab(ctx, b.lab); err != nil {
		return fmt.Errorf("clear lab %s: %w", b.lab, err)
	}
	return nil
}

func (b *builder) files() error {
	b.state = &state{Lab: b.lab, Topology: b.t.file, Started: time.Now(), BootID: bootID()}
	for i := range b.t.Nodes {
		b.state.Namespaces = append(b.state.Namespaces, instance(b.lab, b.t.Nodes[i].Name))
	}
	if err := b.state.save(); err != nil {
		return err
	}
	dir := labDir(b.lab)
	if err := os.WriteFile(filepath.Join(dir, "topology.yaml"), b.t.source, 0o644); err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	for _, sub := range []string{"conf", "log"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("make lab's directories: %w", err)
		}
	}
	for i := range b.t.Nodes {
		n := &b.t.Nodes[i]
		switch n.Kind {
		case KindFRR:
			if err := makeFRRDirs(b.lab, n); err != nil {
				return err
			}
		case KindMSEE, KindGateway:
			text, err := b.t.DaemonConfig(n)
			if err == nil { // it has TCP-MD5 keys in it
				err = os.WriteFile(configFile(b.lab, n), text, 0o600)
			}
			if err != nil {
				return fmt.Errorf("write configuration of %s: %w", n.Name, err)
			}
		}
	}
	return nil
}

func (b *builder) namespaces() error {
	for i := range b.t.Nodes {
		n := &b.t.Nodes[i]
		name := instance(b.lab, n.Name)
		if err := netns.Create(name); err != nil {
			return err
		}
		if err := netns.Do(name, func() error { return prepareNamespace(n) }); err != nil {
			return fmt.Errorf("prepare node %s: %w", n.Name, err)
		}
	}
	b.progress.step("%d namespaces %s", len(b.t.Nodes), instance(b.lab, "*"))
	return nil
}

func (b *builder) links() error {
	for i := range b.t.Links {
		if err := addLink(b.lab, b.t, &b.t.Links[i]); err != nil {
			return err
		}
	}
	b.progress.step("%d links", len(b.t.Links))
	return nil
}

func (b *builder) addresses() error {
	var by vlanshim.Method
	for i := range b.t.Nodes {
		n := &b.t.Nodes[i]
		err := netns.Do(instance(b.lab, n.Name), func() error {
			method, err := configure(n)
			if method != "" {
				by = method
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("configure node %s: %w", n.Name, err)
		}
	}
	what := "addresses and routes"
	if by != "" {
		what += fmt.Sprintf(", VLANs by %s", by)
	}
	b.progress.step("%s", what)
	return nil
}

func (b *builder) start() error {
	var started []string
	for _, d := range b.daemons {
		if err := b.startOne(d); err != nil {
			return fmt.Errorf("start %s on %s: %w", d.Name, d.node.Name, err)
		}
		if d.Name == "zebra" {
			b.awaitZebra(d.node)
		}
		started = append(started, d.node.Name+" "+d.Name)
	}
	if len(started) > 0 {
		b.progress.step("started %s", strings.Join(started, ", "))
	}
	return nil
}

// startOne starts a daemon that outlives us, in a session of its own so that
// Ctrl-C is not for it.
func (b *builder) startOne(d daemonConfig) error {
	log, err := os.OpenFile(logFile(b.lab, d.node.Name, d.Name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.Argv[0], d.Argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env = os.Environ()
	for name, value := range b.t.Environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := enter(b.lab, d.node, cmd.Start); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	p := process{Node: d.node.Name, Name: d.Name, PID: pid, StartTime: startTime(pid)}
	go func() {
		_ = cmd.Wait() // only so that it is no zombie; converge sees that it is gone
		select {
		case b.exited <- struct{}{}:
		default:
		}
	}()
	b.state.Processes = append(b.state.Processes, p)
	return b.state.save()
}

// awaitZebra gives zebra a moment to listen: bgpd would try again only after
// ten seconds. If it never does, converge says why.
func (b *builder) awaitZebra(n *Node) {
	socket := filepath.Join(frrDir(b.lab, n.Name, "run"), "zserv.api")
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func logFile(lab, node, daemon string) string {
	return filepath.Join(labDir(lab), "log", node+"."+daemon+".log")
}
