package community

import (
	"slices"
	"strings"
)

// AzureRegion is one of Azure's regions.
type AzureRegion struct {
	Suffix       uint16 // NNN of its communities
	Name         string // as the portal has it, e.g. Australia East
	Location     string // as the resource model has it, e.g. australiaeast
	Geopolitical string // all that a Standard circuit within it reaches
}

// regions are those whose suffix is published. Newer ones have suffixes too:
// those come with the list of services.
var regions = []AzureRegion{
	{2, "West Europe", "westeurope", "Europe"},
	{3, "North Europe", "northeurope", "Europe"},
	{4, "East US", "eastus", "North America"},
	{5, "East US 2", "eastus2", "North America"},
	{6, "West US", "westus", "North America"},
	{7, "North Central US", "northcentralus", "North America"},
	{8, "South Central US", "southcentralus", "North America"},
	{9, "Central US", "centralus", "North America"},
	{10, "East Asia", "eastasia", "Asia"},
	{11, "Southeast Asia", "southeastasia", "Asia"},
	{12, "Japan East", "japaneast", "Japan"},
	{13, "Japan West", "japanwest", "Japan"},
	{14, "Brazil South", "brazilsouth", "South America"},
	{15, "Australia East", "australiaeast", "Oceania"},
	{16, "Australia Southeast", "australiasoutheast", "Oceania"},
	{17, "India Central", "centralindia", "India"},
	{18, "India West", "westindia", "India"},
	{19, "India South", "southindia", "India"},
	{20, "Canada Central", "canadacentral", "North America"},
	{21, "Canada East", "canadaeast", "North America"},
	{24, "UK South", "uksouth", "Europe"},
	{25, "UK West", "ukwest", "Europe"},
	{26, "West US 2", "westus2", "North America"},
	{27, "West Central US", "westcentralus", "North America"},
	{28, "Korea South", "koreasouth", "South Korea"},
	{29, "Korea Central", "koreacentral", "South Korea"},
	{30, "France Central", "francecentral", "Europe"},
	{31, "France South", "francesouth", "Europe"},
	{32, "Australia Central", "australiacentral", "Australia Government"},
	{33, "Australia Central 2", "australiacentral2", "Australia Government"},
	{34, "South Africa North", "southafricanorth", "South Africa"},
	{35, "South Africa West", "southafricawest", "South Africa"},
	{36, "UAE North", "uaenorth", "UAE"},
	{37, "UAE Central", "uaecentral", "UAE"},
	{38, "Switzerland North", "switzerlandnorth", "Europe"},
	{39, "Switzerland West", "switzerlandwest", "Europe"},
	{40, "Germany North", "germanynorth", "Europe"},
	{41, "Germany West Central", "germanywestcentral", "Europe"},
	{42, "Norway East", "norwayeast", "Europe"},
	{43, "Norway West", "norwaywest", "Europe"},
	{44, "West US 3", "westus3", "North America"},
	{57, "Spain Central", "spaincentral", "Europe"},
	{59, "New Zealand North", "newzealandnorth", "Oceania"},
}

// Regions lists the regions whose communities are known, by suffix.
func Regions() []AzureRegion { return slices.Clone(regions) }

// BySuffix returns the region with that suffix, nil if it is not known.
func BySuffix(suffix uint16) *AzureRegion {
	return find(func(r *AzureRegion) bool { return r.Suffix == suffix })
}

// ByName returns the region of that name or location, nil if it is not known.
func ByName(name string) *AzureRegion {
	plain := strings.ToLower(strings.ReplaceAll(name, " ", ""))
	return find(func(r *AzureRegion) bool {
		return r.Location == plain || strings.ToLower(strings.ReplaceAll(r.Name, " ", "")) == plain
	})
}

func find(is func(*AzureRegion) bool) *AzureRegion {
	for i := range regions {
		if is(&regions[i]) {
			return &regions[i]
		}
	}
	return nil
}

// PeeringLocation is a place where MSEEs stand.
type PeeringLocation struct {
	Name         string
	Geopolitical string
	Local        []uint16 // suffixes of the regions that a Local circuit there reaches
}

