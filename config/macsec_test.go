package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"msee/macsec"
)

// withMACsec returns the file of an MSEE whose port has a section macsec.
func withMACsec(section string) string {
	return "device: {name: e, role: primary}\nports:\n  - name: l\n    device: d\n    macsec:\n" +
		"      " + strings.ReplaceAll(strings.TrimSpace(section), "\n", "\n      ") + "\n"
}

const mkaSection = `
cipher: GcmAesXpn256
sciState: Enabled
replayWindow: 64
keyServerPriority: 0
rekeySeconds: 3600
keyChain:
  - {cknSecretIdentifier: "env:CKN1", cakSecretIdentifier: "env:CAK1"}
  - {cknSecretIdentifier: "env:CKN2", cakSecretIdentifier: "env:CAK2", startTime: "2026-01-02T15:04:05+01:00"}
fallback:
  cknSecretIdentifier: credential:ckn
  cakSecretIdentifier: file:/run/cak
`

const staticSection = `
cipher: GcmAesXpn128
confidentialityOffset: None
staticKeys:
  transmit: {an: 1, sakSecretIdentifier: "env:S1", ssci: 1, salt: 0a1b2c3d4e5f60718293a4b5, packetNumber: 7}
  receive:
    - {sci: "0250560000010001", an: 2, sakSecretIdentifier: "env:S2", ssci: 2, salt: b5a49382716050f4e3d2c1b0}
`

const (
	ckn1 = "00112233"
	ckn2 = "00112234"
	ckn3 = "ff"
	cak1 = "0123456789abcdef0123456789abcdef"
	cak2 = "f123456789abcdef0123456789abcdeff123456789abcdef0123456789abcdef"
)

// vault is where the tests' secrets are.
func vault(id string) ([]byte, error) {
	s, ok := map[string]string{
		"env:CKN1": ckn1 + "\n", "env:CAK1": " " + cak1, "env:CKN2": ckn2, "env:CAK2": cak2,
		"credential:ckn": ckn3, "file:/run/cak": cak1, "env:S1": cak1, "env:S2": cak1, "env:ODD": "012", "env:TEXT": "geheim",
	}[id]
	if !ok {
		return nil, errors.New("no such secret")
	}
	return []byte(s), nil
}

func TestMACsec(t *testing.T) {
	d, err := parse("f", []byte(withMACsec(mkaSection)), outside{secrets: vault})
	if err != nil {
		t.Fatal(err)
	}
	m := d.Ports[0].MACsec
	if m.Cipher != macsec.GCMAESXPN256 || m.Confidentiality != macsec.Confidentiality0 || !m.SendSCI || m.ReplayWindow != 64 ||
		m.KeyServerPriority != 0 || m.Rekey != time.Hour || m.Static != nil || len(m.Keys) != 3 {
		t.Errorf("%+v", m)
	}
	second := time.Date(2026, 1, 2, 14, 4, 5, 0, time.UTC)
	if k := m.Keys[0]; string(k.CKN) != "\x00\x11\x22\x33" || len(k.CAK) != 16 || !k.Start.IsZero() || k.Fallback || k.Name != "keyChain[0]" {
		t.Errorf("first key %q %d %v", k.Name, len(k.CAK), k.Start)
	}
	if k := m.Keys[1]; len(k.CAK) != 32 || !k.Start.Equal(second) {
		t.Errorf("second key %v", k.Start)
	}
	if k := m.Keys[2]; !k.Fallback || string(k.CKN) != "\xff" || k.Name != "fallback" {
		t.Errorf("fallback %+v", k)
	}

	d, err = parse("f", []byte(withMACsec(staticSection)), outside{secrets: vault})
	if err != nil {
		t.Fatal(err)
	}
	m = d.Ports[0].MACsec
	if m.Confidentiality != macsec.IntegrityOnly || m.SendSCI || m.Static.Transmit.PN != 7 || m.Static.Transmit.SSCI != 1 ||
		len(m.Static.Receive) != 1 || m.Static.Receive[0].SCI != 0x0250560000010001 || m.Static.Receive[0].PN != 1 || m.Static.Receive[0].AN != 2 {
		t.Errorf("%+v", m.Static)
	}

	d, err = parse("f", []byte(withMACsec(`{cknSecretIdentifier: "env:CKN1", cakSecretIdentifier: "env:CAK1"}`)), outside{secrets: vault})
	if err != nil {
		t.Fatal(err)
	}
	if m = d.Ports[0].MACsec; m.Cipher != macsec.GCMAES128 || m.KeyServerPriority != 16 || len(m.Keys) != 1 || m.Keys[0].Name != "primary" {
		t.Errorf("defaults: %+v", m)
	}
}

