// Package community knows the BGP communities (RFC 1997) with which Azure marks
// its routes: what a value means, which region it names, and which prefixes a
// Microsoft service has.
//
// Every value is 12076:CCNNN or 12076:5xx0. CC is the class: 50 the region of a
// VNet, 51 to 55 what a region offers to the public (all of it, Storage, SQL,
// Cosmos DB, Backup), 20 what a customer picked for a VNet. NNN is the region.
// The others name services that are of no region, such as 12076:5060.
//
// The package is pure; everything in it is safe for concurrent use.
package community

import (
	"fmt"
	"strconv"
	"strings"
)

// AS is the upper half of all of Azure's values.
const AS = 12076

// Value is a community.
type Value uint32

// Of returns the value 12076:n.
func Of(n uint16) Value { return AS<<16 | Value(n) }

// Parse reads AS:VALUE, both decimal and below 65536.
func Parse(s string) (Value, error) {
	as, value, ok := strings.Cut(s, ":")
	if !ok {
		return 0, fmt.Errorf("community %q has no colon; want AS:VALUE, e.g. 12076:52015", s)
	}
	hi, err1 := half(as)
	lo, err2 := half(value)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("community %q is not AS:VALUE; want two decimal numbers below 65536, e.g. 12076:52015", s)
	}
	return Value(hi)<<16 | Value(lo), nil
}

// half reads one of a value's numbers, in its only spelling.
func half(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return uint16(n), err
}

// String writes AS:VALUE.
func (v Value) String() string {
	return strconv.Itoa(int(v>>16)) + ":" + strconv.Itoa(int(v&0xffff))
}

// MarshalText writes AS:VALUE.
func (v Value) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads AS:VALUE.
func (v *Value) UnmarshalText(text []byte) (err error) {
	*v, err = Parse(string(text))
	return err
}

// Class is what kind of thing a value names.
type Class uint8

// The classes; the numbers are those in the values.
const (
	Other      Class = 0  // a service of no region, or nothing of Azure's
	VNetCustom Class = 20 // what a customer picked for a VNet
	VNetRegion Class = 50 // the region of a VNet
	Region     Class = 51 // all public services of a region
	Storage    Class = 52
	SQL        Class = 53
	CosmosDB   Class = 54
	Backup     Class = 55
)

// Class returns the class of a value.
func (v Value) Class() Class {
	if v>>16 != AS {
		return Other
	}
	switch c := Class(v & 0xffff / 1000); c {
	case VNetCustom, VNetRegion, Region, Storage, SQL, CosmosDB, Backup:
		return c
	}
	return Other
}

// Region returns the suffix of the region that a value names, of whatever class
// but VNetCustom; 0 if it names none.
func (v Value) Region() uint16 {
	if c := v.Class(); c == Other || c == VNetCustom {
		return 0
	}
	return uint16(v & 0xffff % 1000)
}

// InRegion returns the value of that class for a region's suffix.
func (c Class) InRegion(suffix uint16) Value { return Of(uint16(c)*1000 + suffix) }

// services are the values that name no region.
var services = map[uint16]string{
	5010: "Exchange Online", 5020: "SharePoint Online", 5030: "Skype for Business Online and Teams",
	5040: "CRM Online", 5050: "Azure Global Services", 5060: "Microsoft Entra ID",
	5070: "Azure Resource Manager", 5100: "Other Office 365 Services",
	5220: "Microsoft Defender for Identity", 5250: "Microsoft PSTN services",
	5110: "Exchange Online (US Government)", 5120: "SharePoint Online (US Government)",
	5130: "Skype for Business Online (US Government)", 5160: "Microsoft Entra ID (US Government)",
	5200: "Other Office 365 Services (US Government)",
}

// Microsoft365 reports whether a value names a service that Microsoft has to
// authorise, on a Premium circuit, before a route filter may have it.
func (v Value) Microsoft365() bool {
	switch v {
	case Of(5010), Of(5020), Of(5030), Of(5100):
		return true
	}
	return false
}

// classNames are what Azure calls the classes in communityName.
var classNames = map[Class]string{
	VNetRegion: "Virtual networks", Region: "Azure", Storage: "Azure Storage", SQL: "Azure SQL",
	CosmosDB: "Azure Cosmos DB", Backup: "Azure Backup",
}

// Describe says in words what a value means, "" if that is not known.
func (v Value) Describe() string {
	if v>>16 != AS {
		return ""
	}
	c := v.Class()
	if c == Other {
		return services[uint16(v&0xffff)]
	}
	if c == VNetCustom {
		return "picked by the customer for a virtual network"
	}
	r := BySuffix(v.Region())
	if r == nil {
		return fmt.Sprintf("%s, region %03d", classNames[c], v.Region())
	}
	return fmt.Sprintf("%s (%s)", classNames[c], r.Name)
}
