package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"testing"
)

func TestCreateDoDelete(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	name := fmt.Sprintf("msee-test-%d", os.Getpid())
	if err := Create(name); err != nil {
		t.Fatal(err)
	}
	defer Delete(name)
	if !Exists(name) {
		t.Fatalf("%s does not exist after Create", name)
	}
	if err := Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: got %v, want fs.ErrExist", err)
	}
	var links []net.Interface
	err := Do(name, func() (err error) { links, err = net.Interfaces(); return err })
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Flags&net.FlagUp != 0 {
			t.Errorf("link %s is up in a new namespace", l.Name)
		}
	}
	for range 2 { // the second finds nothing, which is fine
		if err := Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	if Exists(name) {
		t.Errorf("%s exists after Delete", name)
	}
	if err := Do(name, func() error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Do in a deleted namespace: got %v, want fs.ErrNotExist", err)
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b"} {
		if err := Create(name); !errors.Is(err, ErrBadName) {
			t.Errorf("Create(%q): got %v, want ErrBadName", name, err)
		}
	}
}
