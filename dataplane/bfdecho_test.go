package dataplane

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"msee/bfd"
	"msee/dataplane/fib"
	"msee/dataplane/gso"
	"msee/dataplane/port"
	"msee/vlan"
)

func TestEchoIsSentBack(t *testing.T) {
	for _, a := range families {
		r := newRouter(t, 0x8100)
		f := newFar(r, a.addr, a.our, 100)
		s := session(a.addr, a.our, bfdConfig)
		f.meet(t, s)
		r.customer.tx = nil
		echo := []byte("anything that fits")
		if v := r.receive(f.datagram(t, echo, bfd.EchoPort, 255)); v != LocalBFD {
			t.Fatalf("verdict %v", v)
		}
		if len(r.customer.tx) != 1 {
			t.Fatalf("%d frames sent", len(r.customer.tx))
		}
		p := gopacket.NewPacket(r.customer.tx[0].Bytes(), layers.LayerTypeEthernet, gopacket.Default)
		udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !bytes.Equal(udp.Payload, echo) || udp.SrcPort != bfd.EchoPort || udp.DstPort != 50000 {
			t.Errorf("%s: sent back %v", a.addr, p)
		}
		if got := p.NetworkLayer().NetworkFlow().String(); got != a.our+"->"+a.addr {
			t.Errorf("sent back %s", got)
		}
		s2 := s.Change(func() bfd.Config { c := bfdConfig; c.RequiredMinEcho = 0; return c }(), false)
		r.worker.bfd.set(r.worker, []*BFDSession{s2})
		if v := r.receive(f.datagram(t, echo, bfd.EchoPort, 255)); v != DropBFD {
			t.Errorf("echo that we do not want: verdict %v", v)
		}
	}
}

