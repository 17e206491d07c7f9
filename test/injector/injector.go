// Package injector is a BGP peer that only announces, for tables that no router
// could send fast enough to be measured against.
package injector

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"msee/netns"
)

// Injector is one session.
type Injector struct {
	AS          uint32
	Local, Peer netip.Addr
	conn        net.Conn
}

// perUpdate is how many prefixes share a path and a message.
const perUpdate = 500

const (
	bgpOpen = 1 + iota
	bgpUpdate
	bgpNotification
	bgpKeepalive
)

// message puts a header in front of a body (RFC 4271 §4.1).
func message(kind byte, body []byte) []byte {
	b := make([]byte, 19, 19+len(body))
	for i := range 16 {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint16(b[16:], uint16(19+len(body)))
	b[18] = kind
	return append(b, body...)
}

// Connect dials from a namespace until a session is up.
func (i *Injector) Connect(ctx context.Context, ns string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := i.try(ns)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("session from %s: %w", i.Local, errors.Join(err, ctx.Err()))
		case <-time.After(time.Second):
		}
	}
}

func (i *Injector) try(ns string) error {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(i.Local, 0)), Timeout: 3 * time.Second}
	err := netns.Do(ns, func() (err error) {
		i.conn, err = d.Dial("tcp", netip.AddrPortFrom(i.Peer, 179).String())
		return err
	})
	if err != nil {
		return err
	}
	r := bufio.NewReader(i.conn)
	i.conn.SetDeadline(time.Now().Add(10 * time.Second))
	afi := byte(1)
	if i.Local.Is6() {
		afi = 2
	}
	caps := binary.BigEndian.AppendUint32([]byte{1, 4, 0, afi, 0, 1, 65, 4}, i.AS)
	open := append([]byte{4, byte(i.AS >> 8), byte(i.AS), 0, 180, 10, 0, 0, 1, byte(2 + len(caps)), 2, byte(len(caps))}, caps...)
	i.conn.Write(message(bgpOpen, open))
	for _, want := range []byte{bgpOpen, bgpKeepalive} {
		kind, err := readKind(r)
		if err != nil || kind != want {
			i.conn.Close()
			return fmt.Errorf("message of type %d, want %d: %w", kind, want, cmpErr(err))
		}
		if want == bgpOpen {
			i.conn.Write(message(bgpKeepalive, nil))
		}
	}
	i.conn.SetDeadline(time.Time{})
	go i.attend(r)
	return nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("unexpected")
	}
	return err
}

// attend reads what comes and keeps the session up.
func (i *Injector) attend(r *bufio.Reader) {
	conn := i.conn
	go func() {
		for {
			time.Sleep(30 * time.Second)
			if _, err := conn.Write(message(bgpKeepalive, nil)); err != nil {
				return
			}
		}
	}()
	for {
		if _, err := readKind(r); err != nil {
			return
		}
	}
}

func readKind(r io.Reader) (byte, error) {
	var head [19]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint16(head[16:]))-19)
	return head[18], err
}

// Close ends the session, without a word.
func (i *Injector) Close() {
	if i.conn != nil {
		i.conn.Close()
	}
}

// Announce sends prefixes of the session's family.
func (i *Injector) Announce(prefixes []netip.Prefix) error {
	var b []byte
	for n := uint32(0); len(prefixes) > 0; n++ {
		some := prefixes[:min(perUpdate, len(prefixes))]
		if i.Local.Is6() {
			some = prefixes[:min(200, len(prefixes))]
		}
		prefixes = prefixes[len(some):]
		var nlri []byte
		for _, p := range some {
			nlri = append(append(nlri, byte(p.Bits())), p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
		}
		attrs := []byte{0x40, 1, 1, 0, 0x40, 2, 10, 2, 2}
		attrs = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(attrs, i.AS), 100_000+n)
		if i.Local.Is4() {
			attrs = append(append(attrs, 0x40, 3, 4), i.Local.AsSlice()...)
		} else {
			mp := append(append([]byte{0, 2, 1, 16}, i.Local.AsSlice()...), 0)
			mp = append(mp, nlri...)
			attrs = binary.BigEndian.AppendUint16(append(attrs, 0x90, 14), uint16(len(mp)))
			attrs, nlri = append(attrs, mp...), nil
		}
		body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
		b = append(b, message(bgpUpdate, append(append(body, attrs...), nlri...))...)
		if len(b) > 1<<18 || len(prefixes) == 0 {
			if _, err := i.conn.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return nil
}

// Slash24s returns n neighbouring prefixes from 20.0.0.0/24 on.
func Slash24s(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		a := uint32(20)<<24 + uint32(i)<<8
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8)}), 24)
	}
	return out
}

// Slash64s returns n IPv6 prefixes.
func Slash64s(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 64)
	}
	return out
}
