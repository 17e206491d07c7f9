package evpn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

const vnet = 7001

func vtep(n int) netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, byte(n)}) }

func station(n int) MAC { return MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// macIP is a MAC/IP route of a VTEP for the network vnet.
func macIP(from, mac int, ip string, sequence uint32) Route {
	r := Route{Key: Key{Type: TypeMACIP, RD: NewRD(vtep(from), 1), MAC: station(mac)}, VNI: vnet, Attrs: &Attrs{NextHop: vtep(from),
		ASPath: []uint32{65011}, Extended: Extended{Targets: []RT{NewRT(65011, vnet)}, Sequence: sequence}}}
	if ip != "" {
		a := netip.MustParseAddr(ip)
		r.Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return r
}

func multicast(from int) Route {
	return Route{Key: Key{Type: TypeMulticast, RD: NewRD(vtep(from), 1), Prefix: netip.PrefixFrom(vtep(from), 32)},
		Attrs: &Attrs{NextHop: vtep(from), Flood: vnet, Extended: Extended{Targets: []RT{NewRT(65011, vnet)}}}}
}

func tableOf(networks ...Network) *Table {
	t := NewTable(12076, 100)
	t.SetNetworks(networks)
	return t
}

// where says behind which VTEP, and as which MAC, a host of vnet is.
func where(t *Table, ip string) string {
	e := t.Host(Host{vnet, netip.MustParseAddr(ip)})
	if e == nil {
		return "nowhere"
	}
	return fmt.Sprintf("%v at %v", e.Destination(vnet), e.Attrs.NextHop)
}

// TestMove is a live migration: the new host's word counts before the old one's is
// withdrawn, and afterwards.
func TestMove(t *testing.T) {
	table := tableOf(Network{VNI: vnet})
	at := func(want string) {
		t.Helper()
		if got := where(table, "10.10.0.5"); got != want {
			t.Errorf("the host is %s, want %s", got, want)
		}
	}
	old := macIP(11, 5, "10.10.0.5", 0)
	table.Update(Update{Session: "h11", Announce: []Route{old, macIP(11, 5, "", 0)}})
	at("02:00:00:00:00:05 at 172.16.0.11")
	c := table.Update(Update{Session: "h12", Announce: []Route{macIP(12, 5, "10.10.0.5", 1)}})
	at("02:00:00:00:00:05 at 172.16.0.12")
	want := Changes{Stations: []Station{{vnet, station(5)}}, Hosts: []Host{{vnet, netip.MustParseAddr("10.10.0.5")}}, VTEPs: []uint32{vnet}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("changes %+v, want %+v", c, want)
	}
	c = table.Update(Update{Session: "h11", Withdraw: []Key{old.Key}})
	if at("02:00:00:00:00:05 at 172.16.0.12"); !reflect.DeepEqual(c, Changes{}) {
		t.Errorf("the late withdrawal changes %+v", c)
	}
	table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 5, "10.10.0.5", 2)}}) // and back
	at("02:00:00:00:00:05 at 172.16.0.11")
	for _, last := range []struct{ session, want string }{{"h11", "02:00:00:00:00:05 at 172.16.0.12"}, {"h12", "nowhere"}} {
		c := table.Drop(last.session)
		if at(last.want); len(c.Hosts) != 1 || len(c.Stations) == 0 || len(c.VTEPs) == 0 {
			t.Errorf("%s gone: changes %+v", last.session, c)
		}
	}
}

// TestPreference is the order of RFC 7432 §15.
func TestPreference(t *testing.T) {
	sticky := macIP(13, 5, "10.10.0.5", 0)
	sticky.Attrs.Extended.Sticky = true
	order := []Route{sticky, macIP(12, 5, "10.10.0.5", 0x80000000), macIP(14, 5, "10.10.0.5", 1), macIP(11, 5, "10.10.0.5", 0), macIP(15, 5, "10.10.0.5", 0)}
	for range 20 {
		table := tableOf(Network{VNI: vnet})
		for _, i := range rand.Perm(len(order)) {
			table.Update(Update{Session: fmt.Sprint(i), Announce: order[i : i+1]})
		}
		for i, r := range order {
			if e := table.Station(Station{vnet, station(5)}); e == nil || e.Key != r.Key {
				t.Fatalf("best is %+v, want %+v", e, r)
			}
			table.Drop(fmt.Sprint(i))
		}
	}
}

