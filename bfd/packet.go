package bfd

import (
	"encoding/binary"
	"time"
)

// A control packet (RFC 5880 §4.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-----+---------+---+-+-+-+-+-+-+---------------+---------------+
//	|Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//	+-----+---------+---+-+-+-+-+-+-+---------------+---------------+
//	|                       My Discriminator                        |
//	|                      Your Discriminator                       |
//	|                    Desired Min TX Interval                    |  µs
//	|                   Required Min RX Interval                    |  µs
//	|                 Required Min Echo RX Interval                 |  µs
//	+---------------------------------------------------------------+
//	|   Auth Type   |   Auth Len    |    Authentication Data...     |  if A
const (
	version   = 1
	headerLen = 24
)

// MaxLen is the length of the longest packet that a session sends.
const MaxLen = headerLen + sha1Len

// Packet is a control packet as received. Auth points into the buffer that it
// was parsed from.
type Packet struct {
	Diag               Diag
	State              State
	Poll, Final        bool
	ControlIndependent bool // C: the sender's BFD survives its control plane
	AuthPresent        bool // A
	Demand             bool // D
	DetectMult         uint8
	My, Your           uint32 // discriminators
	DesiredMinTx       time.Duration
	RequiredMinRx      time.Duration
	RequiredMinEchoRx  time.Duration
	Raw                []byte // the whole packet, without what may follow its Length
}

// Reason is why a packet was not taken, or Accepted.
type Reason uint8

const (
	Accepted Reason = iota
	BadVersion
	BadLength         // shorter than its headers, or longer than its datagram
	BadMultiplier     // zero
	BadFlags          // multipoint, or poll and final in one
	BadMyDisc         // zero
	BadYourDisc       // zero in a state that knows ours
	UnknownSession    // nobody has that discriminator, or it is another neighbor's
	AuthMismatch      // one side authenticates and the other does not, or otherwise
	AuthUnknownKey    // a key identifier that we have not
	AuthSequence      // outside the window: a replay
	AuthFailed        // the digest or password is wrong
	AdminDownDiscards // the session is disabled here
	BadHopLimit       // not 255: it has crossed a router (RFC 5881 §5)
	BadChecksum       // of the UDP datagram
	RateLimited       // more than any sessions agree on
	reasonCount       = iota
)

// Reasons is the number of values of Reason.
const Reasons = reasonCount

var reasonNames = [reasonCount]string{
	Accepted:          "accepted",
	BadVersion:        "bad-version",
	BadLength:         "bad-length",
	BadMultiplier:     "bad-multiplier",
	BadFlags:          "bad-flags",
	BadMyDisc:         "bad-my-discriminator",
	BadYourDisc:       "bad-your-discriminator",
	UnknownSession:    "unknown-session",
	AuthMismatch:      "auth-mismatch",
	AuthUnknownKey:    "auth-unknown-key",
	AuthSequence:      "auth-sequence",
	AuthFailed:        "auth-failed",
	AdminDownDiscards: "admin-down",
	BadHopLimit:       "bad-hop-limit",
	BadChecksum:       "bad-checksum",
	RateLimited:       "rate-limited",
}

func (r Reason) String() string { return reasonNames[r] }

// Parse reads a control packet, in the order of RFC 5880 §6.8.6, as far as no
// session is needed.
func Parse(b []byte) (p Packet, r Reason) {
	if len(b) < headerLen {
		return p, BadLength
	}
	if b[0]>>5 != version {
		return p, BadVersion
	}
	flags := b[1]
	p = Packet{
		Diag:               Diag(b[0] & 0x1f),
		State:              State(flags >> 6),
		Poll:               flags&flagPoll != 0,
		Final:              flags&flagFinal != 0,
		ControlIndependent: flags&flagControlIndependent != 0,
		AuthPresent:        flags&flagAuth != 0,
		Demand:             flags&flagDemand != 0,
		DetectMult:         b[2],
		My:                 binary.BigEndian.Uint32(b[4:]),
		Your:               binary.BigEndian.Uint32(b[8:]),
		DesiredMinTx:       microseconds(b[12:]),
		RequiredMinRx:      microseconds(b[16:]),
		RequiredMinEchoRx:  microseconds(b[20:]),
	}
	length := int(b[3])
	least := headerLen
	if p.AuthPresent {
		least += 2
	}
	switch {
	case length < least || length > len(b):
		return p, BadLength
	case p.DetectMult == 0:
		return p, BadMultiplier
	case flags&flagMultipoint != 0, p.Poll && p.Final: // §4.1: never both
		return p, BadFlags
	case p.My == 0:
		return p, BadMyDisc
	case p.Your == 0 && p.State != Down && p.State != AdminDown:
		return p, BadYourDisc
	}
	p.Raw = b[:length]
	return p, Accepted
}

const (
	flagPoll               = 0x20
	flagFinal              = 0x10
	flagControlIndependent = 0x08
	flagAuth               = 0x04
	flagDemand             = 0x02
	flagMultipoint         = 0x01
)

// appendHeader appends the mandatory section. Length is that of the whole
// packet; what follows the header is the caller's.
func (p *Packet) appendHeader(b []byte, length int) []byte {
	flags := uint8(p.State) << 6
	for _, f := range [...]struct {
		set bool
		bit uint8
	}{{p.Poll, flagPoll}, {p.Final, flagFinal}, {p.ControlIndependent, flagControlIndependent},
		{p.AuthPresent, flagAuth}, {p.Demand, flagDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|uint8(p.Diag)&0x1f, flags, p.DetectMult, uint8(length))
	b = binary.BigEndian.AppendUint32(b, p.My)
	b = binary.BigEndian.AppendUint32(b, p.Your)
	b = appendMicroseconds(b, p.DesiredMinTx)
	b = appendMicroseconds(b, p.RequiredMinRx)
	return appendMicroseconds(b, p.RequiredMinEchoRx)
}

func microseconds(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func appendMicroseconds(b []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
}
