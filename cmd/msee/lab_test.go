package main

import "testing"

// TestMeantLab: with one lab up, whatever its name, no command needs it.
func TestMeantLab(t *testing.T) {
	for _, tc := range []struct {
		up   []string
		want string
	}{
		{nil, "default"},
		{[]string{"microsoft"}, "microsoft"},
		{[]string{"default", "microsoft"}, "default"},
	} {
		if got := meantLab(tc.up); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.up, got, tc.want)
		}
	}
}
