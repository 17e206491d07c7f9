package dataplane

import (
	"encoding/binary"

	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

// crossConnect is the whole way of frames between two ports that are no
// router's: they pass as they are. It makes a cable with MACsec at one end, for
// stations whose own kernel has none. EAPOL stays on its link (802.1X-2020
// §11.1.1): it is the KaY's, or nobody's. It returns how many octets came.
func (w *Worker) crossConnect(ps []packet, frames []port.Frame) (octets int) {
	for i := range frames {
		p := &ps[i]
		p.begin(&frames[i])
		b := p.Bytes()
		octets += len(b)
		switch {
		case p.Truncated:
			p.verdict = DropTruncated
		case len(b) < vlan.EthLen:
			p.verdict = DropRunt
		case binary.BigEndian.Uint16(b[12:]) == etherTypePAE && p.OuterTPID == 0:
			p.verdict = w.puntEAPOL(b)
		case p.VNet.GSOType != port.GSONone && gso.TooFine(len(b)-vlan.EthLen-minIPv4, p.VNet.GSOSize):
			p.verdict = DropMalformed
		}
	}
	w.unprotect(ps)
	q := w.egressTo(w.port.CrossConnect.Port)
	for i := range ps {
		p := &ps[i]
		switch {
		case p.verdict != proceed:
			continue
		case q == nil:
			p.verdict = DropEgressDown
			continue
		}
		p.verdict = Transmit
		inlineTag(p.Frame)
		if w.port.SecY != nil && q.port.SecY == nil {
			if _, _, length := vlan.Parse(p.Bytes(), 0, 0); length > 0 && q.join.Add(p.Frame, length) {
				w.verdicts[Transmit]++ // with the frame it was joined to
				continue
			}
		}
		q.frames = append(q.frames, p.Frame)
	}
	w.settle(ps)
	return octets
}

// inlineTag puts a tag that the device keeps out of band where it belongs.
// There must be vlan.TagLen octets in front of the frame.
func inlineTag(f *port.Frame) {
	if f.OuterTPID == 0 {
		return
	}
	const addresses = 12
	f.Start -= vlan.TagLen
	b := f.Bytes()
	copy(b, b[vlan.TagLen:vlan.TagLen+addresses])
	binary.BigEndian.PutUint16(b[addresses:], f.OuterTPID)
	binary.BigEndian.PutUint16(b[addresses+2:], f.OuterTCI)
	if f.VNet.Flags&port.VNetNeedsCsum != 0 {
		f.VNet.CsumStart += vlan.TagLen
	}
	if f.VNet.GSOType != port.GSONone {
		f.VNet.HdrLen += vlan.TagLen
	}
	f.OuterTPID = 0
}
