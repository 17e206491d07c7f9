// Package vlan is the 802.1Q tag: reading one or two of them off a frame, and
// composing the Ethernet header in front of a packet (IEEE 802.1Q-2022 §9).
//
// Azure uses EtherType 0x8100 for both tags of QinQ; 802.1ad's 0x88a8 for the
// outer tag is a port's setting.
package vlan

import "encoding/binary"

// EtherTypes of a tag (its TPID).
const (
	TPIDQ  = 0x8100 // 802.1Q C-tag; Azure's S-tag too
	TPIDAD = 0x88a8 // 802.1ad S-tag
)

// TagLen is the length of a tag in octets.
const TagLen = 4

// EthLen is the length of an untagged Ethernet header.
const EthLen = 14

// MaxHeaderLen is the length of an Ethernet header with two tags.
const MaxHeaderLen = EthLen + 2*TagLen

// Stack is the tags in front of a frame's payload: two at most, however many
// there are.
type Stack struct {
	OuterTPID uint16 // of the first tag, 0 if untagged
	Outer     uint16 // VLAN identifier of the first tag, 0 if untagged
	Inner     uint16 // VLAN identifier of the second tag, 0 if there is none
}

// Parse reads the Ethernet header of b: the tags, the EtherType behind them
// (still a TPID if there are more than two tags), and its length in b, octets.
// hiddenTPID and hiddenTCI are an outer tag that the device took off and keeps
// beside the frame; hiddenTPID is 0 if there is none. A priority tag, of VLAN 0,
// is no tag (802.1Q-2022 §6.9). The length is 0 if b is too short for what it
// announces.
func Parse(b []byte, hiddenTPID, hiddenTCI uint16) (s Stack, etherType uint16, length int) {
	if len(b) < EthLen {
		return s, 0, 0
	}
	etherType, length = binary.BigEndian.Uint16(b[12:]), EthLen
	if id := vid(hiddenTCI); hiddenTPID != 0 && id != 0 {
		s.OuterTPID, s.Outer = hiddenTPID, id
	}
	for s.Inner == 0 && isTPID(etherType) {
		if len(b) < length+TagLen {
			return s, etherType, 0
		}
		switch id := vid(binary.BigEndian.Uint16(b[length:])); {
		case id == 0:
		case s.Outer == 0:
			s.OuterTPID, s.Outer = etherType, id
		default:
			s.Inner = id
		}
		etherType = binary.BigEndian.Uint16(b[length+2:])
		length += TagLen
	}
	return s, etherType, length
}

func isTPID(etherType uint16) bool { return etherType == TPIDQ || etherType == TPIDAD }

// vid takes the 12-bit VLAN identifier out of a TCI (802.1Q-2022 §9.6).
func vid(tci uint16) uint16 { return tci & 0x0fff }

// Room is how many octets in front of a payload Header.Put writes.
const Room = 24

// Header is a composed Ethernet header up to, but without, the EtherType of
// the payload.
type Header struct {
	b   [Room]byte // it and two octets for the EtherType are the last of these
	len int
}

// NewHeader composes the header of frames from src to dst: untagged if outer
// is 0, one tag of EtherType tpid if inner is 0, two otherwise (the inner one
// always a C-tag).
func NewHeader(dst, src [6]byte, tpid, outer, inner uint16) Header {
	b := append(append(make([]byte, 0, MaxHeaderLen), dst[:]...), src[:]...)
	if outer != 0 {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, tpid), outer)
	}
	if inner != 0 {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, TPIDQ), inner)
	}
	h := Header{len: len(b)}
	copy(h.b[Room-2-h.len:], b)
	return h
}

// Len returns the length of the header with its EtherType, in octets.
func (h *Header) Len() int { return h.len + 2 }

// Dst returns the address that frames go to.
func (h *Header) Dst() [6]byte { return [6]byte(h.b[Room-2-h.len:]) }

// Put writes the header and etherType so that they end where the payload
// begins, at b[payload], and returns where they begin. Room octets in front of
// payload must be there, and are not what they were: moves of constant size compile
// to a few loads and stores.
func (h *Header) Put(b []byte, payload int, etherType uint16) int {
	h.PutFront((*[Room]byte)(b[payload-Room:]), etherType)
	return payload - h.Len()
}

// PutFront is Put in the octets in front of the payload. (Inlined.)
func (h *Header) PutFront(front *[Room]byte, etherType uint16) {
	*front = h.b
	binary.BigEndian.PutUint16(front[Room-2:], etherType)
}
