package config

import (
	"fmt"
	"slices"
	"strings"

	"msee/circuit"
)

// This file and overlap.go have the rules between values. Each skips what is
// absent or was refused by itself.

// checkEdge checks a file that describes an MSEE.
func (r *reader) checkEdge(f *edgeFile) {
	r.checkPorts(f.ports)
	names, stags, tags := registry{}, registry{}, registry{}
	for _, c := range f.circuits {
		r.unique(names, c.Name, c.path+".name", "circuit")
		r.checkPeeringTypes(c)
		port := r.portOf(f.ports, c.port, c.path)
		if port == nil {
			continue
		}
		r.checkSTag(c, port, stags)
		for i, p := range c.Peerings {
			r.checkTags(tags, c.port, c.STag, p.VLANID, c.peeringPaths[i]+".vlanId")
		}
	}
	r.checkPeeringSubnets(f.circuits)
	r.checkConnections(f.connections, f.ports, tags)
	r.checkUnderlay(f.underlay, circuit.ASNMSEE, f.ports, f.connections, tags)
	r.checkCircuitsOf(f)
	r.checkRouteFilters(f)
}

// checkGateway checks a file that describes a gateway instance.
func (r *reader) checkGateway(f *gatewayFile) {
	r.checkPorts(f.ports)
	for _, p := range f.ports {
		if p.Encapsulation == qinQ {
			r.fault(p.path+".encapsulation", string(qinQ), "a gateway's ports carry one tag at most", string(dot1Q))
		}
	}
	names, tags := registry{}, registry{}
	for i, s := range f.subnets {
		r.unique(names, f.vnet.Subnets[i].Name, s.path+".name", "subnet")
		r.checkFamilies(f.vnet.Subnets[i].AddressPrefixes, s.path+".addressPrefixes")
		if r.portOf(f.ports, s.Port, s.path) != nil {
			r.checkTags(tags, s.Port, 0, s.VLANID, r.present(s.path+".vlanId", s.path+".port"))
		}
	}
	r.checkConnections(f.connections, f.ports, tags)
	r.checkUnderlay(f.underlay, circuit.ASNGateway, f.ports, f.connections, tags)
	if f.underlay != nil && f.vnet.Name == UnderlayVRF {
		r.fault("virtualNetwork.name", quote(UnderlayVRF), "the name of the VRF that tunnels run in", "another name")
	}
	r.checkAddressSpace(f)
	r.checkEndpoints(f)
}

// registry maps what must be unique to the path that has it first.
type registry map[string]string

// unique refuses the second use of a name.
func (r *reader) unique(seen registry, name, path, what string) {
	if name == "" {
		return
	}
	if first, dup := seen[name]; dup {
		r.fault(path, quote(name), what+" name used twice", "another one: "+r.where(first)+" has it")
		return
	}
	seen[name] = path
}

func (r *reader) checkPorts(ports []portSpec) {
	r.checkCrossConnects(ports)
	names, devices := registry{}, registry{}
	for _, p := range ports {
		r.unique(names, p.Name, p.path+".name", "port")
		if first, dup := devices[p.Device]; dup && p.Device != "" {
			r.fault(p.path+".device", quote(p.Device), "device used twice", "another one: "+r.where(first)+" has it")
		} else {
			devices[p.Device] = p.path + ".device"
		}
	}
}

// checkCrossConnects wants cross-connected ports to name each other.
func (r *reader) checkCrossConnects(ports []portSpec) {
	for _, p := range ports {
		if p.CrossConnect == "" {
			continue
		}
		path := p.path + ".crossConnect"
		switch other := findPort(ports, p.CrossConnect); {
		case other == nil:
			names := make([]string, len(ports))
			for i := range ports {
				names[i] = ports[i].Name
			}
			r.noSuch(path, p.CrossConnect, "port", names)
		case other.Name == p.Name:
			r.fault(path, quote(p.CrossConnect), "the port itself", "another port")
		case other.CrossConnect != p.Name:
			r.fault(path, quote(p.CrossConnect), "the other port does not say so", fmt.Sprintf("crossConnect: %s on port %s", p.Name, other.Name))
		}
	}
}

