package macsec

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// EtherType announces a SecTAG (802.1AE-2018 table 9-1).
const EtherType = 0x88e5

// Lengths in octets.
const (
	macsLen   = 12 // destination and source address, in front of the SecTAG
	tagLen    = 8  // SecTAG with its EtherType, without SCI
	tagLenSCI = 16
	ICVLen    = 16
	minSecure = 48 // of secure data; less is told by SL (§9.7)

)

// Overhead is how much a frame grows at most when it is sealed: in front by
// HeaderOverhead, behind by ICVLen.
const (
	HeaderOverhead = tagLenSCI
	Overhead       = HeaderOverhead + ICVLen
)

// Bits of the TCI (§9.5); the two low bits are the AN.
const (
	tciVersion = 0x80 // must be 0
	tciES      = 0x40 // end station: the SCI is the source address with port 1
	tciSC      = 0x20 // the SCI is in the SecTAG
	tciSCB     = 0x10 // EPON single copy broadcast: port 0
	tciE       = 0x08 // encrypted
	tciC       = 0x04 // changed: the user data are not readable as they are
	maskAN     = 0x03
	maskSL     = 0x3f
)

// SCI identifies a secure channel: a station's MAC address and a port number
// (§8.2.1).
type SCI uint64

// Port numbers that a SecTAG without SCI implies (§9.9).
const (
	portES  = 1
	portSCB = 0
)

// NewSCI returns the identifier of the channel from a station's port.
func NewSCI(mac [6]byte, port uint16) SCI {
	return SCI(binary.BigEndian.Uint64([]byte{mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], byte(port >> 8), byte(port)}))
}

// MAC returns the station's address.
func (s SCI) MAC() [6]byte {
	b := s.Bytes()
	return [6]byte(b[:6])
}

// Port returns the port number.
func (s SCI) Port() uint16 { return uint16(s) }

// Bytes returns the SCI as it stands in a SecTAG or an MKPDU.
func (s SCI) Bytes() (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], uint64(s))
	return b
}

// String returns e.g. "025056000001/0001".
func (s SCI) String() string {
	b := s.Bytes()
	return hex.EncodeToString(b[:6]) + "/" + hex.EncodeToString(b[6:])
}

// MarshalText implements encoding.TextMarshaler.
func (s SCI) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SCI) UnmarshalText(text []byte) error {
	var b [8]byte
	if len(text) != 17 || text[12] != '/' {
		return fmt.Errorf("SCI %q: want 12 hex digits, a slash, 4 hex digits", text)
	}
	if _, err := hex.Decode(b[:6], text[:12]); err != nil {
		return fmt.Errorf("SCI %q: %w", text, err)
	}
	if _, err := hex.Decode(b[6:], text[13:]); err != nil {
		return fmt.Errorf("SCI %q: %w", text, err)
	}
	*s = SCI(binary.BigEndian.Uint64(b[:]))
	return nil
}

// SecTAG is the tag of a protected frame.
type SecTAG struct {
	TCI byte   // without the AN
	AN  uint8  // 0 to 3
	SL  uint8  // octets of secure data if fewer than 48, else 0
	PN  uint32 // the low half of it with extended packet numbering
	SCI SCI    // with tciSC; else what the tag implies, 0 if nothing
	Len int    // octets, with the EtherType
}

// parseSecTAG reads the tag of a frame and checks it as §9.12 says, but for
// the length of what follows. A frame whose EtherType is another has none.
func parseSecTAG(frame []byte) (t SecTAG, fault Outcome) {
	if len(frame) < macsLen+2 || binary.BigEndian.Uint16(frame[macsLen:]) != EtherType {
		return t, NoTag
	}
	if len(frame) < macsLen+tagLen {
		return t, BadTag
	}
	b := frame[macsLen:]
	t.TCI, t.AN, t.SL = b[2]&^maskAN, b[2]&maskAN, b[3]
	t.PN = binary.BigEndian.Uint32(b[4:])
	t.Len = tagLen
	switch {
	case t.TCI&tciVersion != 0, t.SL >= minSecure: // bits 7 and 8 of SL included
		return t, BadTag
	case t.TCI&(tciE|tciC) == tciE: // reserved for the KaY (§9.5)
		return t, BadTag
	case t.TCI&tciSC != 0:
		if t.TCI&(tciES|tciSCB) != 0 || len(frame) < macsLen+tagLenSCI {
			return t, BadTag
		}
		t.SCI = SCI(binary.BigEndian.Uint64(b[tagLen:]))
		t.Len = tagLenSCI
	case t.TCI&tciSCB != 0:
		t.SCI = NewSCI([6]byte(frame[6:12]), portSCB)
	case t.TCI&tciES != 0:
		t.SCI = NewSCI([6]byte(frame[6:12]), portES)
	}
	return t, OK
}

// put writes the tag with its EtherType to b, which must hold t.Len octets.
func (t *SecTAG) put(b []byte) {
	_ = b[tagLen-1] // BCE
	binary.BigEndian.PutUint16(b, EtherType)
	b[2], b[3] = t.TCI|t.AN, t.SL
	binary.BigEndian.PutUint32(b[4:], t.PN)
	if t.TCI&tciSC != 0 {
		binary.BigEndian.PutUint64(b[tagLen:], uint64(t.SCI))
	}
}
