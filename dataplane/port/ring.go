package port

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rxRing is a TPACKET_V2 receive ring: slots of one size, which the kernel
// fills in order and hands over one by one through the status word. V3 packs
// frames tighter but holds a block back until it is full or a timer fires,
// which costs a ping 1 to 2 ms.
type rxRing struct {
	mem    []byte
	stride int // size of a slot
	slots  []*unix.Tpacket2Hdr
	next   int         // the slot Recv looks at first
	held   int         // slots from next on that Recv gave out
	more   bool        // the last take has left some that it could have taken
	long   *longFrames // of those that no slot holds; nil: they are truncated
}

const (
	// slotHdrLen is the part of a slot the kernel keeps for itself: the
	// tpacket2_hdr and the sockaddr_ll behind it.
	slotHdrLen = 64
	// slotMacOff is where a frame begins in its slot. It is a multiple of the
	// cache line, for the copies on both sides, and leaves Headroom free.
	slotMacOff = 256
	// ringReserve makes the kernel begin the frame at slotMacOff. Without
	// reserve it is TPACKET_ALIGN(TPACKET2_HDRLEN + 16) + VNetHdrLen − 14,
	// Ethernet being 14 octets: tpacket_rcv in net/packet/af_packet.c.
	ringReserve = slotMacOff - (80 + VNetHdrLen - 14)
	// slotFrame is the longest frame that a slot holds: an MTU of 1500 with all
	// headers that may be around it.
	slotFrame = 2048 - slotMacOff
	// ringBlock is a physically contiguous piece of the ring. Of a power of
	// two the kernel wastes nothing; of 2 MiB it leaves little over.
	ringBlock = 2 << 20
)

// The offsets above must leave Headroom, or this does not compile.
const _ = uint(slotMacOff - slotHdrLen - Headroom)

// strideFor is the size of a slot for frames of up to n octets, in whole cache
// lines.
func strideFor(n int) int { return (slotMacOff + n + 63) &^ 63 }

// mapRing sets up a ring of at least frames slots, for frames of up to octets,
// on an unbound socket.
func mapRing(fd, frames, octets int) (rxRing, error) {
	stride := strideFor(min(octets, slotFrame))
	perBlock := ringBlock / stride
	blocks := (frames + perBlock - 1) / perBlock
	req := unix.TpacketReq{
		Block_size: ringBlock,
		Block_nr:   uint32(blocks),
		Frame_size: uint32(stride),
		Frame_nr:   uint32(blocks * perBlock),
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return rxRing{}, fmt.Errorf("set PACKET_RX_RING of %d MiB: %w", blocks*ringBlock>>20, err)
	}
	mem, err := unix.Mmap(fd, 0, blocks*ringBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return rxRing{}, fmt.Errorf("map ring: %w", err)
	}
	var long *longFrames
	if octets > slotFrame {
		if long, err = openLong(fd); err != nil {
			unix.Munmap(mem)
			return rxRing{}, err
		}
	}
	r := rxRing{mem: mem, long: long, stride: stride, slots: make([]*unix.Tpacket2Hdr, blocks*perBlock)}
	for i := range r.slots {
		off := i/perBlock*ringBlock + i%perBlock*stride
		r.slots[i] = (*unix.Tpacket2Hdr)(unsafe.Pointer(&mem[off]))
	}
	return r, nil
}

// unmap gives the memory back; frames still pointing into it are invalid.
func (r *rxRing) unmap() error {
	if r.mem == nil {
		return nil
	}
	mem := r.mem
	*r = rxRing{}
	return unix.Munmap(mem)
}

// take fills batch with the slots that are ours now, behind those given out before.
func (r *rxRing) take(batch []Frame) int {
	n, at := 0, r.next+r.held
	r.more = false
	if at >= len(r.slots) {
		at -= len(r.slots)
	}
	for n < len(batch) && r.held+n < len(r.slots) {
		h := r.slots[at]
		status := atomic.LoadUint32(&h.Status) // acquires what the kernel wrote before it
		if status&unix.TP_STATUS_USER == 0 {
			break
		}
		fillFrame(&batch[n], h, status, r.stride)
		if status&unix.TP_STATUS_COPY != 0 && r.long != nil {
			batch[n].End = int(h.Len)
			if !r.long.add(&batch[n]) {
				r.more = true
				break
			}
		}
		n++
		if at++; at == len(r.slots) {
			at = 0
		}
	}
	r.held += n
	if r.long != nil && r.long.used > 0 {
		r.long.read()
	}
	return n
}

// fillFrame describes the frame in the slot of stride octets that begins at h.
func fillFrame(f *Frame, h *unix.Tpacket2Hdr, status uint32, stride int) {
	slot := unsafe.Slice((*byte)(unsafe.Pointer(h)), stride)
	start := int(h.Mac) - slotHdrLen
	f.Buf = slot[slotHdrLen:]
	f.Start, f.End = start, start+int(h.Snaplen)
	f.VNet = DecodeVNetHdr(f.Buf[start-VNetHdrLen:])
	f.Truncated = h.Len > h.Snaplen
	f.OuterTPID, f.OuterTCI = 0, 0
	if status&unix.TP_STATUS_VLAN_VALID != 0 { // a TCI of 0 is a tag too
		f.OuterTPID, f.OuterTCI = 0x8100, h.Vlan_tci
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			f.OuterTPID = h.Vlan_tpid
		}
	}
}

// release returns the n oldest slots that were given out to the kernel, all if there
// are fewer.
func (r *rxRing) release(n int) {
	n = min(n, r.held)
	r.held -= n
	for ; n > 0; n-- {
		status := &r.slots[r.next].Status
		if r.long != nil && atomic.LoadUint32(status)&unix.TP_STATUS_COPY != 0 {
			r.long.giveBack()
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		if r.next++; r.next == len(r.slots) {
			r.next = 0
		}
	}
}
