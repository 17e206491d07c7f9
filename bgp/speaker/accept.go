package speaker

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v3/pkg/config/oc"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// The unsafe steps of the project are the two functions of this file. They
// depend on private fields of GoBGP v3.37's BgpServer; a test fails when those
// change.

var (
	errAcceptCh  = errors.New("GoBGP's BgpServer has no field `acceptCh chan *net.TCPConn` any more: find the new way in for accepted connections")
	errBgpConfig = errors.New("GoBGP's BgpServer has no field `bgpConfig oc.Bgp` any more: find the new place of AS and router ID")
)

// injectAcceptCh gives s a channel on which it takes connections as if its own
// listener had accepted them. It must be called before s.Serve.
//
// GoBGP opens its sockets in the process's own network namespace and offers no
// hook for a listener or a dialler, but its Serve loop reads accepted
// connections from this field.
func injectAcceptCh(s *server.BgpServer) (chan<- *net.TCPConn, error) {
	ch := make(chan *net.TCPConn, 4)
	f := reflect.ValueOf(s).Elem().FieldByName("acceptCh")
	if !f.IsValid() || f.Type() != reflect.TypeOf(ch) {
		return nil, errAcceptCh
	}
	reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Set(reflect.ValueOf(ch))
	return ch, nil
}

// setIdentity changes the AS and identifier that StartBgp gave s. s must have no
// neighbour; the next call into s publishes the change to its goroutines.
//
// StartBgp could do it again, but it also writes package variables that all
// other servers read meanwhile, see pool.
func setIdentity(s *server.BgpServer, as uint32, id netip.Addr) error {
	f := reflect.ValueOf(s).Elem().FieldByName("bgpConfig")
	if !f.IsValid() || f.Type() != reflect.TypeFor[oc.Bgp]() {
		return errBgpConfig
	}
	c := (*oc.Bgp)(unsafe.Pointer(f.UnsafeAddr()))
	c.Global.Config.As, c.Global.Config.RouterId = as, id.String()
	return nil
}
