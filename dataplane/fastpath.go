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
	hosts atomic.Pointer[[]*atomic.Pointer[Adjacency]] // by Host − 1
	free  []Host                                       // that no reader can hold; the writer's
	left  []Host                                       // given back since RecycleHosts; the writer's
}

// Host numbers an adjacency that endpoints lead to; never 0.
type Host uint16

// AddHost numbers an adjacency; false if there are no numbers left, upon which
// RecycleHosts may help.
func (f *FastPath) AddHost(a *Adjacency) (Host, bool) {
	if n := len(f.free); n > 0 {
		h := f.free[n-1]
		f.free = f.free[:n-1]
		(*f.hosts.Load())[h-1].Store(a)
		return h, true
	}
	var hosts []*atomic.Pointer[Adjacency]
	if p := f.hosts.Load(); p != nil {
		hosts = *p
	}
	if len(hosts) == 1<<16-1 {
		return 0, false
	}
	slot := new(atomic.Pointer[Adjacency])
	slot.Store(a)
	hosts = append(hosts, slot) // readers of the old length do not see it
	f.hosts.Store(&hosts)
	return Host(len(hosts)), true
}

// RemoveHost gives a number back. Nothing in the table leads there any more.
func (f *FastPath) RemoveHost(h Host) {
	(*f.hosts.Load())[h-1].Store(nil)
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
// be told. As in lookup, all memory is asked for before any is waited for.
func (w *Worker) fastPath(ps []packet) {
	for i := range ps {
		p := &ps[i]
		if p.verdict == proceed && p.in.Endpoints != nil && !p.v6 {
			e := p.in.Endpoints
			p.line = e.FastPath.Near4(e.VRF, binary.BigEndian.Uint32(p.ip()[16:]))
		}
	}
	for i := range ps {
		p := &ps[i]
		if p.verdict != proceed || p.in.Endpoints == nil {
			continue
		}
		e := p.in.Endpoints
		if w.endpoints.of != e {
			w.endpoints.flush()
			w.endpoints.of = e
		}
		if p.out = e.find(p); p.out != nil {
			w.endpoints.hits++
		} else {
			w.endpoints.misses++
		}
	}
}

// find returns how to send the packet to its destination's host; nil if that is
// not known.
func (e *Endpoints) find(p *packet) *Rewrite {
	var v fastpath.Value
	var ok bool
	if b := p.ip(); p.v6 {
		v, ok = e.FastPath.Lookup6(e.VRF, binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:]))
	} else {
		v, ok = e.FastPath.Find4(p.line, e.VRF, binary.BigEndian.Uint32(b[16:]))
	}
	if !ok {
		return nil
	}
	host := (*e.FastPath.hosts.Load())[uint16(v)-1].Load()
	if host == nil {
		return nil
	}
	return host.Usable()
}
