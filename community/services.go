package community

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// Service is a Microsoft service with its communities, as Azure's
// bgpServiceCommunities lists them.
type Service struct {
	Name        string
	Communities []ServiceCommunity
}

// ServiceCommunity is one community of a service, usually that of a region.
type ServiceCommunity struct {
	Name       string // e.g. Azure Storage Australia East
	Region     string // serviceSupportedRegion
	Value      Value
	Group      string
	Authorized bool // isAuthorizedToUse: may be in a route filter
	Prefixes   []netip.Prefix
}

// The shape of the file. Keys that Azure writes and nobody needs here are
// named, so that a misspelt one is not taken for one of them.
type (
	serviceItem struct {
		Name       string       `json:"name"`
		Service    string       `json:"serviceName"`
		Bands      []bandItem   `json:"bgpCommunities"`
		Properties *serviceItem `json:"properties"`

		ID, Type, Location, Tags, ETag, ResourceGroup, ProvisioningState json.RawMessage
	}
	bandItem struct {
		Region     string   `json:"serviceSupportedRegion"`
		Name       string   `json:"communityName"`
		Value      string   `json:"communityValue"`
		Prefixes   []string `json:"communityPrefixes"`
		Authorized *bool    `json:"isAuthorizedToUse"` // true if it is not there
		Group      string   `json:"serviceGroup"`
	}
)

// MaxServicesSize is the size of the largest list of services, in octets.
const MaxServicesSize = 64 << 20

// ParseServices reads a list of services: what
//
//	az network route-filter rule list-service-communities
//
// prints, or the answer of the REST API, which has the list under "value" and
// each item's content under "properties". The error names the place of the
// first fault.
func ParseServices(data []byte) ([]Service, error) {
	if len(data) > MaxServicesSize {
		return nil, fmt.Errorf("the list is too large (%d bytes; want at most %d)", len(data), MaxServicesSize)
	}
	var items []serviceItem
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		var page struct {
			Value    []serviceItem `json:"value"`
			NextLink json.RawMessage
		}
		err = decode(data, &page)
		items = page.Value
	} else {
		err = decode(data, &items)
	}
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, errors.New("the list has no service")
	}
	services := make([]Service, len(items))
	for i := range items {
		if services[i], err = items[i].service(); err != nil {
			return nil, fmt.Errorf("[%d]%w", i, err)
		}
	}
	return services, nil
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the list")
		}
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %w", lineOf(data, syntax.Offset), err)
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %w", lineOf(data, kind.Offset), err)
	}
	return err
}

// lineOf is the line of the octet at offset.
func lineOf(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:max(0, min(offset, int64(len(data))))], []byte("\n"))
}

func (item *serviceItem) service() (Service, error) {
	if item.Properties != nil {
		if item.Properties.Properties != nil {
			return Service{}, errors.New(".properties.properties: properties have none")
		}
		if item.Bands != nil {
			return Service{}, errors.New(": both properties and bgpCommunities; want one of them")
		}
		inner := *item.Properties
		if inner.Name == "" {
			inner.Name = item.Name
		}
		return inner.service()
	}
	s := Service{Name: item.Service}
	if s.Name == "" {
		s.Name = item.Name
	}
	if s.Name == "" {
		return s, errors.New(".serviceName: missing")
	}
	if len(item.Bands) == 0 {
		return s, errors.New(".bgpCommunities: missing; want at least one")
	}
	for i := range item.Bands {
		c, err := item.Bands[i].community()
		if err != nil {
			return s, fmt.Errorf(".bgpCommunities[%d]%w", i, err)
		}
		s.Communities = append(s.Communities, c)
	}
	return s, nil
}

func (b *bandItem) community() (ServiceCommunity, error) {
	c := ServiceCommunity{Name: b.Name, Region: b.Region, Group: b.Group, Authorized: b.Authorized == nil || *b.Authorized}
	v, err := Parse(b.Value)
	if err != nil {
		return c, fmt.Errorf(".communityValue: %w", err)
	}
	if k := v.Class(); v>>16 != AS || k == VNetCustom || k == VNetRegion {
		return c, fmt.Errorf(".communityValue: %v is no service's; want 12076:51NNN to 12076:55NNN or 12076:5xx0", v)
	}
	c.Value = v
	for i, s := range b.Prefixes {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || p.Addr().Is4In6():
			return c, fmt.Errorf(".communityPrefixes[%d]: %q is no prefix; want ADDRESS/LENGTH", i, s)
		case p != p.Masked():
			return c, fmt.Errorf(".communityPrefixes[%d]: %v has host bits; want %v", i, p, p.Masked())
		case p.Bits() == 0:
			return c, fmt.Errorf(".communityPrefixes[%d]: %v is everything; want a service's prefix", i, p)
		}
		c.Prefixes = append(c.Prefixes, p)
	}
	return c, nil
}

// Marked is a prefix with all communities that list it, in rising order.
type Marked struct {
	Prefix      netip.Prefix
	Communities []Value
}

// Prefixes lists the prefixes of the services whose community pass lets
// through, in order.
func Prefixes(services []Service, pass func(Value) bool) []Marked {
	marks := map[netip.Prefix][]Value{}
	for _, s := range services {
		for _, c := range s.Communities {
			if !pass(c.Value) {
				continue
			}
			for _, p := range c.Prefixes {
				if !slices.Contains(marks[p], c.Value) {
					marks[p] = append(marks[p], c.Value)
				}
			}
		}
	}
	out := make([]Marked, 0, len(marks))
	for p, values := range marks {
		slices.Sort(values)
		out = append(out, Marked{p, values})
	}
	slices.SortFunc(out, func(a, b Marked) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

//go:embed sample.json
var sample []byte

// Sample returns a few services with a few of their prefixes, for labs: the
// values are Azure's, the prefixes only look like it.
func Sample() []Service {
	services, err := ParseServices(sample)
	if err != nil {
		panic("the built-in list of services is bad: " + err.Error()) // a test has parsed it
	}
	return services
}
