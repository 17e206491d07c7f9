package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"msee/bfd"
	"msee/bgp"
	"msee/edge"
)

// Metrics for Prometheus. Labels are names of the configuration, addresses of
// neighbors and words of this program: never what a peer has said, and no keys
// or their names. So there are as many series as the configuration makes.

// source is what metrics are read from: the device.
type source interface {
	Device() (edge.DeviceStatus, error)
	Ports() ([]edge.PortStatus, error)
	Peerings() ([]edge.PeeringStatus, error)
	Sessions() ([]edge.SessionStatus, error)
	FIBs() ([]edge.FIBStatus, error)
	Audits() ([]edge.AuditStatus, error)
	BFD() ([]edge.BFDStatus, error)
	Meters() ([]edge.MeterStatus, error)
	FastPath() ([]edge.FastPathStatus, error)
	Gateways() ([]edge.GatewayStatus, error)
	MACsec() ([]edge.MACsecStatus, error)
}

// metric is one family: its description and how its values are read.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("msee_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("msee_"+name, help, labels, nil), prometheus.GaugeValue}
}

var (
	startTime       = gauge("start_time_seconds", "When the device was started, in Unix time.")
	drained         = gauge("maintenance", "1 while the device is draining or drained, else 0.")
	speakerRestarts = counter("bgp_speaker_restarts_total", "How often the BGP speaker process had to be started again.")

	portUp       = gauge("port_up", "1 if the port's device has link.", "port")
	portRxFrames = counter("port_receive_frames_total", "Frames received; superframes count once.", "port")
	portRxBytes  = counter("port_receive_bytes_total", "Octets received.", "port")
	portTxFrames = counter("port_transmit_frames_total", "Frames sent; superframes count once.", "port")
	portTxBytes  = counter("port_transmit_bytes_total", "Octets sent.", "port")
	portTxDrops  = counter("port_transmit_dropped_frames_total", "Frames that the egress queue had no room for.", "port")
	portRxLost   = counter("port_receive_overrun_frames_total", "Frames that the kernel dropped as the receive ring was full.", "port")
	portErrors   = counter("port_errors_total", "Errors of reading and sending.", "port")
	portOwnDrops = counter("port_own_dropped_frames_total", "Frames of the device's own that did not leave, by why; there is no series before the first.", "port", "verdict")
	portVerdicts = counter("port_frames_total", "Received frames by what became of them; they add up to msee_port_receive_frames_total.", "port", "verdict")

	subRxFrames = counter("subinterface_receive_frames_total", "Frames received.", "vrf", "interface")
	subRxBytes  = counter("subinterface_receive_bytes_total", "Octets received.", "vrf", "interface")
	subTxFrames = counter("subinterface_transmit_frames_total", "Frames sent.", "vrf", "interface")
	subTxBytes  = counter("subinterface_transmit_bytes_total", "Octets sent.", "vrf", "interface")
	subDrops    = counter("subinterface_receive_dropped_frames_total", "Received frames that were dropped.", "vrf", "interface")

	bgpUp         = gauge("bgp_session_up", "1 if the session is Established.", "vrf", "neighbor", "side")
	bgpEnabled    = gauge("bgp_session_enabled", "0 if the peering's state is Disabled.", "vrf", "neighbor", "side")
	bgpFlaps      = counter("bgp_session_flaps_total", "How often the session left Established.", "vrf", "neighbor", "side")
	bgpReceived   = gauge("bgp_prefixes_received", "Prefixes that the neighbor announces, refused ones included.", "vrf", "neighbor", "side")
	bgpAccepted   = gauge("bgp_prefixes_accepted", "Prefixes of the neighbor that policy accepts.", "vrf", "neighbor", "side")
	bgpAdvertised = gauge("bgp_prefixes_advertised", "Prefixes announced to the neighbor.", "vrf", "neighbor", "side")
	bgpLimit      = gauge("bgp_prefix_limit", "How many prefixes the neighbor may announce.", "vrf", "neighbor", "side")
	bgpWarning    = gauge("bgp_prefix_limit_warning", "1 from 80 % of the prefix limit on, and while the session is held down for it.", "vrf", "neighbor", "side")
	bgpReached    = gauge("bgp_prefix_limit_held", "1 while the session is held down as it exceeded its prefix limit.", "vrf", "neighbor", "side")
	bgpExceeded   = counter("bgp_prefix_limit_exceeded_total", "How often the session exceeded its prefix limit.", "vrf", "neighbor", "side")

	fibRoutes      = gauge("fib_routes", "Routes that the VRF forwards by.", "vrf", "family")
	audits         = counter("fib_audits_total", "Audits of the FIB against the RIB.", "vrf")
	auditRepairs   = counter("fib_audit_repairs_total", "What audits had to repair: anything but 0 is a fault of msee.", "vrf")
	bfdUp          = gauge("bfd_session_up", "1 if the BFD session is Up.", "vrf", "interface", "neighbor")
	bfdUps         = counter("bfd_session_ups_total", "How often the BFD session came up.", "vrf", "interface", "neighbor")
	bfdDowns       = counter("bfd_session_downs_total", "How often the BFD session left Up, by our diagnostic.", "vrf", "interface", "neighbor", "diagnostic")
	bfdRx          = counter("bfd_session_receive_packets_total", "BFD packets accepted.", "vrf", "interface", "neighbor")
	bfdTx          = counter("bfd_session_transmit_packets_total", "BFD packets sent.", "vrf", "interface", "neighbor")
	bfdLate        = counter("bfd_session_late_looks_total", "Detection times that were extended as msee itself was late: failures that would have been false.", "vrf", "interface", "neighbor")
	peeringPackets = counter("peering_packets_total", "IP packets carried, from the customer (in) and to it (out).", "circuit", "vrf", "direction")
	peeringBytes   = counter("peering_bytes_total", "Octets of IP packets carried, from the customer (in) and to it (out).", "circuit", "vrf", "direction")
	circuitLimit   = gauge("circuit_bandwidth_bytes_per_second", "What the circuit is policed to, on this link and in each direction.", "circuit")
	circuitDrops   = counter("circuit_policer_dropped_packets_total", "Packets above the circuit's bandwidth.", "circuit", "direction")
	circuitDropped = counter("circuit_policer_dropped_bytes_total", "Octets above the circuit's bandwidth.", "circuit", "direction")

	fastEntries     = gauge("fastpath_entries", "Endpoints of the VRF in the exact match.", "vrf")
	fastByGateway   = gauge("fastpath_refused_endpoints", "Endpoints of the VRF that go by the gateway.", "vrf")
	fastHits        = counter("fastpath_hits_total", "Frames that the exact match had the destination of.", "vrf")
	fastMisses      = counter("fastpath_misses_total", "Frames that it had not.", "vrf")
	fastPortEntries = gauge("fastpath_port_entries", "Endpoints in the exact match, of all VRFs of the port.", "port")
	fastWaiting     = gauge("fastpath_port_waiting_endpoints", "Endpoints that go by the gateway as the port's limit is reached: anything but 0 is worth an alert.", "port")
	fastLimit       = gauge("fastpath_port_limit", "How many endpoints the port may have.", "port")

	gatewayInService = gauge("gateway_in_service", "1 if this instance forwards for its VNet and stays; 0 while it waits for MSEEs, or is drained.", "vrf")
	gatewayOther     = gauge("gateway_other_up", "1 if the gateway's other instance is in service, as seen in the VNet.", "vrf")
	gatewayTaken     = gauge("gateway_taken_addresses", "Addresses of the other instance that this one answers for.", "vrf")
	gatewayBandwidth = gauge("gateway_bandwidth_bytes_per_second", "What this instance of a gateway may pass into the VNet.", "vrf")
	gatewayPPS       = gauge("gateway_packets_per_second_limit", "How many packets a second this instance may pass.", "vrf")
	gatewayFlowLimit = gauge("gateway_flow_limit", "How many flows this instance may have.", "vrf")
	gatewayFlows     = gauge("gateway_flows", "Flows that this instance has.", "vrf")
	gatewayPackets   = counter("gateway_packets_total", "IP packets passed into the VNet.", "vrf")
	gatewayBytes     = counter("gateway_bytes_total", "Octets of IP packets passed into the VNet.", "vrf")
	gatewayDrops     = counter("gateway_dropped_packets_total", "IP packets that the gateway did not pass, by why.", "vrf", "reason")

	macsecSecured = gauge("macsec_secured", "1 if the port has a key to send and receive with.", "port")
	macsecPeers   = gauge("macsec_peers", "Live peers of the port.", "port")
	macsecTx      = counter("macsec_transmit_frames_total", "Frames sealed.", "port")
	macsecTxDrops = counter("macsec_transmit_dropped_frames_total", "Frames dropped for want of a key, or as too long.", "port")
	macsecRx      = counter("macsec_receive_frames_total", "Frames opened and valid.", "port")
	macsecRefused = counter("macsec_receive_refused_frames_total", "Frames that the SecY dropped, by the counter of IEEE 802.1AE.", "port", "reason")
)

