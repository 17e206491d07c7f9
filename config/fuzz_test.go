package config

import (
	"errors"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// FuzzParse checks that no file makes Parse panic or stall, that every refusal
// is Faults with positions inside the file, and that what is accepted compiles
// to a device that the edge package can build.
func FuzzParse(f *testing.F) {
	f.Add([]byte(readFile(f, "edge.yaml")))
	f.Add([]byte(readFile(f, "gateway.yaml")))
	f.Add([]byte(secondary(readFile(f, "edge.yaml"))))
	for _, c := range append(append(badYAML[:len(badYAML):len(badYAML)], badEdge...), badGateway...) {
		if c.old == "" {
			f.Add([]byte(c.new))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse("f", data)
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 || d != nil {
				t.Fatalf("refused with %T %v and device %v", err, err, d)
			}
			checkFaults(t, faults, data)
			return
		}
		checkCompiled(t, d)
		again, err := Parse("f", data)
		if err != nil || !reflect.DeepEqual(d, again) || len(Diff(d, again)) != 0 {
			t.Error("read twice, the file gives two devices")
		}
	})
}

func checkFaults(t *testing.T, faults Faults, data []byte) {
	lines := strings.Count(string(data), "\n") + 1
	for i, f := range faults {
		if f.Line > lines || f.Problem == "" || len(data) <= MaxFileSize && (f.Line < 1 || f.Column < 1) {
			t.Errorf("fault %+v in a file of %d lines", f, lines)
		}
		if i > 0 && f.Line < faults[i-1].Line {
			t.Errorf("%v is out of order", f)
		}
		if strings.ContainsAny(f.String(), "\n\r\x00") {
			t.Errorf("more than one line: %q", f.String())
		}
	}
}

var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)

// checkCompiled checks what must hold for every compiled device.
func checkCompiled(t *testing.T, d *Device) {
	if !d.RouterID.Is4() || d.Name == "" || len(d.Ports) == 0 {
		t.Errorf("incomplete device %+v", d)
	}
	ports := map[string]bool{}
	for _, p := range d.Ports {
		if ports[p.Name] || p.Device == "" || p.TPID != 0x8100 && p.TPID != 0x88a8 {
			t.Errorf("bad port %+v", p)
		}
		ports[p.Name] = true
	}
	type tags struct {
		port       string
		stag, ctag uint16
	}
	seen, vrfs, sessions := map[tags]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range d.VRFs {
		if vrfs[v.Name] || len(v.Subinterfaces) == 0 {
			t.Errorf("bad VRF %q", v.Name)
		}
		vrfs[v.Name] = true
		local := map[string]Subinterface{}
		var subnets []netip.Prefix
		for _, s := range v.Subinterfaces {
			key := tags{s.Port, s.STag, s.CTag}
			if seen[key] || !ports[s.Port] || !interfaceName.MatchString(s.Name) || s.STag > 4094 || s.CTag > 4094 {
				t.Errorf("bad subinterface %+v", s)
			}
			seen[key] = true
			local[s.Name] = s
			for _, a := range s.Addresses {
				for _, other := range subnets {
					if a.Overlaps(other) {
						t.Errorf("%v and %v overlap in VRF %s", a, other, v.Name)
					}
				}
				subnets = append(subnets, a)
			}
		}
		for _, s := range v.Sessions {
			if sessions[s.Name] {
				t.Errorf("two sessions %s", s.Name)
			}
			sessions[s.Name] = true
			checkSession(t, s, local[s.Subinterface])
		}
	}
}

// checkSession checks a session against its subinterface.
func checkSession(t *testing.T, s Session, on Subinterface) {
	connected := false
	for _, a := range on.Addresses {
		connected = connected || a.Addr() == s.Local && a.Contains(s.Peer) && s.Peer != s.Local
	}
	if !connected || s.PeerAS == 0 || s.Side != on.Side || len(s.Key) > 25 {
		t.Errorf("bad session %s (%v → %v) on %+v", s.Name, s.Local, s.Peer, on)
	}
	if s.Keepalive < 3*time.Second || s.Hold < 10*time.Second || 3*s.Keepalive > s.Hold {
		t.Errorf("bad timers of %s: %v, %v", s.Name, s.Keepalive, s.Hold)
	}
}

// TestLargeFiles checks that large files, of shapes that are costly to read, are
// refused in a time that grows about as they do.
func TestLargeFiles(t *testing.T) {
	const size = MaxFileSize / 8 // a square would show; the race detector is slow
	for name, unit := range map[string]string{
		"nesting": "[", "keys": "a: b\n", "items": "- #\n", "flow": "[a,", "circuits": "- {name: a, port: b}\n",
	} {
		head := ""
		if name == "circuits" {
			head = "device: {name: e, role: primary}\nports: [{name: l, device: d}]\ncircuits:\n"
		}
		file := head + strings.Repeat(unit, (size-len(head))/len(unit))
		start := time.Now()
		_, err := Parse("f", []byte(file))
		var faults Faults
		if !errors.As(err, &faults) || len(faults) > maxFaults {
			t.Errorf("%s: %d faults", name, len(faults))
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		t.Logf("%s: %d faults in %v", name, len(faults), time.Since(start))
	}
}