// TestMACsecFaults: each names the key and what would be right.
func TestMACsecFaults(t *testing.T) {
	keys := "\ncknSecretIdentifier: env:CKN1\ncakSecretIdentifier: env:CAK1\n"
	static := func(transmit string) string {
		return "staticKeys: {transmit: {an: 0, " + transmit + "}, receive: [{an: 0, sakSecretIdentifier: \"env:S1\", sci: \"0250560000010001\"}]}"
	}
	for _, c := range []struct{ section, want string }{
		{"cipher: aes" + keys, "not a value of cipher"},
		{"cipher: GcmAes256", "macsec.cknSecretIdentifier: missing"},
		{"cipher: GcmAesXpn128\nconfidentialityOffset: 30" + keys, "not with an XPN cipher"},
		{"confidentialityOffset: 40" + keys, "want 0, 30, 50 or None"},
		{"cipher: GcmAesXpn128\nreplayWindow: 1073741824" + keys, "want 0 to 1073741823"},
		{"replayWindow: 4294967296" + keys, "want 0 to 4294967295"},
		{"keyServerPriority: 256" + keys, "want 0 to 255"},
		{"rekeySeconds: 3" + keys, "10 seconds or more"},
		{"cknSecretIdentifier: 00112233aa\ncakSecretIdentifier: env:CAK1", "want file:PATH, env:VARIABLE or credential:NAME"},
		{"cknSecretIdentifier: file:ckn\ncakSecretIdentifier: env:CAK1", "a relative path"},
		{"cknSecretIdentifier: credential:../ckn\ncakSecretIdentifier: env:CAK1", "not the name of a credential"},
		{"cknSecretIdentifier: env:NONE\ncakSecretIdentifier: env:CAK1", "cannot be read: no such secret"},
		{"cknSecretIdentifier: env:ODD\ncakSecretIdentifier: env:CAK1", "not hexadecimal"},
		{"cknSecretIdentifier: env:CKN1\ncakSecretIdentifier: env:CKN2", "has 8 hexadecimal digits"},
		{"cknSecretIdentifier: env:CAK2\ncakSecretIdentifier: env:TEXT", "not hexadecimal"},
		{"keyChain: []", "at least one item"},
		{"keyChain: [{cknSecretIdentifier: \"env:CKN1\", cakSecretIdentifier: \"env:CAK1\"}]" + keys, "beside a keyChain"},
		{"keyChain: [{cknSecretIdentifier: \"env:CKN1\", cakSecretIdentifier: \"env:CAK1\"}, {cknSecretIdentifier: \"env:CKN2\", cakSecretIdentifier: \"env:CAK2\"}]", "not later"},
		{"keyChain: [{cknSecretIdentifier: \"env:CKN1\", cakSecretIdentifier: \"env:CAK1\", startTime: tomorrow}]", "not a time"},
		{"fallback: {cknSecretIdentifier: \"env:CKN1\", cakSecretIdentifier: \"env:CAK2\"}" + keys, "fallback has the CKN of primary"},
		{static("sakSecretIdentifier: \"env:S1\", ssci: 1"), "belongs to XPN ciphers"},
		{"cipher: GcmAesXpn128\n" + static("sakSecretIdentifier: \"env:S1\""), "ssci: missing"},
		{"cipher: GcmAesXpn128\n" + static("sakSecretIdentifier: \"env:S1\", ssci: 1, salt: \"00\""), "want 24 hexadecimal digits"},
		{"cipher: GcmAes256\n" + static("sakSecretIdentifier: \"env:S1\""), "want 64 hexadecimal digits with GcmAes256"},
		{static("sakSecretIdentifier: \"env:S1\", packetNumber: 0"), "want 1 to 4294967295"},
		{static("sakSecretIdentifier: \"env:S1\", packetNumber: 4294967296"), "want 1 to 4294967295"},
		{static("sakSecretIdentifier: \"env:S1\"") + "\nkeyServerPriority: 1", "belongs to MKA"},
		{"staticKeys: {transmit: {an: 4, sakSecretIdentifier: \"env:S1\"}, receive: [{an: 0, sakSecretIdentifier: \"env:S1\", sci: \"02:50\"}]}", "not an SCI"},
		{"staticKeys: {transmit: {an: 0, sakSecretIdentifier: \"env:S1\"}}", "receive: missing"},
	} {
		_, err := parse("f", []byte(withMACsec(c.section)), outside{secrets: vault})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v\nwant a fault with %q", c.section, err, c.want)
		}
		if err != nil {
			for _, secret := range []string{ckn1, cak1, cak2, "geheim"} {
				if strings.Contains(err.Error(), secret) && !strings.Contains(c.section, secret) {
					t.Errorf("%s:\n%v\ntells a secret", c.section, err)
				}
			}
		}
	}
}

