package dataplane

import (
	"msee/dataplane/fib"
	"msee/fastpath"
)

// What lookup, the step, does with a route.

// sought are a vector's IPv4 destinations in one VRF, and what is found for them.
type sought struct {
	addrs  [vector]uint32
	of     [vector]uint8 // which packet's it is
	found  [vector]fastpath.Value
	routes [vector]*NextHopGroup
}

// follow is lookup for the IPv4 packets of one VRF: the first n of those sought.
func (w *Worker) follow(ps []packet, table *fib.Table[*NextHopGroup], n int) {
	if n == 0 {
		return
	}
	q := &w.sought
	table.LookupAll4(&q.addrs, &q.routes, n)
	for k, route := range q.routes[:n] {
		p := &ps[q.of[k]]
		p.route = route
		if route != nil {
			if p.out = route.sole(); p.out != nil {
				continue
			}
		}
		w.leave(p)
	}
}

// leave finds the adjacency of a packet whose route is known.
func (w *Worker) leave(p *packet) {
	switch group := p.route; {
	case group == nil:
		p.verdict = DropNoRoute
	case group.Kind == Forward:
		if p.out = group.choose(p.ip(), p.v6); p.out == nil {
			p.verdict = w.unresolved(group)
		} else if len(group.Backup) > 0 && group.bounces(p.out, p.Bytes()[6:12]) {
			p.verdict = DropUnresolved
		}
	default:
		p.verdict = w.special(p, group)
	}
}

// table is that of the packet's VRF.
func (w *Worker) table(p *packet) *fib.Table[*NextHopGroup] { return w.snap.VRFs[p.in.VRF].FIB }

// special is the end of a lookup that leads to no next hop of a route's.
func (w *Worker) special(p *packet, group *NextHopGroup) Verdict {
	switch group.Kind {
	case Neighbor:
		if p.out = group.Members[0].Rewrite(); p.out == nil {
			return w.unresolved(group)
		}
		if p.out.Out == p.in && w.loopEcho(p) {
			return LocalBFD
		}
		return proceed
	case Local:
		if p.generated {
			return DropMartian // an answer to ourselves: the source was forged
		}
		if v := w.localBFD(p); v != proceed {
			return v
		}
		return w.punt(p, PuntLocal)
	case Glean:
		if p.in.Gateway != nil && !p.generated {
			return w.gatewayGlean(p, group.Out)
		}
		return w.puntGlean(p, group.Out)
	default:
		return DropBlackhole
	}
}

// unresolved asks for the members of a group of which none can be used.
func (w *Worker) unresolved(group *NextHopGroup) Verdict {
	for _, a := range group.Members {
		w.resolve(a)
	}
	return DropUnresolved
}
