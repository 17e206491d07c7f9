package edge

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"msee/config"
)

// What of a gateway's pair can be as the configuration wants it.

// sameInstance refuses to make a gateway's instance the other one, whose addresses
// it would take from it: such a reload is a mistyped one.
func sameInstance(was, dev *config.Device) error {
	if was.Kind == config.KindGateway && was.Role != dev.Role {
		return fmt.Errorf("virtualNetworkGateway.instance: this one runs as %s (got %s; want %s, or restart with it)", was.Role, dev.Role, was.Role)
	}
	return nil
}

// withoutPairs returns dev without takeover where the kernel has no IPv6 for it: the
// instances of a gateway watch each other by link-local addresses.
func (e *Edge) withoutPairs(dev *config.Device) *config.Device {
	kept := noPairs(dev)
	if kept == dev || ipv6Usable() {
		return dev
	}
	e.log.Warn("no takeover between the gateway's instances: IPv6 is disabled here, and they watch each other by it")
	return kept
}

// noPairs is dev without takeover; dev itself if it has none.
func noPairs(dev *config.Device) *config.Device {
	kept := *dev
	kept.VRFs = slices.Clone(dev.VRFs)
	has := false
	for i := range kept.VRFs {
		subs := slices.Clone(kept.VRFs[i].Subinterfaces)
		for j := range subs {
			has = has || subs[j].Pair != nil
			subs[j].Pair = nil
		}
		kept.VRFs[i].Subinterfaces = subs
	}
	if !has {
		return dev
	}
	return &kept
}

// ipv6Usable reports whether interfaces of a new namespace may have IPv6 addresses,
// as it was when we first asked.
var ipv6Usable = sync.OnceValue(func() bool {
	answer := make(chan bool)
	go func() {
		runtime.LockOSThread() // for good: the thread, in its namespace, ends with us
		off := []byte("1")
		if unix.Unshare(unix.CLONE_NEWNET) == nil {
			off, _ = os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
		}
		answer <- string(bytes.TrimSpace(off)) == "0"
	}()
	return <-answer
})
