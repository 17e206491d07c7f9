package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"msee/edge"
)

// Client talks to one running device.
type Client struct {
	Instance     string
	http         http.Client
	show, reload time.Duration // how long it waits for the answer to begin, and to go on
}

// How long an answer may take to begin, and to go on: one with a line for each of
// 200,000 endpoints takes a while. A reload may wait for sessions to say goodbye.
const (
	showTimeout   = 5 * time.Second
	reloadTimeout = 60 * time.Second
)

// NewClient returns a client of an instance.
func NewClient(instance string) *Client {
	c := &Client{Instance: instance, show: showTimeout, reload: reloadTimeout}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", SocketPath(instance))
	}}
	return c
}

// Instances lists the instances that answer, in order of name.
func Instances() []string {
	sockets, _ := filepath.Glob(SocketPath("*")) // the pattern is well-formed
	var names []string
	for _, s := range sockets {
		if c, err := net.Dial("unix", s); err == nil {
			c.Close()
			names = append(names, filepath.Base(filepath.Dir(s)))
		}
	}
	slices.Sort(names)
	return names
}

// The calls, as the server's routes.

func (c *Client) Device() (v edge.DeviceStatus, err error) {
	return v, c.call(http.MethodGet, "device", &v)
}
func (c *Client) Circuits() (v []edge.CircuitStatus, err error) {
	return v, c.call(http.MethodGet, "circuits", &v)
}
func (c *Client) Peerings() (v []edge.PeeringStatus, err error) {
	return v, c.call(http.MethodGet, "peerings", &v)
}
func (c *Client) Sessions() (v []edge.SessionStatus, err error) {
	return v, c.call(http.MethodGet, "bgp", &v)
}
func (c *Client) Routes(vrf string) (v []edge.RouteStatus, err error) {
	return v, c.call(http.MethodGet, "routes?vrf="+url.QueryEscape(vrf), &v)
}
func (c *Client) ARP() (v []edge.ARPStatus, err error) {
	return v, c.call(http.MethodGet, "arp", &v)
}
func (c *Client) BFD() (v []edge.BFDStatus, err error) {
	return v, c.call(http.MethodGet, "bfd", &v)
}
func (c *Client) Ports() (v []edge.PortStatus, err error) {
	return v, c.call(http.MethodGet, "ports", &v)
}
func (c *Client) MACsec() (v []edge.MACsecStatus, err error) {
	return v, c.call(http.MethodGet, "macsec", &v)
}
func (c *Client) MKA() (v []edge.MKAStatus, err error) {
	return v, c.call(http.MethodGet, "mka", &v)
}

// RotateMACsec is edge.RotateMACsec; ckn is in hexadecimal digits, or empty.
func (c *Client) RotateMACsec(port, ckn string, sakOnly bool) (v []edge.Rotation, err error) {
	q := url.Values{"port": {port}, "ckn": {ckn}}
	if sakOnly {
		q.Set("sak", "only")
	}
	return v, c.call(http.MethodPost, "macsec/rotate?"+q.Encode(), &v)
}
func (c *Client) Meters() (v []edge.MeterStatus, err error) {
	return v, c.call(http.MethodGet, "meters", &v)
}
func (c *Client) SetMaintenance(to edge.Maintenance, force bool) (v edge.DeviceStatus, err error) {
	q := url.Values{"state": {string(to)}, "force": {strconv.FormatBool(force)}}
	return v, c.call(http.MethodPost, "maintenance?"+q.Encode(), &v)
}
func (c *Client) Reload() (v ReloadResult, err error) {
	return v, c.call(http.MethodPost, "reload", &v)
}

// Metrics returns the metrics in Prometheus' text format.
func (c *Client) Metrics() (string, error) {
	var text string
	return text, c.ask(http.MethodGet, "/metrics", func(r io.Reader) error {
		b, err := io.ReadAll(r)
		text = string(b)
		return err
	})
}

func (c *Client) call(method, path string, v any) error {
	return c.ask(method, "/v1/"+path, func(r io.Reader) error { return json.NewDecoder(r).Decode(v) })
}

// ask makes a request and has a good answer read.
func (c *Client) ask(method, path string, read func(io.Reader) error) error {
	timeout := c.show
	if method != http.MethodGet {
		timeout = c.reload
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	patience := time.AfterFunc(timeout, cancel)
	defer patience.Stop()
	req, err := http.NewRequestWithContext(ctx, method, "http://msee"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("talk to instance %s: not allowed to open %s; use sudo", c.Instance, SocketPath(c.Instance))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("instance %s does not answer within %v", c.Instance, timeout)
		}
		return fmt.Errorf("talk to instance %s: %w (is it running?)", c.Instance, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var f failure
		if err := json.NewDecoder(resp.Body).Decode(&f); err != nil || f.Error == "" {
			f.Error = resp.Status
		}
		if resp.StatusCode == http.StatusNotFound {
			return notThere(f.Error)
		}
		return errors.New(f.Error)
	}
	if err := read(patientReader{resp.Body, patience, timeout}); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("instance %s does not go on with its answer within %v", c.Instance, timeout)
		}
		return fmt.Errorf("read the answer of instance %s: %w", c.Instance, err)
	}
	return nil
}

// patientReader starts a timer anew whenever there is something to read.
type patientReader struct {
	io.Reader
	timer   *time.Timer
	timeout time.Duration
}

func (r patientReader) Read(b []byte) (n int, err error) {
	n, err = r.Reader.Read(b)
	r.timer.Reset(r.timeout)
	return n, err
}

// ErrNotThere is of an instance that has not what it is asked about.
var ErrNotThere = errors.New("not there")

type notThere string

func (e notThere) Error() string      { return string(e) }
func (notThere) Is(target error) bool { return target == ErrNotThere }
