package edge

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"msee/bgp"
	"msee/circuit"
	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
)

// fastPathEdge is the control side of FastPath without a kernel: two circuits on
// one provider's port, each with a connection of two gateway instances.
type fastPathEdge struct {
	*Edge
	t testing.TB
}

// programmed is how many endpoints are in the exact match, of all VRFs.
func (e *fastPathEdge) programmed() (n int) {
	e.t.Helper()
	for _, v := range e.vrfs {
		n += v.endpoints.dp.Len()
		all := v.endpoints.programmed
		for why, n := range v.endpoints.refused {
			if all += n; n <= 0 {
				e.t.Errorf("%d endpoints are refused: %s", n, why)
			}
		}
		if v.endpoints.programmed != v.endpoints.dp.Len() || all != len(v.endpoints.all) {
			e.t.Errorf("%s has %d endpoints, %d in the table; counted are %d and %d", v.cfg.Name, len(v.endpoints.all), v.endpoints.dp.Len(), all, v.endpoints.programmed)
		}
	}
	return n
}

func newFastPathEdge(t testing.TB) *fastPathEdge {
	log := slog.New(slog.DiscardHandler)
	e := &Edge{log: log, engine: dataplane.NewEngine(log), device: &config.Device{Kind: config.KindEdge, Ports: []config.Port{{Name: "cust"}}},
		vrfs: map[string]*vrf{}, sessions: map[string]*session{}, asking: map[hop]bool{},
		fastPath: &dataplane.FastPath{}, endpointPorts: map[string]*endpointPort{}}
	for i, name := range []string{"er1-private", "er2-private"} {
		v := &vrf{index: i, subs: map[string]*subinterface{}, fwd: newForwarding(), cfg: config.VRF{Name: name,
			PeeringType: string(circuit.AzurePrivatePeering),
			Subinterfaces: []config.Subinterface{{Name: "cust." + name, Port: "cust", Side: config.SideCustomer},
				{Name: "core." + name, Port: "core", Side: config.SideCore, Addresses: []netip.Prefix{netip.MustParsePrefix("10.100.255.4/27")}}}}}
		v.endpoints = newEndpoints(e.fastPath)
		core := &subinterface{vrf: v, cfg: v.cfg.Subinterfaces[1], dp: &dataplane.Subinterface{Name: v.cfg.Subinterfaces[1].Name},
			port: &portState{port: closedPair(t)}}
		v.subs[core.cfg.Name] = core
		for _, peer := range []string{"10.100.255.12", "10.100.255.13"} {
			s := config.Session{Name: name + "/" + peer, Subinterface: core.cfg.Name, Side: config.SideCore, Connection: "vnet", PeerAS: circuit.ASNGateway,
				Local: netip.MustParseAddr("10.100.255.4"), Peer: netip.MustParseAddr(peer),
				FastPath: circuit.FastPath{ExpressRouteGatewayBypass: true, GatewaySKU: "ErGw3AZ"}}
			v.cfg.Sessions = append(v.cfg.Sessions, s)
			e.sessions[s.Name] = &session{cfg: s, vrf: v}
		}
		v.rib = bgp.NewRIB(e.policy(v.cfg), e.peers(v.cfg))
		for _, s := range v.cfg.Sessions {
			v.rib.Apply(bgp.Update{Session: s.Name, Announce: []bgp.Route{gatewayPrefix("10.0.0.0/8", s)}})
		}
		e.vrfs[name] = v
	}
	return &fastPathEdge{e, t}
}

