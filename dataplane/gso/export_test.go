package gso

import (
	"math/rand/v2"

	"msee/dataplane/port"
)

// What the tests against the kernel use of the others.

type Shape = shape

func RandomShape(r *rand.Rand) Shape { return randomShape(r) }

func (s shape) Build(r *rand.Rand) *port.Frame { return s.build(r) }
func (s shape) L3() int                        { return s.l3() }
func (s shape) Payload() int                   { return s.payload }

// TCP is the shape as a TCP sender makes one that GRO may see whole: of the
// usual segments, and without CWR, on which kernels differ.
func (s shape) TCP() Shape {
	s.udp, s.size, s.payload = false, 1400, 5*1400+s.payload%20000
	s.flags = s.flags&^tcpCWR | 0x10
	return s
}
