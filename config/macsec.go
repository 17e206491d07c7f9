package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"msee/circuit"
	"msee/macsec"
)

// MACsec is what protects a port: keys for MKA, or static ones.
type MACsec struct {
	Cipher            macsec.CipherSuite
	Confidentiality   macsec.Confidentiality
	SendSCI           bool // sciState
	ReplayWindow      uint32
	KeyServerPriority uint8
	Rekey             time.Duration // life of a SAK; 0: until its packet numbers run out
	Keys              []MACsecKey   // for MKA: keyChain's in their order, then the fallback
	Static            *StaticKeys   // instead of MKA; nil if there is MKA
}

// MACsecKey is a connectivity association key.
type MACsecKey struct {
	Name     string // "primary", "keyChain[0]", "fallback", for messages
	CKN      Secret
	CAK      Secret
	Fallback bool
	Start    time.Time // zero: always
}

// StaticKeys are SAKs without MKA.
type StaticKeys struct {
	Transmit StaticSA
	Receive  []StaticSA
}

// StaticSA is one secure association of StaticKeys.
type StaticSA struct {
	SCI  macsec.SCI // of the peer; 0 for Transmit, whose SCI is the port's
	AN   uint8
	SAK  Secret
	SSCI uint32 // XPN
	Salt macsec.Salt
	PN   uint64 // the first, or the lowest acceptable
}

// Secret is the content of a key. Nothing prints it; Device.Wipe overwrites it.
type Secret []byte

