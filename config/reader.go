package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"msee/circuit"

	"go.yaml.in/yaml/v3"
)

// maxFaults bounds the report on a file that is wrong throughout.
const maxFaults = 1000

// maxItems bounds every list; no port has more VLANs.
const maxItems = 4096

// reader reads one file: it hands out checked values, and collects faults. A
// value that is absent or refused is the zero value, which the checks between
// values skip.
type reader struct {
	file   string
	faults Faults
	places map[string]place // of every value asked for, by its path
	end    place            // of the file's last character
	outside
}

// place is a position in a file, from 1; the zero value is none.
type place struct{ line, column int }

func placeOf(n *yaml.Node) place { return place{n.Line, n.Column} }

func (r *reader) faultAt(at place, path, value, problem, want string) {
	if at.line > r.end.line { // YAML sees an absent value in the line behind the last
		at = r.end
	}
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, Fault{r.file, at.line, at.column, path, value, problem, want})
	}
}

// fault refuses the value at path, which was asked for before.
func (r *reader) fault(path, value, problem, want string) {
	r.faultAt(r.places[path], path, value, problem, want)
}

// where says where the value at path stands, for messages about another one.
func (r *reader) where(path string) string {
	return fmt.Sprintf("%s (line %d)", path, r.places[path].line)
}

// item is a node with its path.
type item struct {
	node *yaml.Node
	path string
}

func (r *reader) refuse(it item, v *circuit.Violation) {
	r.faultAt(placeOf(it.node), it.path, show(it.node), v.Problem, v.Want)
}

// usable reports whether a node may be read: what checkTree has refused is not
// refused again for its type.
func usable(n *yaml.Node) bool { return n.Kind != yaml.AliasNode && n.Style&yaml.TaggedStyle == 0 }

// wrongType refuses an item for its YAML type.
func (r *reader) wrongType(it item, want string) {
	if usable(it.node) {
		r.refuse(it, &circuit.Violation{Problem: "wrong type", Want: want})
	}
}

// show describes a node's value for a message.
func show(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind != yaml.ScalarNode, n.ShortTag() == "!!null":
		return "nothing"
	}
	return quote(n.Value)
}

var plainKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,39}$`)

// join appends a mapping's key to a path. A key that looks like no key, or has
// no value, is not repeated: a blank missing after the colon makes key and value
// one, and a comma in its place makes a key of the value.
func join(path string, key, value *yaml.Node) string {
	name := key.Value
	if key.Kind != yaml.ScalarNode || !plainKey.MatchString(name) || isNull(value) {
		name = "?"
	}
	return strings.TrimPrefix(path+"."+name, ".")
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// object is a mapping being read. Each key asked for becomes a known one; done
// refuses the others.
type object struct {
	r      *reader
	path   string
	values map[string]*yaml.Node
	keys   []*yaml.Node
	known  []string
}

// Whether a key may be left out.
const (
	required = true
	optional = false
)

func (r *reader) object(it item) (*object, bool) {
	if it.node.Kind != yaml.MappingNode || !usable(it.node) {
		r.wrongType(it, "a mapping")
		return nil, false
	}
	o := &object{r: r, path: it.path, values: make(map[string]*yaml.Node)}
	r.places[it.path] = placeOf(it.node)
	for i := 0; i+1 < len(it.node.Content); i += 2 {
		if key := it.node.Content[i]; key.Kind == yaml.ScalarNode && key.ShortTag() != "!!merge" {
			o.keys = append(o.keys, key)
			o.values[key.Value] = it.node.Content[i+1]
		}
	}
	return o, true
}

func (o *object) child(key string) string { return strings.TrimPrefix(o.path+"."+key, ".") }

func (o *object) has(key string) bool { return o.values[key] != nil }

// get returns the value of a key; want is what a missing one should have been.
func (o *object) get(key string, need bool, want string) (item, bool) {
	o.known = append(o.known, key)
	it := item{o.values[key], o.child(key)}
	if it.node == nil {
		o.r.places[it.path] = o.r.places[o.path]
		if need {
			o.r.fault(it.path, "", "missing", want)
		}
		return it, false
	}
	o.r.places[it.path] = placeOf(it.node)
	return it, true
}

// done refuses all keys that were not asked for.
func (o *object) done() {
	for _, key := range o.keys {
		if o.isKnown(key.Value) || len(o.r.faults) >= maxFaults {
			continue
		}
		problem, want := "unknown key", oneOf(o.known)
		if near := suggest(key.Value, o.known); near != "" {
			problem, want = "unknown key; did you mean "+near+"?", ""
		}
		o.r.faultAt(placeOf(key), join(o.path, key, o.values[key.Value]), "", problem, want)
	}
}

func (o *object) isKnown(key string) bool {
	for _, k := range o.known {
		if k == key {
			return true
		}
	}
	return false
}

// section returns the mapping under a key; content is what a missing one should
// have had in it.
func (o *object) section(key string, need bool, content string) (*object, bool) {
	it, ok := o.get(key, need, "a mapping with "+content)
	if !ok {
		return nil, false
	}
	return o.r.object(it)
}

// list returns the items of the list under a key.
func (o *object) list(key string, need bool) []item {
	it, ok := o.get(key, need, "a list")
	if !ok {
		return nil
	}
	if it.node.Kind != yaml.SequenceNode || !usable(it.node) {
		o.r.wrongType(it, "a list")
		return nil
	}
	switch n := len(it.node.Content); {
	case n == 0 && need:
		o.r.fault(it.path, "an empty list", "missing", "at least one item")
	case n > maxItems:
		o.r.fault(it.path, strconv.Itoa(n)+" items", "the list is too long", fmt.Sprintf("at most %d items", maxItems))
		return nil
	}
	items := make([]item, len(it.node.Content))
	for i, n := range it.node.Content {
		items[i] = item{n, index(it.path, i)}
		o.r.places[items[i].path] = placeOf(n)
	}
	return items
}

// objects calls read with every mapping of the list under a key.
func (o *object) objects(key string, need bool, read func(*object)) {
	for _, it := range o.list(key, need) {
		if c, ok := o.r.object(it); ok {
			read(c)
			c.done()
		}
	}
}

// value reads the value of a key: decode makes it from YAML, check is its rule.
// The rule's word on the zero value is what a missing one should have been.
func value[T any](o *object, key string, need bool, decode func(*reader, item) (T, bool), check func(T) *circuit.Violation) (out T) {
	want := ""
	if v := check(out); v != nil {
		want = v.Want
	}
	it, ok := o.get(key, need, want)
	if !ok {
		return out
	}
	return checked(o.r, it, decode, check)
}

// values reads the list of values under a key. A refused one leaves the zero
// value in its place.
func values[T comparable](o *object, key string, need bool, decode func(*reader, item) (T, bool), check func(T) *circuit.Violation) []T {
	var out []T
	var zero T
	seen := make(map[T]string)
	for _, it := range o.list(key, need) {
		v := checked(o.r, it, decode, check)
		if first, dup := seen[v]; dup && v != zero {
			o.r.fault(it.path, show(it.node), "listed twice", "it once: "+o.r.where(first)+" has it")
			v = zero
		}
		seen[v] = it.path
		out = append(out, v)
	}
	return out
}

func checked[T any](r *reader, it item, decode func(*reader, item) (T, bool), check func(T) *circuit.Violation) (zero T) {
	v, ok := decode(r, it)
	if !ok {
		return zero
	}
	if bad := check(v); bad != nil {
		r.refuse(it, bad)
		return zero
	}
	return v
}

// text decodes a string. YAML's guess at unquoted numbers and dates is not
// taken for one: 0123 and 1e3 mean other things to other readers.
func text(r *reader, it item) (string, bool) {
	if it.node.Kind != yaml.ScalarNode || it.node.ShortTag() != "!!str" || !usable(it.node) {
		want := "a string"
		if it.node.Kind == yaml.ScalarNode && it.node.ShortTag() != "!!null" {
			want = "a string: write it in quotes"
		}
		r.wrongType(it, want)
		return "", false
	}
	return it.node.Value, true
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// number decodes a decimal integer; one beyond 64 bits becomes the nearest
// that fits, which every rule refuses.
func number(r *reader, it item) (int64, bool) {
	if it.node.Kind != yaml.ScalarNode || it.node.ShortTag() == "!!str" || !decimal.MatchString(it.node.Value) || !usable(it.node) {
		want := "a decimal number"
		if it.node.Kind == yaml.ScalarNode && decimal.MatchString(it.node.Value) {
			want = "a number: write it without quotes"
		}
		r.wrongType(it, want)
		return 0, false
	}
	n, _ := strconv.ParseInt(it.node.Value, 10, 64) // out of range: saturates
	return n, true
}

// truth decodes true or false, in their one spelling.
func truth(r *reader, it item) (bool, bool) {
	if it.node.Kind != yaml.ScalarNode || it.node.ShortTag() != "!!bool" || !usable(it.node) ||
		it.node.Value != "true" && it.node.Value != "false" {
		r.wrongType(it, "true or false")
		return false, false
	}
	return it.node.Value == "true", true
}

// toggle reads a truth value that may be left out.
func toggle(o *object, key string, otherwise bool) bool {
	if !o.has(key) {
		o.get(key, optional, "")
		return otherwise
	}
	return value(o, key, optional, truth, func(bool) *circuit.Violation { return nil })
}

// address decodes an address without a prefix length.
func address(r *reader, it item) (netip.Addr, bool) {
	s, ok := text(r, it)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		r.refuse(it, &circuit.Violation{Problem: "not an address", Want: "an IPv4 or IPv6 address, e.g. 192.0.2.1 or 2001:db8::1"})
		return netip.Addr{}, false
	}
	return a, true
}

// prefix decodes an address with a prefix length.
func prefix(r *reader, it item) (netip.Prefix, bool) {
	s, ok := text(r, it)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		problem := "not a prefix"
		if _, err := netip.ParseAddr(s); err == nil {
			problem = "no prefix length"
		}
		r.refuse(it, &circuit.Violation{Problem: problem, Want: "ADDRESS/LENGTH, e.g. 192.0.2.0/30 or 2001:db8::/126"})
		return netip.Prefix{}, false
	}
	return p, true
}

// word reads one of several words, the first of which stands for a missing
// optional one.
func word[T ~string](o *object, key string, need bool, allowed ...T) T {
	check := func(s string) *circuit.Violation {
		for _, w := range allowed {
			if s == string(w) {
				return nil
			}
		}
		return &circuit.Violation{Problem: "not a value of " + key, Want: oneOf(allowed)}
	}
	if !need && !o.has(key) {
		value(o, key, need, text, check)
		return allowed[0]
	}
	return T(value(o, key, need, text, check))
}

// secret reads a string of which messages say nothing but what check says.
func secret(o *object, key string, check func(string) *circuit.Violation) string {
	it, ok := o.get(key, optional, "")
	if !ok {
		return ""
	}
	if it.node.Kind != yaml.ScalarNode || it.node.ShortTag() != "!!str" {
		if usable(it.node) {
			o.r.fault(it.path, "", "wrong type", "a string: write it in quotes")
		}
		return ""
	}
	if !usable(it.node) {
		return ""
	}
	if v := check(it.node.Value); v != nil {
		o.r.fault(it.path, "", v.Problem, v.Want)
		return ""
	}
	return it.node.Value
}
