package dataplane

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// flowTable remembers flows, so many at most. Any number of workers use it without
// a lock, and nothing is allocated after it was made.
//
// A flow is a word: 48 bits of its hash, and the second it was last seen, modulo
// 2^16. It stands in one of the lines of eight words, each a line of the cache, that
// begin where the other bits of its hash say; nearly always in the first, as a
// quarter of the words is used at most. The hash is salted: nobody finds two flows
// that count as one, but by chance, of which there is next to none in 2^64.
//
// Two workers that meet a new flow at the same time might enter it twice, if a word
// before becomes free just then. It counts twice then, until it is idle.
type flowTable struct {
	lines []flowLine
	salt  [2]uint64
	limit int64
	idle  uint16 // seconds
	used  atomic.Int64
}

type flowLine [8]atomic.Uint64

// flowWindow is how many lines a flow may stand in.
const flowWindow = 4

// newFlowTable returns one for so many flows, which are forgotten once they have been
// idle for that long, and a sweep has come by; less than an hour.
func newFlowTable(limit int, idle time.Duration) *flowTable {
	lines := max(flowWindow, 1<<bits.Len(uint(limit-1)/2)) // of eight words each: four to eight times limit
	return &flowTable{lines: make([]flowLine, lines), salt: [2]uint64{rand.Uint64(), rand.Uint64()}, limit: int64(limit), idle: uint16(idle / time.Second)}
}

// take notes a packet of a flow at time now. It reports false if the flow is new and
// there is no room for it.
func (t *flowTable) take(hash uint64, now time.Duration) bool {
	tag := max(hash>>16, 1) << 16
	word := tag | uint64(uint16(now/time.Second))
	first := uint32(hash) & uint32(len(t.lines)-1)
	reserved := false // one more is counted
	for {
		slot, old := t.find(first, tag)
		switch {
		case old != 0:
			if old == word || slot.CompareAndSwap(old, word) {
				t.giveBack(reserved)
				return true
			}
		case slot == nil:
			t.giveBack(reserved)
			return false
		case !reserved && t.used.Load() >= t.limit: // asked first: a flood of new flows does not write to what all share
			return false
		case !reserved && t.used.Add(1) > t.limit:
			t.giveBack(true)
			return false
		default:
			if reserved = true; slot.CompareAndSwap(0, word) {
				return true
			}
		}
		// Another worker has changed the word: perhaps for this flow.
	}
}

func (t *flowTable) giveBack(reserved bool) {
	if reserved {
		t.used.Add(-1)
	}
}

// find returns the word of a flow and what it holds, or else a free one; nil if
// there is neither.
func (t *flowTable) find(first uint32, tag uint64) (free *atomic.Uint64, old uint64) {
	for i := range uint32(flowWindow) {
		line := &t.lines[(first+i)&uint32(len(t.lines)-1)]
		for k := range line {
			w := line[k].Load()
			if w&^0xffff == tag {
				return &line[k], w
			}
			if w == 0 && free == nil {
				free = &line[k]
			}
		}
	}
	return free, 0
}

// sweep forgets the flows that are idle at time now. It looks at all words.
func (t *flowTable) sweep(now time.Duration) {
	if t.used.Load() == 0 {
		return
	}
	second := uint16(now / time.Second)
	for i := range t.lines {
		for k := range t.lines[i] {
			slot := &t.lines[i][k]
			// A worker may be a second ahead of us.
			if w := slot.Load(); w != 0 && int16(second-uint16(w)) > int16(t.idle) && slot.CompareAndSwap(w, 0) {
				t.used.Add(-1)
			}
		}
	}
}

// flowID is a flow's hash: its addresses, protocol and, of TCP and UDP, ports. The
// packet is no fragment. Of IPv6 both factors are salted: an address that makes one of
// them 0 would make the other void.
func flowID(p []byte, v6 bool, salt [2]uint64) uint64 {
	proto, l4 := p[9], int(p[0]&0x0f)*4
	h := salt[0]
	if v6 {
		h = mix(binary.LittleEndian.Uint64(p[8:])^h, binary.LittleEndian.Uint64(p[16:])^salt[1])
		h = mix(binary.LittleEndian.Uint64(p[24:])^h, binary.LittleEndian.Uint64(p[32:])^salt[1])
		proto, l4, _ = upperLayer6(p)
	} else {
		h ^= binary.LittleEndian.Uint64(p[12:])
	}
	ports := uint64(0)
	if (proto == protoTCP || proto == protoUDP) && len(p) >= l4+4 {
		ports = uint64(binary.LittleEndian.Uint32(p[l4:]))
	}
	return mix(h, ports<<8|uint64(proto))
}
