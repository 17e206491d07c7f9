package edge

import (
	"testing"
	"time"

	"msee/bgp"
	"msee/community"
	"msee/config"
)

func TestUpDown(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "00:00:00", 75 * time.Second: "00:01:15",
		24*time.Hour - time.Second: "23:59:59", 26 * time.Hour: "1d02h", 7*24*time.Hour - time.Second: "6d23h", 23 * 24 * time.Hour: "3w2d"} {
		if got := upDown(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestPathText(t *testing.T) {
	for want, a := range map[string]bgp.Attrs{"I": {}, "65515 I": {ASPath: []uint32{65515}}, "65001 4200000001 ?": {ASPath: []uint32{65001, 4200000001}, Origin: bgp.OriginIncomplete},
		"3 E": {ASPath: []uint32{3}, Origin: bgp.OriginEGP}, "3": {ASPath: []uint32{3}, Origin: 77}} {
		if got := pathText(&a); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestWhyOfServices: each reason a community is announced or not.
func TestWhyOfServices(t *testing.T) {
	sample := community.Sample()
	var storage community.ServiceCommunity
	for _, s := range sample {
		for _, c := range s.Communities {
			if c.Value == community.Of(52015) {
				storage = c
			}
		}
	}
	originate := []config.Originated{{Prefix: storage.Prefixes[0], Communities: []community.Value{storage.Value}}}
	filter := []community.Value{storage.Value}
	refused := storage
	refused.Authorized = false
	for want, c := range map[string]struct {
		vrf    config.VRF
		sc     community.ServiceCommunity
		prefix bool // the first is announced
	}{
		"not authorised":                            {config.VRF{Originate: originate}, refused, false},
		"not reached by the circuit's SKU":          {config.VRF{RouteFilterName: "f", RouteFilter: filter}, storage, false},
		"no route filter":                           {config.VRF{Originate: originate}, storage, false},
		"not in the route filter":                   {config.VRF{Originate: originate, RouteFilterName: "f"}, storage, false},
		"in the route filter":                       {config.VRF{Originate: originate, RouteFilterName: "f", RouteFilter: filter}, storage, true},
		"by other communities of the same prefixes": {config.VRF{Originate: originate, RouteFilterName: "f"}, storage, true},
		"in the route filter, but no way to Microsoft's network, or no session of that family": {config.VRF{Originate: originate, RouteFilterIPv6Name: "f", RouteFilterIPv6: filter}, storage, false},
	} {
		told := (&vrf{rib: bgp.NewRIB(bgp.MicrosoftPeering(nil), nil)}).advertised()
		told[storage.Prefixes[0]] = c.prefix
		if got := serviceStatus(&c.vrf, "Azure Storage", &c.sc, told); got.Why != want || got.Prefixes != len(storage.Prefixes) || got.Advertised != boolToInt(c.prefix) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
}
