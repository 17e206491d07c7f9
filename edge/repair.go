package edge

import (
	"net"

	"github.com/vishvananda/netlink"

	"msee/bgp"
	"msee/dataplane"
)

// What others do to a device's links and TAPs, and what it does about it.

// States of a port's link.
const (
	linkUp   = "up"
	linkDown = "down"
	linkGone = "gone" // removed, or made anew under the same name
)

// watchLinks has the kernel tell the control loop when a link changes.
func (e *Edge) watchLinks() error {
	return netlink.LinkSubscribe(e.links, e.stop)
}

// checkLinks looks at the link of each port. With a link, its sessions go (the
// peer cannot be reached, whatever the hold timer says); a device that was made
// anew is opened again.
func (e *Edge) checkLinks() {
	again := false
	if err := e.setRings(); err != nil { // the MTU may be another one
		e.log.Error("receive ring", "err", err)
	}
	for _, p := range e.ports {
		state := p.linkState()
		if state != p.link {
			e.log.Warn("link", "port", p.cfg.Name, "device", p.cfg.Device, "was", p.link, "is", state)
			p.link = state
			for _, v := range e.vrfs {
				v.fwd.linkChanged(p)
			}
			if err := e.engine.BFDPathDown(p.index, state != linkUp); err != nil {
				e.log.Error("tell BFD of the link", "port", p.cfg.Name, "err", err)
			}
			if state != linkUp {
				e.dropPort(p)
			}
		}
		if d, ok := p.port.(queuer); ok && state != linkGone {
			if err := d.LookForQueues(); err != nil {
				e.log.Error("look at queues", "port", p.cfg.Name, "err", err)
			}
		}
		again = again || p.madeAnew()
	}
	if again {
		e.reopen()
	}
}

// queuer is a port whose device may get a queueing discipline.
type queuer interface{ LookForQueues() error }

// madeAnew says whether a port's device was removed and there is another of its
// name now.
func (p *portState) madeAnew() bool {
	if p.link != linkGone {
		return false
	}
	_, err := net.InterfaceByName(p.cfg.Device)
	return err == nil
}

// whyDown says in words that a port's link is not up; "" if it is.
func (p *portState) whyDown() string {
	if p.cfg.Disabled {
		return "the adminState of port " + p.cfg.Name + " is Disabled"
	}
	if p.link == linkUp {
		return ""
	}
	return "the link of port " + p.cfg.Name + " (" + p.cfg.Device + ") is " + p.link
}

// linkState looks at a port's device.
func (p *portState) linkState() string {
	if p.cfg.Type == "tap" {
		return linkUp // as long as we hold it, in whatever namespace its end is now
	}
	link, err := net.InterfaceByName(p.port.Name())
	switch {
	case err != nil || link.Index != p.ifindex:
		return linkGone
	case link.Flags&net.FlagRunning == 0:
		return linkDown
	default:
		return linkUp
	}
}

// dropPort takes down the sessions behind a port.
func (e *Edge) dropPort(p *portState) {
	for name, s := range e.sessions {
		sub := s.vrf.subs[s.cfg.Subinterface]
		if sub == nil || sub.port != p || s.status.State != bgp.StateEstablished && s.status.Retain == 0 {
			continue
		}
		e.down(s)
		e.speaker.Reset(name, p.whyDown())
	}
}

// reopen opens the ports whose devices were made anew.
func (e *Edge) reopen() {
	for _, p := range e.ports {
		if p.madeAnew() {
			p.claim.Close() // the device of that name is to be claimed again
		}
	}
	e.incomplete = true
	if err := e.apply(e.device); err != nil {
		e.log.Error("open ports again", "err", err)
		return
	}
	e.log.Info("ports opened again")
}

// remakeTap makes a subinterface's TAP anew, which somebody has deleted.
func (e *Edge) remakeTap(lost *dataplane.Subinterface) {
	for _, v := range e.vrfs {
		for _, s := range v.subs {
			if s.dp != lost {
				continue
			}
			t, err := v.kernel.newTap(s.onTap(s.cfg), s.port.port.MAC())
			if err != nil {
				e.log.Error("make TAP anew", "interface", s.cfg.Name, "err", err)
				return
			}
			old := s.tap
			s.tap, s.punt = t, dataplane.NewPunt(t.fd)
			s.configure(s.cfg, s.port, s.dp.Counters)
			s.dp.Ingress, s.dp.Egress = lost.Ingress, lost.Egress
			e.rebuild(v)
			v.fwd.commit()
			e.publishSnapshot(e.portTables())
			e.engine.Sync()
			old.device.Close()
			e.log.Info("made TAP anew", "interface", s.cfg.Name)
			return
		}
	}
}
