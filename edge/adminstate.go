package edge

import (
	"time"

	"github.com/vishvananda/netlink"

	"msee/bgp"
)

// A link's adminState, as ExpressRoute Direct has it: Disabled takes the light
// away. The sessions behind the port are told goodbye first, so that their peers
// choose other ways while this one still carries.

const (
	// holdAdminState names our hold on a BGP session.
	holdAdminState = "adminState"
	// goodbyeTime bounds how long a link waits for its sessions to end.
	goodbyeTime = 5 * time.Second
	// moveTime is what the peers have, after that, to turn their traffic away.
	moveTime = time.Second
)

// setAdminStates brings the ports' links to what the configuration says; what
// takes time is done by the clock.
func (e *Edge) setAdminStates(now time.Time) {
	for _, p := range e.ports {
		switch {
		case p.cfg.Type == "tap": // its other end is somebody else's
		case !p.cfg.Disabled:
			if p.leaving = (time.Time{}); p.dark {
				e.setLink(p, true)
			}
		case !p.dark && e.goodbye(p, now):
			e.setLink(p, false)
		}
	}
	for name, s := range e.sessions {
		if s.cfg.Carrier != "" {
			continue
		}
		if sub := s.vrf.subs[s.cfg.Subinterface]; sub != nil && sub.port.cfg.Disabled {
			e.speaker.Hold(name, bgp.Hold{By: holdAdminState, Cease: bgp.CeaseShutdown,
				Message: "link disabled", Why: "the adminState of port " + sub.port.cfg.Name + " is Disabled"})
		} else {
			e.speaker.Release(name, holdAdminState)
		}
	}
}

// goodbye reports whether a link that shall be disabled may go dark: its sessions
// have ended, and peers have had time to turn.
func (e *Edge) goodbye(p *portState, now time.Time) bool {
	speaks := false
	for _, s := range e.sessions {
		sub := s.vrf.subs[s.cfg.Subinterface]
		speaks = speaks || sub != nil && sub.port == p && s.status.State == bgp.StateEstablished
	}
	if p.leaving.IsZero() {
		p.leaving = now
		return !speaks // nobody to say it to
	}
	since := now.Sub(p.leaving)
	return since >= moveTime && !speaks || since >= goodbyeTime
}

// setLink switches a port's device on or off.
func (e *Edge) setLink(p *portState, on bool) {
	link, err := netlink.LinkByIndex(p.ifindex)
	if err == nil {
		if on {
			err = netlink.LinkSetUp(link)
		} else {
			err = netlink.LinkSetDown(link)
		}
	}
	if err != nil {
		e.log.Error("set the link's adminState", "port", p.cfg.Name, "enabled", on, "err", err)
		return // the tick tries again
	}
	e.log.Info("link", "port", p.cfg.Name, "enabled", on)
	p.dark, p.leaving = !on, time.Time{}
}
