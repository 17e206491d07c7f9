package edge

import (
	"errors"

	"msee/bgp"
	"msee/config"
)

// Planned maintenance, as Azure does it: the device makes all its paths longer,
// so that its peers choose others while it still forwards; when its traffic is
// gone its sessions are taken down; when the work is done they come back.

// Maintenance is what the operator has the device do.
type Maintenance string

const (
	InService Maintenance = "InService"
	Draining  Maintenance = "Draining" // its own AS eight times more in front of every path
	Drained   Maintenance = "Drained"  // and its sessions are down
)

// holdMaintenance names our hold on a BGP session.
const holdMaintenance = "maintenance"

// ErrNotDraining is returned for the second step before the first.
var ErrNotDraining = errors.New("the device is in service; drain it first")

// ErrNoOther is returned for the steps out of service of a gateway's last instance.
var ErrNoOther = errors.New("the other instance is not in service; nothing would forward")

// SetMaintenance takes the device to a step of its maintenance; a step that it
// is at already does nothing. Drained must follow Draining: its caller waits
// until the traffic is gone. A gateway's last instance goes only by force.
func (e *Edge) SetMaintenance(to Maintenance, force bool) (err error) {
	stopped := e.do(func() {
		switch {
		case to == e.maintenance, to == Draining && e.maintenance == Drained: // it is further: no session comes back
			return
		case to == Drained && e.maintenance == InService:
			err = ErrNotDraining
			return
		case to != InService && !force && !e.otherServes():
			err = ErrNoOther
			return
		}
		e.log.Info("maintenance", "state", to, "was", e.maintenance)
		e.maintenance = to
		for _, v := range e.vrfs {
			e.ribChanged(v, v.rib.SetPolicy(e.policy(v.cfg)))
		}
		e.holdDrained()
	})
	return errors.Join(stopped, err)
}

// policy is the policy of a VRF in the present state of maintenance.
func (e *Edge) policy(c config.VRF) bgp.Policy {
	p := policy(c)
	p.Drained = e.maintenance != InService
	return p
}

// holdDrained keeps all sessions down while the device is drained.
func (e *Edge) holdDrained() {
	for name, s := range e.sessions {
		if s.cfg.Carrier != "" {
			continue
		}
		if e.maintenance != Drained {
			e.speaker.Release(name, holdMaintenance)
			continue
		}
		e.speaker.Hold(name, bgp.Hold{By: holdMaintenance, Cease: bgp.CeaseShutdown,
			Message: "planned maintenance", Why: "drained for maintenance"})
	}
}
