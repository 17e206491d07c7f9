package api

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"msee/edge"
)

// MetricsServer answers GET /metrics, and nothing else, by TCP, where the
// configuration says so. Anybody who reaches it may read.
type MetricsServer struct {
	handler http.Handler
	log     *slog.Logger
	mu      sync.Mutex
	at      netip.AddrPort
	http    *http.Server // nil: not listening
}

// Bounds for those who connect: a scrape is one short request.
const (
	metricsConnections = 16
	metricsTimeout     = 10 * time.Second
)

// NewMetricsServer returns a server of e's metrics that does not listen yet.
func NewMetricsServer(e *edge.Edge, log *slog.Logger) *MetricsServer {
	return &MetricsServer{handler: metricsHandler(e), log: log}
}

// Move makes the server listen at to, or nowhere if that is the zero value, and
// applies what comes with it. If either fails it listens where it did.
func (s *MetricsServer) Move(to netip.AddrPort, apply func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to == s.at {
		return apply()
	}
	from := s.at
	s.close() // before, as the new address may be the old one's port
	err := s.listen(to)
	if err == nil {
		if err = apply(); err == nil {
			return nil
		}
		s.close()
	}
	if again := s.listen(from); again != nil {
		s.log.Error("metrics are not served any more", "err", again)
	}
	return err
}

func (s *MetricsServer) listen(at netip.AddrPort) error {
	if !at.IsValid() {
		return nil
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return fmt.Errorf("metrics.listenAddress: %w", err)
	}
	server := &http.Server{Handler: s.handler, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	s.at, s.http = at, server
	go server.Serve(netutil.LimitListener(l, metricsConnections)) // ends by close
	return nil
}

// Close ends the service.
func (s *MetricsServer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

func (s *MetricsServer) close() {
	if s.http != nil {
		s.http.Close()
	}
	s.at, s.http = netip.AddrPort{}, nil
}