// collector reads a device for each scrape.
type collector struct{ source }

// Describe describes nothing: which series there are is the configuration's.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the device. What cannot be read is an invalid metric, which
// makes the scrape fail: a counter that is missing is no counter at zero.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{out: out, seen: map[string]bool{}}
	for _, read := range []func(source) error{s.device, s.ports, s.subinterfaces, s.sessions, s.tables, s.bfd, s.meters, s.fastPath, s.gateways, s.macsec} {
		if err := read(c.source); err != nil {
			out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
			return
		}
	}
}

// scrape is one reading of a device.
type scrape struct {
	out  chan<- prometheus.Metric
	seen map[string]bool // what rows of other objects repeat
}

// first reports whether this is the first time for what the words name.
func (s *scrape) first(words ...string) bool {
	key := strings.Join(words, "\x00")
	was := s.seen[key]
	s.seen[key] = true
	return !was
}

func put[T ~int | ~uint64 | ~int64 | ~uint32](s *scrape, m metric, v T, labels ...string) {
	s.value(m, float64(v), labels...)
}

func (s *scrape) value(m metric, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

func (s *scrape) truth(m metric, v bool, labels ...string) {
	if v {
		s.value(m, 1, labels...)
	} else {
		s.value(m, 0, labels...)
	}
}

func (s *scrape) device(d source) error {
	st, err := d.Device()
	if err != nil {
		return err
	}
	s.value(startTime, float64(st.Started.UnixMilli())/1000)
	s.truth(drained, st.Maintenance != edge.InService)
	put(s, speakerRestarts, st.SpeakerRestarts)
	return nil
}

func (s *scrape) ports(d source) error {
	rows, err := d.Ports()
	for _, p := range rows {
		s.truth(portUp, p.Link == "up", p.Name)
		put(s, portRxFrames, p.RxFrames, p.Name)
		put(s, portRxBytes, p.RxBytes, p.Name)
		put(s, portTxFrames, p.TxFrames, p.Name)
		put(s, portTxBytes, p.TxBytes, p.Name)
		put(s, portTxDrops, p.TxDrops, p.Name)
		put(s, portRxLost, p.RxDropped, p.Name)
		put(s, portErrors, p.Errors, p.Name)
		for _, v := range slices.Sorted(maps.Keys(p.Verdicts)) {
			put(s, portVerdicts, p.Verdicts[v], p.Name, v)
		}
		for _, v := range slices.Sorted(maps.Keys(p.OwnDrops)) {
			put(s, portOwnDrops, p.OwnDrops[v], p.Name, v)
		}
	}
	return err
}

func (s *scrape) subinterfaces(d source) error {
	rows, err := d.Peerings()
	for _, p := range rows {
		put(s, subRxFrames, p.RxFrames, p.VRF, p.Interface)
		put(s, subRxBytes, p.RxBytes, p.VRF, p.Interface)
		put(s, subTxFrames, p.TxFrames, p.VRF, p.Interface)
		put(s, subTxBytes, p.TxBytes, p.VRF, p.Interface)
		put(s, subDrops, p.RxDrops, p.VRF, p.Interface)
	}
	return err
}

func (s *scrape) sessions(d source) error {
	rows, err := d.Sessions()
	for _, b := range rows {
		neighbor := b.Peer.String()
		if b.Carrier != "" { // there are several of one neighbor's, one for each network and family
			neighbor = strings.TrimPrefix(b.Session, b.VRF+"/")
		}
		labels := []string{b.VRF, neighbor, string(b.Side)}
		s.truth(bgpUp, b.State == bgp.StateEstablished, labels...)
		s.truth(bgpEnabled, b.State != bgp.StateDisabled, labels...)
		put(s, bgpFlaps, b.Flaps, labels...)
		put(s, bgpReceived, b.Received, labels...)
		put(s, bgpAccepted, b.Accepted, labels...)
		put(s, bgpAdvertised, b.Advertised, labels...)
		if b.Prefixes.Limit > 0 {
			put(s, bgpLimit, b.Prefixes.Limit, labels...)
			s.truth(bgpWarning, b.Prefixes.State != bgp.LimitOK, labels...)
			s.truth(bgpReached, b.Prefixes.State == bgp.LimitReached, labels...)
			put(s, bgpExceeded, b.Prefixes.Exceeded, labels...)
		}
	}
	return err
}

func (s *scrape) tables(d source) error {
	tables, err := d.FIBs()
	if err != nil {
		return err
	}
	for _, t := range tables {
		put(s, fibRoutes, t.IPv4, t.VRF, "ipv4")
		put(s, fibRoutes, t.IPv6, t.VRF, "ipv6")
	}
	found, err := d.Audits()
	for _, a := range found {
		put(s, audits, a.Audits, a.VRF)
		put(s, auditRepairs, a.Repaired, a.VRF)
	}
	return err
}

func (s *scrape) bfd(d source) error {
	rows, err := d.BFD()
	for _, b := range rows {
		labels := []string{b.VRF, b.Interface, b.Peer.String()}
		if !s.first(append(labels, "bfd")...) {
			continue // a BFD daemon may have two to one neighbor
		}
		s.truth(bfdUp, b.State == bfd.Up, labels...)
		put(s, bfdUps, b.Counters.Ups, labels...)
		put(s, bfdRx, b.Counters.Rx, labels...)
		put(s, bfdTx, b.Counters.Tx, labels...)
		put(s, bfdLate, b.Counters.LateLooks, labels...)
		for _, down := range b.Downs {
			put(s, bfdDowns, down.Count, append(labels[:len(labels):len(labels)], down.Name)...)
		}
	}
	return err
}

// meters has what a circuit drops once per circuit: the rows of its peerings
// and directions all say it.
func (s *scrape) meters(d source) error {
	rows, err := d.Meters()
	for _, m := range rows {
		put(s, peeringPackets, m.Packets, m.Circuit, m.Peering, m.Direction)
		put(s, peeringBytes, m.Bytes, m.Circuit, m.Peering, m.Direction)
		if m.Circuit == "" || m.LimitInMbps == 0 || !s.first(m.Circuit, m.Direction, "policer") {
			continue
		}
		if s.first(m.Circuit, "limit") {
			s.value(circuitLimit, float64(m.LimitInMbps)*125e3, m.Circuit)
		}
		put(s, circuitDrops, m.DroppedPackets, m.Circuit, m.Direction)
		put(s, circuitDropped, m.DroppedBytes, m.Circuit, m.Direction)
	}
	return err
}

func (s *scrape) fastPath(d source) error {
	rows, err := d.FastPath()
	for _, f := range rows {
		put(s, fastEntries, f.Programmed, f.VRF)
		put(s, fastByGateway, f.Endpoints-f.Programmed, f.VRF)
		put(s, fastHits, f.Hits, f.VRF)
		put(s, fastMisses, f.Misses, f.VRF)
		if s.first(f.Port, "fastpath") {
			put(s, fastPortEntries, f.PortCount, f.Port)
			put(s, fastLimit, f.Limit, f.Port)
			put(s, fastWaiting, f.Waiting, f.Port)
		}
	}
	return err
}

func (s *scrape) macsec(d source) error {
	rows, err := d.MACsec()
	for i := range rows {
		m := &rows[i]
		s.truth(macsecSecured, m.State == "secured", m.Port)
		put(s, macsecPeers, m.Peers, m.Port)
		put(s, macsecTx, m.SecY.Tx.OutPktsEncrypted+m.SecY.Tx.OutPktsProtected, m.Port)
		put(s, macsecTxDrops, m.SecY.Tx.OutPktsNoSA+m.SecY.Tx.OutPktsTooLong, m.Port)
		put(s, macsecRx, valid(m), m.Port)
		rx := m.SecY.Rx
		refused := map[string]uint64{"InPktsNoTag": rx.InPktsNoTag, "InPktsBadTag": rx.InPktsBadTag, "InPktsNoSAError": rx.InPktsNoSAErr,
			"InPktsLate": 0, "InPktsNotValid": 0, "InPktsNotUsingSA": 0}
		for _, sc := range m.SecY.RxSCs {
			refused["InPktsLate"] += sc.InPktsLate
			refused["InPktsNotValid"] += sc.InPktsNotValid
			refused["InPktsNotUsingSA"] += sc.InPktsNotUsingSA
		}
		for _, why := range slices.Sorted(maps.Keys(refused)) {
			put(s, macsecRefused, refused[why], m.Port, why)
		}
	}
	return err
}

// scrapeEvery is how old an answer may be: more frequent scrapes do not ask the
// device.
const scrapeEvery = time.Second

// recent gathers one scrape at a time, and keeps it for scrapeEvery.
type recent struct {
	prometheus.Gatherer
	mu       sync.Mutex
	at       time.Time
	families []*dto.MetricFamily
	err      error
}

func (r *recent) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) >= scrapeEvery {
		r.families, r.err = r.Gatherer.Gather()
		r.at = time.Now()
	}
	return r.families, r.err
}

// metricsHandler answers GET /metrics.
func metricsHandler(d source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{d}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(&recent{Gatherer: registry}, promhttp.HandlerOpts{}))
	return mux
}
