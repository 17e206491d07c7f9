package dataplane

import (
	"encoding/binary"
	"sync/atomic"

	"msee/fastpath"
)

// FastPath is where endpoints' hosts are: the exact match in front of the
// longest prefix match. An entry leads to an adjacency, which changes under it
// as under any route: nothing in the table is touched when a host's MAC does.
//
// Control writes, one goroutine at a time; workers read. Its zero value is
// empty.
type FastPath struct {
	fastpath.Table
	hosts [1 << 16]atomic.Pointer[Adjacency] // by Host

	// The writer's.
	last Host   // the highest given out so far
	free []Host // lower ones that no reader can hold
	left []Host // given back since RecycleHosts
}

// Host numbers an adjacency that endpoints lead to; never 0.
type Host uint16

// AddHost numbers an adjacency; false if there are no numbers left, upon which
// RecycleHosts may help.
func (f *FastPath) AddHost(a *Adjacency) (Host, bool) {
	var h Host
	switch n := len(f.free); {
	case n > 0:
		h = f.free[n-1]
		f.free = f.free[:n-1]
	case int(f.last) < len(f.hosts)-1:
		f.last++
		h = f.last
	default:
		return 0, false
	}
	f.hosts[h].Store(a)
	return h, true
}

// RemoveHost gives a number back. Nothing in the table leads there any more.
func (f *FastPath) RemoveHost(h Host) {
	f.hosts[h].Store(nil)
	f.left = append(f.left, h)
}

// RecycleHosts lets the numbers given back be used again. The caller has made
// sure, by Engine.Sync, that no worker still holds an entry from before.
func (f *FastPath) RecycleHosts() {
	f.free, f.left = append(f.free, f.left...), nil
}

// Endpoints are a VRF's part of FastPath, for the subinterfaces that face the
// customer.
type Endpoints struct {
	FastPath     *FastPath
	VRF          fastpath.VRF
	Hits, Misses atomic.Uint64 // frames; a superframe is one
}

// endpointRun counts consecutive frames of one VRF, as run does.
type endpointRun struct {
	of           *Endpoints
	hits, misses uint64
}

func (r *endpointRun) flush() {
	if r.of != nil {
		r.of.Hits.Add(r.hits)
		r.of.Misses.Add(r.misses)
	}
	*r = endpointRun{}
}

// fastPath finds the hosts of those packets whose destinations are endpoints. One
// whose host cannot be used now is a miss: the gateway knows another way, or will
// be told. As in lookup, all memory is asked for before any is waited for. It
// reports whether packets are left for lookup.
func (w *Worker) fastPath(ps []packet) (left bool) {
	var e *Endpoints
	var view fastpath.View4
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed || p.in.Endpoints == nil || p.v6 {
			continue
		}
		if p.in.Endpoints != e {
			e = p.in.Endpoints
			view = e.FastPath.View4(e.VRF)
		}
		p.line = view.Near(binary.BigEndian.Uint32(p.ip()[16:]))
	}
	e = nil
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		if p.in.Endpoints == nil {
			left = true
			continue
		}
		if p.in.Endpoints != e {
			e = p.in.Endpoints
			view = e.FastPath.View4(e.VRF)
			if w.endpoints.of != e {
				w.endpoints.flush()
				w.endpoints.of = e
			}
		}
		var v fastpath.Value
		if b := p.ip(); p.v6 {
			v, _ = e.FastPath.Lookup6(e.VRF, binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
		} else {
			v = view.Find(p.line, binary.BigEndian.Uint32(b[16:]))
		}
		if host := e.FastPath.hosts[uint16(v)].Load(); host != nil { // number 0 has none
			p.out = host.Usable()
		}
		if p.out != nil {
			w.endpoints.hits++
		} else {
			w.endpoints.misses++
			left = true
		}
	}
	return left
}
