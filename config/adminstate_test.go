package config

import (
	"strings"
	"testing"
)

// TestAdminState: a link is Enabled unless the file says otherwise, and a TAP has none.
func TestAdminState(t *testing.T) {
	file := readFile(t, "edge.yaml")
	for _, p := range mustParse(t, file).Ports {
		if p.Disabled {
			t.Errorf("port %s is disabled by default", p.Name)
		}
	}
	off := strings.Replace(file, "device: eth1,", "device: eth1, adminState: Disabled,", 1)
	disabled := 0
	for _, p := range mustParse(t, off).Ports {
		if p.Disabled {
			disabled++
		}
	}
	if disabled != 1 {
		t.Errorf("%d ports are disabled, want 1", disabled)
	}
	if changes := Diff(mustParse(t, file), mustParse(t, off)); len(changes) != 1 || !strings.Contains(changes[0].Detail, "Disabled false → true") {
		t.Errorf("the difference is %v", changes)
	}
	tap := strings.Replace(file, "type: tap,", "type: tap, adminState: Disabled,", 1)
	if _, err := Parse("f", []byte(tap)); err == nil || !strings.Contains(err.Error(), "a TAP has no link to switch off") {
		t.Errorf("a TAP: %v", err)
	}
}