// TestEchoToItsSender: an echo in the form of RFC 5881 §4, addressed to its own sender,
// goes back there, whatever else fills the circuit, if the neighbor was told that it may
// send some; else, and if it is none, it is an ordinary packet.
func TestEchoToItsSender(t *testing.T) {
	for _, a := range families {
		r := newRouter(t, 0x8100)
		sub := r.subs["cust.100"]
		f := newFar(r, a.addr, a.our, 100)
		s := session(a.addr, a.our, bfdConfig)
		s.Adjacency.Resolve(&Rewrite{Out: sub, Header: vlan.NewHeader(ceMAC, mseeMAC, 0x8100, 100, 0)})
		addr := netip.MustParseAddr(a.addr)
		snap := *r.engine.Snapshot()
		snap.VRFs = slices.Clone(snap.VRFs)
		snap.VRFs[0].FIB = snap.VRFs[0].FIB.With([]fib.Change[*NextHopGroup]{{Prefix: netip.PrefixFrom(addr, addr.BitLen()),
			Value: &NextHopGroup{Kind: Neighbor, Members: []*Adjacency{s.Adjacency}}}})
		r.engine.snap.Store(&snap)
		limit, meter := new(Policer), new(Meter) // nothing passes
		echo := []byte("anything that fits")
		send := func(port layers.UDPPort, hops uint8, n int, want Verdict) []byte {
			t.Helper()
			r.customer.tx = nil
			udp := &layers.UDP{SrcPort: bfd.EchoPort, DstPort: port}
			var ip gopacket.SerializableLayer
			if addr.Is4() {
				l := &layers.IPv4{Version: 4, IHL: 5, TTL: hops, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(a.addr), DstIP: net.ParseIP(a.addr)}
				udp.SetNetworkLayerForChecksum(l)
				ip = l
			} else {
				l := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(a.addr), DstIP: net.ParseIP(a.addr)}
				udp.SetNetworkLayerForChecksum(l)
				ip = l
			}
			if v := r.receive(frame(t, mseeMAC, tags(100), 0x8100, ip, udp, gopacket.Payload(bytes.Repeat(echo, n)))); v != want {
				t.Errorf("%s: to port %d, with hop limit %d, %d times as long: verdict %v, want %v", a.addr, port, hops, n, v, want)
			}
			if len(r.customer.tx) == 0 {
				return nil
			}
			return r.customer.tx[0].Bytes()
		}
		check := func(b []byte) {
			t.Helper()
			p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
			udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if udp == nil || !bytes.Equal(udp.Payload, echo) || udp.SrcPort != bfd.EchoPort || udp.DstPort != bfd.EchoPort {
				t.Fatalf("%s: sent back %v", a.addr, p)
			}
			if got := p.NetworkLayer().NetworkFlow().String(); got != a.addr+"->"+a.addr || port.MAC(b[:6]) != ceMAC || port.MAC(b[6:12]) != mseeMAC {
				t.Errorf("sent back %s, to %v", got, net.HardwareAddr(b[:6]))
			}
			l3, hops := b[vlan.EthLen+vlan.TagLen:], 8
			if addr.Is6() {
				hops = 7
			} else if !headerChecksumOK(l3[:minIPv4]) {
				t.Errorf("the header's checksum is wrong")
			}
			if l3[hops] != bfd.HopLimit-1 {
				t.Errorf("%s: hop limit %d", a.addr, l3[hops])
			}
			addrs := l3[12:20]
			if addr.Is6() {
				addrs = l3[8:40]
			}
			if gso.Fold(gso.Sum(l3[len(l3)-udpLen-len(echo):], gso.Sum(addrs, uint64(protoUDP+udpLen+len(echo))))) != 0xffff {
				t.Errorf("%s: the datagram's checksum is wrong", a.addr)
			}
		}

		check(send(bfd.EchoPort, 255, 1, Transmit)) // no session yet
		r.customer.tx = nil
		f.meet(t, s)
		sub.Ingress = &Direction{limit, meter}
		r.sumUp()
		check(send(bfd.EchoPort, 255, 1, LocalBFD))
		send(bfd.EchoPort, 254, 1, DropPoliced)
		send(bfd.ControlPort, 255, 1, DropPoliced)
		send(bfd.EchoPort, 255, 10, DropPoliced) // too long for one of BFD's
		if rows := r.worker.bfd.status(r.worker); rows[0].Echoes != 1 || rows[0].EchoBytes != uint64(len(echo)) {
			t.Errorf("%d echoes, %d octets", rows[0].Echoes, rows[0].EchoBytes)
		}

		// The sender's kernel has left the checksum to its device.
		r.customer.tx = nil
		b := f.datagram(t, echo, bfd.EchoPort, 255)
		l3 := b[vlan.EthLen+vlan.TagLen:]
		from, to, l4 := l3[12:16], l3[16:20], l3[minIPv4:]
		if addr.Is6() {
			from, to, l4 = l3[8:24], l3[24:40], l3[minIPv6:]
		}
		copy(to, from)
		binary.BigEndian.PutUint16(l4[0:], bfd.EchoPort)
		binary.BigEndian.PutUint16(l4[6:], gso.Fold(gso.Sum(from, gso.Sum(to, uint64(protoUDP+len(l4))))))
		if addr.Is4() {
			l3[10], l3[11] = 0, 0
			binary.BigEndian.PutUint16(l3[10:], ^gso.Fold(gso.Sum(l3[:minIPv4], 0)))
		}
		v := r.receive(b, func(f *port.Frame) {
			f.VNet = port.VNetHdr{Flags: port.VNetNeedsCsum, CsumStart: uint16(len(b) - len(l4)), CsumOffset: 6}
		})
		if v != LocalBFD || len(r.customer.tx) != 1 {
			t.Fatalf("%s: with an open checksum: verdict %v", a.addr, v)
		}
		check(r.customer.tx[0].Bytes())

		cfg := bfdConfig
		cfg.RequiredMinEcho = 0
		r.worker.bfd.set(r.worker, []*BFDSession{s.Change(cfg, false)})
		send(bfd.EchoPort, 255, 1, DropPoliced) // we have said that we want none
	}
}
