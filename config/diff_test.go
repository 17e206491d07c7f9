package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDiff(t *testing.T) {
	file := readFile(t, "edge.yaml")
	for _, c := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing", "device:", "# a comment\ndevice:", nil},
		{"key", "sharedKey: abc123", "sharedKey: SECRET", []string{
			"change session er1-private/192.168.15.17: Key",
			"change session er1-private/2001:db8:0:10::1: Key",
		}},
		{"VLAN", "vlanId: 101", "vlanId: 102", []string{
			"remove subinterface er1-microsoft/link1.101",
			"add subinterface er1-microsoft/link1.102",
			"change session er1-microsoft/2001:db8:1::1: Subinterface link1.101 → link1.102",
			"change session er1-microsoft/203.0.113.1: Subinterface link1.101 → link1.102",
		}},
		{"prefixes", "[198.51.100.0/24, 203.0.113.0/24]", "[203.0.113.0/24]", []string{
			"change vrf er1-microsoft: AllowedPrefixes [198.51.100.0/24 203.0.113.0/24 2001:db8:100::/48] → [203.0.113.0/24 2001:db8:100::/48], " +
				"Advertised [{198.51.100.0/24 Configured} {203.0.113.0/24 Configured} {2001:db8:100::/48 Configured}] → [{203.0.113.0/24 Configured} {2001:db8:100::/48 Configured}]",
			"change subinterface er1-microsoft/link1.101: Sources [198.51.100.0/24 203.0.113.0/24 2001:db8:100::/48] → [203.0.113.0/24 2001:db8:100::/48]",
		}},
		{"connection removed", "  - {name: vnet2, circuit: er2, virtualNetworkGateway: vnet2-gw, port: core, vlanId: 201, gatewaySubnet: 10.100.255.0/27}\n", "", []string{
			"remove subinterface er2-private/core.201",
			"remove session er2-private/10.100.255.12",
			"remove session er2-private/10.100.255.13",
		}},
		{"device", "role: primary", "role: primary, routerId: 10.0.0.1", []string{
			"change device msee1: RouterID 192.168.15.18 → 10.0.0.1",
		}},
		{"port and circuit", "device: eth2", "device: eth3", []string{"change port core: Device eth2 → eth3"}},
		{"cpu", "device: eth2", "device: eth2, cpu: 0", []string{"change port core: CPU none → 0"}},
		{"circuit", "    bandwidthInMbps: 1000\n", "", []string{
			"change circuit er1: BandwidthInMbps 1000 → 0",
			"change subinterface er1-microsoft/link1.101: LimitInMbps 1000 → 0",
			"change subinterface er1-private/link1.100: LimitInMbps 1000 → 0"}},
		{"policing", "    bandwidthInMbps: 1000\n", "    bandwidthInMbps: 1000\n    enableDirectPortRateLimit: true\n", []string{
			"change subinterface er1-microsoft/link1.101: DirectLimit false → true",
			"change subinterface er1-private/link1.100: DirectLimit false → true"}},
		{"no policing", "    bandwidthInMbps: 1000\n", "    bandwidthInMbps: 1000\n    enableDirectPortRateLimit: false\n", []string{
			"change subinterface er1-microsoft/link1.101: LimitInMbps 1000 → 0",
			"change subinterface er1-private/link1.100: LimitInMbps 1000 → 0"}},
		{"service key", "    serviceKey: 11111111-2222-3333-4444-555555555555\n", "", []string{
			"change circuit er1: ServiceKey 11111111-2222-3333-4444-555555555555 → none",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			edited := strings.Replace(file, c.old, c.new, 1)
			if edited == file {
				t.Fatal("the edit changes nothing")
			}
			old, new := mustParse(t, file), mustParse(t, edited)
			var got []string
			for _, change := range Diff(old, new) {
				got = append(got, change.String())
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if back := Diff(new, old); len(back) != len(got) {
				t.Errorf("%d changes there, %d back", len(got), len(back))
			}
		})
	}
}

// TestDiffWhole checks Diff against nothing: everything comes, or goes.
func TestDiffWhole(t *testing.T) {
	d := mustParse(t, readFile(t, "edge.yaml"))
	added, removed := Diff(nil, d), Diff(d, nil)
	if len(added) != 1+3+2+len(d.Services)+3+5+11 || len(removed) != len(added) {
		t.Errorf("%d added, %d removed", len(added), len(removed))
	}
	for i := range added {
		a, r := added[i], removed[i]
		if a.Kind != Add || r.Kind != Remove || a.Object != r.Object || a.Name != r.Name {
			t.Errorf("%v is no counterpart of %v", a, r)
		}
	}
	if changes := Diff(nil, nil); changes != nil {
		t.Errorf("nothing differs by %v", changes)
	}
}

