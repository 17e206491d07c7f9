package edge

import (
	"net/netip"
	"slices"
	"strings"

	"msee/bgp/evpn"
	"msee/dataplane"
	"msee/dataplane/fib"
	"msee/dataplane/port"
	"msee/vlan"
)

// From RIB to FIB: routes point at next-hop groups, groups at adjacencies, and
// adjacencies mirror the kernel's neighbor table. A route is programmed when
// the RIB says so, whether its next hops are resolved or not; a neighbor that
// comes or goes touches its adjacency, never groups or routes.

// hop names a neighbor within a VRF. An invalid addr stands for whichever
// neighbor a packet is for (a connected subnet). One with a mac is no neighbor of the
// kernel's, but what EVPN tells of: that MAC, behind the VTEP addr.
type hop struct {
	sub  *subinterface
	addr netip.Addr
	mac  port.MAC
}

func (h hop) String() string {
	s := h.addr.String() + " on " + h.sub.cfg.Name
	if h.mac != (port.MAC{}) {
		s = evpn.MAC(h.mac).String() + " behind " + s
	}
	return s
}

// adjacency is a neighbor that the kernel knows or that groups lead to.
type adjacency struct {
	*dataplane.Adjacency
	hop
	mac     port.MAC // if resolved
	users   int      // groups that have it
	watched bool     // by BFD
}

// group is a next-hop group, shared by all routes with the same hops.
type group struct {
	*dataplane.NextHopGroup
	key     string
	out     *subinterface // of a Glean group
	hops    []hop         // members, then backups
	members int           // so many
	users   int           // prefixes that lead here
}

// forwarding is a VRF's forwarding state on the control side. It collects
// changes; publish turns them into a new table.
type forwarding struct {
	table *fib.Table[*dataplane.NextHopGroup]
	// connected are the routes that subinterfaces and neighbors make, routed
	// those of the RIB. Where both have a prefix, connected wins, as on any
	// router.
	connected, routed map[netip.Prefix]*group

	groups      map[string]*group
	adjacencies map[hop]*adjacency
	changes     []fib.Change[*dataplane.NextHopGroup]
}

func newForwarding() *forwarding {
	return &forwarding{
		table:       fib.New[*dataplane.NextHopGroup](),
		connected:   map[netip.Prefix]*group{},
		routed:      map[netip.Prefix]*group{},
		groups:      map[string]*group{},
		adjacencies: map[hop]*adjacency{},
	}
}

// group returns the group of that kind, making it if need be: a Forward group
// leads to the members, and to the backups if none of them can be used, a
// Neighbor group to its one member, a Glean group to the subnet of out.
func (f *forwarding) group(kind dataplane.GroupKind, out *subinterface, members, backup []hop) *group {
	var b strings.Builder
	b.WriteString(kind.String())
	if out != nil {
		b.WriteString(" " + out.cfg.Name)
	}
	for i, h := range slices.Concat(members, backup) {
		if i == len(members) {
			b.WriteString(" backup")
		}
		b.WriteString(" " + h.sub.cfg.Name + "/" + h.addr.String())
		if h.mac != (port.MAC{}) {
			b.WriteString("/" + evpn.MAC(h.mac).String())
		}
	}
	key := b.String()
	g := f.groups[key]
	if g == nil {
		g = &group{NextHopGroup: &dataplane.NextHopGroup{Kind: kind, Members: f.use(members), Backup: f.use(backup)},
			key: key, out: out, hops: slices.Concat(members, backup), members: len(members)}
		if out != nil {
			g.Out = out.dp
		}
		f.groups[key] = g
	}
	return g
}

// use returns the adjacencies of hops for one more group.
func (f *forwarding) use(hops []hop) (adjacencies []*dataplane.Adjacency) {
	for _, h := range hops {
		a := f.adjacency(h)
		f.useAdjacency(a)
		adjacencies = append(adjacencies, a.Adjacency)
	}
	return adjacencies
}

// useAdjacency counts one more user. What has a MAC of its own needs nobody to resolve it.
func (f *forwarding) useAdjacency(a *adjacency) {
	if a.users++; a.users == 1 && a.hop.mac != (port.MAC{}) {
		f.neighborChanged(a.hop, a.hop.mac, true)
	}
}

// adjacency returns a neighbor's adjacency, making it if need be.
func (f *forwarding) adjacency(h hop) *adjacency {
	a := f.adjacencies[h]
	if a == nil {
		a = &adjacency{Adjacency: dataplane.NewAdjacency(h.sub.cfg.Name, h.addr), hop: h}
		a.heedLink()
		f.adjacencies[h] = a
	}
	return a
}

// heedLink has the neighbor used, or not, as its port's link is now. With BFD the
// worker marks it as well; without, nobody else does.
func (a *adjacency) heedLink() {
	p := a.sub.port
	a.SetDown(dataplane.DownLink, p != nil && (p.link == linkDown || p.link == linkGone))
}

// linkChanged turns traffic to, or away from, all neighbors behind a port.
func (f *forwarding) linkChanged(p *portState) {
	for h, a := range f.adjacencies {
		if h.sub.port == p {
			a.heedLink()
		}
	}
}

// forget drops an adjacency that nobody needs any more.
func (f *forwarding) forget(a *adjacency) {
	if a.users == 0 && !a.watched && (a.Rewrite() == nil || a.hop.mac != (port.MAC{})) {
		delete(f.adjacencies, a.hop)
	}
}

