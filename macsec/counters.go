package macsec

// The counters of 802.1AE-2018 §10.7.9, §10.7.10, §10.7.18 and §10.7.19, under
// their names; two more are ours and say so. OutPkts… and InPkts… are frames,
// …Octets… those of user data: what follows the addresses, without SecTAG and
// ICV.

// TxCounters are the SecY's and its transmit channel's.
type TxCounters struct {
	OutPktsUntagged    uint64
	OutPktsTooLong     uint64
	OutPktsProtected   uint64
	OutPktsEncrypted   uint64
	OutOctetsProtected uint64
	OutOctetsEncrypted uint64
	// OutPktsNoSA counts frames that there was no key for, or no packet number
	// left. It is ours: the standard's port is not operational then.
	OutPktsNoSA uint64
}

// TxSACounters are a transmit SA's.
type TxSACounters struct {
	OutPktsProtected uint64
	OutPktsEncrypted uint64
}

// RxCounters are the SecY's, of frames that belong to no channel.
type RxCounters struct {
	InPktsUntagged uint64 // no SecTAG, delivered
	InPktsNoTag    uint64 // no SecTAG, discarded
	InPktsBadTag   uint64
	InPktsNoSA     uint64 // unknown SCI, delivered
	InPktsNoSAErr  uint64 `json:"InPktsNoSAError"` // unknown SCI, discarded
	InPktsOverrun  uint64 // never here: what the ring cannot hold is the port's to count
}

// RxSCCounters are a receive channel's.
type RxSCCounters struct {
	InPktsUnusedSA    uint64 // the SA is not in use, delivered
	InPktsNotUsingSA  uint64 // the SA is not in use, discarded
	InPktsLate        uint64
	InPktsNotValid    uint64 // discarded
	InPktsInvalid     uint64 // not valid, delivered
	InPktsDelayed     uint64 // late, delivered: ReplayProtect is off
	InPktsUnchecked   uint64 // delivered: ValidateFrames is Disabled
	InPktsOK          uint64
	InOctetsValidated uint64 // of frames not encrypted
	InOctetsDecrypted uint64
}

// RxSACounters are a receive SA's.
type RxSACounters struct {
	InPktsNotUsingSA uint64
	InPktsNotValid   uint64
	InPktsInvalid    uint64
	InPktsOK         uint64
}

// Status is a SecY as show prints it. It holds no keys.
type Status struct {
	SCI            SCI        `json:"sci"`
	ProtectFrames  bool       `json:"protectFrames"`
	ValidateFrames string     `json:"validateFrames"`
	ReplayProtect  bool       `json:"replayProtect"`
	ReplayWindow   uint32     `json:"replayWindow"`
	IncludeSCI     bool       `json:"includeSCI"` // in the frames it sends now
	Tx             TxCounters `json:"tx"`
	TxSAs          []TxSA     `json:"txSAs"`
	Rx             RxCounters `json:"rx"`
	RxSCs          []RxSC     `json:"rxSCs"`
}

// TxSA is a transmit SA of a Status.
type TxSA struct {
	AN              uint8           `json:"an"`
	CipherSuite     CipherSuite     `json:"cipherSuite"`
	Confidentiality Confidentiality `json:"confidentiality"`
	InUse           bool            `json:"inUse"`  // the one to send with
	NextPN          uint64          `json:"nextPN"` // 0: used up
	RekeyDue        bool            `json:"rekeyDue"`
	TxSACounters
}

// RxSC is a receive channel of a Status.
type RxSC struct {
	SCI SCI    `json:"sci"`
	SAs []RxSA `json:"sas"`
	RxSCCounters
}

// RxSA is a receive SA of a Status.
type RxSA struct {
	AN          uint8       `json:"an"`
	CipherSuite CipherSuite `json:"cipherSuite"`
	InUse       bool        `json:"inUse"`
	NextPN      uint64      `json:"nextPN"`
	LowestPN    uint64      `json:"lowestPN"`
	RxSACounters
}

// Status returns the SecY's state and counters.
func (s *SecY) Status() Status {
	var st Status
	s.rx.mu.Lock()
	st.Rx = s.rx.counters
	for _, sc := range s.rx.scs {
		out := RxSC{SCI: sc.sci, RxSCCounters: sc.counters}
		for an, sa := range sc.sas {
			if sa != nil {
				out.SAs = append(out.SAs, RxSA{uint8(an), sa.suite, sa.inUse, sa.next, sa.lowest, sa.counters})
			}
		}
		st.RxSCs = append(st.RxSCs, out)
	}
	s.rx.mu.Unlock()

	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	t := &s.tx
	st.SCI, st.ProtectFrames = t.cfg.SCI, t.cfg.ProtectFrames
	st.ValidateFrames = t.cfg.ValidateFrames.String()
	st.ReplayProtect, st.ReplayWindow = t.cfg.ReplayProtect, t.cfg.ReplayWindow
	st.IncludeSCI, st.Tx = t.form()&tciSC != 0, t.counters
	for an, sa := range t.sas {
		if sa != nil {
			st.TxSAs = append(st.TxSAs, TxSA{uint8(an), sa.suite, sa.conf, sa == t.current, sa.next, sa.rekeyDue(), sa.counters})
		}
	}
	return st
}
