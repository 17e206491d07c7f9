package config

import (
	"os"
	"regexp"
	"testing"
)

// TestDocumentation checks that the example files of docs/configuration.md are
// good ones.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(examples) != 2 {
		t.Errorf("%d examples, want 2", len(examples))
	}
	for _, e := range examples {
		if _, err := Parse("docs/configuration.md", e[1]); err != nil {
			t.Error(err)
		}
	}
}
