// Package strict reads YAML into Go structs and refuses what it does not know:
// unknown and repeated keys, values of another type. It reports every fault at
// once, each with its place in the file, and leaves places in the structs for
// the checks that come after it.
package strict

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Pos is a place in a file. A struct field of this type is set to where the
// struct's mapping begins.
type Pos struct {
	Line, Col int // from 1
}

// Fault is something wrong with a file.
type Fault struct {
	File string
	Pos
	Message string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Col, f.Message)
}

// Limits on hostile documents: aliases can make a small file enormous.
const (
	maxNodes = 100_000
	maxDepth = 64
)

// Decode reads data into the struct that out points to. Field names come from
// the `yaml:"name"` tags; a field without one is not read. A *yaml.Node field
// takes whatever stands there, its aliases resolved. The error joins Faults.
func Decode(file string, data []byte, out any) error {
	d := &decoder{file: file}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return d.syntaxFault(err)
	}
	if len(doc.Content) == 0 {
		return &Fault{file, Pos{1, 1}, "the file is empty"}
	}
	root := d.expand(doc.Content[0], 0)
	if len(d.faults) == 0 {
		d.decode(root, reflect.ValueOf(out).Elem(), "")
	}
	return errors.Join(d.faults...)
}

type decoder struct {
	file   string
	nodes  int
	faults []error
}

func (d *decoder) fault(n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, &Fault{d.file, Pos{n.Line, n.Column}, fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxFault puts the parser's message into our form; it knows no column.
func (d *decoder) syntaxFault(err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	pos := Pos{1, 1}
	if m == nil {
		return &Fault{d.file, pos, err.Error()}
	}
	if line, err := strconv.Atoi(m[1]); err == nil {
		pos.Line = line
	}
	return &Fault{d.file, pos, strings.TrimPrefix(err.Error(), m[0])}
}

// expand returns a copy of n with its aliases replaced by what they stand for.
func (d *decoder) expand(n *yaml.Node, depth int) *yaml.Node {
	d.nodes++
	if d.nodes > maxNodes || depth > maxDepth {
		if len(d.faults) == 0 {
			d.fault(n, "the file is too large or too deeply nested: at most %d values, %d levels", maxNodes, maxDepth)
		}
		return n
	}
	if n.Kind == yaml.AliasNode {
		return d.expand(n.Alias, depth+1)
	}
	out := *n
	out.Anchor, out.Content = "", make([]*yaml.Node, 0, len(n.Content))
	for _, c := range n.Content {
		if len(d.faults) > 0 {
			break
		}
		out.Content = append(out.Content, d.expand(c, depth+1))
	}
	return &out
}

var (
	posType  = reflect.TypeFor[Pos]()
	nodeType = reflect.TypeFor[*yaml.Node]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// decode sets v from n; where is the key path, for messages.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, where string) {
	switch {
	case v.Type() == nodeType:
		v.Set(reflect.ValueOf(n))
	case v.Kind() == reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.decode(n, p.Elem(), where)
		v.Set(p)
	case reflect.PointerTo(v.Type()).Implements(textType):
		d.decodeText(n, v, where)
	case v.Kind() == reflect.Struct:
		d.decodeStruct(n, v, where)
	case v.Kind() == reflect.Slice:
		d.decodeSlice(n, v, where)
	case v.Kind() == reflect.Map:
		d.decodeMap(n, v, where)
	default:
		d.decodeScalar(n, v, where)
	}
}

func (d *decoder) decodeText(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, "%s: want a value, got a %s", where, kind(n))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		d.fault(n, "%s: %q: %v", where, n.Value, err)
	}
}

func (d *decoder) decodeStruct(n *yaml.Node, v reflect.Value, where string) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type == posType {
			v.Field(i).Set(reflect.ValueOf(Pos{n.Line, n.Column}))
		} else if name := f.Tag.Get("yaml"); name != "" {
			fields[name] = v.Field(i)
			names = append(names, name)
		}
	}
	d.eachPair(n, where, func(key, value *yaml.Node) {
		field, ok := fields[key.Value]
		if !ok {
			d.fault(key, "%s: unknown key, known are %s", join(where, key.Value), strings.Join(names, ", "))
			return
		}
		d.decode(value, field, join(where, key.Value))
	})
}

func (d *decoder) decodeSlice(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.SequenceNode {
		d.fault(n, "%s: want a list, got a %s", where, kind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.decode(c, v.Index(i), fmt.Sprintf("%s[%d]", where, i))
	}
}

func (d *decoder) decodeMap(n *yaml.Node, v reflect.Value, where string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.eachPair(n, where, func(key, value *yaml.Node) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, elem, join(where, key.Value))
		v.SetMapIndex(reflect.ValueOf(key.Value), elem)
	})
}

// eachPair calls fn for the pairs of a mapping with scalar keys, each key once.
func (d *decoder) eachPair(n *yaml.Node, where string, fn func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, "%s: want a mapping, got a %s", cmp.Or(where, "file"), kind(n))
		return
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(key, "%s: a key must be a plain word, got a %s", where, kind(key))
		case slices.Contains(seen, key.Value):
			d.fault(key, "%s: given twice", join(where, key.Value))
		default:
			seen = append(seen, key.Value)
			fn(key, n.Content[i+1])
		}
	}
}

func (d *decoder) decodeScalar(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, "%s: want a value, got a %s", where, kind(n))
		return
	}
	var err error
	want := "text"
	switch v.Kind() {
	case reflect.String:
		if n.Tag == "!!null" {
			err = errors.New("null")
		}
		v.SetString(n.Value)
	case reflect.Bool:
		want = "true or false"
		err = n.Decode(v.Addr().Interface())
	case reflect.Int, reflect.Int64:
		var i int64
		want = "a whole number"
		i, err = strconv.ParseInt(n.Value, 0, 32)
		v.SetInt(i)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		var u uint64
		want = fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<v.Type().Bits()-1)
		u, err = strconv.ParseUint(n.Value, 0, v.Type().Bits())
		v.SetUint(u)
	default:
		panic("strict: cannot decode into a " + v.Type().String())
	}
	if err != nil {
		d.fault(n, "%s: %q: want %s", where, n.Value, want)
	}
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return fmt.Sprintf("value (%q)", n.Value)
}

func join(where, key string) string {
	if where == "" {
		return key
	}
	return where + "." + key
}
