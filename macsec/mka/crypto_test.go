package mka

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCMAC runs the examples of RFC 4493 §4 and NIST SP 800-38B appendix D,
// whole and in parts of every length.
func TestCMAC(t *testing.T) {
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"+
		"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for _, c := range []struct {
		key string
		n   int // octets of message
		mac string
	}{
		{"2b7e151628aed2a6abf7158809cf4f3c", 0, "bb1d6929e95937287fa37d129b756746"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 16, "070a16b46b4d4144f79bdd9dd04a287c"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 40, "dfa66747de9ae63030ca32611497c827"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 64, "51f0bebf7e3b9d92fc49741779363cfe"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 0, "028962f61b7bf89efc6b551f4667d983"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 16, "28a7023f452e8f82bd4bf28d8c37c35c"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 40, "aaf3d8f1de5640c232f5b169b9c911e6"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 64, "e1992190549f6ed5696a2c056c315410"},
	} {
		key, want := unhex(t, c.key), unhex(t, c.mac)
		for cut := 0; cut <= c.n; cut++ {
			if got := cmac(key, message[:cut], message[cut:c.n]); !bytes.Equal(got[:], want) {
				t.Errorf("AES-%d, %d octets in %d and %d: %x, want %x", 8*len(key), c.n, cut, c.n-cut, got, want)
			}
		}
	}
}

// TestKeyWrap runs the examples of RFC 3394 §4 for the lengths that MKA uses.
func TestKeyWrap(t *testing.T) {
	for _, c := range []struct{ kek, key, wrapped string }{
		{"000102030405060708090A0B0C0D0E0F", "00112233445566778899AABBCCDDEEFF",
			"1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", "00112233445566778899AABBCCDDEEFF",
			"64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
			"00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	} {
		kek, key, want := unhex(t, c.kek), unhex(t, c.key), unhex(t, c.wrapped)
		wrapped := wrapKey(kek, key)
		if !bytes.Equal(wrapped, want) {
			t.Errorf("wrap of %x: %x, want %x", key, wrapped, want)
		}
		if got, err := unwrapKey(kek, want); err != nil || !bytes.Equal(got, key) {
			t.Errorf("unwrap of %x: %x, %v, want %x", want, got, err, key)
		}
		for i := range want {
			bad := bytes.Clone(want)
			bad[i] ^= 1
			if _, err := unwrapKey(kek, bad); !errors.Is(err, errUnwrap) {
				t.Fatalf("unwrap with octet %d changed: %v, want %v", i, err, errUnwrap)
			}
		}
	}
	for n := range 24 {
		if _, err := unwrapKey(make([]byte, 16), make([]byte, n)); err == nil {
			t.Errorf("unwrap of %d octets: no error", n)
		}
	}
}

// TestKDFLengths checks that a longer key is no continuation of a shorter one,
// as the length is part of the input (802.1X-2020 §6.2.1).
func TestKDFLengths(t *testing.T) {
	for _, cak := range []int{16, 32} {
		key := bytes.Repeat([]byte{7}, cak)
		long, short := kdf(key, "IEEE8021 SAK", []byte("context"), 32), kdf(key, "IEEE8021 SAK", []byte("context"), 16)
		if len(long) != 32 || len(short) != 16 || bytes.Equal(long[:16], short) {
			t.Errorf("CAK of %d octets: %x and %x", cak, long, short)
		}
	}
}