// TestImport shows each reason not to take a route next to one that is taken.
func TestImport(t *testing.T) {
	own := RT{1, 2, 192, 0, 2, 1, 0, 9}
	for name, c := range map[string]struct {
		change func(r *Route)
		taken  string // by the network whose targets are derived, and by one with its own
	}{
		"derived":                  {func(*Route) {}, "yes no"},
		"its own":                  {func(r *Route) { r.Attrs.Extended.Targets = []RT{own} }, "no yes"},
		"both":                     {func(r *Route) { r.Attrs.Extended.Targets = append(r.Attrs.Extended.Targets, own) }, "yes yes"},
		"none":                     {func(r *Route) { r.Attrs.Extended.Targets = nil }, "no no"},
		"another VNet's target":    {func(r *Route) { r.Attrs.Extended.Targets = []RT{NewRT(65011, 7002)} }, "no no"},
		"another VNet's VNI":       {func(r *Route) { r.VNI = 7002 }, "no no"},
		"not by VXLAN":             {func(r *Route) { r.Attrs.Extended.Other = true }, "no no"},
		"a loop":                   {func(r *Route) { r.Attrs.ASPath = []uint32{65011, 12076} }, "no no"},
		"a bundle's tag":           {func(r *Route) { r.Tag = vnet }, "yes no"},
		"another's tag":            {func(r *Route) { r.Tag = 1 }, "no no"},
		"routed":                   {func(r *Route) { r.VNI, r.Routed, r.Attrs.Extended.RouterMAC = 7002, vnet, station(99) }, "yes no"},
		"routed, but by what MAC?": {func(r *Route) { r.VNI, r.Routed = 7002, vnet }, "no no"},
	} {
		r := macIP(11, 5, "10.10.0.5", 0)
		c.change(&r)
		got := ""
		for _, n := range []Network{{VNI: vnet}, {VNI: vnet, Import: []RT{own}}} {
			table := tableOf(n)
			table.Update(Update{Session: "h11", Announce: []Route{r}})
			if got != "" {
				got += " "
			}
			if e := table.Entries()[0]; table.Imported(e) != (table.Host(Host{vnet, r.Prefix.Addr()}) == e) {
				t.Errorf("%s: imported: %v", name, table.Imported(e))
			} else if table.Imported(e) {
				got += "yes"
			} else {
				got += "no"
			}
		}
		if got != c.taken {
			t.Errorf("%s: %s, want %s", name, got, c.taken)
		}
	}
}

func TestRoutedDestination(t *testing.T) {
	table := tableOf(Network{VNI: vnet}, Network{VNI: 9001, Import: []RT{NewRT(65011, vnet)}})
	r := macIP(11, 5, "10.10.0.5", 0)
	r.Routed, r.Attrs.Extended.RouterMAC = 9001, station(99)
	table.Update(Update{Session: "h11", Announce: []Route{r}})
	if got := table.Host(Host{vnet, r.Prefix.Addr()}).Destination(vnet); got != station(5) {
		t.Errorf("bridged to %v", got)
	}
	if got := table.Host(Host{9001, r.Prefix.Addr()}).Destination(9001); got != station(99) {
		t.Errorf("routed to %v", got)
	}
	if e := table.Station(Station{9001, station(5)}); e != nil {
		t.Errorf("the VRF's network has the station %+v", e)
	}
}

func TestPrefixes(t *testing.T) {
	table := tableOf(Network{VNI: vnet})
	p := netip.MustParsePrefix("10.20.0.0/16")
	by := func(from int) Route {
		return Route{Key: Key{Type: TypePrefix, RD: NewRD(vtep(from), 1), Prefix: p}, Gateway: netip.AddrFrom4([4]byte{10, 10, 255, byte(from)}),
			Attrs: &Attrs{NextHop: vtep(from), Extended: Extended{Targets: []RT{NewRT(65515, vnet)}}}}
	}
	direct, useless := by(23), by(24)
	direct.Gateway, direct.VNI, direct.Attrs.Extended.RouterMAC = netip.Addr{}, vnet, station(99)
	useless.Gateway, useless.VNI = netip.Addr{}, vnet // to whom?
	table.Update(Update{Session: "gw1", Announce: []Route{by(22), useless}})
	c := table.Update(Update{Session: "gw0", Announce: []Route{by(21), direct}})
	var got []string
	for _, e := range table.Prefix(Prefix{vnet, p}) {
		got = append(got, fmt.Sprintf("%s %v %v", e.Session, e.Gateway, e.Destination(vnet)))
	}
	want := []string{"gw0 10.10.255.21 00:00:00:00:00:00", "gw1 10.10.255.22 00:00:00:00:00:00", "gw0 invalid IP 02:00:00:00:00:63"}
	if !slices.Equal(got, want) || len(c.Prefixes) != 2 || c.Prefixes[0] != (Prefix{vnet, p}) {
		t.Errorf("by %q, changes %+v", got, c)
	}
	if all, flood := table.VTEPs(vnet); !slices.Equal(all, []netip.Addr{vtep(21), vtep(22), vtep(23)}) || len(flood) != 0 {
		t.Errorf("VTEPs %v, flood %v", all, flood)
	}
}

