package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"msee/api"
)

// TestShowAll: a device that has not the VRF asked about is left out, unless none has it.
func TestShowAll(t *testing.T) {
	absent := fmt.Errorf("no such VRF: %w", api.ErrNotThere)
	for _, c := range []struct {
		errs map[string]error
		want string
		err  string
	}{
		{map[string]error{"gw0": absent}, "msee1\nx\n\nmsee2\nx\n", ""},
		{map[string]error{"msee1": absent, "msee2": absent}, "gw0\nx\n", ""},
		{map[string]error{"gw0": absent, "msee1": absent, "msee2": absent}, "", absent.Error()},
		{map[string]error{"gw0": absent, "msee2": errors.New("broken")}, "msee1\nx\n", "broken"},
	} {
		var out strings.Builder
		clients := []*api.Client{{Instance: "gw0"}, {Instance: "msee1"}, {Instance: "msee2"}}
		err := showAll(&out, clients, false, func(x *api.Client) (any, error) { return "x", c.errs[x.Instance] },
			func(w io.Writer, v any) error { _, err := fmt.Fprintln(w, v); return err })
		if got := fmt.Sprint(err); out.String() != c.want || got != c.err && (err != nil || c.err != "") {
			t.Errorf("%v: %q, error %v; want %q, error %q", c.errs, out.String(), err, c.want, c.err)
		}
	}
}

func TestArguments(t *testing.T) {
	c := &cobra.Command{Use: "route ADDRESS"}
	for n, want := range []string{"0 arguments; the command is: route ADDRESS", "", "2 arguments; the command is: route ADDRESS"} {
		if err := arguments(1, 1)(c, make([]string, n)); err != nil && err.Error() != want || err == nil && want != "" {
			t.Errorf("%d arguments: %v, want %q", n, err, want)
		}
	}
}