// resolved reports whether a neighbor's MAC is known.
func (f *forwarding) resolved(h hop) bool {
	a := f.adjacencies[h]
	return a != nil && a.Rewrite() != nil
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
	effective := f.effective(prefix)
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
		if a := f.adjacencies[h]; a != nil {
			a.users--
			f.forget(a)
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
// its own addresses, its routes, and nothing for the all-ones and all-zeroes hosts of an
// IPv4 subnet (RFC 3021 excepts /31).
func (f *forwarding) connect(s *subinterface) {
	discard := f.group(dataplane.Blackhole, nil, nil, nil)
	for _, p := range s.cfg.Addresses {
		subnet := p.Masked()
		if p.Addr().Is4() && p.Bits() < 31 {
			f.set(f.connected, host(subnet.Addr()), discard)
			f.set(f.connected, host(lastAddr(subnet)), discard)
		}
	}
	for _, r := range s.cfg.Routes {
		f.set(f.connected, r.Prefix, f.group(dataplane.Forward, nil, []hop{{sub: s, addr: r.NextHop}}, nil))
	}
	f.connectOwn(s)
	if s.pair != nil {
		f.set(f.connected, host(s.cfg.Pair.Local), f.group(dataplane.Local, nil, nil, nil))
		f.connectOther(s)
	}
}

// connectOwn leads a subinterface's own addresses to the kernel, which also finds
// the hosts of its subnets: as long as the kernel has the addresses, else nowhere.
func (f *forwarding) connectOwn(s *subinterface) {
	glean, local := f.group(dataplane.Glean, s, nil, nil), f.group(dataplane.Local, nil, nil, nil)
	if s.pair != nil && !s.pair.own {
		glean = f.group(dataplane.Blackhole, nil, nil, nil)
		local = glean
	}
	for _, p := range s.cfg.Addresses {
		f.set(f.connected, p.Masked(), glean)
		f.set(f.connected, host(p.Addr()), local)
	}
}

// connectOther leads the addresses of a gateway's other instance to the kernel's
// side, where they are answered for, if they are taken; else to that instance.
func (f *forwarding) connectOther(s *subinterface) {
	for _, a := range s.cfg.Pair.Addresses {
		if s.pair.taken {
			f.set(f.connected, host(a), f.group(dataplane.Local, nil, nil, nil))
			continue
		}
		if g := f.connected[host(a)]; g != nil && g.Kind == dataplane.Local {
			f.set(f.connected, host(a), nil)
		}
		h := hop{sub: s, addr: a}
		f.connectNeighbor(h, f.resolved(h))
	}
}

// neighborChanged records that a neighbor can be reached at mac, or not any
// more: one store. It reports whether anything changed.
func (f *forwarding) neighborChanged(h hop, mac port.MAC, usable bool) bool {
	a := f.adjacency(h)
	defer f.forget(a)
	var r *dataplane.Rewrite
	var vtep *dataplane.VTEP
	if usable && h.sub.tunnel != nil {
		vtep = h.sub.vtep(mac)
		if h.mac != (port.MAC{}) {
			vtep = h.sub.dp.Tunnel.VTEP(h.addr)
		}
		usable = vtep != nil
	}
	if usable {
		r = &dataplane.Rewrite{Out: h.sub.dp, VTEP: vtep,
			Header: vlan.NewHeader(mac, h.sub.port.port.MAC(), h.sub.port.cfg.TPID, h.sub.dp.Outer, h.sub.dp.Inner)}
	}
	if old := a.Rewrite(); old == r || old != nil && r != nil && *old == *r {
		return false
	}
	a.Resolve(r)
	a.mac = mac
	f.connectNeighbor(h, usable)
	return true
}

// connectNeighbor makes a neighbor a host route of its own within its subnet, or
// unmakes it, unless the address is no host's: ours, or the subnet's ends.
func (f *forwarding) connectNeighbor(h hop, usable bool) {
	now := f.connected[host(h.addr)]
	if h.mac != (port.MAC{}) || !subnetOf(h.sub.cfg.Addresses, h.addr) || now != nil && now.Kind != dataplane.Neighbor {
		return
	}
	var g *group
	if usable {
		g = f.group(dataplane.Neighbor, nil, []hop{h}, nil)
	}
	f.set(f.connected, host(h.addr), g)
}

// inherit takes over the adjacencies of the VRF's state before, of subinterfaces
// that are still there. They stay the same objects: whoever else holds one, a BFD
// session say, holds the one that counts. settle follows when the routes are set.
func (f *forwarding) inherit(old *forwarding) {
	for h, a := range old.adjacencies {
		if h.sub.vrf.subs[h.sub.cfg.Name] == h.sub {
			a.users = 0
			f.adjacencies[h] = a
		}
	}
}

// settle turns the inherited adjacencies to their subinterfaces as they are now.
func (f *forwarding) settle() {
	for h, a := range f.adjacencies {
		a.heedLink()
		if resolved := a.Rewrite() != nil; !f.neighborChanged(h, a.mac, resolved) {
			f.connectNeighbor(h, resolved)
		}
	}
}

// hosts are the kernel's neighbors on a subinterface's own subnets whose MAC is known.
func (f *forwarding) hosts(s *subinterface) map[netip.Addr]port.MAC {
	all := map[netip.Addr]port.MAC{}
	for h, a := range f.adjacencies {
		if h.sub == s && h.mac == (port.MAC{}) && a.Rewrite() != nil && subnetOf(s.cfg.Addresses, h.addr) {
			all[h.addr] = a.mac
		}
	}
	return all
}

// nextHops yields the next hops of routes, each once.
func (f *forwarding) nextHops(yield func(hop) bool) {
	for h, a := range f.adjacencies {
		if (a.users > 0 || a.watched) && !yield(h) {
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
