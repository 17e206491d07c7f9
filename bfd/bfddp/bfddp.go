// Package bfddp is the protocol between FRR's BFD daemon and a data plane that
// runs its sessions ("distributed BFD", bfdd --dplaneaddr), as FRR's
// bfddp_packet.h has it. It is pure: octets in and out, no sockets.
//
// A message is a header and a body, numbers in network order:
//
//	 0         1         2                   4                   6
//	+---------+---------+-------------------+-------------------+-------------------+
//	| Version |    0    |       Type        |        ID         | Length, with this |
//	+---------+---------+-------------------+-------------------+-------------------+
//
// ID pairs an answer with its question; what nobody has asked for has 0.
package bfddp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"msee/bfd"
)

// Port is FRR's default (TCP), whichever side listens.
const Port = 50700

// Versions that are known. The second appends to a session what segment
// routing needs; a daemon takes no answer of another version than its own.
const (
	minVersion = 1
	maxVersion = 2
)

// Type is what a message is.
type Type uint16

const (
	EchoRequest     Type = iota // either side
	EchoReply                   // either side
	AddSession                  // daemon: add or change
	DeleteSession               // daemon
	StateChange                 // data plane
	RequestCounters             // daemon
	SessionCounters             // data plane
	typeCount       = iota
)

func (t Type) String() string {
	if int(t) < typeCount {
		return [...]string{"echo request", "echo reply", "add session", "delete session", "state change",
			"request counters", "session counters"}[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// Message is a message; of the bodies, that of its Type counts.
type Message struct {
	Version  uint8
	Type     Type
	ID       uint16
	Echo     Echo     // EchoRequest, EchoReply
	Session  Session  // AddSession, DeleteSession
	Change   Change   // StateChange
	Discr    uint32   // RequestCounters: of the session
	Counters Counters // SessionCounters
}

// Echo times the way to the other side and back; each side fills in its own
// clock, in whatever unit.
type Echo struct{ DataPlane, Daemon uint64 }

// Flags of a session.
type Flags uint32

const (
	Multihop Flags = 1 << iota
	Demand
	ControlIndependent // the C bit
	EchoMode           // send echoes
	IPv6
	Passive
	Shutdown // AdminDown
)

// Session is a session that the daemon wants.
type Session struct {
	Flags            Flags
	Local, Peer      netip.Addr // Local is unspecified if the daemon does not know it
	Discr            uint32     // ours on the wire, and the session's name here
	MinTx, MinRx     time.Duration
	EchoTx, EchoRx   time.Duration
	HoldTime         time.Duration // to wait before the start
	MinTTL           uint8
	DetectMult       uint8
	InterfaceIndex   uint32 // 0: not known
	Interface        string // "": not known
	Mode, Encap      uint8  // version 2; not 0: seamless BFD, segment routing
	KnownRemoteDiscr uint32 // version 2, seamless BFD
}

// Change tells the daemon how a session is now.
type Change struct {
	Discr, RemoteDiscr       uint32
	RemoteControlIndependent bool
	RemoteDemand             bool
	RemoteMinTx, RemoteMinRx time.Duration
	RemoteMinEchoRx          time.Duration
	State                    bfd.State // ours
	RemoteDiag               bfd.Diag
	RemoteDetectMult         uint8
}

// Count is how much went one way.
type Count struct{ Bytes, Packets uint64 }

// Counters are a session's.
type Counters struct {
	Discr           uint32
	In, Out         Count
	EchoIn, EchoOut Count
}

// Lengths, in octets.
const (
	headerLen    = 8
	echoLen      = 16
	sessionLen   = 132 // of version 1
	sessionLen2  = 348
	changeLen    = 28 // the last octet pads
	requestLen   = 4
	countersLen  = 72 // with four that pad, as 64-bit compilers have it
	interfaceLen = 64
	// MaxLen bounds a message: what is longer is none.
	MaxLen = 1024
)

// Bits of a change's remote flags.
const (
	remoteControlIndependent = 1 << iota
	remoteDemand
)

// ErrMalformed is what errors of Parse are.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Parse reads the first message of a stream. It returns its length, or 0 if b
// does not hold all of it. With an error the stream is of no more use.
func Parse(b []byte) (m Message, n int, err error) {
	if len(b) < headerLen {
		return m, 0, nil
	}
	m.Version, m.Type, m.ID = b[0], Type(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint16(b[4:])
	length := int(binary.BigEndian.Uint16(b[6:]))
	switch {
	case m.Version < minVersion || m.Version > maxVersion:
		return m, 0, malformed("version %d; want %d to %d", m.Version, minVersion, maxVersion)
	case m.Type >= typeCount:
		return m, 0, malformed("type %d; want 0 to %d", m.Type, typeCount-1)
	case length > MaxLen || length < headerLen+bodyLen(m.Version, m.Type):
		return m, 0, malformed("%v of %d octets; want %d to %d", m.Type, length, headerLen+bodyLen(m.Version, m.Type), MaxLen)
	case len(b) < length:
		return m, 0, nil
	}
	body := b[headerLen:length]
	switch m.Type {
	case EchoRequest, EchoReply:
		m.Echo = Echo{binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])}
	case AddSession, DeleteSession:
		m.Session = parseSession(body, m.Version)
	case StateChange:
		m.Change = parseChange(body)
	case RequestCounters:
		m.Discr = binary.BigEndian.Uint32(body)
	case SessionCounters:
		m.Counters = parseCounters(body)
	}
	return m, length, nil
}

// bodyLen is the least that a message's body has.
func bodyLen(version uint8, t Type) int {
	switch t {
	case EchoRequest, EchoReply:
		return echoLen
	case AddSession, DeleteSession:
		if version == 1 {
			return sessionLen
		}
		return sessionLen2
	case StateChange:
		return changeLen
	case RequestCounters:
		return requestLen
	default:
		return countersLen
	}
}

func parseSession(b []byte, version uint8) Session {
	s := Session{
		Flags:  Flags(binary.BigEndian.Uint32(b)),
		Discr:  binary.BigEndian.Uint32(b[36:]),
		MinTx:  microseconds(b[40:]),
		MinRx:  microseconds(b[44:]),
		EchoTx: microseconds(b[48:]), EchoRx: microseconds(b[52:]),
		HoldTime: time.Duration(binary.BigEndian.Uint32(b[56:])) * time.Millisecond,
		MinTTL:   b[60], DetectMult: b[61],
		InterfaceIndex: binary.BigEndian.Uint32(b[64:]),
	}
	s.Local, s.Peer = parseAddr(b[4:20], s.Flags), parseAddr(b[20:36], s.Flags)
	name := b[68 : 68+interfaceLen]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	s.Interface = string(name)
	if version > 1 {
		s.Mode, s.Encap = b[132], b[133]
		s.KnownRemoteDiscr = binary.BigEndian.Uint32(b[136:])
	}
	return s
}

// parseAddr reads an address; one of IPv4 is in the first four octets.
func parseAddr(b []byte, f Flags) netip.Addr {
	if f&IPv6 != 0 {
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.AddrFrom4([4]byte(b))
}

func parseChange(b []byte) Change {
	flags := binary.BigEndian.Uint32(b[8:])
	return Change{
		Discr: binary.BigEndian.Uint32(b), RemoteDiscr: binary.BigEndian.Uint32(b[4:]),
		RemoteControlIndependent: flags&remoteControlIndependent != 0,
		RemoteDemand:             flags&remoteDemand != 0,
		RemoteMinTx:              microseconds(b[12:]), RemoteMinRx: microseconds(b[16:]), RemoteMinEchoRx: microseconds(b[20:]),
		State: bfd.State(b[24]), RemoteDiag: bfd.Diag(b[25]), RemoteDetectMult: b[26],
	}
}

func parseCounters(b []byte) Counters {
	count := func(at int) Count {
		return Count{binary.BigEndian.Uint64(b[at:]), binary.BigEndian.Uint64(b[at+8:])}
	}
	return Counters{Discr: binary.BigEndian.Uint32(b), In: count(8), Out: count(24), EchoIn: count(40), EchoOut: count(56)}
}

// Append appends the message to b.
func (m *Message) Append(b []byte) []byte {
	at := len(b)
	b = append(b, m.Version, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type))
	b = binary.BigEndian.AppendUint16(b, m.ID)
	b = binary.BigEndian.AppendUint16(b, 0) // the length, below
	switch m.Type {
	case EchoRequest, EchoReply:
		b = binary.BigEndian.AppendUint64(b, m.Echo.DataPlane)
		b = binary.BigEndian.AppendUint64(b, m.Echo.Daemon)
	case AddSession, DeleteSession:
		b = m.Session.append(b, m.Version)
	case StateChange:
		b = m.Change.append(b)
	case RequestCounters:
		b = binary.BigEndian.AppendUint32(b, m.Discr)
	case SessionCounters:
		b = binary.BigEndian.AppendUint32(b, m.Counters.Discr)
		b = append(b, 0, 0, 0, 0)
		for _, c := range [...]Count{m.Counters.In, m.Counters.Out, m.Counters.EchoIn, m.Counters.EchoOut} {
			b = binary.BigEndian.AppendUint64(b, c.Bytes)
			b = binary.BigEndian.AppendUint64(b, c.Packets)
		}
	}
	binary.BigEndian.PutUint16(b[at+6:], uint16(len(b)-at))
	return b
}

func (s *Session) append(b []byte, version uint8) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(s.Flags))
	b = appendAddr(appendAddr(b, s.Local), s.Peer)
	b = binary.BigEndian.AppendUint32(b, s.Discr)
	for _, d := range [...]time.Duration{s.MinTx, s.MinRx, s.EchoTx, s.EchoRx} {
		b = appendMicroseconds(b, d)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(s.HoldTime/time.Millisecond))
	b = append(b, s.MinTTL, s.DetectMult, 0, 0)
	b = binary.BigEndian.AppendUint32(b, s.InterfaceIndex)
	var name [interfaceLen]byte
	copy(name[:], s.Interface)
	b = append(b, name[:]...)
	if version > 1 {
		b = append(b, s.Mode, s.Encap, 0, 0)
		b = binary.BigEndian.AppendUint32(b, s.KnownRemoteDiscr)
		b = append(b, make([]byte, sessionLen2-sessionLen-8)...)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	var octets [16]byte
	copy(octets[:], a.AsSlice())
	return append(b, octets[:]...)
}

func (c *Change) append(b []byte) []byte {
	var flags uint32
	if c.RemoteControlIndependent {
		flags |= remoteControlIndependent
	}
	if c.RemoteDemand {
		flags |= remoteDemand
	}
	b = binary.BigEndian.AppendUint32(b, c.Discr)
	b = binary.BigEndian.AppendUint32(b, c.RemoteDiscr)
	b = binary.BigEndian.AppendUint32(b, flags)
	for _, d := range [...]time.Duration{c.RemoteMinTx, c.RemoteMinRx, c.RemoteMinEchoRx} {
		b = appendMicroseconds(b, d)
	}
	return append(b, uint8(c.State), uint8(c.RemoteDiag), c.RemoteDetectMult, 0)
}

func microseconds(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func appendMicroseconds(b []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
}