// locations are the places of the public cloud. Regions next to them whose
// suffix is not published are left out of Local.
var locations = []PeeringLocation{
	{"Abu Dhabi", "UAE", []uint16{37}},
	{"Amsterdam", "Europe", []uint16{2}}, {"Amsterdam2", "Europe", []uint16{2}},
	{"Atlanta", "North America", nil}, {"Atlanta2", "North America", nil},
	{"Auckland", "Oceania", []uint16{59}},
	{"Bangkok", "Asia", nil},
	{"Berlin", "Europe", []uint16{40}},
	{"Brussels", "Europe", nil}, {"Brussels2", "Europe", nil},
	{"Busan", "South Korea", []uint16{28}},
	{"Campinas", "South America", []uint16{14}},
	{"Canberra", "Australia Government", []uint16{32}}, {"Canberra2", "Australia Government", []uint16{33}},
	{"Cape Town", "South Africa", []uint16{35}},
	{"Chennai", "India", []uint16{19}}, {"Chennai2", "India", []uint16{19}},
	{"Chicago", "North America", []uint16{7}}, {"Chicago2", "North America", []uint16{7}},
	{"Copenhagen", "Europe", nil},
	{"Dallas", "North America", nil}, {"Dallas2", "North America", nil},
	{"Denver", "North America", []uint16{27}},
	{"Doha", "Qatar", nil}, {"Doha2", "Qatar", nil},
	{"Dubai", "UAE", []uint16{36}}, {"Dubai2", "UAE", []uint16{36}},
	{"Dublin", "Europe", []uint16{3}}, {"Dublin2", "Europe", []uint16{3}},
	{"Frankfurt", "Europe", []uint16{41}}, {"Frankfurt2", "Europe", []uint16{41}},
	{"Geneva", "Europe", []uint16{39}},
	{"Hong Kong", "Asia", []uint16{10}}, {"Hong Kong2", "Asia", []uint16{10}},
	{"Jakarta", "Asia", nil}, {"Jakarta2", "Asia", nil},
	{"Johannesburg", "South Africa", []uint16{34}},
	{"Kuala Lumpur", "Asia", nil}, {"Kuala Lumpur2", "Asia", nil},
	{"Las Vegas", "North America", nil},
	{"London", "Europe", []uint16{24}}, {"London2", "Europe", []uint16{24}},
	{"Los Angeles", "North America", nil}, {"Los Angeles2", "North America", nil},
	{"Madrid", "Europe", []uint16{57}}, {"Madrid2", "Europe", []uint16{57}},
	{"Marseille", "Europe", []uint16{31}},
	{"Melbourne", "Oceania", []uint16{16}}, {"Melbourne2", "Oceania", []uint16{16}},
	{"Miami", "North America", nil},
	{"Milan", "Europe", nil}, {"Milan2", "Europe", nil},
	{"Minneapolis", "North America", nil},
	{"Montreal", "North America", nil},
	{"Mumbai", "India", []uint16{18}}, {"Mumbai2", "India", []uint16{18}},
	{"Munich", "Europe", nil},
	{"New York", "North America", nil},
	{"Newport(Wales)", "Europe", []uint16{25}},
	{"Osaka", "Japan", []uint16{13}},
	{"Oslo", "Europe", []uint16{42}},
	{"Paris", "Europe", []uint16{30}}, {"Paris2", "Europe", []uint16{30}},
	{"Perth", "Oceania", nil},
	{"Phoenix", "North America", []uint16{44}}, {"Phoenix2", "North America", []uint16{44}},
	{"Portland", "North America", []uint16{26}},
	{"Pune", "India", []uint16{17}},
	{"Quebec City", "North America", []uint16{21}},
	{"Queretaro (Mexico)", "North America", nil},
	{"Quincy", "North America", []uint16{26}},
	{"Rio de Janeiro", "South America", nil},
	{"San Antonio", "North America", []uint16{8}},
	{"Santiago", "South America", nil},
	{"Sao Paulo", "South America", []uint16{14}}, {"Sao Paulo2", "South America", []uint16{14}},
	{"Seattle", "North America", []uint16{26}},
	{"Seoul", "South Korea", []uint16{29}}, {"Seoul2", "South Korea", []uint16{29}},
	{"Silicon Valley", "North America", []uint16{6}}, {"Silicon Valley2", "North America", []uint16{6}},
	{"Singapore", "Asia", []uint16{11}}, {"Singapore2", "Asia", []uint16{11}},
	{"Stavanger", "Europe", []uint16{43}},
	{"Stockholm", "Europe", nil}, {"Stockholm2", "Europe", nil},
	{"Sydney", "Oceania", []uint16{15}}, {"Sydney2", "Oceania", []uint16{15}},
	{"Taipei", "Asia", nil}, {"Taipei2", "Asia", nil},
	{"Tel Aviv", "Israel", nil}, {"Tel Aviv2", "Israel", nil},
	{"Tokyo", "Japan", []uint16{12}}, {"Tokyo2", "Japan", []uint16{12}}, {"Tokyo3", "Japan", []uint16{12}},
	{"Toronto", "North America", []uint16{20}}, {"Toronto2", "North America", []uint16{20}},
	{"Vancouver", "North America", nil},
	{"Vienna", "Europe", nil}, {"Vienna2", "Europe", nil},
	{"Warsaw", "Europe", nil},
	{"Washington DC", "North America", []uint16{4, 5}}, {"Washington DC2", "North America", []uint16{4, 5}},
	{"Zurich", "Europe", []uint16{38}}, {"Zurich2", "Europe", []uint16{38}},
}

// Locations lists the names of the peering locations.
func Locations() []string {
	names := make([]string, len(locations))
	for i, l := range locations {
		names[i] = l.Name
	}
	return names
}

// Location returns the peering location of that name, nil if there is none.
func Location(name string) *PeeringLocation {
	for i := range locations {
		if locations[i].Name == name {
			return &locations[i]
		}
	}
	return nil
}

// Within lists the suffixes of the regions of a geopolitical area.
func Within(geopolitical string) []uint16 {
	var out []uint16
	for _, r := range regions {
		if r.Geopolitical == geopolitical {
			out = append(out, r.Suffix)
		}
	}
	return out
}