func TestFlood(t *testing.T) {
	table := tableOf(Network{VNI: vnet})
	other := multicast(13)
	other.Attrs.Flood = 0 // not by ingress replication
	c := table.Update(Update{Session: "h11", Announce: []Route{multicast(11), multicast(12), other, macIP(12, 5, "", 0)}})
	if len(c.VTEPs) == 0 {
		t.Error("no change of VTEPs")
	}
	both := []netip.Addr{vtep(11), vtep(12)}
	if all, flood := table.VTEPs(vnet); !slices.Equal(all, both) || !slices.Equal(flood, both) {
		t.Errorf("VTEPs %v, flood %v", all, flood)
	}
	table.Update(Update{Session: "h11", Withdraw: []Key{multicast(12).Key}})
	if all, flood := table.VTEPs(vnet); !slices.Equal(all, both) || !slices.Equal(flood, both[:1]) {
		t.Errorf("after a withdrawal: VTEPs %v, flood %v", all, flood)
	}
}

// TestGracefulRestart keeps what is stale in use until the end of the peer's table.
func TestGracefulRestart(t *testing.T) {
	table := tableOf(Network{VNI: vnet})
	table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 5, "10.10.0.5", 0), macIP(11, 6, "10.10.0.6", 0)}})
	table.Update(Update{Session: "h12", Announce: []Route{macIP(12, 7, "10.10.0.7", 0)}})
	table.Stale("h11")
	if where(table, "10.10.0.6") == "nowhere" {
		t.Error("a stale route is not used")
	}
	if c := table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 5, "10.10.0.5", 0)}}); !reflect.DeepEqual(c, Changes{}) {
		t.Errorf("what is told again changes %+v", c)
	}
	table.Sweep("h11")
	table.Sweep("h12")
	for ip, there := range map[string]bool{"10.10.0.5": true, "10.10.0.6": false, "10.10.0.7": true} {
		if got := where(table, ip); (got != "nowhere") != there {
			t.Errorf("%s is %s after End-of-RIB", ip, got)
		}
	}
}

func TestLimit(t *testing.T) {
	table := NewTable(12076, 2)
	table.SetNetworks([]Network{{VNI: vnet}})
	for i := range 4 {
		table.Update(Update{Session: "h11", Announce: []Route{macIP(11, i, "", 0)}})
	}
	if kept, refused := table.Told("h11"); kept != 2 || refused != 2 {
		t.Errorf("%d kept, %d refused", kept, refused)
	}
	table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 1, "", 1)}, Withdraw: []Key{macIP(11, 0, "", 0).Key}})
	table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 3, "", 0)}})
	if table.Station(Station{vnet, station(3)}) == nil || table.Station(Station{vnet, station(1)}).Attrs.Extended.Sequence != 1 {
		t.Error("what is there is not replaced, or room that has come is not used")
	}
	table.Drop("h11")
	if kept, refused := table.Told("h11"); kept != 0 || refused != 0 {
		t.Errorf("dropped: %d kept, %d refused", kept, refused)
	}
}

