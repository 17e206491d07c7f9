package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustParse(t testing.TB, data string) *Device {
	t.Helper()
	d, err := Parse("test.yaml", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// secondary returns the same file for the other MSEE of the pair.
func secondary(file string) string {
	return strings.Replace(file, "{name: msee1, role: primary}", "{name: msee2, role: secondary}", 1)
}

// TestGolden compares what the files of testdata compile to with what was
// reviewed before (go test -run Golden -update rewrites).
func TestGolden(t *testing.T) {
	edge, gateway := readFile(t, "edge.yaml"), readFile(t, "gateway.yaml")
	files := map[string]string{
		"edge-primary.json":   edge,
		"edge-secondary.json": secondary(edge),
		"gateway-0.json":      gateway,
		"gateway-1.json":      strings.Replace(gateway, "instance: 0", "instance: 1", 1),
	}
	for name, file := range files {
		got, err := json.MarshalIndent(mustParse(t, file), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", name), got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := readFile(t, name); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s differs; got:\n%s", name, got)
		}
	}
}

// TestPairSymmetric checks that both ends of every core session, compiled from
// different files, are the same session, and that the two MSEEs of a pair
// differ in nothing but their addresses.
func TestPairSymmetric(t *testing.T) {
	file, gw := readFile(t, "edge.yaml"), readFile(t, "gateway.yaml")
	msees := []*Device{mustParse(t, file), mustParse(t, secondary(file))}
	gateways := []*Device{mustParse(t, gw), mustParse(t, strings.Replace(gw, "instance: 0", "instance: 1", 1))}

	ids := map[string]bool{}
	for _, d := range append(msees, gateways...) {
		ids[d.RouterID.String()] = true
	}
	if len(ids) != 4 {
		t.Errorf("router IDs are not unique: %v", ids)
	}

	matched := 0
	for _, msee := range msees {
		for _, s := range msee.VRFs[1].Sessions { // er1-private
			if s.Connection != "vnet1" {
				continue
			}
			for _, g := range gateways {
				for _, o := range g.VRFs[0].Sessions {
					if o.Local == s.Peer && o.Peer == s.Local {
						matched++
						if o.PeerAS != msee.ASN || s.PeerAS != g.ASN {
							t.Errorf("%s: ASNs do not match", s.Name)
						}
					}
				}
			}
		}
	}
	if matched != 8 { // 2 MSEEs × 2 instances × 2 families
		t.Errorf("%d core sessions have both ends, want 8", matched)
	}

	p, s := msees[0], msees[1]
	for i := range p.VRFs {
		a, b := p.VRFs[i], s.VRFs[i]
		if a.Name != b.Name || len(a.Sessions) != len(b.Sessions) || len(a.Subinterfaces) != len(b.Subinterfaces) {
			t.Fatalf("VRF %s and %s do not correspond", a.Name, b.Name)
		}
		for j := range a.Subinterfaces {
			x, y := a.Subinterfaces[j], b.Subinterfaces[j]
			for k := range x.Addresses {
				if x.Addresses[k].Addr() == y.Addresses[k].Addr() || x.Addresses[k].Bits() != y.Addresses[k].Bits() {
					t.Errorf("%s: %v on one, %v on the other", x.Name, x.Addresses[k], y.Addresses[k])
				}
			}
			x.Addresses, y.Addresses = nil, nil
			if !reflect.DeepEqual(x, y) {
				t.Errorf("subinterfaces differ: %+v, %+v", x, y)
			}
		}
	}
	if !reflect.DeepEqual(p.Circuits, s.Circuits) || !reflect.DeepEqual(p.Ports, s.Ports) {
		t.Error("circuits or ports differ")
	}
}

// TestDefaults checks the smallest files.
func TestDefaults(t *testing.T) {
	d := mustParse(t, "device: {name: e, role: secondary}\nports: [{name: l, device: eth0, etherType: 0x88a8, cpu: 0}]\n")
	want := &Device{
		Kind: KindEdge, Name: "e", Role: "secondary", ASN: 12076, RouterID: d.RouterID,
		Ports:       []Port{{Name: "l", Device: "eth0", Type: "packet", TPID: 0x88a8, CPU: new(int)}},
		PrefixRetry: time.Minute,
	}
	if !reflect.DeepEqual(d, want) || d.RouterID.String() != "0.0.0.0" {
		t.Errorf("got %+v", d)
	}

	file := strings.NewReplacer(
		"role: primary", "role: primary, routerId: 10.0.0.1",
		"  keepaliveSeconds: 20\n  holdSeconds: 60\n", "  holdSeconds: 30\n",
		"{tier: Premium, family: UnlimitedData}", "{tier: Local}",
	).Replace(readFile(t, "edge.yaml"))
	d = mustParse(t, file)
	if s := d.VRFs[0].Sessions[0]; s.Keepalive.Seconds() != 10 || s.Hold.Seconds() != 30 {
		t.Errorf("timers %v %v, want 10s 30s", s.Keepalive, s.Hold)
	}
	if d.RouterID.String() != "10.0.0.1" || d.Circuits[0].SKU != "Local_UnlimitedData" {
		t.Errorf("router ID %v, SKU %v", d.RouterID, d.Circuits[0].SKU)
	}
	d = mustParse(t, strings.Replace(file, "bgp:\n  holdSeconds: 30\n", "", 1))
	if s := d.VRFs[0].Sessions[0]; s.Keepalive.Seconds() != 60 || s.Hold.Seconds() != 180 {
		t.Errorf("timers %v %v, want 60s 180s", s.Keepalive, s.Hold)
	}
}

// TestState checks which sessions the state of a peering and of its IPv6 half
// switch off.
func TestState(t *testing.T) {
	for _, c := range []struct {
		v4, v6         string
		wantV4, wantV6 bool
	}{
		{"", "", true, true},
		{"state: Disabled", "", false, false},
		{"", "state: Disabled", true, false},
		{"state: Disabled", "state: Enabled", false, true},
	} {
		file := strings.NewReplacer(
			"        vlanId: 100\n        primaryPeerAddressPrefix: 192.168.15.16/30\n        secondaryPeerAddressPrefix: 192.168.15.20/30\n        sharedKey: abc123\n        ipv6PeeringConfig:\n",
			"        vlanId: 100\n        primaryPeerAddressPrefix: 192.168.15.16/30\n        secondaryPeerAddressPrefix: 192.168.15.20/30\n        "+c.v4+"\n        ipv6PeeringConfig:\n          "+c.v6+"\n",
		).Replace(readFile(t, "edge.yaml"))
		for _, s := range mustParse(t, file).VRFs[1].Sessions {
			want := c.wantV4
			if s.Peer.Is6() {
				want = c.wantV6
			}
			if s.Side == SideCore {
				want = true
			}
			if s.Enabled != want {
				t.Errorf("%q, %q: %s enabled is %v", c.v4, c.v6, s.Name, s.Enabled)
			}
		}
	}
}

// TestOrder checks that the order of items in a file, and its line ends, do not
// matter.
func TestOrder(t *testing.T) {
	file := readFile(t, "edge.yaml")
	moved := strings.Replace(file, "  - {name: core, device: eth2}\n", "", 1)
	moved = strings.Replace(moved, "ports:\n", "ports:\n  - {name: core, device: eth2}\n", 1)
	if a, b := mustParse(t, file), mustParse(t, moved); !reflect.DeepEqual(a, b) {
		t.Error("the order of ports matters")
	}
	if a, b := mustParse(t, file), mustParse(t, strings.ReplaceAll(file, "\n", "\r\n")); !reflect.DeepEqual(a, b) {
		t.Error("the kind of line end matters")
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load("testdata/edge.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := Load("testdata/missing.yaml"); err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#\n"), MaxFileSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil || err.Error() != large+": the file is too large (want at most 1048576 bytes)" {
		t.Errorf("large file: %v", err)
	}
}