func closedPair(t testing.TB) port.Port {
	a, b := port.NewPollPair(port.PairOptions{})
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func endpointRoute(addr, host string, kind circuit.EndpointKind) bgp.Route {
	a := netip.MustParseAddr(addr)
	return bgp.Route{Prefix: netip.PrefixFrom(a, a.BitLen()), Attrs: &bgp.Attrs{NextHop: netip.MustParseAddr(host),
		Communities: []uint32{endpointCommunity + uint32(slices.Index(circuit.EndpointKinds, kind))}}}
}

// gatewayPrefix is a prefix as a gateway announces it.
func gatewayPrefix(prefix string, s config.Session) bgp.Route {
	return bgp.Route{Prefix: netip.MustParsePrefix(prefix), Attrs: &bgp.Attrs{NextHop: s.Peer, Origin: bgp.OriginIGP,
		ASPath: []uint32{bgp.ASGateway}}}
}

// say delivers what a session announces, and returns what is left for the RIB.
func (e *fastPathEdge) say(session string, routes ...bgp.Route) []bgp.Route {
	return e.endpointUpdate(e.sessions[session], bgp.Update{Session: session, Announce: routes}).Announce
}

func (e *fastPathEdge) withdraw(session, addr string) {
	e.endpointUpdate(e.sessions[session], bgp.Update{Session: session, Withdraw: []netip.Prefix{host(netip.MustParseAddr(addr))}})
}

// want checks what the table that the workers read says of an address: the
// host's address, or part of why there is none.
func (e *fastPathEdge) want(vrf, addr, want string) {
	e.t.Helper()
	v := e.vrfs[vrf]
	a := netip.MustParseAddr(addr)
	got := e.explainFastPath(v, a)
	if hit := v.endpoints.dp.Lookup(a) != 0; hit != strings.Contains(got, "host 10.") {
		e.t.Errorf("%s in %s: the table says %v, the explanation %q", addr, vrf, hit, got)
	}
	if !strings.Contains(got, want) {
		e.t.Errorf("%s in %s: %q, want %q", addr, vrf, got, want)
	}
}

const (
	er1a, er1b = "er1-private/10.100.255.12", "er1-private/10.100.255.13"
	er2a       = "er2-private/10.100.255.12"
	vm         = circuit.EndpointVirtualMachine
)

func TestEndpointsFollowTheGateways(t *testing.T) {
	e := newFastPathEdge(t)
	prefix := bgp.Route{Prefix: netip.MustParsePrefix("10.100.0.0/16"), Attrs: &bgp.Attrs{}}
	rest := e.say(er1a, prefix, endpointRoute("10.100.1.10", "10.100.255.20", vm), prefix)
	if len(rest) != 2 || rest[0].Prefix != prefix.Prefix {
		t.Errorf("left for the RIB: %v", rest)
	}
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20")
	e.want("er2-private", "10.100.1.10", "not an endpoint")
	e.say(er1b, endpointRoute("10.100.1.10", "10.100.255.20", vm))
	e.withdraw(er1a, "10.100.1.10")
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20") // the other instance still says so

	// Live migration: the latest word counts, whoever has it, and repeating an
	// old one is not a later word.
	e.say(er1a, endpointRoute("10.100.1.10", "10.100.255.21", vm))
	e.want("er1-private", "10.100.1.10", "host 10.100.255.21")
	e.say(er1b, endpointRoute("10.100.1.10", "10.100.255.20", vm))
	e.want("er1-private", "10.100.1.10", "host 10.100.255.21")
	e.say(er1b, endpointRoute("10.100.1.10", "10.100.255.21", vm))
	if n := len(e.vrfs["er1-private"].endpoints.hosts); n != 1 {
		t.Errorf("%d hosts in use", n)
	}
	e.endpointsGone(e.vrfs["er1-private"], er1a, false)
	e.endpointsGone(e.vrfs["er1-private"], er1b, false)
	e.want("er1-private", "10.100.1.10", "not an endpoint")
	if v := e.vrfs["er1-private"]; e.programmed() != 0 || len(v.endpoints.hosts) != 0 || len(v.fwd.adjacencies) != 0 || e.endpointPorts["cust"].used != 0 {
		t.Errorf("something remains: %d entries, %d hosts, %d adjacencies, %d counted",
			e.programmed(), len(v.endpoints.hosts), len(v.fwd.adjacencies), e.endpointPorts["cust"].used)
	}
}

func TestEndpointsRefused(t *testing.T) {
	e := newFastPathEdge(t)
	e.say(er1a,
		endpointRoute("10.100.1.10", "10.100.255.20", circuit.EndpointPeeredVirtualMachine),
		endpointRoute("10.100.1.11", "10.100.255.20", circuit.EndpointBasicLoadBalancer),
		endpointRoute("10.100.1.12", "192.0.2.1", vm),
		endpointRoute("10.100.1.13", "10.100.255.4", vm))
	e.want("er1-private", "10.100.1.10", "Direct only")
	e.want("er1-private", "10.100.1.11", "always goes by the gateway")
	e.want("er1-private", "10.100.1.12", "not on the connection's GatewaySubnet")
	e.want("er1-private", "10.100.1.13", "not on the connection's GatewaySubnet") // our own address
	customer := &session{cfg: config.Session{Name: "ce", Side: config.SideCustomer}, vrf: e.vrfs["er1-private"]}
	u := bgp.Update{Announce: []bgp.Route{endpointRoute("10.100.1.14", "10.100.255.20", vm)}}
	if rest := e.endpointUpdate(customer, u); len(rest.Announce) != 1 {
		t.Error("a customer's route was taken for an endpoint")
	}
}

// TestFastPathToggle: switched off and on, entries go and come; nothing else.
func TestFastPathToggle(t *testing.T) {
	e := newFastPathEdge(t)
	e.say(er1a, endpointRoute("10.100.1.10", "10.100.255.20", vm))
	e.say(er2a, endpointRoute("10.100.1.10", "10.100.255.21", vm))
	set := func(on bool, sku circuit.GatewaySKU) {
		for _, s := range e.sessions {
			if s.vrf.cfg.Name == "er1-private" {
				s.cfg.FastPath.ExpressRouteGatewayBypass, s.cfg.FastPath.GatewaySKU = on, sku
			}
		}
		e.reviewEndpoints()
	}
	set(false, "ErGw3AZ")
	e.want("er1-private", "10.100.1.10", "expressRouteGatewayBypass is off")
	e.want("er2-private", "10.100.1.10", "host 10.100.255.21")
	set(true, "ErGw1AZ")
	e.want("er1-private", "10.100.1.10", "SKU ErGw1AZ")
	set(true, "UltraPerformance")
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20")
}

// TestFastPathLimit: the circuits of a port share its limit; what is above goes
// by the gateway until there is room.
func TestFastPathLimit(t *testing.T) {
	e := newFastPathEdge(t)
	addr := func(i int) string {
		return netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)}).String()
	}
	const limit = 25_000
	for i := range limit - 1 {
		e.say(er1a, endpointRoute(addr(i), "10.100.255.20", vm))
	}
	e.say(er2a, endpointRoute("10.200.0.1", "10.100.255.20", vm), endpointRoute("10.200.0.2", "10.100.255.20", vm))
	e.want("er2-private", "10.200.0.1", "host 10.100.255.20")
	e.want("er2-private", "10.200.0.2", "limit of the port")
	if n := e.programmed(); n != limit {
		t.Errorf("%d entries, want %d", n, limit)
	}
	e.say(er1a, endpointRoute(addr(0), "10.100.255.21", vm)) // one that is in may move
	e.want("er1-private", addr(0), "host 10.100.255.21")
	e.withdraw(er1a, addr(0))
	e.want("er2-private", "10.200.0.2", "host 10.100.255.20")
	e.forgetEndpoints(e.vrfs["er1-private"])
	if n := e.programmed(); n != 2 || e.endpointPorts["cust"].used != 2 {
		t.Errorf("with one VRF gone %d entries, %d counted; want 2", n, e.endpointPorts["cust"].used)
	}
}

