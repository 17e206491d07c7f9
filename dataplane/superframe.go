package dataplane

import "msee/dataplane/port"

// What the pipeline must know of a GSO superframe: what its segments will be.

// rewriteSuperframe checks a GSO superframe's segments against the MTU (never
// its own length) and sets what the kernel needs to segment it: HdrLen exactly
// the headers, as the kernel makes that much of the frame linear.
func rewriteSuperframe(p *packet, ethLen int) Verdict {
	headers, ok := superframeHeaders(p)
	if !ok {
		return DropMalformed
	}
	if headers+int(p.VNet.GSOSize) > p.out.Out.MTU {
		return DropTooBig
	}
	if p.VNet.Flags&port.VNetNeedsCsum == 0 {
		l4, _ := transportOffset(p)
		startChecksum(p, l4)
	}
	p.VNet.HdrLen = uint16(ethLen + headers)
	return proceed
}

// superframeHeaders returns the length of a superframe's IP and transport
// headers; false if it cannot be one.
func superframeHeaders(p *packet) (int, bool) {
	l4, ok := transportOffset(p)
	if !ok || p.VNet.GSOSize == 0 {
		return 0, false
	}
	headers := l4 - p.l3
	switch p.VNet.GSOType &^ port.GSOECN {
	case port.GSOTCPv4, port.GSOTCPv6:
		if l4+20 > p.End {
			return 0, false
		}
		headers += int(p.Buf[l4+12]>>4) * 4
	default:
		headers += 8 // UDP
	}
	return headers, p.l3+headers <= p.End
}

// transportOffset returns where in Buf the transport header of a superframe
// begins. Where the checksum is left to us it begins there, which spares
// walking IPv6 extension headers.
func transportOffset(p *packet) (int, bool) {
	l4 := p.l3 + int(p.headerLen)
	if p.VNet.Flags&port.VNetNeedsCsum != 0 {
		l4 = p.Start + int(p.VNet.CsumStart)
	} else if p.v6 && p.Buf[p.l3+6] != protoTCP && p.Buf[p.l3+6] != protoUDP {
		return 0, false // coalesced by a NIC that also verified it: never with extension headers
	}
	return l4, l4 >= p.l3+int(p.headerLen) && l4+8 <= p.End
}

// segments is how many packets a frame is on the wire.
func segments(p *packet) uint64 {
	if p.VNet.GSOType == port.GSONone {
		return 1
	}
	_, n := superframeShape(p)
	return uint64(n)
}

// superframeOctets is what a superframe's segments are long together: all of them
// have its headers.
func superframeOctets(p *packet) int32 {
	headers, n := superframeShape(p)
	return int32(p.End - p.l3 + (n-1)*headers)
}

// superframeShape returns the length of a superframe's IP and transport headers, and
// how many segments it makes. rewrite has seen that it is one.
func superframeShape(p *packet) (headers, segments int) {
	headers, _ = superframeHeaders(p)
	size := int(p.VNet.GSOSize)
	return headers, max(1, (p.End-p.l3-headers+size-1)/size)
}
