package config

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"msee/circuit"
	"msee/community"
	"msee/rpsl"
)

// What a Microsoft peering announces, and to whom the customer's prefixes
// belong: route filters, the list of services, the routing registries.

// opener opens a file that the configuration names.
type opener func(name string) (io.ReadCloser, error)

// openRegular opens a file that has an end and keeps nobody waiting.
func openRegular(name string) (io.ReadCloser, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return os.Open(name)
}

// routeFilter is a route filter as configured. Azure allows it one rule.
type routeFilter struct {
	name        string
	communities []community.Value
	path        string
}

// routeFilters reads the list of route filters.
func (r *reader) routeFilters(o *object) []routeFilter {
	var filters []routeFilter
	names := registry{}
	o.objects("routeFilters", optional, func(o *object) {
		f := routeFilter{path: o.path}
		f.name = value(o, "name", required, text, checkName)
		r.unique(names, f.name, o.path+".name", "route filter")
		rules := 0
		o.objects("rules", required, func(o *object) {
			if rules++; rules > 1 {
				r.fault(o.path, "", "a second rule", "one rule per route filter")
			}
			if o.has("name") {
				value(o, "name", optional, text, checkName)
			} else {
				o.get("name", optional, "")
			}
			word(o, "routeFilterRuleType", optional, "Community")
			if access := word(o, "access", optional, "Allow", "Deny"); access == "Deny" {
				r.fault(o.child("access"), access, "not offered by Azure", "Allow: what no rule allows is not announced")
			}
			for _, s := range values(o, "communities", required, text, circuit.CheckServiceCommunity) {
				v, _ := community.Parse(s) // what is no community was refused
				f.communities = append(f.communities, v)
			}
		})
		filters = append(filters, f)
	})
	return filters
}

// filterNamed resolves the reference at path; nil if it is none.
func (f *edgeFile) filterNamed(name string) []community.Value {
	for _, filter := range f.filters {
		if filter.name == name && name != "" {
			return slices.Sorted(slices.Values(filter.communities))
		}
	}
	return nil
}

// checkRouteFilters checks the references to route filters, and that no filter
// has a community that its owner is not authorised for.
func (r *reader) checkRouteFilters(f *edgeFile) {
	var names []string
	for _, filter := range f.filters {
		names = append(names, filter.name)
		for i, v := range filter.communities {
			if c := findCommunity(f.services, v); c != nil && !c.Authorized {
				path := index(filter.path+".rules[0].communities", i)
				r.fault(path, v.String(), "not authorised: "+c.Name, "a community that bgpServiceCommunities has isAuthorizedToUse for")
			}
		}
	}
	check := func(name, path string) {
		if name != "" && !slices.Contains(names, name) {
			if len(names) == 0 {
				r.fault(path, quote(name), "no such route filter", "one of routeFilters, which is not there")
				return
			}
			r.noSuch(path, name, "route filter", names)
		}
	}
	for _, c := range f.circuits {
		for i, p := range c.Peerings {
			check(p.RouteFilter, c.peeringPaths[i]+".routeFilter")
			if p.IPv6PeeringConfig != nil {
				check(p.IPv6PeeringConfig.RouteFilter, c.peeringPaths[i]+".ipv6PeeringConfig.routeFilter")
			}
		}
	}
}

func findCommunity(services []community.Service, v community.Value) *community.ServiceCommunity {
	for i := range services {
		for j := range services[i].Communities {
			if c := &services[i].Communities[j]; c.Value == v {
				return c
			}
		}
	}
	return nil
}

// services reads the list of services that the file names, or takes the
// built-in sample.
func (r *reader) services(o *object) []community.Service {
	it, ok := o.get("bgpServiceCommunities", optional, "")
	if !ok {
		return community.Sample()
	}
	data, ok := r.readFile(it, community.MaxServicesSize)
	if !ok {
		return nil
	}
	services, err := community.ParseServices(data)
	if err != nil {
		r.refuse(it, &circuit.Violation{Problem: err.Error(), Want: "what az network route-filter rule list-service-communities prints"})
	}
	return services
}

// readFile reads the file that an item names, of at most limit octets.
func (r *reader) readFile(it item, limit int64) ([]byte, bool) {
	f, ok := r.openFile(it)
	if !ok {
		return nil, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		r.refuse(it, &circuit.Violation{Problem: "cannot be read: " + err.Error()})
		return nil, false
	}
	return data, true
}

func (r *reader) openFile(it item) (io.ReadCloser, bool) {
	name, ok := text(r, it)
	if !ok {
		return nil, false
	}
	if r.open == nil {
		r.refuse(it, &circuit.Violation{Problem: "no file can be read here"})
		return nil, false
	}
	f, err := r.open(name)
	if err != nil {
		r.refuse(it, &circuit.Violation{Problem: "cannot be opened: " + err.Error(), Want: "a file, by a path relative to this one's"})
		return nil, false
	}
	return f, true
}

