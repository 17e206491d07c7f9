package edge

import (
	"msee/bgp"
	"msee/community"
	"msee/config"
)

// policy is the import and export policy that a VRF's configuration asks for.
func policy(c config.VRF) bgp.Policy {
	var p bgp.Policy
	switch c.PeeringType {
	case "AzurePrivatePeering":
		p = bgp.PrivatePeering()
		p.Regions = c.Regions
	case "MicrosoftPeering":
		p = bgp.MicrosoftPeering(c.AllowedPrefixes)
	default:
		p = bgp.Gateway()
		p.AllowRemoteVnetTraffic = c.AllowRemoteVnetTraffic
		return p
	}
	p.AllowOwnAS = c.AllowOwnAS
	return p
}

// originated are the routes of the device itself in a VRF.
func originated(c config.VRF) []bgp.Route {
	routes := make([]bgp.Route, len(c.Originate))
	for i, o := range c.Originate {
		routes[i] = bgp.Route{Prefix: o.Prefix, Attrs: &bgp.Attrs{Communities: values(o.Communities)}}
	}
	return routes
}

func values(communities []community.Value) []uint32 {
	var out []uint32
	for _, c := range communities {
		out = append(out, uint32(c))
	}
	return out
}
