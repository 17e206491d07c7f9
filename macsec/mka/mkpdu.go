package mka

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"

	"msee/macsec"
)

// EtherType of EAPOL, which carries MKPDUs.
const EtherType = 0x888e

// GroupAddress is the PAE group address, to which MKPDUs are sent
// (802.1X-2020 table 11-1). Bridges do not forward it.
var GroupAddress = [6]byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x03}

const (
	ethLen     = 14 // Ethernet header
	eapolLen   = 4  // EAPOL header
	eapolMKA   = 5  // EAPOL packet type of MKPDUs (table 11-3)
	eapolV3    = 3
	setHeader  = 4  // header of a parameter set
	basicFixed = 28 // body of the basic parameter set without the CKN
	peerLen    = 16 // MI and MN
	sakUseLen  = 40
	// maxBody bounds what is built: an EAPOL body within an MTU of 1500.
	maxBody = 1496
	// agility is the algorithm agility parameter of 802.1X-2010 and later
	// (table 9-1).
	agility = 0x0080c201
)

// Types of parameter set (table 11-7).
const (
	setLive         = 1
	setPotential    = 2
	setSAKUse       = 3
	setDistSAK      = 4
	setDistCAK      = 5
	setKMD          = 6
	setAnnouncement = 7
	setXPN          = 8
	setICV          = 255
)

// MKPDU is an MKA protocol data unit in its Ethernet frame (§11.11). Slices of
// one that ParseMKPDU returned are parts of the frame.
type MKPDU struct {
	Dst, Src     [6]byte
	EAPOLVersion uint8

	// Basic parameter set.
	Version    uint8 // of MKA
	Priority   uint8 // to become key server; lower is better
	KeyServer  bool
	Desired    bool // wants MACsec
	Capability Capability
	SCI        macsec.SCI
	Member     PeerID // of who sends
	Agility    uint32
	CKN        []byte // 1 to 32 octets

	Live, Potential []PeerID
	// ServerSSCI is the key server's own SSCI modulo 256, 0 if it does not
	// say so. Then SSCIs go by the order of SCIs; else the live peers have
	// the others, in the list's order.
	ServerSSCI uint8

	SAKUse  *SAKUse
	DistSAK *DistributedSAK
	DistCAK *DistributedCAK
	KMD     []byte // name of the key management domain
	Suites  []SuiteCapability
	XPN     *XPN
	// Indicator says that the ICV stands in a parameter set of its own.
	Indicator bool

	icvAt int // where the ICV begins in the frame
}

// PeerID is a member with a message number of it.
type PeerID struct {
	MI MI     `json:"identifier"`
	MN uint32 `json:"messageNumber"`
}

// SAKUse tells which SAKs a station uses. The packet numbers are the lowest it
// still accepts; with XPN their low halves.
type SAKUse struct {
	Latest, Old      KeyUse
	PlainTx, PlainRx bool
	DelayProtect     bool
}

// KeyUse is the use of one SAK.
type KeyUse struct {
	KI     KI
	AN     uint8 // 0 to 3
	Tx, Rx bool
	LowPN  uint32
}

// DistributedSAK is a SAK under way from the key server. One without wrapped
// key says that there is to be no MACsec.
type DistributedSAK struct {
	AN              uint8 // 0 to 3
	Confidentiality macsec.Confidentiality
	KN              uint32
	Suite           uint64 // its identifier; see macsec.SuiteByID
	Wrapped         []byte
}

// DistributedCAK is a group CAK under way. Its wrapped part is as long as the
// CAK at hand is, which only who has it can tell: Body has both, key and CKN.
type DistributedCAK struct{ Body []byte }

// SuiteCapability is an entry of a MACsec Cipher Suites TLV (§11.12.3).
type SuiteCapability struct {
	Suite      uint64 // its identifier
	Capability Capability
}