// TestMostAlike bounds what a session tells of one address or prefix, by
// whatever distinguishers, while others and other networks have their own.
func TestMostAlike(t *testing.T) {
	alike := map[string]func(i int) Route{
		"an address's stations": func(i int) Route { return macIP(11, i, "10.10.0.5", 0) },
		"an address's distinguishers": func(i int) Route {
			r := macIP(11, 5, "10.10.0.5", 0)
			r.RD = NewRD(vtep(11), uint16(i))
			return r
		},
		"a routed address": func(i int) Route {
			r := macIP(11, i, "10.10.0.5", 0)
			r.VNI, r.Routed, r.Attrs.Extended.RouterMAC = 7000, vnet, station(99)
			return r
		},
		"a prefix's tags and distinguishers": func(i int) Route {
			r := Route{Key: Key{Type: TypePrefix, RD: NewRD(vtep(11), uint16(i>>1)), Prefix: netip.MustParsePrefix("10.20.0.0/16")}, VNI: uint32(i),
				Gateway: vtep(9), Attrs: macIP(11, 5, "", 0).Attrs}
			r.Tag = vnet * uint32(i&1)
			return r
		},
	}
	for name, route := range alike {
		table := NewTable(12076, 10*mostAlike)
		table.SetNetworks([]Network{{VNI: vnet}})
		is := func(what, session string, kept, refused int) {
			t.Helper()
			if k, r := table.Told(session); k != kept || r != refused {
				t.Errorf("%s: %s: %d kept, %d refused; want %d and %d", name, what, k, r, kept, refused)
			}
		}
		var all []Route
		for i := range mostAlike + 10 {
			all = append(all, route(i))
		}
		table.Update(Update{Session: "h11", Announce: all})
		is("too many", "h11", mostAlike, 10)
		table.Update(Update{Session: "h11", Announce: all[:mostAlike]})
		is("again", "h11", mostAlike, 10)
		table.Update(Update{Session: "h12", Announce: all[:20]})
		is("another session", "h12", 20, 0)
		table.Update(Update{Session: "h11", Withdraw: []Key{all[0].Key, all[1].Key}})
		table.Update(Update{Session: "h11", Announce: all[mostAlike:]})
		is("room for two", "h11", mostAlike, 18)
		moved := macIP(11, 7, "10.11.0.1", 0)
		table.Update(Update{Session: "h11", Announce: []Route{moved}})
		is("of something else", "h11", mostAlike+1, 18)

		// Nobody imports, so nobody counts: that is made up for when somebody does.
		table = NewTable(12076, 10*mostAlike)
		table.Update(Update{Session: "h11", Announce: all})
		is("no network", "h11", mostAlike+10, 0)
		table.SetNetworks([]Network{{VNI: vnet}})
		is("a network that comes", "h11", mostAlike, 10)
		table.Drop("h11")
		if n := table.networks[vnet]; len(n.stations)+len(n.hosts)+len(n.prefixes)+len(n.vteps) != 0 {
			t.Errorf("%s: left: %+v", name, n)
		}
	}
	// Two networks take half each; what the VRF's, which comes later, has too much of they
	// lose.
	rt := []RT{NewRT(65011, vnet)}
	networks := []Network{{VNI: 7002, Import: rt}, {VNI: 7003, Import: rt}}
	table := NewTable(12076, 10*mostAlike)
	table.SetNetworks(networks)
	for i := range mostAlike + 10 {
		r := alike["a routed address"](i)
		r.VNI = networks[i%2].VNI
		table.Update(Update{Session: "h11", Announce: []Route{r}})
	}
	table.SetNetworks(append([]Network{{VNI: vnet}}, networks...))
	if kept, refused := table.Told("h11"); kept != mostAlike || refused != 10 {
		t.Errorf("a VRF's network: %d kept, %d refused", kept, refused)
	}
	table.Drop("h11")
	for _, n := range table.networks {
		if len(n.stations)+len(n.hosts)+len(n.vteps) != 0 {
			t.Errorf("left in %d: %+v", n.VNI, n)
		}
	}
}

// TestNetworksChange imports what was told before a network was there.
func TestNetworksChange(t *testing.T) {
	table := NewTable(12076, 100)
	table.Update(Update{Session: "h11", Announce: []Route{macIP(11, 5, "10.10.0.5", 0)}})
	if where(table, "10.10.0.5") != "nowhere" {
		t.Error("imported into no network")
	}
	c := table.SetNetworks([]Network{{VNI: vnet}})
	if len(c.Hosts) != 1 || where(table, "10.10.0.5") == "nowhere" {
		t.Errorf("not imported into a new network: %+v", c)
	}
	if c := table.SetNetworks([]Network{{VNI: vnet}, {VNI: 7002}}); !reflect.DeepEqual(c, Changes{}) {
		t.Errorf("another network's coming changes %+v", c)
	}
	c = table.SetNetworks([]Network{{VNI: vnet, Import: []RT{NewRT(1, 1)}}})
	if len(c.Hosts) != 1 || where(table, "10.10.0.5") != "nowhere" {
		t.Errorf("still imported: %+v", c)
	}
}

