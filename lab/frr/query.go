package frr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"time"
)

// Runner runs a command where the FRR instance is and returns its output.
type Runner func(ctx context.Context, argv ...string) ([]byte, error)

// Session is what bgpd says of a neighbour.
type Session struct {
	Peer     netip.Addr
	PeerAS   uint32
	State    string        // RFC 4271 §8.2.2
	Up       time.Duration // since when it is Established, 0 if it is not
	Received int           // prefixes accepted from it
	Sent     int           // prefixes announced to it
	Reason   string        // why it went down last, "" if it never did
}

// ErrNotReady says that bgpd does not answer yet.
var ErrNotReady = errors.New("bgpd does not answer")

// Sessions asks bgpd for its neighbours, sorted by address.
func Sessions(ctx context.Context, run Runner) ([]Session, error) {
	summary, err := ask(ctx, run, "show bgp summary json")
	if err != nil {
		return nil, err
	}
	sessions, err := parseSummary(summary)
	if err != nil {
		return nil, fmt.Errorf("read bgp summary: %w", err)
	}
	detail, err := ask(ctx, run, "show bgp neighbors json")
	if err != nil {
		return nil, err
	}
	if err := addReasons(sessions, detail); err != nil {
		return nil, fmt.Errorf("read bgp neighbors: %w", err)
	}
	return sessions, nil
}

// Paths asks bgpd how many valid paths it has to each prefix of a family.
func Paths(ctx context.Context, run Runner, ipv6 bool) (map[netip.Prefix]int, error) {
	family := "ipv4"
	if ipv6 {
		family = "ipv6"
	}
	out, err := ask(ctx, run, "show bgp "+family+" unicast json")
	if err != nil {
		return nil, err
	}
	paths, err := parseRoutes(out)
	if err != nil {
		return nil, fmt.Errorf("read %s routes: %w", family, err)
	}
	return paths, nil
}

func ask(ctx context.Context, run Runner, command string) ([]byte, error) {
	out, err := run(ctx, "vtysh", "-H", "/dev/null", "-d", "bgpd", "-c", command)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return out, nil
}

func parseSummary(data []byte) ([]Session, error) {
	type peer struct {
		RemoteAS uint32 `json:"remoteAs"`
		State    string `json:"state"`
		UpMsec   int64  `json:"peerUptimeMsec"`
		Received int    `json:"pfxRcd"`
		Sent     int    `json:"pfxSnt"`
	}
	var families map[string]struct {
		Peers map[string]peer `json:"peers"`
	}
	if err := json.Unmarshal(data, &families); err != nil {
		return nil, err
	}
	var out []Session
	for _, family := range families {
		for addr, p := range family.Peers {
			peer, err := netip.ParseAddr(addr)
			if err != nil {
				return nil, err
			}
			s := Session{Peer: peer, PeerAS: p.RemoteAS, State: p.State}
			if p.State == Established {
				s.Up = time.Duration(p.UpMsec) * time.Millisecond
				s.Received, s.Sent = p.Received, p.Sent
			}
			out = append(out, s)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Peer.Less(out[j].Peer) })
	return out, nil
}

// Established is the state in which a session carries routes.
const Established = "Established"

func addReasons(sessions []Session, data []byte) error {
	var peers map[string]json.RawMessage
	if err := json.Unmarshal(data, &peers); err != nil {
		return err
	}
	for i := range sessions {
		raw, ok := peers[sessions[i].Peer.String()]
		if !ok {
			continue
		}
		var p struct {
			ResetDueTo   string `json:"lastResetDueTo"`
			Notification string `json:"lastNotificationReason"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		switch p.ResetDueTo {
		case "", "Waiting for NHT", "No AFI/SAFI activated for peer", "Waiting for peer OPEN", "No path to specified Neighbor":
			// how every session begins: no reason of its own
		default:
			sessions[i].Reason = p.ResetDueTo
		}
		if p.Notification != "" {
			sessions[i].Reason = p.Notification
		}
	}
	return nil
}

func parseRoutes(data []byte) (map[netip.Prefix]int, error) {
	var table struct {
		Routes map[netip.Prefix][]struct {
			Valid bool `json:"valid"`
		} `json:"routes"`
	}
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, err
	}
	out := map[netip.Prefix]int{}
	for prefix, paths := range table.Routes {
		for _, p := range paths {
			if p.Valid {
				out[prefix]++
			}
		}
	}
	return out, nil
}
