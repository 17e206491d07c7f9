package config

import (
	"strings"
	"testing"
	"time"
)

// TestBFD: Azure's intervals unless the file says otherwise, for all or for one.
func TestBFD(t *testing.T) {
	file := readFile(t, "edge.yaml")
	bfdOf := func(t *testing.T, file, session string) BFD {
		for _, v := range mustParse(t, file).VRFs {
			for _, s := range v.Sessions {
				if s.Name == session {
					return s.BFD
				}
			}
		}
		t.Fatalf("no session %s", session)
		return BFD{}
	}
	const private, microsoft, core = "er1-private/192.168.15.17", "er1-microsoft/203.0.113.1", "er1-private/10.100.255.12"
	want := BFD{Interval: 300 * time.Millisecond, Multiplier: 3, HoldDown: time.Second}
	for _, session := range []string{private, microsoft, core} {
		if got := bfdOf(t, file, session); got != want {
			t.Errorf("%s: %v, want %v", session, got, want)
		}
	}
	slow := file + "bfd: {intervalMilliseconds: 750, multiplier: 4, strictMode: Enabled, holdDownSeconds: 0}\n"
	want = BFD{Interval: 750 * time.Millisecond, Multiplier: 4, Strict: true}
	for _, session := range []string{private, core} {
		if got := bfdOf(t, slow, session); got != want {
			t.Errorf("%s: %v, want %v", session, got, want)
		}
	}
	one := strings.Replace(slow, "sharedKey: abc123\n",
		"sharedKey: abc123\n        bfd: {intervalMilliseconds: 10, authentication: {type: keyed-sha1, keyId: 7, key: geheim}}\n", 1)
	want = BFD{Interval: 10 * time.Millisecond, Multiplier: 4, Strict: true, AuthType: "keyed-sha1", AuthKeyID: 7, AuthKey: "geheim"}
	if got := bfdOf(t, one, private); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := bfdOf(t, one, microsoft).Interval; got != 750*time.Millisecond {
		t.Errorf("the other peering: %v", got)
	}
	off := strings.Replace(slow, "sharedKey: abc123\n", "sharedKey: abc123\n        bfd: {state: Disabled}\n", 1)
	if got := bfdOf(t, off, private); got != (BFD{}) {
		t.Errorf("switched off: %v", got)
	}
	// Off for all and on for one, which loses nothing of what either says.
	offForAll := strings.Replace(one, "bfd: {intervalMilliseconds: 750,", "bfd: {state: Disabled, intervalMilliseconds: 750,", 1)
	if got := bfdOf(t, offForAll, private); got != (BFD{}) {
		t.Errorf("switched off for all, and not on again: %v", got)
	}
	onForOne := strings.Replace(offForAll, "bfd: {intervalMilliseconds: 10,", "bfd: {state: Enabled, intervalMilliseconds: 10,", 1)
	if got := bfdOf(t, onForOne, private); got != want {
		t.Errorf("on for one: %v, want %v", got, want)
	}
	if got := bfdOf(t, onForOne, microsoft); got != (BFD{}) {
		t.Errorf("off for the other: %v", got)
	}
	if d := mustParse(t, slow); d.BFDDaemonPort != 0 {
		t.Errorf("BFD daemons are looked for at port %d by default", d.BFDDaemonPort)
	}
	if d := mustParse(t, file+"bfd: {state: Disabled, dataPlanePort: 50700}\n"); d.BFDDaemonPort != 50700 {
		t.Errorf("BFD daemons are looked for at port %d, want 50700", d.BFDDaemonPort)
	}
	if s := (BFD{Interval: 1, AuthType: "keyed-md5", AuthKey: "geheim"}).String(); strings.Contains(s, "geheim") {
		t.Errorf("%q shows the key", s)
	}
	for _, c := range []struct{ bfd, want string }{
		{"{intervalMilliseconds: 9}", "bfd.intervalMilliseconds: not an interval we can do (got 9; want 10 to 30000 milliseconds)"},
		{"{dataPlanePort: 0}", "bfd.dataPlanePort: not a TCP port we can do (got 0; want 1 to 65535)"},
		{"{dataPlanePort: 65536}", "bfd.dataPlanePort: not a TCP port we can do (got 65536; want 1 to 65535)"},
		{"{multiplier: 256}", "bfd.multiplier: not a multiplier we can do (got 256; want 1 to 255 intervals)"},
		{"{strictMode: yes}", "bfd.strictMode: not a value of strictMode"},
		{"{authentication: {type: keyed-md5, keyId: 1, key: seventeen-octets!}}", "want 1 to 16 characters"},
		{"{authentication: {type: md5, keyId: 1, key: a}}", "bfd.authentication.type: not a value of type"},
		{"{authentication: {type: keyed-md5, keyId: 1}}", "bfd.authentication.key: missing"},
	} {
		_, err := Parse("f", []byte(file+"bfd: "+c.bfd+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.bfd, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "seventeen") {
			t.Errorf("the key is shown: %v", err)
		}
	}
}
