package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"msee/config"
	"msee/dataplane"
)

// Customers' traffic is policed per circuit, link and direction, and metered per
// peering and direction. An MSEE has one link of each circuit, so a circuit has
// two policers here, which its peerings share. Meters outlive the process in a
// small file.

// policers are a circuit's.
type policers struct {
	limit   config.RateLimit
	in, out *dataplane.Policer
}

// meters are a peering's.
type meters struct {
	in, out dataplane.Meter
}

// accounting holds all policers by circuit and all meters by peering, those of
// peerings that are gone included: what was used is still to be billed.
type accounting struct {
	policers map[string]*policers
	meters   map[string]*meters
	since    time.Time // when the meters began at zero
	file     string    // "" to keep nothing
	saved    string    // what the file holds
}

// ways returns what a subinterface of a peering is policed and metered by.
func (a *accounting) ways(vrf string, s config.Subinterface) (in, out *dataplane.Direction) {
	if s.Side != config.SideCustomer {
		return nil, nil
	}
	m := a.meters[vrf]
	if m == nil {
		m = new(meters)
		a.meters[vrf] = m
	}
	p := a.policersOf(s.Limit)
	return &dataplane.Direction{Policer: p.in, Meter: &m.in}, &dataplane.Direction{Policer: p.out, Meter: &m.out}
}

// policersOf returns the policers that make a limit: the circuit's if it has not
// changed.
func (a *accounting) policersOf(l config.RateLimit) *policers {
	p := a.policers[l.Circuit]
	switch {
	case p != nil && p.limit == l:
		return p
	case l.Mbps == 0:
		p = &policers{limit: l}
	case l.Direct:
		p = &policers{l, dataplane.NewDirectPolicer(l.Mbps), dataplane.NewDirectPolicer(l.Mbps)}
	default:
		p = &policers{l, dataplane.NewPolicer(l.Mbps), dataplane.NewPolicer(l.Mbps)}
	}
	a.policers[l.Circuit] = p
	return p
}

// saveEvery is how often the meters are written, in seconds: what a crash may
// lose.
const saveEvery = 10

// meterFile is the file's content.
type meterFile struct {
	Since  time.Time               `json:"since"`
	Meters map[string]meterReading `json:"meters"` // by peering
}

type meterReading struct {
	InPackets  uint64 `json:"inPackets"`
	InBytes    uint64 `json:"inBytes"`
	OutPackets uint64 `json:"outPackets"`
	OutBytes   uint64 `json:"outBytes"`
}

// maxMeterFile bounds what is read, octets: thousands of peerings.
const maxMeterFile = 4 << 20

// load sets the meters to where the last process left them. A file that cannot be
// read is put aside, and the meters begin at zero.
func (a *accounting) load(file string) error {
	a.policers, a.meters = map[string]*policers{}, map[string]*meters{}
	a.since, a.file = time.Now().UTC().Truncate(time.Second), file
	if file == "" {
		return nil
	}
	content, err := readMeters(file)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("read meters, which begin at zero now: %w", err), os.Rename(file, file+".bad"))
	}
	a.since = content.Since
	for name, r := range content.Meters {
		m := new(meters)
		m.in.Packets.Store(r.InPackets)
		m.in.Bytes.Store(r.InBytes)
		m.out.Packets.Store(r.OutPackets)
		m.out.Bytes.Store(r.OutBytes)
		a.meters[name] = m
	}
	return nil
}

func readMeters(file string) (m meterFile, err error) {
	f, err := os.Open(file)
	if err != nil {
		return m, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxMeterFile)).Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// save writes the meters if they have moved. The file is replaced as a whole: it
// holds the old reading or the new.
func (a *accounting) save() error {
	if a.file == "" {
		return nil
	}
	content := meterFile{Since: a.since, Meters: map[string]meterReading{}}
	for name, m := range a.meters {
		content.Meters[name] = m.reading()
	}
	b, err := json.MarshalIndent(content, "", "  ")
	if err != nil || string(b) == a.saved {
		return err
	}
	next := a.file + ".new"
	if err := os.WriteFile(next, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("save meters: %w", err)
	}
	if err := os.Rename(next, a.file); err != nil {
		return fmt.Errorf("save meters: %w", err)
	}
	a.saved = string(b)
	return nil
}

func (m *meters) reading() meterReading {
	return meterReading{m.in.Packets.Load(), m.in.Bytes.Load(), m.out.Packets.Load(), m.out.Bytes.Load()}
}

// MeterStatus is what one direction of a peering has carried, and what its
// circuit's policer has dropped on this link.
type MeterStatus struct {
	Circuit        string    `json:"circuit"`
	Peering        string    `json:"peering"`   // the VRF
	Direction      string    `json:"direction"` // in: from the customer; out: to it
	Packets        uint64    `json:"packets"`
	Bytes          uint64    `json:"bytes"` // of IP packets
	Since          time.Time `json:"since"`
	LimitInMbps    int       `json:"limitInMbps,omitempty"` // of the whole circuit on this link; 0: none
	Direct         bool      `json:"direct,omitempty"`      // acts above 120 % of the limit
	DroppedPackets uint64    `json:"droppedPackets"`        // of the whole circuit, since the device started
	DroppedBytes   uint64    `json:"droppedBytes"`
}

// Meters lists the meters, in order of circuit and peering.
func (e *Edge) Meters() (rows []MeterStatus, err error) {
	err = e.do(func() {
		for _, name := range slices.Sorted(maps.Keys(e.accounts.meters)) {
			row := MeterStatus{Peering: name, Since: e.accounts.since}
			var p policers
			if v := e.vrfs[name]; v != nil {
				row.Circuit = v.cfg.Circuit
				if found := e.accounts.policers[row.Circuit]; found != nil {
					p = *found
				}
			}
			row.LimitInMbps, row.Direct = p.limit.Mbps, p.limit.Direct
			r := e.accounts.meters[name].reading()
			rows = append(rows, row.of("in", r.InPackets, r.InBytes, p.in), row.of("out", r.OutPackets, r.OutBytes, p.out))
		}
	})
	return rows, err
}

// of completes a row for a direction.
func (row MeterStatus) of(direction string, packets, bytes uint64, p *dataplane.Policer) MeterStatus {
	row.Direction, row.Packets, row.Bytes = direction, packets, bytes
	if p != nil {
		row.DroppedPackets, row.DroppedBytes = p.DroppedFrames.Load(), p.DroppedBytes.Load()
	}
	return row
}