// TestEndpointsOutliveTheSpeaker: routes of a speaker that died stay until the
// session has told them anew, or not.
func TestEndpointsOutliveTheSpeaker(t *testing.T) {
	e := newFastPathEdge(t)
	v := e.vrfs["er1-private"]
	e.say(er1a, endpointRoute("10.100.1.10", "10.100.255.20", vm), endpointRoute("10.100.1.11", "10.100.255.20", vm))
	v.endpointsStale("")
	e.want("er1-private", "10.100.1.11", "host 10.100.255.20")
	e.say(er1a, endpointRoute("10.100.1.10", "10.100.255.20", vm))
	e.endpointsGone(v, er1a, true)
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20")
	e.want("er1-private", "10.100.1.11", "not an endpoint")
}

// TestForeignEndpoints: a gateway tells of addresses in its own prefixes only, and
// for as long as it announces those.
func TestForeignEndpoints(t *testing.T) {
	e := newFastPathEdge(t)
	v, a, b := e.vrfs["er1-private"], e.sessions[er1a], e.sessions[er1b]
	apply := func(u bgp.Update) {
		u = e.endpointUpdate(e.sessions[u.Session], u)
		v.rib.Apply(u)
		e.reviewAnnounced()
	}
	all := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	apply(bgp.Update{Session: er1a, Withdraw: all, Announce: []bgp.Route{gatewayPrefix("10.100.0.0/16", a.cfg)}})
	apply(bgp.Update{Session: er1b, Withdraw: all, Announce: []bgp.Route{gatewayPrefix("10.101.0.0/16", b.cfg)}})
	apply(bgp.Update{Session: er1a, Announce: []bgp.Route{endpointRoute("10.100.1.10", "10.100.255.20", vm), endpointRoute("10.101.1.10", "10.100.255.20", vm)}})
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20")
	e.want("er1-private", "10.101.1.10", "in no prefix that its gateway announces")
	apply(bgp.Update{Session: er1b, Announce: []bgp.Route{endpointRoute("10.101.1.10", "10.100.255.21", vm)}})
	e.want("er1-private", "10.101.1.10", "host 10.100.255.21")
	apply(bgp.Update{Session: er1a, Withdraw: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}})
	e.want("er1-private", "10.100.1.10", "in no prefix that its gateway announces")
	apply(bgp.Update{Session: er1a, Announce: []bgp.Route{gatewayPrefix("10.100.1.0/24", a.cfg)}})
	e.want("er1-private", "10.100.1.10", "host 10.100.255.20")
}

