package dataplane

import (
	"encoding/binary"
	"sync/atomic"

	"msee/fastpath"
)

// FastPath numbers the hosts that endpoints are on, of all VRFs. An endpoint leads to
// a number and this to an adjacency, which changes under it as under any route: when a
// host's MAC does, or its BFD session fails, nothing but that is touched.
//
// Control writes, one goroutine at a time; workers read. Its zero value is
// empty.
type FastPath struct {
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
// customer: the exact match in front of the longest prefix match, which leads to Hosts.
type Endpoints struct {
	fastpath.Table
	FastPath     *FastPath
	Hits, Misses atomic.Uint64 // frames; a superframe is one
}

// endpointRun counts consecutive frames of one VRF, as run does.
type endpointRun struct {
	of           *Endpoints
	hits, misses uint64
}

func (r *endpointRun) add(e *Endpoints, hits, misses int) {
	if r.of != e {
		r.flush()
		r.of = e
	}
	r.hits += uint64(hits)
	r.misses += uint64(misses)
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
// be told. It reports whether packets are left for lookup.
func (w *Worker) fastPath(ps []packet) (left bool) {
	var e *Endpoints
	q, n := &w.sought, 0
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed {
			continue
		}
		if p.in.Endpoints != e {
			left = w.toHosts(ps, e, n) || left
			e, n = p.in.Endpoints, 0
		}
		if e == nil || p.v6 {
			left = e == nil || w.toHost6(p, e) || left
			continue
		}
		q.addrs[n&(vector-1)], q.of[n&(vector-1)] = p.dst, uint8(i)
		n++
	}
	return w.toHosts(ps, e, n) || left
}

// toHosts is fastPath for the IPv4 packets of one VRF: the first n of those sought.
func (w *Worker) toHosts(ps []packet, e *Endpoints, n int) (left bool) {
	if n == 0 {
		return false
	}
	q := &w.sought
	e.Lookup4(&q.addrs, &q.found, n)
	misses := 0
	for k, v := range q.found[:n] {
		p := &ps[q.of[k]]
		if a := e.FastPath.host(v); a != nil {
			p.out = a.Usable()
		}
		if p.out == nil {
			misses++
		}
	}
	w.endpoints.add(e, n-misses, misses)
	return misses > 0
}

// toHost6 is fastPath for an IPv6 packet.
func (w *Worker) toHost6(p *packet, e *Endpoints) (left bool) {
	b := p.ip()
	v := e.Lookup6(binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
	if a := e.FastPath.host(v); a != nil {
		p.out = a.Usable()
	}
	if p.out == nil {
		w.endpoints.add(e, 0, 1)
		return true
	}
	w.endpoints.add(e, 1, 0)
	return false
}

// host returns what an endpoint leads to; nil if that is nothing, as number 0 is none.
func (f *FastPath) host(v fastpath.Value) *Adjacency { return f.hosts[uint16(v)].Load() }
