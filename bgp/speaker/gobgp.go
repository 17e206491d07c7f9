package speaker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"

	"msee/bgp"
)

// gobgp is one BgpServer. It has at most one neighbour at a time, and runs that
// session's state machine; its table stays empty.
type gobgp struct {
	*server.BgpServer
	accept chan<- *net.TCPConn
	watch  atomic.Pointer[watch] // takes what GoBGP logs; nil between two neighbours
}

// newGoBGP starts a server. GoBGP cannot end its Serve goroutine, so servers
// are never thrown away but kept in a pool.
func newGoBGP() (*gobgp, error) {
	g := &gobgp{}
	g.BgpServer = server.NewBgpServer(server.LoggerOption(&logHook{&g.watch}))
	accept, err := injectAcceptCh(g.BgpServer)
	if err != nil {
		return nil, err
	}
	g.accept = accept
	go g.Serve()
	err = g.StartBgp(context.Background(), &api.StartBgpRequest{Global: &api.Global{
		Asn: bgp.ASMSEE, RouterId: "0.0.0.1", // until setIdentity
		ListenPort: -1, // no socket
	}})
	if err != nil {
		return nil, fmt.Errorf("start GoBGP: %w", err)
	}
	return g, nil
}

// addNeighbour starts the FSM for c. It is passive: connections come through
// accept, and TCP-MD5 was settled before they got here.
func (g *gobgp) addNeighbour(c *bgp.SessionConfig) error {
	err := g.AddPeer(context.Background(), &api.AddPeerRequest{Peer: &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: c.Peer.String(), PeerAsn: c.PeerAS, LocalAsn: c.LocalAS,
		},
		Transport: &api.Transport{LocalAddress: c.Local.String(), PassiveMode: true},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(c.Hold / time.Second), KeepaliveInterval: uint64(c.Keepalive / time.Second),
			ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
		}},
		AfiSafis: []*api.AfiSafi{{Config: &api.AfiSafiConfig{Family: family(c), Enabled: true}}},
	}})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", c.Peer, err)
	}
	return nil
}

func (g *gobgp) deleteNeighbour(c *bgp.SessionConfig) error {
	return g.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: c.Peer.String()})
}

func family(c *bgp.SessionConfig) *api.Family {
	switch {
	case c.EVPN:
		return &api.Family{Afi: api.Family_AFI_L2VPN, Safi: api.Family_SAFI_EVPN}
	case c.Peer.Is4():
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}

// pool keeps started servers. StartBgp writes package variables that all other
// servers read, always with the same values but unlocked; so that this is rare,
// poolStep servers are started at once (about 120 kB each), and used again after a session ends.
type pool struct {
	mu   sync.Mutex
	idle []*gobgp
}

const poolStep = 16

// servers is one for the process, because GoBGP's variables are.
var servers pool

// reserve makes sure that n servers are idle.
func (p *pool) reserve(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reserveLocked(n)
}

func (p *pool) reserveLocked(n int) error {
	if n <= len(p.idle) {
		return nil
	}
	for n = max(n, poolStep); len(p.idle) < n; {
		g, err := newGoBGP()
		if err != nil {
			return err
		}
		p.idle = append(p.idle, g)
	}
	return nil
}

// get takes a server and gives it its identity.
func (p *pool) get(as uint32, id netip.Addr) (*gobgp, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.reserveLocked(1); err != nil {
		return nil, err
	}
	last := len(p.idle) - 1
	g := p.idle[last]
	p.idle = p.idle[:last]
	return g, setIdentity(g.BgpServer, as, id)
}

// put takes back a server whose neighbour is deleted.
func (p *pool) put(g *gobgp) {
	g.watch.Store(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, g)
}