// TestDiffSeesEveryField changes each field of each object in turn, found by
// reflection: a field added to Device must not escape Diff.
func TestDiffSeesEveryField(t *testing.T) {
	diffSeesEveryField(t, readFile(t, "edge.yaml"))
	diffSeesEveryField(t, readFile(t, "gateway.yaml"))
	diffSeesEveryField(t, withMACsec(mkaSection))
	diffSeesEveryField(t, withMACsec(staticSection))
}

func diffSeesEveryField(t *testing.T, file string) {
	t.Helper()
	base := mustParse(t, file)
	var visit func(path string, v reflect.Value)
	changed := mustParse(t, file)
	check := func(path string) {
		if len(Diff(base, changed)) == 0 {
			t.Errorf("a change of %s is not seen", path)
		}
	}
	visit = func(path string, v reflect.Value) {
		switch {
		case v.Kind() == reflect.Pointer && v.IsNil(): // not in this kind of file
		case v.Kind() == reflect.Pointer:
			visit(path, v.Elem())
		case v.Kind() == reflect.Struct && v.Type().PkgPath() != "net/netip" && v.Type().PkgPath() != "time":
			for i := range v.NumField() {
				visit(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case v.Kind() == reflect.Slice && v.Len() > 0:
			visit(path+"[0]", v.Index(0))
		case v.Kind() == reflect.Slice: // empty in this kind of file: nothing to change
		default:
			was := reflect.ValueOf(v.Interface())
			switch v.Kind() {
			case reflect.String:
				v.SetString(v.String() + "x")
			case reflect.Int, reflect.Int64:
				v.SetInt(v.Int() + 1)
			case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
				v.SetUint(v.Uint() + 1)
			case reflect.Bool:
				v.SetBool(!v.Bool())
			default:
				if at, ok := v.Interface().(time.Time); ok {
					v.Set(reflect.ValueOf(at.Add(time.Hour)))
					break
				}
				if _, ok := v.Interface().(netip.AddrPort); ok {
					v.Set(reflect.ValueOf(netip.MustParseAddrPort("192.0.2.1:1")))
					break
				}
				v.SetZero()
			}
			check(path)
			v.Set(was)
		}
	}
	visit("Device", reflect.ValueOf(changed).Elem())
	if changes := Diff(base, changed); len(changes) != 0 {
		t.Errorf("the test left changes behind: %v", changes)
	}
}

// TestDiffOptional takes away, one after the other, each part that an object can
// do without, and puts it back: both ways are a change, and nothing panics.
func TestDiffOptional(t *testing.T) {
	cpu := 0
	for name, take := range map[string]func(d *Device){
		"cpu":    func(d *Device) { d.Ports[0].CPU = nil },
		"macsec": func(d *Device) { d.Ports[0].MACsec = nil },
		"vxlan":  func(d *Device) { d.VRFs[0].Subinterfaces[0].VXLAN = nil },
		"pair":   func(d *Device) { d.VRFs[0].Subinterfaces[0].Pair = nil },
	} {
		whole, less := mustParse(t, withMACsec(mkaSection)), mustParse(t, withMACsec(mkaSection))
		for _, d := range []*Device{whole, less} {
			d.Ports[0].CPU = &cpu
			d.VRFs = []VRF{{Name: "v", Subinterfaces: []Subinterface{{Name: "l", VXLAN: &VXLAN{VNI: 5}, Pair: &Pair{BFD: BFD{Interval: 1}}}}}}
		}
		take(less)
		if there, back := Diff(whole, less), Diff(less, whole); len(there) != 1 || len(back) != 1 {
			t.Errorf("%s: %v there, %v back", name, there, back)
		}
	}
}

// TestSecretNotInChanges checks that a key appears in no Change, however it is
// printed.
func TestSecretNotInChanges(t *testing.T) {
	file := readFile(t, "edge.yaml")
	a, b := mustParse(t, file), mustParse(t, strings.Replace(file, "abc123", "xyz789", 1))
	for _, changes := range [][]Change{Diff(a, b), Diff(nil, a), Diff(a, nil)} {
		if s := fmt.Sprintf("%v %+v", changes, changes); strings.Contains(s, "abc123") || strings.Contains(s, "xyz789") {
			t.Errorf("tells the key: %s", s)
		}
	}
}
