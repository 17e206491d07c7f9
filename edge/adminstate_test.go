package edge

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"msee/config"
	"msee/dataplane"
)

// TestRefusedPortStaysDown: a change that comes to nothing leaves a link as it
// was found, which the host alone would answer on.
func TestRefusedPortStaysDown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make devices")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread's namespace ends with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "dev0", TxQLen: -1}, PeerName: "far0"}); err != nil {
			t.Error(err)
			return
		}
		log := slog.New(slog.DiscardHandler)
		e := &Edge{log: log, engine: dataplane.NewEngine(log)}
		p, err := e.openPort(config.Port{Name: "p", Device: "dev0"})
		if err != nil {
			t.Error(err)
			return
		}
		e.unmake(made{ports: map[string]*portState{"p": p}})
		if link, err := net.InterfaceByName("dev0"); err != nil || link.Flags&net.FlagUp != 0 {
			t.Errorf("the link was down and is %v, %v", link, err)
		}
	}()
	<-done
}