// TestMACsecSecretsAreNotPrinted, whatever prints a device or its changes.
func TestMACsecSecretsAreNotPrinted(t *testing.T) {
	a, err := parse("f", []byte(withMACsec(mkaSection)), outside{secrets: vault})
	if err != nil {
		t.Fatal(err)
	}
	b, err := parse("f", []byte(withMACsec(staticSection)), outside{secrets: vault})
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal([]*Device{a, b})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %v %+v %#v %s %v", a.Ports[0].MACsec, a.Ports[0].MACsec.Keys, a.Ports[0].MACsec.Keys,
		b.Ports[0].MACsec.Static, b.Ports[0].MACsec.Static, b.Ports[0].MACsec.Static, asJSON, Diff(a, b))
	for _, secret := range []string{cak1, "\x01\x23\x45\x67\x89", "0x01, 0x23", "\\u0001#Eg", "[1 35 69"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in\n%s", secret, text)
		}
	}
	if changes := Diff(a, b); len(changes) != 1 || !strings.Contains(changes[0].String(), "Key") {
		t.Errorf("changes %v", changes)
	}
}

// TestSecretFiles: whose file is whose.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", 0o400, cak1)
	if b, err := readSecret("file:" + good); err != nil || string(b) != cak1 {
		t.Errorf("%q, %v", b, err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if b, err := readSecret("credential:good"); err != nil || string(b) != cak1 {
		t.Errorf("credential: %q, %v", b, err)
	}
	t.Setenv("MSEE_TEST_KEY", cak1)
	if b, err := readSecret("env:MSEE_TEST_KEY"); err != nil || string(b) != cak1 {
		t.Errorf("environment: %q, %v", b, err)
	}
	for name, c := range map[string]struct{ id, want string }{
		"readable by all":     {"file:" + file("all", 0o444, cak1), "chmod 0400"},
		"writable by a group": {"file:" + file("group", 0o620, cak1), "chmod 0400"},
		"a directory":         {"file:" + dir, "not a file"},
		"not there":           {"file:" + dir + "/none", "no such file"},
		"too long":            {"file:" + file("long", 0o400, strings.Repeat("0", 5000)), "4096"},
		"no variable":         {"env:MSEE_TEST_NONE", "no variable MSEE_TEST_NONE"},
	} {
		b, err := readSecret(c.id)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(fmt.Sprint(err), cak1) {
			t.Errorf("%s: %q, %v; want %q", name, b, err, c.want)
		}
	}
	os.Unsetenv("CREDENTIALS_DIRECTORY")
	if _, err := readSecret("credential:good"); err == nil || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("without systemd: %v", err)
	}
	if os.Geteuid() == 0 {
		path := file("other", 0o400, cak1)
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecret("file:" + path); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("another user's: %v", err)
		}
	}
}
