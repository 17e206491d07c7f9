package config

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"msee/bgp/evpn"
	"msee/circuit"
	"msee/vxlan"
)

// VXLAN is the network of a subinterface that is on no link.
type VXLAN struct {
	VNI      uint32
	Underlay string          // name of the subinterface that it runs over, in the VRF UnderlayVRF
	Local    []netip.Addr    // where our ends of its tunnels are, at most one per family
	Remote   []netip.Addr    // where all the other ends are, sorted
	Routes   []UnderlayRoute `json:",omitempty"` // the longest first
	// Import are the route targets of which an EVPN route for the network has one, Export
	// those that ours have; none: derived from the VNI.
	Import, Export []evpn.RT `json:",omitempty"`
}

// UnderlayRoute leads to other ends that are on no subnet of the underlay's, by a router
// that is.
type UnderlayRoute struct {
	Prefix  netip.Prefix
	NextHop netip.Addr
}

func (r UnderlayRoute) String() string { return r.Prefix.String() + " via " + r.NextHop.String() }

// UnderlayVRF is the name of the VRF that tunnels run in.
const UnderlayVRF = "underlay"

// vxlanSpec is a connection's network as configured.
type vxlanSpec struct {
	vni    uint32
	remote []netip.Addr
	// routes are with which EVPN neighbours IP prefix routes are exchanged, and tellOnly
	// who is told them alone. With alone there are no sessions inside the VNet.
	routes, tellOnly []netip.Addr
	alone            bool
	// targets of EVPN routes; none: derived from the VNI
	imports, exports []evpn.RT
}

// underlaySpec is what tunnels run over, as configured.
type underlaySpec struct {
	attachment
	addresses []netip.Prefix
	mtu       int
	neighbors []evpnNeighbor
	routes    []UnderlayRoute
	paths     []string // of the routes
	path      string
}

// evpnNeighbor is a VTEP that we have an EVPN session with.
type evpnNeighbor struct {
	address netip.Addr
	asn     uint32
	bfd     BFD
	path    string
}

// Octets of IP packets between tunnel endpoints: enough for 1500 inside, IPv6 and
// some to spare; enough for IPv6's least inside; and what a port takes.
const (
	defaultUnderlayMTU = 1600
	minUnderlayMTU     = 1280 + 70
	maxUnderlayMTU     = 9216
)

// underlay reads the section underlay; nil if there is none.
func (r *reader) underlay(o *object, base bfdKeys) *underlaySpec {
	s, ok := o.section("underlay", optional, "port and addressPrefixes")
	if !ok {
		return nil
	}
	u := &underlaySpec{path: s.path, mtu: defaultUnderlayMTU}
	u.Port = value(s, "port", required, text, anyText)
	u.VLANID = uint16(value(s, "vlanId", optional, number, circuit.CheckVLANID))
	u.addresses = values(s, "addressPrefixes", required, addressPrefix, checkUnderlayAddress)
	check := between("the length of a packet", "octets", minUnderlayMTU, maxUnderlayMTU)
	if n := int(value(s, "mtu", optional, number, check)); n != 0 {
		u.mtu = n
	}
	s.objects("routes", optional, func(o *object) {
		to := value(o, "addressPrefix", required, prefix, circuit.CheckUnderlayRoute)
		u.routes = append(u.routes, UnderlayRoute{to, value(o, "nextHopIpAddress", required, address, checkHost)})
		u.paths = append(u.paths, o.path)
	})
	if x, ok := s.section("evpn", optional, "neighbors"); ok {
		x.objects("neighbors", required, func(o *object) {
			n := evpnNeighbor{path: o.path, address: value(o, "address", required, address, checkHost)}
			n.asn = uint32(value(o, "peerASN", required, number, between("an AS number", "", 1, 1<<32-1)))
			if n.bfd = r.bfd(o, base); u.beyond(n.address) {
				if n.bfd = (BFD{}); o.has("bfd") {
					r.fault(o.child("bfd"), "", "the neighbour is beyond a router, and BFD goes no further than a link", "none")
				}
			}
			u.neighbors = append(u.neighbors, n)
		})
		x.done()
	}
	s.done()
	return u
}

