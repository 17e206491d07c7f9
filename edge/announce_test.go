package edge

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/dataplane/port"
)

var (
	announcerMAC = port.MAC{2, 0, 0, 0, 0, 5}
	hostMAC      = port.MAC{2, 0, 0, 0, 0, 10}
	taken4       = netip.MustParseAddr("10.100.1.4")
	taken6       = netip.MustParseAddr("fd00:100:0:1::4")
	asker4       = netip.MustParseAddr("10.100.1.10")
	asker6       = netip.MustParseAddr("fd00:100:0:1::10")
)

// layersOf decodes a frame by gopacket, checksums verified.
func layersOf(t *testing.T, b []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%x: %v", b, e.Error())
	}
	if v6, ok := p.NetworkLayer().(*layers.IPv6); ok {
		icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		icmp.SetNetworkLayerForChecksum(v6)
		was := icmp.Checksum
		out := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(icmp.Payload)); err != nil {
			t.Fatal(err)
		}
		if icmp.Checksum != was {
			t.Errorf("checksum %04x, want %04x", was, icmp.Checksum)
		}
	}
	return p
}

func TestAnnouncements(t *testing.T) {
	p := layersOf(t, announcement(announcerMAC, taken4))
	e, a := p.LinkLayer().(*layers.Ethernet), p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if e.DstMAC.String() != "ff:ff:ff:ff:ff:ff" || !bytes.Equal(e.SrcMAC, announcerMAC[:]) {
		t.Errorf("from %v to %v", e.SrcMAC, e.DstMAC)
	}
	if a.Operation != layers.ARPRequest || !net.IP(a.SourceProtAddress).Equal(taken4.AsSlice()) ||
		!net.IP(a.DstProtAddress).Equal(taken4.AsSlice()) || !bytes.Equal(a.SourceHwAddress, announcerMAC[:]) {
		t.Errorf("%+v", a)
	}

	p = layersOf(t, announcement(announcerMAC, taken6))
	e, ip := p.LinkLayer().(*layers.Ethernet), p.NetworkLayer().(*layers.IPv6)
	na := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if e.DstMAC.String() != "33:33:00:00:00:01" || ip.DstIP.String() != "ff02::1" || !ip.SrcIP.Equal(taken6.AsSlice()) || ip.HopLimit != 255 {
		t.Errorf("to %v, %v to %v, hop limit %d", e.DstMAC, ip.SrcIP, ip.DstIP, ip.HopLimit)
	}
	if !na.Router() || na.Solicited() || !na.Override() || !na.TargetAddress.Equal(taken6.AsSlice()) ||
		len(na.Options) != 1 || na.Options[0].Type != layers.ICMPv6OptTargetAddress || !bytes.Equal(na.Options[0].Data, announcerMAC[:]) {
		t.Errorf("%+v", na)
	}
}

// request is a host's, as its kernel would ask.
func request(t testing.TB, asker, target netip.Addr) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: hostMAC[:], DstMAC: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EthernetType: layers.EthernetTypeARP}
	ls := []gopacket.SerializableLayer{eth, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: hostMAC[:], SourceProtAddress: asker.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice()}}
	if target.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: asker.AsSlice(), DstIP: net.ParseIP("ff02::1:ff00:4")}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
		icmp.SetNetworkLayerForChecksum(ip)
		ls = []gopacket.SerializableLayer{eth, ip, icmp, &layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: hostMAC[:]}}}}
	}
	out := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAnswers(t *testing.T) {
	q, ok := parseQuestion(request(t, asker4, taken4))
	if !ok || q != (question{hostMAC, asker4, taken4}) {
		t.Fatalf("%+v, %v", q, ok)
	}
	a := layersOf(t, reply(announcerMAC, q)).Layer(layers.LayerTypeARP).(*layers.ARP)
	if a.Operation != layers.ARPReply || !bytes.Equal(a.SourceHwAddress, announcerMAC[:]) || !net.IP(a.SourceProtAddress).Equal(taken4.AsSlice()) ||
		!bytes.Equal(a.DstHwAddress, hostMAC[:]) || !net.IP(a.DstProtAddress).Equal(asker4.AsSlice()) {
		t.Errorf("%+v", a)
	}

	q, ok = parseQuestion(request(t, asker6, taken6))
	if !ok || q != (question{hostMAC, asker6, taken6}) {
		t.Fatalf("%+v, %v", q, ok)
	}
	p := layersOf(t, reply(announcerMAC, q))
	na := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if ip := p.NetworkLayer().(*layers.IPv6); !ip.DstIP.Equal(asker6.AsSlice()) || !na.Solicited() || !na.TargetAddress.Equal(taken6.AsSlice()) {
		t.Errorf("to %v: %+v", ip.DstIP, na)
	}

	// Who looks for duplicates is told so that all hear it (RFC 4861 §7.2.4).
	q, _ = parseQuestion(request(t, netip.IPv6Unspecified(), taken6))
	p = layersOf(t, reply(announcerMAC, q))
	na = p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if ip := p.NetworkLayer().(*layers.IPv6); ip.DstIP.String() != "ff02::1" || na.Solicited() {
		t.Errorf("to %v: %+v", ip.DstIP, na)
	}

	for name, b := range map[string][]byte{
		"the owner's announcement": announcement(hostMAC, taken4),
		"an answer":                reply(hostMAC, question{hostMAC, asker4, taken4}),
		"an advertisement":         announcement(hostMAC, taken6),
		"beyond the link":          hops(request(t, asker6, taken6), 254),
	} {
		if q, ok := parseQuestion(b); ok {
			t.Errorf("%s is taken for a question: %+v", name, q)
		}
	}
}

func hops(b []byte, n byte) []byte {
	b[ethLen+7] = n
	return b
}

// FuzzQuestion: no frame makes parseQuestion panic, and what it finds is answered
// with a frame of the right family.
func FuzzQuestion(f *testing.F) {
	f.Add(request(f, asker4, taken4))
	f.Add(request(f, asker6, taken6))
	f.Add(announcement(hostMAC, taken4))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok := parseQuestion(b)
		if !ok {
			return
		}
		if r := reply(announcerMAC, q); q.target.Is4() && len(r) != ethLen+arpLen || q.target.Is6() && len(r) != ethLen+ipv6Len+ndLen+8 {
			t.Errorf("%+v answered with %x", q, r)
		}
	})
}
