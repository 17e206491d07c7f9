package main

import (
	"bytes"
	"testing"
)

// TestCopies: all of the frames go through, or the bound would be one of less work.
func TestCopies(t *testing.T) {
	c := newCopies(copyNear)
	if bytes.Equal(c.from, c.to) {
		t.Fatal("they are equal before")
	}
	for range copyNear / copySuperframe {
		c.one()
	}
	if !bytes.Equal(c.from, c.to) || c.next != 0 {
		t.Errorf("not all was copied; next is frame %d", c.next)
	}
}
