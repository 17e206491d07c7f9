package dataplane

// Verdict is what became of a frame. Each frame received gets exactly one, and
// the verdict counters add up to the frames received.
type Verdict uint8

const (
	// proceed hands the frame to the next step; it is never counted.
	proceed Verdict = iota

	Transmit   // left through a port
	Fragmented // left through a port in pieces: IPv4 without DF, too big for its MTU

	PuntEAPOL     // to the port's KaY: 802.1X
	LocalBFD      // taken by a BFD session here, or an echo sent back
	PuntARP       // to the kernel: ARP
	PuntLinkLocal // to the kernel: IPv6 link scope (neighbour discovery, ff02::, fe80::)
	PuntLocal     // to the kernel: unicast to one of our addresses (BGP, ICMP)
	PuntGlean     // to the kernel: for a neighbor that it has to find first

	DropRunt            // shorter than its headers
	DropTruncated       // longer than the port could hold
	DropNotForUs        // unicast to another station, or a group packet we do not forward
	DropUnprotected     // in clear on a MACsec port, and not EAPOL
	DropNotValid        // refused by the port's SecY, whose counters say why
	DropEtherType       // neither IPv4, IPv6 nor ARP; or EAPOL where nobody speaks it
	DropUnknownVLAN     // no subinterface has these tags
	DropUnknownVNI      // no subinterface has this VXLAN network identifier
	DropForeignVTEP     // VXLAN from an address that is no tunnel's other end
	DropCongested       // met congestion in a tunnel, and its sender would not understand (RFC 6040)
	DropMalformed       // IP version, header length or total length is wrong
	DropChecksum        // the IPv4 header checksum is wrong
	DropMartian         // a source or destination that must not be routed (RFC 1812 §5.3.7, RFC 4291 §2.5)
	DropForeignNeighbor // ARP or link scope from an address that is on no subnet of the subinterface
	DropSource          // from an address that nothing may come from here
	DropNoRoute         // no route; the sender is told
	DropBlackhole       // the route says discard
	DropUnresolved      // no next hop can be used: down, or its link-layer address not known yet
	DropPoliced         // above the circuit's bandwidth
	DropGatewayFragment // a fragment: a VNet's gateway passes none
	DropGatewayFlows    // of a new flow, and the gateway has all that its SKU allows
	DropGatewayPPS      // above the packets per second of the gateway's SKU
	DropGatewayMbps     // above the bandwidth of the gateway's SKU
	DropTTL             // TTL or hop limit ran out; the sender is told
	DropTooBig          // does not fit the egress MTU; the sender is told
	DropBFD             // for a BFD session, which did not take it; see PortCounters.BFDDiscards
	DropPuntPoliced     // to the kernel or the KaY, but above the punt rate
	DropPuntFailed      // to the kernel or the KaY, but its queue was full or the TAP is gone
	DropEgressFull      // the egress queue had no room
	DropEgressDown      // the egress port is gone
	DropNoKey           // to a MACsec port that has no key to send with
	verdictCount        = iota
)

var verdictNames = [verdictCount]string{
	Transmit:            "transmit",
	Fragmented:          "fragmented",
	PuntEAPOL:           "punt-eapol",
	LocalBFD:            "local-bfd",
	PuntARP:             "punt-arp",
	PuntLinkLocal:       "punt-link-local",
	PuntLocal:           "punt-local",
	PuntGlean:           "punt-glean",
	DropRunt:            "drop-runt",
	DropTruncated:       "drop-truncated",
	DropNotForUs:        "drop-not-for-us",
	DropUnprotected:     "drop-unprotected",
	DropNotValid:        "drop-not-valid",
	DropEtherType:       "drop-ethertype",
	DropUnknownVLAN:     "drop-unknown-vlan",
	DropUnknownVNI:      "drop-unknown-vni",
	DropForeignVTEP:     "drop-foreign-vtep",
	DropCongested:       "drop-congested",
	DropMalformed:       "drop-malformed",
	DropChecksum:        "drop-checksum",
	DropMartian:         "drop-martian",
	DropForeignNeighbor: "drop-foreign-neighbor",
	DropSource:          "drop-source",
	DropNoRoute:         "drop-no-route",
	DropBlackhole:       "drop-blackhole",
	DropUnresolved:      "drop-unresolved",
	DropPoliced:         "drop-policed",
	DropGatewayFragment: "drop-gateway-fragment",
	DropGatewayFlows:    "drop-gateway-flows",
	DropGatewayPPS:      "drop-gateway-pps",
	DropGatewayMbps:     "drop-gateway-bandwidth",
	DropTTL:             "drop-ttl",
	DropTooBig:          "drop-too-big",
	DropBFD:             "drop-bfd",
	DropPuntPoliced:     "drop-punt-policed",
	DropPuntFailed:      "drop-punt-failed",
	DropEgressFull:      "drop-egress-full",
	DropEgressDown:      "drop-egress-down",
	DropNoKey:           "drop-no-key",
}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) && verdictNames[v] != "" {
		return verdictNames[v]
	}
	return "proceed"
}

// Verdicts lists all verdicts in the order of the pipeline.
func Verdicts() []Verdict {
	all := make([]Verdict, 0, verdictCount-1)
	for v := Transmit; v < verdictCount; v++ {
		all = append(all, v)
	}
	return all
}
