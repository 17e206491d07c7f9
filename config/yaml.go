package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxFileSize is the size of the largest configuration file, in octets.
const MaxFileSize = 1 << 20

// parseTree reads data as one YAML document and returns its root, or nil after
// a fault.
func (r *reader) parseTree(data []byte) *yaml.Node {
	if len(data) > MaxFileSize {
		r.faultAt(place{}, "", "", "the file is too large", fmt.Sprintf("at most %d bytes", MaxFileSize))
		return nil
	}
	r.end = placeAt(data, len(data)-1)
	if !r.checkCharacters(data) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	if err := decode(decoder, &doc); errors.Is(err, io.EOF) || err == nil && isNull(doc.Content[0]) {
		r.faultAt(place{1, 1}, "", "", "the file is empty", "a device or a virtualNetworkGateway")
		return nil
	} else if err != nil {
		r.syntaxFault(data, err)
		return nil
	}
	switch err := decode(decoder, &next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntaxFault(data, err)
		return nil
	default:
		r.faultAt(placeOf(next.Content[0]), "", "", "a second YAML document begins", "one document per file")
	}
	root := doc.Content[0]
	r.checkTree(root, "")
	return root
}

// isNull reports whether a value, or a whole document, is not there.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// decode is Decode without panics: the library's recovery covers only errors it
// raised itself, and a bad file must never stop a running device.
func decode(d *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("not understood by the YAML parser")
		}
	}()
	return d.Decode(n)
}

// checkCharacters refuses what the YAML library would refuse without a
// position, and the line breaks that editors do not count as such.
func (r *reader) checkCharacters(data []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		problem := ""
		switch {
		case c == utf8.RuneError && size == 1:
			problem = "not UTF-8"
		case unicode.IsControl(c) && c != '\t' && c != '\n' && c != '\r', c == '\u2028', c == '\u2029':
			problem = fmt.Sprintf("control character %U", c)
		case c == '\r' && !bytes.HasPrefix(data[i+1:], []byte("\n")):
			problem = "carriage return within a line"
		}
		if problem != "" {
			r.faultAt(place{line, column}, "", "", problem, "printable UTF-8 text")
			return false
		}
		if i += size; c == '\n' {
			line, column = line+1, 1
		} else {
			column++
		}
	}
	return true
}

// checkTree refuses what YAML offers beyond a plain tree, and duplicate keys.
func (r *reader) checkTree(n *yaml.Node, path string) {
	const plain = "the value itself"
	switch {
	case n.Kind == yaml.AliasNode:
		r.faultAt(placeOf(n), path, "", "a YAML alias (*name)", plain)
		return
	case n.Anchor != "":
		r.faultAt(placeOf(n), path, "", "a YAML anchor (&name)", plain)
	case n.Style&yaml.TaggedStyle != 0:
		r.faultAt(placeOf(n), path, "", "an explicit YAML tag (!name)", plain)
	}
	if n.Kind == yaml.SequenceNode {
		for i, c := range n.Content {
			r.checkTree(c, index(path, i))
		}
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key, n.Content[i+1])
		if r.checkKey(key, path); key.Kind != yaml.ScalarNode {
			continue
		}
		if line, dup := seen[key.Value]; dup {
			r.faultAt(placeOf(key), at, "", "duplicate key", fmt.Sprintf("it once; it is set in line %d too", line))
		}
		seen[key.Value] = key.Line
		r.checkTree(n.Content[i+1], at)
	}
}

func (r *reader) checkKey(key *yaml.Node, path string) {
	switch {
	case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" && key.Style == 0:
		r.faultAt(placeOf(key), path, "", "a YAML merge key (<<)", "the keys themselves")
	case key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0:
		r.faultAt(placeOf(key), path, "", "the key is not a plain word", "")
	}
}

var (
	yamlError   = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)
	yamlUnknown = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxFault reports an error of the YAML library. The library gives no
// column, and often the line where the surrounding block begins: the place is
// how far its scanner had read.
func (r *reader) syntaxFault(data []byte, err error) {
	problem, line := err.Error(), 0
	if m := yamlError.FindStringSubmatch(problem); m != nil {
		problem = m[2]
		line, _ = strconv.Atoi(m[1])
	}
	at := scannedTo(data)
	if m := yamlUnknown.FindStringSubmatch(problem); m != nil {
		problem = "a YAML alias (*name)" // the name may be a secret
		at = placeAt(data, bytes.Index(data, []byte("*"+m[1])))
	} else if line > 0 && line < at.line && !strings.HasPrefix(problem, "did not find expected") {
		// Errors of the scanner, unlike those of the parser, name their line rightly.
		at = lineStart(data, line)
	}
	r.faultAt(at, "", "", "not YAML: "+problem, "")
}

// placeAt is the place of the octet at offset.
func placeAt(data []byte, offset int) place {
	before := data[:max(0, offset)]
	start := bytes.LastIndexByte(before, '\n') + 1
	return place{bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1}
}

// lineStart is the place of a line's first character that is no blank.
func lineStart(data []byte, line int) place {
	for range line - 1 {
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	return place{line, len(data) - len(bytes.TrimLeft(data, " ")) + 1}
}

// scannedTo reads data again, one octet at a time, to see where the YAML
// library gives up.
func scannedTo(data []byte) place {
	feed := &byteFeeder{data: data}
	decoder := yaml.NewDecoder(feed)
	for {
		var n yaml.Node
		if err := decode(decoder, &n); err != nil {
			break
		}
	}
	read := bytes.TrimRight(data[:feed.next], " \t\r\n")
	return placeAt(data, len(read)-1)
}

// byteFeeder is a Reader of one octet at a time.
type byteFeeder struct {
	data []byte
	next int
}

func (b *byteFeeder) Read(p []byte) (int, error) {
	if b.next == len(b.data) || len(p) == 0 {
		return 0, io.EOF
	}
	p[0] = b.data[b.next]
	b.next++
	return 1, nil
}