// addressPrefix reads an address with the length of its subnet.
func addressPrefix(r *reader, it item) (netip.Prefix, bool) {
	const want = "an address with its subnet's length, e.g. 172.16.0.1/24"
	s, ok := text(r, it)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		r.refuse(it, &circuit.Violation{Problem: "not an address with a prefix length", Want: want})
	}
	return p, err == nil
}

func checkUnderlayAddress(p netip.Prefix) *circuit.Violation {
	const want = "a host's address with its subnet's length, e.g. 172.16.0.1/24"
	switch {
	case !p.IsValid():
		return &circuit.Violation{Problem: "no address", Want: want}
	case circuit.CheckUnicast(netip.PrefixFrom(p.Addr(), p.Addr().BitLen())) != nil || p.Addr().Is4In6():
		return &circuit.Violation{Problem: "not a host's address", Want: want}
	case p.Bits() < 8 || p.Bits() > p.Addr().BitLen()-1:
		return &circuit.Violation{Problem: "a subnet without others", Want: want}
	}
	return nil
}

// vxlan reads what hangs a connection on a VXLAN network instead of a VLAN.
func (r *reader) vxlan(o *object) *vxlanSpec {
	s, ok := o.section("vxlan", required, "vni")
	if !ok {
		return nil
	}
	defer s.done()
	x := &vxlanSpec{
		vni:    uint32(value(s, "vni", required, number, between("a VXLAN network identifier", "", 1, vxlan.MaxVNI))),
		remote: values(s, "remoteVteps", optional, address, checkHost),
	}
	if p, ok := s.section("prefixRoutes", optional, "neighbors"); ok {
		x.routes = values(p, "neighbors", optional, address, checkHost)
		x.tellOnly = values(p, "tellOnly", optional, address, checkHost)
		x.alone = word(p, "sessions", optional, stateEnabled, stateDisabled) == stateDisabled
		if x.alone && len(x.routes) == 0 {
			r.fault(p.child("sessions"), stateDisabled, "nobody tells of the other end's prefixes", "neighbors beside it, or Enabled")
		}
		p.done()
	}
	if p, ok := s.section("routeTargets", optional, "import and export"); ok {
		x.imports = values(p, "import", optional, routeTarget, checkTarget)
		x.exports = values(p, "export", optional, routeTarget, checkTarget)
		p.done()
	}
	for _, key := range []string{"port", "vlanId"} {
		if o.has(key) {
			o.get(key, optional, "")
			r.fault(o.child(key), "", "the connection is on a VXLAN network", "no "+key+", or no vxlan")
		}
	}
	return x
}

// routeTarget reads a route target.
func routeTarget(r *reader, it item) (evpn.RT, bool) {
	s, ok := text(r, it)
	if !ok {
		return evpn.RT{}, false
	}
	rt, err := evpn.ParseRT(s)
	if err != nil {
		r.refuse(it, checkTarget(evpn.RT{}))
	}
	return rt, err == nil
}

func checkTarget(rt evpn.RT) *circuit.Violation {
	if rt == (evpn.RT{}) {
		return &circuit.Violation{Problem: "not a route target", Want: "AS:NUMBER or IPv4:NUMBER, e.g. 65000:5001; above AS 65535 and behind an address a number below 65536"}
	}
	return nil
}

