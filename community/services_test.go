package community

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const oneService = `[{"bgpCommunities": [{
  "communityName": "Azure Storage Australia East", "communityPrefixes": ["20.38.112.0/23", "2603:1010::/32"],
  "communityValue": "12076:52015", "isAuthorizedToUse": true, "serviceGroup": "Azure", "serviceSupportedRegion": "Australia East"}],
  "id": "/subscriptions//resourceGroups//providers/x", "location": null, "name": "AzureStorage", "provisioningState": null,
  "resourceGroup": "", "serviceName": "Azure Storage", "tags": null, "type": "Microsoft.Network/bgpServiceCommunities"}]`

// rest is oneService as the REST API answers it.
const rest = `{"nextLink": "", "value": [{"name": "AzureStorage", "id": "x", "type": "y", "properties": {"serviceName": "Azure Storage",
  "bgpCommunities": [{"communityName": "Azure Storage Australia East", "communityPrefixes": ["20.38.112.0/23", "2603:1010::/32"],
  "communityValue": "12076:52015", "isAuthorizedToUse": true, "serviceGroup": "Azure", "serviceSupportedRegion": "Australia East"}]}}]}`

func TestParseServices(t *testing.T) {
	for _, data := range []string{oneService, rest} {
		got, err := ParseServices([]byte(data))
		const want = "[{Azure Storage [{Azure Storage Australia East Australia East 12076:52015 Azure true [20.38.112.0/23 2603:1010::/32]}]}]"
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestBadServices(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"20.38.112.0/23"`, `"20.38.112.0"`, `[0].bgpCommunities[0].communityPrefixes[0]: "20.38.112.0" is no prefix; want ADDRESS/LENGTH`},
		{`"20.38.112.0/23"`, `"20.38.112.1/23"`, `[0].bgpCommunities[0].communityPrefixes[0]: 20.38.112.1/23 has host bits; want 20.38.112.0/23`},
		{`"20.38.112.0/23"`, `"0.0.0.0/0"`, "is everything"},
		{`"12076:52015"`, `"52015"`, `[0].bgpCommunities[0].communityValue: community "52015" has no colon`},
		{`"12076:52015"`, `"12076:50015"`, "is no service's"},
		{`"12076:52015"`, `"8075:52015"`, "is no service's"},
		{`"isAuthorizedToUse": true`, `"isAuthorised": true`, `json: unknown field "isAuthorised"`},
		{`"isAuthorizedToUse": true`, `"isAuthorizedToUse": "yes"`, "line 3"},
		{`"serviceName": "Azure Storage"`, `"serviceName": 7`, "line 5"},
		{`"bgpCommunities": [{`, `"bgpCommunities": [], "tags": [{`, "[0].bgpCommunities: missing"},
		{oneService, "[]", "no service"},
		{oneService, "", "EOF"},
		{oneService, "[", "EOF"},
		{oneService, "7", "line 1"},
		{oneService, `[{"properties": {"properties": {}}}]`, "properties have none"},
		{oneService, `{"value": [{"bgpCommunities": [], "properties": {}}]}`, "both properties"},
		{oneService, oneService + "x", "something follows"},
		{oneService, `[{"bgpCommunities": [{"communityValue": "12076:52015"}]}]`, "[0].serviceName: missing"},
	} {
		_, err := ParseServices([]byte(strings.Replace(oneService, c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.new, err, c.want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	all := Prefixes(Sample(), func(Value) bool { return true })
	if !slices.IsSortedFunc(all, func(a, b Marked) int { return a.Prefix.Compare(b.Prefix) }) {
		t.Error("not in order")
	}
	var storage, both int
	for _, m := range all {
		if slices.Contains(m.Communities, Of(52015)) {
			storage++
			if fmt.Sprint(m.Communities) == "[12076:51015 12076:52015]" {
				both++
			}
		}
	}
	only := Prefixes(Sample(), func(v Value) bool { return v == Of(52015) })
	if storage != len(only) || storage == 0 || both != storage {
		t.Errorf("%d prefixes of Storage in Australia East, %d alone, %d also of the region", storage, len(only), both)
	}
}

func FuzzParseServices(f *testing.F) {
	f.Add([]byte(oneService))
	f.Add([]byte(rest))
	if data, err := os.ReadFile("sample.json"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		services, err := ParseServices(data)
		if err != nil {
			return
		}
		for _, m := range Prefixes(services, func(Value) bool { return true }) {
			if m.Prefix != m.Prefix.Masked() || len(m.Communities) == 0 {
				t.Errorf("%v", m)
			}
		}
	})
}
