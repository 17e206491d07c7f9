package speaker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"msee/bgp"
)

// Message types and sizes of RFC 4271 §4.
const (
	headerLen  = 19
	maxMessage = 4096

	typeOpen         = 1
	typeNotification = 3
)

var errBadMessage = errors.New("malformed BGP message")

// open is what this package wants to know of an OPEN (RFC 4271 §4.2).
type open struct {
	as       uint32 // from the four-octet capability (RFC 6793) if there is one
	hold     time.Duration
	id       netip.Addr
	families []uint32 // AFI<<16 | SAFI (RFC 4760 §8); nil if the capability is absent
}

const (
	ipv4Unicast = 1<<16 | 1
	ipv6Unicast = 2<<16 | 1
)

// carries reports whether the sender of the OPEN will exchange that family; a
// speaker without the multiprotocol capability does IPv4 unicast only.
func (o *open) carries(family uint32) bool {
	for _, f := range o.families {
		if f == family {
			return true
		}
	}
	return o.families == nil && family == ipv4Unicast
}

// messageLen returns the whole length of the message that b begins with, 0 if
// b is too short to tell.
func messageLen(b []byte) (int, error) {
	if len(b) < headerLen {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(b[16:]))
	if n < headerLen || n > maxMessage {
		return 0, fmt.Errorf("%w: length %d", errBadMessage, n)
	}
	return n, nil
}

// parseOpen decodes a whole OPEN, header included.
func parseOpen(b []byte) (*open, error) {
	if len(b) < headerLen+10 || b[18] != typeOpen {
		return nil, errBadMessage
	}
	o := &open{
		as:   uint32(binary.BigEndian.Uint16(b[20:])),
		hold: time.Duration(binary.BigEndian.Uint16(b[22:])) * time.Second,
		id:   netip.AddrFrom4([4]byte(b[24:28])),
	}
	params := b[29:]
	if len(params) != int(b[28]) {
		return nil, fmt.Errorf("%w: parameters of %d bytes in %d", errBadMessage, b[28], len(params))
	}
	return o, o.parseParams(params)
}

// parseParams walks the optional parameters; only capabilities matter
// (RFC 5492 §4).
func (o *open) parseParams(p []byte) error {
	for len(p) > 0 {
		if len(p) < 2 || len(p) < 2+int(p[1]) {
			return fmt.Errorf("%w: truncated parameter", errBadMessage)
		}
		caps := p[2 : 2+int(p[1])]
		if p[0] == 2 {
			if err := o.parseCapabilities(caps); err != nil {
				return err
			}
		}
		p = p[2+int(p[1]):]
	}
	return nil
}

func (o *open) parseCapabilities(c []byte) error {
	for len(c) > 0 {
		if len(c) < 2 || len(c) < 2+int(c[1]) {
			return fmt.Errorf("%w: truncated capability", errBadMessage)
		}
		code, v := c[0], c[2:2+int(c[1])]
		switch {
		case code == 1 && len(v) == 4: // multiprotocol: AFI, reserved, SAFI
			o.families = append(o.families, uint32(binary.BigEndian.Uint16(v))<<16|uint32(v[3]))
		case code == 65 && len(v) == 4: // four-octet AS
			o.as = binary.BigEndian.Uint32(v)
		}
		c = c[2+int(c[1]):]
	}
	return nil
}

// notification is an error code, its subcode and data (RFC 4271 §4.5).
type notification struct {
	code, subcode uint8
	data          []byte
}

// parseNotification decodes a whole NOTIFICATION, header included.
func parseNotification(b []byte) (notification, error) {
	if len(b) < headerLen+2 || b[18] != typeNotification {
		return notification{}, errBadMessage
	}
	return notification{b[19], b[20], append([]byte(nil), b[21:]...)}, nil
}

