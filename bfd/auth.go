package bfd

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// AuthType is how a session authenticates its packets; the numbers are the
// wire's (RFC 5880 §4.1).
type AuthType uint8

const (
	AuthNone AuthType = iota
	AuthPassword
	AuthKeyedMD5
	AuthMeticulousMD5
	AuthKeyedSHA1
	AuthMeticulousSHA1
	authCount = iota
)

var authNames = [authCount]string{
	AuthNone:           "none",
	AuthPassword:       "simple-password",
	AuthKeyedMD5:       "keyed-md5",
	AuthMeticulousMD5:  "meticulous-keyed-md5",
	AuthKeyedSHA1:      "keyed-sha1",
	AuthMeticulousSHA1: "meticulous-keyed-sha1",
}

func (t AuthType) String() string {
	if int(t) < authCount {
		return authNames[t]
	}
	return fmt.Sprintf("authentication type %d", uint8(t))
}

// ParseAuthType returns the type of that name.
func ParseAuthType(name string) (AuthType, bool) {
	for t, n := range authNames {
		if n == name {
			return AuthType(t), true
		}
	}
	return 0, false
}

// MaxSecret is the longest secret of that type, octets.
func (t AuthType) MaxSecret() int {
	if t == AuthKeyedSHA1 || t == AuthMeticulousSHA1 {
		return sha1.Size
	}
	return md5.Size
}

func (t AuthType) meticulous() bool { return t == AuthMeticulousMD5 || t == AuthMeticulousSHA1 }

// Auth is a session's authentication. The zero value is none.
type Auth struct {
	Type AuthType
	// Keys are accepted all; the first signs what we send. A key is changed by
	// adding the new one behind on both sides, then moving it to the front.
	Keys []Key
}

// Key is a shared secret and the identifier that packets name it by.
type Key struct {
	ID     uint8
	Secret []byte // 1 to Type.MaxSecret octets
}

// Lengths of authentication sections (RFC 5880 §4.3, §4.4): type, length, key
// identifier, reserved, sequence number, digest.
const (
	digestAt = 8
	md5Len   = digestAt + md5.Size
	sha1Len  = digestAt + sha1.Size
)

// sectionLen is the length of the section that we send.
func (a *Auth) sectionLen() int {
	switch a.Type {
	case AuthNone:
		return 0
	case AuthPassword:
		return 3 + len(a.Keys[0].Secret)
	case AuthKeyedMD5, AuthMeticulousMD5:
		return md5Len
	default:
		return sha1Len
	}
}

// appendSection completes the packet that begins at b[at] with its
// authentication section.
func (a *Auth) appendSection(b []byte, at int, sequence uint32) []byte {
	if a.Type == AuthNone {
		return b
	}
	key := &a.Keys[0]
	b = append(b, uint8(a.Type), uint8(a.sectionLen()), key.ID)
	if a.Type == AuthPassword {
		return append(b, key.Secret...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, sequence)
	digest := len(b)
	for range a.sectionLen() - digestAt {
		b = append(b, 0)
	}
	d, n := a.digest(b[at:], digest-at, key)
	copy(b[digest:], d[:n])
	return b
}

// digest hashes a packet with the key where the digest will be (RFC 5880
// §6.7.3, §6.7.4). It leaves packet as it was.
func (a *Auth) digest(packet []byte, at int, key *Key) (d [sha1.Size]byte, n int) {
	var buf [MaxLen]byte
	b := buf[:copy(buf[:], packet)]
	clear(b[at:])
	copy(b[at:], key.Secret)
	if a.Type == AuthKeyedMD5 || a.Type == AuthMeticulousMD5 {
		sum := md5.Sum(b)
		return d, copy(d[:], sum[:])
	}
	d = sha1.Sum(b)
	return d, sha1.Size
}

// sequenceWindow is what an authenticated session remembers of its peer's
// sequence numbers (RFC 5880 §6.8.1, bfd.RcvAuthSeq and bfd.AuthSeqKnown).
type sequenceWindow struct {
	known bool
	last  uint32
}

// verify authenticates a packet (RFC 5880 §6.7). The window moves only if all
// of it holds.
func (a *Auth) verify(p *Packet, w *sequenceWindow) Reason {
	if p.AuthPresent != (a.Type != AuthNone) {
		return AuthMismatch
	}
	if a.Type == AuthNone {
		return Accepted
	}
	s := p.Raw[headerLen:]
	if AuthType(s[0]) != a.Type || int(s[1]) != len(s) {
		return AuthMismatch
	}
	if len(s) < 3 {
		return BadLength
	}
	key := a.key(s[2])
	if a.Type == AuthPassword {
		switch {
		case key == nil:
			return AuthUnknownKey
		case subtle.ConstantTimeCompare(s[3:], key.Secret) != 1:
			return AuthFailed
		}
		return Accepted
	}
	if len(s) != a.sectionLen() {
		return AuthMismatch
	}
	if key == nil {
		return AuthUnknownKey
	}
	sequence := binary.BigEndian.Uint32(s[4:])
	if w.known {
		// Circular distance: a number from the past is a huge step ahead.
		step := sequence - w.last
		if step > 3*uint32(p.DetectMult) || step == 0 && a.Type.meticulous() {
			return AuthSequence
		}
	}
	d, n := a.digest(p.Raw, headerLen+digestAt, key)
	if subtle.ConstantTimeCompare(d[:n], s[digestAt:]) != 1 {
		return AuthFailed
	}
	w.known, w.last = true, sequence
	return Accepted
}

func (a *Auth) key(id uint8) *Key {
	for i := range a.Keys {
		if a.Keys[i].ID == id {
			return &a.Keys[i]
		}
	}
	return nil
}
