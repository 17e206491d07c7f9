package edge

import (
	"os"
	"path/filepath"
	"testing"

	"msee/config"
)

func TestMetersSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "msee1", "meters.json")
	customer := config.Subinterface{Side: config.SideCustomer}
	var first accounting
	if err := first.load(file); err != nil {
		t.Fatal(err)
	}
	in, out := first.ways("er1-private", customer)
	in.Meter.Packets.Add(3)
	in.Meter.Bytes.Add(4500)
	out.Meter.Bytes.Add(1 << 60)
	for range 2 { // unchanged the second time
		if err := first.save(); err != nil {
			t.Fatal(err)
		}
	}
	var second accounting
	if err := second.load(file); err != nil {
		t.Fatal(err)
	}
	in, out = second.ways("er1-private", customer)
	if in.Meter.Packets.Load() != 3 || in.Meter.Bytes.Load() != 4500 || out.Meter.Bytes.Load() != 1<<60 {
		t.Errorf("the meters went on at %+v", second.meters["er1-private"].reading())
	}
	if !second.since.Equal(first.since) {
		t.Errorf("since %v, then %v", first.since, second.since)
	}
	for _, bad := range []string{"", "{", `{"meters": {"a": {"inBytes": -1}}}`, `{"meters": []}`} {
		if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := second.load(file); err == nil {
			t.Errorf("%q was read without complaint", bad)
		}
		if kept, err := os.ReadFile(file + ".bad"); err != nil || string(kept) != bad {
			t.Errorf("%q was not put aside: %q, %v", bad, kept, err)
		}
	}
}

func TestPeeringsShareTheirCircuitsPolicers(t *testing.T) {
	var a accounting
	a.load("")
	sub := func(mbps int, direct bool) config.Subinterface {
		return config.Subinterface{Side: config.SideCustomer, Limit: config.RateLimit{Circuit: "er1", Mbps: mbps, Direct: direct}}
	}
	in1, out1 := a.ways("er1-private", sub(1000, false))
	in2, out2 := a.ways("er1-microsoft", sub(1000, false))
	if in1.Policer == nil || in1.Policer != in2.Policer || out1.Policer != out2.Policer || in1.Policer == out1.Policer {
		t.Error("one policer per direction for both peerings is wanted")
	}
	if in1.Meter == in2.Meter || in1.Meter == out1.Meter {
		t.Error("a meter for each peering and direction is wanted")
	}
	if in, _ := a.ways("er1-private", sub(2000, false)); in.Policer == in1.Policer || in.Meter != in1.Meter {
		t.Error("a new bandwidth needs a new policer, and the same meter")
	}
	if in, _ := a.ways("er1-private", sub(0, false)); in.Policer != nil || in.Meter != in1.Meter {
		t.Error("without a limit there is a policer, or no meter")
	}
	core := config.Subinterface{Side: config.SideCore}
	if in, out := a.ways("er1-private", core); in != nil || out != nil {
		t.Error("the core's side is policed or metered")
	}
}
