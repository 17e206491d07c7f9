package mka

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	icvLen   = 16 // of an MKPDU, whatever the CAK's length
	blockLen = aes.BlockSize
)

// cmac is AES-CMAC (NIST SP 800-38B, RFC 4493) of the concatenated parts; key
// has 16 or 32 octets.
func cmac(key []byte, parts ...[]byte) (mac [blockLen]byte) {
	block := newAES(key)
	k1, k2 := cmacSubkeys(block)
	n := 0 // octets of the block at hand that are xored into mac
	for _, part := range parts {
		for len(part) > 0 {
			if n == blockLen { // not the last block, as there is more
				block.Encrypt(mac[:], mac[:])
				n = 0
			}
			m := subtle.XORBytes(mac[n:], mac[n:], part)
			part, n = part[m:], n+m
		}
	}
	last := k1
	if n < blockLen {
		mac[n] ^= 0x80
		last = k2
	}
	subtle.XORBytes(mac[:], mac[:], last[:])
	block.Encrypt(mac[:], mac[:])
	return mac
}

// cmacSubkeys makes the masks of a last block that is whole (k1) or padded (k2).
func cmacSubkeys(block cipher.Block) (k1, k2 [blockLen]byte) {
	block.Encrypt(k1[:], k1[:])
	double(&k1)
	k2 = k1
	double(&k2)
	return k1, k2
}

// double multiplies b by x in GF(2¹²⁸).
func double(b *[blockLen]byte) {
	carry := b[0] >> 7
	for i := range blockLen - 1 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[blockLen-1] = b[blockLen-1]<<1 ^ carry*0x87
}

// newAES panics on a key of a wrong length: callers have checked it.
func newAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	return block
}

// kdf derives length octets from key (802.1X-2020 §6.2.1): AES-CMAC in counter
// mode over i ‖ label ‖ 0 ‖ context ‖ length in bits.
func kdf(key []byte, label string, context []byte, length int) []byte {
	bits := binary.BigEndian.AppendUint16(nil, uint16(8*length))
	var out []byte
	for i := byte(1); len(out) < length; i++ {
		mac := cmac(key, []byte{i}, []byte(label), []byte{0}, context, bits)
		out = append(out, mac[:]...)
	}
	return out[:length]
}

// deriveKEK and deriveICK make the keys that wrap SAKs and sign MKPDUs from a
// CAK (§9.3.3). They are as long as the CAK.
func deriveKEK(cak, ckn []byte) []byte { return kdf(cak, "IEEE8021 KEK", keyID(ckn), len(cak)) }
func deriveICK(cak, ckn []byte) []byte { return kdf(cak, "IEEE8021 ICK", keyID(ckn), len(cak)) }

// keyID is the first 16 octets of a CKN, padded with zeros (§9.3.3).
func keyID(ckn []byte) []byte {
	id := make([]byte, 16)
	copy(id, ckn)
	return id
}

// deriveSAK makes a SAK of the length of nonce, which must be fresh from a
// random number generator, for the live members (§9.8.1).
func deriveSAK(cak, nonce []byte, members []MI, kn uint32) []byte {
	context := append([]byte(nil), nonce...)
	for _, mi := range members {
		context = append(context, mi[:]...)
	}
	context = binary.BigEndian.AppendUint32(context, kn)
	return kdf(cak, "IEEE8021 SAK", context, len(nonce))
}

// wrapOverhead is what AES key wrap adds to a key, in octets.
const wrapOverhead = 8

var wrapIV = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// errUnwrap says that a wrapped key was made with another KEK, or altered.
var errUnwrap = errors.New("key wrap: integrity check failed")

// wrapKey is AES key wrap (RFC 3394 §2.2.1). key has a multiple of 8 octets,
// at least 16.
func wrapKey(kek, key []byte) []byte {
	block, n := newAES(kek), len(key)/8
	out := append(wrapIV[:len(wrapIV):len(wrapIV)], key...)
	var b [blockLen]byte
	copy(b[:8], out)
	for j := range 6 {
		for i := 1; i <= n; i++ {
			r := out[8*i : 8*i+8]
			copy(b[8:], r)
			block.Encrypt(b[:], b[:])
			copy(r, b[8:])
			t := uint64(n*j + i)
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^t)
		}
	}
	copy(out, b[:8])
	return out
}

// unwrapKey undoes wrapKey (RFC 3394 §2.2.2).
func unwrapKey(kek, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 16+wrapOverhead {
		return nil, fmt.Errorf("key wrap of %d octets: want a multiple of 8 from 24 on", len(wrapped))
	}
	block, n := newAES(kek), len(wrapped)/8-1
	key := append([]byte(nil), wrapped[8:]...)
	var b [blockLen]byte
	copy(b[:8], wrapped)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			r := key[8*i-8 : 8*i]
			t := uint64(n*j + i)
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^t)
			copy(b[8:], r)
			block.Decrypt(b[:], b[:])
			copy(r, b[8:])
		}
	}
	if subtle.ConstantTimeCompare(b[:8], wrapIV[:]) != 1 {
		clear(key)
		return nil, errUnwrap
	}
	return key, nil
}
