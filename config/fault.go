package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fault is one thing wrong with a configuration file.
type Fault struct {
	File         string
	Line, Column int    // from 1, in characters; 0 for the file as a whole
	Path         string // e.g. "circuits[0].peerings[1].vlanId"; "" for the file as a whole
	Value        string // what stands there, "" if nothing does or it is secret
	Problem      string
	Want         string // what would be right, "" if Problem says it
}

// String formats the fault as one line: file:line:col: path: problem (got …; want …).
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Problem)
	switch {
	case f.Value != "" && f.Want != "":
		fmt.Fprintf(&b, " (got %s; want %s)", f.Value, f.Want)
	case f.Value != "":
		fmt.Fprintf(&b, " (got %s)", f.Value)
	case f.Want != "":
		fmt.Fprintf(&b, " (want %s)", f.Want)
	}
	return b.String()
}

// Faults are all things wrong with a file, in the order of their positions. It
// is the error that Parse and Load return for a file that could be read.
type Faults []Fault

// Error gives one line per fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Problem, b.Problem))
	})
}

// maxShown bounds how much of a value a message repeats, in characters.
const maxShown = 60

// quote makes a value from the file fit to be shown: on one line, bounded, and
// in quotes where its end would not be clear. Text that a slip of indentation
// or a missing blank may have mixed with a key is kept back.
func quote(s string) string {
	if strings.Contains(strings.ToLower(s), "sharedkey") {
		return "text with a sharedKey in it"
	}
	cut := ""
	if utf8.RuneCountInString(s) > maxShown {
		s, cut = string([]rune(s)[:maxShown]), "…"
	}
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == '\'' || r == ';' || r == '(' || r == ')' || r >= 0x7f
	})
	if plain {
		return s + cut
	}
	return strconv.Quote(s) + cut
}