// portOf resolves the reference to a port that stands at path.port.
func (r *reader) portOf(ports []portSpec, name, path string) *portSpec {
	if name == "" {
		return nil
	}
	p := findPort(ports, name)
	if p == nil {
		names := make([]string, len(ports))
		for i := range ports {
			names[i] = ports[i].Name
		}
		r.noSuch(path+".port", name, "port", names)
		return nil
	}
	if p.CrossConnect != "" {
		r.fault(path+".port", quote(name), "a port with crossConnect: its frames are not the router's", "another port")
		return nil
	}
	return p
}

// noSuch refuses a reference to what is not among known, unless the name of one
// of those was refused, which may be the one that is meant.
func (r *reader) noSuch(path, name, what string, known []string) {
	const most = 16
	if slices.Contains(known, "") {
		return
	}
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	want := fmt.Sprintf("one of the %d of this file", len(known))
	if len(known) <= most {
		want = oneOf(known)
	}
	r.fault(path, quote(name), "no such "+what, want)
}

// checkSTag checks that a circuit has an S-tag of its own exactly where its
// port is QinQ.
func (r *reader) checkSTag(c circuitSpec, port *portSpec, seen registry) {
	path := c.path + ".stag"
	_, given := r.given(path, c.path)
	switch {
	case port.Encapsulation == qinQ && !given:
		r.fault(path, "", "missing", fmt.Sprintf("1 to 4094: port %s is QinQ", port.Name))
	case port.Encapsulation == dot1Q && given:
		r.fault(path, fmt.Sprint(c.STag), "an S-tag on a Dot1Q port", fmt.Sprintf("no stag, or encapsulation QinQ on port %s", port.Name))
	case port.Encapsulation == qinQ && c.STag != 0:
		key := fmt.Sprint(port.Name, ".", c.STag)
		if first, dup := seen[key]; dup {
			r.fault(path, fmt.Sprint(c.STag), "S-tag used twice on port "+port.Name,
				"one per circuit: "+r.where(first)+" has it")
			return
		}
		seen[key] = path
	}
}

// given reports whether the file has a value of its own at path: one that is
// missing is placed where its parent is.
func (r *reader) given(path, parent string) (place, bool) {
	at, known := r.places[path]
	return at, known && at != r.places[parent]
}

// present returns path if the file has a value there, else other.
func (r *reader) present(path, other string) string {
	if _, ok := r.given(path, path[:strings.LastIndexByte(path, '.')]); ok {
		return path
	}
	return other
}

// checkTags refuses the second subinterface with the same tags on a port. A
// C-tag of 0 stands for an untagged subinterface at path x.port, and for a
// refused value at x.vlanId.
func (r *reader) checkTags(seen registry, port string, stag, ctag uint16, path string) {
	if ctag == 0 && strings.HasSuffix(path, ".vlanId") {
		return
	}
	name := subinterfaceName(port, stag, ctag)
	if first, dup := seen[name]; dup {
		what, got := "VLAN", fmt.Sprint(ctag)
		switch {
		case stag != 0:
			what, got = "pair of tags", fmt.Sprintf("S-tag %d, C-tag %d", stag, ctag)
		case ctag == 0:
			what, got = "untagged traffic", quote(port)
		}
		r.fault(path, got, fmt.Sprintf("%s used twice on port %s", what, port), "another one: "+r.where(first)+" has it")
		return
	}
	seen[name] = path
}

func (r *reader) checkPeeringTypes(c circuitSpec) {
	seen := registry{}
	for i, p := range c.Peerings {
		path := c.peeringPaths[i] + ".peeringType"
		if first, dup := seen[string(p.PeeringType)]; dup && p.PeeringType != "" {
			r.fault(path, string(p.PeeringType), "peering type used twice", "one of each per circuit: "+r.where(first)+" has it")
		} else {
			seen[string(p.PeeringType)] = path
		}
	}
}

// checkConnections checks names and attachments; it adds to the tags in use.
func (r *reader) checkConnections(connections []connectionSpec, ports []portSpec, tags registry) {
	names := registry{}
	for _, c := range connections {
		r.unique(names, c.Name, c.path+".name", "connection")
		if c.vxlan != nil {
			continue // see checkUnderlay
		}
		port := r.portOf(ports, c.attachment.Port, c.path)
		if port == nil {
			continue
		}
		if port.Encapsulation == qinQ {
			r.fault(c.path+".port", quote(port.Name), "a QinQ port", "a Dot1Q port: a connection has one tag")
			continue
		}
		r.checkTags(tags, port.Name, 0, c.VLANID, c.path+".vlanId")
	}
}
