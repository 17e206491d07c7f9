package dataplane

import (
	"encoding/binary"
	"net/netip"

	"msee/dataplane/fib"
)

// SourceCheck says what a packet's source must be for it to be forwarded
// (RFC 3704).
type SourceCheck uint8

const (
	SourceAny    SourceCheck = iota
	SourceLoose              // there is a route to it
	SourceStrict             // the route to it leads back where the packet came from
)

// Sources are prefixes that packets may come from.
type Sources struct{ *fib.Table[bool] }

// NewSources returns a set of prefixes.
func NewSources(prefixes ...netip.Prefix) *Sources {
	var changes []fib.Change[bool]
	for _, p := range prefixes {
		changes = append(changes, fib.Change[bool]{Prefix: p, Value: true})
	}
	return &Sources{fib.New[bool]().With(changes)}
}

// source drops what comes from where the subinterface lets nothing come from: not
// from its Sources, or against its SourceCheck. What is from its own subnets is
// from a neighbor, and passes.
func (w *Worker) source(ps []packet) {
	if !w.port.checksSources {
		return
	}
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed || p.in.Sources == nil && p.in.SourceCheck == SourceAny {
			continue
		}
		if !w.sourceOK(p) {
			p.verdict = DropSource
		}
	}
}

func (w *Worker) sourceOK(p *packet) bool {
	if p.in.has(p) {
		return true
	}
	if p.in.Sources != nil {
		if _, ok := lookupSource(p.in.Sources.Table, p); !ok {
			return false
		}
	}
	if p.in.SourceCheck == SourceAny {
		return true
	}
	group, ok := lookupSource(w.table(p), p)
	switch {
	case !ok || group.Kind == Blackhole || group.Kind == Local:
		return false
	case p.in.SourceCheck == SourceLoose:
		return true
	case group.Kind == Glean:
		return group.Out.sameAs(p.in)
	}
	for _, a := range group.Members {
		if r := a.Rewrite(); r != nil && r.Out.sameAs(p.in) {
			return true
		}
	}
	return false
}

// lookupSource looks a packet's source up.
func lookupSource[V comparable](t *fib.Table[V], p *packet) (V, bool) {
	b := p.ip()
	if p.v6 {
		return t.Lookup6(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]))
	}
	return t.Lookup4(binary.BigEndian.Uint32(b[12:]))
}

// has reports whether a packet's source is on a subnet of the subinterface's own.
func (s *Subinterface) has(p *packet) bool {
	b := p.ip()
	if p.v6 {
		return linkLocal(b[8:]) || s.Subnet6.Contains(netip.AddrFrom16([16]byte(b[8:24])))
	}
	return s.Subnet4.Contains(netip.AddrFrom4([4]byte(b[12:16])))
}

// sameAs reports whether both are one interface, configured differently perhaps.
// Those on VXLAN networks have no tags; their VNI tells them apart.
func (s *Subinterface) sameAs(o *Subinterface) bool {
	if s.Tunnel != nil && o.Tunnel != nil {
		return s.Port == o.Port && s.Tunnel.VNI == o.Tunnel.VNI
	}
	return s.Tunnel == o.Tunnel && s.Port == o.Port && s.Outer == o.Outer && s.Inner == o.Inner
}
