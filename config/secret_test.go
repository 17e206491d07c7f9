package config

import (
	"strings"
	"testing"
)

// TestSecretNotInFaults slips on every character around a sharedKey: whatever
// YAML makes of it, no message may tell the key.
func TestSecretNotInFaults(t *testing.T) {
	const secret = "SECRET0SECRET1"
	for _, file := range []string{
		`device: {name: e, role: primary}
ports: [{name: l, device: d}]
circuits:
  - name: c
    port: l
    peerings:
      - peeringType: AzurePrivatePeering
        peerASN: 65001
        sharedKey: ` + secret + `
        vlanId: 100
        primaryPeerAddressPrefix: 10.0.0.0/30
        secondaryPeerAddressPrefix: 10.0.0.4/30
`,
		`device: {name: e, role: primary}
ports: [{name: l, device: d}]
circuits:
  - {name: c, port: l, peerings: [{peeringType: AzurePrivatePeering, peerASN: 65001, sharedKey: ` + secret + `, vlanId: 100, primaryPeerAddressPrefix: 10.0.0.0/30, secondaryPeerAddressPrefix: 10.0.0.4/30}]}
`,
	} {
		if _, err := Parse("f", []byte(file)); err != nil {
			t.Fatal(err)
		}
		from := strings.Index(file, "peerASN")
		to := strings.Index(file, secret) // slips inside the key make another key
		end := to + len(secret)
		check := func(at int, edited string) {
			_, err := Parse("f", []byte(edited))
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("edited at %d: %q:\n%v", at, edited[from:end], err)
			}
		}
		for _, at := range append(indices(from, to), indices(end, end+20)...) {
			check(at, file[:at]+file[at+1:])
			for _, c := range " :,-[{]}\n\t&*!#?\"'|>%@`a0" {
				check(at, file[:at]+string(c)+file[at:])
				check(at, file[:at]+string(c)+file[at+1:])
			}
		}
	}
}

func indices(from, to int) []int {
	var all []int
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}
