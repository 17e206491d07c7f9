// Package bgp is the routing side of a device: the sessions it wants, the
// routes it hears and says, the RIB that chooses among them and the policies of
// an MSEE. It is pure: sockets and the BGP state machine live in bgp/speaker,
// a process of its own.
package bgp

import (
	"net/netip"
	"time"

	"msee/bgp/evpn"
)

// ASNs of Azure's own routers.
const (
	ASMSEE    = 12076
	ASGateway = 65515
)

// SessionConfig is one wanted BGP session, as the speaker needs to know it.
type SessionConfig struct {
	Name        string // unique in the device
	Namespace   string // name of the network namespace (in /run/netns) that has the addresses; "" for the speaker's own
	Local, Peer netip.Addr
	LocalAS     uint32
	PeerAS      uint32
	RouterID    netip.Addr
	Key         string // TCP-MD5 (RFC 2385), "" for none
	Keepalive   time.Duration
	Hold        time.Duration
	// MinHold is the shortest hold time that is accepted from the peer.
	MinHold time.Duration
	// GracefulRestart keeps routes, the peer's here and ours there, while the
	// other end restarts (RFC 4724).
	GracefulRestart bool
	// TTLSecurity takes only packets that have crossed no router (RFC 5082).
	TTLSecurity bool
	// Multihop has packets cross routers.
	Multihop bool
	// EVPN has the session carry EVPN routes, and no others.
	EVPN    bool
	Enabled bool
}

// Hold keeps a session down: its peer is told with a Cease, its connection is
// closed, and none is made or taken until the hold is released.
type Hold struct {
	By      string // who holds it: one hold each, and only its maker releases it
	Cease   uint8  // the subcode to end the session with, one of Cease…
	Message string // to the peer's operator, with CeaseShutdown and CeaseReset only (RFC 9003)
	Why     string // to ours: the status's Reason while held
}

// Subcodes of Cease (RFC 4486, RFC 9384).
const (
	CeaseMaxPrefixes    = 1
	CeaseShutdown       = 2
	CeaseDeconfigured   = 3
	CeaseReset          = 4
	CeaseRejected       = 5
	CeaseConfigChange   = 6
	CeaseCollision      = 7
	CeaseOutOfResources = 8
	CeaseBFDDown        = 10
)

// Origin codes of RFC 4271 §4.3.
const (
	OriginIGP        = 0
	OriginEGP        = 1
	OriginIncomplete = 2
)

// Attrs are the path attributes this project looks at. They are shared by all
// routes of an UPDATE and never changed after they were made.
type Attrs struct {
	NextHop     netip.Addr
	MAC         evpn.MAC // of the router behind NextHop, where that is the end of a tunnel; else zero
	Origin      uint8
	ASPath      []uint32 // the AS_SEQUENCEs in one
	MED         uint32
	HasMED      bool
	Communities []uint32 // RFC 1997, in the order received
}

// Route is a prefix with its attributes.
type Route struct {
	Prefix netip.Prefix
	Attrs  *Attrs
}

// Update is a change of one session's Adj-RIB-In (from the speaker) or
// Adj-RIB-Out (to the speaker). An announcement replaces what the session had
// for that prefix.
type Update struct {
	Session  string
	Announce []Route
	Withdraw []netip.Prefix
}

// State is a session's FSM state (RFC 4271 §8.2.2), plus two of ours.
type State string

const (
	StateIdle        State = "Idle"
	StateConnect     State = "Connect"
	StateActive      State = "Active"
	StateOpenSent    State = "OpenSent"
	StateOpenConfirm State = "OpenConfirm"
	StateEstablished State = "Established"
	StateDisabled    State = "Disabled" // by configuration
	StateDown        State = "Down"     // the speaker is not running
)

// SessionStatus is what the speaker knows of a session.
type SessionStatus struct {
	Session string    `json:"session"`
	State   State     `json:"state"`
	Since   time.Time `json:"since"` // when this state was entered; zero if never
	// Reason says in words an operator can act on why the session is not
	// Established, or why it last went down ("" if neither): the NOTIFICATION,
	// the dial error, the kernel's TCP-MD5 rejections.
	Reason    string        `json:"reason,omitempty"`
	Hold      time.Duration `json:"hold"`      // negotiated, 0 unless Established
	Keepalive time.Duration `json:"keepalive"` // in use, 0 unless Established
	RemoteID  netip.Addr    `json:"remoteId"`
	LocalPort uint16        `json:"localPort"`
	PeerPort  uint16        `json:"peerPort"`
	Flaps     int           `json:"flaps"` // times it left Established
	// RestartTime is how long the peer asks that its routes be kept if it
	// restarts (RFC 4724); 0 unless Established and agreed upon.
	RestartTime time.Duration `json:"restartTime,omitempty"`
	// Retain says, after the session has left Established, that the peer may be
	// restarting: its routes are to be kept so long. 0: they are void.
	Retain time.Duration `json:"retain,omitempty"`
	// Preserved says, in Established, that the peer, if it has restarted, still
	// forwards as it did: what was kept of its routes may stay until End-of-RIB.
	Preserved bool `json:"preserved,omitempty"`
}

// Event is what the speaker tells the edge: exactly one field is set.
type Event struct {
	Update *Update
	EVPN   *evpn.Update // a change of an EVPN session's Adj-RIB-In
	Status *SessionStatus
	// EndOfRIB names the session whose initial table of a family is complete
	// (RFC 4724 §2).
	EndOfRIB string
	// Restarted says that a new speaker process is running and that its
	// sessions begin anew; the last one's Adj-RIB-Ins are stale.
	Restarted bool
}
