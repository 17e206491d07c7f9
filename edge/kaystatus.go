package edge

import (
	"errors"
	"fmt"
	"time"

	"msee/config"
	"msee/macsec"
	"msee/macsec/mka"
)

// MACsecStatus is the MACsec of one port.
type MACsecStatus struct {
	Port string `json:"port"`
	// State has the names of a KaY's: secured, pending (no peer, or no SAK
	// yet), or failed (a peer is there and cannot be agreed with). A port with
	// static keys is secured.
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"` // why it is not secured
	Mode      string     `json:"mode"`             // mka or static
	Cipher    string     `json:"cipher"`           // as the configuration has it
	CKN       mka.CKN    `json:"ckn,omitempty"`    // of the SAK to send with
	KeyServer macsec.SCI `json:"keyServer,omitempty"`
	Self      bool       `json:"isKeyServer"`
	Peers     int        `json:"peers"`
	// RekeyIn is when the next SAK is due, as far as can be told: by time, or
	// by the rate at which packet numbers are used up. Zero: not in sight.
	RekeyIn time.Duration `json:"rekeyIn,omitempty"`
	SecY    macsec.Status `json:"secy"`
	// OpenConfig has the counters that OpenConfig's test MSEC-1.1 asks for.
	OpenConfig map[string]uint64 `json:"openconfig"`
}

// MKAStatus is the key agreement of one port.
type MKAStatus struct {
	Port string `json:"port"`
	mka.Status
}

// MACsec lists the ports with MACsec.
func (e *Edge) MACsec() (rows []MACsecStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.Ports {
			if p := e.ports[c.Name]; p.secy != nil {
				rows = append(rows, p.macsecStatus(time.Now()))
			}
		}
	})
	return rows, err
}

// MKA lists the ports with MACsec by key agreement.
func (e *Edge) MKA() (rows []MKAStatus, err error) {
	err = e.do(func() {
		for _, c := range e.device.Ports {
			if k := e.ports[c.Name].kay; k != nil {
				k.do(func() { rows = append(rows, MKAStatus{c.Name, k.mka.Status(time.Now())}) })
			}
		}
	})
	return rows, err
}

func (p *portState) macsecStatus(now time.Time) MACsecStatus {
	s := MACsecStatus{Port: p.cfg.Name, State: "secured", Mode: "static",
		Cipher: config.CipherName(p.cfg.MACsec.Cipher), SecY: p.secy.Status()}
	var counters mka.Counters
	if k := p.kay; k != nil {
		k.do(func() {
			st := k.mka.Status(now)
			s.agreement(&st)
			s.RekeyIn = k.rekeyIn(now, &st)
			counters = st.Counters
		})
	} else {
		s.Peers = len(s.SecY.RxSCs)
	}
	s.OpenConfig = openConfig(&s.SecY, &counters)
	return s
}

// agreement takes over what MKA says.
func (s *MACsecStatus) agreement(st *mka.Status) {
	s.Mode, s.Reason = "mka", st.Reason
	for _, p := range st.Participants {
		if !p.Principal {
			continue
		}
		s.CKN, s.KeyServer, s.Self = p.CKN, p.KeyServer, p.Server
		for _, q := range p.Peers {
			if q.Live {
				s.Peers++
			}
		}
	}
	switch {
	case st.Secured:
	case s.Peers > 0 || st.Counters.BadICV > 0 || st.Counters.UnknownCKN > 0:
		s.State = "failed"
	default:
		s.State = "pending"
	}
}

// rekeyIn forecasts the next SAK. It runs on the KaY's goroutine.
func (k *kay) rekeyIn(now time.Time, st *mka.Status) time.Duration {
	var in time.Duration
	if k.cfg.Rekey > 0 && st.Latest != nil {
		in = max(st.Latest.Since.Add(k.cfg.Rekey).Sub(now), time.Second)
	}
	end := k.cfg.Cipher.PendingPNExhaustion()
	if k.rate.perSecond > 0 && k.rate.next < end {
		if s := float64(end-k.rate.next) / k.rate.perSecond; s < 1e9 && (in == 0 || s < in.Seconds()) {
			in = time.Duration(s * float64(time.Second))
		}
	}
	return in.Round(time.Second)
}

