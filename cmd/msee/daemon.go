package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"msee/api"
	"msee/bgp/speaker"
	"msee/config"
	"msee/dataplane/guard"
	"msee/edge"
)

func edgeCommand() *cobra.Command {
	return daemonCommand("edge", config.KindEdge, "Run an MSEE, one of the pair at Microsoft's end of a circuit")
}

func gatewayCommand() *cobra.Command {
	return daemonCommand("gateway", config.KindGateway, "Run an instance of a VNet gateway")
}

func daemonCommand(use string, kind config.Kind, short string) *cobra.Command {
	var path, instance, state string
	c := &cobra.Command{Use: use + " --config FILE", Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nRuns in the foreground until SIGTERM or Ctrl-C. SIGHUP, like `msee reload`, reads the\n" +
			"file again and applies what has changed; a file with faults changes nothing.",
		RunE: func(*cobra.Command, []string) error { return daemon(kind, path, instance, state) }}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration file (docs/configuration.md)")
	c.Flags().StringVar(&instance, "instance", "", "name of this process among others: its socket is "+
		api.SocketPath("NAME")+", its namespaces NAME.VRF (default: the device's name)")
	c.Flags().StringVar(&state, "state", "/var/lib/msee", "directory of what outlives the process, the meters and "+
		"the packet numbers of static MACsec keys, below it by instance; \"\" keeps nothing")
	c.MarkFlagRequired("config")
	return c
}

// load reads a configuration of that kind.
func load(kind config.Kind, path string) (*config.Device, error) {
	dev, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if dev.Kind != kind {
		return nil, fmt.Errorf("%s describes a %s: run msee %s", path, dev.Kind, dev.Kind)
	}
	return dev, nil
}

func daemon(kind config.Kind, path, instance, state string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	dev, err := load(kind, path)
	if err != nil {
		return err
	}
	if instance == "" {
		instance = dev.Name
	}
	claim, err := api.Claim(instance)
	if err != nil {
		return err
	}
	defer claim.Release()
	// Workers hold a thread each and may keep it busy: leave as many
	// processors to the rest as there are.
	runtime.GOMAXPROCS(runtime.NumCPU() + len(dev.Ports))
	if err := edge.Hasten(); err != nil {
		log.Warn("no precedence over other processes: BFD sessions may go down on a busy machine", "err", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	options := edge.Options{Instance: instance, Speaker: []string{self, "speaker"}, Guard: []string{self, "guard"}, Log: log}
	if state != "" {
		options.MeterFile = filepath.Join(state, instance, "meters.json")
		options.PacketNumberFile = filepath.Join(state, instance, "packetnumbers.json")
	}
	listen := dev.Metrics // dev is e's from now on
	e, err := edge.Start(dev, options)
	if err != nil {
		return err
	}
	defer e.Stop()
	metrics := api.NewMetricsServer(e, log)
	defer metrics.Close()
	if err := metrics.Move(listen, func() error { return nil }); err != nil {
		return err
	}
	var reloading sync.Mutex // the file that was read last is the one applied last
	reload := func() ([]config.Change, error) {
		reloading.Lock()
		defer reloading.Unlock()
		dev, err := load(kind, path)
		if err != nil {
			log.Error("reload refused; nothing has changed", "err", err)
			return nil, err
		}
		var changes []config.Change
		err = metrics.Move(dev.Metrics, func() (err error) {
			changes, err = e.Apply(dev)
			return err
		})
		if err != nil {
			log.Error("reload failed", "err", err)
			return changes, err
		}
		log.Info("reloaded", "changes", len(changes))
		return changes, nil
	}
	server, err := api.Listen(claim, e, reload, log)
	if err != nil {
		return err
	}
	defer server.Close()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve() }() // ends by server.Close
	log.Info("running", "instance", instance, "kind", kind, "pid", os.Getpid())

	for {
		select {
		case err := <-failed:
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				log.Info("stopping", "signal", s)
				return nil
			}
			reload() // logs what comes of it
		}
	}
}

func speakerCommand() *cobra.Command {
	return &cobra.Command{Use: "speaker", Hidden: true, Args: cobra.NoArgs,
		Short: "The BGP speaker of an edge or gateway, which starts it",
		RunE: func(*cobra.Command, []string) error {
			if err := edge.Unhasten(); err != nil { // of the device that has started it
				return err
			}
			conn, err := speaker.Inherited()
			if err != nil {
				return err
			}
			return speaker.Main(conn)
		}}
}

func guardCommand() *cobra.Command {
	return &cobra.Command{Use: "guard", Hidden: true, Args: cobra.NoArgs,
		Short: "What sees to it that BFD is on time, of an edge or gateway, which starts it",
		RunE:  func(*cobra.Command, []string) error { return guard.Main() }}
}

func checkCommand() *cobra.Command {
	return &cobra.Command{Use: "check FILE...", Short: "Check configuration files without running them", Args: arguments(1, anyNumber),
		RunE: func(_ *cobra.Command, files []string) error {
			bad := false
			for _, f := range files {
				dev, err := config.Load(f)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					bad = true
					continue
				}
				fmt.Printf("%s: good: %s %s, %d ports, %d VRFs\n", f, dev.Kind, dev.Name, len(dev.Ports), len(dev.VRFs))
			}
			if bad {
				return exitError(1)
			}
			return nil
		}}
}
