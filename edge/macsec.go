package edge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"msee/config"
	"msee/dataplane"
	"msee/dataplane/port"
	"msee/macsec"
	"msee/vlan"
)

// MACsec of ports: the SecY belongs to the port, whoever gives it keys. From
// the first snapshot on that has it, nothing but EAPOL passes in clear.

// sciPort is the port number in our SCIs: one SecY per MAC address.
const sciPort = 1

// checkMACsec makes sure that a device can be protected: that sealed frames fit
// it, and that the host says nothing on it by itself, which would be in clear.
func checkMACsec(dev *config.Device, p config.Port, device string) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if need, why := sealedMTU(dev, p.Name); link.MTU < need {
		return fmt.Errorf("device %s has MTU %d, too small for MACsec: want at least %d (%s)", device, link.MTU, need, why)
	}
	err = os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the host's IPv6 off device %s: %w", device, err)
	}
	addrs, err := link.Addrs()
	if err != nil {
		return err
	}
	if len(addrs) > 0 {
		return fmt.Errorf("device %s has the address %v: the host would send in clear on a MACsec port; remove it", device, addrs[0])
	}
	return nil
}

// sealedMTU returns the MTU a port's device needs, and how it comes about.
func sealedMTU(dev *config.Device, port string) (need int, why string) {
	const overhead = macsec.Overhead
	need, why = overhead, fmt.Sprintf("SecTAG and ICV %d", overhead)
	for _, v := range dev.VRFs {
		for _, s := range v.Subinterfaces {
			tags := 0
			for _, id := range []uint16{s.STag, s.CTag} {
				if id != 0 {
					tags += vlan.TagLen
				}
			}
			if n := s.MTU + tags + overhead; s.Port == port && n > need {
				need, why = n, fmt.Sprintf("IP MTU %d, tags %d, SecTAG and ICV %d", s.MTU, tags, overhead)
			}
		}
	}
	return need, why
}

// silencer is a port whose device the host can be kept from sending on.
type silencer interface{ SilenceHost(on bool) error }

// setMACsec brings a port's SecY to its configuration. A SecY stays as long as
// there is MACsec of its kind on the port, and with it the packet numbers of
// keys that stay. Whatever fails, a port that is to be protected has a SecY, and
// sends nothing in clear.
func (e *Edge) setMACsec(p *portState) error {
	c := p.cfg.MACsec
	if p.secy != nil && (c == nil || (c.Static != nil) != (p.static != nil)) {
		e.closeSecY(p)
	}
	host, canSilence := p.port.(silencer)
	if c == nil {
		if canSilence {
			return host.SilenceHost(false)
		}
		return nil
	}
	cfg := macsec.Config{
		SCI:           macsec.NewSCI(p.port.MAC(), sciPort),
		ProtectFrames: true, ReplayProtect: true, ReplayWindow: c.ReplayWindow, IncludeSCI: c.SendSCI,
	}
	if link, err := net.InterfaceByName(p.port.Name()); err == nil {
		cfg.MaxFrame = link.MTU + vlan.EthLen
	}
	if p.secy == nil {
		p.secy = macsec.NewClosed(cfg.SCI)
	}
	if canSilence {
		if err := host.SilenceHost(true); err != nil {
			return err
		}
	}
	if err := p.secy.Configure(cfg); err != nil {
		return err
	}
	if c.Static == nil {
		return nil // the KaY's
	}
	return e.setStaticKeys(p)
}

// sealedRing is how many frames the receive ring of a MACsec port holds: all that
// a TCP connection has on the way (tcp_rmem is 6 MB) comes in frames of the MTU,
// not in superframes. With an MTU of 1600 it is 8 MB, with 9000 38 MB.
const sealedRing = 4096

// ringFor returns the receive ring that a port needs. On a MACsec port nothing is
// longer than the device's MTU.
func ringFor(p config.Port) (port.PacketConfig, error) {
	ring := port.PacketConfig{Device: p.Device}
	if p.MACsec == nil {
		return ring, nil
	}
	link, err := net.InterfaceByName(p.Device)
	if err != nil {
		return ring, err
	}
	ring.Silent = true // before setMACsec, which may be a while
	ring.RingFrames, ring.MaxFrame = sealedRing, min(max(link.MTU+vlan.EthLen+vlan.TagLen, port.MinFrame), port.MaxFrame)
	return ring, nil
}

// setRings gives the ports the rings that they need now: with MACsec or without,
// and for the MTU of their devices.
func (e *Edge) setRings() (failed error) {
	for _, p := range e.ports {
		if _, can := p.port.(dataplane.Resizer); !can {
			continue
		}
		ring, err := ringFor(p.cfg)
		if err != nil || ring == p.ring || p.link == linkGone {
			continue
		}
		if err := e.engine.Resize(p.index, ring); err != nil {
			failed = errors.Join(failed, fmt.Errorf("port %s: %w", p.cfg.Name, err))
			continue
		}
		p.ring = ring
	}
	return failed
}

// closeSecY wipes a port's keys. From the next snapshot on it has no SecY.
func (e *Edge) closeSecY(p *portState) {
	if p.static != nil {
		e.giveBackNumbers(p, p.static.Transmit.AN)
	}
	p.secy.Close()
	p.secy, p.static = nil, nil
}