func openConfig(s *macsec.Status, c *mka.Counters) map[string]uint64 {
	m := map[string]uint64{
		"tx-pkts-ctrl": c.Sent, "rx-pkts-ctrl": c.Received,
		"rx-unrecognized-ckn": c.UnknownCKN, "rx-badicv-pkts": c.BadICV,
		"tx-pkts-err-in": s.Tx.OutPktsTooLong, "tx-pkts-dropped": s.Tx.OutPktsNoSA + s.Tx.OutPktsTooLong,
		"rx-pkts-dropped": s.Rx.InPktsNoTag + s.Rx.InPktsBadTag + s.Rx.InPktsNoSAErr,
	}
	for _, sc := range s.RxSCs {
		m["rx-badicv-pkts"] += sc.InPktsNotValid
		m["rx-pkts-dropped"] += sc.InPktsNotUsingSA + sc.InPktsLate + sc.InPktsNotValid
	}
	return m
}

// Rotation is a port whose keys were rotated.
type Rotation struct {
	Port string  `json:"port"`
	From mka.CKN `json:"from"`
	To   mka.CKN `json:"to"` // equal to From if only the SAK is new
}

// ErrNoMKA is returned for a port without key agreement.
var ErrNoMKA = errors.New("no port with MACsec and MKA")

// RotateMACsec makes another CAK principal on a port, or on all if port is "":
// that of ckn, or if that is nil any other that is in force. It is refused, for
// all ports, unless on each all peers are live under that CAK. With sakOnly the
// CAK stays and a new SAK is made.
func (e *Edge) RotateMACsec(port string, ckn mka.CKN, sakOnly bool) (rows []Rotation, err error) {
	stopped := e.do(func() { rows, err = e.rotate(port, ckn, sakOnly) })
	return rows, errors.Join(stopped, err)
}

func (e *Edge) rotate(port string, ckn mka.CKN, sakOnly bool) ([]Rotation, error) {
	var chosen []*portState
	for _, c := range e.device.Ports {
		if p := e.ports[c.Name]; (port == "" || port == c.Name) && p.kay != nil {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		if port == "" {
			return nil, ErrNoMKA
		}
		return nil, fmt.Errorf("%w is called %s", ErrNoMKA, port)
	}
	var refused []error
	for _, p := range chosen {
		if sakOnly {
			break
		}
		p.kay.do(func() {
			if err := p.kay.mka.Promotable(ckn); err != nil {
				refused = append(refused, fmt.Errorf("port %s: %w", p.cfg.Name, err))
			}
		})
	}
	if refused != nil {
		return nil, errors.Join(refused...)
	}
	var rows []Rotation
	var failed []error
	for _, p := range chosen {
		p.kay.do(func() {
			now := time.Now()
			from := principal(p.kay.mka, now)
			var actions []mka.Action
			var err error
			if sakOnly {
				actions, err = p.kay.mka.Rekey(now)
			} else {
				actions, err = p.kay.mka.Promote(now, ckn)
			}
			p.kay.obey(actions)
			if err != nil {
				failed = append(failed, fmt.Errorf("port %s: %w", p.cfg.Name, err))
				return
			}
			rows = append(rows, Rotation{p.cfg.Name, from, principal(p.kay.mka, now)})
		})
	}
	return rows, errors.Join(failed...)
}

// principal is the CKN under which SAKs are made.
func principal(k *mka.KaY, now time.Time) mka.CKN {
	for _, p := range k.Status(now).Participants {
		if p.Principal {
			return p.CKN
		}
	}
	return nil
}
