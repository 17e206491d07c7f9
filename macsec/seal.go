package macsec

// form returns the TCI bits that say how receivers find the SCI (§10.5.3).
func (t *transmitter) form() byte {
	switch {
	case t.cfg.IncludeSCI:
		return tciSC
	case t.cfg.UseES:
		return tciES
	case t.cfg.UseSCB:
		return tciSCB
	case t.peers > 1: // in a group each must hear which of the others it is
		return tciSC
	}
	return 0
}

// Seal protects the frame buf[start:end] in place and returns its new bounds;
// they are the old ones if it is dropped. In front HeaderOverhead octets must
// be free, behind it ICVLen, else it is a BadLength. The caller holds
// LockTransmit.
func (s *SecY) Seal(buf []byte, start, end int) (int, int, Outcome) {
	t := &s.tx
	if !t.cfg.ProtectFrames {
		t.counters.OutPktsUntagged++
		return start, end, Untouched
	}
	sa := t.current
	if sa == nil {
		t.counters.OutPktsNoSA++
		return start, end, NoKey
	}
	if sa.next == 0 || sa.next > sa.last {
		t.counters.OutPktsNoSA++
		return start, end, Exhausted
	}
	tag := SecTAG{TCI: t.form() | sa.tci, AN: sa.an, PN: uint32(sa.next), Len: tagLen}
	if tag.TCI&tciSC != 0 {
		tag.SCI, tag.Len = t.cfg.SCI, tagLenSCI
	}
	secure := end - start - macsLen
	if secure < 2 || start < tag.Len || end+ICVLen > len(buf) {
		return start, end, BadLength
	}
	if sealed := end - start + tag.Len + ICVLen; t.cfg.MaxFrame > 0 && sealed > t.cfg.MaxFrame {
		t.counters.OutPktsTooLong++
		return start, end, BadLength
	}
	if secure < minSecure {
		tag.SL = uint8(secure)
	}
	sa.setPN(sa.next)
	if sa.next == sa.suite.MaxPN() {
		sa.next = 0 // used up: rather silent than a number twice
	} else {
		sa.next++
	}

	// Only the addresses move; the user data stay where they are.
	sealed := start - tag.Len
	copy(buf[sealed:sealed+macsLen], buf[start:start+macsLen])
	tag.put(buf[sealed+macsLen:])
	from := start + macsLen // of what is encrypted; all before it is authenticated only
	if sa.conf == IntegrityOnly {
		from = end
	} else {
		from = min(from+sa.conf.clear(), end)
	}
	sa.aead.Seal(buf[from:from], sa.nonce[:], buf[from:end], buf[sealed:from])
	if sa.conf == IntegrityOnly {
		t.counters.OutPktsProtected++
		t.counters.OutOctetsProtected += uint64(secure)
		sa.counters.OutPktsProtected++
	} else {
		t.counters.OutPktsEncrypted++
		t.counters.OutOctetsEncrypted += uint64(secure)
		sa.counters.OutPktsEncrypted++
	}
	return sealed, end + ICVLen, OK
}
