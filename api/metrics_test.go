package api

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"msee/bfd"
	"msee/bgp"
	"msee/config"
	"msee/edge"
	"msee/macsec"
)

// fakeDevice has a row or two of each kind; peers have said things that must
// not become labels.
type fakeDevice struct {
	err  error
	asks int
}

const peerText = "peer chose this text"

func (d *fakeDevice) Device() (edge.DeviceStatus, error) {
	d.asks++
	return edge.DeviceStatus{Started: time.Unix(1000, 0), SpeakerRestarts: 2, Maintenance: edge.InService}, d.err
}
func (d *fakeDevice) Ports() ([]edge.PortStatus, error) {
	return []edge.PortStatus{{Name: "cust", Link: "up", RxFrames: 5, Verdicts: map[string]uint64{"transmit": 3, "drop-ttl": 2},
		OwnDrops: map[string]uint64{"drop-no-route": 1}}}, nil
}
func (d *fakeDevice) Peerings() ([]edge.PeeringStatus, error) {
	return []edge.PeeringStatus{{VRF: "er1-private", Interface: "cust.100", RxBytes: 77}}, nil
}
func (d *fakeDevice) Sessions() ([]edge.SessionStatus, error) {
	session := func(peer string, received int, l edge.LimitStatus, state bgp.State) edge.SessionStatus {
		s := edge.SessionStatus{VRF: "er1-private", Peer: netip.MustParseAddr(peer), Side: config.SideCustomer, Received: received, Prefixes: l}
		s.State, s.Reason = state, peerText
		return s
	}
	return []edge.SessionStatus{
		session("192.0.2.1", 79, edge.LimitStatus{Limit: 100, State: bgp.LimitOK}, bgp.StateEstablished),
		session("192.0.2.5", 80, edge.LimitStatus{Limit: 100, State: bgp.LimitNear}, bgp.StateEstablished),
		session("2001:db8::1", 0, edge.LimitStatus{Limit: 100, State: bgp.LimitReached, Exceeded: 3}, bgp.StateIdle),
		session("192.0.2.9", 1, edge.LimitStatus{}, bgp.StateDisabled),
	}, nil
}
func (d *fakeDevice) FIBs() ([]edge.FIBStatus, error) {
	return []edge.FIBStatus{{VRF: "er1-private", IPv4: 12, IPv6: 3}}, nil
}
func (d *fakeDevice) Audits() ([]edge.AuditStatus, error) {
	return []edge.AuditStatus{{VRF: "er1-private", Audits: 9, Repaired: 1, Findings: []string{peerText}}}, nil
}
func (d *fakeDevice) BFD() ([]edge.BFDStatus, error) {
	row := edge.BFDStatus{VRF: "er1-private", Interface: "cust.100", Peer: netip.MustParseAddr("192.0.2.1")}
	row.State, row.Downs = bfd.Up, []bfd.Count{{Name: bfd.DiagTimeExpired.String(), Count: 4}}
	return []edge.BFDStatus{row, row}, nil
}
func (d *fakeDevice) Meters() ([]edge.MeterStatus, error) {
	var rows []edge.MeterStatus
	for _, peering := range []string{"er1-microsoft", "er1-private"} {
		for _, direction := range []string{"in", "out"} {
			rows = append(rows, edge.MeterStatus{Circuit: "er1", Peering: peering, Direction: direction, Packets: 10, LimitInMbps: 50, DroppedPackets: 6})
		}
	}
	return rows, nil
}
func (d *fakeDevice) FastPath() ([]edge.FastPathStatus, error) {
	return []edge.FastPathStatus{{VRF: "er1-private", Port: "cust", Endpoints: 5, Programmed: 4, PortCount: 7, Limit: 25000, Waiting: 2},
		{VRF: "er2-private", Port: "cust", Endpoints: 3, Programmed: 3, PortCount: 7, Limit: 25000}}, nil
}
func (d *fakeDevice) Gateways() ([]edge.GatewayStatus, error) {
	return []edge.GatewayStatus{{VRF: "vnet1", State: "in service", Other: "down", TakesOver: []netip.Addr{netip.MustParseAddr("10.100.1.5")}, Limits: edge.GatewayNumbers{Mbps: 500, PacketsPerSecond: 50_000, Flows: 100_000},
		Used: edge.GatewayNumbers{Flows: 3}, Packets: 8, Dropped: map[string]uint64{"pps": 4}}}, nil
}
func (d *fakeDevice) MACsec() ([]edge.MACsecStatus, error) {
	s := edge.MACsecStatus{Port: "cust", State: "pending", Reason: peerText, CKN: []byte("\xab\xcd\xef")}
	s.SecY.RxSCs = []macsec.RxSC{{}, {}}
	s.SecY.RxSCs[0].InPktsLate, s.SecY.RxSCs[1].InPktsLate = 1, 2
	return []edge.MACsecStatus{s}, nil
}