// XPN has the upper halves of SAKUse's packet numbers (§11.11.1, figure 11-16),
// and for how many seconds the station's control plane is away (§9.18).
type XPN struct {
	Suspension          uint8
	LatestHigh, OldHigh uint32
}

// ParseMKPDU reads an Ethernet frame. What it says is not to be trusted before
// Verify. Parameter sets of unknown types are passed over (§11.11.3).
func ParseMKPDU(frame []byte) (*MKPDU, error) {
	if len(frame) < ethLen+eapolLen {
		return nil, fmt.Errorf("EAPOL frame of %d octets: want %d at least", len(frame), ethLen+eapolLen)
	}
	p := &MKPDU{EAPOLVersion: frame[ethLen]}
	copy(p.Dst[:], frame)
	copy(p.Src[:], frame[6:])
	if t := binary.BigEndian.Uint16(frame[12:]); t != EtherType {
		return nil, fmt.Errorf("EtherType %#04x: want %#04x", t, EtherType)
	}
	if t := frame[ethLen+1]; t != eapolMKA {
		return nil, fmt.Errorf("EAPOL packet type %d: want %d, MKA", t, eapolMKA)
	}
	length := int(binary.BigEndian.Uint16(frame[ethLen+2:]))
	body := frame[ethLen+eapolLen:]
	switch {
	case length > len(body):
		return nil, fmt.Errorf("EAPOL body length %d: only %d octets follow", length, len(body))
	case length%4 != 0:
		return nil, fmt.Errorf("MKPDU of %d octets: want a multiple of 4", length)
	case length < 32+icvLen:
		return nil, fmt.Errorf("MKPDU of %d octets: want %d at least", length, 32+icvLen)
	}
	p.icvAt = ethLen + eapolLen + length - icvLen
	rest, err := p.parseBasic(body[:length-icvLen])
	if err != nil {
		return nil, err
	}
	seen := [256]bool{}
	for len(rest) > 0 {
		if len(rest) < setHeader { // cannot be: all lengths are multiples of 4
			return nil, fmt.Errorf("%d octets after the last parameter set", len(rest))
		}
		kind, n := rest[0], int(binary.BigEndian.Uint16(rest[2:])&0xfff)
		if seen[kind] {
			return nil, fmt.Errorf("parameter set %d twice", kind)
		}
		seen[kind] = true
		if kind == setICV {
			// Its body is the ICV, which is set apart already.
			if n != icvLen || len(rest) != setHeader {
				return nil, fmt.Errorf("ICV indicator of %d octets with %d before the ICV: want %d and none", n, len(rest)-setHeader, icvLen)
			}
			p.Indicator = true
			return p, nil
		}
		padded := (n + 3) &^ 3
		if padded > len(rest)-setHeader {
			return nil, fmt.Errorf("parameter set %d of %d octets: only %d follow", kind, n, len(rest)-setHeader)
		}
		if err := p.parseSet(kind, rest[1], rest[2], rest[setHeader:setHeader+n]); err != nil {
			return nil, err
		}
		rest = rest[setHeader+padded:]
	}
	return p, nil
}

// parseBasic reads the basic parameter set (figure 11-8) and returns what
// follows it. There are 32 octets at least.
func (p *MKPDU) parseBasic(b []byte) (rest []byte, err error) {
	n := int(binary.BigEndian.Uint16(b[2:]) & 0xfff)
	padded := (n + 3) &^ 3
	switch ckn := n - basicFixed; {
	case ckn < 1 || ckn > 32:
		return nil, fmt.Errorf("CKN of %d octets: want 1 to 32", ckn)
	case padded > len(b)-setHeader:
		return nil, fmt.Errorf("basic parameter set of %d octets: only %d follow", n, len(b)-setHeader)
	}
	p.Version, p.Priority = b[0], b[1]
	p.KeyServer, p.Desired, p.Capability = b[2]&0x80 != 0, b[2]&0x40 != 0, Capability(b[2]>>4&3)
	p.SCI = macsec.SCI(binary.BigEndian.Uint64(b[4:]))
	p.Member = parsePeer(b[12:])
	p.Agility = binary.BigEndian.Uint32(b[28:])
	p.CKN = b[32 : setHeader+n : setHeader+n]
	return b[setHeader+padded:], nil
}