// String implements fmt.Stringer, GoString fmt.GoStringer.
func (s Secret) String() string {
	if len(s) == 0 {
		return ""
	}
	return "(secret)"
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Bytes returns a copy of the key.
func (s Secret) Bytes() []byte { return slices.Clone(s) }

// Wipe overwrites the MACsec keys of d, which must not be used from then on.
func (d *Device) Wipe() {
	for _, p := range d.Ports {
		if p.MACsec == nil {
			continue
		}
		for _, k := range p.MACsec.Keys {
			clear(k.CAK)
		}
		if s := p.MACsec.Static; s != nil {
			clear(s.Transmit.SAK)
			for _, sa := range s.Receive {
				clear(sa.SAK)
			}
		}
	}
}

// ciphers are Azure's names of the cipher suites.
var ciphers = map[string]macsec.CipherSuite{
	"GcmAes128": macsec.GCMAES128, "GcmAes256": macsec.GCMAES256,
	"GcmAesXpn128": macsec.GCMAESXPN128, "GcmAesXpn256": macsec.GCMAESXPN256,
}

// CipherName returns Azure's name of a cipher suite.
func CipherName(c macsec.CipherSuite) string {
	for name, suite := range ciphers {
		if suite == c {
			return name
		}
	}
	return ""
}

// Defaults of a KaY, as wpa_supplicant and most routers have them.
const defaultKeyServerPriority = 16

// macsec reads the section macsec of a port.
func (r *reader) macsec(o *object) *MACsec {
	s, ok := o.section("macsec", optional, "cipher and keys")
	if !ok {
		return nil
	}
	defer s.done()
	m := &MACsec{}
	m.Cipher = ciphers[word(s, "cipher", optional, "GcmAes128", "GcmAes256", "GcmAesXpn128", "GcmAesXpn256")]
	m.SendSCI = word(s, "sciState", optional, "Disabled", "Enabled") == "Enabled"
	m.Confidentiality = r.confidentiality(s, m.Cipher)
	m.ReplayWindow = uint32(value(s, "replayWindow", optional, number, checkRange("replay window", 0, replayMax(m.Cipher))))
	if s.has("staticKeys") {
		for _, key := range []string{"cknSecretIdentifier", "cakSecretIdentifier", "keyChain", "fallback", "keyServerPriority", "rekeySeconds"} {
			if s.has(key) {
				s.get(key, optional, "")
				r.fault(s.child(key), "", "belongs to MKA", "no such key beside staticKeys")
			}
		}
		m.Static = r.staticKeys(s, m.Cipher)
		return m
	}
	m.KeyServerPriority = defaultKeyServerPriority
	if n := value(s, "keyServerPriority", optional, number, checkRange("priority", 0, 255)); s.has("keyServerPriority") {
		m.KeyServerPriority = uint8(n)
	}
	m.Rekey = time.Duration(value(s, "rekeySeconds", optional, number, checkRekey)) * time.Second
	r.mkaKeys(s, m)
	return m
}

// confidentiality reads how much is encrypted. Azure encrypts everything, and
// has no key for it.
func (r *reader) confidentiality(o *object, c macsec.CipherSuite) macsec.Confidentiality {
	conf := map[string]macsec.Confidentiality{
		"0": macsec.Confidentiality0, "30": macsec.Confidentiality30, "50": macsec.Confidentiality50, "None": macsec.IntegrityOnly,
	}[offsetWord(o)]
	if c.XPN() && conf > macsec.Confidentiality0 {
		r.fault(o.child("confidentialityOffset"), "", "not with an XPN cipher (802.1AE-2018 §14.7)", "0 or None")
	}
	return conf
}

// offsetWord reads the offset, which is a number to YAML if not in quotes.
func offsetWord(o *object) string {
	quoteNumber(o, "confidentialityOffset")
	return word(o, "confidentialityOffset", optional, "0", "30", "50", "None")
}

func replayMax(c macsec.CipherSuite) int64 {
	if c.XPN() {
		return macsec.MaxReplayWindowXPN
	}
	return 1<<32 - 1
}

// checkRange checks a number.
func checkRange(what string, least, most int64) func(int64) *circuit.Violation {
	return func(n int64) *circuit.Violation {
		if n < least || n > most {
			return &circuit.Violation{Problem: what + " out of range", Want: fmt.Sprintf("%d to %d", least, most)}
		}
		return nil
	}
}

func checkRekey(n int64) *circuit.Violation {
	if n != 0 && n < 10 || n < 0 || n > 1e8 {
		return &circuit.Violation{Problem: "life of a SAK out of range", Want: "10 seconds or more, or 0 for until its packet numbers run out"}
	}
	return nil
}

// mkaKeys reads primary, key chain and fallback.
func (r *reader) mkaKeys(o *object, m *MACsec) {
	chain := o.has("keyChain")
	if !chain {
		if k, ok := r.mkaKey(o, "primary"); ok {
			m.Keys = append(m.Keys, k)
		}
	} else {
		for _, key := range []string{"cknSecretIdentifier", "cakSecretIdentifier"} {
			if o.has(key) {
				o.get(key, optional, "")
				r.fault(o.child(key), "", "beside a keyChain", "the key as an item of keyChain")
			}
		}
		o.objects("keyChain", required, func(k *object) {
			key, ok := r.mkaKey(k, strings.TrimPrefix(k.path, o.path+"."))
			key.Start = startTime(k)
			if n := len(m.Keys); ok && n > 0 && !key.Start.After(m.Keys[n-1].Start) {
				r.fault(k.child("startTime"), "", "not later than that of the key before", "keys in the order of their start times")
			}
			if ok {
				m.Keys = append(m.Keys, key)
			}
		})
	}
	if f, ok := o.section("fallback", optional, "cknSecretIdentifier and cakSecretIdentifier"); ok {
		if k, ok := r.mkaKey(f, "fallback"); ok {
			k.Fallback = true
			m.Keys = append(m.Keys, k)
		}
		f.done()
	}
	for i, k := range m.Keys {
		first := slices.IndexFunc(m.Keys, func(other MACsecKey) bool { return bytes.Equal(other.CKN, k.CKN) })
		if first < i && len(k.CKN) > 0 {
			r.fault(o.path, "", k.Name+" has the CKN of "+m.Keys[first].Name, "a CKN of its own for every key")
		}
	}
}

func (r *reader) mkaKey(o *object, name string) (MACsecKey, bool) {
	ckn, ok1 := r.key(o, "cknSecretIdentifier", "a CKN", checkCKN)
	cak, ok2 := r.key(o, "cakSecretIdentifier", "a CAK", checkCAK)
	return MACsecKey{Name: name, CKN: ckn, CAK: cak}, ok1 && ok2
}

func checkCKN(octets int) string {
	if octets < 1 || octets > 32 {
		return "2 to 64 hexadecimal digits, an even number of them"
	}
	return ""
}

// checkCAK takes either length with any cipher, as MKA does. Azure wants 32
// digits with 128-bit ciphers, 64 with the others.
func checkCAK(octets int) string {
	if octets != 16 && octets != 32 {
		return "32 or 64 hexadecimal digits"
	}
	return ""
}

// startTime reads when a key comes into force; without one it always was.
func startTime(o *object) time.Time {
	const want = "a time like 2026-01-02T15:04:05Z, in quotes"
	s := value(o, "startTime", optional, text, func(s string) *circuit.Violation {
		if _, err := time.Parse(time.RFC3339, s); err != nil && s != "" {
			return &circuit.Violation{Problem: "not a time", Want: want}
		}
		return nil
	})
	at, _ := time.Parse(time.RFC3339, s)
	return at.UTC()
}

var sciForm = regexp.MustCompile(`^[0-9a-fA-F]{16}$`)

// staticKeys reads SAKs for a port without MKA.
func (r *reader) staticKeys(o *object, c macsec.CipherSuite) *StaticKeys {
	s, ok := o.section("staticKeys", required, "transmit and receive")
	if !ok {
		return nil
	}
	defer s.done()
	k := &StaticKeys{}
	if t, ok := s.section("transmit", required, "an and sakSecretIdentifier"); ok {
		k.Transmit = r.staticSA(t, c)
		t.done()
	}
	seen := registry{}
	s.objects("receive", required, func(t *object) {
		sa := r.staticSA(t, c)
		sci := value(t, "sci", required, text, func(s string) *circuit.Violation {
			if !sciForm.MatchString(s) {
				return &circuit.Violation{Problem: "not an SCI", Want: "16 hexadecimal digits: MAC address and port, as 0250560000010001"}
			}
			return nil
		})
		if b, err := hex.DecodeString(sci); err == nil && len(b) == 8 {
			sa.SCI = macsec.NewSCI([6]byte(b), uint16(b[6])<<8|uint16(b[7]))
			r.unique(seen, fmt.Sprintf("%s AN %d", sa.SCI, sa.AN), t.child("sci"), "secure association")
		}
		k.Receive = append(k.Receive, sa)
	})
	return k
}

func (r *reader) staticSA(o *object, c macsec.CipherSuite) StaticSA {
	sa := StaticSA{PN: 1}
	sa.AN = uint8(value(o, "an", required, number, checkRange("AN", 0, 3)))
	sa.SAK, _ = r.key(o, "sakSecretIdentifier", "a SAK", func(octets int) string {
		if octets != c.KeyLen() {
			return fmt.Sprintf("%d hexadecimal digits with %s", 2*c.KeyLen(), CipherName(c))
		}
		return ""
	})
	most := int64(1<<32 - 1)
	if c.XPN() {
		most = 1<<63 - 1
	}
	if n := value(o, "packetNumber", optional, number, func(n int64) *circuit.Violation {
		if n == 0 && !o.has("packetNumber") {
			return nil
		}
		return checkRange("packet number", 1, most)(n)
	}); n != 0 {
		sa.PN = uint64(n)
	}
	if !c.XPN() {
		for _, key := range []string{"ssci", "salt"} {
			if o.has(key) {
				o.get(key, optional, "")
				r.fault(o.child(key), "", "belongs to XPN ciphers", "no such key with "+CipherName(c))
			}
		}
		return sa
	}
	sa.SSCI = uint32(value(o, "ssci", required, number, checkRange("SSCI", 1, 1<<32-1)))
	salt := value(o, "salt", required, text, func(s string) *circuit.Violation {
		if b, err := hex.DecodeString(s); err != nil || len(b) != 12 {
			return &circuit.Violation{Problem: "not a salt", Want: "24 hexadecimal digits"}
		}
		return nil
	})
	if b, err := hex.DecodeString(salt); err == nil && len(b) == 12 {
		sa.Salt = macsec.Salt(b)
	}
	return sa
}

// key reads the identifier of a secret and, unless only the form is checked,
// the secret, which is in hexadecimal digits. Messages tell the identifier, and
// never the content.
func (r *reader) key(o *object, name, what string, check func(octets int) string) (Secret, bool) {
	id := value(o, name, required, text, checkSecretIdentifier)
	if id == "" || r.secrets == nil {
		return nil, id != ""
	}
	path := o.child(name)
	content, err := r.secrets(id)
	if err != nil {
		r.fault(path, quote(id), "cannot be read: "+err.Error(), what)
		return nil, false
	}
	defer clear(content)
	digits := bytes.TrimSpace(content)
	b := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(b, digits); err != nil {
		clear(b)
		r.fault(path, quote(id), "its content is not hexadecimal", what+": "+check(0))
		return nil, false
	}
	if want := check(len(b)); want != "" {
		r.fault(path, quote(id), fmt.Sprintf("its content has %d hexadecimal digits", 2*len(b)), want)
		clear(b)
		return nil, false
	}
	return Secret(b), true
}

// checkSecretIdentifier checks the form of an identifier. Azure's are URLs of
// Key Vault secrets.
func checkSecretIdentifier(s string) *circuit.Violation {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || name == "" || kind != "file" && kind != "env" && kind != "credential" {
		return &circuit.Violation{Problem: "not a secret's identifier", Want: "file:PATH, env:VARIABLE or credential:NAME (of systemd)"}
	}
	if kind == "file" && !strings.HasPrefix(name, "/") {
		return &circuit.Violation{Problem: "a relative path", Want: "file:/PATH"}
	}
	if kind == "credential" && strings.ContainsAny(name, "/\x00") {
		return &circuit.Violation{Problem: "not the name of a credential", Want: "a name without slashes"}
	}
	return nil
}

// inventory lists all fields of m for Diff; keys are compared, not shown.
func (m *MACsec) inventory(f *fields) {
	for _, name := range []string{"Cipher", "Confidentiality", "SendSCI", "ReplayWindow", "KeyServerPriority", "Rekey", secretField} {
		v := ""
		if m != nil {
			v = map[string]string{
				"Cipher": CipherName(m.Cipher), "Confidentiality": m.Confidentiality.String(), "SendSCI": fmt.Sprint(m.SendSCI),
				"ReplayWindow": fmt.Sprint(m.ReplayWindow), "KeyServerPriority": fmt.Sprint(m.KeyServerPriority), "Rekey": m.Rekey.String(),
				secretField: m.keysText(),
			}[name]
		}
		f.add(name, v)
	}
}

// keysText is a text that differs if the keys do: a digest of them.
func (m *MACsec) keysText() string {
	b := sha256.New()
	for _, k := range m.Keys {
		fmt.Fprintf(b, "%s %x %x %v %v;", k.Name, []byte(k.CKN), sha256.Sum256(k.CAK), k.Fallback, k.Start)
	}
	if m.Static != nil {
		for _, sa := range append([]StaticSA{m.Static.Transmit}, m.Static.Receive...) {
			fmt.Fprintf(b, "%v %d %x %d %x %d;", sa.SCI, sa.AN, sha256.Sum256(sa.SAK), sa.SSCI, sa.Salt, sa.PN)
		}
	}
	return hex.EncodeToString(b.Sum(nil))
}

var errSecretTooLong = errors.New("more than 4096 octets")
