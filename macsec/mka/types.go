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

// KI identifies a SAK: by its key server and that one's count of SAKs (§9.8).
// The zero value is none.
type KI struct {
	Server MI
	Number uint32
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
