// Package api is a device's operator surface: HTTP and JSON on a unix socket
// that its owner alone may open.
//
//	GET  /v1/device /v1/circuits /v1/peerings /v1/bgp /v1/routes[?vrf=NAME]
//	     /v1/arp /v1/bfd /v1/ports /v1/meters /v1/gateways
//	GET  /v1/audit      what the audits of FIB against RIB have found
//	POST /v1/audit      audit now
//	GET  /v1/circuits/{circuit}/peerings/{peering}/…    see diagnostics.go
//	GET  /v1/macsec /v1/mka
//	POST /v1/macsec/rotate[?port=NAME][&ckn=HEX][&sak=only]
//	POST /v1/reload     read the configuration file again and apply it
//	POST /v1/maintenance?state=InService|Draining|Drained[&force=true]
//	GET  /metrics       for Prometheus; also by TCP, see MetricsServer
//
// Every other answer is JSON; an error is {"error": "…"} with a status of 4xx or 5xx.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"msee/config"
	"msee/edge"
)

// Dir is where instances keep their sockets.
const Dir = "/run/msee"

// SocketPath returns the socket of an instance.
func SocketPath(instance string) string { return filepath.Join(Dir, instance, "ctl.sock") }

// ReloadResult is the answer to a reload.
type ReloadResult struct {
	Changes []config.Change `json:"changes"`
}

// Instance is the right to a name: namespaces and the socket of that name are
// its holder's.
type Instance struct {
	name string
	lock *os.File
}

// Claim takes the name, which a process holds until it ends or gives it back.
// It must come before anything is made under that name.
func Claim(name string) (*Instance, error) {
	dir := filepath.Dir(SocketPath(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("claim instance %s: %w", name, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim instance %s: %w", name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("instance %s is running already; give another --instance", name)
		}
		return nil, fmt.Errorf("claim instance %s: %w", name, err)
	}
	// The last holder may have removed the file between our opening and locking
	// it; a lock on a file without a name keeps nobody out.
	held, err := f.Stat()
	named, nameErr := os.Stat(f.Name())
	if err != nil || nameErr != nil || !os.SameFile(held, named) {
		f.Close()
		return nil, fmt.Errorf("claim instance %s: its last process is just ending; try again", name)
	}
	return &Instance{name, f}, nil
}

// Release gives the name back.
func (i *Instance) Release() {
	os.Remove(i.lock.Name())               // held until here, so it is nobody else's
	os.Remove(filepath.Dir(i.lock.Name())) // if nothing else is in it
	i.lock.Close()
}

// Server answers for one device.
type Server struct {
	http     http.Server
	listener net.Listener
}

// Listen opens the socket of an instance for e. Reload loads the
// configuration file again and applies it. A socket that is there already is a
// crashed predecessor's, and replaced.
func Listen(i *Instance, e *edge.Edge, reload func() ([]config.Change, error), log *slog.Logger) (*Server, error) {
	path := SocketPath(i.name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	mask := unix.Umask(0o177) // the socket is the owner's from its first moment
	l, err := net.Listen("unix", path)
	unix.Umask(mask)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l}
	s.http = http.Server{Handler: handler(e, reload), ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return s, nil
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends Serve and removes the socket.
func (s *Server) Close() { s.http.Close() }

func handler(e *edge.Edge, reload func() ([]config.Change, error)) http.Handler {
	mux := http.NewServeMux()
	handleDiagnostics(mux, e)
	mux.Handle("/metrics", metricsHandler(e))
	mux.HandleFunc("GET /v1/device", answer(func(*http.Request) (any, error) { return e.Device() }))
	mux.HandleFunc("GET /v1/circuits", answer(func(*http.Request) (any, error) { return rows(e.Circuits()) }))
	mux.HandleFunc("GET /v1/peerings", answer(func(*http.Request) (any, error) { return rows(e.Peerings()) }))
	mux.HandleFunc("GET /v1/bgp", answer(func(*http.Request) (any, error) { return rows(e.Sessions()) }))
	mux.HandleFunc("GET /v1/routes", answer(func(r *http.Request) (any, error) {
		return rows(e.Routes(r.URL.Query().Get("vrf")))
	}))
	mux.HandleFunc("GET /v1/arp", answer(func(*http.Request) (any, error) { return rows(e.ARP()) }))
	mux.HandleFunc("GET /v1/bfd", answer(func(*http.Request) (any, error) { return rows(e.BFD()) }))
	mux.HandleFunc("GET /v1/meters", answer(func(*http.Request) (any, error) { return rows(e.Meters()) }))
	mux.HandleFunc("GET /v1/ports", answer(func(*http.Request) (any, error) { return rows(e.Ports()) }))
	handleFastPath(mux, e)
	mux.HandleFunc("GET /v1/evpn", answer(func(*http.Request) (any, error) { return rows(e.EVPN()) }))
	mux.HandleFunc("GET /v1/gateways", answer(func(*http.Request) (any, error) { return rows(e.Gateways()) }))
	mux.HandleFunc("GET /v1/audit", answer(func(*http.Request) (any, error) { return rows(e.Audits()) }))
	mux.HandleFunc("POST /v1/audit", answer(func(*http.Request) (any, error) { return rows(e.Audit()) }))
	mux.HandleFunc("GET /v1/macsec", answer(func(*http.Request) (any, error) { return rows(e.MACsec()) }))
	mux.HandleFunc("GET /v1/mka", answer(func(*http.Request) (any, error) { return rows(e.MKA()) }))
	mux.HandleFunc("POST /v1/macsec/rotate", answer(func(r *http.Request) (any, error) { return rotate(e, r.URL.Query()) }))
	mux.HandleFunc("POST /v1/maintenance", answer(func(r *http.Request) (any, error) {
		to := edge.Maintenance(r.URL.Query().Get("state"))
		if to != edge.InService && to != edge.Draining && to != edge.Drained {
			return nil, fmt.Errorf("%w: state %q: want InService, Draining or Drained", errBadRequest, to)
		}
		if err := e.SetMaintenance(to, r.URL.Query().Get("force") == "true"); err != nil {
			return nil, err
		}
		return e.Device()
	}))
	mux.HandleFunc("POST /v1/reload", answer(func(*http.Request) (any, error) {
		changes, err := rows(reload())
		return ReloadResult{changes}, err
	}))
	return mux
}

// rows makes no rows an empty list rather than null.
func rows[T any](r []T, err error) ([]T, error) {
	if r == nil {
		r = []T{}
	}
	return r, err
}

func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		v, err := f(r)
		if err != nil {
			w.WriteHeader(statusOf(err))
			v = failure{err.Error()}
		}
		json.NewEncoder(w).Encode(v) // the client has gone if this fails
	}
}

type failure struct {
	Error string `json:"error"`
}

// errBadRequest is wrapped by errors about what was asked.
var errBadRequest = errors.New("bad request")

// statusOf tells the caller's mistakes from ours.
func statusOf(err error) int {
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		return http.StatusUnprocessableEntity
	case errors.Is(err, errBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, edge.ErrNotDraining), errors.Is(err, edge.ErrNoOther):
		return http.StatusConflict
	case errors.Is(err, edge.ErrNoVRF), errors.Is(err, edge.ErrNoPeering), errors.Is(err, edge.ErrNoMKA):
		return http.StatusNotFound
	case errors.Is(err, edge.ErrStopped):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
