package speaker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"msee/bgp"
)

// Message types and sizes of RFC 4271 §4 and RFC 2918.
const (
	headerLen  = 19
	maxMessage = 4096

	typeOpen         = 1
	typeUpdate       = 2
	typeNotification = 3
	typeKeepalive    = 4
	typeRefresh      = 5
)

var errBadMessage = errors.New("malformed BGP message")

// errHeader is what is wrong with a message's header (RFC 4271 §6.1).
type errHeader struct {
	subcode uint8 // of message header error
	detail  string
}

func (e *errHeader) Error() string { return e.detail }

// open is what this package wants to know of an OPEN (RFC 4271 §4.2).
type open struct {
	version    uint8
	as         uint32 // from the four-octet capability (RFC 6793) if there is one
	as16       uint16 // of the fixed part
	fourOctets bool
	hold       time.Duration
	id         netip.Addr
	families   []uint32 // AFI<<16 | SAFI (RFC 4760 §8); nil if the capability is absent
	restart    *restart // nil: no graceful restart
}

// restart is the graceful restart capability (RFC 4724 §3).
type restart struct {
	restarting bool // the sender has restarted, and waits for nobody's End-of-RIB
	time       time.Duration
	families   []restartFamily
}

// restartFamily is a family whose forwarding state can be preserved, and was.
type restartFamily struct {
	family    uint32
	preserved bool
}

const (
	ipv4Unicast = 1<<16 | 1
	ipv6Unicast = 2<<16 | 1
	l2vpnEVPN   = 25<<16 | 70
)

// carries reports whether the sender of the OPEN will exchange that family; a
// speaker without the multiprotocol capability does IPv4 unicast only.
func (o *open) carries(family uint32) bool {
	return slices.Contains(o.families, family) || o.families == nil && family == ipv4Unicast
}

// preserves returns how long the sender asks that its routes of a family are
// kept if it restarts, 0 if not at all, and whether it says that its
// forwarding is still that of those routes.
func (o *open) preserves(family uint32) (time.Duration, bool) {
	if o == nil || o.restart == nil {
		return 0, false
	}
	for _, f := range o.restart.families {
		if f.family == family {
			return o.restart.time, f.preserved
		}
	}
	return 0, false
}

// readMessage reads the next message into b, which has room for any. An
// *errHeader says what the peer is to be told.
func readMessage(r io.Reader, b []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, b[:headerLen]); err != nil {
		return nil, err
	}
	for _, o := range b[:16] {
		if o != 0xff {
			return nil, &errHeader{1, fmt.Sprintf("marker % x", b[:16])}
		}
	}
	n, err := messageLen(b[:headerLen])
	if err != nil {
		return nil, &errHeader{2, err.Error()}
	}
	if kind := b[18]; kind < typeOpen || kind > typeRefresh {
		return nil, &errHeader{3, fmt.Sprintf("message of type %d", kind)}
	}
	_, err = io.ReadFull(r, b[headerLen:n])
	return b[:n], err
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

// Capability codes (RFC 4760, RFC 2918, RFC 4724, RFC 6793).
const (
	capMultiprotocol = 1
	capRefresh       = 2
	capRestart       = 64
	capFourOctets    = 65
)

// parseOpen decodes a whole OPEN, header included.
func parseOpen(b []byte) (*open, error) {
	if len(b) < headerLen+10 || b[18] != typeOpen {
		return nil, errBadMessage
	}
	o := &open{
		version: b[19],
		as16:    binary.BigEndian.Uint16(b[20:]),
		hold:    time.Duration(binary.BigEndian.Uint16(b[22:])) * time.Second,
		id:      netip.AddrFrom4([4]byte(b[24:28])),
	}
	o.as = uint32(o.as16)
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
		case code == capMultiprotocol && len(v) == 4: // AFI, reserved, SAFI
			o.families = append(o.families, uint32(binary.BigEndian.Uint16(v))<<16|uint32(v[3]))
		case code == capFourOctets && len(v) == 4:
			o.as, o.fourOctets = binary.BigEndian.Uint32(v), true
		case code == capRestart && len(v) >= 2 && len(v)%4 == 2:
			o.restart = parseRestart(v)
		}
		c = c[2+int(c[1]):]
	}
	return nil
}

// parseRestart reads flags and time, then AFI, SAFI and flags of each family.
func parseRestart(v []byte) *restart {
	head := binary.BigEndian.Uint16(v)
	r := &restart{restarting: head&0x8000 != 0, time: time.Duration(head&0x0fff) * time.Second}
	for v = v[2:]; len(v) > 0; v = v[4:] {
		r.families = append(r.families, restartFamily{uint32(binary.BigEndian.Uint16(v))<<16 | uint32(v[2]), v[3]&0x80 != 0})
	}
	return r
}

// maxFamilies is how many families of an OPEN are passed on.
const maxFamilies = 8

// marshal encodes the OPEN with the capabilities that o knows of, and route
// refresh.
func (o *open) marshal() []byte {
	caps := []byte{capRefresh, 0}
	for _, f := range o.families[:min(len(o.families), maxFamilies)] {
		caps = append(caps, capMultiprotocol, 4, byte(f>>24), byte(f>>16), 0, byte(f))
	}
	if o.fourOctets {
		caps = binary.BigEndian.AppendUint32(append(caps, capFourOctets, 4), o.as)
	}
	if r := o.restart; r != nil {
		head := uint16(min(r.time/time.Second, 0x0fff))
		if r.restarting {
			head |= 0x8000
		}
		caps = binary.BigEndian.AppendUint16(append(caps, capRestart, byte(2+4*len(r.families))), head)
		for _, f := range r.families {
			flags := byte(0)
			if f.preserved {
				flags = 0x80
			}
			caps = append(caps, byte(f.family>>24), byte(f.family>>16), byte(f.family), flags)
		}
	}
	b := append(appendHeader(nil, typeOpen), o.version)
	b = binary.BigEndian.AppendUint16(b, o.as16)
	b = binary.BigEndian.AppendUint16(b, uint16(o.hold/time.Second))
	id := o.id.As4()
	b = append(append(b, id[:]...), byte(2+len(caps)), 2, byte(len(caps)))
	b = append(b, caps...)
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)))
	return b
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
	b := append(appendHeader(nil, typeNotification), n.code, n.subcode)
	b = append(b, n.data...)
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)))
	return b
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
