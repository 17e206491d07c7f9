// Package rpsl reads the routing registries' databases, as RIRs and IRRs publish
// them in RPSL (RFC 2622, RFC 4012): of all their objects only route and route6,
// and of those the prefix, the origin and the source.
//
// Such files are hundreds of megabytes of what very many people typed over
// thirty years. So they are read as a stream, and what is malformed is counted
// and left out, with the first of it told: it never ends the reading.
package rpsl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Route is a route or route6 object: who may originate a prefix.
type Route struct {
	Prefix netip.Prefix // without host bits
	Origin uint32
	Source string // of the registry, in upper case; "" if the object has none
}

// Stats is what a file had in it.
type Stats struct {
	Objects   int    // of whatever class
	Routes    int    // of them route and route6 objects, good ones
	Malformed int    // route and route6 objects that were left out
	First     string // the first of those: line and what is wrong
}

// maxLine is the longest line that is read, in octets; what is behind that of a
// longer one is left out. No attribute of interest is near that long.
const maxLine = 4096

// Read calls each with every good route and route6 object, in the order of the
// file. The error is the reader's.
func Read(r io.Reader, each func(Route)) (Stats, error) {
	p := parser{in: bufio.NewReaderSize(r, maxLine), each: each}
	for {
		line, err := p.next()
		if err != nil {
			p.end()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return p.stats, err
		}
		p.take(line)
	}
}

type parser struct {
	in    *bufio.Reader
	each  func(Route)
	stats Stats
	line  int

	class                 string // of the object being read, "" between objects
	at                    int    // line where it begins
	prefix                string // value of the class attribute
	origin, source        string
	hasOrigin, twoOrigins bool
	last                  *string // where a continuation belongs
}

// next returns a line without its end, cut at maxLine; it is valid until the
// next call.
func (p *parser) next() ([]byte, error) {
	p.line++
	line, err := p.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = p.in.ReadSlice('\n')
		}
	}
	if err != nil && len(line) > 0 {
		err = nil // the last line has no end; the next call says so
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// take reads one line: of an object, or between two (RFC 2622 §2).
func (p *parser) take(line []byte) {
	switch {
	case len(bytes.TrimSpace(line)) == 0:
		p.end()
	case line[0] == '%' || line[0] == '#': // the server's, or a comment
	case line[0] == ' ' || line[0] == '\t' || line[0] == '+':
		if p.last != nil && len(*p.last) < maxLine {
			*p.last += " " + value(line[1:])
		}
	default:
		p.attribute(line)
	}
}

// attribute reads NAME: VALUE. What has no colon is noise.
func (p *parser) attribute(line []byte) {
	p.last = nil
	name, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	key := strings.ToLower(string(bytes.TrimSpace(name)))
	if p.class == "" {
		p.stats.Objects++
		p.class, p.at, p.prefix, p.last = key, p.line, value(rest), &p.prefix
		return
	}
	switch key {
	case "origin":
		p.twoOrigins, p.hasOrigin = p.hasOrigin, true
		p.origin, p.last = value(rest), &p.origin
	case "source":
		p.source, p.last = value(rest), &p.source
	}
}

// value is an attribute's value without its comment.
func value(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte("#"))
	return string(bytes.TrimSpace(b))
}

// end hands out the object that was read, if it is a good route.
func (p *parser) end() {
	if p.class == "route" || p.class == "route6" {
		r, err := p.route()
		if err != nil {
			p.stats.Malformed++
			if p.stats.First == "" {
				p.stats.First = fmt.Sprintf("line %d: %s: %v", p.at, p.class, err)
			}
		} else {
			p.stats.Routes++
			p.each(r)
		}
	}
	*p = parser{in: p.in, each: p.each, stats: p.stats, line: p.line}
}

func (p *parser) route() (Route, error) {
	prefix, err := netip.ParsePrefix(strings.TrimSpace(p.prefix))
	switch {
	case err != nil:
		return Route{}, fmt.Errorf("%q is no prefix", cut(p.prefix))
	case prefix.Addr().Is4() != (p.class == "route") || prefix.Addr().Is4In6():
		return Route{}, fmt.Errorf("%v is of the other family", prefix)
	case prefix != prefix.Masked():
		return Route{}, fmt.Errorf("%v has host bits", prefix)
	case !p.hasOrigin:
		return Route{}, errors.New("no origin")
	case p.twoOrigins:
		return Route{}, errors.New("two origins")
	}
	origin, err := asn(strings.TrimSpace(p.origin))
	if err != nil {
		return Route{}, err
	}
	var source string
	if words := strings.Fields(p.source); len(words) > 0 {
		source = words[0]
	}
	if !isName(source) {
		return Route{}, fmt.Errorf("source %q is no name", cut(source))
	}
	return Route{prefix, origin, strings.ToUpper(cut(source))}, nil
}

// isName tells whether s has only what names may have (RFC 2622 §2): letters,
// digits, underscore and hyphen; RIPE's mirrors add a dot. It goes to terminals.
func isName(s string) bool {
	return strings.Trim(s, nameChars) == ""
}

const nameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."

// asn reads AS65001, in any case (RFC 2622 §2; RFC 5396: asplain).
func asn(s string) (uint32, error) {
	if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
		if n, err := strconv.ParseUint(s[2:], 10, 32); err == nil {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("origin %q is no AS number", cut(s))
}

// cut bounds what a message, or a source, repeats of a file.
func cut(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most]
	}
	return s
}
