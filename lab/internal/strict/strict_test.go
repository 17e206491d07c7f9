package strict

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type inner struct {
	Pos
	Addr netip.Addr `yaml:"addr"`
	Port uint16     `yaml:"port"`
	On   bool       `yaml:"on"`
}

type outer struct {
	Name  string            `yaml:"name"`
	Count int               `yaml:"count"`
	List  []inner           `yaml:"list"`
	One   *inner            `yaml:"one"`
	Map   map[string]string `yaml:"map"`
	Raw   *yaml.Node        `yaml:"raw"`
}

func TestDecode(t *testing.T) {
	var o outer
	err := Decode("f.yaml", []byte(`
name: x
count: -3
list:
  - {addr: 192.0.2.1, port: 0x10, on: true}
  - &two {addr: "2001:db8::1"}
one: *two
map: {a: 1, b: yes}
raw: {any: [thing, *two]}
`), &o)
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "x" || o.Count != -3 || len(o.List) != 2 || o.List[0].Port != 16 || !o.List[0].On {
		t.Errorf("got %+v", o)
	}
	if o.One == nil || o.One.Addr != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("alias: got %+v", o.One)
	}
	if o.List[0].Pos != (Pos{5, 5}) {
		t.Errorf("place: got %v, want 5:5", o.List[0].Pos)
	}
	if o.Map["a"] != "1" || o.Map["b"] != "yes" {
		t.Errorf("map: got %v", o.Map)
	}
	raw, err := yaml.Marshal(o.Raw)
	if err != nil || strings.ContainsAny(string(raw), "&*") {
		t.Errorf("raw: got %q, %v, want no alias", raw, err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown", "nam: x", `f:1:1: nam: unknown key, known are name, count, list, one, map, raw`},
		{"nested unknown", "list:\n  - {adr: 1.2.3.4}", `f:2:6: list[0].adr: unknown key, known are addr, port, on`},
		{"twice", "name: x\nname: y", `f:2:1: name: given twice`},
		{"number", "count: many", `f:1:8: count: "many": want a whole number`},
		{"range", "one: {port: 65536}", `f:1:13: one.port: "65536": want a whole number from 0 to 65535`},
		{"bool", "one: {on: maybe}", `f:1:11: one.on: "maybe": want true or false`},
		{"address", "one: {addr: 1.2.3}", `f:1:13: one.addr: "1.2.3": `},
		{"list", "list: {}", `f:1:7: list: want a list, got a mapping`},
		{"mapping", "one: 5", `f:1:6: one: want a mapping, got a value ("5")`},
		{"scalar", "name: [a]", `f:1:7: name: want a value, got a list`},
		{"null", "name:", `f:1:6: name: "": want text`},
		{"top", "- a", `f:1:1: file: want a mapping, got a list`},
		{"empty", "", `f:1:1: the file is empty`},
		{"syntax", "name: x\n\tcount: 1", `f:2:1: found a tab character`},
		{"key", "{[a]: b}", `a key must be a plain word`},
		{"cycle", "raw: &a [*a]", `too large or too deeply nested`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Decode("f", []byte(c.text), new(outer))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			var f *Fault
			if !errors.As(err, &f) {
				t.Errorf("%v is no Fault", err)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	err := Decode("f", []byte("nam: x\ncount: y\nlist: 3"), new(outer))
	if got := strings.Count(err.Error(), "\n") + 1; got != 3 {
		t.Errorf("got %d faults, want 3:\n%v", got, err)
	}
}

func TestAliasBomb(t *testing.T) {
	text := "raw:\n  - &x0 [a, a, a, a, a, a, a, a, a]\n"
	for i := range 12 {
		text += "  - &x" + string(rune('1'+i)) + " [" + strings.Repeat("*x"+string(rune('0'+i))+", ", 9) + "]\n"
	}
	if err := Decode("f", []byte(text), new(outer)); err == nil {
		t.Error("no error")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nlist: [{addr: 1.2.3.4}]"))
	f.Add([]byte("raw: &a [*a]"))
	f.Add([]byte("<<: {name: x}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Decode("f", data, new(outer))
		var fault *Fault
		if err != nil && !errors.As(err, &fault) {
			t.Errorf("%v is no Fault", err)
		}
	})
}
