// Package macsec is the MAC Security Entity (SecY) of IEEE 802.1AE-2018: it
// seals the frames a port sends and opens those it receives, with all four GCM
// cipher suites, and counts what became of each under the standard's names.
//
// It does no I/O and knows no clock. Who has the keys tells it: the KaY
// (package macsec/mka), or a configuration with static keys. What it decides
// by itself is what must not depend on anybody: that no packet number is used
// twice with a key, and that a receive window moves only for frames whose ICV
// held.
//
// Two locks, one per direction, make it safe: a worker takes LockTransmit or
// LockReceive once for a batch of Seal or Open, every other method takes the
// ones it needs itself. A key is wiped under the lock, so never in use.
//
// Left out: frames with tags in the clear, ICVs other than of 16 octets, and
// traffic-class dependent transmit SCs (802.1AE-2018 §10.7.17).
package macsec