// validate asks the routing registries that the file names for the prefixes of
// its Microsoft peerings. Without any they are taken on trust: all Configured.
func (r *reader) validate(f *edgeFile) {
	if len(f.registries) == 0 {
		return
	}
	wanted := map[netip.Prefix]bool{} // the prefixes, and all that contain them
	f.eachPublicPrefix(func(_ *circuit.Peering, _ *circuit.MicrosoftPeeringConfig, p netip.Prefix) {
		for bits := 0; bits <= p.Bits() && p.IsValid(); bits++ {
			q, _ := p.Addr().Prefix(bits)
			wanted[q] = true
		}
	})
	var found []rpsl.Route
	for _, it := range f.registries {
		r.readRegistry(it, func(route rpsl.Route) {
			if wanted[route.Prefix] {
				found = append(found, route)
			}
		})
	}
	f.states = map[stateKey]circuit.ValidationState{}
	f.eachPublicPrefix(func(peering *circuit.Peering, m *circuit.MicrosoftPeeringConfig, p netip.Prefix) {
		f.states[stateKey{m, p}] = m.Validate(p, peering.OriginASN(m), found)
	})
}

// readRegistry reads one registry's file, which may be compressed.
func (r *reader) readRegistry(it item, each func(rpsl.Route)) {
	file, ok := r.openFile(it)
	if !ok {
		return
	}
	defer file.Close()
	in := bufio.NewReader(file)
	var from io.Reader = in
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			r.refuse(it, &circuit.Violation{Problem: "cannot be read: " + err.Error()})
			return
		}
		from = z
	}
	stats, err := rpsl.Read(from, each)
	switch {
	case err != nil:
		r.refuse(it, &circuit.Violation{Problem: "cannot be read: " + err.Error()})
	case stats.Routes == 0:
		problem := "no route or route6 object in it"
		if stats.First != "" {
			problem = fmt.Sprintf("no good route object in it (%s)", stats.First)
		}
		r.refuse(it, &circuit.Violation{Problem: problem, Want: "a routing registry's database in RPSL, plain or gzip"})
	}
}

// stateKey names a prefix of a peering's half.
type stateKey struct {
	config *circuit.MicrosoftPeeringConfig
	prefix netip.Prefix
}

// stateOf is the validation state of a prefix.
func (f *edgeFile) stateOf(m *circuit.MicrosoftPeeringConfig, p netip.Prefix) circuit.ValidationState {
	if f.states == nil {
		return circuit.Configured
	}
	return f.states[stateKey{m, p}]
}

func (f *edgeFile) eachPublicPrefix(do func(*circuit.Peering, *circuit.MicrosoftPeeringConfig, netip.Prefix)) {
	for i := range f.circuits {
		for j := range f.circuits[i].Peerings {
			p := &f.circuits[i].Peerings[j]
			halves := []*circuit.MicrosoftPeeringConfig{p.MicrosoftPeeringConfig}
			if p.IPv6PeeringConfig != nil {
				halves = append(halves, p.IPv6PeeringConfig.MicrosoftPeeringConfig)
			}
			for _, m := range halves {
				if m == nil {
					continue
				}
				for _, prefix := range m.AdvertisedPublicPrefixes {
					do(p, m, prefix)
				}
			}
		}
	}
}

// compileMicrosoft completes the VRF of a Microsoft peering.
func (f *edgeFile) compileMicrosoft(v *VRF, c *circuitSpec, p *circuit.Peering) {
	v.RouteFilterName, v.RouteFilter = p.RouteFilter, f.filterNamed(p.RouteFilter)
	f.advertise(v, p.MicrosoftPeeringConfig)
	if v6 := p.IPv6PeeringConfig; v6 != nil {
		v.RouteFilterIPv6Name, v.RouteFilterIPv6 = v6.RouteFilter, f.filterNamed(v6.RouteFilter)
		f.advertise(v, v6.MicrosoftPeeringConfig)
	}
	slices.SortFunc(v.Advertised, func(a, b Advertised) int { return comparePrefixes(a.Prefix, b.Prefix) })
	reached := func(value community.Value) bool { return c.WhyNotReached(value) == "" }
	for _, m := range community.Prefixes(f.services, reached) {
		v.Originate = append(v.Originate, Originated(m))
	}
	for _, conn := range f.connections {
		if conn.public && conn.Circuit == c.Name {
			f.compilePublicConnection(v, conn)
		}
	}
}

// advertise sorts out which prefixes the customer may announce.
func (f *edgeFile) advertise(v *VRF, m *circuit.MicrosoftPeeringConfig) {
	if m == nil {
		return
	}
	for _, p := range m.AdvertisedPublicPrefixes {
		state := f.stateOf(m, p)
		v.Advertised = append(v.Advertised, Advertised{p, state})
		if state == circuit.Configured {
			v.AllowedPrefixes = append(v.AllowedPrefixes, p)
		}
	}
}

// compilePublicConnection adds the MSEE's end of a connection to Microsoft's
// network: an address in the subnet, and a session to the router there.
func (f *edgeFile) compilePublicConnection(v *VRF, c connectionSpec) {
	s := c.subinterface(nil)
	for _, subnet := range c.gatewaySubnets() {
		local := circuit.MSEECoreAddress(subnet, f.role)
		s.Addresses = append(s.Addresses, netip.PrefixFrom(local, subnet.Bits()))
		v.addSession(Session{
			Subinterface: s.Name, Local: local, Peer: circuit.GatewayAddress(subnet, 0),
			PeerAS: circuit.ASNMicrosoft, Side: SideMicrosoft, Connection: c.Name, Enabled: true, BFD: c.bfd,
		}, f.timers)
	}
	v.Subinterfaces = append(v.Subinterfaces, s)
}