// setStaticKeys gives a port the keys of its configuration, and takes those away
// that are not in it: all of that or nothing.
func (e *Edge) setStaticKeys(p *portState) error {
	c := p.cfg.MACsec
	// Whatever could be wrong shows here, where no key is in use.
	rehearsal := macsec.NewClosed(p.secy.SCI())
	defer rehearsal.Close()
	if err := installStaticKeys(rehearsal, c, nil, c.Static.Transmit.PN, 0); err != nil {
		return err
	}
	tx := c.Static.Transmit
	next, numbers := tx.PN, p.numbers
	key, ivs := fingerprint(tx.SAK), ivs{c.Cipher, tx.Salt, tx.SSCI}
	if numbers.key != key || numbers.ivs != ivs || tx.PN > numbers.last { // to the SecY it is another key
		var err error
		if next, numbers, err = e.packetNumbers.reserve(key, tx.PN, c.Cipher.MaxPN()); err != nil {
			return fmt.Errorf("transmit key: %w", err)
		}
		numbers.ivs = ivs
	}
	if p.static != nil && p.numbers.key != key {
		e.giveBackNumbers(p, p.static.Transmit.AN)
	}
	p.numbers = numbers
	before := p.static
	p.static = c.Static
	if err := installStaticKeys(p.secy, c, before, next, numbers.last); err != nil {
		p.secy.Close() // none rather than some
		p.numbers = reservation{}
		return err
	}
	return nil
}

// installStaticKeys installs the keys of a configuration, and removes those of
// the one before that are not in it. The packet numbers to send with are next to
// last; a key that is there already goes on where it is.
func installStaticKeys(s *macsec.SecY, c *config.MACsec, before *config.StaticKeys, next, last uint64) error {
	install := func(sa config.StaticSA, f func(sak macsec.SAK) error) error {
		sak := macsec.SAK{Suite: c.Cipher, Confidentiality: c.Confidentiality, Key: sa.SAK.Bytes(), Salt: sa.Salt}
		defer clear(sak.Key)
		return f(sak)
	}
	tx := c.Static.Transmit
	err := install(tx, func(sak macsec.SAK) error {
		if err := s.InstallTxSA(tx.AN, sak, tx.SSCI, next); err != nil {
			s.RemoveTxSA(tx.AN) // another key was in use there
			if err := s.InstallTxSA(tx.AN, sak, tx.SSCI, next); err != nil {
				return err
			}
		}
		return errors.Join(s.LimitTxPN(tx.AN, last), s.EnableTxSA(tx.AN))
	})
	if err != nil {
		return fmt.Errorf("transmit key: %w", err)
	}
	stays := func(sci macsec.SCI, an uint8, anyAN bool) bool {
		return slices.ContainsFunc(c.Static.Receive, func(sa config.StaticSA) bool { return sa.SCI == sci && (anyAN || sa.AN == an) })
	}
	if before != nil {
		if before.Transmit.AN != tx.AN {
			s.RemoveTxSA(before.Transmit.AN)
		}
		for _, old := range before.Receive {
			if !stays(old.SCI, 0, true) {
				s.RemoveRxSC(old.SCI)
			}
		}
	}
	for _, rx := range c.Static.Receive {
		err := install(rx, func(sak macsec.SAK) error {
			if err := s.CreateRxSC(rx.SCI); err != nil {
				return err
			}
			if err := s.InstallRxSA(rx.SCI, rx.AN, sak, rx.SSCI, rx.PN); err != nil {
				return err
			}
			return s.EnableRxSA(rx.SCI, rx.AN)
		})
		if err != nil {
			return fmt.Errorf("receive key of %s: %w", rx.SCI, err)
		}
	}
	if before != nil { // last: a key that has moved to another AN keeps its window
		for _, old := range before.Receive {
			if !stays(old.SCI, old.AN, false) {
				s.RemoveRxSA(old.SCI, old.AN)
			}
		}
	}
	return nil
}

// giveBackNumbers ends a port's sending with its static key, and notes down
// which packet numbers it has not used.
func (e *Edge) giveBackNumbers(p *portState, an uint8) {
	next, err := p.secy.StopTxSA(an)
	if err == nil {
		err = e.packetNumbers.giveBack(p.numbers, next)
	}
	if err != nil { // the block is lost, which is safe
		e.log.Error("MACsec packet numbers", "port", p.cfg.Name, "err", err)
	}
	p.numbers = reservation{}
}

// extendNumbers reserves packet numbers for those that will soon have used up
// theirs.
func (e *Edge) extendNumbers() {
	for _, p := range e.ports {
		if p.static == nil || p.numbers.key == "" {
			continue
		}
		an := p.static.Transmit.AN
		next, err := p.secy.TxNextPN(an)
		if err != nil || next == 0 || next < p.numbers.last && p.numbers.last-next > pnBlock/2 {
			continue
		}
		if err := e.extend(p, an); err != nil {
			e.log.Error("MACsec packet numbers", "port", p.cfg.Name, "err", err)
		}
	}
}

// extend gives a port's static key further packet numbers, if there are any.
func (e *Edge) extend(p *portState, an uint8) error {
	most := p.numbers.ivs.cipher.MaxPN()
	more, err := e.packetNumbers.extend(&p.numbers, most)
	if err == nil && !more && p.numbers.last < most {
		// Another port has the same key, and the numbers behind ours.
		from, numbers, err := e.packetNumbers.reserve(p.numbers.key, 1, most)
		if err != nil {
			return err
		}
		numbers.ivs = p.numbers.ivs
		if err := p.secy.SkipTxPN(an, from); err != nil {
			return err
		}
		p.numbers, more = numbers, true
	}
	if err != nil || !more {
		return err
	}
	return p.secy.LimitTxPN(an, p.numbers.last)
}
