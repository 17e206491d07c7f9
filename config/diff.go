package config

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// Change is one difference between two desired states.
type Change struct {
	Kind   ChangeKind `json:"kind"`
	Object string     `json:"object"` // "device", "port", "circuit", "service", "vrf", "subinterface" or "session"
	Name   string     `json:"name"`   // of the object; VRF/NAME for a subinterface
	// Detail says, for a change, which fields go from what to what:
	// "Hold 3m0s → 30s, Key". Keys are named, never shown.
	Detail string `json:"detail,omitempty"`
}

// ChangeKind is what happens to the object of a Change.
type ChangeKind string

const (
	Add    ChangeKind = "add"
	Remove ChangeKind = "remove"
	Modify ChangeKind = "change"
)

// String formats the change as one line.
func (c Change) String() string {
	s := fmt.Sprintf("%s %s %s", c.Kind, c.Object, c.Name)
	if c.Detail != "" {
		s += ": " + c.Detail
	}
	return s
}

// Diff lists what turns old into new, ordered by object, name and kind; it is
// empty if and only if the two are alike. A nil Device is one without anything.
func Diff(old, new *Device) []Change {
	var changes []Change
	a, b := inventory(old), inventory(new)
	for key, was := range a {
		is, stays := b[key]
		if !stays {
			changes = append(changes, Change{Remove, key.object, key.name, ""})
		} else if detail := was.compare(is); detail != "" {
			changes = append(changes, Change{Modify, key.object, key.name, detail})
		}
	}
	for key := range b {
		if _, was := a[key]; !was {
			changes = append(changes, Change{Add, key.object, key.name, ""})
		}
	}
	slices.SortFunc(changes, func(x, y Change) int {
		return cmp.Or(cmp.Compare(slices.Index(objects, x.Object), slices.Index(objects, y.Object)),
			cmp.Compare(x.Name, y.Name))
	})
	return changes
}

// objects is the order in which Diff lists them.
var objects = []string{"device", "port", "circuit", "service", "vrf", "subinterface", "session"}

type objectKey struct{ object, name string }

// fields are an object's fields in the order to list them.
type fields []fieldValue

type fieldValue struct{ name, value string }

func (f *fields) add(name string, value any) { *f = append(*f, fieldValue{name, fmt.Sprint(value)}) }

// maxListed is the longest list that a change shows.
const maxListed = 16

// addList is add for a list that may be long: of such a one only its length is
// shown, and a checksum that tells it from others.
func (f *fields) addList(name string, length int, list any) {
	if length <= maxListed {
		f.add(name, list)
		return
	}
	h := fnv.New64a()
	fmt.Fprint(h, list)
	f.add(name, fmt.Sprintf("%d items (%08x)", length, uint32(h.Sum64())))
}

// secretField is a field that is compared but not shown.
const secretField = "Key"

// compare says which fields differ. Both have the same ones: what an object can do
// without is listed as well, empty.
func (f fields) compare(g fields) string {
	var differ []string
	for i := range f {
		switch {
		case f[i].value == g[i].value:
		case f[i].name == secretField:
			differ = append(differ, secretField)
		default:
			differ = append(differ, fmt.Sprintf("%s %s → %s", f[i].name, orNone(f[i].value), orNone(g[i].value)))
		}
	}
	return strings.Join(differ, ", ")
}

func orNone(s string) string {
	if s == "" || s == "[]" {
		return "none"
	}
	return s
}

// inventory lists the objects of a device with every field that Device has.
func inventory(d *Device) map[objectKey]fields {
	all := make(map[objectKey]fields)
	if d == nil {
		return all
	}
	all[objectKey{"device", d.Name}] = fields{
		{"Kind", string(d.Kind)}, {"Role", d.Role}, {"ASN", fmt.Sprint(d.ASN)}, {"RouterID", d.RouterID.String()},
		{"PrefixRetry", d.PrefixRetry.String()},
		{"BFDDaemonPort", fmt.Sprint(d.BFDDaemonPort)},
		{"Metrics", metricsAddress(d)},
	}
	for _, p := range d.Ports {
		f := fields{
			{"Device", p.Device}, {"Type", p.Type}, {"TPID", fmt.Sprintf("%#04x", p.TPID)}, {"CrossConnect", p.CrossConnect},
			{"DirectGbps", fmt.Sprint(p.DirectGbps)}, {"Disabled", fmt.Sprint(p.Disabled)},
		}
		f.add("CPU", p.cpu())
		p.MACsec.inventory(&f)
		all[objectKey{"port", p.Name}] = f
	}
	for _, c := range d.Circuits {
		var f fields
		f.add("ServiceKey", c.ServiceKey)
		f.add("SKU", c.SKU)
		f.add("BandwidthInMbps", c.BandwidthInMbps)
		f.add("Port", c.Port)
		f.add("STag", c.STag)
		all[objectKey{"circuit", c.Name}] = f
	}
	for i, s := range d.Services {
		var f fields
		f.addList("Communities", maxListed+1, s.Communities) // never short
		all[objectKey{"service", fmt.Sprintf("%s (%d)", s.Name, i)}] = f
	}
	for _, v := range d.VRFs {
		v.inventory(all)
	}
	return all
}