// checkUnderlay checks the underlay and the networks over it.
func (r *reader) checkUnderlay(u *underlaySpec, asn uint32, ports []portSpec, connections []connectionSpec, tags registry) {
	if u != nil {
		if port := r.portOf(ports, u.Port, u.path); port != nil {
			if port.Encapsulation == qinQ {
				r.fault(u.path+".port", quote(port.Name), "a QinQ port", "a Dot1Q port: the underlay has one tag at most")
			}
			r.checkTags(tags, port.Name, 0, u.VLANID, r.present(u.path+".vlanId", u.path+".port"))
		}
		families := map[bool]string{}
		for i, p := range u.addresses {
			at := index(u.path+".addressPrefixes", i)
			if first, dup := families[p.Addr().Is4()]; dup && p.IsValid() {
				r.fault(at, p.String(), "a second address of its family", "one: "+r.where(first)+" has it")
			}
			if p.IsValid() {
				families[p.Addr().Is4()] = at
			}
		}
		seen := registry{}
		for i, x := range u.routes {
			r.checkOnUnderlay(u, x.NextHop, u.paths[i]+".nextHopIpAddress")
			if x.Prefix.IsValid() {
				r.unique(seen, x.Prefix.String(), u.paths[i]+".addressPrefix", "route")
			}
			if slices.ContainsFunc(u.addresses, func(p netip.Prefix) bool { return p.Contains(x.Prefix.Addr()) && p.Bits() <= x.Prefix.Bits() }) {
				r.fault(u.paths[i]+".addressPrefix", x.Prefix.String(), "in a subnet of the underlay", "what is beyond")
			}
			if x.Prefix.IsValid() && x.NextHop.IsValid() && x.Prefix.Addr().Is4() != x.NextHop.Is4() {
				r.fault(u.paths[i]+".nextHopIpAddress", x.NextHop.String(), "of another family than its prefix", "an address of that one")
			}
		}
		for _, n := range u.neighbors {
			r.checkRemoteVTEP(u, n.address, n.path+".address")
			if n.address.IsValid() {
				r.unique(seen, n.address.String(), n.path+".address", "neighbor")
			}
			if n.asn == asn {
				r.fault(n.path+".peerASN", fmt.Sprint(n.asn), "our own AS", "another one: the sessions are external")
			}
		}
	}
	vnis := registry{}
	for _, c := range connections {
		if c.vxlan == nil {
			continue
		}
		path := c.path + ".vxlan"
		if u == nil {
			r.fault(path, "", "there is no underlay for its tunnels", "a section underlay")
			continue
		}
		if c.vxlan.vni != 0 {
			r.unique(vnis, fmt.Sprint(c.vxlan.vni), path+".vni", "VNI")
		}
		if len(c.vxlan.remote) == 0 && len(u.neighbors) == 0 {
			r.fault(path+".remoteVteps", "", "nobody tells of the other ends of its tunnels", "their addresses, or underlay.evpn")
		}
		for i, a := range c.vxlan.remote {
			r.checkRemoteVTEP(u, a, index(path+".remoteVteps", i))
		}
		for i, a := range c.vxlan.routes {
			r.checkPrefixRoutes(u, a, index(path+".prefixRoutes.neighbors", i))
		}
		for i, a := range c.vxlan.tellOnly {
			at := index(path+".prefixRoutes.tellOnly", i)
			r.checkPrefixRoutes(u, a, at)
			if a.IsValid() && slices.Contains(c.vxlan.routes, a) {
				r.fault(at, a.String(), "among the neighbors as well", "it in one of the two")
			}
		}
	}
}

// checkRemoteVTEP checks that a is on the underlay, or beyond a router.
func (r *reader) checkRemoteVTEP(u *underlaySpec, a netip.Addr, path string) {
	if !u.beyond(a) {
		r.checkOnUnderlay(u, a, path)
	}
}

// beyond reports whether a router of the underlay leads to a.
func (u *underlaySpec) beyond(a netip.Addr) bool {
	return !slices.ContainsFunc(u.addresses, func(p netip.Prefix) bool { return p.Contains(a) }) &&
		slices.ContainsFunc(u.routes, func(x UnderlayRoute) bool { return x.Prefix.Contains(a) })
}

func (r *reader) checkOnUnderlay(u *underlaySpec, a netip.Addr, path string) {
	if !a.IsValid() || slices.Contains(u.addresses, netip.Prefix{}) {
		return // refused by themselves
	}
	i := slices.IndexFunc(u.addresses, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		r.fault(path, a.String(), "not on the underlay", "an address in a subnet of underlay.addressPrefixes")
	} else if u.addresses[i].Addr() == a {
		r.fault(path, a.String(), "our own end", "the others'")
	}
}

// checkPrefixRoutes checks that a has an EVPN session.
func (r *reader) checkPrefixRoutes(u *underlaySpec, a netip.Addr, path string) {
	if a.IsValid() && u.neighbor(a) == nil {
		r.fault(path, a.String(), "no EVPN neighbour", "the address of one of underlay.evpn.neighbors")
	}
}