// TestAgainstModel compares a table after many random changes with what a plain
// search among all routes finds.
func TestAgainstModel(t *testing.T) {
	const seed = 4242
	rng := rand.New(rand.NewPCG(seed, 1))
	table := tableOf(Network{VNI: vnet})
	model := map[string]map[Key]Route{}
	for step := range 2000 {
		from := 11 + rng.IntN(4)
		session := fmt.Sprint("h", from)
		if model[session] == nil {
			model[session] = map[Key]Route{}
		}
		mac := rng.IntN(6)
		ip := []string{"", "10.10.0.1", "10.10.0.2", "fd00::1"}[rng.IntN(4)]
		var before [6]*Entry
		for mac := range 6 {
			before[mac] = table.Station(Station{vnet, station(mac)})
		}
		var c Changes
		r := macIP(from, mac, ip, uint32(rng.IntN(4)))
		r.RD = NewRD(vtep(from), uint16(rng.IntN(3)))
		switch rng.IntN(20) {
		case 0:
			c = table.Drop(session)
			delete(model, session)
		case 1, 2, 3, 4, 5, 6:
			c = table.Update(Update{Session: session, Withdraw: []Key{r.Key}})
			delete(model[session], r.Key)
		default:
			c = table.Update(Update{Session: session, Announce: []Route{r}})
			model[session][r.Key] = r
		}
		for mac := range 6 {
			var want *Route
			for _, routes := range model {
				for _, r := range routes {
					if r.MAC == station(mac) && (want == nil || better(&Entry{Route: r}, &Entry{Route: *want}) < 0) {
						want = &r
					}
				}
			}
			got := table.Station(Station{vnet, station(mac)})
			if (got == nil) != (want == nil) || got != nil && got.Key != want.Key {
				t.Fatalf("seed %d step %d: station %d: %+v, want %+v", seed, step, mac, got, want)
			}
			if got != before[mac] && !slices.Contains(c.Stations, Station{vnet, station(mac)}) {
				t.Fatalf("seed %d step %d: station %d changed, but only %v are named", seed, step, mac, c.Stations)
			}
		}
	}
	for session := range model {
		table.Drop(session)
	}
	if n := table.networks[vnet]; len(n.stations)+len(n.hosts)+len(n.vteps)+len(n.floods) != 0 {
		t.Errorf("left: %+v", n)
	}
}

// BenchmarkUpdate is for 200,000 endpoints: each a station of 1,000 hosts', or addresses of one
// router's, told in no order; learned and dropped.
func BenchmarkUpdate(b *testing.B) {
	const endpoints, perUpdate = 200_000, 50
	for name, router := range map[string]bool{"stations": false, "router": true} {
		b.Run(name, func(b *testing.B) {
			order := rand.New(rand.NewPCG(1, 1)).Perm(endpoints)
			var updates []Update
			for i := 0; i < endpoints; i += perUpdate {
				u := Update{Session: "rr"}
				attrs := &Attrs{NextHop: netip.AddrFrom4([4]byte{172, 16, byte(i / 200 >> 8), byte(i / 200)}), Extended: Extended{Targets: []RT{NewRT(65011, vnet)}}}
				for _, j := range order[i : i+perUpdate] {
					a := netip.AddrFrom4([4]byte{10, byte(j >> 16), byte(j >> 8), byte(j)})
					r := Route{Key: Key{Type: TypeMACIP, RD: NewRD(attrs.NextHop, 1), MAC: MAC{2, 0, 0, byte(j >> 16), byte(j >> 8), byte(j)},
						Prefix: netip.PrefixFrom(a, 32)}, VNI: vnet, Attrs: attrs}
					if router {
						r.MAC = MAC{2}
					}
					u.Announce = append(u.Announce, r)
				}
				updates = append(updates, u)
			}
			for b.Loop() {
				table := NewTable(12076, endpoints)
				table.SetNetworks([]Network{{VNI: vnet}})
				for _, u := range updates {
					table.Update(u)
				}
				table.Drop("rr")
			}
		})
	}
}
