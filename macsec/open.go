package macsec

import "math"

// Open validates the frame buf[start:end] in place, takes the SecTAG and the
// ICV off and returns its new bounds; they are the old ones if it is dropped or
// untouched, and what it held may be overwritten then. The caller holds
// LockReceive. The order of checks is that of §10.6.
func (s *SecY) Open(buf []byte, start, end int) (int, int, Outcome) {
	r := &s.rx
	frame := buf[start:end]
	tag, fault := parseSecTAG(frame)
	switch fault {
	case NoTag:
		if r.cfg.ValidateFrames == Strict {
			r.counters.InPktsNoTag++
			return start, end, NoTag
		}
		r.counters.InPktsUntagged++
		return start, end, Untouched
	case BadTag:
		r.counters.InPktsBadTag++
		return start, end, BadTag
	}
	secureEnd, ok := tag.secureEnd(frame)
	if !ok {
		r.counters.InPktsBadTag++
		return start, end, BadTag
	}
	// What is changed cannot be read unopened, and is never let through so.
	lenient := r.cfg.ValidateFrames != Strict && tag.TCI&tciC == 0

	sc := r.channel(&tag)
	if sc == nil {
		if !lenient {
			r.counters.InPktsNoSAErr++
			return start, end, UnknownSCI
		}
		r.counters.InPktsNoSA++
		return strip(buf, start, &tag, secureEnd, Tolerated)
	}
	sa := sc.sas[tag.AN]
	if sa == nil || !sa.inUse {
		if !lenient {
			sc.counters.InPktsNotUsingSA++
			if sa != nil {
				sa.counters.InPktsNotUsingSA++
			}
			return start, end, NotUsingSA
		}
		sc.counters.InPktsUnusedSA++
		return strip(buf, start, &tag, secureEnd, Tolerated)
	}
	pn := sa.recoverPN(tag.PN)
	if r.cfg.ReplayProtect && pn < sa.lowest {
		sc.counters.InPktsLate++
		return start, end, Late
	}
	if r.cfg.ValidateFrames == Disabled && lenient {
		sc.counters.InPktsUnchecked++
		return strip(buf, start, &tag, secureEnd, Tolerated)
	}

	from := tag.Len + macsLen // of what is encrypted
	if tag.TCI&tciE == 0 {
		from = secureEnd
	} else {
		from = min(from+sa.conf.clear(), secureEnd)
	}
	sa.setPN(pn)
	secure := uint64(secureEnd - tag.Len - macsLen)
	if tag.TCI&tciE == 0 {
		sc.counters.InOctetsValidated += secure
	} else {
		sc.counters.InOctetsDecrypted += secure
	}
	_, err := sa.aead.Open(frame[from:from], sa.nonce[:], frame[from:secureEnd+ICVLen], frame[:from])
	if err != nil || pn == 0 || pn == math.MaxUint64 { // no number (§9.6), and one that no window could move beyond
		if !lenient {
			sc.counters.InPktsNotValid++
			sa.counters.InPktsNotValid++
			return start, end, NotValid
		}
		sc.counters.InPktsInvalid++
		sa.counters.InPktsInvalid++
		return strip(buf, start, &tag, secureEnd, Tolerated)
	}
	if pn < sa.lowest {
		sc.counters.InPktsDelayed++
	} else {
		sc.counters.InPktsOK++
		sa.counters.InPktsOK++
	}
	sa.advance(pn, r.cfg.ReplayWindow)
	return strip(buf, start, &tag, secureEnd, OK)
}

// secureEnd returns where the frame's secure data end and its ICV begins; what
// follows the ICV of a short frame is Ethernet's padding (§9.7, §9.12).
func (t *SecTAG) secureEnd(frame []byte) (int, bool) {
	from := macsLen + t.Len
	if t.SL != 0 {
		end := from + int(t.SL)
		return end, t.SL >= 2 && end+ICVLen <= len(frame)
	}
	end := len(frame) - ICVLen
	return end, end-from >= minSecure
}

// channel finds the receive channel of a frame: by the SCI that the tag has or
// implies, or, if it has none, the only one there is (§9.9, §10.6.1).
func (r *receiver) channel(t *SecTAG) *receiveSC {
	if t.TCI&(tciSC|tciES|tciSCB) == 0 {
		if len(r.scs) == 1 {
			return r.scs[0]
		}
		return nil
	}
	return r.find(t.SCI)
}

// recoverPN returns the whole packet number of a frame: with XPN, the one whose
// low half the frame carries and that is nearest above the lowest acceptable
// (§10.6.2).
func (sa *receiveSA) recoverPN(low uint32) uint64 {
	if !sa.xpn {
		return uint64(low)
	}
	high := sa.lowest >> 32
	if low>>31 == 0 && uint32(sa.lowest)>>31 == 1 {
		high++ // wraps at the end of all numbers, where no ICV holds
	}
	return high<<32 | uint64(low)
}

// advance moves the window for a frame whose ICV held (§10.6.5).
func (sa *receiveSA) advance(pn uint64, window uint32) {
	if pn < sa.next {
		return
	}
	sa.next = pn + 1
	w := uint64(window)
	if sa.xpn {
		w = min(w, MaxReplayWindowXPN)
	}
	if sa.next > w {
		sa.lowest = max(sa.lowest, sa.next-w)
	}
}

// strip takes the tag and what follows the secure data off a frame.
func strip(buf []byte, start int, t *SecTAG, secureEnd int, o Outcome) (int, int, Outcome) {
	copy(buf[start+t.Len:], buf[start:start+macsLen])
	return start + t.Len, start + secureEnd, o
}
