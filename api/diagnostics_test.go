package api

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"msee/bgp"
	"msee/circuit"
	"msee/community"
	"msee/edge"
)

func TestShowRouteTable(t *testing.T) {
	rows := List[edge.RouteTableRow]{[]edge.RouteTableRow{
		{Network: "10.1.0.0/16", NextHop: "192.168.15.17*", LocPrf: "100", Path: "65001 I"},
		{Network: "10.1.0.0/16", NextHop: "192.168.15.19", LocPrf: "100", Path: "65001 65001 ?"},
	}}
	print := func(b *bytes.Buffer) error { return ShowRouteTable(b, rows) }
	compare(t, lines(t, print),
		"Network      NextHop         LocPrf  Weight  Path",
		"10.1.0.0/16  192.168.15.17*  100     0       65001 I",
		"10.1.0.0/16  192.168.15.19   100     0       65001 65001 ?")
	rows.Value[0].Detail = &edge.RouteDetail{State: bgp.PathBest, Why: "shorter AS path: 1 < 2", Behind: "customer, AS 65001", Resolved: true}
	rows.Value[1].Detail = &edge.RouteDetail{State: bgp.PathLost, Why: "shorter AS path: 1 < 2", Behind: "customer, AS 65001"}
	compare(t, lines(t, print),
		"Network      NextHop         LocPrf  Weight  Path           STATE  WHY                                            BEHIND",
		"10.1.0.0/16  192.168.15.17*  100     0       65001 I        best   shorter AS path: 1 < 2                         customer, AS 65001",
		"10.1.0.0/16  192.168.15.19   100     0       65001 65001 ?  lost   shorter AS path: 1 < 2; next hop not resolved  customer, AS 65001")
}

// TestAzureNames: the JSON has Azure's field names, and nothing else unless it
// was asked for.
func TestAzureNames(t *testing.T) {
	for want, v := range map[string]any{
		`{"value":[{"network":"10.1.0.0/16","nextHop":"10.0.0.1*","locPrf":"100","weight":0,"path":"65001 I"}]}`: List[edge.RouteTableRow]{
			[]edge.RouteTableRow{{Network: "10.1.0.0/16", NextHop: "10.0.0.1*", LocPrf: "100", Path: "65001 I"}}},
		`{"value":[{"neighbor":"10.0.0.1","v":4,"as":65001,"upDown":"1d02h","statePfxRcd":"7"}]}`: List[edge.SummaryRow]{
			[]edge.SummaryRow{{Neighbor: "10.0.0.1", V: 4, AS: 65001, UpDown: "1d02h", StatePfxRcd: "7"}}},
		`{"value":[{"age":3,"interface":"On-Prem","ipAddress":"10.0.0.1","macAddress":"Incomplete"}]}`: List[edge.ARPTableRow]{
			[]edge.ARPTableRow{{Age: 3, Interface: "On-Prem", IPAddress: "10.0.0.1", MACAddress: "Incomplete"}}},
		`{"primarybytesIn":1,"primarybytesOut":2,"secondarybytesIn":3,"secondarybytesOut":4}`: edge.PeeringStats{PrimaryBytesIn: 1, PrimaryBytesOut: 2, SecondaryBytesIn: 3, SecondaryBytesOut: 4},
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("got %s, %v\nwant %s", got, err, want)
		}
	}
}

func TestShowDiagnostics(t *testing.T) {
	at := time.Now()
	summary := List[edge.SummaryRow]{[]edge.SummaryRow{{Neighbor: "192.168.15.17", V: 4, AS: 65001, UpDown: "never", StatePfxRcd: "Idle"}}}
	print := func(b *bytes.Buffer) error { return ShowRouteTableSummary(b, summary) }
	compare(t, lines(t, print),
		"Neighbor       V  AS     UpDown  StatePfxRcd",
		"192.168.15.17  4  65001  never   Idle")
	summary.Value[0].Detail = &edge.SummaryDetail{Behind: "customer, AS 65001", Prefixes: edge.LimitStatus{Limit: 4000, Headroom: 4000, RetryAt: &at}, Reason: "too many"}
	compare(t, lines(t, print),
		"Neighbor       V  AS     UpDown  StatePfxRcd  REFUSED  SENT  LIMIT  HEADROOM  BEHIND              REASON",
		"192.168.15.17  4  65001  never   Idle         0        0     4000   4000      customer, AS 65001  too many")
	compare(t, lines(t, func(b *bytes.Buffer) error {
		return ShowARPTable(b, List[edge.ARPTableRow]{[]edge.ARPTableRow{{Interface: "On-Prem", IPAddress: "192.168.15.17", MACAddress: "Incomplete"}, {Age: 7, Interface: "Microsoft", IPAddress: "192.168.15.18", MACAddress: "aabb.ccdd.eeff"}}})
	}),
		"Age  InterfaceProperty  IpAddress      MacAddress",
		"0    On-Prem            192.168.15.17  Incomplete",
		"7    Microsoft          192.168.15.18  aabb.ccdd.eeff")
	compare(t, lines(t, func(b *bytes.Buffer) error { return ShowStats(b, edge.PeeringStats{PrimaryBytesIn: 12345678901}) }),
		"PrimaryBytesIn  PrimaryBytesOut  SecondaryBytesIn  SecondaryBytesOut",
		"12345678901     0                0                 0")
	compare(t, lines(t, func(b *bytes.Buffer) error {
		return ShowServices(b, []edge.ServiceStatus{{VRF: "er1-microsoft", Community: community.Of(52015), Name: "Azure Storage Australia East", Prefixes: 5, Advertised: 4, Why: "in the route filter"}})
	}),
		"VRF            COMMUNITY    NAME                          PREFIXES  ADVERTISED  WHY",
		"er1-microsoft  12076:52015  Azure Storage Australia East  5         4           in the route filter")
	compare(t, lines(t, func(b *bytes.Buffer) error {
		return ShowPublicPrefixes(b, []edge.PublicPrefixes{{VRF: "m", State: circuit.NotConfigured}})
	}),
		"VRF  PREFIX   VALIDATION-STATE",
		"m    = all 0  NotConfigured")
	free, near := edge.SessionStatus{VRF: "a"}, edge.SessionStatus{VRF: "b", Received: 3300}
	free.Prefixes.State, near.Prefixes = bgp.LimitOK, edge.LimitStatus{Limit: 4000, Headroom: 700, State: bgp.LimitNear, Exceeded: 1}
	compare(t, lines(t, func(b *bytes.Buffer) error { return ShowLimits(b, []edge.SessionStatus{free, near}) }),
		"VRF  NEIGHBOR    PREFIXES  LIMIT  HEADROOM  USED  STATE  EXCEEDED",
		"a    invalid IP  0         none   -         -     ok     0",
		"b    invalid IP  3300      4000   700       82%   near   1")
}
