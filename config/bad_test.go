package config

import (
	"errors"
	"strings"
	"testing"
)

// badCase is a good file with one edit and the faults that the edit must give.
type badCase struct {
	name     string
	old, new string // the edit; new alone is the whole file
	want     string // all lines of the error, without the file name
}

func (c badCase) run(t *testing.T, file string) {
	t.Helper()
	data := c.new
	if c.old != "" {
		if data = strings.Replace(file, c.old, c.new, 1); data == file {
			t.Fatalf("the edit %q changes nothing", c.old)
		}
	}
	_, err := Parse("f", []byte(data))
	got := ""
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("error of type %T", err)
		}
		got = strings.ReplaceAll("\n"+err.Error(), "\nf:", "\n")[1:]
	}
	if strings.Contains(got, "SECRET") || strings.Contains(got, "5318008") {
		t.Errorf("tells the key: %s", got)
	}
	if got != c.want {
		t.Errorf("got\n%s\nwant\n%s", got, c.want)
	}
}

func TestBadEdge(t *testing.T) {
	file := readFile(t, "edge.yaml")
	for _, c := range badEdge {
		t.Run(c.name, func(t *testing.T) { c.run(t, file) })
	}
}

func TestBadGateway(t *testing.T) {
	file := readFile(t, "gateway.yaml")
	for _, c := range badGateway {
		t.Run(c.name, func(t *testing.T) { c.run(t, file) })
	}
}

func TestBadYAML(t *testing.T) {
	file := readFile(t, "edge.yaml")
	for _, c := range badYAML {
		t.Run(c.name, func(t *testing.T) { c.run(t, file) })
	}
}
