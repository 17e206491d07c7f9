package edge

import (
	"net/netip"
	"slices"
	"strings"

	"msee/dataplane"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// From RIB to FIB: routes point at next-hop groups, groups at adjacencies, and
// adjacencies mirror the kernel's neighbor table. A route is programmed when
// the RIB says so, whether its next hops are resolved or not; a neighbor that
// comes or goes touches groups, never routes.

// hop names a neighbor within a VRF. An invalid addr stands for whichever
// neighbor a packet is for (a connected subnet).
type hop struct {
	sub  *subinterface
	addr netip.Addr
}

// group is a next-hop group, shared by all routes with the same hops.
type group struct {
	*dataplane.NextHopGroup
	key   string
	hops  []hop
	users int // prefixes that lead here
}

// forwarding is a VRF's forwarding state on the control side. It collects
// changes; publish turns them into a new table.
type forwarding struct {
	table *fib.Table[*dataplane.NextHopGroup]
	// connected are the routes that subinterfaces and neighbors make, routed
	// those of the RIB. Where both have a prefix, connected wins, as on any
	// router.
	connected, routed map[netip.Prefix]*group

	groups   map[string]*group
	using    map[hop][]*group           // groups by their members
	adjacent map[hop]*dataplane.Rewrite // resolved neighbors
	macs     map[hop]port.MAC           // theirs
	changes  []fib.Change[*dataplane.NextHopGroup]
}

func newForwarding() *forwarding {
	return &forwarding{
		table:     fib.New[*dataplane.NextHopGroup](),
		connected: map[netip.Prefix]*group{},
		routed:    map[netip.Prefix]*group{},
		groups:    map[string]*group{},
		using:     map[hop][]*group{},
		adjacent:  map[hop]*dataplane.Rewrite{},
		macs:      map[hop]port.MAC{},
	}
}

// group returns the group of that kind with those hops, making it if need be.
func (f *forwarding) group(kind dataplane.GroupKind, hops ...hop) *group {
	var b strings.Builder
	b.WriteString(kind.String())
	for _, h := range hops {
		b.WriteString(" " + h.sub.cfg.Name + "/")
		if h.addr.IsValid() {
			b.WriteString(h.addr.String())
		}
	}
	key := b.String()
	g := f.groups[key]
	if g == nil {
		g = &group{NextHopGroup: &dataplane.NextHopGroup{Kind: kind}, key: key, hops: hops}
		for _, h := range hops {
			g.NextHops = append(g.NextHops, dataplane.NextHop{Subinterface: h.sub.dp, Addr: h.addr})
		}
		f.groups[key] = g
		for _, h := range hops {
			f.using[h] = append(f.using[h], g)
		}
		f.refresh(g)
	}
	return g
}

// refresh sets a group's live members from the adjacencies: one store.
func (f *forwarding) refresh(g *group) {
	if g.Kind != dataplane.Forward {
		return
	}
	live := make([]*dataplane.Rewrite, 0, len(g.hops))
	for _, h := range g.hops {
		if r := f.adjacent[h]; r != nil {
			live = append(live, r)
		}
	}
	g.SetLive(live)
}

// set makes prefix lead to g in one of the two route maps, nil to nowhere.
func (f *forwarding) set(routes map[netip.Prefix]*group, prefix netip.Prefix, g *group) {
	old := routes[prefix]
	if old == g {
		return
	}
	if g != nil {
		g.users++
		routes[prefix] = g
	} else {
		delete(routes, prefix)
	}
	if old != nil {
		if old.users--; old.users == 0 {
			f.free(old)
		}
	}
	effective := f.connected[prefix]
	if effective == nil {
		effective = f.routed[prefix]
	}
	c := fib.Change[*dataplane.NextHopGroup]{Prefix: prefix, Delete: effective == nil}
	if effective != nil {
		c.Value = effective.NextHopGroup
	}
	f.changes = append(f.changes, c)
}

// free forgets a group that no route leads to.
func (f *forwarding) free(g *group) {
	delete(f.groups, g.key)
	for _, h := range g.hops {
		f.using[h] = slices.DeleteFunc(f.using[h], func(u *group) bool { return u == g })
		if len(f.using[h]) == 0 {
			delete(f.using, h)
		}
	}
}

// commit applies the collected changes and reports whether there were any.
func (f *forwarding) commit() bool {
	if len(f.changes) == 0 {
		return false
	}
	f.table = f.table.With(f.changes)
	f.changes = f.changes[:0]
	return true
}

// connect adds the routes that a subinterface makes by itself: its subnets,
// its own addresses, and nothing for the all-ones and all-zeroes hosts of an
// IPv4 subnet (RFC 3021 excepts /31).
func (f *forwarding) connect(s *subinterface) {
	glean := f.group(dataplane.Glean, hop{sub: s})
	local := f.group(dataplane.Local)
	discard := f.group(dataplane.Blackhole)
	for _, p := range s.cfg.Addresses {
		subnet := p.Masked()
		f.set(f.connected, subnet, glean)
		if p.Addr().Is4() && p.Bits() < 31 {
			f.set(f.connected, host(subnet.Addr()), discard)
			f.set(f.connected, host(lastAddr(subnet)), discard)
		}
		f.set(f.connected, host(p.Addr()), local)
	}
}

// neighborChanged records that a neighbor can be reached at mac, or not any
// more, and turns the groups it is in. It reports whether anything changed.
func (f *forwarding) neighborChanged(h hop, mac port.MAC, usable bool) bool {
	var r *dataplane.Rewrite
	if usable {
		r = &dataplane.Rewrite{Out: h.sub.dp,
			Header: vlan.NewHeader(mac, h.sub.port.port.MAC(), h.sub.port.cfg.TPID, h.sub.dp.Outer, h.sub.dp.Inner)}
	}
	switch old := f.adjacent[h]; {
	case r == nil && old == nil, r != nil && old != nil && *r == *old:
		return false
	case r == nil:
		delete(f.adjacent, h)
		delete(f.macs, h)
	default:
		f.adjacent[h], f.macs[h] = r, mac
	}
	for _, g := range f.using[h] {
		f.refresh(g)
	}
	// A neighbor is a host route of its own within its subnet, unless the
	// address is no host's: ours, or the subnet's ends.
	now := f.connected[host(h.addr)]
	if subnetOf(h.sub.cfg.Addresses, h.addr) && (now == nil || now.Kind == dataplane.Forward) {
		var g *group
		if usable {
			g = f.group(dataplane.Forward, h)
		}
		f.set(f.connected, host(h.addr), g)
	}
	return true
}

// nextHops yields the next hops of routes, each once.
func (f *forwarding) nextHops(yield func(hop) bool) {
	for h := range f.using {
		if h.addr.IsValid() && !yield(h) {
			return
		}
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// lastAddr returns the last address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

// subnetOf reports whether one of our subnets has a.
func subnetOf(addresses []netip.Prefix, a netip.Addr) bool {
	for _, p := range addresses {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