// links are the addresses of both instances that BFD runs between, in text.
func (p *Pair) links() string {
	if !p.Local.IsValid() || !p.Peer.IsValid() {
		return ""
	}
	return p.Local.String() + " " + p.Peer.String()
}

// cpu is the number of the processor in text, "" for any.
func (p *Port) cpu() string {
	if p.CPU == nil {
		return ""
	}
	return strconv.Itoa(*p.CPU)
}

func metricsAddress(d *Device) string {
	if !d.Metrics.IsValid() {
		return ""
	}
	return d.Metrics.String()
}

func (v *VRF) inventory(all map[objectKey]fields) {
	var f fields
	f.add("Circuit", v.Circuit)
	f.add("PeeringType", v.PeeringType)
	f.addList("Originate", len(v.Originate), v.Originate)
	f.add("AllowOwnAS", v.AllowOwnAS)
	f.add("Regions", v.Regions)
	f.add("AllowRemoteVnetTraffic", v.AllowRemoteVnetTraffic)
	f.add("AllowedPrefixes", v.AllowedPrefixes)
	f.add("Advertised", v.Advertised)
	f.add("RouteFilter", v.RouteFilter)
	f.add("RouteFilterIPv6", v.RouteFilterIPv6)
	f.add("RouteFilterName", v.RouteFilterName)
	f.add("RouteFilterIPv6Name", v.RouteFilterIPv6Name)
	f.add("Endpoints", v.Endpoints)
	if g := v.Gateway; g != nil {
		f.add("GatewaySKU", g.SKU)
		f.add("ScaleUnits", g.ScaleUnits)
		f.add("BandwidthInMbps (this instance's half)", g.Limits.BandwidthInMbps)
		f.add("PacketsPerSecond (this instance's half)", g.Limits.PacketsPerSecond)
		f.add("Flows (this instance's half)", g.Limits.Flows)
		f.add("FlowIdle", g.Limits.FlowIdle)
	}
	all[objectKey{"vrf", v.Name}] = f
	for _, s := range v.Subinterfaces {
		var f fields
		f.add("Port", s.Port)
		f.add("STag", s.STag)
		f.add("CTag", s.CTag)
		x := s.VXLAN
		if x == nil {
			x = &VXLAN{}
		}
		f.add("VNI", x.VNI)
		f.add("Underlay", x.Underlay)
		f.add("LocalVTEPs", x.Local)
		f.addList("RemoteVTEPs", len(x.Remote), x.Remote)
		f.addList("UnderlayRoutes", len(x.Routes), x.Routes)
		f.addList("Routes", len(s.Routes), s.Routes)
		f.addList("ImportTargets", len(x.Import), x.Import)
		f.addList("ExportTargets", len(x.Export), x.Export)
		pair := s.Pair
		if pair == nil {
			pair = &Pair{}
		}
		f.add("PairAddresses", pair.Addresses)
		f.add("PairLinks", pair.links())
		f.add("PairBFD", pair.BFD)
		f.add(secretField, pair.BFD.AuthKey)
		f.add("Addresses", s.Addresses)
		f.add("MTU", s.MTU)
		f.add("Side", s.Side)
		f.addList("Sources", len(s.Sources), s.Sources)
		f.add("SourceCheck", s.SourceCheck)
		f.add("Circuit", s.Limit.Circuit)
		f.add("LimitInMbps", s.Limit.Mbps)
		f.add("DirectLimit", s.Limit.Direct)
		all[objectKey{"subinterface", v.Name + "/" + s.Name}] = f
	}
	for _, s := range v.Sessions {
		var f fields
		f.add("Subinterface", s.Subinterface)
		f.add("Local", s.Local)
		f.add("Peer", s.Peer)
		f.add("PeerAS", s.PeerAS)
		f.add("Side", s.Side)
		f.add("Connection", s.Connection)
		f.add("Weight", s.Weight)
		f.add(secretField, s.Key)
		f.add("Keepalive", s.Keepalive)
		f.add("Hold", s.Hold)
		f.add("Enabled", s.Enabled)
		f.add("MaxPrefixes", s.MaxPrefixes)
		f.add("BFD", s.BFD)
		f.add(secretField, s.BFD.AuthKey)
		f.add("ExpressRouteGatewayBypass", s.FastPath.ExpressRouteGatewayBypass)
		f.add("EnablePrivateLinkFastPath", s.FastPath.EnablePrivateLinkFastPath)
		f.add("GatewaySKU", s.FastPath.GatewaySKU)
		f.add("ScaleUnits", s.FastPath.ScaleUnits)
		f.add("DirectGbps", s.FastPath.DirectGbps)
		f.add("GracefulRestart", s.GracefulRestart)
		f.add("TTLSecurity", s.TTLSecurity)
		f.add("EVPN", s.EVPN)
		f.add("Multihop", s.Multihop)
		f.add("Carrier", s.Carrier)
		f.add("TellOnly", s.TellOnly)
		all[objectKey{"session", s.Name}] = f
	}
}