func TestMetrics(t *testing.T) {
	problems, err := testutil.CollectAndLint(collector{&fakeDevice{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := scrapeOf(t, metricsHandler(&fakeDevice{}))
	for _, want := range []string{
		`msee_bgp_speaker_restarts_total 2`,
		`msee_start_time_seconds 1000`,
		`msee_maintenance 0`,
		`msee_port_up{port="cust"} 1`,
		`msee_port_frames_total{port="cust",verdict="drop-ttl"} 2`,
		`msee_port_own_dropped_frames_total{port="cust",verdict="drop-no-route"} 1`,
		`msee_subinterface_receive_bytes_total{interface="cust.100",vrf="er1-private"} 77`,
		`msee_bgp_prefix_limit_warning{neighbor="192.0.2.1",side="customer",vrf="er1-private"} 0`,
		`msee_bgp_prefix_limit_warning{neighbor="192.0.2.5",side="customer",vrf="er1-private"} 1`,
		`msee_bgp_prefix_limit_warning{neighbor="2001:db8::1",side="customer",vrf="er1-private"} 1`,
		`msee_bgp_prefix_limit_held{neighbor="192.0.2.5",side="customer",vrf="er1-private"} 0`,
		`msee_bgp_prefix_limit_held{neighbor="2001:db8::1",side="customer",vrf="er1-private"} 1`,
		`msee_bgp_prefix_limit_exceeded_total{neighbor="2001:db8::1",side="customer",vrf="er1-private"} 3`,
		`msee_bgp_prefixes_received{neighbor="192.0.2.5",side="customer",vrf="er1-private"} 80`,
		`msee_bgp_session_enabled{neighbor="192.0.2.9",side="customer",vrf="er1-private"} 0`,
		`msee_fib_routes{family="ipv6",vrf="er1-private"} 3`,
		`msee_fib_audit_repairs_total{vrf="er1-private"} 1`,
		fmt.Sprintf(`msee_bfd_session_downs_total{diagnostic=%q,interface="cust.100",neighbor="192.0.2.1",vrf="er1-private"} 4`, bfd.DiagTimeExpired.String()),
		`msee_peering_packets_total{circuit="er1",direction="out",vrf="er1-microsoft"} 10`,
		`msee_circuit_policer_dropped_packets_total{circuit="er1",direction="in"} 6`,
		`msee_circuit_bandwidth_bytes_per_second{circuit="er1"} 6.25e+06`,
		`msee_fastpath_entries{vrf="er2-private"} 3`,
		`msee_fastpath_port_entries{port="cust"} 7`,
		`msee_fastpath_port_waiting_endpoints{port="cust"} 2`,
		`msee_gateway_in_service{vrf="vnet1"} 1`,
		`msee_gateway_other_up{vrf="vnet1"} 0`,
		`msee_gateway_taken_addresses{vrf="vnet1"} 1`,
		`msee_gateway_bandwidth_bytes_per_second{vrf="vnet1"} 6.25e+07`,
		`msee_gateway_packets_per_second_limit{vrf="vnet1"} 50000`,
		`msee_gateway_flow_limit{vrf="vnet1"} 100000`,
		`msee_gateway_flows{vrf="vnet1"} 3`,
		`msee_gateway_packets_total{vrf="vnet1"} 8`,
		`msee_gateway_dropped_packets_total{reason="pps",vrf="vnet1"} 4`,
		`msee_gateway_dropped_packets_total{reason="flows",vrf="vnet1"} 0`,
		`msee_macsec_secured{port="cust"} 0`,
		`msee_macsec_receive_refused_frames_total{port="cust",reason="InPktsLate"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	for _, no := range []string{peerText, "abcdef", `msee_bgp_prefix_limit{neighbor="192.0.2.9"`} {
		if strings.Contains(text, no) {
			t.Errorf("%q is in the metrics", no)
		}
	}
}

// scrapeOf returns a good answer to GET /metrics.
func scrapeOf(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	if _, err := new(expfmt.TextParser).TextToMetricFamilies(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestMetricsAskSeldom wants a device that is scraped all the time to be asked
// once a second.
func TestMetricsAskSeldom(t *testing.T) {
	d := &fakeDevice{}
	h := metricsHandler(d)
	began := time.Now()
	for range 50 {
		scrapeOf(t, h)
	}
	if most := 1 + int(time.Since(began)/scrapeEvery); d.asks > most {
		t.Errorf("asked %d times, want at most %d", d.asks, most)
	}
}

// TestMetricsFail wants a device that does not answer to be no device at zero.
func TestMetricsFail(t *testing.T) {
	w := httptest.NewRecorder()
	metricsHandler(&fakeDevice{err: edge.ErrStopped}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d, want %d", w.Code, http.StatusInternalServerError)
	}
}

func TestMetricsServerMoves(t *testing.T) {
	s := &MetricsServer{handler: metricsHandler(&fakeDevice{}), log: slog.New(slog.DiscardHandler)}
	defer s.Close()
	get := func(at netip.AddrPort, path string) (status int) {
		c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := c.Get("http://" + at.String() + path)
		if err != nil {
			return 0
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	expect := func(what string, at netip.AddrPort, path string, want int) {
		t.Helper()
		if got := get(at, path); got != want {
			t.Errorf("%s: %s%s has status %d, want %d (0: nobody listens)", what, at, path, got, want)
		}
	}
	ok := func() error { return nil }
	a, b := freeAddress(t), freeAddress(t)
	if err := s.Move(a, ok); err != nil {
		t.Fatal(err)
	}
	expect("first", a, "/metrics", http.StatusOK)
	for _, path := range []string{"/", "/v1/bgp", "/v1/reload", "/debug/pprof/"} {
		expect("other paths", a, path, http.StatusNotFound)
	}
	if err := s.Move(b, func() error { return errors.New("refused") }); err == nil || err.Error() != "refused" {
		t.Errorf("what comes with the move failed, and the error is %v", err)
	}
	expect("after a refusal", a, "/metrics", http.StatusOK)
	expect("after a refusal", b, "/metrics", 0)
	taken, err := net.Listen("tcp", b.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Move(b, func() error { t.Error("applied without a socket"); return nil }); err == nil || !strings.Contains(err.Error(), "metrics.listenAddress") {
		t.Errorf("the address is taken, and the error is %v", err)
	}
	taken.Close()
	expect("after a taken address", a, "/metrics", http.StatusOK)
	if err := s.Move(b, ok); err != nil {
		t.Fatal(err)
	}
	expect("moved", a, "/metrics", 0)
	expect("moved", b, "/metrics", http.StatusOK)
	if err := s.Move(netip.AddrPort{}, ok); err != nil {
		t.Fatal(err)
	}
	expect("removed", b, "/metrics", 0)
}

// freeAddress returns a loopback address that nobody listens at, nor a test of another
// package that runs meanwhile comes to use.
func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}
