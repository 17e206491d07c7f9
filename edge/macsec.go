package edge

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"msee/config"
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

// setMACsec brings a port's SecY to its configuration. A SecY stays as long as
// there is MACsec of its kind on the port, and with it the packet numbers of
// keys that stay.
func (e *Edge) setMACsec(p *portState) error {
	c := p.cfg.MACsec
	if p.secy != nil && (c == nil || (c.Static != nil) != (p.static != nil)) {
		p.secy.Close()
		p.secy, p.static = nil, nil
	}
	if c == nil {
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
		// Whatever fails from here on, the port has a SecY, and sends nothing
		// in clear.
		secy, err := macsec.New(macsec.Config{SCI: cfg.SCI, ProtectFrames: true})
		if err != nil {
			return err
		}
		p.secy = secy
	}
	if err := p.secy.Configure(cfg); err != nil {
		return err
	}
	if c.Static == nil {
		return nil // the KaY's
	}
	if err := setStaticKeys(p.secy, c, p.static); err != nil {
		return err
	}
	p.static = c.Static
	return nil
}

// setStaticKeys installs the keys of the configuration, and removes those of
// the one before that are not in it.
func setStaticKeys(s *macsec.SecY, c *config.MACsec, before *config.StaticKeys) error {
	install := func(sa config.StaticSA, f func(sak macsec.SAK) error) error {
		sak := macsec.SAK{Suite: c.Cipher, Confidentiality: c.Confidentiality, Key: sa.SAK.Bytes(), Salt: sa.Salt}
		defer clear(sak.Key)
		return f(sak)
	}
	tx := c.Static.Transmit
	err := install(tx, func(sak macsec.SAK) error {
		if err := s.InstallTxSA(tx.AN, sak, tx.SSCI, tx.PN); err != nil {
			s.RemoveTxSA(tx.AN) // another key was in use there
			if err := s.InstallTxSA(tx.AN, sak, tx.SSCI, tx.PN); err != nil {
				return err
			}
		}
		return s.EnableTxSA(tx.AN)
	})
	if err != nil {
		return fmt.Errorf("transmit key: %w", err)
	}
	if before != nil {
		if before.Transmit.AN != tx.AN {
			s.RemoveTxSA(before.Transmit.AN)
		}
		for _, old := range before.Receive {
			if !slices.ContainsFunc(c.Static.Receive, func(sa config.StaticSA) bool { return sa.SCI == old.SCI }) {
				s.RemoveRxSC(old.SCI)
			} else if !slices.ContainsFunc(c.Static.Receive, func(sa config.StaticSA) bool { return sa.SCI == old.SCI && sa.AN == old.AN }) {
				s.RemoveRxSA(old.SCI, old.AN)
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
	return nil
}
