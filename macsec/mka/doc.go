// Package mka is the MACsec Key Agreement Entity (KaY) of IEEE 802.1X-2020: it
// finds out who on the link holds the same CAK, who of them is key server, and
// sees that all have the SAK before any sends with it.
//
// It does no I/O and knows no clock. Frames and the time go in; actions come
// out, in the order in which they must be done: frames to send, SAKs to
// install in the SecY, the SAK to send with, SAKs to remove. See KaY.
//
// A port may hold several CAKs at once (primary and fallback, or a key chain).
// Each is a participant of its own, with its own peers and key server; one of
// them, the principal, provides the SAKs. The SAKs belong to the port: when
// another participant becomes principal they stay in use until it has
// distributed the next one, so no frame is lost over a change of CAK.
//
// Left out: EAP-derived CAKs and group CAKs (Distributed CAK parameter sets are
// read, and told in the journal, but not followed), and plain traffic: where
// 802.1X lets a port work without MACsec, this one waits.
package mka
