package mka

import (
	"encoding/hex"
	"fmt"
	"time"

	"msee/macsec"
)

// The times of 802.1X-2020 table 9-3.
const (
	// HelloTime is the pace of MKPDUs when there is nothing to tell.
	HelloTime = 2 * time.Second
	// BoundedHelloTime is the least that Config.Hello may be.
	BoundedHelloTime = 500 * time.Millisecond
	// LifeTime is how long a peer lives that is not heard.
	LifeTime = 6 * time.Second
	// RetireTime is how long the old SAK is still received after all send
	// with the new one.
	RetireTime = 3 * time.Second
)

// MI is a member identifier: random, of one life of a participant
// (802.1X-2020 §9.4.2).
type MI [12]byte

func (m MI) String() string { return hex.EncodeToString(m[:]) }

// MarshalText implements encoding.TextMarshaler.
func (m MI) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MI) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(m) {
		return fmt.Errorf("member identifier %q: want %d hex digits", text, 2*len(m))
	}
	_, err := hex.Decode(m[:], text)
	return err
}

// CKN is a CAK's name, which is no secret: 1 to 32 octets.
type CKN []byte

func (c CKN) String() string { return hex.EncodeToString(c) }

// MarshalText implements encoding.TextMarshaler.
func (c CKN) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CKN) UnmarshalText(text []byte) (err error) {
	*c, err = hex.DecodeString(string(text))
	return err
}

// KI identifies a SAK: by its key server and that one's count of SAKs (§9.8).
// The zero value is none.
type KI struct {
	Server MI     `json:"server"`
	Number uint32 `json:"number"`
}

func (k KI) String() string {
	if k == (KI{}) {
		return "none"
	}
	return fmt.Sprintf("%s/%d", k.Server, k.Number)
}

// Capability is what of MACsec a station can do (§11.11.2).
type Capability uint8

const (
	CapabilityNone      Capability = iota // no MACsec
	CapabilityIntegrity                   // integrity only
	CapabilityOffset0                     // and confidentiality with offset 0
	CapabilityOffsets                     // and with offsets 30 and 50
)

// MarshalText implements encoding.TextMarshaler.
func (c Capability) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Capability) UnmarshalText(text []byte) error {
	for v := CapabilityNone; v <= CapabilityOffsets; v++ {
		if v.String() == string(text) {
			*c = v
			return nil
		}
	}
	return fmt.Errorf("MACsec capability %q is unknown", text)
}

func (c Capability) String() string {
	if c > CapabilityOffsets {
		return fmt.Sprintf("capability %d", uint8(c))
	}
	return [...]string{"none", "integrity", "confidentiality, offset 0", "confidentiality, offsets 0, 30, 50"}[c]
}

// needed is the capability that a confidentiality offset asks of a station.
func needed(c macsec.Confidentiality) Capability {
	return [...]Capability{CapabilityIntegrity, CapabilityOffset0, CapabilityOffsets, CapabilityOffsets}[c]
}