// marshal encodes the whole message.
func (n notification) marshal() []byte {
	b := make([]byte, headerLen, headerLen+2+len(n.data))
	for i := range 16 {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint16(b[16:], uint16(headerLen+2+len(n.data)))
	b[18] = typeNotification
	return append(append(b, n.code, n.subcode), n.data...)
}

// NOTIFICATIONs this package sends itself (RFC 4486, RFC 4271 §6.2, §6.8).
var (
	ceaseShutdown     = notification{code: codeCease, subcode: bgp.CeaseShutdown}
	ceaseDeconfigured = notification{code: codeCease, subcode: bgp.CeaseDeconfigured}
	ceaseReset        = notification{code: codeCease, subcode: bgp.CeaseReset}
	ceaseConfig       = notification{code: codeCease, subcode: bgp.CeaseConfigChange}
	ceaseCollision    = notification{code: codeCease, subcode: bgp.CeaseCollision}
	badHoldTime       = notification{code: 2, subcode: 6}
)

const codeCease = 6

// maxShutdown is the longest message of RFC 9003 §2, in octets.
const maxShutdown = 255

// ceaseOf is the Cease that a hold begins with.
func ceaseOf(h bgp.Hold) notification {
	n := notification{code: codeCease, subcode: h.Cease}
	if h.Message != "" && (h.Cease == bgp.CeaseShutdown || h.Cease == bgp.CeaseReset) {
		m := h.Message[:min(len(h.Message), maxShutdown)]
		for !utf8.ValidString(m) && len(m) > 0 { // cut within a character
			m = m[:len(m)-1]
		}
		n.data = append([]byte{byte(len(m))}, m...)
	}
	return n
}

// errorNames are the codes of RFC 4271 §4.5, RFC 6608, RFC 7313 and their
// subcodes, those of Cease from RFC 4486, RFC 8538 and RFC 9384.
var errorNames = map[uint8]struct {
	name string
	sub  []string // index: subcode
}{
	1: {"message header error", []string{"", "connection not synchronized", "bad message length", "bad message type"}},
	2: {"OPEN error", []string{"", "unsupported version", "bad peer AS", "bad BGP identifier", "unsupported optional parameter", "", "unacceptable hold time", "unsupported capability"}},
	3: {"UPDATE error", []string{"", "malformed attribute list", "unrecognized well-known attribute", "missing well-known attribute", "attribute flags error", "attribute length error", "invalid ORIGIN", "", "invalid NEXT_HOP", "optional attribute error", "invalid network field", "malformed AS_PATH"}},
	4: {"hold timer expired", nil},
	5: {"FSM error", []string{"", "unexpected message in OpenSent", "unexpected message in OpenConfirm", "unexpected message in Established"}},
	6: {"Cease", []string{"", "maximum number of prefixes reached", "administrative shutdown", "peer de-configured", "administrative reset", "connection rejected", "other configuration change", "connection collision resolution", "out of resources", "hard reset", "BFD down"}},
	7: {"ROUTE-REFRESH error", []string{"", "invalid message length"}},
}

// String gives "Cease / administrative shutdown (6/2)", with the operator's
// message of RFC 9003 where there is one.
func (n notification) String() string {
	known, ok := errorNames[n.code]
	if !ok {
		return fmt.Sprintf("NOTIFICATION (%d/%d)", n.code, n.subcode)
	}
	s := known.name
	if int(n.subcode) < len(known.sub) && known.sub[n.subcode] != "" {
		s += " / " + known.sub[n.subcode]
	}
	s += fmt.Sprintf(" (%d/%d)", n.code, n.subcode)
	if n.code == codeCease && (n.subcode == bgp.CeaseShutdown || n.subcode == bgp.CeaseReset) {
		if m := shutdownMessage(n.data); m != "" {
			s += fmt.Sprintf(": %q", m)
		}
	}
	return s
}

// shutdownMessage is the text of RFC 9003 §2: a length octet and UTF-8.
func shutdownMessage(data []byte) string {
	if len(data) < 1 || int(data[0]) > len(data)-1 {
		return ""
	}
	m := data[1 : 1+int(data[0])]
	if !utf8.Valid(m) {
		return ""
	}
	return strings.TrimSpace(string(m))
}

// negotiate returns the timers of a session (RFC 4271 §4.2, §4.4): the smaller
// hold time, and the configured keepalive unless a third of it is due sooner.
func negotiate(hold, keepalive, peerHold time.Duration) (time.Duration, time.Duration) {
	if peerHold >= hold {
		return hold, keepalive
	}
	return peerHold, max(time.Second, (peerHold / 3).Truncate(time.Second))
}
