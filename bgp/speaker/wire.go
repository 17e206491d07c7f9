package speaker

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"

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
	Status   *bgp.SessionStatus
	EndOfRIB string
}

// routes is a bgp.Update on the wire.
type routes struct {
	Session  string
	Groups   []group
	Withdraw []netip.Prefix
}

type group struct {
	Attrs    bgp.Attrs
	Prefixes []netip.Prefix
}

// maxRoutes is the most prefixes in one value: it bounds how long one session
// keeps the others waiting.
const maxRoutes = 4096

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

var errBadPrefix = errors.New("prefix is invalid, IPv4-mapped or has host bits")

// usable says that p can be a key in a table: no host bits, no second spelling.
func usable(p netip.Prefix) bool {
	return p.IsValid() && p.Masked() == p && !p.Addr().Is4In6()
}

// unpack is the inverse of pack. It refuses prefixes that no table should see.
func (r *routes) unpack() (*bgp.Update, error) {
	u := &bgp.Update{Session: r.Session, Withdraw: r.Withdraw}
	for _, p := range r.Withdraw {
		if !usable(p) {
			return nil, fmt.Errorf("unpack routes of %s: %w", r.Session, errBadPrefix)
		}
	}
	for i := range r.Groups {
		attrs := &r.Groups[i].Attrs
		for _, p := range r.Groups[i].Prefixes {
			if !usable(p) {
				return nil, fmt.Errorf("unpack routes of %s: %w", r.Session, errBadPrefix)
			}
			u.Announce = append(u.Announce, bgp.Route{Prefix: p, Attrs: attrs})
		}
	}
	return u, nil
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
