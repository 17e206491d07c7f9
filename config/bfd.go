package config

import (
	"fmt"
	"time"

	"msee/circuit"
)

// BFD is how a session's neighbor is watched (RFC 5880). It is comparable; the
// zero value watches nothing.
type BFD struct {
	Interval   time.Duration // desired min TX and required min RX; 0: no BFD
	Multiplier int
	// Strict lets no traffic or session pass before BFD is up.
	Strict bool
	// HoldDown is how long BFD must be up again before a session that goes down
	// again and again is let up; it doubles each time.
	HoldDown  time.Duration
	AuthType  string // bfd's name of it; "" for none
	AuthKeyID uint8
	AuthKey   string // never printed
}

// Azure's intervals (300 ms, three times), and what we can do.
const (
	defaultBFDInterval, minBFDInterval, maxBFDInterval = 300, 10, 30000 // milliseconds
	defaultBFDMultiplier, maxBFDMultiplier             = 3, 255
	defaultBFDHoldDown, maxBFDHoldDown                 = 1, 300 // seconds
)

// bfdKeys is what the device's section bfd says, for others to build on: what it
// is like and, apart from that, whether it is on.
type bfdKeys struct {
	BFD
	off bool
}

func defaultBFD() bfdKeys {
	return bfdKeys{BFD: BFD{Interval: defaultBFDInterval * time.Millisecond, Multiplier: defaultBFDMultiplier,
		HoldDown: defaultBFDHoldDown * time.Second}}
}

// session is the BFD of a session with these keys.
func (k bfdKeys) session() BFD {
	if k.off {
		return BFD{}
	}
	return k.BFD
}

const (
	stateEnabled  = "Enabled"
	stateDisabled = "Disabled"
)

// deviceBFD reads the section bfd of the device: what holds for all sessions,
// and Device.BFDDaemonPort.
func (r *reader) deviceBFD(o *object) (c bfdKeys, daemonPort int) {
	b, ok := o.section("bfd", optional, "intervals")
	if !ok {
		return defaultBFD(), 0
	}
	c = r.bfdKeys(b, defaultBFD())
	daemonPort = int(value(b, "dataPlanePort", optional, number, between("a TCP port", "", 1, 65535)))
	b.done()
	return c, daemonPort
}

// bfd reads the section bfd of a part of the device; what it does not say is as
// in base.
func (r *reader) bfd(o *object, base bfdKeys) BFD {
	b, ok := o.section("bfd", optional, "intervals")
	if !ok {
		return base.session()
	}
	defer b.done()
	return r.bfdKeys(b, base).session()
}

func (r *reader) bfdKeys(b *object, base bfdKeys) bfdKeys {
	c := base
	if state := word(b, "state", optional, stateEnabled, stateDisabled); b.has("state") {
		c.off = state == stateDisabled
	}
	if ms := value(b, "intervalMilliseconds", optional, number, between("an interval", "milliseconds", minBFDInterval, maxBFDInterval)); ms != 0 {
		c.Interval = time.Duration(ms) * time.Millisecond
	}
	if n := value(b, "multiplier", optional, number, between("a multiplier", "intervals", 1, maxBFDMultiplier)); n != 0 {
		c.Multiplier = int(n)
	}
	if strict := word(b, "strictMode", optional, stateDisabled, stateEnabled); b.has("strictMode") {
		c.Strict = strict == stateEnabled
	}
	if s := value(b, "holdDownSeconds", optional, number, between("a hold-down time", "seconds", 0, maxBFDHoldDown)); b.has("holdDownSeconds") {
		c.HoldDown = time.Duration(s) * time.Second
	}
	r.bfdAuthentication(b, &c.BFD)
	return c
}

// authTypes are RFC 5880's, as package bfd names them.
var authTypes = []string{"meticulous-keyed-sha1", "keyed-sha1", "meticulous-keyed-md5", "keyed-md5", "simple-password"}

func (r *reader) bfdAuthentication(b *object, c *BFD) {
	a, ok := b.section("authentication", optional, "type, keyId and key")
	if !ok {
		return
	}
	c.AuthType = word(a, "type", required, authTypes...)
	c.AuthKeyID = uint8(value(a, "keyId", required, number, between("a key identifier", "", 1, 255)))
	longest := 16
	if c.AuthType == "meticulous-keyed-sha1" || c.AuthType == "keyed-sha1" {
		longest = 20
	}
	if !a.has("key") {
		r.fault(a.child("key"), "", "missing", fmt.Sprintf("1 to %d characters", longest))
	}
	c.AuthKey = secret(a, "key", func(s string) *circuit.Violation {
		if len(s) < 1 || len(s) > longest {
			return &circuit.Violation{Problem: "a key of that length does not fit " + c.AuthType, Want: fmt.Sprintf("1 to %d characters", longest)}
		}
		return nil
	})
	a.done()
}

// between is the rule for a number with bounds.
func between(what, unit string, least, most int64) func(int64) *circuit.Violation {
	return func(n int64) *circuit.Violation {
		if n >= least && n <= most {
			return nil
		}
		want := fmt.Sprintf("%d to %d", least, most)
		if unit != "" {
			want += " " + unit
		}
		return &circuit.Violation{Problem: "not " + what + " we can do", Want: want}
	}
}

// String shows all but the key.
func (b BFD) String() string {
	if b.Interval == 0 {
		return "off"
	}
	s := fmt.Sprintf("%v × %d", b.Interval, b.Multiplier)
	if b.Strict {
		s += " strict"
	}
	s += fmt.Sprintf(" hold-down %v", b.HoldDown)
	if b.AuthType != "" || b.AuthKeyID != 0 {
		s += fmt.Sprintf(" %s key %d", b.AuthType, b.AuthKeyID)
	}
	return s
}

// MarshalText is String.
func (b BFD) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