// TestLimitOfDirect: on a 100 Gbit/s port of ExpressRoute Direct 200,000 endpoints
// are programmed; the next is refused, counted and reported, and goes by the
// gateway.
func TestLimitOfDirect(t *testing.T) {
	e := newFastPathEdge(t)
	e.device.Ports[0].DirectGbps = 100
	e.calls, e.stop = make(chan func()), make(chan struct{})
	const limit = 200_000
	addr := func(i int) string {
		return netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)}).String()
	}
	for i := range limit {
		e.say(er1a, endpointRoute(addr(i), "10.100.255.20", vm))
	}
	if n := e.programmed(); n != limit {
		t.Fatalf("%d programmed", n)
	}
	e.say(er1a, endpointRoute(addr(limit), "10.100.255.20", vm))
	if n := e.programmed(); n != limit {
		t.Errorf("%d programmed, the limit is %d", n, limit)
	}
	e.want("er1-private", addr(limit), "limit of the port")
	e.want("er1-private", addr(limit-1), "host 10.100.255.20")
	go func() {
		for call := range e.calls {
			call()
		}
	}()
	defer close(e.calls)
	rows, err := e.FastPath()
	if err != nil || len(rows) != 2 || rows[0].Alert == "" || rows[0].Waiting != 1 || rows[0].Limit != limit || rows[0].Refused[string(circuit.RefusedLimit)] != 1 {
		t.Errorf("show fastpath: %+v, %v", rows, err)
	}
	e.withdraw(er1a, addr(7))
	e.want("er1-private", addr(limit), "host 10.100.255.20")
}

// TestEndpointsOfOneSession: a gateway that tells of more and more endpoints does
// not use up the memory, and keeps nothing from another.
func TestEndpointsOfOneSession(t *testing.T) {
	e := newFastPathEdge(t)
	e.calls, e.stop = make(chan func()), make(chan struct{})
	v := e.vrfs["er1-private"]
	v.endpoints.most = 3
	addr := func(i int) string { return netip.AddrFrom4([4]byte{10, 100, 1, byte(i)}).String() }
	for range 2 { // said again is not one more
		for i := range 5 {
			e.say(er1a, endpointRoute(addr(i), "10.100.255.20", vm))
		}
	}
	e.want("er1-private", addr(2), "host 10.100.255.20")
	e.want("er1-private", addr(3), "not an endpoint")
	if n := len(v.endpoints.all); n != 3 || v.endpoints.told[er1a] != (told{3, 4}) {
		t.Errorf("%d kept, counted %+v; want 3, and 4 announcements refused", n, v.endpoints.told[er1a])
	}
	e.say(er1a, endpointRoute(addr(0), "10.100.255.21", vm)) // one that is kept may move
	e.want("er1-private", addr(0), "host 10.100.255.21")
	e.say(er1b, endpointRoute(addr(4), "10.100.255.20", vm))
	e.want("er1-private", addr(4), "host 10.100.255.20")
	go func() {
		for call := range e.calls {
			call()
		}
	}()
	rows, err := e.FastPath()
	if close(e.calls); err != nil || len(rows) == 0 || rows[0].Refused["announced by "+er1a+" above 3"] != 4 {
		t.Errorf("show fastpath: %+v, %v", rows, err)
	}
	e.withdraw(er1a, addr(3)) // was never kept
	e.withdraw(er1a, addr(1))
	e.say(er1a, endpointRoute(addr(3), "10.100.255.20", vm))
	e.want("er1-private", addr(3), "host 10.100.255.20")
	e.endpointsGone(v, er1a, false)
	e.endpointsGone(v, er1b, false)
	if len(v.endpoints.told) != 0 || len(v.endpoints.all) != 0 {
		t.Errorf("something remains: %v, %d endpoints", v.endpoints.told, len(v.endpoints.all))
	}
}

// BenchmarkProgram200k takes 200,000 endpoints, as a gateway on a 100 Gbit/s port
// of ExpressRoute Direct announces them, into the exact match.
func BenchmarkProgram200k(b *testing.B) {
	const n, perUpdate = 200_000, 1000
	var updates []bgp.Update
	for i := range n {
		if i%perUpdate == 0 {
			updates = append(updates, bgp.Update{Session: er1a})
		}
		a := netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)})
		u := &updates[len(updates)-1]
		u.Announce = append(u.Announce, endpointRoute(a.String(), "10.100.255.20", vm))
	}
	for b.Loop() {
		e := newFastPathEdge(b)
		e.device.Ports[0].DirectGbps = 100
		for _, u := range updates {
			e.endpointUpdate(e.sessions[er1a], u)
		}
		if e.programmed() != n {
			b.Fatalf("%d programmed", e.programmed())
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s")
}
