package mka

import "msee/macsec"

// Action is what a KaY wants done: Send, Install, Transmit, Remove, RemovePeer
// or Log.
type Action interface{ action() }

// Send is an Ethernet frame to send, in the clear.
type Send struct{ Frame []byte }

// Install has a SAK received from these stations, and made ready to be sent
// with from packet number 1 on. It takes the place of what the AN had. Key is
// the receiver's to wipe.
type Install struct {
	KI              KI
	AN              uint8
	Suite           macsec.CipherSuite
	Confidentiality macsec.Confidentiality
	Key             []byte
	Salt            [12]byte // XPN only
	SSCI            uint32   // of this station; XPN only
	Receivers       []Receiver
}

// Receiver is a station whose frames are received: one receive SC.
type Receiver struct {
	SCI  macsec.SCI
	SSCI uint32 // XPN only
}

// Transmit has the SAK of an AN, installed before, used for all frames from
// now on.
type Transmit struct {
	KI KI
	AN uint8
}

// Remove takes a SAK away, in both directions.
type Remove struct {
	KI KI
	AN uint8
}

// RemovePeer takes the receive SC of a station away, if there is one.
type RemovePeer struct{ SCI macsec.SCI }

// Log is something that people may want to know.
type Log struct{ Event Event }

func (Send) action()       {}
func (Install) action()    {}
func (Transmit) action()   {}
func (Remove) action()     {}
func (RemovePeer) action() {}
func (Log) action()        {}
