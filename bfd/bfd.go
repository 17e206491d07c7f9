// Package bfd is Bidirectional Forwarding Detection: packets, the session's
// state machine, its timers and authentication (RFC 5880), as used on a single
// hop (RFC 5881).
//
// It is pure: no sockets, no clock, no goroutines. Time is an argument, a
// duration since any fixed moment that never runs backwards. A Session belongs
// to whoever calls it and is not safe for concurrent use.
//
// Left out: demand mode of our own (a peer's is honoured), and sending echoes
// (answering them needs no session).
package bfd

import "fmt"

// State is a session's state (RFC 5880 §4.1); the numbers are the wire's.
type State uint8

const (
	AdminDown State = iota
	Down
	Init
	Up
	stateCount = iota
)

func (s State) String() string {
	if int(s) < stateCount {
		return [...]string{"admin-down", "down", "init", "up"}[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText makes a state its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(b []byte) error {
	for n := range State(stateCount) {
		if n.String() == string(b) {
			*s = n
			return nil
		}
	}
	return fmt.Errorf("BFD state %q is none", b)
}

// Diag says why a session was last taken from Up or kept from it (RFC 5880
// §4.1); the numbers are the wire's, of which there are 32.
type Diag uint8

const (
	DiagNone Diag = iota
	DiagTimeExpired
	DiagEchoFailed
	DiagNeighborDown
	DiagForwardingReset
	DiagPathDown
	DiagConcatenatedPathDown
	DiagAdminDown
	DiagReverseConcatenatedPathDown
	diagCount = iota
)

var diagNames = [diagCount]string{
	DiagNone:                        "none",
	DiagTimeExpired:                 "control detection time expired",
	DiagEchoFailed:                  "echo function failed",
	DiagNeighborDown:                "neighbor signaled session down",
	DiagForwardingReset:             "forwarding plane reset",
	DiagPathDown:                    "path down",
	DiagConcatenatedPathDown:        "concatenated path down",
	DiagAdminDown:                   "administratively down",
	DiagReverseConcatenatedPathDown: "reverse concatenated path down",
}

func (d Diag) String() string {
	if int(d) < diagCount {
		return diagNames[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// MarshalText makes a diagnostic its name in JSON.
func (d Diag) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Diag) UnmarshalText(b []byte) error {
	for n := range Diag(32) {
		if n.String() == string(b) {
			*d = n
			return nil
		}
	}
	return fmt.Errorf("BFD diagnostic %q is none", b)
}

// Ports of single-hop BFD (RFC 5881 §4, §5).
const (
	ControlPort   = 3784
	EchoPort      = 3785
	MinSourcePort = 49152 // a control packet's; RFC 5881 §4
	HopLimit      = 255   // of every packet, and so proof that it has crossed no router
)

// SourcePort is the port that a session's control packets come from, always the same
// and within the range of RFC 5881 §4.
func SourcePort(discriminator uint32) uint16 {
	return MinSourcePort + uint16(discriminator%(1<<16-MinSourcePort))
}