func parsePeer(b []byte) (id PeerID) {
	copy(id.MI[:], b)
	id.MN = binary.BigEndian.Uint32(b[12:])
	return id
}

// parseSet reads the body b of a parameter set; b1 and b2 are what else its
// header says.
func (p *MKPDU) parseSet(kind, b1, b2 uint8, b []byte) error {
	switch kind {
	case setLive, setPotential:
		if len(b)%peerLen != 0 {
			return fmt.Errorf("peer list of %d octets: want a multiple of %d", len(b), peerLen)
		}
		list := make([]PeerID, 0, len(b)/peerLen)
		for ; len(b) > 0; b = b[peerLen:] {
			list = append(list, parsePeer(b))
		}
		if kind == setLive {
			p.Live, p.ServerSSCI = list, b1
		} else {
			p.Potential = list
		}
	case setSAKUse:
		return p.parseSAKUse(b1, b2, b)
	case setDistSAK:
		return p.parseDistSAK(b1, b)
	case setDistCAK:
		if len(b) < 16+wrapOverhead+1 {
			return fmt.Errorf("distributed CAK of %d octets: want %d at least", len(b), 16+wrapOverhead+1)
		}
		p.DistCAK = &DistributedCAK{b}
	case setKMD:
		if len(b) > 253 {
			return fmt.Errorf("KMD of %d octets: want 253 at most", len(b))
		}
		p.KMD = b
	case setAnnouncement:
		return p.parseAnnouncement(b)
	case setXPN:
		if len(b) != 8 {
			return fmt.Errorf("XPN parameter set of %d octets: want 8", len(b))
		}
		p.XPN = &XPN{b1, binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	}
	return nil
}

// parseSAKUse reads figure 11-10. An empty one says that no SAK is in use.
func (p *MKPDU) parseSAKUse(b1, b2 uint8, b []byte) error {
	u := &SAKUse{PlainTx: b2&0x80 != 0, PlainRx: b2&0x40 != 0, DelayProtect: b2&0x10 != 0}
	switch len(b) {
	case 0:
	case sakUseLen:
		u.Latest = parseKeyUse(b1>>4, b)
		u.Old = parseKeyUse(b1&0xf, b[20:])
	default:
		return fmt.Errorf("SAK use of %d octets: want %d or none", len(b), sakUseLen)
	}
	p.SAKUse = u
	return nil
}

func parseKeyUse(flags uint8, b []byte) KeyUse {
	id := parsePeer(b)
	return KeyUse{
		KI: KI{id.MI, id.MN}, AN: flags >> 2, Tx: flags&2 != 0, Rx: flags&1 != 0,
		LowPN: binary.BigEndian.Uint32(b[16:]),
	}
}

// parseDistSAK reads figures 11-11 and 11-12: GCM-AES-128 goes without its
// name.
func (p *MKPDU) parseDistSAK(b1 uint8, b []byte) error {
	d := &DistributedSAK{AN: b1 >> 6, Confidentiality: macsec.Confidentiality(b1 >> 4 & 3), Suite: macsec.GCMAES128.ID()}
	switch len(b) {
	case 0:
	case 4 + 16 + wrapOverhead:
		d.KN, d.Wrapped = binary.BigEndian.Uint32(b), b[4:]
	case 12 + 16 + wrapOverhead, 12 + 32 + wrapOverhead:
		d.KN, d.Wrapped = binary.BigEndian.Uint32(b), b[12:]
		d.Suite = binary.BigEndian.Uint64(b[4:])
		if s, ok := macsec.SuiteByID(d.Suite); ok && s.KeyLen()+wrapOverhead != len(d.Wrapped) {
			return fmt.Errorf("wrapped SAK of %d octets: %s takes %d", len(d.Wrapped), s, s.KeyLen()+wrapOverhead)
		}
	default:
		return fmt.Errorf("distributed SAK of %d octets: want 0, 28, 36 or 52", len(b))
	}
	p.DistSAK = d
	return nil
}

const tlvCipherSuites = 112 // table 11-8

// parseAnnouncement reads the TLVs of an announcement (§11.12): a type of seven
// bits, a length of nine.
func (p *MKPDU) parseAnnouncement(b []byte) error {
	for len(b) > 0 {
		if len(b) < 2 {
			return fmt.Errorf("announcement: %d octets after the last TLV", len(b))
		}
		kind, n := b[0]>>1, int(binary.BigEndian.Uint16(b)&0x1ff)
		if n > len(b)-2 {
			return fmt.Errorf("announcement: TLV %d of %d octets: only %d follow", kind, n, len(b)-2)
		}
		v := b[2 : 2+n]
		b = b[2+n:]
		if kind != tlvCipherSuites {
			continue
		}
		if n%10 != 0 {
			return fmt.Errorf("cipher suites TLV of %d octets: want a multiple of 10", n)
		}
		for ; len(v) > 0; v = v[10:] {
			p.Suites = append(p.Suites, SuiteCapability{binary.BigEndian.Uint64(v[2:]), Capability(v[1] & 3)})
		}
	}
	return nil
}

// Verify reports whether the ICV of the frame that p was parsed from holds
// under ick (§9.4.1): AES-CMAC over all from the destination address on.
func (p *MKPDU) Verify(frame, ick []byte) bool {
	mac := cmac(ick, frame[:p.icvAt])
	return subtle.ConstantTimeCompare(mac[:], frame[p.icvAt:p.icvAt+icvLen]) == 1
}

// Append appends p's frame, signed with ick, to b. Peers beyond what an MTU of
// 1500 holds are an error.
func (p *MKPDU) Append(b, ick []byte) ([]byte, error) {
	if n := len(p.CKN); n < 1 || n > 32 {
		return nil, fmt.Errorf("CKN of %d octets: want 1 to 32", n)
	}
	start := len(b)
	b = append(b, p.Dst[:]...)
	b = append(b, p.Src[:]...)
	b = binary.BigEndian.AppendUint16(b, EtherType)
	b = append(b, p.EAPOLVersion, eapolMKA, 0, 0)
	b = p.appendBasic(b)
	if len(p.Live) > 0 {
		b = appendPeers(b, setLive, p.ServerSSCI, p.Live)
	}
	if len(p.Potential) > 0 {
		b = appendPeers(b, setPotential, 0, p.Potential)
	}
	if p.SAKUse != nil {
		b = p.SAKUse.append(b)
	}
	if p.DistSAK != nil {
		b = p.DistSAK.append(b)
	}
	if p.DistCAK != nil {
		b = appendSet(b, setDistCAK, 0, 0, p.DistCAK.Body)
	}
	if len(p.KMD) > 0 {
		b = appendSet(b, setKMD, 0, 0, p.KMD)
	}
	if len(p.Suites) > 0 {
		b = appendSet(b, setAnnouncement, 0, 0, appendSuites(nil, p.Suites))
	}
	if p.XPN != nil {
		body := binary.BigEndian.AppendUint32(nil, p.XPN.LatestHigh)
		b = appendSet(b, setXPN, p.XPN.Suspension, 0, binary.BigEndian.AppendUint32(body, p.XPN.OldHigh))
	}
	if p.Indicator {
		b = append(b, setICV, 0, 0, icvLen)
	}
	length := len(b) - start - ethLen - eapolLen + icvLen
	if length > maxBody {
		return nil, fmt.Errorf("MKPDU of %d octets: want %d at most", length, maxBody)
	}
	binary.BigEndian.PutUint16(b[start+ethLen+2:], uint16(length))
	mac := cmac(ick, b[start:])
	return append(b, mac[:]...), nil
}

func (p *MKPDU) appendBasic(b []byte) []byte {
	flags := uint16(p.Capability&3) << 12
	if p.KeyServer {
		flags |= 0x8000
	}
	if p.Desired {
		flags |= 0x4000
	}
	b = append(b, p.Version, p.Priority)
	b = binary.BigEndian.AppendUint16(b, flags|uint16(basicFixed+len(p.CKN)))
	b = binary.BigEndian.AppendUint64(b, uint64(p.SCI))
	b = appendPeer(b, p.Member)
	b = binary.BigEndian.AppendUint32(b, p.Agility)
	return pad(append(b, p.CKN...), len(p.CKN))
}

func appendPeer(b []byte, id PeerID) []byte {
	return binary.BigEndian.AppendUint32(append(b, id.MI[:]...), id.MN)
}

// appendSet appends a parameter set whose header has b1 in its second octet
// and b2, its four upper bits, in the third.
func appendSet(b []byte, kind, b1, b2 uint8, body []byte) []byte {
	b = append(b, kind, b1)
	b = binary.BigEndian.AppendUint16(b, uint16(b2)<<8|uint16(len(body)))
	return pad(append(b, body...), len(body))
}

// pad appends zeros after n octets up to a multiple of 4.
func pad(b []byte, n int) []byte { return append(b, make([]byte, -n&3)...) }

func appendPeers(b []byte, kind, b1 uint8, list []PeerID) []byte {
	var body []byte
	for _, id := range list {
		body = appendPeer(body, id)
	}
	return appendSet(b, kind, b1, 0, body)
}

func (u *SAKUse) append(b []byte) []byte {
	var b2 uint8
	for _, f := range []struct {
		set bool
		bit uint8
	}{{u.PlainTx, 0x80}, {u.PlainRx, 0x40}, {u.DelayProtect, 0x10}} {
		if f.set {
			b2 |= f.bit
		}
	}
	body := u.Old.append(u.Latest.append(nil))
	return appendSet(b, setSAKUse, u.Latest.flags()<<4|u.Old.flags(), b2, body)
}

func (k *KeyUse) flags() uint8 {
	f := k.AN & 3 << 2
	if k.Tx {
		f |= 2
	}
	if k.Rx {
		f |= 1
	}
	return f
}

func (k *KeyUse) append(b []byte) []byte {
	b = appendPeer(b, PeerID{k.KI.Server, k.KI.Number})
	return binary.BigEndian.AppendUint32(b, k.LowPN)
}

func (d *DistributedSAK) append(b []byte) []byte {
	if len(d.Wrapped) == 0 {
		return appendSet(b, setDistSAK, 0, 0, nil)
	}
	body := binary.BigEndian.AppendUint32(nil, d.KN)
	if d.Suite != macsec.GCMAES128.ID() {
		body = binary.BigEndian.AppendUint64(body, d.Suite)
	}
	return appendSet(b, setDistSAK, d.AN&3<<6|uint8(d.Confidentiality&3)<<4, 0, append(body, d.Wrapped...))
}

func appendSuites(b []byte, suites []SuiteCapability) []byte {
	b = binary.BigEndian.AppendUint16(b, tlvCipherSuites<<9|uint16(10*len(suites)))
	for _, s := range suites {
		b = append(b, 0, uint8(s.Capability&3))
		b = binary.BigEndian.AppendUint64(b, s.Suite)
	}
	return b
}

// lists returns the message number that p's peer lists have of member mi.
func (p *MKPDU) lists(mi MI) (mn uint32, ok bool) {
	for _, list := range [][]PeerID{p.Live, p.Potential} {
		if i := slices.IndexFunc(list, func(id PeerID) bool { return id.MI == mi }); i >= 0 {
			return list[i].MN, true
		}
	}
	return 0, false
}
