package macsec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// CipherSuite is one of 802.1AE-2018 table 14-1. The zero value is none.
type CipherSuite uint8

const (
	GCMAES128 CipherSuite = iota + 1
	GCMAES256
	GCMAESXPN128
	GCMAESXPN256
)

// suiteID is the identifier of GCM-AES-128; the others count on.
const suiteID = 0x0080c20001000001

// SuiteByID returns the cipher suite with an identifier as MKPDUs carry it.
func SuiteByID(id uint64) (CipherSuite, bool) {
	if id < suiteID || id > suiteID+3 {
		return 0, false
	}
	return GCMAES128 + CipherSuite(id-suiteID), true
}

// ID returns the suite's identifier.
func (c CipherSuite) ID() uint64 { return suiteID + uint64(c-GCMAES128) }

// Valid reports whether c is a cipher suite.
func (c CipherSuite) Valid() bool { return c >= GCMAES128 && c <= GCMAESXPN256 }

// KeyLen returns the length of its SAK in octets.
func (c CipherSuite) KeyLen() int {
	if c == GCMAES256 || c == GCMAESXPN256 {
		return 32
	}
	return 16
}

// XPN reports extended packet numbering, 64 bits rather than 32.
func (c CipherSuite) XPN() bool { return c == GCMAESXPN128 || c == GCMAESXPN256 }

// MaxPN is the last packet number.
func (c CipherSuite) MaxPN() uint64 {
	if c.XPN() {
		return 1<<64 - 1
	}
	return 1<<32 - 1
}

// PendingPNExhaustion is the packet number from which on the KaY must ask for
// a new SAK (802.1X-2020 §9.8).
func (c CipherSuite) PendingPNExhaustion() uint64 {
	if c.XPN() {
		return 0xc0000000_00000000
	}
	return 0xc0000000
}

func (c CipherSuite) String() string {
	if !c.Valid() {
		return "none"
	}
	return [...]string{"GCM-AES-128", "GCM-AES-256", "GCM-AES-XPN-128", "GCM-AES-XPN-256"}[c-GCMAES128]
}

// MarshalText implements encoding.TextMarshaler.
func (c CipherSuite) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CipherSuite) UnmarshalText(text []byte) error {
	for s := GCMAES128; s <= GCMAESXPN256; s++ {
		if s.String() == string(text) {
			*c = s
			return nil
		}
	}
	*c = 0
	return nil
}

// Confidentiality says how much of a frame is encrypted; the values are those
// of MKA's confidentiality offset (802.1X-2020 §11.11.3).
type Confidentiality uint8

const (
	IntegrityOnly     Confidentiality = iota // nothing is
	Confidentiality0                         // all user data are
	Confidentiality30                        // but for the first 30 octets: the IPv4 header
	Confidentiality50                        // but for the first 50 octets: the IPv6 header
)

// clear returns how many octets of user data stay readable.
func (c Confidentiality) clear() int { return [...]int{0, 0, 30, 50}[c] }

func (c Confidentiality) String() string {
	if c > Confidentiality50 {
		return "none"
	}
	return [...]string{"integrity-only", "encrypted", "encrypted, offset 30", "encrypted, offset 50"}[c]
}

// MarshalText implements encoding.TextMarshaler.
func (c Confidentiality) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Confidentiality) UnmarshalText(text []byte) error {
	for v := IntegrityOnly; v <= Confidentiality50; v++ {
		if v.String() == string(text) {
			*c = v
		}
	}
	return nil
}

// Salt is the part of an XPN suite's IV that all SAs of a SAK share.
type Salt [12]byte

// SAK is a secure association key with what belongs to it. The SecY expands
// the key and keeps no copy; Key stays the caller's to wipe.
type SAK struct {
	Suite           CipherSuite
	Confidentiality Confidentiality
	Key             []byte // Suite.KeyLen octets
	Salt            Salt   // XPN only
}

// check says what is wrong with k.
func (k *SAK) check() error {
	switch {
	case !k.Suite.Valid():
		return fmt.Errorf("cipher suite %d: want 1 to 4", k.Suite)
	case len(k.Key) != k.Suite.KeyLen():
		return fmt.Errorf("SAK of %d octets: %s takes %d", len(k.Key), k.Suite, k.Suite.KeyLen())
	case k.Confidentiality > Confidentiality50:
		return fmt.Errorf("confidentiality offset code %d: want 0 to 3", k.Confidentiality)
	case k.Suite.XPN() && k.Confidentiality.clear() != 0:
		return fmt.Errorf("confidentiality offset %d: %s takes none but 0 (802.1AE-2018 §14.7)", k.Confidentiality.clear(), k.Suite)
	}
	return nil
}

// association is what transmit and receive SAs have in common: a key, ready to
// use, for one channel.
type association struct {
	suite       CipherSuite
	conf        Confidentiality
	aead        cipher.AEAD
	fingerprint [32]byte // tells whether two SAs have the same key and IVs
	// nonce is the IV of the frame at hand. What does not change stays in
	// it: the SCI, or the SSCI under the salt (§14.5, §14.7).
	nonce [12]byte
	salt  uint64 // low part of it, under the packet number
	xpn   bool
}

// newAssociation expands the key of the SA of channel sci, whose short
// identifier is ssci with an XPN suite.
func newAssociation(k *SAK, sci SCI, ssci uint32) (a association, err error) {
	if err := k.check(); err != nil {
		return a, err
	}
	if k.Suite.XPN() && ssci == 0 {
		return a, fmt.Errorf("SSCI 0: %s wants one from 1 on", k.Suite)
	}
	block, err := aes.NewCipher(k.Key)
	if err != nil {
		return a, err
	}
	defer wipe(block)
	if a.aead, err = cipher.NewGCM(block); err != nil {
		return a, err
	}
	a.suite, a.conf, a.xpn = k.Suite, k.Confidentiality, k.Suite.XPN()
	if a.xpn {
		binary.BigEndian.PutUint32(a.nonce[:], binary.BigEndian.Uint32(k.Salt[:])^ssci)
		a.salt = binary.BigEndian.Uint64(k.Salt[4:])
	} else {
		binary.BigEndian.PutUint64(a.nonce[:], uint64(sci))
	}
	h := sha256.New()
	h.Write(k.Key)
	h.Write(a.nonce[:])
	h.Write(k.Salt[:])
	h.Sum(a.fingerprint[:0])
	return a, nil
}

// setPN completes the nonce for a packet number: SCI ‖ PN, or with XPN
// (SSCI ‖ PN) xor salt.
func (a *association) setPN(pn uint64) {
	if a.xpn {
		binary.BigEndian.PutUint64(a.nonce[4:], a.salt^pn)
	} else {
		binary.BigEndian.PutUint32(a.nonce[8:], uint32(pn))
	}
}

// wipe makes the association useless. Nobody may be using it.
func (a *association) wipe() {
	if a.aead != nil {
		wipe(a.aead)
		a.aead = nil
	}
	clear(a.nonce[:])
	a.salt = 0
}
