package community

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Value{
		"12076:52015": Of(52015), "12076:5060": Of(5060), "0:0": 0, "65535:65535": 0xffffffff, "1:2": 1<<16 | 2,
	} {
		got, err := Parse(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("Parse(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "12076", "12076:", ":5060", "12076:65536", "65536:1", "12076:05060", "+1:1", "1:-1", "1:1:1", "a:b", " 1:1"} {
		if v, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, v)
		}
	}
}

func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		value  string
		class  Class
		region uint16
		words  string
	}{
		{"12076:52015", Storage, 15, "Azure Storage (Australia East)"},
		{"12076:51015", Region, 15, "Azure (Australia East)"},
		{"12076:50057", VNetRegion, 57, "Virtual networks (Spain Central)"},
		{"12076:55002", Backup, 2, "Azure Backup (West Europe)"},
		{"12076:53999", SQL, 999, "Azure SQL, region 999"},
		{"12076:20015", VNetCustom, 0, "picked by the customer for a virtual network"},
		{"12076:5060", Other, 0, "Microsoft Entra ID"},
		{"12076:5061", Other, 0, ""},
		{"12076:56015", Other, 0, ""},
		{"8075:52015", Other, 0, ""},
	} {
		v, err := Parse(c.value)
		if err != nil || v.Class() != c.class || v.Region() != c.region || v.Describe() != c.words {
			t.Errorf("%s: class %d, region %d, %q, %v", c.value, v.Class(), v.Region(), v.Describe(), err)
		}
	}
	if Storage.InRegion(15).String() != "12076:52015" {
		t.Error(Storage.InRegion(15))
	}
}

// TestTables: names and suffixes are unique, and the tables refer to each other
// rightly.
func TestTables(t *testing.T) {
	geo := map[string]bool{}
	seen := map[string]bool{}
	for _, r := range Regions() {
		geo[r.Geopolitical] = true
		for _, key := range []string{r.Name, r.Location, Region.InRegion(r.Suffix).String()} {
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
		if ByName(r.Name) != BySuffix(r.Suffix) || ByName(r.Location) != BySuffix(r.Suffix) || ByName(r.Name).Suffix != r.Suffix {
			t.Errorf("%s is not found", r.Name)
		}
	}
	for _, name := range Locations() {
		l := Location(name)
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		for _, suffix := range l.Local {
			if r := BySuffix(suffix); r == nil || r.Geopolitical != l.Geopolitical {
				t.Errorf("%s: region %d is not of %s", name, suffix, l.Geopolitical)
			}
		}
		if len(l.Local) > 0 && !slices.Contains(Within(l.Geopolitical), l.Local[0]) {
			t.Errorf("%s: %s has no region %d", name, l.Geopolitical, l.Local[0])
		}
	}
	if Location("sydney") != nil || ByName("Nowhere") != nil || BySuffix(0) != nil {
		t.Error("something is found that is not there")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("12076:52015")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := Parse(s); err == nil && v.String() != s {
			t.Errorf("%q became %s", s, v)
		}
		v, _ := Parse(s)
		v.Describe()
	})
}