// neighbor returns the EVPN neighbour of that address, nil if there is none.
func (u *underlaySpec) neighbor(a netip.Addr) *evpnNeighbor {
	i := slices.IndexFunc(u.neighbors, func(n evpnNeighbor) bool { return n.address == a })
	if i < 0 {
		return nil
	}
	return &u.neighbors[i]
}

// evpnAlone reports whether there are no sessions inside the VNet.
func (c *connectionSpec) evpnAlone() bool { return c.vxlan != nil && c.vxlan.alone }

// sortedRoutes are the routes with the longest first.
func (u *underlaySpec) sortedRoutes() []UnderlayRoute {
	return slices.SortedFunc(slices.Values(u.routes), func(a, b UnderlayRoute) int {
		return cmp.Or(cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
}

func sortedTargets(all []evpn.RT) []evpn.RT {
	return slices.SortedFunc(slices.Values(all), func(a, b evpn.RT) int { return bytes.Compare(a[:], b[:]) })
}

// addPrefixRoutes adds, for each neighbour that IP prefix routes are exchanged with, what
// stands for a session of the family of s.
func (c *connectionSpec) addPrefixRoutes(v *VRF, s Session, u *underlaySpec) {
	if c.vxlan == nil {
		return
	}
	for _, a := range slices.Concat(c.vxlan.routes, c.vxlan.tellOnly) {
		s.Name, s.Peer, s.PeerAS = fmt.Sprintf("%s/v%d/%s", v.Name, c.vxlan.vni, a), a, u.neighbor(a).asn
		s.Carrier, s.TellOnly = UnderlayVRF+"/"+a.String(), slices.Contains(c.vxlan.tellOnly, a)
		if s.Local.Is6() {
			s.Name += "/ipv6"
		}
		v.Sessions = append(v.Sessions, s)
	}
}

// compile returns the VRF that tunnels run in.
func (u *underlaySpec) compile(t timers) VRF {
	s := Subinterface{
		Name: subinterfaceName(u.Port, 0, u.VLANID),
		Port: u.Port, CTag: u.VLANID, MTU: u.mtu, Side: SideUnderlay, Addresses: slices.Clone(u.addresses), Routes: u.sortedRoutes(),
	}
	slices.SortFunc(s.Addresses, comparePrefixes)
	v := VRF{Name: UnderlayVRF, Subinterfaces: []Subinterface{s}}
	for _, n := range u.neighbors {
		for _, a := range s.Addresses {
			if a.Contains(n.address) || u.beyond(n.address) && a.Addr().Is4() == n.address.Is4() {
				v.addSession(Session{Subinterface: s.Name, Local: a.Addr(), Peer: n.address, PeerAS: n.asn,
					Side: SideUnderlay, Enabled: true, GracefulRestart: true, EVPN: true, BFD: n.bfd, Multihop: u.beyond(n.address)}, t)
			}
		}
	}
	return v
}

// subinterface returns the subinterface of a connection: on its VLAN, or on its
// VXLAN network over u.
func (c *connectionSpec) subinterface(u *underlaySpec) Subinterface {
	if c.vxlan == nil {
		port := c.attachment.Port
		return Subinterface{Name: subinterfaceName(port, 0, c.VLANID), Port: port, CTag: c.VLANID, MTU: c.mtu, Side: SideCore}
	}
	x := &VXLAN{VNI: c.vxlan.vni, Underlay: subinterfaceName(u.Port, 0, u.VLANID), Remote: slices.Clone(c.vxlan.remote)}
	for _, p := range u.addresses {
		x.Local = append(x.Local, p.Addr())
	}
	slices.SortFunc(x.Local, netip.Addr.Compare)
	slices.SortFunc(x.Remote, netip.Addr.Compare)
	x.Import, x.Export = sortedTargets(c.vxlan.imports), sortedTargets(c.vxlan.exports)
	x.Routes = u.sortedRoutes()
	inner := c.mtu
	ends := slices.Clone(x.Remote)
	for _, n := range u.neighbors { // what they tell of is of their family
		ends = append(ends, n.address)
	}
	for _, a := range ends {
		inner = min(inner, u.mtu-vxlan.Overhead(a.Is6()))
	}
	return Subinterface{Name: fmt.Sprintf("%s.v%d", u.Port, x.VNI), Port: u.Port, VXLAN: x, MTU: inner, Side: SideCore}
}
