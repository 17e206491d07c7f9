package speaker

import (
	"encoding/gob"
	"errors"
	"io"
	"net/netip"
	"time"

	"msee/bgp"
)

// Between the edge and the speaker run two streams of gob values: commands one
// way, reports the other. Routes are grouped by their attributes.

// command goes from the edge to the speaker; what is not empty is meant.
type command struct {
	Configure bool // Sessions is the whole wanted list
	Sessions  []bgp.SessionConfig
	Reset     *reset
	Holds     *holds
	Routes    *routes
	EVPN      *evpnRoutes
	Reborn    bool   // this process follows one that died
	Told      bool   // all that there is to advertise has been told
	Ping      uint64 // to be answered
}

// holds are all holds of a session; it need not be configured yet.
type holds struct {
	Session string
	Holds   []bgp.Hold
}

// reset ends a session, for a reason in words.
type reset struct{ Session, Why string }

// report goes from the speaker to the edge; exactly one field is set.
type report struct {
	Routes   *routes
	EVPN     *evpnRoutes
	Status   *bgp.SessionStatus
	EndOfRIB string
	Pong     *pong
}

// pong answers a ping. Busy is how long the process, or the slowest of its
// sessions, has been at one thing: it may be hung.
type pong struct {
	Ping uint64
	Busy time.Duration
	With string
}

// routes is a bgp.Update on the wire.
type routes struct {
	Session  string
	Groups   []group
	Withdraw prefixList
}

type group struct {
	Attrs    bgp.Attrs
	Prefixes prefixList
}

// prefixList is encoded much as BGP does it: gob by itself would make a value of each prefix, which is most of the time that a table takes.
type prefixList []netip.Prefix

// MarshalBinary implements encoding.BinaryMarshaler: of each prefix 4 or 6, its
// length, and as many octets as that takes.
func (l prefixList) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, len(l)*6)
	for _, p := range l {
		if !usable(p) {
			return nil, errBadPrefix
		}
		n := (p.Bits() + 7) / 8
		if p.Addr().Is4() {
			a := p.Addr().As4()
			b = append(append(b, 4, byte(p.Bits())), a[:n]...)
		} else {
			a := p.Addr().As16()
			b = append(append(b, 6, byte(p.Bits())), a[:n]...)
		}
	}
	return b, nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (l *prefixList) UnmarshalBinary(b []byte) error {
	*l = make(prefixList, 0, len(b)/5)
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+(int(b[1])+7)/8 {
			return errBadPrefix
		}
		bits, n := int(b[1]), (int(b[1])+7)/8
		var p netip.Prefix
		switch {
		case b[0] == 4 && bits <= 32:
			var a [4]byte
			copy(a[:], b[2:2+n])
			p = netip.PrefixFrom(netip.AddrFrom4(a), bits)
		case b[0] == 6 && bits <= 128:
			var a [16]byte
			copy(a[:], b[2:2+n])
			p = netip.PrefixFrom(netip.AddrFrom16(a), bits)
		}
		if !usable(p) {
			return errBadPrefix
		}
		*l = append(*l, p)
		b = b[2+n:]
	}
	return nil
}

// maxRoutes is the most weight of routes in one value: it bounds how long one
// session keeps the others waiting, and keeps the value far below maxValue.
const maxRoutes = 4096

// weight is what a route counts of maxRoutes, one if its attributes are of the
// usual size. Those that fill a message weigh as much as 64: 4096 of them would
// be more than maxValue.
func weight(a *bgp.Attrs) int {
	if a == nil {
		return 1
	}
	return 1 + (len(a.ASPath)+len(a.Communities))/16
}

// pack groups the announcements by attributes; equal pointers share a group.
func pack(u *bgp.Update) *routes {
	r := &routes{Session: u.Session, Withdraw: u.Withdraw}
	at := make(map[*bgp.Attrs]int)
	for _, a := range u.Announce {
		i, ok := at[a.Attrs]
		if !ok {
			i = len(r.Groups)
			at[a.Attrs] = i
			r.Groups = append(r.Groups, group{Attrs: *a.Attrs})
		}
		r.Groups[i].Prefixes = append(r.Groups[i].Prefixes, a.Prefix)
	}
	return r
}

var errBadPrefix = errors.New("prefix is invalid or has host bits")

// usable says that p can be a key in a table. A peer may well send prefixes of
// IPv4-mapped addresses; it is for the RIB to refuse them.
func usable(p netip.Prefix) bool { return p.IsValid() && p.Masked() == p }

// unpack is the inverse of pack. Prefixes that no table should see were refused
// when they were decoded.
func (r *routes) unpack() *bgp.Update {
	u := &bgp.Update{Session: r.Session, Withdraw: r.Withdraw}
	for i := range r.Groups {
		attrs := &r.Groups[i].Attrs
		for _, p := range r.Groups[i].Prefixes {
			u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: attrs})
		}
	}
	return u
}

// maxValue bounds one gob value; the largest honest one is a command with some
// thousand sessions.
const maxValue = 16 << 20

var errTooBig = errors.New("value on the speaker's socket is too big")

// decoder reads values of at most maxValue bytes: the process at the other end
// has parsed hostile input and may be anything by now.
type decoder struct {
	dec    *gob.Decoder
	budget *budget
}

func newDecoder(r io.Reader) *decoder {
	b := &budget{r: r}
	return &decoder{gob.NewDecoder(b), b}
}

func (d *decoder) decode(v any) error {
	d.budget.left = maxValue
	return d.dec.Decode(v)
}

type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooBig
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
