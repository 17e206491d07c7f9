package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A userspace router cannot do without copying a superframe twice, in and out. How
// much a core can copy so, and do nothing else, is what its Gb/s per core are
// measured by.
const (
	copySuperframe = 64 << 10
	// copyNear and copyCold are how much memory the frames come from, and as much they go
	// to, in turn: what a flow or two have on their way, more than a core's own caches
	// hold, and so much that it is in no near cache.
	copyNear, copyCold = 4 << 20, 64 << 20
	// copyHot is how many buffers they pass, used in turn too.
	copyHot = 8
	// copyTime is how long it is measured.
	copyTime = 100 * time.Millisecond
)

// copies copies superframes from some memory through hot buffers into other memory.
type copies struct {
	from, to []byte
	hot      [copyHot][copySuperframe]byte
	next     int
}

// newCopies returns some of so many octets of memory, whole superframes. It is there:
// nothing is paged in when it is used.
func newCopies(octets int) *copies {
	c := &copies{from: make([]byte, octets), to: make([]byte, octets)}
	for i := range c.from {
		c.from[i] = byte(i >> 12)
		c.to[i] = 1
	}
	return c
}

// one passes one superframe on.
func (c *copies) one() {
	at := c.next * copySuperframe
	hot := &c.hot[c.next%copyHot]
	copy(hot[:], c.from[at:])
	copy(c.to[at:at+copySuperframe], hot[:])
	c.next = (c.next + 1) % (len(c.from) / copySuperframe)
}

// copyBound measures how many Gb of superframes a core copies in and out, from and to
// so many octets of memory, per second of its time.
func copyBound(memory int) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCopies(memory)
	octets, began := 0, threadTime()
	for {
		for range 16 {
			c.one()
			octets += copySuperframe
		}
		if took := threadTime() - began; took >= copyTime {
			return float64(octets) * 8 / 1e9 / took.Seconds()
		}
	}
}

// threadTime is the CPU time that the calling thread has had.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // not on Linux
	}
	return time.Duration(ts.Nano())
}
