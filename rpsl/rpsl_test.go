package rpsl

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
)

// dump is what RIRs' files look like.
const dump = `%
% The contents of this file are subject to
%

route:          198.51.100.0/24
descr:          Contoso
                of somewhere: else
origin:         AS65001
mnt-by:         CONTOSO-MNT
source:         RIPE # Filtered

aut-num:        AS65001
origin:         AS1
source:         RIPE

ROUTE6:2001:db8:100::/48
Origin:   as4200000001   # a comment
notify:
+
 continued
source: radb

route:
+               203.0.113.0/24
origin:
	AS65002
source:         ARIN
`

func read(t testing.TB, s string) ([]string, Stats) {
	t.Helper()
	var got []string
	stats, err := Read(strings.NewReader(s), func(r Route) {
		got = append(got, fmt.Sprintf("%v AS%d %s", r.Prefix, r.Origin, r.Source))
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, stats
}

func TestRead(t *testing.T) {
	const want = "[198.51.100.0/24 AS65001 RIPE 2001:db8:100::/48 AS4200000001 RADB 203.0.113.0/24 AS65002 ARIN]"
	for _, s := range []string{dump, strings.ReplaceAll(dump, "\n", "\r\n"), strings.TrimRight(dump, "\n"),
		strings.Replace(dump, "Contoso", strings.Repeat("x", 3*maxLine), 1), strings.ReplaceAll(dump, "\n\n", "\n \t\n\n")} {
		got, stats := read(t, s)
		if fmt.Sprint(got) != want || stats != (Stats{Objects: 4, Routes: 3}) {
			t.Errorf("got %v, %+v", got, stats)
		}
	}
}

func TestMalformed(t *testing.T) {
	for object, want := range map[string]string{
		"route: 198.51.100.0\norigin: AS1":              `line 1: route: "198.51.100.0" is no prefix`,
		"route: 198.51.100.1/24\norigin: AS1":           "line 1: route: 198.51.100.1/24 has host bits",
		"\nroute: 2001:db8::/32\norigin: AS1":           "line 2: route: 2001:db8::/32 is of the other family",
		"route6: 198.51.100.0/24\norigin: AS1":          "line 1: route6: 198.51.100.0/24 is of the other family",
		"route6: ::ffff:198.51.100.0/120\norigin: AS1":  "line 1: route6: ::ffff:198.51.100.0/120 is of the other family",
		"route: 198.51.100.0/24\nsource: X":             "line 1: route: no origin",
		"route: 198.51.100.0/24\norigin: 65001":         `line 1: route: origin "65001" is no AS number`,
		"route: 198.51.100.0/24\norigin: AS1.5":         `line 1: route: origin "AS1.5" is no AS number`,
		"route: 198.51.100.0/24\norigin: AS4294967296":  `line 1: route: origin "AS4294967296" is no AS number`,
		"route: 198.51.100.0/24\norigin:":               `line 1: route: origin "" is no AS number`,
		"route: 1.0.0.0/8\norigin: AS1\norigin: AS2":    "line 1: route: two origins",
		"route:\norigin: AS1":                           `line 1: route: "" is no prefix`,
		"route: 1.0.0.0/8\norigin: AS1\nsource: A\x1bB": `line 1: route: source "A\x1bB" is no name`,
	} {
		got, stats := read(t, object+"\n\nroute: 192.0.2.0/24\norigin: AS2\n")
		if stats.First != want || stats.Malformed != 1 || len(got) != 1 {
			t.Errorf("%q: %+v, %v; want %s", object, stats, got, want)
		}
	}
}

func TestReaderFails(t *testing.T) {
	broken := errors.New("disk on fire")
	n := 0
	if _, err := Read(iotest.ErrReader(broken), func(Route) { n++ }); !errors.Is(err, broken) || n != 0 {
		t.Errorf("got %v, %d routes", err, n)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(dump)
	f.Add("route: 1.0.0.0/8\norigin: AS1\n+\n")
	f.Add("route: 1.0.0.0/8\norigin: AS1\nsource: RIPE\r!\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, stats := read(t, s)
		if len(got) != stats.Routes || stats.Routes+stats.Malformed > stats.Objects || (stats.Malformed > 0) != (stats.First != "") {
			t.Errorf("%d routes, %+v", len(got), stats)
		}
		for _, r := range got {
			if strings.ContainsAny(r, "\r\n") {
				t.Errorf("%q", r)
			}
		}
	})
}

// BenchmarkRead: a registry's file is hundreds of megabytes.
func BenchmarkRead(b *testing.B) {
	s := strings.Repeat(dump, 1000)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		if _, err := Read(strings.NewReader(s), func(Route) {}); err != nil {
			b.Fatal(err)
		}
	}
}
