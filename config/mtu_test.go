package config

import (
	"os"
	"strings"
	"testing"
)

// TestMTU: each interface has its own, and 1500 without.
func TestMTU(t *testing.T) {
	text, err := os.ReadFile("testdata/edge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	edit := strings.NewReplacer("vlanId: 101", "vlanId: 101\n        mtu: 9000", "vlanId: 201,", "vlanId: 201, mtu: 1400,")
	d, err := Parse("f", []byte(edit.Replace(string(text))))
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint16]int{101: 9000, 201: 1400}
	for _, v := range d.VRFs {
		for _, s := range v.Subinterfaces {
			mtu := want[s.CTag]
			if delete(want, s.CTag); mtu == 0 {
				mtu = 1500
			}
			if s.MTU != mtu {
				t.Errorf("%s: MTU %d, want %d", s.Name, s.MTU, mtu)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("no interface on VLAN %v", want)
	}
}
