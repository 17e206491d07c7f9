package edge

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
	"msee/macsec"
)

// Ports: opened and closed, and as forwarding sees them.

// portState is an open port. It belongs to a device: name and TPID may change.
type portState struct {
	cfg      config.Port
	index    int
	port     port.Port
	counters *dataplane.PortCounters
	ifindex  int // of the device when it was opened
	claim    net.Listener
	ring     port.PacketConfig
	link     string                  // up, down or gone; see checkLinks
	dark     bool                    // we have switched it off: adminState Disabled
	leaving  time.Time               // since when that is to be; zero: it is not
	bfd      []*dataplane.BFDSession // its worker's
	secy     *macsec.SecY            // nil without MACsec
	static   *config.StaticKeys      // that secy has; nil with MKA
	numbers  reservation             // of packet numbers, for static
	kay      *kay                    // nil without MKA
}

// openedPort returns the open port on p's device, whatever its name; nil if
// there is none or the device has been made anew since.
func (e *Edge) openedPort(p config.Port) *portState {
	for _, ps := range e.ports {
		if ps.cfg.Device == p.Device && ps.cfg.Type == p.Type && cpuOf(ps.cfg) == cpuOf(p) && !ps.madeAnew() {
			return ps
		}
	}
	return nil
}

// cpuOf is the processor that a port is bound to.
func cpuOf(p config.Port) int {
	if p.CPU == nil {
		return dataplane.AnyCPU
	}
	return *p.CPU
}

// claimDevice takes a device for this process: two of them on one would both
// answer, and the first to stop would take the other's filter away. An abstract
// socket is the namespace's, as the device is, and dies with its process.
func claimDevice(device string) (net.Listener, error) {
	l, err := net.Listen("unix", "@msee/port/"+device)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("device %s is in use by another msee, or by another port of this one", device)
	}
	return l, err
}

func (e *Edge) openPort(p config.Port) (_ *portState, err error) {
	claim, err := claimDevice(p.Device)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			claim.Close()
		}
	}()
	var dev port.Port
	var ring port.PacketConfig
	switch p.Type {
	case "tap":
		dev, err = port.OpenTap(port.TapConfig{Name: p.Device})
	case "xdp":
		dev, err = port.OpenXDP(port.XDPConfig{Device: p.Device})
	default:
		if ring, err = ringFor(p); err == nil {
			dev, err = port.OpenPacket(ring)
		}
	}
	if err != nil {
		return nil, err
	}
	ps := &portState{cfg: p, index: e.nextPort, port: dev, counters: new(dataplane.PortCounters), link: linkUp, claim: claim, ring: ring}
	if link, err := net.InterfaceByName(dev.Name()); err == nil {
		ps.ifindex = link.Index
		ps.dark = link.Flags&net.FlagUp == 0 // switched off by a process before us, maybe
	}
	if err := e.engine.AddPort(ps.index, dev, cpuOf(p)); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	e.nextPort++
	return ps, nil
}

func (e *Edge) closePort(p *portState) {
	if p.dark { // it is nobody's any more
		e.setLink(p, true)
	}
	if err := p.port.Close(); err != nil {
		e.log.Error("close port", "port", p.cfg.Name, "err", err)
	}
	p.kay.close()
	if p.secy != nil {
		e.closeSecY(p)
	}
	p.claim.Close()
}

// portTables makes the demultiplexing tables of all ports.
func (e *Edge) portTables() []*dataplane.Port {
	tables := make([]*dataplane.Port, e.nextPort)
	for _, p := range e.ports {
		var subs, origins []*dataplane.Subinterface
		for _, v := range e.vrfs {
			for _, s := range v.subs {
				if s.port == p {
					subs = append(subs, s.dp)
				}
			}
			if v.originPort() == p {
				origins = append(origins, v.fromTap)
			}
		}
		tables[p.index] = dataplane.NewPort(p.index, p.cfg.Name, p.port, p.cfg.TPID, p.counters, subs, origins)
		tables[p.index].SecY = p.secy
		if p.kay != nil {
			tables[p.index].EAPOL = p.kay.eapol
		}
		if other := e.ports[p.cfg.CrossConnect]; other != nil {
			tables[p.index].CrossConnect = &dataplane.CrossConnect{Port: other.index}
		}
	}
	return tables
}

// originPort is the port whose worker reads the VRF's origin: that of its
// first subinterface by name.
func (v *vrf) originPort() *portState {
	if len(v.subs) == 0 {
		return nil
	}
	return v.subs[slices.Min(slices.Collect(maps.Keys(v.subs)))].port
}
