// Package config turns a configuration file into the desired state of one
// device: file → checked model → Device, and the difference of two Devices.
//
// There are two kinds of file, told apart by their top-level keys: one with
// "device" describes an MSEE, one with "virtualNetworkGateway" an instance of a
// VNet's gateway. Keys are those of the Azure resource model; docs/configuration.md
// lists them.
//
// Reading is strict: what is not understood is refused, never guessed or
// ignored, and all faults of a file are reported at once, each with its line,
// its column and what would be right. YAML is used as a plain tree: anchors,
// aliases, merge keys, explicit tags and several documents are refused. The
// value of a sharedKey appears in no message and no Change.
//
// The rules on single values are in package circuit; those between values
// (clashes, references, overlaps) are here. Parse is a pure function; only Load
// touches the disk.
package config
