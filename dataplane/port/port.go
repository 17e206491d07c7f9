// Package port is frame I/O: it moves batches of Ethernet frames between the
// dataplane and a device, and knows nothing of what is in them.
//
// Kinds: packet (AF_PACKET rings, for veth and real NICs), xdp (AF_XDP, for small
// frames), tap (TUN/TAP with virtio-net headers) and pair (an in-memory cable,
// for tests).
//
// Every kind carries a GSO superframe (up to 64 KiB) whole, with its
// virtio-net header beside it, in both directions; but to xdp none comes.
//
// A Port belongs to one worker: Recv and Release are called from that worker
// only. Any worker may transmit on any port, each through a Sender of its own,
// so nothing here is shared and nothing is locked.
package port

// Headroom is the number of bytes free in front of every received frame, so
// that the dataplane can grow the headers in place (tags, SecTAG, VXLAN)
// without moving the payload.
const Headroom = 128

// MaxFrame is the longest frame a port carries: a 64 KiB IP packet behind an
// Ethernet header with two tags.
const MaxFrame = 65535 + 14 + 8

// BatchSize is the largest number of frames a worker takes at once.
const BatchSize = 256

// VNetHdr is the virtio-net header that travels with a frame
// (VIRTIO 1.2 §5.1.6). Offsets count from the first byte of the frame as it is
// in Frame.Bytes: a port that hides a tag hides it here too.
type VNetHdr struct {
	Flags      uint8  // VNetNeedsCsum, VNetDataValid
	GSOType    uint8  // GSONone, GSOTCPv4, …; the ECN bit may be set on top
	HdrLen     uint16 // Ethernet + IP + TCP/UDP header length of a superframe; a hint on receive
	GSOSize    uint16 // payload octets per segment of a superframe
	CsumStart  uint16 // with VNetNeedsCsum: where the checksum's coverage begins
	CsumOffset uint16 // with VNetNeedsCsum: where, from CsumStart, the checksum stands
}

// Flags and GSO types of a VNetHdr, as <linux/virtio_net.h> numbers them.
const (
	VNetNeedsCsum = 1
	VNetDataValid = 2

	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // UFO, legacy
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80
)

// VNetHdrLen is the length of the header on the wire between kernel and us.
const VNetHdrLen = 10

// Frame describes one frame, in one line of the cache. The memory belongs to the port that received it,
// from Recv to the next Release; a Sender has copied it when Send returns.
type Frame struct {
	Buf        []byte // the memory around the frame
	Start, End int    // the frame is Buf[Start:End]
	VNet       VNetHdr
	// OuterTPID and OuterTCI are the outer 802.1Q tag if the device keeps it
	// out of band (AF_PACKET hides it in the ring's metadata); OuterTPID is 0
	// if there is none. On Send all tags are inline and these are ignored.
	OuterTPID, OuterTCI uint16
	// Truncated says that the frame was longer than the port could hold, and
	// that Bytes is only its beginning.
	Truncated bool
	// Inner is where in Buf the inner IP packet of a frame begins that we send
	// into a VXLAN tunnel; 0 of any other. VNet speaks of the inner packet then.
	Inner int
}

// Bytes returns the frame.
func (f *Frame) Bytes() []byte { return f.Buf[f.Start:f.End] }

// Len returns the frame's length in octets.
func (f *Frame) Len() int { return f.End - f.Start }

// MAC is an Ethernet address.
type MAC [6]byte

// Port receives frames from one device.
type Port interface {
	// Name is the device's name, for messages.
	Name() string
	// MAC is the device's own address.
	MAC() MAC
	// FD is a descriptor that polls readable when frames wait; -1 if the port
	// must be polled (a pair without wake-up).
	FD() int
	// Recv fills batch with frames that wait and returns how many; 0 at once
	// if none does. It must not be called again before Release; but see Keeper.
	Recv(batch []Frame) (int, error)
	// Release gives all frames back to the device.
	Release()
	// NewSender opens a transmit handle for one worker.
	NewSender() (Sender, error)
	// Stats returns what the device counted; safe from any goroutine.
	Stats() Stats
	// Close closes the device; the worker must have stopped.
	Close() error
}

// Leaver is a Port whose Recv may fill less of a batch than it could, and leave frames.
type Leaver interface {
	// More reports whether the last Recv may have left frames that it had room for.
	More() bool
}

// Keeper is a Port whose frames may be kept while it is asked for more: Recv may be
// called again before Release, and goes on behind them.
type Keeper interface {
	Leaver
	// ReleaseOldest gives those n frames back that have been out for longest.
	ReleaseOldest(n int)
}

// Sender transmits on one port for one worker.
type Sender interface {
	// Send transmits the frames in order, in as few system calls as it can.
	// It returns how many left; the others were dropped (queue full, device
	// down, too long) and are the caller's to count. err is the first
	// error that is not a full queue. Frames must have at least VNetHdrLen
	// octets free in front of Start; Send may overwrite them.
	Send(frames []*Frame) (sent int, err error)
	Close() error
}

// Burster is a Sender that may send bursts of small frames for less.
type Burster interface {
	// WhySingly says what keeps it from that where the device and the kernel could; nil is
	// nothing.
	WhySingly() error
}

// Tunneler is a Sender that may take superframes in tunnels (see Frame.Inner)
// whole. All others must be given the frames they stand for.
type Tunneler interface {
	// OpenTunnels makes ready for it. The error says why it cannot be.
	OpenTunnels() error
	// TakesTunnelled reports whether it takes this one.
	TakesTunnelled(*Frame) bool
}

// Stats are a port's counters since it was opened.
type Stats struct {
	// RxDropped counts frames the kernel dropped because the ring was full.
	RxDropped uint64 `json:"rxDropped"`
}
